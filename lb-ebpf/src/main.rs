//! The balancer: the way of a packet, from top to bottom.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the xdp macro makes a second function of each, without its text")]

use aya_ebpf::{bindings::xdp_action, helpers::generated, macros::xdp, programs::XdpContext};
use aya_log_ebpf::debug;
use lb_common::{
    abi::{Clock, Reason, ServiceRow, mode, service_flag},
    frame::{ETHER_TYPE_V4, ETHER_TYPE_V6, Ethernet, Frame},
    parse::{self, Family, NETWORK, Outline, V4, V4Options, V6, V6Extended},
};
use lb_ebpf::{
    admit, answer, challenge, config, count, error, fast, forward, fragment, fullnat, maps, next,
    packet::{Context, XdpFrame},
    quic, sample, select, service, trace, unserved,
    verdict::Verdict,
    vlan,
};

/// The fast path: XDP hands it every frame of the NICs it is attached to, and it goes on to [`balancer`] or [`fullnat`] with those that
/// are more than usual. Within the function that the macro makes, as the others are, so that the tail calls stand at the top.
#[xdp]
#[inline(always)]
pub fn fast_path(context: XdpContext) -> u32 {
    // SAFETY: the program's own argument; each step below makes its frame when the one before is done with its own.
    let context = unsafe { Context::new(context.ctx) };
    let mut verdict =
        if config::VLAN.load() == 0 { fast::packet(context) } else { Verdict::undecided() };
    if !verdict.is_final() {
        if fullnat::configured() && fast::is_fullnats(context, verdict) {
            next::fullnat(context);
        } else {
            next::balancer(context);
        }
        verdict = Verdict::drop(Reason::NoProgram, 0);
    }
    count::verdict(verdict);
    if verdict.action() == xdp_action::XDP_DROP {
        report(context, verdict);
    }
    verdict.action()
}

/// The balancer with all that there is. While somebody captures, and in dry runs, it sees every frame itself.
#[xdp]
#[inline(always)]
pub fn balancer(context: XdpContext) -> u32 {
    // SAFETY: the program's own argument; each step below makes its frame when the one before is done with its own.
    let context = unsafe { Context::new(context.ctx) };
    let mode = config::MODE.load();
    if mode != mode::PLAIN {
        trace::begin(context);
    }
    let verdict = decide(context);
    conclude::<true>(context, mode, verdict)
}

/// Full nat: what [`balancer`] goes on to, and what comes after it there.
#[xdp]
#[inline(always)]
pub fn fullnat(context: XdpContext) -> u32 {
    // SAFETY: as for `balancer`.
    let context = unsafe { Context::new(context.ctx) };
    let mut verdict = fullnat::packet(context);
    if config::VLAN.load() != 0 && !vlan::put_back(context) {
        verdict = Verdict::drop(Reason::EncapFailed, verdict.service());
    }
    conclude::<false>(context, config::MODE.load(), verdict)
}

/// Counts a packet, and tells of it. What is full nat's looks like a drop that is counted already, so that it costs no other
/// packet a comparison; with `GOES_ON` it goes there.
#[inline(always)]
fn conclude<const GOES_ON: bool>(context: Context, mode: u32, verdict: Verdict) -> u32 {
    let mut verdict = verdict;
    if mode != mode::DRY_RUN {
        count::verdict(verdict);
        if verdict.action() == xdp_action::XDP_DROP {
            if GOES_ON && fullnat::configured() && verdict.is_fullnat() {
                next::fullnat(context);
                verdict = Verdict::drop(Reason::NoProgram, 0);
                count::verdict(verdict);
            }
            report(context, verdict);
        }
    }
    if mode != mode::PLAIN {
        if GOES_ON && fullnat::configured() && verdict.is_fullnat() {
            next::fullnat(context);
            verdict = Verdict::drop(Reason::NoProgram, 0);
        }
        trace::end(context, verdict);
    }
    verdict.action()
}

/// Shows a drop to the controller, if not many others were, and logs it (nothing at all, and no instruction left, at
/// level 0).
#[inline(never)]
fn report(context: Context, verdict: Verdict) {
    sample::dropped(context, verdict);
    let (reason, service) = (verdict.reason().unwrap_or(0), verdict.service());
    debug!(&XdpContext::new(context.pointer()), "dropped: reason {}, service {}", reason, service);
}

#[inline(always)]
fn decide(context: Context) -> Verdict {
    if config::VLAN.load() == 0 {
        return decide_untagged(context);
    }
    vlan::take_off(context);
    let verdict = decide_untagged(context);
    // The tags stay off until full nat is through.
    if fullnat::configured() && verdict.is_fullnat() {
        return verdict;
    }
    if vlan::put_back(context) {
        verdict
    } else {
        Verdict::drop(Reason::EncapFailed, verdict.service())
    }
}

