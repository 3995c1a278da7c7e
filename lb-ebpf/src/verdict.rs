//! What becomes of a packet.

use aya_ebpf::bindings::xdp_action;
use lb_common::abi::Reason;

/// A decision in one word, so that functions of the program can return it: bits 0..8 an XDP action or what is left to be
/// done, 8..16 the reason to be counted, 16..32 an MTU, 32..64 the service's id (0 = none).
///
/// Steps that take room on the stack (replies, answers) are not called from where they turn out to be needed but named
/// in the verdict, and done when the deciding function has returned.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Verdict(u64);

/// An answer that a dropped packet deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Answer {
    /// ICMP: the hop limit ran out.
    TimeExceeded = 17,
    /// ICMP: the packet does not fit, see [`Verdict::mtu`].
    TooBig = 18,
    /// TCP reset, ICMP port unreachable.
    Refusal = 19,
    /// ICMP: administratively prohibited.
    Prohibited = 26,
}

const UNSERVED: u8 = 16;
const QUOTING: u8 = 20;
const FRAGMENT: u8 = 21;
const CHALLENGE: u8 = 22;
const EXTENDED: u8 = 23;
const QUIC: u8 = 24;
const PERHAPS_REPLY: u8 = 26;
const UNDECIDED: u8 = 27;
/// Its lowest three bits say XDP_DROP, see [`Verdict::fullnat`].
const FULLNAT: u8 = 25;
/// The packet is a backend's reply.
const REPLY: u8 = 0x80;
const COUNTED: u8 = 0xff;

impl Verdict {
    /// Sent towards a backend or a client, and counted there.
    #[inline(always)]
    pub const fn sent(action: u32) -> Self {
        Self(action as u64 | (COUNTED as u64) << 8)
    }

    /// Dropped.
    #[inline(always)]
    pub const fn drop(reason: Reason, service: u32) -> Self {
        Self::new(xdp_action::XDP_DROP as u8, reason as u8, 0, service)
    }

    /// Dropped, for the reason of this number.
    #[inline(always)]
    pub const fn drop_as(reason: u8, service: u32) -> Self {
        Self::new(xdp_action::XDP_DROP as u8, reason, 0, service)
    }

    /// Left to the host, untouched.
    #[inline(always)]
    pub const fn pass(reason: Reason) -> Self {
        Self::new(xdp_action::XDP_PASS as u8, reason as u8, 0, 0)
    }

    /// Answered: the frame has become the answer. `reason` may be that of a drop which got one.
    #[inline(always)]
    pub const fn answered(reason: Reason, service: u32) -> Self {
        Self::new(xdp_action::XDP_TX as u8, reason as u8, 0, service)
    }

    /// For no service: to be looked at by [`crate::unserved`].
    #[inline(always)]
    pub const fn unserved() -> Self {
        Self::new(UNSERVED, COUNTED, 0, 0)
    }

    /// For no service, and to no address of ours, but perhaps by a backend: to be looked at by [`crate::reply`].
    #[inline(always)]
    pub const fn perhaps_reply() -> Self {
        Self::new(PERHAPS_REPLY, COUNTED, 0, 0)
    }

    /// More than the fast path knows: the packet is as it came, and the balancer looks at it from the beginning.
    #[inline(always)]
    pub const fn undecided() -> Self {
        Self::new(UNDECIDED, COUNTED, 0, 0)
    }

    /// An ICMP error that may be about a balanced flow: to be looked at by [`crate::error`].
    #[inline(always)]
    pub const fn quoting() -> Self {
        Self::new(QUOTING, COUNTED, 0, 0)
    }

    /// A fragment that may belong to a balanced flow: to be looked at by [`crate::fragment`].
    #[inline(always)]
    pub const fn fragment() -> Self {
        Self::new(FRAGMENT, COUNTED, 0, 0)
    }

    /// To an address of ours, or from one of a backend, with IPv6 extension headers: to be looked at anew, as
    /// [`lb_common::parse::V6Extended`].
    #[inline(always)]
    pub const fn extended() -> Self {
        Self::new(EXTENDED, COUNTED, 0, 0)
    }

    /// A datagram to a QUIC service: to be looked at by [`crate::quic`].
    #[inline(always)]
    pub const fn quic() -> Self {
        Self::new(QUIC, COUNTED, 0, 0)
    }

    /// Of a service that does full nat, or to an address of its pool: to be looked at by [`crate::fullnat`]. Its
    /// [`Self::action`] is a drop.
    #[inline(always)]
    pub const fn fullnat() -> Self {
        const { assert!(FULLNAT & 7 == xdp_action::XDP_DROP as u8) };
        Self::new(FULLNAT, COUNTED, 0, 0)
    }

    /// To be dropped, and answered by [`crate::answer`] if possible. `mtu` is for [`Answer::TooBig`].
    #[inline(always)]
    pub const fn answer(answer: Answer, reason: Reason, mtu: u16, service: u32) -> Self {
        Self::new(answer as u8, reason as u8, mtu, service)
    }

