//! Failures that proven clients have met at observed backends, as the program tells of them: its ring buffer as an async
//! stream.

use aya::maps::{MapData, RingBuf};
use lb_common::abi::ObservedFailure;
use tokio::io::unix::AsyncFd;

/// The stream.
pub struct Failures(AsyncFd<RingBuf<MapData>>);

impl Failures {
    pub(super) fn new(ring: RingBuf<MapData>) -> std::io::Result<Self> {
        // SAFETY: a `RingBuf` keeps its map's descriptor open and the same for as long as it lives.
        Ok(Self(unsafe { AsyncFd::register(ring) }?))
    }

    /// The next one; `None` if the ring cannot be waited for any more.
    pub async fn next(&mut self) -> Option<ObservedFailure> {
        loop {
            let mut ready = self.0.readable_mut().await.ok()?;
            if let Some(item) = ready.get_inner_mut().next() {
                if item.len() == size_of::<ObservedFailure>() {
                    // SAFETY: the record is as long as the type, which takes every bit pattern.
                    return Some(unsafe {
                        item.as_ptr().cast::<ObservedFailure>().read_unaligned()
                    });
                }
                continue;
            }
            ready.clear_ready();
        }
    }
}
