//! Services that remember something, or read more of a packet than addresses and ports: GUE, QUIC, slots that have changed,
//! full nat.

use lb_common::abi::{Forward, Phase, backend_flag, service_flag};
use lb_tests::kernel::{
    World,
    world::{Service, ip},
};

/// The pool of full nat; the second address of each family is this host's, too.
pub const POOL: [&str; 4] = ["10.9.1.1", "10.9.1.2", "fd09:1::1", "fd09:1::2"];

const PHASES: [(Phase, Option<u32>); 9] = [
    (Phase::Settled, None),
    (Phase::Window, Some(1)),
    (Phase::Harvest, Some(2)),
    (Phase::Pinned, None),
    (Phase::Window, None),
    (Phase::Harvest, Some(1)),
    (Phase::Window, Some(2)),
    (Phase::Pinned, Some(1)),
    (Phase::Harvest, None),
];

/// GUE, QUIC, and slots that have changed, beside these services.
pub fn beside(mut world: World) -> World {
    for is_v6 in [false, true] {
        let mut make = Maker { is_v6, port: 9_000 };
        let mut services = make.gue();
        services.extend(make.quic());
        services.extend(make.changed());
        world.services.extend(services);
    }
    world
}

/// Full nat beside these services.
pub fn translated(mut world: World) -> World {
    for is_v6 in [false, true] {
        let mut make = Maker { is_v6, port: 9_500 };
        let web = make.service(40, Forward::FullNat).flags(service_flag::FULLNAT);
        let mut allowed = make.service(41, Forward::FullNat).flags(service_flag::FULLNAT);
        let (client, bits) = if is_v6 { ("2001:db8:c::", 64) } else { ("192.0.2.0", 25) };
        allowed.allow = vec![(ip(client), bits)];
        allowed.backends[0].mtu = 700;
        let mut names = make.service(40, Forward::FullNat).port(53).udp();
        names.flags = service_flag::FULLNAT;
        names.backends[1].flags |= backend_flag::DOWN;
        world.services.extend([web, allowed, names]);
    }
    world.pool = POOL.iter().enumerate().map(|(number, at)| (ip(at), number % 2 == 1)).collect();
    world.pool_ports = (20_000, 20_011);
    world
}

/// Makes services of one family.
struct Maker {
    is_v6: bool,
    port: u16,
}

impl Maker {
    fn service(&mut self, vip: u8, forward: Forward) -> Service {
        self.port += 1;
        self.to(vip, forward, self.is_v6)
    }

    /// With backends of either family; a nat service's have ports of their own, by which a reply is known.
    fn to(&self, vip: u8, forward: Forward, to_v6: bool) -> Service {
        let vip = match self.is_v6 {
            true => format!("2001:db8:5::{vip:x}"),
            false => format!("198.51.100.{vip}"),
        };
        let backends = match to_v6 {
            true => ["fd01::1", "fd01::2", "fd01::3"],
            false => ["10.1.0.1", "10.1.0.2", "10.1.0.3"],
        };
        let backends = backends.map(|backend| format!("{backend}@{}", self.port));
        Service::new(&vip, forward, &backends.each_ref().map(String::as_str))
    }

    fn gue(&mut self) -> Vec<Service> {
        let mut all = Vec::new();
        for (vip, to_v6) in [(20, self.is_v6), (21, !self.is_v6)] {
            let service = self.to(vip, Forward::Gue, to_v6).flags(service_flag::FRAGMENTS);
            all.push(service.clone());
            all.push(service.port(53).udp());
        }
        let narrow = self.to(22, Forward::Gue, self.is_v6);
        all.push(narrow.each(|backend| backend.mtu = 600));
        all
    }

    fn quic(&mut self) -> Vec<Service> {
        let ids = |service: Service| {
            let mut service = service.udp().port(443);
            service.flags |= service_flag::QUIC;
            for backend in 0..3u8 {
                service.server_ids.push((0, vec![0x0a, backend], backend.into()));
                service.server_ids.push((5, vec![backend; 15], backend.into()));
            }
            service
        };
        let fragments = service_flag::FRAGMENTS;
        let nat = ids(self.service(25, Forward::Nat).flags(fragments));
        let mut one_down = ids(self.service(26, Forward::Nat));
        one_down.backends[1].flags |= backend_flag::DOWN;
        let drained = service_flag::REJECT | service_flag::NEW_ONLY;
        let drained = ids(self.service(27, Forward::Dsr).flags(drained));
        // Without connection ids.
        let mut plain = ids(self.service(28, Forward::Ipip));
        plain.server_ids.clear();
        let mut changed = ids(self.service(29, Forward::Gue).flags(fragments));
        changed.phases = PHASES.to_vec();
        vec![nat, one_down, drained, plain, changed]
    }

    fn changed(&mut self) -> Vec<Service> {
        let fragments = service_flag::FRAGMENTS;
        [(30, Forward::Nat), (31, Forward::Nat), (32, Forward::Dsr), (33, Forward::Ipip)]
            .map(|(vip, forward)| {
                let mut service = self.service(vip, forward).flags(fragments);
                service.phases = PHASES.to_vec();
                if vip != 30 {
                    service.backends[2].flags |= backend_flag::DOWN;
                }
                service
            })
            .into()
    }
}
