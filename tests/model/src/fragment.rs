//! Fragments: the first one goes where its packet would, and is remembered; the others follow (packet cases B24 to B32,
//! B81, B82). What a packet in fragments has in common: addresses, protocol and identification.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    ops::Range,
};

use crate::{
    address::{is_mapped, is_martian},
    bytes::{number16, number32},
    config::{Backend, Config, Mode, Service},
    forward::{self, Refused, What, set_ethernet},
    fullnat::{self, fragment::Kept},
    ip::{End, IP, Packet, TCP, UDP, change_header},
    local::nobodys,
    outcome::{Outcome, Traffic, part, reason},
    slots,
    state::State,
    transport::{self, Flow, Place},
};

/// Where first fragments went.
#[derive(Debug, Default)]
pub struct Memory(HashMap<Key, Remembered>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    id: u32,
    protocol: u8,
}

/// Places in the configuration, and what full nat knows beside.
#[derive(Clone, Debug)]
struct Remembered {
    service: usize,
    backend: usize,
    kept: Option<Kept>,
    /// Units of eight bytes that have come.
    units: BTreeSet<usize>,
    /// Where the last fragment ends.
    whole: Option<usize>,
}

/// As many runs of data with gaps between them may a packet have.
const RUNS: usize = 5;

/// A sound fragment.
pub struct Fragment {
    key: Key,
    /// Where its data begins in the frame.
    pub data: usize,
    /// Length of the IP packet.
    pub length: usize,
    /// Where its data belongs in the whole packet.
    pub offset: usize,
    /// Others come behind it.
    pub more: bool,
}

/// A fragment to a VIP. It is not answered: it is no whole packet to be quoted (R8).
pub fn to_backend(config: &Config, state: &mut State, packet: &Packet<'_>) -> Outcome {
    let fragment = match read(packet) {
        Ok(fragment) => fragment,
        Err(reason) => return Outcome::dropped(reason, 0),
    };
    let vip = config.vip(packet.destination()).expect("only packets to VIPs come here");
    if fragment.offset == 0 {
        return first(config, state, packet, &fragment);
    }
    let found = match state.fragments.find(config, &fragment) {
        None => match stateless(config, state, &fragment) {
            None => return nobodys(packet, vip, reason::FRAGMENT_MISS),
            Some((service, Err(reason))) => return Outcome::dropped(reason, service.id),
            Some((service, Ok(backend))) => Some((service, backend, None)),
        },
        Some(found) => match state.fragments.add(&fragment) {
            Err(reason) => return Outcome::dropped(reason, found.0.id),
            Ok(joined) => {
                if joined {
                    state.met(part::JOINED);
                }
                Some(found)
            }
        },
    };
    match found {
        None => nobodys(packet, vip, reason::FRAGMENT_MISS),
        Some((service, ..)) if packet.hop_limit() <= 1 => Outcome::dropped(reason::TTL, service.id),
        Some((service, backend, Some(kept))) => {
            let found = (service, backend, kept);
            fullnat::fragment::later(config, state, packet, &fragment, found)
        }
        Some((service, backend, None)) => {
            send(config, state, packet, What::Later, service, backend)
        }
    }
}

/// A later fragment of an unknown packet (B26), by the address of its client: whom the service keeps out is out, and what may be pinned is
/// not told.
fn stateless<'a>(
    config: &'a Config,
    state: &mut State,
    fragment: &Fragment,
) -> Option<(&'a Service, Result<&'a Backend, &'static str>)> {
    let key = &fragment.key;
    let service = config.stateless_service(key.destination, key.protocol)?;
    let choose = || {
        if is_martian(key.source, key.destination) {
            return Err(reason::MARTIAN);
        }
        service.check_lists(key.source)?;
        if service.refuses_all() {
            return Err(reason::NO_BACKEND);
        }
        let flow = Flow {
            source: key.source,
            destination: key.destination,
            source_port: 0,
            destination_port: 0,
            protocol: key.protocol,
        };
        if service.changed_slot_of(&flow).is_some() {
            return Err(reason::FRAGMENT_MISS);
        }
        let backend = service.slot_of(&flow).owner.ok_or(reason::NO_BACKEND)?;
        Ok(&service.backends[backend])
    };
    let chosen = choose();
    if chosen.is_ok() {
        state.met(part::STATELESS);
    }
    Some((service, chosen))
}

