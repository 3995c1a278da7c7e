//! The start of a frame in one line, as tcpdump would say it.

use etherparse::{LaxNetSlice, LaxSlicedPacket, TcpSlice, TransportSlice};

/// `192.0.2.7:4711 > 198.51.100.9:80 TCP SYN, ttl 63`, as much of it as the bytes tell.
pub fn line(frame: &[u8]) -> String {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else {
        return format!("a frame of {} bytes", frame.len());
    };
    let Some((source, destination, mut details)) = packet.net.as_ref().and_then(addresses) else {
        let kind =
            frame.get(12..14).map(|kind| format!(" of type 0x{:02x}{:02x}", kind[0], kind[1]));
        return format!("an Ethernet frame{}", kind.unwrap_or_default());
    };
    let transport = packet.transport.as_ref().map(transport);
    let (ports, what) = transport.unwrap_or((None, "no transport header".to_owned()));
    let end = |address: std::net::IpAddr, port: Option<u16>| match port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    };
    let [from, to] = [end(source, ports.map(|p| p.0)), end(destination, ports.map(|p| p.1))];
    details.insert(0, what);
    format!("{from} > {to} {}", details.join(", "))
}

/// Whom an IP packet is for.
pub fn destination(frame: &[u8]) -> Option<std::net::IpAddr> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    packet.net.as_ref().and_then(addresses).map(|(_, destination, _)| destination)
}

/// Source, destination and what else of the IP header matters.
fn addresses(net: &LaxNetSlice<'_>) -> Option<(std::net::IpAddr, std::net::IpAddr, Vec<String>)> {
    match net {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let mut details = vec![format!("ttl {}", header.ttl())];
            if header.is_fragmenting_payload() {
                details.push(format!(
                    "fragment at {} of datagram {}",
                    header.fragments_offset().byte_offset(),
                    header.identification()
                ));
            }
            Some((header.source_addr().into(), header.destination_addr().into(), details))
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            let mut details = vec![format!("hop limit {}", header.hop_limit())];
            if ip.is_payload_fragmented() {
                details.push("fragment".to_owned());
            }
            Some((header.source_addr().into(), header.destination_addr().into(), details))
        }
        LaxNetSlice::Arp(_) => None,
    }
}

/// Both ports, if there are any, and protocol and flags.
fn transport(slice: &TransportSlice<'_>) -> (Option<(u16, u16)>, String) {
    match slice {
        TransportSlice::Tcp(tcp) => {
            let ports = (tcp.source_port(), tcp.destination_port());
            (Some(ports), format!("TCP {}", flags(tcp)))
        }
        TransportSlice::Udp(udp) => {
            let ports = (udp.source_port(), udp.destination_port());
            (Some(ports), format!("UDP length {}", udp.length()))
        }
        TransportSlice::Igmp(_) => (None, "IGMP".to_owned()),
        TransportSlice::Icmpv4(icmp) => {
            (None, format!("ICMP type {} code {}", icmp.type_u8(), icmp.code_u8()))
        }
        TransportSlice::Icmpv6(icmp) => {
            (None, format!("ICMPv6 type {} code {}", icmp.type_u8(), icmp.code_u8()))
        }
    }
}

fn flags(tcp: &TcpSlice<'_>) -> String {
    let names = [
        (tcp.syn(), "SYN"),
        (tcp.fin(), "FIN"),
        (tcp.rst(), "RST"),
        (tcp.psh(), "PSH"),
        (tcp.ack(), "ACK"),
        (tcp.urg(), "URG"),
    ];
    let set: Vec<&str> = names.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    if set.is_empty() { "without flags".to_owned() } else { set.join("+") }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn bytes(step: etherparse::PacketBuilderStep<etherparse::TcpHeader>) -> Vec<u8> {
        let mut bytes = Vec::new();
        step.write(&mut bytes, &[]).unwrap();
        bytes
    }

    #[test]
    fn packets_of_both_families_are_one_line() {
        let v4 =
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, 7], [198, 51, 100, 9], 63);
        assert_eq!(
            line(&bytes(v4.tcp(4711, 80, 1, 1000).syn())),
            "192.0.2.7:4711 > 198.51.100.9:80 TCP SYN, ttl 63"
        );
        let [from, to] = ["2001:db8::7", "2001:db8::9"]
            .map(|text| text.parse::<std::net::Ipv6Addr>().unwrap().octets());
        let v6 = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(from, to, 5);
        assert_eq!(
            line(&bytes(v6.tcp(4711, 443, 1, 1000).ack(7).fin())),
            "[2001:db8::7]:4711 > [2001:db8::9]:443 TCP FIN+ACK, hop limit 5"
        );
    }

    #[test]
    fn every_prefix_of_a_packet_is_a_line() {
        let v4 =
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, 7], [198, 51, 100, 9], 63);
        let whole = bytes(v4.tcp(4711, 80, 1, 1000).syn());
        for length in 0..whole.len() {
            assert!(!line(&whole[..length]).is_empty());
        }
        assert_eq!(line(&whole[..34]), "192.0.2.7 > 198.51.100.9 no transport header, ttl 63");
        assert_eq!(line(&[0xff; 14]), "an Ethernet frame of type 0xffff");
    }
}
