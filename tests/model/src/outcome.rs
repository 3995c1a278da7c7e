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
    /// Names of the parts of lb that the packet has met: see [`part`].
    pub parts: Vec<&'static str>,
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
    pub const FRAGMENT_OVERLAP: &str = "frag_overlap";
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
    pub const NO_FLOW: &str = "no_flow";
    pub const NO_PORT: &str = "no_port";
    pub const QUIC_UNKNOWN: &str = "quic_cid_unknown";
    pub const QUIC_FALLBACK: &str = "quic_fallback";
    pub const PORT_RECLAIMED: &str = "port_reclaimed";
    pub const UNCOUNTED: &str = "uncounted";
    pub const TOA_OMITTED: &str = "toa_omitted";
    pub const PIN_REFUSED: &str = "pin_refused";
    pub const FLOW_REFUSED: &str = "flow_refused";
    pub const SOURCE_REFUSED: &str = "source_refused";
    pub const SOURCE_RATE: &str = "source_rate";
    pub const SERVICE_RATE: &str = "service_rate";
    pub const SYN_UNPROVEN: &str = "syn_unproven";
    pub const SYN_PROOF: &str = "syn_proof";
    pub const SYN_CHALLENGE: &str = "syn_challenge";
}

/// Names of parts of lb whose share of a comparison's packets somebody wants to know.
pub mod part {
    /// A packet left in GUE.
    pub const GUE: &str = "gue: encapsulated";
    /// A whole datagram to a QUIC service.
    pub const QUIC: &str = "quic: all datagrams";
    /// It went where its connection id says.
    pub const QUIC_NAMED: &str = "quic: its id names a backend";
    /// It opens a connection.
    pub const QUIC_OPENING: &str = "quic: opens a connection";
    /// The slot of a packet's flow has changed.
    pub const CHANGED: &str = "slots: all that have changed";
    /// The same of an ICMP error or a fragment, for which pins are only read.
    pub const CHANGED_READ: &str = "slots: looked up for an error or a fragment";
    /// A flow got a pin.
    pub const PINNED: &str = "slots: a pin is made";
    /// Its pin became a confirmed one.
    pub const CONFIRMED: &str = "slots: a pin is confirmed";
    /// The packet went where a pin says.
    pub const FOLLOWED: &str = "slots: a pin is followed";
    /// It has none.
    pub const UNPINNED: &str = "slots: without a pin";
    /// A backend's SYN-ACK was noted in a pin.
    pub const ANSWERED: &str = "slots: a SYN-ACK is noted";
    /// It would be a confirmed one, but there is no room.
    pub const PROMOTED: &str = "slots: a pin is confirmed without room";
    /// A later fragment of an unknown packet went by the client's address.
    pub const STATELESS: &str = "fragments: by the client's address";
    /// A later fragment behind or between others.
    pub const JOINED: &str = "fragments: joined to others";
    /// Any packet of full nat's that is let in, or belongs to a flow.
    pub const FULLNAT: &str = "fullnat: all packets";
    /// A client's packet.
    pub const FULLNAT_REQUEST: &str = "fullnat: requests";
    /// A flow got a port.
    pub const PORT_GIVEN: &str = "fullnat: a port is given";
    /// A flow that is over begins again.
    pub const PORT_KEPT: &str = "fullnat: a closed flow begins again";
    /// A backend's packet to a client.
    pub const FULLNAT_REPLY: &str = "fullnat: replies";
    /// An ICMP error about full nat's packets.
    pub const FULLNAT_ERROR: &str = "fullnat: errors";

    /// A fragment of full nat's, either way.
    pub const FULLNAT_FRAGMENT: &str = "fullnat: fragments";
    /// One of them that follows its first one.
    pub const FULLNAT_LATER: &str = "fullnat: later fragments";
    /// A segment told its server who the client is.
    pub const TOA: &str = "toa: told";
    /// A client said so itself, and is not believed.
    pub const TOA_HIDDEN: &str = "toa: a client's own option is hidden";
    /// A handshake offered larger segments than lb lets pass.
    pub const MSS: &str = "mss: lowered";
    /// A SYN, or a reset where it may prove something, of a service that limits openings or has a SYN-flood stage.
    pub const OPENING: &str = "openings: all that are looked at";
    /// A SYN within its limits.
    pub const OPENED: &str = "openings: within the limits";
    /// A SYN of a source that has proven itself.
    pub const VERIFIED: &str = "openings: a proven source's SYN";

    /// A packet of a service that remembers every flow.
    pub const TRACKED: &str = "track: all packets";
    /// The same of an ICMP error or a fragment, for which entries are only read.
    pub const TRACKED_READ: &str = "track: looked up for an error or a fragment";
    /// A new flow got a backend.
    pub const TRACK_NEW: &str = "track: a backend is chosen";
    /// A flow is a confirmed one.
    pub const TRACK_CONFIRMED: &str = "track: a flow is confirmed";
    /// A client is remembered.
    pub const CLIENT_REMEMBERED: &str = "track: a client is remembered";
    /// A new flow goes where its client is remembered.
    pub const CLIENT_FOLLOWED: &str = "track: a client's other flow follows";

    /// A connection is counted.
    pub const COUNTED: &str = "connections: one more is counted";

    /// All of them.
    pub const ALL: [&str; 35] = [
        STATELESS,
        JOINED,
        GUE,
        QUIC,
        QUIC_NAMED,
        QUIC_OPENING,
        CHANGED,
        CHANGED_READ,
        PINNED,
        CONFIRMED,
        FOLLOWED,
        UNPINNED,
        ANSWERED,
        PROMOTED,
        FULLNAT,
        FULLNAT_REQUEST,
        PORT_GIVEN,
        PORT_KEPT,
        FULLNAT_REPLY,
        FULLNAT_ERROR,
        FULLNAT_FRAGMENT,
        FULLNAT_LATER,
        TOA,
        TOA_HIDDEN,
        MSS,
        OPENING,
        OPENED,
        VERIFIED,
        TRACKED,
        TRACKED_READ,
        TRACK_NEW,
        TRACK_CONFIRMED,
        CLIENT_REMEMBERED,
        CLIENT_FOLLOWED,
        COUNTED,
    ];
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
        Self { action, frame, counted, asked_limit: false, parts: Vec::new() }
    }
}

impl Counted {
    fn reason(service: u32, reason: &'static str) -> Self {
        Self { reasons: vec![(service, reason)], backend: None }
    }
}
