//! Replies whose next hop nobody knows yet: kept for a moment, and sent when it is known, as RFC 1122 (2.3.2.2) wants it of
//! every host. So a node that has just taken over loses none to clients whom it has never heard of.

use std::{
    collections::VecDeque,
    net::IpAddr,
    time::{Duration, Instant},
};

use lb_common::abi::{DroppedSample, Reason};

use super::Node;
use crate::explain::packet;

/// The most that are kept; a new one takes the oldest's place.
const KEPT: usize = 256;
/// How long. Whoever has not answered by then is not there, and the sender has repeated it.
const PATIENCE: Duration = Duration::from_secs(1);

/// A frame as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    /// NIC it came in by.
    ifindex: u32,
    /// Whom it is for.
    to: IpAddr,
    bytes: Vec<u8>,
}

/// The queue, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Held {
    waiting: VecDeque<(Instant, Frame)>,
    /// Those just sent: one of them that is back would go round for ever.
    sent: VecDeque<(Instant, Frame)>,
}

impl Held {
    fn add(&mut self, now: Instant, frame: Frame) {
        self.forget(now);
        if self.sent.iter().any(|(_, sent)| *sent == frame) {
            return;
        }
        if self.waiting.len() == KEPT {
            self.waiting.pop_front();
        }
        self.waiting.push_back((now, frame));
    }

    /// Those that can be sent now.
    fn take(&mut self, now: Instant, known: impl Fn(IpAddr) -> bool) -> &[(Instant, Frame)] {
        self.forget(now);
        let before = self.sent.len();
        for (since, frame) in std::mem::take(&mut self.waiting) {
            match known(frame.to) {
                true => self.sent.push_back((now, frame)),
                false => self.waiting.push_back((since, frame)),
            }
        }
        &self.sent.make_contiguous()[before..]
    }

    fn forget(&mut self, now: Instant) {
        let lately = |(at, _): &(Instant, Frame)| now.duration_since(*at) < PATIENCE;
        self.waiting.retain(lately);
        self.sent.retain(lately);
    }
}

/// The frame of a sample, if it was dropped for want of a next hop and is there whole.
fn held_frame(sample: &DroppedSample) -> Option<Frame> {
    if sample.reason != Reason::NoNextHop as u32 || sample.captured != sample.length {
        return None;
    }
    let bytes = sample.bytes[..sample.captured as usize].to_vec();
    Some(Frame { ifindex: sample.ifindex, to: packet::destination(&bytes)?, bytes })
}

impl Node {
    /// Keeps a dropped reply that can be sent later.
    pub(super) fn hold(&mut self, sample: &DroppedSample) {
        let Some(frame) = held_frame(sample) else { return };
        // What is for a VIP waits for a backend's next hop, which is asked for all the time anyway.
        if self.services.iter().any(|service| service.spec.listen.has(frame.to)) {
            return;
        }
        // The program asks as well, but not for every one of many clients at once.
        if let Some(path) = self.snapshot.resolve(frame.to)
            && path.dst_mac.is_none()
        {
            self.net.want(path.ifindex, path.next_hop);
        }
        self.held.add(Instant::now(), frame);
        self.send_held();
    }

    /// Sends those whose next hop is known by now: the program sees them once more, as if they came in now.
    pub(super) fn send_held(&mut self) {
        let snapshot = &self.snapshot;
        let known = |to| snapshot.resolve(to).is_some_and(|path| path.dst_mac.is_some());
        for (_, frame) in self.held.take(Instant::now(), known) {
            let to = frame.to;
            match self.dataplane.receive_again(&frame.bytes, frame.ifindex) {
                Ok(()) => tracing::debug!(%to, "a reply that waited for its next hop is sent"),
                Err(error) => {
                    tracing::debug!(%error, %to, "a reply waited for its next hop in vain")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::SAMPLE_BYTES;

    use super::*;
    use crate::explain::frame::{Flow, Kind, frame as syn};

    fn frame(to: &str) -> Frame {
        Frame { ifindex: 2, to: to.parse().unwrap(), bytes: vec![0; 60] }
    }

    fn taken(held: &mut Held, now: Instant, known: impl Fn(IpAddr) -> bool) -> Vec<Frame> {
        held.take(now, known).iter().map(|(_, taken)| frame(&taken.to.to_string())).collect()
    }

    #[test]
    fn sent_once_when_known_and_forgotten_when_late() {
        let begin = Instant::now();
        let mut held = Held::default();
        held.add(begin, frame("192.0.2.1"));
        held.add(begin, frame("192.0.2.2"));
        let second = "192.0.2.2".parse::<IpAddr>().unwrap();
        assert_eq!(taken(&mut held, begin, |to| to == second), [frame("192.0.2.2")]);
        assert_eq!(taken(&mut held, begin, |to| to == second), []);
        held.add(begin, frame("192.0.2.2"));
        assert_eq!(taken(&mut held, begin, |to| to == second), [], "it came back");
        assert_eq!(taken(&mut held, begin + PATIENCE, |_| true), [], "too late");
        assert!(held.waiting.is_empty() && held.sent.is_empty());
        held.add(begin + PATIENCE, frame("192.0.2.2"));
        assert_eq!(taken(&mut held, begin + PATIENCE, |_| true).len(), 1, "repeated by its sender");
    }

    #[test]
    fn the_oldest_gives_way() {
        let begin = Instant::now();
        let mut held = Held::default();
        held.add(begin, frame("192.0.2.1"));
        for _ in 0..KEPT {
            held.add(begin, frame("192.0.2.2"));
        }
        assert_eq!(taken(&mut held, begin, |_| true), vec![frame("192.0.2.2"); KEPT]);
    }

    #[test]
    fn only_whole_frames_that_wanted_a_next_hop() {
        let flow = syn(&Flow {
            source: "[2001:db8::7]:80".parse().unwrap(),
            destination: "[2001:db8::9]:4711".parse().unwrap(),
            segment: Kind::Syn,
        });
        let mut sample = DroppedSample {
            service: 1,
            reason: Reason::NoNextHop as u32,
            ifindex: 2,
            length: flow.len() as u16,
            captured: flow.len() as u16,
            bytes: [0; SAMPLE_BYTES],
        };
        sample.bytes[..flow.len()].copy_from_slice(&flow);
        let found = held_frame(&sample).unwrap();
        assert_eq!((found.ifindex, found.bytes.as_slice()), (2, flow.as_slice()));
        assert_eq!(found.to, "2001:db8::9".parse::<IpAddr>().unwrap());
        assert_eq!(held_frame(&DroppedSample { reason: Reason::Ttl as u32, ..sample }), None);
        assert_eq!(held_frame(&DroppedSample { length: 1500, ..sample }), None, "cut off");
        assert_eq!(
            held_frame(&DroppedSample { bytes: [0; SAMPLE_BYTES], ..sample }),
            None,
            "no IP"
        );
    }
}
