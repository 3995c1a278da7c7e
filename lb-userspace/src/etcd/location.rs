//! `etcd://HOST[:PORT][,HOST..]/PREFIX[?OPTION=VALUE&..]`: where a fleet's configuration is.

use std::{fmt, path::PathBuf, str::FromStr};

/// How such a place begins.
pub const SCHEME: &str = "etcd://";
/// etcd's port for clients.
const PORT: u16 = 2379;
/// Endpoints that may be named.
const MOST_ENDPOINTS: usize = 16;

/// Where a configuration is, and how to get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Members of the etcd cluster, the preferred one first.
    pub endpoints: Vec<Endpoint>,
    /// Begin of all keys, without a slash at the end.
    pub prefix: String,
    /// TLS, if wanted.
    pub tls: Option<Tls>,
    /// Name, and the 0600 file of the password.
    pub user: Option<(String, PathBuf)>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address, without brackets.
    pub host: String,
    /// Its port for clients.
    pub port: u16,
}

/// Whom to trust, and who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authorities of the members' certificates; `None` = those of the host.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

impl Location {
    /// Where the YAML is.
    pub fn config_key(&self) -> String {
        format!("{}/config", self.prefix)
    }

    /// Where a node's report is.
    pub fn node_key(&self, node: &str) -> String {
        format!("{}/nodes/{node}", self.prefix)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<String> = self.endpoints.iter().map(Endpoint::to_string).collect();
        write!(f, "{SCHEME}{}/{}", endpoints.join(","), self.prefix)?;
        let mut options = Vec::new();
        if let Some(tls) = &self.tls {
            match (&tls.ca_file, &tls.certificate) {
                (None, None) => options.push("tls=true".to_owned()),
                (Some(path), _) => options.push(format!("ca_file={}", path.display())),
                _ => {}
            }
            if let Some((certificate, key)) = &tls.certificate {
                options.push(format!("cert_file={}", certificate.display()));
                options.push(format!("key_file={}", key.display()));
            }
        }
        if let Some((user, password)) = &self.user {
            options.push(format!("user={user}"));
            options.push(format!("password_file={}", password.display()));
        }
        match options.is_empty() {
            true => Ok(()),
            false => write!(f, "?{}", options.join("&")),
        }
    }
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| format!("it begins with `{SCHEME}`"))?;
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_end_matches('/');
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
        if prefix.is_empty() || prefix.len() > 256 || !prefix.bytes().all(is_plain) {
            return Err(
                "name the prefix of the keys after the hosts, of letters, digits, `/`, `.`, `_` and `-`, such as \
                 etcd://10.0.0.5:2379/lb"
                    .to_owned(),
            );
        }
        let endpoints = hosts.split(',').map(endpoint).collect::<Result<Vec<_>, _>>()?;
        if endpoints.len() > MOST_ENDPOINTS {
            return Err(format!("{} hosts: at most {MOST_ENDPOINTS}", endpoints.len()));
        }
        let mut location = Self { endpoints, prefix: prefix.to_owned(), tls: None, user: None };
        location.take_options(options)?;
        Ok(location)
    }
}

