//! Lists of prefixes of services, each replaced as a whole: the new one is filled under a number of its own before the row
//! that names it is published, and the old one goes when no packet can see the old row any more.

use lb_common::abi::ServiceRow;

use super::{Node, apply::ApplyError, loaded::Service, retire::Retired};
use crate::{config::model, dataplane::List};

const KINDS: [List; 2] = [List::Allow, List::Deny];

impl List {
    /// Its key in the configuration.
    const fn key(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }

    const fn limit_key(self) -> &'static str {
        match self {
            Self::Allow => "allow_prefixes",
            Self::Deny => "deny_prefixes",
        }
    }

    /// What a service has in it; `None` = its file has not been read.
    fn of(self, spec: &model::Service) -> Option<Vec<ipnet::IpNet>> {
        match self {
            Self::Allow => spec.allowed(),
            Self::Deny => spec.denied(),
        }
    }

    fn number(self, service: &mut Service) -> &mut u32 {
        match self {
            Self::Allow => &mut service.allow_list,
            Self::Deny => &mut service.deny_list,
        }
    }

    const fn number_in(self, row: &ServiceRow) -> u32 {
        match self {
            Self::Allow => row.allow_list,
            Self::Deny => row.deny_list,
        }
    }
}

impl Node {
    /// Fills new lists for a service where they differ from those that are loaded; its next row names them. Tells what has
    /// changed.
    pub(super) fn change_lists(
        &mut self,
        index: usize,
        spec: &model::Service,
    ) -> Result<Vec<String>, ApplyError> {
        let mut lines = Vec::new();
        for kind in KINDS {
            let old = *kind.number(&mut self.services[index]);
            let Some(wanted) = kind.of(spec) else {
                // Not read: what is loaded stays in force; with nothing loaded, everybody or nobody would get in.
                if old == 0 {
                    return Err(ApplyError::Unread { key: kind.key(), service: spec.name.clone() });
                }
                continue;
            };
            if (old == 0 && wanted.is_empty())
                || (old != 0 && !wanted.is_empty() && self.dataplane.list_is(kind, old, &wanted))
            {
                continue;
            }
            let new = if wanted.is_empty() { 0 } else { self.new_list(kind, &wanted)? };
            *kind.number(&mut self.services[index]) = new;
            lines.push(format!("{}: {} prefixes", kind.key(), wanted.len()));
            if old != 0 {
                self.retire(Retired::List(kind, old));
            }
        }
        Ok(lines)
    }

    fn new_list(&mut self, kind: List, prefixes: &[ipnet::IpNet]) -> Result<u32, ApplyError> {
        let list = self.list_numbers.take().ok_or(ApplyError::Limit {
            what: "lists of prefixes",
            key: "services",
            needed: 1,
            left: 0,
        })?;
        if let Err(error) = self.dataplane.fill_list(kind, list, prefixes) {
            self.retire(Retired::List(kind, list));
            let what = format!("the {} list cannot be filled", kind.key());
            return Err(ApplyError::Dataplane(anyhow::Error::new(error).context(what)));
        }
        Ok(list)
    }

    /// Whether all lists fit, those on their way out counted.
    pub(super) fn check_lists(&self, config: &model::Config) -> Result<(), ApplyError> {
        for kind in KINDS {
            let count = |spec| kind.of(spec).map_or(0, |list| list.len() as u64);
            let needed = config.services.iter().map(count).sum::<u64>();
            let (limit, room) = self.dataplane.list_room(kind);
            if needed > limit.min(room) {
                let left = limit.min(room);
                let what = match kind {
                    List::Allow => "allow prefixes",
                    List::Deny => "deny prefixes",
                };
                return Err(ApplyError::Limit { what, key: kind.limit_key(), needed, left });
            }
        }
        Ok(())
    }

    /// Removes what a daemon that has crashed was filling, or had no time to remove.
    pub(super) fn drop_orphaned_lists(&mut self) {
        for kind in KINDS {
            let named: Vec<u32> = (self.services.iter())
                .map(|service| kind.number_in(&self.dataplane.services().get(service.row)))
                .collect();
            if let Err(error) = self.dataplane.keep_lists(kind, &named) {
                tracing::warn!(%error, ?kind, "lists that no service has could not be removed");
            }
        }
    }
}
