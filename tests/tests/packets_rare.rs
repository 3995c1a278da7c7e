//! Drops and refusals that take a fault, or a full table, to happen.

use aya::{TestRun as _, TestRunOptions};
use lb_common::abi::{BackendId, Forward, Reason, Slot, algorithm, policy_flag, service_flag};
use lb_tests::kernel::{
    Delta, Kernel, Options, World, action,
    packet::{Packet, flag},
    world::Service,
};
use nix::sched::{CloneFlags, unshare};

const VIP: &str = "198.51.100.7@80";

/// A balancer of its own.
fn kernel(options: Options) -> Kernel {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (is this root?)");
    Kernel::load(options).unwrap_or_else(|error| panic!("{error:#}"))
}

fn service(forward: Forward) -> Service {
    Service::new("198.51.100.7", forward, &["10.1.0.1", "10.1.0.2"])
}

fn syn(client: u16) -> Packet {
    Packet::tcp(&format!("192.0.2.33@{client}"), VIP, flag::SYN)
}

#[test]
fn a_slot_that_names_no_backend() {
    let mut kernel = kernel(Options::default());
    for forward in [Forward::Nat, Forward::Dsr, Forward::Ipip] {
        let service = service(forward);
        let slots = service.slots();
        kernel.enter(World::of([service]));
        for slot in 0..slots {
            kernel.set_slot(1, slot, Slot::settled(BackendId(Options::default().backends + 1)));
        }
        let (outcome, delta) = kernel.count(&syn(40_001).bytes());
        assert_eq!(outcome.action, action::DROP, "{forward:?}: {outcome:?}");
        assert_eq!(delta, Delta::reason(1, Reason::BadSlot), "{forward:?}");
    }
}

#[test]
fn a_tunnel_without_room_in_front() {
    /// Bytes of metadata in front of the frame: the most that the kernel takes, which leaves less than an outer header.
    const METADATA: u32 = 216;
    let mut kernel = kernel(Options::default());
    kernel.enter(World::of([service(Forward::Ipip)]));
    let frame = syn(40_001).bytes();
    let (before, input) = (kernel.counts(), [vec![0; METADATA as usize], frame].concat());
    // struct xdp_md: data, data_end, data_meta, ...
    let mut context = [0; 24];
    context[..4].copy_from_slice(&METADATA.to_ne_bytes());
    context[4..8].copy_from_slice(&(input.len() as u32).to_ne_bytes());
    let mut output = vec![0; input.len() + 256];
    let result = kernel.balancer().test_run(TestRunOptions {
        data_in: Some(&input),
        data_out: Some(&mut output),
        ctx_in: Some(&context),
        ..TestRunOptions::new()
    });
    let result = result.expect("a test run with metadata");
    let delta = kernel.counts().since(&before);
    assert_eq!(result.return_value, action::DROP, "{delta:?}");
    assert_eq!(delta, Delta::reason(1, Reason::EncapFailed));
}

#[test]
fn a_full_table_of_connections() {
    let mut kernel = kernel(Options { connections: 1, ..Options::default() });
    let mut service = service(Forward::Nat).flags(service_flag::COUNT_CONNECTIONS);
    service.backends.truncate(1);
    let mut world = World::of([service]);
    world.routes = vec![lb_tests::kernel::world::Route {
        prefix: (lb_tests::kernel::world::ip("0.0.0.0"), 0),
        gateway: Some((
            lb_tests::kernel::world::ip("10.1.0.253"),
            Some(lb_tests::kernel::world::CLIENT),
        )),
        mtu: 1_500,
    }];
    kernel.enter(world);
    let mut accept = |client: u16| {
        let flags = flag::SYN | flag::ACK;
        let reply = Packet::tcp("10.1.0.1@8080", &format!("192.0.2.33@{client}"), flags);
        let (outcome, delta) = kernel.count(&reply.bytes());
        assert_eq!(outcome.action, action::TX, "{outcome:?}");
        delta.total(Reason::Uncounted)
    };
    let uncounted: Vec<u64> = (40_001..40_005).map(&mut accept).collect();
    assert_eq!(uncounted, [0, 1, 1, 1], "replies go on, and what is not counted is told");
}

#[test]
fn a_full_table_of_clients() {
    const CLIENTS: u16 = 40;
    let mut kernel = kernel(Options { flows: 1_024, sources: 1, ..Options::default() });
    let mut service = service(Forward::Dsr)
        .tracked(algorithm::TURN, [0, 1])
        .policy(|policy| (policy.source_idle, policy.flags) = (1 << 40, policy_flag::PERSIST));
    service.flags |= service_flag::BY_SOURCE;
    kernel.enter(World::of([service]));
    let before = kernel.counts();
    for client in 1..=CLIENTS {
        for (flags, sequence) in [(flag::SYN, 1_000), (flag::ACK, 1_001)] {
            let packet = Packet::tcp(&format!("192.0.2.{client}@40001"), VIP, flags)
                .with_tcp(|tcp| (tcp.sequence, tcp.acknowledgement) = (sequence, 1));
            let outcome = kernel.run(&packet.bytes());
            assert_eq!(outcome.action, action::TX, "{outcome:?}");
        }
    }
    let delta = kernel.counts().since(&before);
    let refused = delta.total(Reason::SourceRefused);
    assert!((u64::from(CLIENTS) - 4..u64::from(CLIENTS)).contains(&refused), "{delta:?}");
}
