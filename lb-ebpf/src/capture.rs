//! Shows packets as they come and as they leave to whoever captures. Only a program loaded for a capture has any of this.
//!
//! The frame is copied before anything is decided, because the decision rewrites it; whether it is wanted is known only
//! afterwards. Head and bytes of both are one record, so that neither is ever shown without the other.

use aya_ebpf::{bindings::xdp_action, helpers::generated};
use lb_common::{
    abi::{BackendId, CaptureHead, CaptureRecord, CaptureRule, Trace, rule_flag},
    frame::{ETHER_TYPE_V4, ETHER_TYPE_V6, Ethernet, Frame, Ports, be16},
    ip::IpHeader,
    limit::Limit,
    parse::NETWORK,
    vlan::{self, Tags},
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    config,
    maps::{self, CAPTURE_BUFFER, CAPTURE_RULE, CAPTURE_STATE, CAPTURES},
    packet::{Context, XdpFrame},
    trace,
};

const ETHERNET: u64 = size_of::<Ethernet>() as u64;
/// Bits of the number of bytes taken beyond the Ethernet header.
const MORE: u64 = 0x7ff;

/// Takes the frame as it comes. A function of its own, for the stack's sake.
#[inline(never)]
pub fn before(context: Context) -> u32 {
    let (Some(rule), Some(record)) = (CAPTURE_RULE.get(0), CAPTURE_BUFFER.get_ptr_mut(0)) else {
        return 0;
    };
    if rule.flags & rule_flag::ON == 0 {
        return 0;
    }
    let fitting = fitting_bytes(&context.frame(), rule);
    // SAFETY: the record is this CPU's own, and its bytes are longer than all that may be taken.
    unsafe {
        let head = &raw mut (*record).head;
        (&raw mut (*head).ingress).write(context.ingress());
        (&raw mut (*head).length_before).write(context.frame().length() as u32);
        (&raw mut (*head).fitting_before).write(fitting);
        let taken = take(context, rule, (&raw mut (*record).bytes).cast());
        (&raw mut (*head).captured_before).write(taken);
    }
    1
}

/// Shows the frame as it came and as it leaves, if it is wanted.
#[inline(never)]
pub fn after(context: Context) -> u32 {
    let (Some(rule), Some(record), Some(state), Some(trace)) = (
        CAPTURE_RULE.get(0),
        CAPTURE_BUFFER.get_ptr_mut(0),
        CAPTURE_STATE.get_ptr_mut(0),
        trace::current(),
    ) else {
        return 0;
    };
    if rule.flags & rule_flag::ON == 0 {
        return 0;
    }
    // SAFETY: all three are this CPU's own, and nobody else uses them while the program runs; user space only reads the
    // state's words, which are written whole.
    let (head, trace, state) = unsafe { (&mut (*record).head, &*trace, &mut *state) };
    if head.captured_before == 0 {
        return 0;
    }
    let leaves = matches!(trace.action(), xdp_action::XDP_TX | xdp_action::XDP_REDIRECT);
    let mut fitting = head.fitting_before;
    if leaves {
        fitting |= fitting_bytes(&context.frame(), rule);
    }
    if rule.flags & OF_BYTES & !fitting != 0 || !fits_verdict(trace, rule) {
        return 0;
    }
    state.matched += 1;
    let limit = Limit { interval: rule.interval, burst: rule.burst };
    match limit.admit(state.limit, trace.time) {
        Some(next) => state.limit = next,
        None => {
            state.limited += 1;
            return 0;
        }
    }
    head.trace = *trace;
    head.length_after = 0;
    head.captured_after = 0;
    if leaves {
        head.length_after = context.frame().length() as u32;
        let at = ETHERNET + taken_before(record);
        // SAFETY: `at` and what is taken are at most 14 + 2,047 each, and the bytes are longer than both.
        let to = unsafe { (&raw mut (*record).bytes).cast::<u8>().add(at as usize) };
        head.captured_after = take(context, rule, to);
    }
    if !show(record) {
        state.lost += 1;
    }
    1
}

/// Copies the start of the frame to where there is room for an Ethernet header and [`MORE`] bytes; returns how many.
#[inline(always)]
fn take(context: Context, rule: &CaptureRule, to: *mut u8) -> u32 {
    let length = context.frame().length() as u64;
    // No frame is shorter than its Ethernet header: so the verifier sees that the helper is never asked for nothing.
    let more = length.wrapping_sub(ETHERNET);
    let wanted = (rule.snaplen as u64).wrapping_sub(ETHERNET);
    let taken = ETHERNET + (if more < wanted { more } else { wanted } & MORE);
    // SAFETY: the helper gets the program's own context, and writes `taken` bytes, for which there is room.
    match unsafe { generated::bpf_xdp_load_bytes(context.pointer(), 0, to.cast(), taken as u32) } {
        0 => taken as u32,
        _ => 0,
    }
}

