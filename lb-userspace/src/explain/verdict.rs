//! What the program has decided about a packet, in words.

use std::collections::HashMap;

use lb_common::abi::{BackendId, Phase, Reason, Trace, trace_flag};

use crate::api::types::PacketVerdict;

/// Names of what a [`Trace`] has numbers of.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Services by id.
    pub services: HashMap<u32, String>,
    /// Backends by id: their services' names and their own.
    pub backends: HashMap<BackendId, (String, String)>,
    /// NICs by index.
    pub interfaces: HashMap<u32, String>,
}

impl Names {
    /// The verdict in words.
    pub fn verdict(&self, trace: &Trace) -> PacketVerdict {
        let (service, backend) = self.whose(trace);
        let phase = match trace.flags & trace_flag::CHANGING {
            0 => Phase::Settled,
            _ => trace.slot.phase(),
        };
        PacketVerdict {
            verdict: word(trace).to_owned(),
            reason: reason(trace).to_owned(),
            service,
            backend,
            beside: beside(trace).map(|reason| reason.name().to_owned()).collect(),
            phase: (trace.backend != BackendId::NONE).then(|| format!("{phase:?}").to_uppercase()),
            egress: (trace.egress != 0).then(|| self.interface(trace.egress)),
        }
    }

    /// Name of a NIC, or its number.
    pub fn interface(&self, ifindex: u32) -> String {
        self.interfaces.get(&ifindex).cloned().unwrap_or_else(|| format!("#{ifindex}"))
    }

    fn whose(&self, trace: &Trace) -> (Option<String>, Option<String>) {
        if trace.backend != BackendId::NONE {
            return match self.backends.get(&trace.backend) {
                Some((service, backend)) => (Some(service.clone()), Some(backend.clone())),
                None => (None, Some(format!("#{}", trace.backend.0))),
            };
        }
        let name = |id| self.services.get(&id).cloned().unwrap_or_else(|| format!("#{id}"));
        ((trace.service() != 0).then(|| name(trace.service())), None)
    }
}

/// `forwarded` (to a backend), `returned` (to a client), `answered`, `passed` (to this host), `dropped`, `aborted`.
pub fn word(trace: &Trace) -> &'static str {
    match trace.action() {
        0 => "aborted",
        1 => "dropped",
        2 => "passed",
        _ if trace.flags & trace_flag::REQUEST != 0 => "forwarded",
        _ if trace.flags & trace_flag::REPLY != 0 => "returned",
        _ => "answered",
    }
}

/// Name of the reason that the packet was counted under.
pub fn reason(trace: &Trace) -> &'static str {
    let known = |number| Reason::ALL.iter().find(|reason| **reason as u32 == number);
    match trace.reason() {
        None => Reason::Transmitted.name(),
        Some(number) => known(number).map_or("unknown", |reason| reason.name()),
    }
}

/// Reasons that were counted beside it.
pub fn beside(trace: &Trace) -> impl Iterator<Item = Reason> + '_ {
    Reason::ALL.iter().copied().filter(|reason| trace.beside >> *reason as u32 & 1 != 0)
}

#[cfg(test)]
mod tests {
    use lb_common::abi::Slot;

    use super::*;

    #[test]
    fn a_trace_is_told_in_words() {
        let mut names = Names::default();
        names.services.insert(3, "web".to_owned());
        names.backends.insert(BackendId(7), ("web".to_owned(), "web1".to_owned()));
        let slot = Slot::new(BackendId(7), BackendId(8), Phase::Window, 1);
        let flags = trace_flag::REQUEST | trace_flag::CHANGING;
        let beside = 1 << Reason::PinRefused as u32;
        let sent = Trace {
            verdict: 3 | 0xff00,
            slot,
            flags,
            beside,
            backend: BackendId(7),
            ..Trace::default()
        };
        let told = names.verdict(&sent);
        assert_eq!((told.verdict.as_str(), told.reason.as_str()), ("forwarded", "transmitted"));
        assert_eq!((told.service.as_deref(), told.backend.as_deref()), (Some("web"), Some("web1")));
        assert_eq!(told.phase.as_deref(), Some("WINDOW"));
        assert_eq!(told.beside, ["pin_refused"]);
        let verdict = 1 | (Reason::Ttl as u64) << 8 | 3 << 32;
        let told = names.verdict(&Trace { verdict, ..Trace::default() });
        assert_eq!((told.verdict.as_str(), told.reason.as_str()), ("dropped", "ttl"));
        assert_eq!((told.service.as_deref(), told.backend, told.phase), (Some("web"), None, None));
        let gone = Trace { verdict: 3 | 0xff00, backend: BackendId(9), ..Trace::default() };
        assert_eq!(names.verdict(&gone).backend.as_deref(), Some("#9"));
        assert_eq!(word(&gone), "answered");
    }
}