fn first(config: &Config, state: &mut State, packet: &Packet<'_>, fragment: &Fragment) -> Outcome {
    let vip = config.vip(packet.destination()).expect("only packets to VIPs come here");
    let flow = match flow(packet, fragment) {
        Ok(flow) => flow,
        Err(reason) => return Outcome::dropped(reason, 0),
    };
    let Some(service) = config.service_of(&flow) else {
        return nobodys(packet, vip, reason::FRAGMENT_DROPPED);
    };
    let drop = |reason| Outcome::dropped(reason, service.id);
    // Neither more behind nor before it: a whole packet (RFC 6946).
    if fragment.more && !service.fragments {
        return drop(reason::FRAGMENT_DROPPED);
    }
    if is_martian(flow.source, flow.destination) {
        return drop(reason::MARTIAN);
    }
    if let Err(reason) = service.check_lists(flow.source) {
        return drop(reason);
    }
    if service.refuses_all() {
        return drop(reason::NO_BACKEND);
    }
    if packet.hop_limit() <= 1 {
        return drop(reason::TTL);
    }
    if service.mode == Mode::FullNat {
        return fullnat::fragment::first(config, state, packet, (fragment, &flow), service);
    }
    let Some(backend) = slots::whereabouts(state, service, &flow) else {
        return drop(reason::NO_BACKEND);
    };
    let backend = &service.backends[backend];
    if let Err(reason) = state.fragments.note(config, fragment, (service, backend), None) {
        return drop(reason);
    }
    send(config, state, packet, What::First { flow: &flow, at: fragment.data }, service, backend)
}

fn send(
    config: &Config,
    state: &mut State,
    packet: &Packet<'_>,
    what: What<'_>,
    service: &Service,
    backend: &Backend,
) -> Outcome {
    forward::packet(config, state, packet, what, service, backend).unwrap_or_else(|refused| {
        match refused {
            Refused::Dropped(reason) => Outcome::dropped(reason, service.id),
            Refused::TooBig(_) => Outcome::dropped(reason::TOO_BIG, service.id),
        }
    })
}

/// A fragment to somebody else: his, unless it is a nat backend's.
pub fn to_client(config: &Config, state: &mut State, packet: &Packet<'_>) -> Outcome {
    let not_ours = || Outcome::passed(packet.frame, reason::PASSED);
    let Ok(fragment) = read(packet) else { return not_ours() };
    let is_first = fragment.offset == 0;
    let first_flow = if is_first { flow(packet, &fragment).ok() } else { None };
    let from = match (is_first, first_flow) {
        (true, Some(flow)) if !is_mapped(flow.source) => {
            config.replying(flow.source, flow.source_port, flow.protocol)
        }
        (true, _) => None,
        (false, _) => {
            let found = state.fragments.find(config, &fragment);
            if let Some((service, ..)) = found
                && let Err(reason) = state.fragments.add(&fragment)
            {
                return Outcome::dropped(reason, service.id);
            }
            found.map(|(service, backend, _)| (service, backend))
        }
    };
    let Some((service, backend)) = from else { return not_ours() };
    let drop = |reason| Outcome::dropped(reason, service.id);
    if fragment.more && !service.fragments {
        return drop(reason::FRAGMENT_DROPPED);
    }
    if packet.hop_limit() <= 1 {
        return drop(reason::TTL);
    }
    let Some(hop) = config.hop_to(packet.destination()) else { return drop(reason::NO_NEXT_HOP) };
    if hop.mtu != 0 && fragment.length > usize::from(hop.mtu) {
        return drop(reason::TOO_BIG);
    }
    let mut frame = packet.frame.to_vec();
    change_header(&mut frame, IP, |header| header.decrement_hop_limit());
    match first_flow {
        Some(flow) => {
            let noted = state.fragments.note(config, &fragment, (service, backend), None);
            if let Err(reason) = noted {
                return drop(reason);
            }
            let place = Place { at: fragment.data, end: IP + fragment.length, network: IP };
            let vip = (service.vip, service.port_or(flow.source_port));
            transport::replace(&mut frame, place, &flow, End::Source, vip);
        }
        None => change_header(&mut frame, IP, |header| {
            header.set_address(End::Source, service.vip);
        }),
    }
    set_ethernet(&mut frame, hop.to, hop.from, packet.is_v6);
    let traffic = Traffic { bytes: fragment.length as u64, is_reply: true, is_marked: false };
    match forward::leave(config, hop.nic) {
        Ok(action) => Outcome::sent(action, frame, backend.id, traffic),
        Err(reason) => drop(reason),
    }
}

/// The flow of a first fragment.
pub fn first_flow(packet: &Packet<'_>) -> Option<Flow> {
    let fragment = read(packet).ok().filter(|fragment| fragment.offset == 0)?;
    flow(packet, &fragment).ok()
}

