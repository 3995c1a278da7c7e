//! What datagrams to a QUIC service carry: long and short headers, with ids that name a backend, or nobody.

use super::Random;
use crate::quic::ServerIds;

/// A payload; empty and cut ones among them.
pub fn payload(ids: &ServerIds, random: &mut Random) -> Vec<u8> {
    let id = connection_id(ids, random);
    let first = random.number() as u8;
    let rest = random.index(60);
    let rest = random.bytes(rest);
    let mut payload = if random.one_in(2) {
        [&[first & 0x7f], &id[..], &rest].concat()
    } else {
        let version: u32 = random.pick(&[1, 1, 1, 0x6b33_43cf, 0x6b33_43cf, 0, 0xbaba_baba]);
        let length = if random.one_in(12) { random.number() as u8 } else { id.len() as u8 };
        [&[first | 0x80], &version.to_be_bytes()[..], &[length], &id, &rest].concat()
    };
    if random.one_in(12) {
        payload.truncate(random.index(payload.len()));
    }
    payload
}

fn connection_id(ids: &ServerIds, random: &mut Random) -> Vec<u8> {
    // In a row that does not depend on the table's.
    let mut known: Vec<_> = ids.backends.keys().collect();
    known.sort_unstable();
    let low = random.number() as u8 & 0x1f;
    let nonce = random.bytes(4);
    if known.is_empty() || random.one_in(4) {
        let length = random.index(16);
        return random.bytes(length);
    }
    let (config, server) = known[random.index(known.len())];
    [&[config << 5 | low], &server[..], &nonce].concat()
}
