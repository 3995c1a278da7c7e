//! YAML as written -> a checked model that cannot be invalid.
//!
//! `document` reads the text into a tree that knows its lines and columns; `check` compares the tree with the shape of
//! the file (`shape`, from the JSON Schema, from the types in `spec`); serde makes a `spec::File` of it; `resolve` fills
//! in defaults; `rules` judges what no type can say. Errors of all steps come together, each with its place.
//!
//! What depends on the host (does the NIC exist, whose address is the VIP) is not judged here: a file that is valid on
//! one node is valid on every node. [`Parsed::locate`] lends the places to those who judge it.

mod check;
#[cfg(test)]
mod corpus;
pub mod diagnostic;
mod document;
pub mod edit;
#[cfg(test)]
mod effects;
mod example;
mod file;
#[cfg(test)]
mod hostile;
pub mod list;
pub mod model;
mod prefix_files;
mod resolve;
mod rules;
mod schema;
mod shape;
mod spec;
mod tracks;
pub(crate) mod value;
mod words;

pub(crate) use self::rules::refuse as refuse_address;
use self::{
    diagnostic::Findings,
    document::{Document, Position},
    rules::Context,
};
pub use self::{
    diagnostic::{Diagnostic, Errors},
    example::every_option_yaml,
    file::{load, read_own},
    model::{Config, Source},
    schema::schema,
};

/// A valid file.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What it says.
    pub config: Config,
    /// What is doubtful about it.
    pub warnings: Vec<Diagnostic>,
    source: Source,
    document: Document,
}

impl Parsed {
    /// Line and column (from 1) of what `path` names, such as `services[0].listen.address`; of the nearest thing
    /// around it where that is not written.
    pub fn locate(&self, path: &str) -> (u32, u32) {
        let Position { line, column } = self.document.locate(path);
        (line, column)
    }

    /// A diagnostic about `path`, for what can only be judged on the host.
    pub fn diagnostic(&self, path: &str, message: &str, help: &str) -> Diagnostic {
        Diagnostic::at(self.document.locate(path), path, message, help)
    }

    /// Errors found on the host, displayed like those of [`parse`].
    pub fn errors(&self, diagnostics: Vec<Diagnostic>) -> Errors {
        Errors::new(self.source.clone(), diagnostics)
    }

    /// Each warning with its place and line, as errors are displayed.
    pub fn rendered_warnings(&self) -> impl Iterator<Item = String> {
        self.warnings.iter().map(|warning| diagnostic::render(&self.source, warning))
    }

    /// The file.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

/// Reads and checks a text.
pub fn parse(source: &Source) -> Result<Parsed, Errors> {
    let fail = |diagnostics| Err(Errors::new(source.clone(), diagnostics));
    let document = match Document::read(&source.text) {
        Ok(document) => document,
        Err(diagnostic) => return fail(vec![diagnostic]),
    };
    let mut checked = check::check(&document);
    let mut findings = Findings::new(&document);
    findings.errors = std::mem::take(&mut checked.errors);
    let config = match spec::File::from_checked(&mut checked) {
        Ok((file, indices)) => {
            let config = resolve::config(&file);
            let context =
                Context { file: &file, config: &config, indices: &indices, wrong: &checked.wrong };
            rules::judge(&context, &mut findings);
            config
        }
        Err(diagnostic) => {
            findings.errors.push(diagnostic);
            return fail(findings.errors);
        }
    };
    let Findings { errors, mut warnings, .. } = findings;
    if !errors.is_empty() {
        return fail(errors);
    }
    warnings.sort_by_key(|warning| (warning.line, warning.column));
    Ok(Parsed { config, warnings, source: source.clone(), document })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Parsed {
        let source = Source { path: "lb.yaml".into(), text: text.to_owned() };
        parse(&source).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn examples_are_valid_and_leave_no_doubt() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
        let mut found = 0;
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue; // folders hold other programs' files, too
            }
            let parsed = parsed(&std::fs::read_to_string(&path).unwrap());
            let warnings: Vec<_> = match path.ends_with("every-option.yaml") {
                true => Vec::new(), // `example` looks at these
                false => parsed.rendered_warnings().collect(),
            };
            assert!(warnings.is_empty(), "{}: {}", path.display(), warnings.join("\n"));
            found += 1;
        }
        assert!(found >= 5, "only {found} examples in {}", directory.display());
    }

    #[test]
    fn errors_look_like_a_compilers() {
        let text = "\
services:
  - name: web
    listen: {adress: 192.0.2.10, address: 192.0.2.10, port: 0}
    forward: nat
    backends: [{name: web1, address: 10.0.0.11}]
";
        let source = Source { path: "conf/lb.yaml".into(), text: text.into() };
        assert_eq!(
            parse(&source).unwrap_err().to_string(),
            "\
conf/lb.yaml:3:14: unknown key `adress` in services[0].listen: did you mean `address`?
     3 |     listen: {adress: 192.0.2.10, address: 192.0.2.10, port: 0}
       |              ^^^^^^
conf/lb.yaml:3:61: `0` in services[0].listen.port is not a port: write a number from 1 to 65535, a range as in 8000-8999, or any
     3 |     listen: {adress: 192.0.2.10, address: 192.0.2.10, port: 0}
       |                                                             ^"
        );
    }

    #[test]
    fn places_serve_those_who_judge_on_the_host() {
        let parsed = parsed(include_str!("../../configs/minimal.yaml"));
        assert_eq!(parsed.locate("services[0].listen.address"), (5, 23));
        assert_eq!(parsed.locate("services[0].listen.interfaces[3]"), (5, 5));
        assert_eq!(parsed.locate("interfaces"), (3, 1));
        let diagnostic = parsed.diagnostic("services[0].listen.address", "in use", "take another");
        let errors = parsed.errors(vec![diagnostic]).to_string();
        assert!(errors.starts_with("lb.yaml:5:23: in use: take another\n     5 |"), "{errors}");
        assert!(errors.ends_with("^^^^^^^^^^"), "{errors}");
    }

    #[test]
    fn what_is_doubtful_is_a_warning() {
        for (lines, expected) in [
            ("ring_size: 1021", None),
            (
                "backend_defaults: {inter: 5s}",
                Some("4:31: services[0].backend_defaults.inter has no effect without a check: add"),
            ),
            (
                "timeouts: {udp: 5s}",
                Some("4:21: services[0].timeouts.udp has no effect on a tcp service"),
            ),
            (
                "timeouts: {tcp: 5s}",
                Some("4:5: services[0].timeouts.tcpfin (2m) is longer than tcp (5s)"),
            ),
            ("backend_defaults: {weight: 0}", Some("5:5: all backends of `web` have weight 0")),
            (
                "allow: [10.0.0.0/8, 10.0.0.0/8]",
                Some("4:25: 10.0.0.0/8 is there twice, first in line 4, column 13"),
            ),
            ("window: 8000s", Some("4:13: services[0].window is longer than an hour")),
        ] {
            let text = format!(
                "services:\n  - name: web\n    listen: {{address: 192.0.2.10, port: 80}}\n    {lines}\n    \
                 backends: [{{name: web1, address: 10.0.0.11}}]\n    forward: nat\n"
            );
            let found = parsed(&text).warnings;
            let shown: Vec<_> =
                found.iter().map(|w| format!("{}:{}: {w}", w.line, w.column)).collect();
            match expected {
                None => assert_eq!(shown, [""; 0], "{lines}"),
                Some(start) => {
                    assert!(shown.len() == 1 && shown[0].starts_with(start), "{lines}: {shown:?}");
                }
            }
        }
    }
}
