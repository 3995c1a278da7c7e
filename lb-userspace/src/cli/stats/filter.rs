//! `lb stats SERVICE[/BACKEND]`

use std::collections::BTreeMap;

use crate::{
    api::types::{Failure, Stats},
    cli::target::Filter,
};

/// Only what is asked for; node-wide reasons belong to no service and go.
pub fn apply(stats: Stats, wanted: &Filter) -> Result<Stats, Failure> {
    let names = || stats.services.iter().map(|service| service.name.as_str());
    let Some(index) = names().position(|name| name == wanted.service) else {
        let mut failure = Failure::unknown("service", &wanted.service, names());
        if crate::cli::units::parse_interval(&wanted.service).is_ok() {
            failure.error += &format!(" (for an interval, write --watch={})", wanted.service);
        }
        return Err(failure);
    };
    let mut service = stats.services[index].clone();
    if let Some(backend) = &wanted.backend {
        if !service.backends.iter().any(|candidate| candidate.name == *backend) {
            let known = service.backends.iter().map(|backend| backend.name.as_str());
            return Err(Failure::unknown("backend", backend, known));
        }
        service.backends.retain(|candidate| candidate.name == *backend);
    }
    Ok(Stats { services: vec![service], node: BTreeMap::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{BackendStats, ServiceStats};

    fn stats() -> Stats {
        let backend = |name: &str| BackendStats { name: name.into(), ..BackendStats::default() };
        let service = |name: &str| ServiceStats {
            name: name.into(),
            backends: vec![backend("a1"), backend("a2")],
            ..ServiceStats::default()
        };
        let node = BTreeMap::from([("passed".to_owned(), 1)]);
        Stats { services: vec![service("web"), service("dns")], node }
    }

    fn filtered(text: &str) -> Result<Stats, Failure> {
        apply(stats(), &text.parse().unwrap())
    }

    #[test]
    fn only_what_is_asked_for_stays() {
        let web = filtered("web").unwrap();
        assert_eq!((web.services.len(), web.services[0].backends.len()), (1, 2));
        assert!(web.node.is_empty());
        let one = filtered("dns/a2").unwrap();
        assert_eq!(one.services[0].name, "dns");
        assert_eq!(one.services[0].backends[0].name, "a2");
        assert_eq!(one.services[0].backends.len(), 1);
    }

    #[test]
    fn unknown_names_get_a_hint() {
        let error = filtered("wbe").unwrap_err().error;
        assert!(error.contains("did you mean `web`?"), "{error}");
        let error = filtered("web/a3").unwrap_err().error;
        assert!(error.contains("no backend `a3`"), "{error}");
        let error = filtered("2").unwrap_err().error;
        assert!(error.contains("--watch=2"), "{error}");
    }
}
