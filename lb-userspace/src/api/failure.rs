//! Failures: their kinds, and how they are said.

use serde::{Deserialize, Serialize};

use super::types::Failure;

/// What kind of failure; scripts can rely on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// lb could not do it: a fault of lb or of the host. HTTP 500.
    #[default]
    Internal,
    /// No such service, backend or path. HTTP 404.
    NotFound,
    /// The request makes no sense. HTTP 400.
    Invalid,
    /// It makes sense, but not in the present state. HTTP 409.
    Conflict,
    /// The configuration file is invalid; nothing has changed. HTTP 409.
    Configuration,
    /// The caller may look, but not change anything. HTTP 403.
    Forbidden,
    /// Not now: the daemon starts, stops or has too much to do. HTTP 503.
    Unavailable,
}

impl FailureKind {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::Internal => 500,
            Self::NotFound => 404,
            Self::Invalid => 400,
            Self::Forbidden => 403,
            Self::Conflict | Self::Configuration => 409,
            Self::Unavailable => 503,
        }
    }
}

impl Failure {
    /// Of a kind.
    pub fn new(kind: FailureKind, error: impl Into<String>) -> Self {
        Self { error: error.into(), kind }
    }

    /// There is no such `what` (`service`, `backend`): says which there are, the most similar first.
    pub fn unknown<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        const SHOWN: usize = 10;
        let mut known: Vec<&str> = known.into_iter().collect();
        let distance = |candidate: &str| strsim::damerau_levenshtein(candidate, name);
        known.sort_by_cached_key(|candidate| distance(candidate));
        let hint = match known.first() {
            None => format!("there are no {what}s"),
            Some(best) if distance(best) <= 1 + best.len() / 5 => format!("did you mean `{best}`?"),
            Some(_) => {
                let more = known.len().saturating_sub(SHOWN);
                let list = known[..known.len() - more].join(", ");
                let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("there is: {list}{rest}")
            }
        };
        Self::new(FailureKind::NotFound, format!("there is no {what} `{name}`; {hint}"))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.error)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_gets_the_nearest_known_one() {
        let failure = Failure::unknown("service", "wbe", ["mail", "web", "dns"]);
        assert_eq!(failure.error, "there is no service `wbe`; did you mean `web`?");
        assert_eq!(failure.kind.status(), 404);
        let failure = Failure::unknown("backend", "zzz", ["web2", "web1"]);
        assert_eq!(failure.error, "there is no backend `zzz`; there is: web2, web1");
        let failure = Failure::unknown("service", "web", []);
        assert_eq!(failure.error, "there is no service `web`; there are no services");
    }

    #[test]
    fn a_long_list_is_cut() {
        let names: Vec<String> = (0..30).map(|n| format!("b{n}")).collect();
        let failure = Failure::unknown("backend", "xyz", names.iter().map(String::as_str));
        assert!(failure.error.ends_with("and 20 more"), "{}", failure.error);
    }

    #[test]
    fn kinds_have_names_on_the_wire_and_older_answers_none() {
        let text = serde_json::to_string(&Failure::new(FailureKind::NotFound, "x")).unwrap();
        assert_eq!(text, r#"{"error":"x","kind":"not_found"}"#);
        let failure: Failure = serde_json::from_str(r#"{"error":"x"}"#).unwrap();
        assert_eq!(failure.kind, FailureKind::Internal);
    }
}
