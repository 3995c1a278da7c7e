//! Where a frame goes on the wire: egress NIC and both MAC addresses. The controller keeps them in the maps; where it
//! has none the kernel is asked, and the controller told.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup, xdp_action},
    helpers::generated,
};
use lb_common::{
    abi::{
        Address, BackendRow, NEIGHBOUR_WANTED_ANY_INTERFACE, NeighbourKey, NeighbourWanted, Reason,
        backend_flag, nexthop_flag,
    },
    frame::MacPair,
    parse::{self, Family},
};

use crate::{
    config, limit, maps,
    packet::{Context, XdpFrame},
    trace, way_back,
};

/// A resolved next hop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hop {
    /// The next hop's and the egress NIC's MAC address.
    pub macs: MacPair,
    /// Egress NIC.
    pub ifindex: u32,
    /// MTU of the egress NIC, 0 if not known.
    pub mtu: u16,
}

/// The next hop towards a backend.
#[inline(always)]
pub fn to_backend(frame: &XdpFrame, row: &BackendRow) -> Result<Hop, Reason> {
    if row.flags & backend_flag::RESOLVED != 0 {
        let macs = MacPair::new(row.dst_mac, row.src_mac);
        return Ok(Hop { macs, ifindex: row.ifindex, mtu: row.mtu });
    }
    let mut hop = Hop { mtu: row.mtu, ..Hop::default() };
    match ask_kernel(frame.context(), &row.address, &mut hop) {
        0 => Err(Reason::NoNextHop),
        _ => Ok(hop),
    }
}

/// Finds the next hop towards the client of a reply, who is the frame's destination; 0 if there is none. A function of
/// its own: its keys stay off the caller's stack.
#[inline(never)]
pub fn to_client<F: Family>(context: Context, hop: &mut Hop) -> u32 {
    let frame = context.frame();
    let Ok(client) = parse::destination::<F>(&frame) else { return 0 };
    find(context, &client, hop)
}

/// The next hop towards a client, if the controller's maps have one; `false` = [`to_client`] has to find it.
#[inline(always)]
pub fn known(client: &Address, hop: &mut Hop) -> bool {
    matches!(route(client, hop), Route::Resolved)
}

/// The same for a client who is not the frame's destination.
#[inline(never)]
pub fn to_address(context: Context, client: &Address, hop: &mut Hop) -> u32 {
    find(context, client, hop)
}

#[inline(always)]
fn find(context: Context, client: &Address, hop: &mut Hop) -> u32 {
    let (neighbour, ifindex) = match route(client, hop) {
        Route::Resolved => return 1,
        Route::Unresolved(neighbour, ifindex) => (neighbour, ifindex),
    };
    let source = hop.macs.source();
    if ask_or_want(context, client, &neighbour, ifindex, hop) != 0 {
        return 1;
    }
    // A client who has just appeared, or whose packets come to this node since a moment: nobody has answered yet.
    match way_back::look(client, ifindex) {
        Some(mac) => {
            hop.macs = MacPair::new(mac, source);
            1
        }
        None => 0,
    }
}

enum Route {
    Resolved,
    Unresolved(Address, u32),
}

#[inline(always)]
fn route(client: &Address, hop: &mut Hop) -> Route {
    let unknown = Route::Unresolved(*client, NEIGHBOUR_WANTED_ANY_INTERFACE);
    let Some(row) = maps::route(client).and_then(|row| maps::NEXTHOPS.get(row)) else {
        return unknown;
    };
    hop.ifindex = row.ifindex;
    hop.mtu = row.mtu;
    hop.macs = MacPair::new([0; 6], row.src_mac);
    if row.flags & nexthop_flag::RESOLVED != 0 {
        hop.macs = MacPair::new(row.dst_mac, row.src_mac);
        return Route::Resolved;
    }
    if row.flags & nexthop_flag::ON_LINK == 0 {
        return Route::Unresolved(row.gateway, row.ifindex);
    }
    match maps::neighbour(&NeighbourKey { address: *client, ifindex: row.ifindex }) {
        Some(neighbour) => {
            hop.macs = MacPair::new(neighbour.mac, row.src_mac);
            Route::Resolved
        }
        None => Route::Unresolved(*client, row.ifindex),
    }
}

/// Asks the kernel's own tables for the way to a backend; 0 if they do not know either.
#[inline(never)]
fn ask_kernel(context: Context, backend: &Address, hop: &mut Hop) -> u32 {
    ask_or_want(context, backend, backend, NEIGHBOUR_WANTED_ANY_INTERFACE, hop)
}

