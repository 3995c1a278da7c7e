//! Who may look, and who may change: what a request has to bring, judged by its headers alone.

use axum::http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN},
};

use super::{
    super::host,
    token::{Token, TokenError},
};
use crate::{
    api::types::{Failure, FailureKind},
    config::model::Dashboard,
};

/// What is asked of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Without one, everybody may look.
    token: Option<Token>,
    /// Whoever shows the token may change backends.
    write: bool,
    /// Names in `Host` beside addresses and `localhost`.
    hosts: Vec<String>,
}

/// Why a request is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It shows no token, or a wrong one.
    Token,
    /// Anything else.
    Refused(Failure),
}

impl Access {
    /// What the configuration wants; reads the token's file.
    pub fn new(dashboard: &Dashboard) -> Result<Self, TokenError> {
        let token = dashboard.token_file.as_deref().map(Token::read).transpose()?;
        Ok(Self {
            write: dashboard.write && token.is_some(),
            token,
            hosts: dashboard.hosts.clone(),
        })
    }

    /// Whether changes are possible at all.
    pub fn may_write(&self) -> bool {
        self.write
    }

    /// Any request: it has to be for us.
    pub fn check_host(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let remedy = "use an address or localhost, or add the name to `dashboard.hosts`";
        host::check(headers, &self.hosts, remedy)
    }

    /// A request for data: no other page may cause it, and the token has to be shown.
    pub fn check_read(&self, headers: &HeaderMap) -> Result<(), Denied> {
        if let Some(site) = headers.get("sec-fetch-site")
            && !["same-origin", "none"].contains(&site.to_str().unwrap_or_default())
        {
            return Err(refused("another page may not ask for this (Sec-Fetch-Site)"));
        }
        if let Some(origin) = headers.get(ORIGIN)
            && !is_own_origin(origin, headers)
        {
            return Err(refused("another page may not ask for this (Origin)"));
        }
        match &self.token {
            None => Ok(()),
            Some(token) => match headers.get(AUTHORIZATION) {
                Some(shown) if token.is_shown_by(shown.as_bytes()) => Ok(()),
                _ => Err(Denied::Token),
            },
        }
    }

    /// A request that changes something: as [`Self::check_read`], and JSON, which no form of another page can send.
    pub fn check_write(&self, headers: &HeaderMap) -> Result<(), Denied> {
        if !self.write {
            let remedy = "set `dashboard.write: true` and a `token_file`, or use the command line";
            return Err(refused(&format!("the dashboard may only look: {remedy}")));
        }
        self.check_read(headers)?;
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(refused("a change is sent as application/json"));
        }
        Ok(())
    }
}

/// `http://HOST` or `https://HOST` of the very host that the request is for.
fn is_own_origin(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| {
        host::of(headers).is_ok_and(|host| host.eq_ignore_ascii_case(authority))
    })
}

fn refused(error: &str) -> Denied {
    Denied::Refused(Failure::new(FailureKind::Forbidden, error))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn access(token: Option<&str>, write: bool) -> Access {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        if let Some(token) = token {
            fs::write(&file, token).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        Access::new(&Dashboard {
            listen: "127.0.0.1:8404".parse().unwrap(),
            token_file: token.map(|_| file),
            write,
            hosts: vec!["lb1.example.org".into()],
        })
        .unwrap()
    }

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers: HeaderMap = list
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        headers.entry("host").or_insert(HeaderValue::from_static("127.0.0.1:8404"));
        headers
    }

    const TOKEN: &str = "0123456789abcdef";
    const SHOWN: (&str, &str) = ("authorization", "Bearer 0123456789abcdef");
    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

    #[test]
    fn a_foreign_page_may_not_even_look() {
        let access = access(None, false);
        assert_eq!(access.check_read(&headers(&[])), Ok(()));
        assert_eq!(access.check_read(&headers(&[("sec-fetch-site", "same-origin")])), Ok(()));
        assert_eq!(access.check_read(&headers(&[("origin", "http://127.0.0.1:8404")])), Ok(()));
        for foreign in [
            ("sec-fetch-site", "cross-site"),
            // Another port of the same host is the same site.
            ("sec-fetch-site", "same-site"),
            ("origin", "http://evil.example"),
            ("origin", "http://127.0.0.1:3000"),
            ("origin", "null"),
        ] {
            let denied = access.check_read(&headers(&[foreign]));
            assert!(matches!(denied, Err(Denied::Refused(_))), "{foreign:?}");
        }
        access.check_host(&headers(&[("host", "lb1.example.org")])).unwrap();
        let failure = access.check_host(&headers(&[("host", "evil.example")])).unwrap_err();
        assert!(failure.error.contains("dashboard.hosts"), "{failure}");
    }

    #[test]
    fn with_a_token_nobody_looks_without() {
        let access = access(Some(TOKEN), false);
        assert_eq!(access.check_read(&headers(&[])), Err(Denied::Token));
        let wrong = ("authorization", "Bearer 0123456789abcdeX");
        assert_eq!(access.check_read(&headers(&[wrong])), Err(Denied::Token));
        assert_eq!(access.check_read(&headers(&[SHOWN])), Ok(()));
    }

    #[test]
    fn a_change_takes_the_configuration_the_token_and_json() {
        let refused = |access: &Access, list: &[_]| {
            matches!(access.check_write(&headers(list)), Err(Denied::Refused(_)))
        };
        assert!(refused(&access(Some(TOKEN), false), &[SHOWN, JSON]));
        assert!(refused(&access(None, true), &[SHOWN, JSON]));
        let access = access(Some(TOKEN), true);
        assert_eq!(access.check_write(&headers(&[SHOWN, JSON])), Ok(()));
        assert_eq!(access.check_write(&headers(&[JSON])), Err(Denied::Token));
        assert!(refused(&access, &[SHOWN]));
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
            assert!(refused(&access, &[SHOWN, ("content-type", kind)]), "{kind}");
        }
        assert!(refused(&access, &[SHOWN, JSON, ("origin", "http://evil.example")]));
    }
}
