//! Programs of the lab and the benchmark; no part of the balancer.
//!
//! - `pass`: XDP_PASS. The far end of a veth needs a program to receive what XDP sent (lab ends, clients, backends).
//! - `floor`: swaps the MAC addresses and sends the frame back: the least that any XDP balancer does.
//! - `restore`: makes a test run with `repeat` a stream of distinct packets; see [`template`].
//! - `generator`: the same for live frames, sent from the NIC of the test run's context.
//! - `sink`: drops every frame and counts it.
//! - `constant`: sends IPv4 packets to one address on to one MAC address: the least that forwards anything.
//! - `tag`, `untag`: put a NIC into a VLAN as a VLAN device would, on kernels that have none.
//! - `compare`: what the peers do, for comparison; see [`compare`].
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(missing_docs, reason = "the `xdp` macro makes undocumented public symbols of its own")]

mod abi;
mod compare;
mod frame;
mod template;

use aya_ebpf::{
    Global,
    bindings::{TC_ACT_OK, TC_ACT_SHOT, xdp_action},
    helpers::generated,
    macros::{classifier, map, xdp},
    maps::{Array, PerCpuArray, ProgramArray},
    programs::{TcContext, XdpContext},
};

/// The programs under test, which `restore` calls.
#[map]
static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(32, 0);

/// Frames that `sink` has seen.
#[map]
static SUNK: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// What `constant` does.
#[map]
static CONSTANT: Array<abi::Constant> = Array::with_max_entries(1, 0);

/// Leaves every frame to the host.
#[xdp]
pub fn pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Sends every frame back.
#[xdp]
pub fn floor(ctx: XdpContext) -> u32 {
    let Some(addresses) = frame::bytes::<[[u16; 3]; 2]>(ctx.ctx) else {
        return xdp_action::XDP_DROP;
    };
    // SAFETY: `bytes` has checked the bounds; the frame is ours alone while the program runs.
    unsafe {
        let [destination, source] = addresses.read_unaligned();
        addresses.write_unaligned([source, destination]);
    }
    xdp_action::XDP_TX
}

/// Forwards what has one destination, and nothing else.
#[xdp]
pub fn constant(ctx: XdpContext) -> u32 {
    let Some(constant) = CONSTANT.get(0) else { return xdp_action::XDP_PASS };
    // An Ethernet header and an IPv4 header.
    let Some(headers) = frame::bytes::<[u8; 34]>(ctx.ctx) else { return xdp_action::XDP_PASS };
    // SAFETY: `bytes` has checked the bounds; the frame is ours alone while the program runs.
    unsafe {
        let bytes = headers.cast::<u8>();
        let ether_type = bytes.add(12).cast::<u16>().read_unaligned();
        if u16::from_be(ether_type) != 0x0800
            || bytes.add(30).cast::<u32>().read_unaligned() != constant.address
        {
            return xdp_action::XDP_PASS;
        }
        let own = bytes.cast::<[u16; 3]>().read_unaligned();
        bytes.cast::<[u8; 6]>().write_unaligned(constant.mac);
        bytes.add(6).cast::<[u16; 3]>().write_unaligned(own);
    }
    xdp_action::XDP_TX
}

/// Drops every frame and counts it.
#[xdp]
pub fn sink(_ctx: XdpContext) -> u32 {
    if let Some(count) = SUNK.get_ptr_mut(0) {
        // SAFETY: this CPU's own entry, and XDP programs do not preempt one another.
        unsafe { *count += 1 };
    }
    xdp_action::XDP_DROP
}

/// Turns the frame, whatever the last round has made of it, into the next flow's, and calls the program under test.
#[xdp]
pub fn restore(ctx: XdpContext) -> u32 {
    let Some(program) = template::next(ctx.ctx) else { return xdp_action::XDP_ABORTED };
    // SAFETY: nothing of this program is needed after the call.
    unsafe { PROGRAMS.tail_call(&ctx, program) };
    // Only reached if there is no such program.
    xdp_action::XDP_ABORTED
}

/// Turns the frame into the next flow's and sends it.
#[xdp]
pub fn generator(ctx: XdpContext) -> u32 {
    match template::next(ctx.ctx) {
        Some(_) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Tags of the VLAN that `tag` and `untag` are about: 1, or 2 with a provider's outside.
#[unsafe(no_mangle)]
static TAGS: Global<u32> = Global::new(1);
/// The VLAN, and the provider's.
const VLANS: [(u16, u16); 2] = [(0x8100, 5), (0x88a8, 7)];

/// Puts the VLAN's tags on what the host sends.
#[classifier]
pub fn tag(ctx: TcContext) -> i32 {
    for (protocol, vlan) in VLANS.into_iter().take(TAGS.load() as usize) {
        // SAFETY: the helper gets the program's own context; no pointer into the packet is in use.
        if unsafe { generated::bpf_skb_vlan_push(ctx.skb.skb, protocol.to_be(), vlan) } != 0 {
            return TC_ACT_SHOT;
        }
    }
    TC_ACT_OK as i32
}

/// Takes them off what the host receives; it gets nothing from elsewhere.
#[classifier]
pub fn untag(ctx: TcContext) -> i32 {
    for (_, vlan) in VLANS.into_iter().rev().skip(VLANS.len() - TAGS.load() as usize) {
        // SAFETY: the helper gets the program's own context, which is valid for the program's run; no pointer into the
        // packet is in use.
        let is_taken_off = unsafe {
            (&raw const (*ctx.skb.skb).vlan_tci).read_volatile() & 0xfff == vlan as u32
                && generated::bpf_skb_vlan_pop(ctx.skb.skb) == 0
        };
        if !is_taken_off {
            return TC_ACT_SHOT;
        }
    }
    TC_ACT_OK as i32
}

/// The comparison.
#[xdp]
pub fn compare(ctx: XdpContext) -> u32 {
    compare::forward(ctx.ctx).unwrap_or(xdp_action::XDP_DROP)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