    /// A SYN of an unknown source, to be answered by [`crate::challenge`], or dropped.
    #[inline(always)]
    pub const fn challenge(service: u32) -> Self {
        Self::new(CHALLENGE, Reason::SynUnproven as u8, 0, service)
    }

    /// The same verdict about a backend's reply.
    #[inline(always)]
    pub const fn of_reply(self) -> Self {
        Self(self.0 | REPLY as u64)
    }

    #[inline(always)]
    const fn new(step: u8, reason: u8, mtu: u16, service: u32) -> Self {
        Self(step as u64 | (reason as u64) << 8 | (mtu as u64) << 16 | (service as u64) << 32)
    }

    /// Whether nothing is left to be done but to count.
    #[inline(always)]
    pub const fn is_final(self) -> bool {
        (self.0 as u8) < UNSERVED
    }

    /// Whether this is [`Verdict::unserved`] or [`Verdict::perhaps_reply`].
    #[inline(always)]
    pub const fn is_unserved(self) -> bool {
        self.0 as u8 == UNSERVED || self.is_perhaps_reply()
    }

    /// Whether this is [`Verdict::perhaps_reply`].
    #[inline(always)]
    pub const fn is_perhaps_reply(self) -> bool {
        self.0 as u8 == PERHAPS_REPLY
    }

    /// Whether this is [`Verdict::quoting`].
    #[inline(always)]
    pub const fn is_quoting(self) -> bool {
        self.0 as u8 & !REPLY == QUOTING
    }

    /// Whether this is [`Verdict::fragment`].
    #[inline(always)]
    pub const fn is_fragment(self) -> bool {
        self.0 as u8 & !REPLY == FRAGMENT
    }

    /// Whether this is [`Verdict::extended`].
    #[inline(always)]
    pub const fn is_extended(self) -> bool {
        self.0 as u8 == EXTENDED
    }

    /// Whether this is [`Verdict::challenge`].
    #[inline(always)]
    pub const fn is_challenge(self) -> bool {
        self.0 as u8 == CHALLENGE
    }

    /// Whether this is [`Verdict::quic`].
    #[inline(always)]
    pub const fn is_quic(self) -> bool {
        self.0 as u8 == QUIC
    }

    /// Whether this is [`Verdict::fullnat`].
    #[inline(always)]
    pub const fn is_fullnat(self) -> bool {
        self.0 as u8 == FULLNAT
    }

    /// Whether the packet is a backend's reply.
    #[inline(always)]
    pub const fn is_of_reply(self) -> bool {
        self.0 as u8 & REPLY != 0
    }

    /// The answer to be given.
    #[inline(always)]
    pub const fn wanted_answer(self) -> Option<Answer> {
        const TIME_EXCEEDED: u8 = Answer::TimeExceeded as u8;
        const TOO_BIG: u8 = Answer::TooBig as u8;
        const REFUSAL: u8 = Answer::Refusal as u8;
        const PROHIBITED: u8 = Answer::Prohibited as u8;
        match self.0 as u8 & !REPLY {
            TIME_EXCEEDED => Some(Answer::TimeExceeded),
            TOO_BIG => Some(Answer::TooBig),
            REFUSAL => Some(Answer::Refusal),
            PROHIBITED => Some(Answer::Prohibited),
            _ => None,
        }
    }

    /// The drop that is left of a verdict whose answer cannot be given.
    #[inline(always)]
    pub const fn unanswered(self) -> Self {
        Self((self.0 & !0xff) | xdp_action::XDP_DROP as u64)
    }

    /// The answer that it wanted has been given, and its own reason is counted.
    #[inline(always)]
    pub const fn answered_as_it_is(self) -> Self {
        Self((self.0 & !0xffff_00ff) | xdp_action::XDP_TX as u64)
    }

    /// The XDP action of a final verdict.
    #[inline(always)]
    pub const fn action(self) -> u32 {
        self.0 as u32 & 0x7
    }

    /// The number of the reason to be counted, if it is not counted already.
    #[inline(always)]
    pub const fn reason(self) -> Option<u32> {
        match (self.0 >> 8) as u8 {
            COUNTED => None,
            reason => Some(reason as u32),
        }
    }

    /// Whether this is the reason to be counted.
    #[inline(always)]
    pub const fn is_counted_as(self, reason: Reason) -> bool {
        (self.0 >> 8) as u8 == reason as u8
    }

    /// From [`Verdict::word`].
    #[inline(always)]
    pub const fn of_word(word: u64) -> Self {
        Self(word)
    }

    /// The whole word, as [`lb_common::abi::Trace`] has it.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// For [`Answer::TooBig`]: the MTU to be told.
    #[inline(always)]
    pub const fn mtu(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The service's id; 0 if there is none.
    #[inline(always)]
    pub const fn service(self) -> u32 {
        (self.0 >> 32) as u32
    }
}
