//! Damage done to finished frames, for packets that no builder builds.

use super::packet::checksum;

/// Offset of the IP header.
pub const IP: usize = 14;

/// The first `length` bytes.
pub fn cut(frame: &[u8], length: usize) -> Vec<u8> {
    frame[..length].to_vec()
}

/// With some bytes replaced; no checksum is touched.
pub fn patched(frame: &[u8], offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}

/// With some bytes of the IPv4 header (offset from its start) replaced and its checksum right again.
pub fn patched_v4(frame: &[u8], offset: usize, bytes: &[u8]) -> Vec<u8> {
    with_header_checksum(&patched(frame, IP + offset, bytes))
}

/// With the IPv4 header's checksum right.
pub fn with_header_checksum(frame: &[u8]) -> Vec<u8> {
    let end = (IP + usize::from(frame[IP] & 15) * 4).clamp(IP + 20, frame.len());
    let bare = patched(frame, IP + 10, &[0, 0]);
    patched(&bare, IP + 10, &checksum(&bare[IP..end]).to_be_bytes())
}

/// Whether the frame is IPv4.
pub fn is_v4(frame: &[u8]) -> bool {
    frame[12..14] == [0x08, 0x00]
}

/// Length of the (bare) IP header.
pub fn header(frame: &[u8]) -> usize {
    if is_v4(frame) { 20 } else { 40 }
}

/// With another length in the IP header (of the whole packet).
pub fn with_length(frame: &[u8], length: usize) -> Vec<u8> {
    if is_v4(frame) {
        return patched_v4(frame, 2, &(length as u16).to_be_bytes());
    }
    patched(frame, IP + 4, &(length.saturating_sub(40) as u16).to_be_bytes())
}

/// Cut so that the transport header and payload have `length` bytes, and the IP header says so.
pub fn consistent_cut(frame: &[u8], length: usize) -> Vec<u8> {
    let total = header(frame) + length;
    with_length(&cut(frame, IP + total), total)
}

/// An IPv6 packet with an extension header of `kind` in front of what it carries. `body`: the extension header from
/// its third byte on; its length is filled up to a multiple of eight.
pub fn with_extension(frame: &[u8], kind: u8, body: &[u8]) -> Vec<u8> {
    let next = frame[IP + 6];
    let mut extension = vec![next, 0];
    extension.extend(body);
    extension.resize(extension.len().next_multiple_of(8), 0);
    extension[1] = (extension.len() / 8 - 1) as u8;
    let front = patched(&frame[..IP + 40], IP + 6, &[kind]);
    let frame = [front, extension, frame[IP + 40..].to_vec()].concat();
    let length = frame.len() - IP;
    with_length(&frame, length)
}

/// The frame with VLAN tags (EtherType and tag) behind the addresses.
pub fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    [&frame[..12], &tags.concat(), &frame[12..]].concat()
}

/// One fragment of a frame: `length` bytes of the packet's data from `offset` on.
pub fn fragment(frame: &[u8], id: u16, offset: usize, length: usize, more: bool) -> Vec<u8> {
    if frame[12] == 0x08 {
        let mut bytes = frame[..34].to_vec();
        bytes.extend(&frame[34 + offset..34 + offset + length]);
        bytes[16..18].copy_from_slice(&(20 + length as u16).to_be_bytes());
        bytes[18..20].copy_from_slice(&id.to_be_bytes());
        let field = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
        bytes[20..22].copy_from_slice(&field.to_be_bytes());
        bytes[24..26].fill(0);
        let sum = checksum(&bytes[14..34]).to_be_bytes();
        bytes[24..26].copy_from_slice(&sum);
        bytes
    } else {
        let mut bytes = frame[..54].to_vec();
        bytes[18..20].copy_from_slice(&(8 + length as u16).to_be_bytes());
        let protocol = std::mem::replace(&mut bytes[20], 44);
        let [high, low] = (offset as u16 | u16::from(more)).to_be_bytes();
        let [a, b] = id.to_be_bytes();
        bytes.extend([protocol, 0, high, low, 0xf0, 0, a, b]);
        bytes.extend(&frame[54 + offset..54 + offset + length]);
        bytes
    }
}

/// All fragments of a frame, with so many bytes of the packet's data in each but the last.
pub fn pieces(frame: &[u8], id: u16, bytes: usize) -> Vec<Vec<u8>> {
    let data = frame.len() - if frame[12] == 0x08 { 34 } else { 54 };
    (0..data)
        .step_by(bytes)
        .map(|offset| {
            let length = bytes.min(data - offset);
            fragment(frame, id, offset, length, offset + length < data)
        })
        .collect()
}