impl Location {
    fn take_options(&mut self, options: &str) -> Result<(), String> {
        let (mut tls, mut ca, mut certificate, mut key) = (false, None, None, None);
        let (mut user, mut password) = (None, None);
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option
                .split_once('=')
                .filter(|(_, value)| !value.is_empty())
                .ok_or_else(|| format!("`{option}`: an option is NAME=VALUE"))?;
            let place = match name {
                "tls" if value == "true" => {
                    tls = true;
                    continue;
                }
                "tls" => return Err("tls: only `tls=true` has a meaning".to_owned()),
                "user" => &mut user,
                "ca_file" => &mut ca,
                "cert_file" => &mut certificate,
                "key_file" => &mut key,
                "password_file" => &mut password,
                _ => {
                    return Err(format!(
                        "unknown option `{name}`: there are tls, ca_file, cert_file, key_file, user, password_file"
                    ));
                }
            };
            if name.ends_with("_file") && !value.starts_with('/') {
                return Err(format!("{name}: write the whole path, from / on"));
            }
            if place.replace(value.to_owned()).is_some() {
                return Err(format!("{name} is there twice"));
            }
        }
        let certificate = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            _ => return Err("cert_file and key_file belong together".to_owned()),
        };
        if tls || ca.is_some() || certificate.is_some() {
            self.tls = Some(Tls { ca_file: ca.map(PathBuf::from), certificate });
        }
        self.user = match (user, password) {
            (None, None) => None,
            (Some(user), Some(password)) => Some((user, password.into())),
            _ => return Err("user and password_file belong together".to_owned()),
        };
        if self.user.is_some() && self.tls.is_none() && !self.endpoints.iter().all(is_this_host) {
            return Err(
                "a password does not go over the network in the clear: add ca_file=.., or tls=true"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

fn is_this_host(endpoint: &Endpoint) -> bool {
    let address = endpoint.host.parse::<std::net::IpAddr>();
    endpoint.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    let wrong = || format!("`{text}`: a host is NAME, NAME:PORT, ADDRESS:PORT or [ADDRESS]:PORT");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            (host, (!rest.is_empty()).then(|| rest.strip_prefix(':').ok_or_else(wrong)))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(Ok(port))),
            None => (text, None),
        },
    };
    let port = match port.transpose()? {
        None => PORT,
        Some(port) => port.parse().ok().filter(|port: &u16| *port > 0).ok_or_else(wrong)?,
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:_".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_plain) {
        return Err(wrong());
    }
    Ok(Endpoint { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_written() {
        for (text, shown) in [
            ("etcd://10.0.0.5/lb", "etcd://10.0.0.5:2379/lb"),
            ("etcd://a:1,[fd00::1]:2,b/lb/edge/", "etcd://a:1,[fd00::1]:2,b:2379/lb/edge"),
            ("etcd://[fd00::1]/lb?tls=true", "etcd://[fd00::1]:2379/lb?tls=true"),
            (
                "etcd://a/lb?user=lb&password_file=/p&ca_file=/ca&cert_file=/c&key_file=/k",
                "etcd://a:2379/lb?ca_file=/ca&cert_file=/c&key_file=/k&user=lb&password_file=/p",
            ),
            (
                "etcd://127.0.0.1/lb?user=lb&password_file=/p",
                "etcd://127.0.0.1:2379/lb?user=lb&password_file=/p",
            ),
        ] {
            let location: Location = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(location.to_string(), shown);
            assert_eq!(shown.parse(), Ok(location));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("/etc/lb.yaml", "begins with `etcd://`"),
            ("etcd://10.0.0.5", "name the prefix"),
            ("etcd://10.0.0.5/", "name the prefix"),
            ("etcd://10.0.0.5/a b", "name the prefix"),
            ("etcd:///lb", "a host is"),
            ("etcd://a,,b/lb", "a host is"),
            ("etcd://a:0/lb", "a host is"),
            ("etcd://a:70000/lb", "a host is"),
            ("etcd://[10.0.0.1]/lb", "a host is"),
            ("etcd://fd00::1/lb", "a host is"),
            ("etcd://a/lb?key_file=/k", "belong together"),
            ("etcd://a/lb?user=u", "belong together"),
            ("etcd://a/lb?ca_file=ca.pem", "the whole path"),
            ("etcd://a/lb?ca_file=/a&ca_file=/b", "twice"),
            ("etcd://a/lb?tls=false", "tls=true"),
            ("etcd://a/lb?ca=/x", "unknown option `ca`"),
            ("etcd://a/lb?user=u&password_file=/p", "in the clear"),
        ] {
            let error = text.parse::<Location>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn keys_stand_under_the_prefix() {
        let location: Location = "etcd://a/lb/edge".parse().unwrap();
        assert_eq!(location.config_key(), "lb/edge/config");
        assert_eq!(location.node_key("n1"), "lb/edge/nodes/n1");
    }
}
