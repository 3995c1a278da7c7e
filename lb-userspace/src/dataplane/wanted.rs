//! Neighbours that packets needed: the program's ring buffer as an async stream.

use aya::maps::{MapData, RingBuf};
use lb_common::abi::NeighbourWanted;
use tokio::io::unix::AsyncFd;

/// The stream.
pub struct Wanted(AsyncFd<RingBuf<MapData>>);

impl Wanted {
    pub(super) fn new(ring: RingBuf<MapData>) -> std::io::Result<Self> {
        // SAFETY: a `RingBuf` keeps its map's descriptor open and the same for as long as it lives.
        Ok(Self(unsafe { AsyncFd::register(ring) }?))
    }

    /// The next one; `None` if the ring cannot be waited for any more.
    pub async fn next(&mut self) -> Option<NeighbourWanted> {
        loop {
            let mut ready = self.0.readable_mut().await.ok()?;
            if let Some(item) = ready.get_inner_mut().next() {
                if let Some(wanted) = parse(&item) {
                    return Some(wanted);
                }
                continue;
            }
            ready.clear_ready();
        }
    }
}

fn parse(record: &[u8]) -> Option<NeighbourWanted> {
    let word =
        |at: usize| Some(u32::from_ne_bytes(record.get(at * 4..at * 4 + 4)?.try_into().ok()?));
    let mut wanted = NeighbourWanted { ifindex: word(4)?, ..NeighbourWanted::default() };
    for (index, slot) in wanted.address.words.iter_mut().enumerate() {
        *slot = lb_common::be::Be32::from_raw(word(index)?);
    }
    Some(wanted)
}
