//! What the daemon sends of a capture: records of JSON with the bytes of frames behind it.
//!
//! A record is the length of the JSON and the length of the bytes (four bytes each, little end first), then the two.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::api::types::PacketVerdict;

/// Longest JSON and longest bytes of a record.
const LONGEST: usize = 1 << 20;

/// One record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A packet; the bytes are those of the frame as it came, then those of the frame as it left.
    Packet(Packet),
    /// How the capture goes; several times a second.
    Counts(Counts),
    /// It has ended; nothing follows.
    End(End),
}

/// One packet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Packet {
    /// 1, 2, 3...
    pub number: u64,
    /// When it came, nanoseconds of Unix time.
    pub unix_nanoseconds: u64,
    /// NIC it came by.
    pub interface: String,
    /// Length of the frame as it came, bytes.
    pub length: u32,
    /// Bytes here of it.
    pub captured: u32,
    /// Length of the frame as it left; 0 if it did not.
    pub length_after: u32,
    /// Bytes here of it.
    pub captured_after: u32,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: PacketVerdict,
}

/// How a capture goes. All numbers are since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Packets that fitted the part of the filter that the kernel looks at.
    pub matched: u64,
    /// Of these, not captured because of `--rate`.
    pub over_rate: u64,
    /// Of these, not captured because they came faster than they were fetched.
    pub lost: u64,
    /// Of these, not wanted by the rest of the filter.
    pub filtered: u64,
    /// Of these, sent.
    pub sent: u64,
}

/// How a capture ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The last counts.
    #[serde(flatten)]
    pub counts: Counts,
    /// Why: `count`, `time`, or in words what has ended it.
    pub why: String,
}

/// A record as it is sent.
pub fn encode(record: &Record, parts: [&[u8]; 2]) -> Bytes {
    // Strings and numbers: it cannot fail.
    let json = serde_json::to_vec(record).unwrap_or_default();
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = BytesMut::with_capacity(8 + json.len() + bytes);
    out.put_u32_le(json.len() as u32);
    out.put_u32_le(bytes as u32);
    out.put_slice(&json);
    parts.iter().for_each(|part| out.put_slice(part));
    out.freeze()
}

/// Takes the first record off what has come, if it is whole.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<(Record, Bytes)>, String> {
    if buffer.len() < 8 {
        return Ok(None);
    }
    let mut head = &buffer[..8];
    let (json, bytes) = (head.get_u32_le() as usize, head.get_u32_le() as usize);
    if json > LONGEST || bytes > LONGEST {
        return Err(format!("a record of {json} and {bytes} bytes"));
    }
    if buffer.len() < 8 + json + bytes {
        return Ok(None);
    }
    buffer.advance(8);
    let json = buffer.split_to(json);
    let record = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
    Ok(Some((record, buffer.split_to(bytes).freeze())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_arrive_whole_however_they_are_cut() {
        let packet = Packet { number: 7, interface: "eth0".into(), ..Packet::default() };
        let packet = Record::Packet(packet);
        let end = Record::End(End { why: "count".into(), ..End::default() });
        let sent = [encode(&packet, [b"abc", b"de"]), encode(&end, [b"", b""])].concat();
        let mut buffer = BytesMut::new();
        let mut got = Vec::new();
        for byte in sent {
            buffer.put_u8(byte);
            got.extend(decode(&mut buffer).unwrap());
        }
        assert_eq!(got, [(packet, Bytes::from("abcde")), (end, Bytes::new())]);
        let mut nonsense = BytesMut::from(&[0xff; 8][..]);
        assert!(decode(&mut nonsense).is_err());
    }
}
