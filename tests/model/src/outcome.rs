//! What the model says of a packet.

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Left to the host, untouched.
    Pass,
    /// Dropped.
    Drop,
    /// Sent by the NIC it came in by.
    Transmit,
    /// Sent by the NIC of this number.
    Redirect(u32),
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What becomes of the frame.
    pub action: Action,
    /// The frame that leaves, or is passed; empty if it is dropped.
    pub frame: Vec<u8>,
    /// What is counted.
    pub counted: Counted,
    /// Whether the rate limit of ICMP errors was asked.
    pub asked_limit: bool,
}

/// What one packet adds to the counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Service (0 = none) and name of the reason; each once.
    pub reasons: Vec<(u32, &'static str)>,
    /// Number of a backend, and what is counted for it.
    pub backend: Option<(u32, Traffic)>,
}

/// One packet to or from a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Length of the IP packet as it came, bytes.
    pub bytes: u64,
    /// From the backend, not to it.
    pub is_reply: bool,
    /// It opens a connection (to the backend), or resets it (from the backend).
    pub is_marked: bool,
}

/// Names of the reasons, as in `lb stats` and docs.
pub mod reason {
    #![expect(
        missing_docs,
        reason = "each is its own name; packet-path documentation explains them"
    )]
    pub const L3_TRUNCATED: &str = "l3_truncated";
    pub const L3_LENGTH: &str = "l3_len_mismatch";
    pub const L4_TRUNCATED: &str = "l4_truncated";
    pub const IP_VERSION: &str = "ip_version";
    pub const IP_HEADER_LENGTH: &str = "ip_ihl";
    pub const SOURCE_ROUTE: &str = "ip_src_route";
    pub const TTL: &str = "ttl";
    pub const MARTIAN: &str = "martian";
    pub const FRAGMENT_DROPPED: &str = "frag_drop";
    pub const EXTENSION_HEADER: &str = "ext_hdr";
    pub const TCP_FLAGS: &str = "tcp_flags";
    pub const TCP_OFFSET: &str = "tcp_doff";
    pub const UDP_LENGTH: &str = "udp_len";
    pub const UDP_NO_CHECKSUM: &str = "udp6_zero";
    pub const NO_SERVICE: &str = "no_service";
    pub const NOT_ALLOWED: &str = "not_allowed";
    pub const NO_BACKEND: &str = "no_backend";
    pub const NO_NEXT_HOP: &str = "no_nexthop";
    pub const ICMP_ERROR_BAD: &str = "icmp_err_bad";
    pub const ICMP_CHECKSUM: &str = "icmp_csum";
    pub const TOO_BIG: &str = "too_big";
    pub const PORT_ZERO: &str = "port0";
    pub const LOOP_SOURCE_MAC: &str = "loop_src_mac";
    pub const EGRESS_FAILED: &str = "egress_failed";
    pub const FRAGMENT_MISS: &str = "frag_miss";
    pub const FRAGMENT_TINY: &str = "frag_tiny";
    pub const DENIED: &str = "denied";
    pub const ECHO: &str = "echo";
    pub const REJECT: &str = "reject";
    pub const TOO_BIG_SENT: &str = "ptb_sent";
    pub const TIME_EXCEEDED_SENT: &str = "ttl_sent";
    pub const PASSED: &str = "passed";
    pub const NO_SERVICE_PASSED: &str = "no_service_passed";
    pub const ICMP_LIMITED: &str = "icmp_limited";
    pub const ICMP_ERROR_FORWARDED: &str = "icmp_err_fwd";
}

impl Outcome {
    /// Left to the host.
    pub(crate) fn passed(frame: &[u8], reason: &'static str) -> Self {
        Self::of(Action::Pass, frame.to_vec(), Counted::reason(0, reason))
    }

    /// Dropped.
    pub(crate) fn dropped(reason: &'static str, service: u32) -> Self {
        Self::of(Action::Drop, Vec::new(), Counted::reason(service, reason))
    }

    /// Answered: this frame goes back.
    pub(crate) fn answered(frame: Vec<u8>, reason: &'static str, service: u32) -> Self {
        Self::of(Action::Transmit, frame, Counted::reason(service, reason))
    }

    /// Sent to a backend or from it.
    pub(crate) fn sent(action: Action, frame: Vec<u8>, backend: u32, traffic: Traffic) -> Self {
        let counted = Counted { backend: Some((backend, traffic)), ..Counted::default() };
        Self::of(action, frame, counted)
    }

    /// Counted under another reason, too.
    pub(crate) fn and(mut self, service: u32, reason: &'static str) -> Self {
        self.counted.reasons.push((service, reason));
        self
    }

    /// The rate limit was asked on the way.
    pub(crate) fn limited(mut self) -> Self {
        self.asked_limit = true;
        self
    }

    fn of(action: Action, frame: Vec<u8>, counted: Counted) -> Self {
        Self { action, frame, counted, asked_limit: false }
    }
}

impl Counted {
    fn reason(service: u32, reason: &'static str) -> Self {
        Self { reasons: vec![(service, reason)], backend: None }
    }
}