/// Bytes of the frame as it came beyond its Ethernet header, read anew, within bounds that the verifier knows.
#[inline(always)]
fn taken_before(record: *mut CaptureRecord) -> u64 {
    // SAFETY: a word of this CPU's record; volatile, so that the bounds are not taken for granted.
    let taken = unsafe { (&raw const (*record).head.captured_before).read_volatile() };
    (taken as u64).wrapping_sub(ETHERNET) & MORE
}

/// Puts the record into the ring; false if there is no room.
#[inline(always)]
fn show(record: *mut CaptureRecord) -> bool {
    // SAFETY: as above.
    let taken = unsafe { (&raw const (*record).head.captured_after).read_volatile() };
    let after =
        if taken == 0 { 0 } else { ETHERNET + ((taken as u64).wrapping_sub(ETHERNET) & MORE) };
    let length = size_of::<CaptureHead>() as u64 + ETHERNET + taken_before(record) + after;
    // SAFETY: the helper reads `length` bytes of the record, which is longer; the map is a ring.
    unsafe {
        generated::bpf_ringbuf_output(
            (&raw const CAPTURES).cast_mut().cast(),
            record.cast(),
            length,
            0,
        ) == 0
    }
}

/// What a rule says about bytes.
const OF_BYTES: u32 = rule_flag::ADDRESS | rule_flag::PORT | rule_flag::PROTOCOL;

/// What of [`OF_BYTES`] the frame fits.
#[inline(always)]
fn fitting_bytes(frame: &XdpFrame, rule: &CaptureRule) -> u32 {
    if rule.flags & OF_BYTES == 0 {
        return 0;
    }
    let network = NETWORK + length_of_tags(frame);
    match frame.view::<[u8; 2]>(network - ETHER_TYPE) {
        Some(&ETHER_TYPE_V4) => fitting_packet::<Ipv4Hdr>(frame, rule, network),
        Some(&ETHER_TYPE_V6) => fitting_packet::<Ipv6Hdr>(frame, rule, network),
        _ => 0,
    }
}

/// Bytes of an EtherType.
const ETHER_TYPE: usize = 2;

/// Frames are shown with their VLAN tags.
#[inline(always)]
fn length_of_tags(frame: &XdpFrame) -> usize {
    if config::VLAN.load() == 0 { 0 } else { vlan::read(frame).map_or(0, Tags::length) }
}

#[inline(always)]
fn fitting_packet<H: IpHeader>(frame: &XdpFrame, rule: &CaptureRule, network: usize) -> u32 {
    let Some(header) = frame.view::<H>(network) else { return 0 };
    let mut fitting = 0;
    if header.protocol() as u16 == rule.protocol {
        fitting |= rule_flag::PROTOCOL;
    }
    if within(&header.source(), rule) || within(&header.destination(), rule) {
        fitting |= rule_flag::ADDRESS;
    }
    let transport = match H::IS_V6 {
        true => network + H::LENGTH,
        false => match frame.view::<[u8; 2]>(network) {
            Some([first, _]) => network + (*first & 0x0f) as usize * 4,
            None => return fitting,
        },
    };
    if let Some(ports) = frame.view::<Ports>(transport)
        && (be16(ports.source) == rule.port || be16(ports.destination) == rule.port)
    {
        fitting |= rule_flag::PORT;
    }
    fitting
}

#[inline(always)]
fn within(address: &lb_common::abi::Address, rule: &CaptureRule) -> bool {
    let mut differs = 0;
    for index in 0..4 {
        let (found, wanted) = (address.words[index].raw(), rule.address.words[index].raw());
        differs |= (found ^ wanted) & rule.mask.words[index].raw();
    }
    differs == 0
}

/// Whether what became of the packet is what is wanted.
#[inline(always)]
fn fits_verdict(trace: &Trace, rule: &CaptureRule) -> bool {
    if rule.flags & rule_flag::DROPPED != 0 && trace.action() != xdp_action::XDP_DROP {
        return false;
    }
    if rule.flags & rule_flag::BACKEND != 0 && trace.backend != rule.backend {
        return false;
    }
    if rule.flags & rule_flag::REASON != 0
        && trace.reason() != Some(rule.reason)
        && trace.beside & (1 << (rule.reason & 63)) == 0
    {
        return false;
    }
    rule.flags & rule_flag::SERVICE == 0 || service_of(trace) == rule.service
}

#[inline(always)]
fn service_of(trace: &Trace) -> u32 {
    match trace.backend {
        BackendId::NONE => trace.service(),
        backend => maps::backend(backend).map_or(0, |row| row.service),
    }
}
