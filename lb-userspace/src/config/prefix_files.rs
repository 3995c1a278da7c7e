//! The files that `allow_file` and `deny_file` name: one prefix a line.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    Diagnostic, Errors, Parsed,
    file::read_own,
    model::{Listen, PrefixFile},
    value::{Prefix, Wrong},
};

/// Wrong lines of a file that are told.
const MOST_ERRORS: usize = 5;

impl Parsed {
    /// Reads the files that the configuration names. Errors stand where it names them, and tell the file's line.
    pub fn with_prefix_files(mut self) -> Result<Self, Errors> {
        let mut known: HashMap<PathBuf, Result<Vec<IpNet>, Vec<Wrong>>> = HashMap::new();
        let mut diagnostics = Vec::new();
        for index in 0..self.config.services.len() {
            let service = &mut self.config.services[index];
            let listen = service.listen.clone();
            for (key, file, needs_some) in [
                ("allow_file", &mut service.allow_file, service.allow.is_empty()),
                ("deny_file", &mut service.deny_file, false),
            ] {
                let Some(file) = file else { continue };
                let path = format!("services[{index}].{key}");
                let read = known.entry(file.path.clone()).or_insert_with(|| read(&file.path));
                match read {
                    Ok(prefixes) => take(file, prefixes, &listen),
                    Err(wrongs) => {
                        diagnostics
                            .extend(wrongs.iter().map(|wrong| (path.clone(), wrong.clone())));
                        continue;
                    }
                }
                if needs_some && file.prefixes.as_deref().is_some_and(<[IpNet]>::is_empty) {
                    let family = if listen.address.is_ipv4() { "IPv4" } else { "IPv6" };
                    let what = format!("{} has no {family} prefix", file.path.display());
                    let help = format!("nobody could get in: write one, or remove {key}");
                    diagnostics.push((path, Wrong { what, help }));
                }
            }
        }
        if diagnostics.is_empty() {
            return Ok(self);
        }
        let located = diagnostics
            .iter()
            .map(|(path, wrong)| self.diagnostic(path, &wrong.what, &wrong.help))
            .collect();
        Err(self.errors(located))
    }
}

fn take(file: &mut PrefixFile, prefixes: &[IpNet], listen: &Listen) {
    let of_family = |prefix: &&IpNet| listen.has_family_of(prefix.addr());
    file.prefixes = Some(prefixes.iter().filter(of_family).copied().collect::<Arc<[IpNet]>>());
}

fn read(path: &Path) -> Result<Vec<IpNet>, Vec<Wrong>> {
    let shown = path.display().to_string();
    let (source, _) = read_own(path).map_err(|errors| {
        let wrong = |error: Diagnostic| Wrong {
            what: format!("{shown}: {}", error.message),
            help: error.help.unwrap_or_default(),
        };
        errors.diagnostics.into_iter().map(wrong).collect::<Vec<_>>()
    })?;
    parse(&shown, &source.text)
}

/// Each line's prefix, or what is wrong with the first lines that are.
fn parse(name: &str, text: &str) -> Result<Vec<IpNet>, Vec<Wrong>> {
    let mut prefixes = Vec::new();
    let mut wrongs = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let text = line.split(['#', ';']).next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let one = text.parse::<Prefix>().map_err(|wrong| {
            let text: String = text.chars().take(60).collect();
            let (text, what) = (text.escape_debug(), wrong.what);
            Wrong { what: format!("{name}:{}: `{text}` {what}", index + 1), help: wrong.help }
        });
        match one {
            Ok(Prefix(prefix)) => prefixes.push(unmapped(prefix)),
            Err(wrong) => wrongs.push(wrong),
        }
        if wrongs.len() == MOST_ERRORS {
            break;
        }
    }
    if wrongs.is_empty() { Ok(prefixes) } else { Err(wrongs) }
}

/// `::ffff:192.0.2.0/120` is 192.0.2.0/24.
fn unmapped(prefix: IpNet) -> IpNet {
    let IpNet::V6(v6) = prefix else { return prefix };
    let v4 = v6.addr().to_ipv4_mapped().map(IpAddr::V4);
    v4.zip(v6.prefix_len().checked_sub(96))
        .and_then(|(address, length)| IpNet::new(address, length).ok())
        .unwrap_or(prefix)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::config::{Source, parse as parse_file};

    fn configured(keys: &str) -> Parsed {
        let text = format!(
            "services:\n  - name: web\n    listen: {{address: 192.0.2.10, port: 80}}\n    forward: nat\n{keys}    \
             backends: [{{name: web1, address: 10.0.0.11}}]\n"
        );
        parse_file(&Source { path: "lb.yaml".into(), text }).unwrap()
    }

    #[test]
    fn one_prefix_a_line_and_comments() {
        let text = "# a list\n10.0.0.0/8\r\n\n  192.0.2.7 # a host\n198.51.100.0/24 ; SBL1\n2001:db8::/32\n\
                     ::ffff:203.0.113.0/120";
        let found: Vec<String> =
            parse("f", text).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            ["10.0.0.0/8", "192.0.2.7/32", "198.51.100.0/24", "2001:db8::/32", "203.0.113.0/24"]
        );
        assert_eq!(parse("f", ""), Ok(Vec::new()));
    }

    #[test]
    fn wrong_lines_are_named() {
        let wrongs = parse("/etc/x", "10.0.0.0/8\n10.0.0.1/8\n\nweb\x1b[m\n").unwrap_err();
        let told: Vec<String> = wrongs.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("/etc/x:2: `10.0.0.1/8` is not a network"), "{told:?}");
        assert!(told[1].starts_with("/etc/x:4: `web\\u{1b}[m` "), "{told:?}");
        assert_eq!(parse("f", &"x\n".repeat(100)).unwrap_err().len(), MOST_ERRORS);
    }

    #[test]
    fn files_are_read_where_the_configuration_names_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        fs::write(&path, "10.0.0.0/8\nfd00::/8\n").unwrap();
        let keys = |key: &str| format!("    {key}: {}\n", path.display());
        let read = configured(&keys("deny_file")).with_prefix_files().unwrap();
        let service = &read.config.services[0];
        assert_eq!(service.denied(), Some(vec!["10.0.0.0/8".parse().unwrap()]), "IPv6 left out");
        assert_eq!(service.allowed(), Some(Vec::new()));
        assert_eq!(configured(&keys("deny_file")).config.services[0].denied(), None, "not read");

        fs::write(&path, "fd00::/8\n").unwrap();
        let error = configured(&keys("allow_file")).with_prefix_files().unwrap_err().to_string();
        assert!(error.starts_with("lb.yaml:5:17: ") && error.contains("no IPv4 prefix"), "{error}");
        // Where others may in, an empty file is no lock-out; nor is an empty deny list.
        let both = keys("allow_file") + "    allow: [10.0.0.1]\n";
        configured(&both).with_prefix_files().unwrap();
        configured(&keys("deny_file")).with_prefix_files().unwrap();

        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let error = configured(&keys("deny_file")).with_prefix_files().unwrap_err().to_string();
        assert!(error.contains("everybody may write") && error.contains("chmod o-w"), "{error}");
        fs::remove_file(&path).unwrap();
        let error = configured(&keys("deny_file")).with_prefix_files().unwrap_err().to_string();
        assert!(error.contains("cannot read"), "{error}");
    }
}
