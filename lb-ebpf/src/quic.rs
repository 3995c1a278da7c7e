//! QUIC services: which datagrams open a connection, and where connection ids lead (the rules are [`lb_common::quic`]). Where no
//! service is QUIC's, the verifier removes all of it.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{BackendId, QuicId, Reason, backend_flag, protocol, service_flag},
    frame::{Frame, tcp_flag},
    ip::IpHeader,
    parse::{self, Family, Packet, V4, V4Options, V6, V6Extended},
    quic::{Header, SERVER_ID},
    select::Segment,
};

use crate::{
    admit, config, count, forward,
    maps::{self, QUIC_FORMATS, QUIC_IDS},
    packet::{Context, XdpFrame},
    select, service,
    verdict::Verdict,
};

/// Whether any service is QUIC's.
#[inline(always)]
pub fn configured() -> bool {
    config::BESIDE.load() & service_flag::QUIC != 0
}

/// Whether a service with these flags is QUIC's.
#[inline(always)]
pub fn wanted(flags: u32) -> bool {
    configured() && flags & service_flag::QUIC != 0
}

/// The way of a datagram of QUIC to its backend: beside that of all other packets, which would be longer if both were one.
#[inline(always)]
pub fn packet<F: Family>(context: Context) -> Verdict {
    let context = context.pointer();
    Verdict::of_word(match (F::Header::IS_V6, F::FIXED) {
        (true, true) => quic_v6(context),
        (true, false) => quic_v6_extended(context),
        (false, true) => quic_v4(context),
        (false, false) => quic_v4_options(context),
    })
}

/// [`packet`] in the shape of global functions, one a family, each verified once.
macro_rules! ways {
    ($($family:ident: $way:ident;)*) => { $(
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $way(context: *mut xdp_md) -> u64 {
            // SAFETY: the program's own argument; the caller's frame is not in use any more.
            match balance::<$family>(unsafe { Context::new(context) }) {
                Ok(verdict) | Err(verdict) => verdict.word(),
            }
        }
    )* };
}

ways! {
    V4: quic_v4;
    V4Options: quic_v4_options;
    V6: quic_v6;
    V6Extended: quic_v6_extended;
}

#[inline(always)]
fn balance<F: Family>(context: Context) -> Result<Verdict, Verdict> {
    let frame = context.frame();
    // The caller has read the same and found the same service.
    let elsewhere = Verdict::pass(Reason::Passed);
    let mut outline = parse::outline::<F>(&frame).ok_or(elsewhere)?;
    let service = service::find_any(&frame, &outline.flow).ok_or(elsewhere)?;
    // Which it is; the compiler leaves out what is about TCP.
    outline.flow.protocol = protocol::UDP;
    let mut packet = parse::examine::<F>(&frame, &outline)
        .map_err(|reason| Verdict::drop(reason, service.id))?;
    packet.flags = flags(context, &packet);
    admit::datagram::<F>(&frame, &packet, service)?;
    let backend = match named_backend(context, &packet, service.id) {
        BackendId::NONE => select::backend_of_datagram::<F>(&frame, &packet, service)?,
        backend => backend,
    };
    forward::plain::<F>(frame, &packet, service, backend)
}

/// The flags of a packet in the words of TCP: SYN if it may open a connection.
#[inline(always)]
pub fn flags(context: Context, packet: &Packet) -> u8 {
    flags_of_datagram(context.pointer(), packet.transport as u32) as u8
}

/// [`flags`] in the shape of a global function: what it returns is any number to the verifier, so that there are not as many ways on
/// from here as there are kinds of packets.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn flags_of_datagram(context: *mut xdp_md, udp: u32) -> u32 {
    // SAFETY: the program's own argument; the caller's frame is not in use during this call, and not moved.
    let frame = unsafe { Context::new(context) }.frame();
    let opens = Header::read(&frame, (udp & BEHIND_HEADERS) as usize).opens;
    if opens { tcp_flag::SYN as u32 } else { 0 }
}

/// No UDP header begins behind this.
const BEHIND_HEADERS: u32 = 0xff;

/// What a datagram says about its flow, in the words of TCP. All connections of a flow are one to it: the second one's first
/// packets must not take the first one's elsewhere.
pub const fn segment(opens: bool) -> Segment {
    if opens {
        return Segment::Opening { isn: 0 };
    }
    Segment::Other { sequence: 1, acknowledgement: 0, length: 0, closing: false }
}

/// The backend that a packet's connection id names; `NONE` = what addresses and ports say.
#[inline(always)]
pub fn named_backend(context: Context, packet: &Packet, service: u32) -> BackendId {
    if packet.flags & tcp_flag::SYN != 0 {
        return BackendId::NONE;
    }
    BackendId(backend_of_connection_id(context.pointer(), packet.transport as u32, service))
}

/// [`named_backend`] in the shape of a global function, which is verified once: plain numbers in and out.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn backend_of_connection_id(context: *mut xdp_md, udp: u32, service: u32) -> u32 {
    const NOBODY: u32 = BackendId::NONE.0;
    // SAFETY: the program's own argument; the caller's frame is not in use during this call, and not moved.
    let frame = unsafe { Context::new(context) }.frame();
    let Some(formats) = QUIC_FORMATS.get(service) else { return NOBODY };
    if formats.0 == 0 {
        return NOBODY;
    }
    let header = Header::read(&frame, (udp & BEHIND_HEADERS) as usize);
    if header.id == 0 {
        count::reason(Reason::QuicFallback, service);
        return NOBODY;
    }
    let at = (header.id & 0x1ff) as usize;
    let Some([first]) = frame.view::<[u8; 1]>(at) else {
        count::reason(Reason::QuicFallback, service);
        return NOBODY;
    };
    let named = match formats.of(*first) {
        Some((config, length)) if length < header.length as u32 => {
            let mut key = QuicId { service, config: config as u8, id: [0; SERVER_ID] };
            if read_id(&frame, at, length, &mut key.id) { lookup(&key) } else { NOBODY }
        }
        _ => NOBODY,
    };
    if named == NOBODY {
        count::reason(Reason::QuicUnknown, service);
    }
    named
}

/// The server id behind the first byte of a connection id; false if the packet ends before it does.
#[inline(always)]
fn read_id(frame: &XdpFrame, at: usize, length: u32, id: &mut [u8; SERVER_ID]) -> bool {
    for (index, byte) in id.iter_mut().enumerate() {
        if index as u32 >= length {
            break;
        }
        let Some([found]) = frame.view::<[u8; 1]>(at + 1 + index) else { return false };
        *byte = *found;
    }
    true
}

/// The backend with a server id, if it takes packets.
#[inline(always)]
fn lookup(key: &QuicId) -> u32 {
    // SAFETY: the pointer is to a map's value, one word, copied at once; that of an entry that is reused is another backend's, which
    // the comparison below finds out unless it is the same service's.
    let Some(backend) = QUIC_IDS.get_ptr(key).map(|id| BackendId(unsafe { *id })) else {
        return BackendId::NONE.0;
    };
    let takes = maps::backend(backend)
        .is_some_and(|row| row.service == key.service && row.flags & backend_flag::DOWN == 0);
    if takes { backend.0 } else { BackendId::NONE.0 }
}
