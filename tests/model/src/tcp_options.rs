//! Options of a TCP header (RFC 9293 3.2).

use crate::{
    bytes::{carried_over, put16, sum},
    ip::{IP, Packet},
};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOption {
    /// Offset in the frame.
    pub at: usize,
    /// Kind.
    pub kind: u8,
    /// Its length, as it says; it may reach beyond the header.
    pub length: usize,
}

/// The options of a sound segment, up to the end mark, or to one whose length makes no sense, which is the last.
pub fn of(packet: &Packet<'_>) -> Vec<TcpOption> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    let transport = IP + packet.header_length();
    let header = usize::from(packet.frame[transport + 12] >> 4) * 4;
    let bytes = &packet.frame[..transport + header];
    let (mut at, mut all) = (transport + 20, Vec::new());
    while let Some(kind) = bytes.get(at).copied() {
        let length = match (kind, bytes.get(at + 1)) {
            (END, _) => break,
            (NO_OPERATION, _) => 1,
            (_, Some(length)) => usize::from(*length),
            (_, None) => break,
        };
        all.push(TcpOption { at, kind, length });
        if kind != NO_OPERATION && length < 2 {
            break;
        }
        at += length;
    }
    all
}

/// Changes bytes of a segment, whose checksum goes along.
pub fn change(frame: &mut [u8], packet: &Packet<'_>, change: impl FnOnce(&mut [u8])) {
    let at = IP + packet.header_length();
    let end = IP + packet.length().expect("it was examined");
    // The pseudo header stays.
    let before = sum(&[&frame[at..end]]);
    change(frame);
    put16(frame, at + 16, 0);
    let after = sum(&[&frame[at..end]]);
    put16(frame, at + 16, carried_over(before, after));
}
