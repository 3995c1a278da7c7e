//! The balancer.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::xdp_action, helpers, macros::xdp, programs::XdpContext};
use lb_common::abi::Clock;
use lb_ebpf::{config, maps};

/// The balancer.
#[xdp]
pub fn balancer(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Reads both clocks at one moment.
#[xdp]
pub fn clock(_ctx: XdpContext) -> u32 {
    let _ = (config::HASH_KEYS.load(), config::SERVICE_MASK.load());
    // SAFETY: helpers without arguments.
    let now = unsafe {
        Clock {
            jiffies: helpers::generated::bpf_jiffies64(),
            nanoseconds: helpers::generated::bpf_ktime_get_ns(),
        }
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
