//! Why a packet was dropped, answered or noted. One numbered list, the same names in counters, CLI and docs.

/// Length of a service's row in `REASON_COUNTS`.
pub const REASONS: u32 = 64;

macro_rules! reasons {
    ($( $variant:ident = $number:literal, $name:literal, $drop:literal, $text:literal; )*) => {
        /// A counted reason. Numbers are never reused; `0..40` are drops, `40..64` are not.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $( #[doc = $text] $variant = $number, )* }

        impl Reason {
            /// All reasons in the order of their numbers.
            pub const ALL: &'static [Reason] = &[ $( Reason::$variant, )* ];

            /// The name in counters, CLI and docs.
            pub const fn name(self) -> &'static str {
                match self { $( Reason::$variant => $name, )* }
            }

            /// Whether the packet was dropped.
            pub const fn is_drop(self) -> bool {
                match self { $( Reason::$variant => $drop, )* }
            }

            /// One sentence for operators.
            pub const fn text(self) -> &'static str {
                match self { $( Reason::$variant => $text, )* }
            }
        }
    };
}

reasons! {
    L3Truncated = 0, "l3_truncated", true, "The frame ends inside its IP header.";
    L3Length = 1, "l3_len_mismatch", true, "The IP header promises more bytes than the frame has.";
    L4Truncated = 2, "l4_truncated", true, "The packet ends inside its TCP, UDP or ICMP header.";
    IpVersion = 3, "ip_version", true, "The IP version does not match the EtherType.";
    IpHeaderLength = 4, "ip_ihl", true, "The IPv4 header length is below 20 or beyond the packet.";
    SourceRoute = 5, "ip_src_route", true, "The packet carries a source-route option (RFC 7126).";
    Ttl = 6, "ttl", true, "TTL or hop limit was 0 or 1.";
    Martian = 7, "martian", true, "The source address cannot be a client (loopback, multicast, the VIP itself...).";
    FragmentDropped = 8, "frag_drop", true, "A fragment that the service does not take (`fragments:`), that is for no service, or whose offsets make no sense.";
    ExtensionHeader = 9, "ext_hdr", true, "The IPv6 extension headers are none that lb passes over: more than 8 or 128 bytes of them, a routing header that is a source route or has segments left, an authentication header, a jumbogram, or a broken chain.";
    TcpFlags = 10, "tcp_flags", true, "SYN together with FIN or RST, or no flag at all: no stack sends that.";
    TcpOffset = 11, "tcp_doff", true, "The TCP data offset is below 5 or beyond the segment.";
    UdpLength = 12, "udp_len", true, "The UDP length is below 8 or beyond the packet.";
    UdpNoChecksum = 13, "udp6_zero", true, "UDP over IPv6 without a checksum (RFC 8200 8.1).";
    NoService = 14, "no_service", true, "The address is a VIP, but no service has this port and protocol, and the address is not local to this host.";
    NotAllowed = 15, "not_allowed", true, "The client is not in the service's allow prefixes.";
    NoBackend = 16, "no_backend", true, "The service has no usable backend (on_all_down: drop, or all are drained or in maintenance).";
    NoNextHop = 17, "no_nexthop", true, "The next hop's MAC address is not known (yet); it is being asked for.";
    IcmpErrorBad = 18, "icmp_err_bad", true, "An ICMP error for a VIP that quotes no packet of a balanced flow, or a broken one, or is of a kind nobody should send.";
    IcmpChecksum = 19, "icmp_csum", true, "An echo request with a wrong checksum.";
    TooBig = 20, "too_big", true, "The packet does not fit the path to the backend; the sender is told (rate-limited).";
    EncapFailed = 21, "encap_failed", true, "No room in front of the packet for the outer header.";
    PortZero = 22, "port0", true, "Source or destination port 0 (RFC 6335).";
    BadSlot = 23, "bad_slot", true, "The ring or backend entry does not exist: a fault of lb.";
    LoopSourceMac = 24, "loop_src_mac", true, "The frame came back with this NIC's own source MAC address.";
    BadTunnel = 25, "bad_tunnel", true, "lb decap: the outer header is broken or from a source that is not allowed.";
    EgressFailed = 26, "egress_failed", true, "The egress NIC is not attached.";
    FragmentMiss = 27, "frag_miss", true, "A later fragment whose first one has not been seen.";
    FragmentTiny = 28, "frag_tiny", true, "A first fragment that ends inside its TCP or UDP header, or the rest of such a header (RFC 1858).";
    Denied = 29, "denied", true, "The client is in the service's deny prefixes.";
    SourceRate = 30, "source_rate", true, "A SYN of a client that opens more connections than the service's rate limit per source allows.";
    ServiceRate = 31, "service_rate", true, "A SYN beyond the service's rate limit.";
    SynUnproven = 32, "syn_unproven", true, "A SYN of an unknown client while the SYN-flood stage is engaged, which could not be answered with a challenge.";
    SynProof = 33, "syn_proof", true, "The reset by which a client has answered the SYN-flood stage's challenge: he is let in from now on.";
    NoFlow = 34, "no_flow", true, "A TCP segment of no connection that full nat knows, or a packet to an address of its pool that answers none; a client is told by a reset.";
    NoPort = 35, "no_port", true, "A new flow of full nat for which no port was free; the client is told (ICMP administratively prohibited, rate-limited).";
    NoProgram = 36, "no_program", true, "A program that packets go on to is not there: a fault of lb.";
    FragmentOverlap = 37, "frag_overlap", true, "A fragment with data that another fragment of its packet has brought already (RFC 5722), and of two first fragments within 2 s the second if the rest of the packet is still missing.";
    Echo = 40, "echo", false, "Echo requests to a VIP, answered.";
    Reject = 41, "reject", false, "Packets answered with a reset or port unreachable (on_all_down: reject).";
    PinRefused = 42, "pin_refused", false, "Flows that could not be pinned because the table was full; they follow the base.";
    TooBigSent = 43, "ptb_sent", false, "Fragmentation-needed or packet-too-big answers sent.";
    TimeExceededSent = 44, "ttl_sent", false, "Time-exceeded answers sent.";
    Passed = 45, "passed", false, "Packets that are not ours, passed to this host untouched.";
    NoServicePassed = 46, "no_service_passed", false, "Packets to a VIP's address without a service, passed because the address is local.";
    Transmitted = 47, "transmitted", false, "Packets sent to a backend or back to a client.";
    Pinned = 48, "pinned", false, "Pins made.";
    IcmpLimited = 49, "icmp_limited", false, "ICMP answers not sent because of the rate limit.";
    IcmpErrorForwarded = 50, "icmp_err_fwd", false, "ICMP errors about balanced flows, sent on to the backend or the client they concern.";
    Uncounted = 51, "uncounted", false, "Connections that could not be counted because the table was full.";
    SynChallenge = 52, "syn_challenge", false, "SYNs of unknown clients answered with a challenge while the SYN-flood stage is engaged.";
    PortReclaimed = 53, "port_reclaimed", false, "Flows of full nat that nobody had answered and that lost their port to a new one, as none was free.";
    ToaOmitted = 54, "toa_omitted", false, "Packets of full nat that went without the client's address (`toa`): no room in the TCP header or in the link's MTU, or a packet with IP options or extension headers.";
    QuicUnknown = 56, "quic_cid_unknown", false, "QUIC packets whose connection id names no backend that can be used; they go where addresses and ports lead.";
    QuicFallback = 57, "quic_fallback", false, "Packets to a QUIC service that are too short or too strange to have a connection id; they go where addresses and ports lead.";
    FlowRefused = 58, "flow_refused", false, "Flows of a service that tracks all of them that could not be remembered, because the table or the service's part of it was full; they follow the ring.";
    SourceRefused = 59, "source_refused", false, "Clients that could not be remembered because the table was full; their next flows are balanced like those of a new client.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_drops_come_first() {
        let mut seen = std::collections::HashSet::new();
        for reason in Reason::ALL {
            assert!(seen.insert(*reason as u32), "{} is numbered twice", reason.name());
            assert!((*reason as u32) < REASONS);
            assert_eq!(reason.is_drop(), (*reason as u32) < 40, "{}", reason.name());
        }
    }
}