#[inline(always)]
fn decide_untagged(context: Context) -> Verdict {
    let frame = context.frame();
    let not_ours = Verdict::pass(Reason::Passed);
    let Some(ethernet) = frame.view::<Ethernet>(0) else { return not_ours };
    if ethernet.to_group() {
        return not_ours;
    }
    match ethernet.ether_type {
        ETHER_TYPE_V4 => match frame.view::<[u8; 2]>(NETWORK) {
            Some([0x45, _]) => finish::<V4>(context, balance_any::<V4>(context)),
            _ => finish::<V4Options>(context, balance_any::<V4Options>(context)),
        },
        ETHER_TYPE_V6 if config::HAVE_V6.load() != 0 => {
            finish_v6(context, balance_any::<V6>(context))
        }
        _ => not_ours,
    }
}

/// The way of a packet to its backend, with a stack of its own.
#[inline(never)]
fn balance<F: Family>(context: Context) -> Verdict {
    let frame = context.frame();
    let go = || {
        let outline = parse::outline::<F>(&frame).ok_or(Verdict::unserved())?;
        let service =
            service::find(&frame, &outline.flow).ok_or_else(|| unserved::plain::<F>(&frame))?;
        serve::<F>(frame, &outline, service)
    };
    match go() {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn serve<F: Family>(
    frame: XdpFrame,
    outline: &Outline,
    service: &ServiceRow,
) -> Result<Verdict, Verdict> {
    const BESIDE: u32 = service_flag::QUIC | service_flag::FULLNAT;
    if config::BESIDE.load() != 0 && service.flags & BESIDE != 0 {
        let is_fullnat = fullnat::configured() && service.flags & service_flag::FULLNAT != 0;
        return Err(if is_fullnat { Verdict::fullnat() } else { Verdict::quic() });
    }
    let packet =
        parse::examine::<F>(&frame, outline).map_err(|reason| Verdict::drop(reason, service.id))?;
    admit::packet::<F>(&frame, &packet, service)?;
    let backend = select::backend::<F>(&frame, &packet, service)?;
    forward::packet::<F>(frame, &packet, service, backend)
}

/// [`balance`] where there are services of several ports or of prefixes: a copy, so that it costs nothing where there are none.
#[inline(never)]
fn balance_ports<F: Family>(context: Context) -> Verdict {
    let frame = context.frame();
    let go = || {
        let unserved = Verdict::unserved();
        let outline = parse::outline::<F>(&frame).ok_or(unserved)?;
        let service = service::find_any(&frame, &outline.flow).ok_or(unserved)?;
        serve::<F>(frame, &outline, service)
    };
    match go() {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

/// The one of the two that this node needs.
#[inline(always)]
fn balance_any<F: Family>(context: Context) -> Verdict {
    if config::PORTS.load() == 0 { balance::<F>(context) } else { balance_ports::<F>(context) }
}

/// As [`finish`]; a packet with extension headers turns out to be one when it is for no service as far as one can see.
#[inline(always)]
fn finish_v6(context: Context, verdict: Verdict) -> Verdict {
    if !verdict.is_unserved() {
        return finish_served::<V6>(context, verdict);
    }
    let verdict = unserved::packet::<V6>(context, verdict);
    if verdict.is_extended() {
        return finish::<V6Extended>(context, balance_any::<V6Extended>(context));
    }
    finish_served::<V6>(context, verdict)
}

/// What the fast path leaves to be done.
#[inline(always)]
fn finish<F: Family>(context: Context, verdict: Verdict) -> Verdict {
    let verdict =
        if verdict.is_unserved() { unserved::packet::<F>(context, verdict) } else { verdict };
    finish_served::<F>(context, verdict)
}

#[inline(always)]
fn finish_served<F: Family>(context: Context, verdict: Verdict) -> Verdict {
    if verdict.is_final() {
        return verdict;
    }
    if fullnat::configured() && verdict.is_fullnat() {
        return verdict;
    }
    if quic::configured() && verdict.is_quic() {
        let verdict = quic::packet::<F>(context);
        return if verdict.is_final() { verdict } else { answer::give::<F>(context, verdict) };
    }
    let verdict = if verdict.is_quoting() { error::packet::<F>(context, verdict) } else { verdict };
    let verdict =
        if verdict.is_fragment() { fragment::packet::<F>(context, verdict) } else { verdict };
    if config::LIMIT_OPENINGS.load() != 0 && verdict.is_challenge() {
        return challenge::give::<F>(context, verdict);
    }
    if verdict.is_final() || fullnat::configured() && verdict.is_fullnat() {
        return verdict;
    }
    answer::give::<F>(context, verdict)
}

/// Reads both clocks at one moment; run by the controller, never attached.
#[xdp]
pub fn clock(_context: XdpContext) -> u32 {
    // SAFETY: helpers without arguments.
    let now = unsafe {
        Clock { jiffies: generated::bpf_jiffies64(), nanoseconds: generated::bpf_ktime_get_ns() }
    };
    if maps::CLOCK.set(0, &now, 0).is_err() {
        return xdp_action::XDP_DROP;
    }
    xdp_action::XDP_PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
