//! The answers that dropped packets deserve, made in place: the frame becomes the answer and goes back where it came
//! from.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{Address, Reason, protocol},
    frame::{Ethernet, Frame, Pair, Tcp, Wire},
    icmp::{self, Error, ErrorHeaders},
    ip::IpHeader,
    parse::{self, Family, NETWORK, Packet, V4, V4Options, V6, V6Extended},
    tcp_reset::{self, Segment, payload_length},
};

use crate::{
    count, limit, maps,
    packet::{Context, XdpFrame},
    service, sum,
    verdict::{Answer, Verdict},
};

/// Gives the answer that a verdict names, if the rate limit allows.
#[inline(always)]
pub fn give<F: Family>(context: Context, verdict: Verdict) -> Verdict {
    let (context, verdict) = (context.pointer(), verdict.word());
    Verdict::of_word(match (F::Header::IS_V6, F::FIXED) {
        (true, true) => answer_v6(context, verdict),
        (true, false) => answer_v6_extended(context, verdict),
        (false, true) => answer_v4(context, verdict),
        (false, false) => answer_v4_options(context, verdict),
    })
}

/// [`give`] in the shape of global functions, one a family, each verified once and not for every verdict that leads to it.
macro_rules! answers {
    ($($family:ident: $answer:ident;)*) => { $(
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $answer(context: *mut xdp_md, verdict: u64) -> u64 {
            // SAFETY: the program's own argument; the caller's frame is not in use any more.
            give_as::<$family>(unsafe { Context::new(context) }, Verdict::of_word(verdict)).word()
        }
    )* };
}

answers! {
    V4: answer_v4;
    V4Options: answer_v4_options;
    V6: answer_v6;
    V6Extended: answer_v6_extended;
}

#[inline(always)]
fn give_as<F: Family>(context: Context, verdict: Verdict) -> Verdict {
    let frame = context.frame();
    // One after the other: taken together, fields of what is not there would be carried about, which the verifier refuses.
    let Some(outline) = parse::outline::<F>(&frame) else { return verdict.unanswered() };
    let Ok(packet) = parse::examine_reply::<F>(&frame, &outline) else {
        return verdict.unanswered();
    };
    let Some(answer) = verdict.wanted_answer() else { return verdict.unanswered() };
    answer_with::<F>(frame, &packet, answer, verdict).unwrap_or(verdict.unanswered())
}

#[inline(always)]
fn answer_with<F: Family>(
    frame: XdpFrame,
    packet: &Packet,
    answer: Answer,
    verdict: Verdict,
) -> Option<Verdict> {
    let service = verdict.service();
    if answer == Answer::Refusal && packet.flow.protocol == protocol::TCP {
        become_reset::<F>(frame, packet)?;
        let of_no_flow = verdict.is_counted_as(Reason::NoFlow);
        let reason = if of_no_flow { Reason::NoFlow } else { Reason::Reject };
        return Some(Verdict::answered(reason, service));
    }
    if !limit::may_send_icmp() {
        count::reason(Reason::IcmpLimited, service);
        return None;
    }
    let from = if verdict.is_of_reply() { vip_of(packet)? } else { packet.flow.destination };
    become_error::<F>(frame, packet.length, &from, Error::of_word(error_of(verdict.word())))?;
    if answer == Answer::Refusal {
        return Some(Verdict::answered(Reason::Reject, service));
    }
    Some(Verdict::of_word(sent(verdict.word())))
}

/// The error that a verdict wants, as [`Error::word`]. This and the next one are global functions, so that the verifier follows one way from
/// here and not one for each kind of answer.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn error_of(verdict: u64) -> u64 {
    let verdict = Verdict::of_word(verdict);
    match verdict.wanted_answer() {
        Some(Answer::TimeExceeded) => Error::TIME_EXCEEDED,
        Some(Answer::TooBig) => Error::too_big(verdict.mtu()),
        Some(Answer::Prohibited) => Error::PROHIBITED,
        Some(Answer::Refusal) | None => Error::PORT_UNREACHABLE,
    }
    .word()
}

/// Counts what has been sent beside its reason, and says what has become of the packet.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sent(verdict: u64) -> u64 {
    let verdict = Verdict::of_word(verdict);
    match verdict.wanted_answer() {
        Some(Answer::TimeExceeded) => count::reason(Reason::TimeExceededSent, verdict.service()),
        Some(Answer::TooBig) => count::reason(Reason::TooBigSent, verdict.service()),
        Some(Answer::Refusal | Answer::Prohibited) | None => {}
    }
    verdict.answered_as_it_is().word()
}

/// The VIP that a reply would be sent from.
#[inline(always)]
fn vip_of(packet: &Packet) -> Option<Address> {
    let backend = service::replying_backend(&packet.flow)?;
    maps::REPLIES.get(backend).map(|reply| reply.vip)
}

#[inline(always)]
fn become_error<F: Family>(
    frame: XdpFrame,
    length: u16,
    from: &Address,
    error: Error,
) -> Option<()> {
    let quoted = icmp::quoted_length(F::Header::IS_V6, length);
    let quote = sum::of_frame(&frame, NETWORK, quoted)?;
    let headers = frame.view::<Pair<Ethernet, F::Header>>(0)?;
    let front = icmp::error_headers(&headers.first, &headers.second, from, error, quote, quoted);
    let added = ErrorHeaders::<F::Header>::LENGTH - NETWORK;
    let mut frame = frame.move_start(-(added as i32))?;
    *frame.view_mut(0)? = front;
    frame.cut(NETWORK + added + quoted as usize)?;
    Some(())
}

#[inline(always)]
fn become_reset<F: Family>(mut frame: XdpFrame, packet: &Packet) -> Option<()> {
    let tcp = *frame.view::<Tcp>(packet.transport)?;
    let payload = payload_length(&tcp, packet.transport, packet.length);
    let ethernet = *frame.view::<Ethernet>(0)?;
    let reset: Segment<F::Header> =
        tcp_reset::reset(&ethernet, &packet.flow, packet.traffic_class, &tcp, payload)?;
    *frame.view_mut(0)? = reset;
    frame.cut(Segment::<F::Header>::LENGTH)?;
    Some(())
}
