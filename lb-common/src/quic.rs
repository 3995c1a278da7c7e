//! What the packet path reads of QUIC: what every version keeps (RFC 8999), which packets open a connection (RFC 9000 17.2, RFC
//! 9369 3.2), and the connection ids by which a server tells where it is (draft-ietf-quic-load-balancers, unencrypted).
//!
//! A flow is an address and port, here as everywhere, and several connections may share it. So the first packets of a connection
//! stay where their flow is, and later ones go where their connection id says, wherever they come from.

use network_types::udp::UdpHdr;

use crate::frame::{Frame, be16};

/// Bytes of a server id at most: 20 of a connection id, without the first one and a nonce of four.
pub const SERVER_ID: usize = 15;

/// Server ids of all services at most.
pub const SERVERS: u32 = 65_536;

/// Config ids that a connection id can name; what is left, 7, says that it names no server.
pub const CONFIGS: u32 = 7;

const LONG: u8 = 0x80;
const VERSION_1: u32 = 1;
const VERSION_2: u32 = 0x6b33_43cf;
/// Bytes of the ids that lb looks for.
const LONGEST_ID: usize = 20;
/// From the first byte of a long header to the length of the connection id.
const LENGTH: usize = 5;

/// What a packet says about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// It may be a connection's first: an Initial or 0-RTT packet, or one of a version that lb does not know.
    pub opens: bool,
    /// Where the connection id begins that the server has chosen, bytes from the start of the frame; 0 = there is none, or
    /// none that can be read.
    pub id: u16,
    /// Bytes of it that are in the datagram; of a short header, which does not say: as many as it may be.
    pub length: u8,
}

impl Header {
    const NOTHING: Self = Self { opens: false, id: 0, length: 0 };
    const OPENS: Self = Self { opens: true, id: 0, length: 0 };

    /// Of the datagram whose UDP header is at `udp`. What follows it in the frame is no part of it: short frames are padded.
    #[inline(always)]
    pub fn read(frame: &(impl Frame + ?Sized), udp: usize) -> Self {
        let payload = udp + UdpHdr::LEN;
        let Some(header) = frame.view::<UdpHdr>(udp) else { return Self::NOTHING };
        let room = (be16(header.len).to_host() as usize).saturating_sub(UdpHdr::LEN);
        let Some([first]) = frame.view::<[u8; 1]>(payload) else { return Self::NOTHING };
        let first = *first;
        if room == 0 {
            return Self::NOTHING;
        }
        if first & LONG == 0 {
            return Self::with_id(payload + 1, LONGEST_ID, room - 1);
        }
        if room < LENGTH + 1 {
            return Self::NOTHING;
        }
        let Some([_, a, b, c, d, length]) = frame.view::<[u8; LENGTH + 1]>(payload) else {
            return Self::NOTHING;
        };
        let (version, length) = (u32::from_be_bytes([*a, *b, *c, *d]), *length);
        let kind = (first >> 4) & 3;
        // Version 2 counts the four types from another one on.
        let kind = match version {
            0 => return Self::NOTHING,
            VERSION_1 => kind,
            VERSION_2 => kind.wrapping_sub(1) & 3,
            _ => return Self::OPENS,
        };
        if kind <= ZERO_RTT {
            return Self::OPENS;
        }
        Self::with_id(payload + LENGTH + 1, length as usize, room - LENGTH - 1)
    }

    /// With an id of `length` bytes, of which not more than `room` are there.
    #[inline(always)]
    const fn with_id(at: usize, length: usize, room: usize) -> Self {
        let length = if length < room { length } else { room };
        if length == 0 {
            return Self::NOTHING;
        }
        Self { opens: false, id: at as u16, length: length as u8 }
    }
}

/// Of version 1: 0 is Initial, 1 is 0-RTT, 2 is Handshake, 3 is Retry.
const ZERO_RTT: u8 = 1;

/// How long the server ids of a service are: of each config id four bits, 0 = it is not used. One entry of `QUIC_FORMATS`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Formats(pub u32);

impl Formats {
    /// With one more config id (below [`CONFIGS`]) and the length of its server ids, bytes (1..=[`SERVER_ID`]).
    pub const fn with(self, config: u32, length: u32) -> Self {
        Self(self.0 | (length & 15) << (config * 4))
    }

    /// The config id in the first byte of a connection id and the length of the server id behind it; `None` if the id names no server.
    #[inline(always)]
    pub const fn of(self, first: u8) -> Option<(u32, u32)> {
        let config = first as u32 >> 5;
        let length = (self.0 >> (config * 4)) & 15;
        if config == CONFIGS || length == 0 { None } else { Some((config, length)) }
    }
}

#[cfg(test)]
mod tests;
