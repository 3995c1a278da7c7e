//! Full nat, in a program of its own: the balancer goes on to it when it has found that a packet is to a service with
//! `forward: fullnat`, or to an address of the pool. (Within the balancer it would take the verifier beyond its limit.)
//!
//! [`table`] knows who has which port, [`request`] sends a client's packet to its backend, [`reply`] the backend's to the
//! client, [`error`] what routers say about either, and [`fragment`] either in pieces.

pub mod error;
pub mod fragment;
pub mod reply;
pub mod request;
pub mod slot;
pub mod table;
pub mod toa;

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{Address, BackendRow, Reason, ServiceRow, SourcePool, address_value, service_flag},
    frame::{ETHER_TYPE_V4, ETHER_TYPE_V6, Ethernet, Frame},
    parse::{self, Family, NETWORK, V4, V4Options, V6, V6Extended},
};
use network_types::ip::Ipv6Hdr;

use crate::{
    answer, config,
    maps::SOURCE_POOL,
    nexthop::{self, Hop},
    packet::{Context, XdpFrame},
    service,
    verdict::Verdict,
};

/// Whether any service does full nat.
#[inline(always)]
pub fn configured() -> bool {
    config::BESIDE.load() & service_flag::FULLNAT != 0
}

/// The way to a backend for a packet that is not answered if it does not fit.
#[inline(always)]
pub fn hop_to(frame: &XdpFrame, row: &BackendRow, length: u16) -> Result<Hop, Reason> {
    let hop = nexthop::to_backend(frame, row)?;
    let from = frame.view::<Ethernet>(0).ok_or(Reason::L3Truncated)?.source;
    if hop.macs.is_from(from) && nexthop::is_ingress(frame, hop.ifindex) {
        return Err(Reason::LoopSourceMac);
    }
    if hop.mtu != 0 && length > hop.mtu {
        return Err(Reason::TooBig);
    }
    Ok(hop)
}

/// What becomes of a packet.
#[inline(always)]
pub fn packet(context: Context) -> Verdict {
    let frame = context.frame();
    let not_ours = Verdict::pass(Reason::Passed);
    let Some(ethernet) = frame.view::<Ethernet>(0) else { return not_ours };
    match ethernet.ether_type {
        ETHER_TYPE_V4 => match frame.view::<[u8; 2]>(NETWORK) {
            Some([0x45, _]) => finish::<V4>(context, fullnat_v4(context.pointer())),
            _ => finish::<V4Options>(context, fullnat_v4_options(context.pointer())),
        },
        ETHER_TYPE_V6 if config::HAVE_V6.load() != 0 => {
            let extended = frame
                .view::<Ipv6Hdr>(NETWORK)
                .is_some_and(|header| V6::check_chain(header) == Err(Reason::ExtensionHeader));
            match extended {
                false => finish::<V6>(context, fullnat_v6(context.pointer())),
                true => finish::<V6Extended>(context, fullnat_v6_extended(context.pointer())),
            }
        }
        _ => not_ours,
    }
}

#[inline(always)]
fn finish<F: Family>(context: Context, verdict: u64) -> Verdict {
    let verdict = Verdict::of_word(verdict);
    if verdict.is_final() { verdict } else { answer::give::<F>(context, verdict) }
}

/// The way of a packet in the shape of global functions, one a family, each verified once.
macro_rules! ways {
    ($($family:ident: $way:ident;)*) => { $(
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $way(context: *mut xdp_md) -> u64 {
            // SAFETY: the program's own argument; the caller's frame is not in use any more.
            let verdict = either_way::<$family>(unsafe { Context::new(context) });
            verdict.word()
        }
    )* };
}

ways! {
    V4: fullnat_v4;
    V4Options: fullnat_v4_options;
    V6: fullnat_v6;
    V6Extended: fullnat_v6_extended;
}

#[inline(always)]
fn either_way<F: Family>(context: Context) -> Verdict {
    if parse::outline::<F>(&context.frame()).is_none() {
        if fragment::is_one::<F>(context) {
            return fragment::packet::<F>(context);
        }
        return error::packet::<F>(context);
    }
    match service_of::<F>(context) {
        Some(service) if service.flags & service_flag::FULLNAT != 0 => {
            request::packet::<F>(context, service)
        }
        _ => reply::packet::<F>(context),
    }
}

/// The service that a packet is to, with a stack of its own.
#[inline(never)]
fn service_of<F: Family>(context: Context) -> Option<&'static ServiceRow> {
    let frame = context.frame();
    let outline = parse::outline::<F>(&frame)?;
    service::find_any(&frame, &outline.flow)
}

/// What the controller says of the pool.
#[inline(always)]
fn pool() -> Option<&'static SourcePool> {
    SOURCE_POOL.get(0)
}

/// An address of the pool by its number.
#[inline(always)]
fn pool_address(pool: &'static SourcePool, number: u32) -> &'static Address {
    &pool.addresses[(number & (lb_common::abi::POOL_ADDRESSES as u32 - 1)) as usize]
}

/// What `SERVICE_TABLE` says of an address of the pool.
#[derive(Clone, Copy)]
pub struct OfPool(u32);

impl OfPool {
    /// `None` = the address is none of the pool.
    #[inline(always)]
    fn of(address: &Address) -> Option<Self> {
        let value = service::address(address);
        address_value::pool_address(value).map(|_| Self(value))
    }

    /// The address's number.
    #[inline(always)]
    const fn number(self) -> u32 {
        (self.0 & (address_value::POOL - 1)) >> 1
    }

    /// What becomes of a packet that belongs to no flow: it is the host's, if the address is its, too.
    #[inline(always)]
    const fn nobodys(self) -> Verdict {
        match self.0 & 1 {
            1 => Verdict::pass(Reason::Passed),
            _ => Verdict::drop(Reason::NoFlow, 0),
        }
    }
}
