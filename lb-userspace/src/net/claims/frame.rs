//! Frames of ARP (RFC 826) and neighbour discovery (RFC 4861): what a claim is, and how to ask.

use std::net::{IpAddr, Ipv6Addr};

use super::Claim;

/// Offset of IPv6's next header in a frame.
pub(super) const NEXT_HEADER: usize = 14 + 6;
/// Offset of ICMPv6's type.
pub(super) const ICMPV6_TYPE: usize = 14 + 40;
/// ICMPv6 as a next header.
pub(super) const ICMPV6: u8 = 58;
/// Neighbour advertisement.
pub(super) const ADVERTISEMENT: u8 = 136;
const SOLICITATION: u8 = 135;
const ETHERTYPE: usize = 12;
/// Ethernet, IPv4, lengths 6 and 4.
const ARP: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Who says in this frame that which address is theirs.
pub(super) fn claim(frame: &[u8]) -> Option<Claim> {
    match frame.get(ETHERTYPE..ETHERTYPE + 2)? {
        [0x08, 0x06] => arp(&frame[14..]),
        [0x86, 0xdd] => advertisement(frame),
        _ => None,
    }
}

/// Both a request and an answer tell whose the sender's address is.
fn arp(packet: &[u8]) -> Option<Claim> {
    let packet = packet.get(..28)?;
    let sender: [u8; 4] = packet[14..18].try_into().ok()?;
    let is_probe = sender == [0; 4];
    (packet[..6] == ARP && !is_probe)
        .then(|| Some(Claim { address: sender.into(), mac: packet[8..14].try_into().ok()? }))
        .flatten()
}

fn advertisement(frame: &[u8]) -> Option<Claim> {
    const TARGET: usize = ICMPV6_TYPE + 8;
    const OPTION: usize = TARGET + 16;
    let is_one = *frame.get(NEXT_HEADER)? == ICMPV6
        && *frame.get(ICMPV6_TYPE)? == ADVERTISEMENT
        // From this link.
        && frame[NEXT_HEADER + 1] == 255;
    if !is_one {
        return None;
    }
    let target: [u8; 16] = frame.get(TARGET..OPTION)?.try_into().ok()?;
    let mac = match frame.get(OPTION..OPTION + 8) {
        Some([2, 1, mac @ ..]) => mac,
        _ => &frame[6..12],
    };
    Some(Claim { address: target.into(), mac: mac.try_into().ok()? })
}

/// A question that changes nobody's tables, and the MAC address that it goes to.
pub(super) fn question(own: [u8; 6], address: IpAddr) -> ([u8; 6], Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            let to = [0xff; 6];
            let mut frame = [&to[..], &own, &[0x08, 0x06], &ARP, &[0, 1], &own, &[0; 10]].concat();
            frame.extend(address.octets());
            (to, frame)
        }
        IpAddr::V6(address) => {
            let [.., a, b, c] = address.octets();
            let to = [0x33, 0x33, 0xff, a, b, c];
            let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
            let mut message =
                [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &address.octets()].concat();
            let sum = checksum(group, &message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let length = (message.len() as u16).to_be_bytes();
            let header = [0x60, 0, 0, 0, length[0], length[1], ICMPV6, 255];
            let mut frame = [&to[..], &own, &[0x86, 0xdd], &header, &[0; 16]].concat();
            frame.extend(group.octets());
            frame.extend(message);
            (to, frame)
        }
    }
}

/// ICMPv6's, of a message from the unspecified address.
fn checksum(to: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
    };
    let mut sum = words(&to.octets()) + words(message) + message.len() as u32 + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];

    #[test]
    fn questions_are_no_claims_and_are_understood() {
        let v4: IpAddr = "10.0.0.80".parse().unwrap();
        let (to, frame) = question(OWN, v4);
        assert_eq!((to, frame.len(), claim(&frame)), ([0xff; 6], 42, None));
        assert_eq!(frame[38..42], [10, 0, 0, 80]);
        let (to, frame) = question(OWN, "fd00::1:2:3".parse().unwrap());
        assert_eq!((to, claim(&frame)), ([0x33, 0x33, 0xff, 2, 0, 3], None));
        let parsed = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
        let Some(etherparse::NetHeaders::Ipv6(ip, _)) = parsed.net else { panic!("{parsed:?}") };
        let Some(etherparse::TransportHeader::Icmpv6(icmp)) = parsed.transport else {
            panic!("{:?}", parsed.transport)
        };
        let payload = parsed.payload.slice();
        let sum = icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload).unwrap();
        assert_eq!((icmp.checksum, payload.len()), (sum, 16));
    }

    #[test]
    fn claims_are_found_in_requests_answers_and_advertisements() {
        for operation in [1, 2] {
            let mut frame = [&[0xff; 6][..], &THEIRS, &[8, 6], &ARP, &[0, operation]].concat();
            frame.extend(THEIRS);
            frame.extend([10, 0, 0, 80, 0, 0, 0, 0, 0, 0, 10, 0, 0, 80]);
            let expected = Claim { address: "10.0.0.80".parse().unwrap(), mac: THEIRS };
            assert_eq!(claim(&frame), Some(expected));
            for length in 0..frame.len() {
                assert_eq!(claim(&frame[..length]), None);
            }
        }
        let vip: Ipv6Addr = "fd00::80".parse().unwrap();
        let mut frame =
            [&[0x33; 6][..], &OWN, &[0x86, 0xdd], &[0x60, 0, 0, 0, 0, 32, ICMPV6, 255]].concat();
        frame.extend([0; 32]);
        frame.extend([ADVERTISEMENT, 0, 0, 0, 0x20, 0, 0, 0]);
        frame.extend(vip.octets());
        assert_eq!(claim(&frame), Some(Claim { address: vip.into(), mac: OWN }));
        frame.extend([2, 1]);
        frame.extend(THEIRS);
        assert_eq!(claim(&frame), Some(Claim { address: vip.into(), mac: THEIRS }));
        // Through a router, which nobody's neighbour comes through.
        frame[NEXT_HEADER + 1] = 254;
        assert_eq!(claim(&frame), None);
        for length in 0..78 {
            assert_eq!(claim(&frame[..length]), None);
        }
    }
}
