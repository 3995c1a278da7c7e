//! A copy of the program that shows packets, in the place of the plain one while somebody captures.
//!
//! The two share all maps that remember anything about flows, and each link is updated at once: no packet meets no program,
//! and none meets a program that has forgotten its flow.

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, RingBuf},
    programs::Xdp,
};
use lb_common::abi::{
    BackendId, CaptureHead, CaptureRule, CaptureState, Slot, Trace, map, mode, program, rule_flag,
};
use tokio::io::unix::AsyncFd;

use super::{
    Dataplane, LoadError,
    load::{self, Recipe, Variant},
    mapped::Table,
};
use crate::config::model::XdpMode;

/// Bytes of records that wait to be fetched: at 300 bytes each, those of more than a tenth of a second at 100,000 a second.
const RING: u32 = 4 << 20;

/// The loaded copy.
pub struct CaptureProgram {
    ebpf: Ebpf,
    rule: Table<CaptureRule>,
}

/// Its records, as an async stream, and its counters.
pub struct Captured {
    ring: AsyncFd<RingBuf<MapData>>,
    state: PerCpuArray<MapData, CaptureState>,
}

/// A packet as it came and as it left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapturedPacket {
    /// All but the bytes.
    pub head: CaptureHead,
    /// The start of the frame as it came.
    pub before: Vec<u8>,
    /// The start of the frame as it left; empty if it did not.
    pub after: Vec<u8>,
}

impl CaptureProgram {
    /// Loads the copy; it captures nothing yet. Needs a tokio runtime.
    pub fn load(recipe: &Recipe) -> Result<(Self, Captured), LoadError> {
        let fail = |name: &str, error: std::io::Error| LoadError::map(name, error);
        let cpus = aya::util::nr_cpus().map_err(|(what, error)| fail(what, error))? as u32;
        let entries = [(map::CAPTURES, RING), (map::TRACE, cpus)];
        let variant = Variant { mode: mode::CAPTURE, own: &[], entries: &entries };
        let mut ebpf = load::load_copy(recipe, &variant)?;
        let ring: RingBuf<MapData> = load::take(&mut ebpf, map::CAPTURES)?;
        // SAFETY: a `RingBuf` keeps its map's descriptor open and the same for as long as it lives.
        let ring = unsafe { AsyncFd::register(ring) };
        let captured = Captured {
            ring: ring.map_err(|error| fail(map::CAPTURES, std::io::Error::other(error)))?,
            state: load::take(&mut ebpf, map::CAPTURE_STATE)?,
        };
        let rule = load::mapped(&mut ebpf, map::CAPTURE_RULE)?;
        Ok((Self { ebpf, rule }, captured))
    }

    /// Captures by this rule from now on.
    pub fn begin(&self, rule: &CaptureRule) {
        self.rule.set(0, &CaptureRule { flags: rule.flags | rule_flag::ON, ..*rule });
    }

    pub(super) fn program(&self) -> Option<&Xdp> {
        self.ebpf.program(program::BALANCER)?.try_into().ok()
    }

    pub(super) fn program_mut(&mut self) -> Option<&mut Xdp> {
        self.ebpf.program_mut(program::BALANCER)?.try_into().ok()
    }
}

impl Dataplane {
    /// Puts the capturing copy on every NIC in the place of the plain program.
    pub fn begin_capture(&mut self, copy: CaptureProgram) -> anyhow::Result<()> {
        self.capture = Some(copy);
        let put = self.put_on_all();
        if put.is_err() {
            self.end_capture()?;
        }
        put
    }

    /// Puts the plain program back.
    pub fn end_capture(&mut self) -> anyhow::Result<()> {
        match self.capture.take() {
            None => Ok(()),
            // The copy is dropped when no NIC has it any more.
            Some(_copy) => {
                self.put_on_all()?;
                self.fullnat.forget(mode::CAPTURE)
            }
        }
    }

    /// Puts the program in force on every NIC that has one of ours.
    pub(super) fn put_on_all(&mut self) -> anyhow::Result<()> {
        for attachment in self.attachments().into_iter().filter(|found| found.ifindex != 0) {
            self.attach(attachment.ifindex, &attachment.ifname, XdpMode::Auto, false)?;
        }
        Ok(())
    }
}

impl Captured {
    /// Waits for records and takes at most `limit` of them; `None` if the ring cannot be waited for any more.
    pub async fn next(&mut self, limit: usize) -> Option<Vec<CapturedPacket>> {
        let mut packets = Vec::new();
        loop {
            let mut ready = self.ring.readable_mut().await.ok()?;
            let ring = ready.get_inner_mut();
            while packets.len() < limit
                && let Some(item) = ring.next()
            {
                packets.extend(parse(&item));
            }
            if packets.len() < limit {
                ready.clear_ready();
            }
            if !packets.is_empty() {
                return Some(packets);
            }
        }
    }

    /// Packets that fitted the rule; of these not shown because of the rate, and not shown because the ring was full.
    pub fn counts(&self) -> anyhow::Result<[u64; 3]> {
        let states = self.state.get(&0, 0)?;
        let sum = |field: fn(&CaptureState) -> u64| states.iter().map(field).sum();
        Ok([sum(|state| state.matched), sum(|state| state.limited), sum(|state| state.lost)])
    }
}

/// A record.
fn parse(record: &[u8]) -> Option<CapturedPacket> {
    let word = |at: usize| Some(u32::from_ne_bytes(record.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_ne_bytes(record.get(at..at + 8)?.try_into().ok()?));
    let head = CaptureHead {
        trace: Trace {
            verdict: long(0)?,
            slot: Slot(long(8)?),
            beside: long(16)?,
            time: long(24)?,
            backend: BackendId(word(32)?),
            flags: word(36)?,
            egress: word(40)?,
            ..Trace::default()
        },
        ingress: word(64)?,
        length_before: word(68)?,
        length_after: word(72)?,
        captured_before: word(76)?,
        captured_after: word(80)?,
        fitting_before: word(84)?,
    };
    let bytes = record.get(size_of::<CaptureHead>()..)?;
    let (before, after) = (head.captured_before as usize, head.captured_after as usize);
    let (before, rest) = bytes.split_at_checked(before)?;
    Some(CapturedPacket { head, before: before.to_vec(), after: rest.get(..after)?.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_head_and_both_frames() {
        let mut record = vec![0; size_of::<CaptureHead>()];
        record[0..8].copy_from_slice(&0x0000_0007_0000_0601u64.to_ne_bytes());
        record[24..32].copy_from_slice(&99u64.to_ne_bytes());
        for (at, word) in [(32, 5u32), (64, 3), (68, 1_500), (72, 1_520), (76, 3), (80, 2), (84, 1)]
        {
            record[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        record.extend(*b"abcde");
        let packet = parse(&record).unwrap();
        let trace = packet.head.trace;
        assert_eq!((trace.action(), trace.reason(), trace.service()), (1, Some(6), 7));
        assert_eq!((trace.time, trace.backend, packet.head.ingress), (99, BackendId(5), 3));
        assert_eq!((packet.head.length_before, packet.head.length_after), (1_500, 1_520));
        assert_eq!((&packet.before[..], &packet.after[..]), (&b"abc"[..], &b"de"[..]));
        for length in 0..record.len() {
            assert_eq!(parse(&record[..length]), None, "{length}");
        }
    }
}
