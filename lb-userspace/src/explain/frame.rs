//! Frames for dry runs: the smallest packets of a flow that any stack could have sent.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;

/// A packet to be made.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// The client.
    pub source: SocketAddr,
    /// The VIP; of the same family.
    pub destination: SocketAddr,
    /// Which packet.
    pub segment: Kind,
}

/// Which packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP's first.
    Syn,
    /// A later one of TCP, without data.
    Ack {
        /// Sequence number.
        sequence: u32,
        /// Acknowledgement number.
        acknowledgement: u32,
    },
    /// UDP, with one byte.
    Udp,
}

/// The frame, from and to made-up stations.
pub fn frame(flow: &Flow) -> Vec<u8> {
    const HOPS: u8 = 64;
    const WINDOW: u16 = 64_240;
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = match (flow.source.ip(), flow.destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), HOPS),
        (from, to) => ethernet.ipv6(six(from), six(to), HOPS),
    };
    let (from, to) = (flow.source.port(), flow.destination.port());
    let mut frame = Vec::new();
    let written = match flow.segment {
        Kind::Syn => ip.tcp(from, to, 0, WINDOW).syn().write(&mut frame, &[]),
        Kind::Ack { sequence, acknowledgement } => {
            ip.tcp(from, to, sequence, WINDOW).ack(acknowledgement).write(&mut frame, &[])
        }
        Kind::Udp => ip.udp(from, to).write(&mut frame, &[0]),
    };
    written.expect("a vector takes every packet of this size");
    frame
}

fn six(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::packet::line;

    #[test]
    fn packets_of_flows_are_what_they_say() {
        let flow = |source: &str, destination: &str, segment| Flow {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            segment,
        };
        let syn = frame(&flow("192.0.2.7:4711", "198.51.100.9:80", Kind::Syn));
        assert_eq!(line(&syn), "192.0.2.7:4711 > 198.51.100.9:80 TCP SYN, ttl 64");
        let ack = Kind::Ack { sequence: 7, acknowledgement: 9 };
        let ack = frame(&flow("[2001:db8::7]:1", "[2001:db8::9]:2", ack));
        assert_eq!(line(&ack), "[2001:db8::7]:1 > [2001:db8::9]:2 TCP ACK, hop limit 64");
        let udp = frame(&flow("192.0.2.7:53", "198.51.100.9:53", Kind::Udp));
        assert_eq!(line(&udp), "192.0.2.7:53 > 198.51.100.9:53 UDP length 9, ttl 64");
    }
}
