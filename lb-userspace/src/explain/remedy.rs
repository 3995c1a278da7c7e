//! What an operator can do about packets that were counted under a reason.

use lb_common::abi::Reason;

/// One sentence; empty if there is nothing to be done.
pub const fn of(reason: Reason) -> &'static str {
    use Reason as R;
    match reason {
        R::L3Truncated | R::L3Length | R::L4Truncated | R::IpVersion | R::IpHeaderLength => {
            "Broken packets: look at the sender, or at a NIC or switch on the way that damages them."
        }
        R::SourceRoute => "Source routing is an attack or an old test tool; nothing needs it.",
        R::Ttl => {
            "A few are traceroutes; many are a routing loop in front of lb, or clients with a very small TTL."
        }
        R::Martian => "Spoofed or misrouted: filter such sources at the border (BCP 38).",
        R::FragmentDropped => {
            "If the service should take them, see its `fragments`; fragments that make no sense are an attack."
        }
        R::FragmentMiss => {
            "A few came out of order; many: see `fragments`, and whether several nodes share the fragments of one packet."
        }
        R::FragmentOverlap => {
            "An attack on packet filters (RFC 5722), or copies that the network has made; nothing is lost by it."
        }
        R::FragmentTiny => "An attack on packet filters (RFC 1858): no stack makes such fragments.",
        R::ExtensionHeader => "See which client sends them; most networks drop them, too.",
        R::TcpFlags | R::TcpOffset | R::UdpLength | R::UdpNoChecksum | R::PortZero => {
            "No stack sends that: a scan or an attack; nothing needs to be done."
        }
        R::NoService => {
            "Clients use a port or protocol of the VIP that no service has: add the service, or tell the clients."
        }
        R::NotAllowed => "If the client should get in, add its prefix to the service's `allow`.",
        R::Denied => "If the client should get in, take its prefix out of the service's `deny`.",
        R::SourceRate => {
            "A client opens more connections than `rate_limit.connections_per_source` allows: raise it for clients behind NAT, or put the client under `deny`."
        }
        R::ServiceRate => {
            "More connections are wanted than `rate_limit.connections` allows: raise it, or let `syn_flood` sort out who is no client."
        }
        R::SynUnproven | R::SynChallenge => {
            "More SYNs come than `syn_flood.engage` allows: unknown clients are challenged until it is over. Legitimate load? Raise it."
        }
        R::SynProof => "A client has answered the challenge and gets in; nothing needs to be done.",
        R::NoBackend => {
            "See `lb status`: bring a backend back (`lb ready`, its health), or let `on_all_down: fail_open` try them all."
        }
        R::NoNextHop => {
            "If it goes on: see `lb status` for unresolved next hops, and whether that host answers ARP or neighbour solicitations. Short replies wait up to a second and are then sent, but are counted here."
        }
        R::IcmpErrorBad => {
            "Forged, or about a flow that lb does not balance; nothing needs to be done."
        }
        R::IcmpChecksum => "Echo requests damaged on the way.",
        R::TooBig => {
            "The sender learns the size by itself; for tunnels raise the MTU towards the backends by the outer header (20 or 40 bytes)."
        }
        R::EncapFailed => {
            "The driver leaves no headroom for the outer header: use `xdp_mode: generic` on this NIC."
        }
        R::NoFlow => {
            "Connections from before a restart of the host, of another node, or idle for longer than `timeouts.tcp`: clients connect anew. Without end: a scan."
        }
        R::NoPort | R::PortReclaimed => {
            "More flows than `source_pool` has ports: add addresses to it, or shorten the services' `timeouts`."
        }
        R::ToaOmitted => {
            "Clients whose segments fill the link or whose options fill the header: servers have them with lb's address. Raise the MTU towards the backends."
        }
        R::NoProgram | R::BadSlot => {
            "A fault of lb: please report it with `lb status --json` and the log."
        }
        R::LoopSourceMac => "A switch sends lb's own frames back: look for a loop in layer 2.",
        R::BadTunnel => "Name every balancer's outer source with `lb decap --from`.",
        R::EgressFailed => "Name the NIC towards the backends under `interfaces`.",
        R::PinRefused => {
            "Many flows opened within one window: raise `limits.pins` and `limits.pins_unconfirmed`."
        }
        R::FlowRefused => {
            "More flows than `limits.flows`, or a flood of SYNs or datagrams (`limits.flows_unconfirmed`): what is not remembered is balanced by the ring."
        }
        R::SourceRefused => {
            "More clients than `limits.sources`: raise it, or shorten `persistence.timeout`."
        }
        R::Uncounted => "More connections than `limits.connections`: raise it.",
        R::IcmpLimited => "More answers are wanted than the rate limit allows: a scan, or a loop.",
        R::Reject => {
            "The service has no usable backend and says so to its clients: see `lb status`."
        }
        R::Echo
        | R::TooBigSent
        | R::TimeExceededSent
        | R::Passed
        | R::NoServicePassed
        | R::Transmitted
        | R::IcmpErrorForwarded
        | R::Pinned
        | R::QuicFallback => "",
        R::QuicUnknown => {
            "A few are ids of backends that are down or gone; many: compare each backend's own server id and config id with `server_id` and `quic_lb`."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_has_a_remedy() {
        for reason in Reason::ALL.iter().filter(|reason| reason.is_drop()) {
            assert!(of(*reason).ends_with('.'), "{}", reason.name());
        }
    }
}
