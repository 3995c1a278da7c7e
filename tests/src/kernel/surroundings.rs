//! What stands around the services of a packet test: the way back to clients, and addresses that full nat sends from.

use lb_common::abi::Forward;

use super::{
    World,
    packet::Packet,
    world::{CLIENT, Route, Service, ip},
};

/// The VIP of [`World::plain`]: IPv4, IPv6.
pub const VIP: [&str; 2] = ["198.51.100.7", "2001:db8:5::7"];
/// A client of it.
pub const FROM: [&str; 2] = ["192.0.2.33", "2001:db8:c::33"];
/// The backend, counted from 0, that every packet of [`World::plain`] goes to.
pub const SECOND: usize = 1;

/// What lb sends from: IPv4, IPv6.
pub const POOL: [&str; 2] = ["10.9.0.1", "fd09::1"];
/// The first and the last port of each.
pub const PORTS: (u16, u16) = (20_000, 29_999);

/// The one of both that is of a family.
pub fn of<'a>(both: &[&'a str; 2], is_v4: bool) -> &'a str {
    both[usize::from(!is_v4)]
}

/// A segment of the client for TCP on port 80 of the VIP.
pub fn segment(is_v4: bool, flags: u8) -> Packet {
    Packet::tcp(&format!("{}@40001", of(&FROM, is_v4)), &format!("{}@80", of(&VIP, is_v4)), flags)
}

/// A datagram of the client for UDP on port 80 of the VIP.
pub fn datagram(is_v4: bool) -> Packet {
    Packet::udp(&format!("{}@40001", of(&FROM, is_v4)), &format!("{}@80", of(&VIP, is_v4)))
}

impl World {
    /// TCP (service 1) and UDP (service 2) on port 80 of the VIP, with three backends each, of which the second gets everything;
    /// and the way back to clients.
    pub fn plain((_, forward, vip_is_v4, backends_are_v4): (&str, Forward, bool, bool)) -> Self {
        let backends = match backends_are_v4 {
            true => ["10.1.0.1@8001", "10.1.0.2@8002", "10.1.0.3@8003"],
            false => ["fd01::1@8001", "fd01::2@8002", "fd01::3@8003"],
        };
        let mut service = Service::new(of(&VIP, vip_is_v4), forward, &backends);
        service.ring = vec![SECOND as u32; 1021];
        Self::of([service.clone(), service.udp()]).with_gateway(vip_is_v4)
    }

    /// With the way back to all clients of a family: a gateway with the MAC address of [`CLIENT`].
    pub fn with_gateway(mut self, is_v4: bool) -> Self {
        let all = ip(of(&["0.0.0.0", "::"], is_v4));
        let gateway = ip(of(&["10.1.0.254", "fd01::fe"], is_v4));
        self.routes =
            vec![Route { prefix: (all, 0), gateway: Some((gateway, Some(CLIENT))), mtu: 1500 }];
        self
    }

    /// With that, and the pool.
    pub fn with_pool(self, is_v4: bool) -> Self {
        let pool = POOL.iter().map(|address| (ip(address), false)).collect();
        Self { pool, pool_ports: PORTS, ..self.with_gateway(is_v4) }
    }
}
