//! What a dry run or a capturing program tells about a packet.

use super::{Address, BackendId, Slot};
use crate::be::Be16;

/// Values of the load-time global `MODE`.
pub mod mode {
    /// The program on the NICs: it tells nothing, and the verifier has removed everything that would.
    pub const PLAIN: u32 = 0;
    /// A second copy that only BPF_PROG_TEST_RUN runs: it decides as the plain one, writes nothing that others read, and
    /// leaves a [`super::Trace`].
    pub const DRY_RUN: u32 = 1;
    /// On the NICs while somebody captures: as the plain one, and it shows packets.
    pub const CAPTURE: u32 = 2;
}

/// Bits of [`Trace::flags`].
pub mod trace_flag {
    /// Sent to `backend`.
    pub const REQUEST: u32 = 1;
    /// Sent back from `backend`.
    pub const REPLY: u32 = 2;
    /// `backend` was chosen, but the packet did not get there.
    pub const CHOSEN: u32 = 8;
    /// `slot` is the flow's, which is not settled.
    pub const CHANGING: u32 = 4;
}

/// An entry of `TRACE`, one cache line: what has become of the last packet of a CPU (of a dry run: of the last packet).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The final verdict: bits 0..8 the XDP action, 8..16 the reason it was counted under (255 = as sent), 32..64 the
    /// service's id (0 if there is none, or if it was sent: then it is the backend's).
    pub verdict: u64,
    /// The flow's slot, if it is not settled.
    pub slot: Slot,
    /// Reasons that were counted beside the verdict, a bit each.
    pub beside: u64,
    /// When the packet came, nanoseconds of CLOCK_MONOTONIC; 0 in a dry run.
    pub time: u64,
    /// Whom it was sent to, or came from; [`BackendId::NONE`] = nobody.
    pub backend: BackendId,
    /// Bits of [`trace_flag`].
    pub flags: u32,
    /// NIC it was sent by (host order), if that is not the one it came by; else 0.
    pub egress: u32,
    /// Zero.
    pub _pad: u32,
    /// Zero; no two CPUs share a cache line.
    pub _reserved: [u64; 2],
}

const _: () = assert!(size_of::<Trace>() == 64);

impl Trace {
    /// The verdict's XDP action.
    pub const fn action(&self) -> u32 {
        self.verdict as u32 & 0x7
    }

    /// Number of the reason that the packet was counted under; `None` = it was counted as its backend's.
    pub const fn reason(&self) -> Option<u32> {
        match (self.verdict >> 8) as u8 {
            u8::MAX => None,
            reason => Some(reason as u32),
        }
    }

    /// The service's id in the verdict.
    pub const fn service(&self) -> u32 {
        (self.verdict >> 32) as u32
    }
}

/// Bytes of a frame that a capture takes, at most.
pub const MAX_SNAPLEN: u32 = 2_000;

/// Bits of [`CaptureRule::flags`]: which of its fields a packet has to fit.
pub mod rule_flag {
    /// Packets are wanted at all.
    pub const ON: u32 = 1;
    /// Source or destination is in `address`/`mask`.
    pub const ADDRESS: u32 = 2;
    /// Source or destination port is `port`.
    pub const PORT: u32 = 4;
    /// The IP protocol is `protocol`.
    pub const PROTOCOL: u32 = 8;
    /// It was for `service`.
    pub const SERVICE: u32 = 16;
    /// It was for `backend`, or from it.
    pub const BACKEND: u32 = 32;
    /// It was dropped.
    pub const DROPPED: u32 = 64;
    /// It was counted under `reason`, or that beside its verdict.
    pub const REASON: u32 = 128;
}

/// The one entry of `CAPTURE_RULE`: what a packet must fit to be captured, each before or after it is rewritten.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureRule {
    /// Bits of [`rule_flag`].
    pub flags: u32,
    /// Bytes taken of each frame, `64..=MAX_SNAPLEN`.
    pub snaplen: u32,
    /// Nanoseconds from one packet to the next, of each CPU.
    pub interval: u64,
    /// How many may come at once.
    pub burst: u64,
    /// An address.
    pub address: Address,
    /// Its bits that count.
    pub mask: Address,
    /// A port.
    pub port: Be16,
    /// IP protocol.
    pub protocol: u16,
    /// Number of a reason.
    pub reason: u32,
    /// Id of a service.
    pub service: u32,
    /// Id of a backend.
    pub backend: BackendId,
}

const _: () = assert!(size_of::<CaptureRule>() == 72);

/// One CPU's entry of `CAPTURE_STATE`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureState {
    /// State of the rate limit.
    pub limit: u64,
    /// Packets that fitted the rule.
    pub matched: u64,
    /// Of these, not shown because of the rate.
    pub limited: u64,
    /// Of these, not shown because nobody had fetched the ones before.
    pub lost: u64,
}

const _: () = assert!(size_of::<CaptureState>() == 32);

/// A record of `CAPTURES` before the bytes: those of the frame as it came, then those of the frame as it left.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureHead {
    /// What became of it.
    pub trace: Trace,
    /// NIC it came by (host order).
    pub ingress: u32,
    /// Length of the frame as it came, bytes (host order).
    pub length_before: u32,
    /// Length of the frame as it left, bytes; 0 if it did not.
    pub length_after: u32,
    /// Bytes here of the frame as it came.
    pub captured_before: u32,
    /// Bytes here of the frame as it left.
    pub captured_after: u32,
    /// What the frame fitted of the rule as it came: bits of [`rule_flag`].
    pub fitting_before: u32,
}

const _: () = assert!(size_of::<CaptureHead>() == 88);

/// An entry of `CAPTURE_BUFFER`: the record in the making. The room is for two frames of what the program's arithmetic
/// allows: an Ethernet header and 2,047 bytes.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureRecord {
    /// Its head.
    pub head: CaptureHead,
    /// The bytes.
    pub bytes: [u8; 4_128],
}

const _: () = assert!(size_of::<CaptureRecord>() == 88 + 4_128);
