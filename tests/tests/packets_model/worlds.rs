//! Services that remember something, or read more of a packet than addresses and ports: GUE, QUIC, slots that have changed,
//! full nat.

use lb_common::abi::{
    Forward, OpeningRules, Phase, Policy, Prefixes, algorithm, backend_flag, policy_flag,
    service_flag,
};
use lb_tests::kernel::{
    World,
    compare::{ENGAGED, REFILLED_NEVER},
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

/// Limits of openings, SYN-flood stages and clamped handshakes beside these services.
pub fn limited(mut world: World) -> World {
    use service_flag::{CLAMP_MSS, LIMIT_OPENINGS, NEW_ONLY, REJECT, SYN_FLOOD};
    let limits = |(source, all): (u64, u64)| {
        let interval = |burst| if burst == 0 { 0 } else { REFILLED_NEVER };
        let (burst, source_burst) = (all, source);
        let (interval, source_interval) = (interval(all), interval(source));
        OpeningRules { interval, burst, source_interval, source_burst, ..OpeningRules::default() }
    };
    for is_v6 in [false, true] {
        let mut make = Maker { is_v6, port: 9_300 };
        let mut add = |vip, forward, flags, rules, engage| {
            let mut service = make.service(vip, forward).flags(flags);
            service.openings = OpeningRules { engage, mss: 1_360, ..limits(rules) };
            world.services.push(service);
        };
        add(50, Forward::Nat, LIMIT_OPENINGS | CLAMP_MSS, (3, 0), 0);
        add(51, Forward::Dsr, LIMIT_OPENINGS, (0, 9), 0);
        add(52, Forward::Ipip, LIMIT_OPENINGS | SYN_FLOOD, (5, 12), ENGAGED);
        add(53, Forward::Nat, SYN_FLOOD | CLAMP_MSS, (0, 0), ENGAGED);
        add(54, Forward::Dsr, SYN_FLOOD | LIMIT_OPENINGS, (2, 0), u32::MAX);
        add(55, Forward::Nat, SYN_FLOOD | REJECT | NEW_ONLY, (0, 0), ENGAGED);
    }
    world
}

/// Services that remember every flow beside these.
pub fn tracked(mut world: World) -> World {
    use service_flag::{COUNT_CONNECTIONS, FRAGMENTS, TRACK};
    for is_v6 in [false, true] {
        let mut make = Maker { is_v6, port: 9_400 };
        let mut add = |vip, forward, algorithm, change: fn(&mut Policy)| {
            let service = make.service(vip, forward).tracked(algorithm, [0, 1, 2]);
            let service = service.policy(change).flags(TRACK | FRAGMENTS);
            let datagrams = make.service(vip, forward).port(53).udp();
            let datagrams = datagrams.tracked(algorithm, [0, 1, 2, 0]).policy(change);
            [service, datagrams.flags(TRACK | FRAGMENTS)]
        };
        let remembers = |policy: &mut Policy| {
            policy.flags |= policy_flag::PERSIST;
            policy.source_idle = u64::from(u32::MAX);
        };
        let mut ring = add(60, Forward::Nat, algorithm::RING, |_| {});
        let narrow = add(61, Forward::Nat, algorithm::TURN, |policy| {
            (policy.flows, policy.flows_unconfirmed) = (3, 4);
        });
        let by_load = add(62, Forward::Dsr, algorithm::LEAST, |_| {});
        let bounded = add(63, Forward::Ipip, algorithm::RING, |policy| {
            (policy.factor, policy.flows_unconfirmed) = (125, 9);
        });
        let mut one_down = add(64, Forward::Nat, algorithm::TURN, |_| {});
        let mut remembering = add(65, Forward::Nat, algorithm::LEAST, remembers);
        let few = add(66, Forward::Ipip, algorithm::TURN, |policy| policy.flows = 2);
        let by_load = by_load.map(|service| service.weights(&[100, 50, 0]));
        for service in &mut one_down {
            service.backends[1].flags |= backend_flag::DOWN;
        }
        for service in &mut remembering {
            service.prefix = Prefixes { v4: 25, v6: 64 };
        }
        ring[0].flags |= COUNT_CONNECTIONS;
        world.services.push(make.service(67, Forward::Nat).flags(COUNT_CONNECTIONS));
        for services in [ring, narrow, by_load, bounded, one_down, remembering, few] {
            world.services.extend(services);
        }
    }
    world
}

/// Full nat beside these services.
pub fn translated(mut world: World) -> World {
    for is_v6 in [false, true] {
        let mut make = Maker { is_v6, port: 9_500 };
        use service_flag::{CLAMP_MSS, FRAGMENTS, FULLNAT, TOA};
        let web = make.service(40, Forward::FullNat).flags(FULLNAT | TOA | FRAGMENTS);
        let mut allowed = make.service(41, Forward::FullNat).flags(FULLNAT | TOA | CLAMP_MSS);
        allowed.openings.mss = 1_300;
        let (client, bits) = if is_v6 { ("2001:db8:c::", 64) } else { ("192.0.2.0", 25) };
        allowed.allow = vec![(ip(client), bits)];
        allowed.backends[0].mtu = 700;
        let mut names = make.service(40, Forward::FullNat).port(53).udp();
        names.flags = FULLNAT | FRAGMENTS;
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
