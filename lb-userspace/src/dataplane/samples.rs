//! Packets that were dropped, as far as the program shows them: its ring buffer as an async stream.

use aya::maps::{MapData, RingBuf};
use lb_common::abi::{DroppedSample, SAMPLE_BYTES};
use tokio::io::unix::AsyncFd;

/// The stream.
pub struct Samples(AsyncFd<RingBuf<MapData>>);

impl Samples {
    pub(super) fn new(ring: RingBuf<MapData>) -> std::io::Result<Self> {
        // SAFETY: a `RingBuf` keeps its map's descriptor open and the same for as long as it lives.
        Ok(Self(unsafe { AsyncFd::register(ring) }?))
    }

    /// The next one; `None` if the ring cannot be waited for any more.
    pub async fn next(&mut self) -> Option<DroppedSample> {
        loop {
            let mut ready = self.0.readable_mut().await.ok()?;
            if let Some(item) = ready.get_inner_mut().next() {
                if let Some(sample) = parse(&item) {
                    return Some(sample);
                }
                continue;
            }
            ready.clear_ready();
        }
    }
}

/// A record; bytes that were not captured are zeroed.
fn parse(record: &[u8]) -> Option<DroppedSample> {
    let word = |at: usize| Some(u32::from_ne_bytes(record.get(at..at + 4)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_ne_bytes(record.get(at..at + 2)?.try_into().ok()?));
    let captured = half(14)?.min(SAMPLE_BYTES as u16);
    let mut bytes = [0; SAMPLE_BYTES];
    let used = captured as usize;
    bytes[..used].copy_from_slice(record.get(16..16 + used)?);
    Some(DroppedSample {
        service: word(0)?,
        reason: word(4)?,
        ifindex: word(8)?,
        length: half(12)?,
        captured,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_and_its_uncaptured_bytes_are_not() {
        let mut record = vec![0xee; size_of::<DroppedSample>()];
        record[0..4].copy_from_slice(&7u32.to_ne_bytes());
        record[4..8].copy_from_slice(&14u32.to_ne_bytes());
        record[8..12].copy_from_slice(&3u32.to_ne_bytes());
        record[12..14].copy_from_slice(&1500u16.to_ne_bytes());
        record[14..16].copy_from_slice(&2u16.to_ne_bytes());
        let sample = parse(&record).unwrap();
        assert_eq!((sample.service, sample.reason, sample.ifindex), (7, 14, 3));
        assert_eq!((sample.length, sample.captured), (1500, 2));
        assert_eq!(sample.bytes[..3], [0xee, 0xee, 0]);
        assert!(parse(&record[..20]).is_some() && parse(&record[..17]).is_none());
    }
}
