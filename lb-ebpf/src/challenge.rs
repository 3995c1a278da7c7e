//! The challenge of the SYN-flood stage, made in place of the SYN: a SYN-ACK that a client must refuse
//! ([`lb_common::syn_flood`]).

use lb_common::{
    abi::Reason,
    be::Be32,
    frame::{Ethernet, Frame, Tcp, Wire, be32, tcp_flag},
    ip::IpHeader,
    parse::{self, Family, NETWORK},
    syn_flood,
    tcp_reset::{self, Segment, payload_length},
};

use crate::{openings, packet::Context, verdict::Verdict};

/// Gives it; or the drop that is left where it cannot be given.
#[inline(never)]
pub fn give<F: Family>(context: Context, verdict: Verdict) -> Verdict {
    match become_challenge::<F>(context) {
        Some(()) => Verdict::answered(Reason::SynChallenge, verdict.service()),
        None => verdict.unanswered(),
    }
}

/// `None` also where one of a thousand million cookies is the number that the client would accept: its next SYN, or the next
/// minute, has another.
#[inline(always)]
fn become_challenge<F: Family>(context: Context) -> Option<()> {
    let mut frame = context.frame();
    let outline = parse::outline::<F>(&frame)?;
    let header = frame.view::<F::Header>(NETWORK)?;
    let (class, length) = (header.traffic_class(), header.length() as u16);
    let tcp = frame.view::<Tcp>(outline.transport)?;
    let payload = payload_length(tcp, outline.transport, length);
    let isn = be32(tcp.sequence).to_host();
    let cookie = openings::cookie(&outline.flow)?;
    if !syn_flood::is_refused(cookie, isn, payload) {
        return None;
    }
    let ethernet = *frame.view::<Ethernet>(0)?;
    let numbers = (Be32::from_host(0), Be32::from_host(cookie), tcp_flag::SYN | tcp_flag::ACK);
    let challenge: Segment<F::Header> = tcp_reset::answer(&ethernet, &outline.flow, class, numbers);
    *frame.view_mut(0)? = challenge;
    frame.cut(Segment::<F::Header>::LENGTH)?;
    Some(())
}
