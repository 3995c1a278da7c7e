//! QUIC: which datagrams open a connection (RFC 9000 17.2, RFC 9369 3.2), and the backend that the id of a connection names
//! (draft-ietf-quic-load-balancers, plaintext: three bits of config, the server id behind the first byte).

use std::collections::HashMap;

use crate::{
    bytes::{number16, number32},
    config::Service,
    ip::{IP, Packet},
    outcome::{part, reason},
    slots::Segment,
    state::State,
};

/// The server ids of a service.
#[derive(Clone, Debug, Default)]
pub struct ServerIds {
    /// Bytes of those of each config; configs that are not there name nobody.
    pub lengths: HashMap<u8, usize>,
    /// Config and id, and the index of the backend that they name.
    pub backends: HashMap<(u8, Vec<u8>), usize>,
}

/// What a datagram says about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says<'a> {
    /// It may be its first.
    Opens,
    /// Its id, which the server has chosen; of a short header, which does not say where it ends, all that it can be.
    Id(&'a [u8]),
    /// Nothing that can be read.
    Nothing,
}

/// What a datagram is to its flow, in the words of TCP.
pub fn segment(packet: &Packet<'_>) -> Segment {
    match read(payload(packet)) {
        Says::Opens => Segment::Opening(0),
        // One that completes the handshake of whatever flow there is.
        _ => Segment::Other(1, 0),
    }
}

/// The backend (its index) that the id of a datagram's connection names.
pub fn named_backend(
    state: &mut State,
    service: &Service,
    ids: &ServerIds,
    packet: &Packet<'_>,
) -> Option<usize> {
    state.met(part::QUIC);
    let id = match read(payload(packet)) {
        Says::Opens => {
            state.met(part::QUIC_OPENING);
            return None;
        }
        _ if ids.lengths.is_empty() => return None,
        Says::Id([]) | Says::Nothing => {
            state.count(service.id, reason::QUIC_FALLBACK);
            return None;
        }
        Says::Id(id) => id,
    };
    let config = id[0] >> 5;
    let named = ids.lengths.get(&config).and_then(|length| {
        let server = id.get(1..=*length)?;
        let backend = *ids.backends.get(&(config, server.to_vec()))?;
        (!service.backends[backend].is_down).then_some(backend)
    });
    match named {
        Some(_) => state.met(part::QUIC_NAMED),
        None => state.count(service.id, reason::QUIC_UNKNOWN),
    }
    named
}

/// What a whole datagram carries: what its UDP header says, and no byte of the frame behind that.
fn payload<'a>(packet: &Packet<'a>) -> &'a [u8] {
    let udp = IP + packet.header_length();
    &packet.frame[udp + 8..udp + usize::from(number16(packet.frame, udp + 4))]
}

fn read(payload: &[u8]) -> Says<'_> {
    const LONG: u8 = 0x80;
    const LONGEST_ID: usize = 20;
    let Some(first) = payload.first() else { return Says::Nothing };
    if first & LONG == 0 {
        return Says::Id(&payload[1..payload.len().min(1 + LONGEST_ID)]);
    }
    if payload.len() < 6 {
        return Says::Nothing;
    }
    let kind = (first >> 4) & 3;
    let (initial, zero_rtt) = match number32(payload, 1) {
        // A version negotiation packet: a server's.
        0 => return Says::Nothing,
        1 => (0, 1),
        0x6b33_43cf => (1, 2),
        _ => return Says::Opens,
    };
    if kind == initial || kind == zero_rtt {
        return Says::Opens;
    }
    let end = 6 + usize::from(payload[5]);
    Says::Id(&payload[6..end.min(payload.len())])
}
