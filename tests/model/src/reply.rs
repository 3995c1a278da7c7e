//! Packets to nobody of ours: among them the replies of nat backends, which get the VIP's address back. (Backend address,
//! port, protocol) names one service; nothing has to be remembered.

use crate::{
    Limit,
    address::is_mapped,
    answer::{self, About},
    config::Config,
    counted, error,
    forward::{leave, set_ethernet},
    fragment,
    ip::{End, IP, Packet, change_header},
    mss,
    outcome::{Outcome, Traffic, reason},
    slots,
    state::State,
    track,
    transport::{self, Flow, Place},
};

/// Sends a reply to its client; passes what is none.
pub fn packet(config: &Config, state: &mut State, packet: &Packet<'_>, limit: Limit) -> Outcome {
    if packet.is_fragment() {
        return fragment::to_client(config, state, packet);
    }
    if packet.protocol() == packet.icmp() {
        // Behind extension headers nobody looks for errors about what clients have sent.
        return match packet.has_extension() {
            true => Outcome::passed(packet.frame, reason::PASSED),
            false => error::to_client(config, packet),
        };
    }
    let not_ours = || Outcome::passed(packet.frame, reason::PASSED);
    let Some(flow) = Flow::plain(packet) else { return not_ours() };
    if is_mapped(flow.source) {
        return not_ours();
    }
    let from = config.replying(flow.source, flow.source_port, flow.protocol);
    let Some((service, backend)) = from else { return not_ours() };
    let drop = |reason| Outcome::dropped(reason, service.id);
    let sound = match transport::examine(packet, &flow) {
        Ok(sound) => sound,
        Err(reason) => return drop(reason),
    };
    let about = About::reply(packet, service.id, service.vip);
    if packet.hop_limit() <= 1 {
        return answer::time_exceeded(&about, limit);
    }
    let vip = (service.vip, service.port_or(flow.source_port));
    let client = Flow { source: vip.0, source_port: vip.1, ..flow }.reversed();
    let number = service.backends.iter().position(|other| other.id == backend.id);
    let number = number.expect("it is the service's");
    counted::reply(config, state, service, &client, &sound);
    track::note_reply(state, service, (&client, number), &sound);
    if sound.is_syn_ack {
        slots::note_syn_ack(state, service, &client, number, sound.numbers);
    }
    let offers = mss::of_syn_ack(state, packet, &sound, service);
    let packet = &offers.as_ref().map_or(*packet, |frame| packet.with(frame));
    let about = About::reply(packet, service.id, service.vip);
    let Some(hop) = config.hop_to(packet.destination()) else { return drop(reason::NO_NEXT_HOP) };
    let length = packet.length().expect("it was examined");
    if hop.mtu != 0 && length > usize::from(hop.mtu) {
        return answer::too_big(&about, hop.mtu, limit);
    }
    let mut frame = packet.frame.to_vec();
    change_header(&mut frame, IP, |header| header.decrement_hop_limit());
    let place = Place { at: IP + packet.header_length(), end: IP + length, network: IP };
    transport::replace(
        &mut frame,
        place,
        &flow,
        End::Source,
        (service.vip, service.port_or(flow.source_port)),
    );
    set_ethernet(&mut frame, hop.to, hop.from, packet.is_v6);
    let traffic = Traffic { bytes: length as u64, is_reply: true, is_marked: sound.is_reset };
    match leave(config, hop.nic) {
        Ok(action) => Outcome::sent(action, frame, backend.id, traffic),
        Err(reason) => drop(reason),
    }
}
