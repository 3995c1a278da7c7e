//! Damage: most of it where it matters, in the headers.

use super::Random;
use crate::{
    bytes::{checksum, pseudo_header, put16},
    ip::{IP, Packet, version_of},
};

/// Bytes that mean something somewhere.
const VALUES: [u8; 16] = [0, 1, 2, 4, 5, 6, 17, 41, 44, 58, 0x45, 0x46, 0x4f, 0x60, 0x7f, 0xff];

/// Damages a frame in one to four places; sometimes mends a checksum afterwards, so that what is behind it is reached.
pub fn inflict(frame: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.index(4) {
        let length = frame.len();
        let reach = if random.one_in(10) { length } else { length.min(110) };
        // Little of it hits the Ethernet header, behind which nothing is read any more.
        let from = if reach <= IP || random.one_in(16) { 0 } else { IP };
        let at = from + random.index(reach - from);
        match random.below(9) {
            0 | 1 => frame[at] ^= 1 << random.below(8),
            2 => frame[at] = random.number() as u8,
            3 => frame[at] = random.pick(&VALUES),
            4 => frame.truncate(at),
            5 => {
                let count = 1 + random.index(40);
                frame.extend(random.bytes(count));
            }
            6 => frame.insert(at, random.number() as u8),
            7 => length_field(frame, random),
            _ => {
                let end = (at + 1 + random.index(20)).min(length);
                let bytes = random.bytes(end - at);
                frame[at..end].copy_from_slice(&bytes);
            }
        }
        // A test run takes no shorter frames.
        if frame.len() < IP {
            frame.resize(IP, 0);
        }
    }
    if random.one_in(2) {
        mend(frame);
    }
}

/// Makes the IP header state another length: the frame's, or about that.
fn length_field(frame: &mut [u8], random: &mut Random) {
    let around = (frame.len() + 2).saturating_sub(IP + random.index(6)) as u16;
    match version_of(frame) {
        Some(false) if frame.len() >= IP + 4 => put16(frame, IP + 2, around),
        Some(true) if frame.len() >= IP + 6 => put16(frame, IP + 4, around.saturating_sub(40)),
        _ => {}
    }
}

/// Makes the checksum of an IPv4 header right, and that of an ICMP message and of the header that it may quote.
fn mend(frame: &mut [u8]) {
    let Some(is_v6) = version_of(frame) else { return };
    let Ok(packet) = Packet::new(frame, is_v6) else { return };
    let Ok(length) = packet.length() else { return };
    // Extension headers may promise more than the packet has.
    let (at, end) = (IP + packet.header_length().min(length), IP + length);
    let is_icmp = packet.protocol() == packet.icmp() && end >= at + 8;
    let pseudo = if is_v6 {
        pseudo_header(packet.source(), packet.destination(), packet.icmp(), end - at)
    } else {
        mend_header(frame, IP, end);
        Vec::new()
    };
    if !is_icmp {
        return;
    }
    if !is_v6 && end >= at + 28 {
        mend_header(frame, at + 8, end);
    }
    put16(frame, at + 2, 0);
    let sum = checksum(&[&pseudo, &frame[at..end]]);
    put16(frame, at + 2, sum);
}

fn mend_header(frame: &mut [u8], at: usize, end: usize) {
    let header_end = at + usize::from(frame[at] & 15) * 4;
    if header_end >= at + 20 && header_end <= end {
        put16(frame, at + 10, 0);
        let sum = checksum(&[&frame[at..header_end]]);
        put16(frame, at + 10, sum);
    }
}
