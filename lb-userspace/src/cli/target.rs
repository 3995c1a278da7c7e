//! `SERVICE/BACKEND`

use std::str::FromStr;

/// A backend by its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The service.
    pub service: String,
    /// The backend.
    pub backend: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((service, backend)) if !service.is_empty() && !backend.is_empty() => {
                Ok(Self { service: service.to_owned(), backend: backend.to_owned() })
            }
            _ => Err("expected SERVICE/BACKEND, such as `web/web1`; `lb status` lists them".into()),
        }
    }
}

/// One service, or one of its backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The service.
    pub service: String,
    /// The backend; `None` = all.
    pub backend: Option<String>,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (service, backend) = match text.split_once('/') {
            Some((service, backend)) => (service, Some(backend)),
            None => (text, None),
        };
        if service.is_empty() || backend.is_some_and(str::is_empty) {
            return Err("expected SERVICE or SERVICE/BACKEND, such as `web/web1`".into());
        }
        Ok(Self { service: service.to_owned(), backend: backend.map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_the_slash() {
        let target: Target = "web/web1".parse().unwrap();
        assert_eq!((target.service.as_str(), target.backend.as_str()), ("web", "web1"));
        for wrong in ["web", "/web1", "web/", ""] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
        assert_eq!("web".parse::<Filter>().unwrap().backend, None);
        assert_eq!("web/a".parse::<Filter>().unwrap().backend.as_deref(), Some("a"));
        assert!("web/".parse::<Filter>().is_err());
    }
}