#[inline(always)]
fn ask_or_want(
    context: Context,
    to: &Address,
    neighbour: &Address,
    ifindex: u32,
    hop: &mut Hop,
) -> u32 {
    if look_up(context, to, hop) {
        return 1;
    }
    want(neighbour, ifindex);
    0
}

#[inline(always)]
fn look_up(context: Context, to: &Address, hop: &mut Hop) -> bool {
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    let mut place = MaybeUninit::uninit();
    let question = cleared(&mut place);
    question.ifindex = context.ingress();
    if to.is_v4() {
        question.family = AF_INET;
        question.__bindgen_anon_4.ipv4_dst = to.words[3].raw();
    } else {
        question.family = AF_INET6;
        question.__bindgen_anon_4.ipv6_dst = to.words.map(|word| word.raw());
    }
    // SAFETY: the helper gets the program's own context and a structure of the length it is told.
    let answer = unsafe {
        generated::bpf_fib_lookup(
            context.pointer().cast(),
            question,
            size_of::<bpf_fib_lookup>() as i32,
            0,
        )
    };
    if answer != BPF_FIB_LKUP_RET_SUCCESS as i64 {
        return false;
    }
    hop.macs = macs_of(question);
    hop.ifindex = question.ifindex;
    true
}

/// Fills it with zeros word by word, where it stands: for a call of memset, kernels before 6.8 would count another 32 bytes of
/// stack, of which there are 512 for all calls in a row.
#[inline(always)]
fn cleared(place: &mut MaybeUninit<bpf_fib_lookup>) -> &mut bpf_fib_lookup {
    const WORDS: usize = size_of::<bpf_fib_lookup>() / size_of::<u32>();
    const { assert!(align_of::<bpf_fib_lookup>() == align_of::<u32>()) };
    let words = place.as_mut_ptr().cast::<u32>();
    for word in 0..WORDS {
        // SAFETY: within the structure, and aligned. Volatile, so that the compiler makes no memset of the loop.
        unsafe { words.add(word).write_volatile(0) };
    }
    // SAFETY: a C structure of integers and unions of integers, for which zero is a value; all of it has been written.
    unsafe { place.assume_init_mut() }
}

/// Both addresses of an answered question. They stand in a row, aligned to four bytes; read in any other portions, the
/// stack would be accessed misaligned, which the verifier refuses.
#[inline(always)]
fn macs_of(question: &bpf_fib_lookup) -> MacPair {
    const { assert!(core::mem::offset_of!(bpf_fib_lookup, smac) == 52) };
    const { assert!(core::mem::offset_of!(bpf_fib_lookup, dmac) == 58) };
    let words = (&raw const question.smac).cast::<u32>();
    let word = |index: usize| {
        // SAFETY: twelve bytes at offset 52 of a structure of 64, which is aligned to four.
        unsafe { words.add(index).read_volatile() }.to_ne_bytes()
    };
    let ([a, b, c, d], [e, f, g, h], [i, j, k, l]) = (word(0), word(1), word(2));
    MacPair::new([g, h, i, j, k, l], [a, b, c, d, e, f])
}

#[inline(always)]
fn want(neighbour: &Address, ifindex: u32) {
    if config::is_dry_run() || !limit::may_want(neighbour) {
        return;
    }
    // A full ring means that the controller has enough to do.
    if let Some(mut entry) = maps::WANTED.reserve::<NeighbourWanted>(0) {
        entry.write(NeighbourWanted { address: *neighbour, ifindex, _pad: 0 });
        entry.submit(0);
    }
}

/// Whether this is the NIC that the frame came in by.
#[inline(always)]
pub fn is_ingress(frame: &XdpFrame, ifindex: u32) -> bool {
    config::SINGLE_NIC.load() != 0 || ifindex == frame.context().ingress()
}

/// Sends the finished frame by its egress NIC.
#[inline(always)]
pub fn send(frame: &XdpFrame, ifindex: u32) -> Result<u32, Reason> {
    if is_ingress(frame, ifindex) {
        return Ok(xdp_action::XDP_TX);
    }
    trace::egress(ifindex);
    let on_failure = xdp_action::XDP_DROP as u64;
    maps::DEVICES.redirect(ifindex, on_failure).map_err(|_| Reason::EgressFailed)
}
