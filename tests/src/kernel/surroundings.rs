//! What stands around the services of a packet test: the way back to clients, and addresses that full nat sends from.

use super::{
    World,
    world::{CLIENT, Route, ip},
};

/// What lb sends from: IPv4, IPv6.
pub const POOL: [&str; 2] = ["10.9.0.1", "fd09::1"];
/// The first and the last port of each.
pub const PORTS: (u16, u16) = (20_000, 29_999);

/// The one of both that is of a family.
pub fn of<'a>(both: &[&'a str; 2], is_v4: bool) -> &'a str {
    both[usize::from(!is_v4)]
}

impl World {
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