/// Reads a fragment. Its offsets have to make sense: some data, whole units of eight bytes unless it is the last one, and no
/// end beyond the longest packet (B30). The second piece of a TCP header is refused (B28).
pub fn read(packet: &Packet<'_>) -> Result<Fragment, &'static str> {
    let (frame, length) = (packet.frame, packet.length()?);
    let (protocol, id, offset, more, front) = if packet.is_v6 {
        let at = IP + packet.header_length();
        if frame.len() < at + 8 {
            return Err(reason::L3_TRUNCATED);
        }
        let field = number16(frame, at + 2);
        (frame[at], number32(frame, at + 4), field & 0xfff8, field & 1 != 0, at - IP + 8)
    } else {
        let field = number16(frame, IP + 6);
        let id = u32::from(number16(frame, IP + 4));
        let offset = (field & 0x1fff) << 3;
        (packet.protocol(), id, offset, field & 0x2000 != 0, packet.header_length())
    };
    let offset = usize::from(offset);
    let data = length.saturating_sub(front);
    if data == 0 || (more && data % 8 != 0) || offset + length > 0xffff {
        return Err(reason::FRAGMENT_DROPPED);
    }
    if protocol == TCP && offset == 8 {
        return Err(reason::FRAGMENT_TINY);
    }
    let key = Key { source: packet.source(), destination: packet.destination(), id, protocol };
    Ok(Fragment { key, data: IP + front, length, offset, more })
}

/// The flow of a first fragment, whose transport header has to be complete (B27).
pub fn flow(packet: &Packet<'_>, fragment: &Fragment) -> Result<Flow, &'static str> {
    let segment = &packet.frame[fragment.data..IP + fragment.length];
    let protocol = fragment.key.protocol;
    match protocol {
        TCP if segment.len() < 20 || segment.len() < usize::from(segment[12] >> 4) * 4 => {
            return Err(reason::FRAGMENT_TINY);
        }
        UDP if segment.len() < 8 => return Err(reason::FRAGMENT_TINY),
        UDP if packet.is_v6 && number16(segment, 6) == 0 => return Err(reason::UDP_NO_CHECKSUM),
        TCP | UDP => {}
        _ => return Err(reason::FRAGMENT_DROPPED),
    }
    let flow = Flow::at(packet, fragment.data, protocol).ok_or(reason::FRAGMENT_TINY)?;
    if flow.source_port == 0 {
        return Err(reason::PORT_ZERO);
    }
    Ok(flow)
}

impl Fragment {
    /// What it brings, in units of eight bytes.
    fn units(&self) -> Range<usize> {
        let start = self.offset / 8;
        start..start + (IP + self.length - self.data).div_ceil(8)
    }
}

impl Remembered {
    fn is_complete(&self) -> bool {
        let from_the_start = (0..).take_while(|unit| self.units.contains(unit)).count();
        self.whole == Some(from_the_start)
    }
}

impl Memory {
    /// Remembers where a first fragment goes. Of two whose packets share an identification, the second is one too many until all of the
    /// first one's packet has come.
    pub fn note(
        &mut self,
        config: &Config,
        fragment: &Fragment,
        (service, backend): (&Service, &Backend),
        kept: Option<Kept>,
    ) -> Result<(), &'static str> {
        if !fragment.more {
            return Ok(());
        }
        if self.0.get(&fragment.key).is_some_and(|earlier| !earlier.is_complete()) {
            return Err(reason::FRAGMENT_OVERLAP);
        }
        let units = fragment.units().collect();
        let index = config.services().iter().position(|other| other.id == service.id);
        let number = service.backends.iter().position(|other| other.id == backend.id);
        if let (Some(service), Some(backend)) = (index, number) {
            let new = Remembered { service, backend, kept, units, whole: None };
            self.0.insert(fragment.key, new);
        }
        Ok(())
    }

    /// Notes a later fragment of a known packet; whether it adjoins another.
    pub fn add(&mut self, fragment: &Fragment) -> Result<bool, &'static str> {
        let Some(known) = self.0.get_mut(&fragment.key) else { return Ok(false) };
        if fragment.units().any(|unit| known.units.contains(&unit)) {
            return Err(reason::FRAGMENT_OVERLAP);
        }
        let mut units = known.units.clone();
        units.extend(fragment.units());
        let runs = units.iter().filter(|unit| !units.contains(&(*unit + 1))).count();
        if runs > RUNS {
            return Err(reason::FRAGMENT_DROPPED);
        }
        let own = fragment.units();
        let joined = known.units.contains(&own.end)
            || own.start.checked_sub(1).is_some_and(|unit| known.units.contains(&unit));
        if !fragment.more {
            known.whole = Some(fragment.units().end);
        }
        known.units = units;
        Ok(joined)
    }

    /// Where the first fragment of this one's packet went.
    pub fn find<'a>(
        &self,
        config: &'a Config,
        fragment: &Fragment,
    ) -> Option<(&'a Service, &'a Backend, Option<Kept>)> {
        let remembered = self.0.get(&fragment.key)?;
        let service = &config.services()[remembered.service];
        Some((service, &service.backends[remembered.backend], remembered.kept))
    }
}
