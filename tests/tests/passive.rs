//! `observe: layer4`: backends that clients do not get through to are ejected, and nobody else is. Times are printed.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use lb_tests::{
    client::{Held, request_from, wait_for},
    daemon::{Daemon, backend},
    kernel::packet::{Packet, flag},
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
    machine::Machine,
    pulse::Pulse,
    raw::make_up,
};
use lb_userspace::api::types::{BackendStatus, Event};

const MINUTE: Duration = Duration::from_secs(60);
/// Clients, each with an address of its own.
const CLIENTS: u8 = 12;

fn client(number: usize) -> IpAddr {
    Ipv4Addr::new(10, 77, 1, 100 + number as u8 % CLIENTS).into()
}

/// A lab whose client machine has many addresses.
fn lab(way: Return, backends: usize) -> Lab {
    let lab = Lab::new(Arms::One, way, backends).unwrap();
    let add: Vec<String> = (0..usize::from(CLIENTS))
        .map(|number| format!("ip addr add {}/24 dev c0", client(number)))
        .collect();
    lab.client.sh(&add.join("; ")).unwrap();
    lab
}

/// One service of all backends.
fn yaml(lab: &Lab, forward: &str, more: &str) -> String {
    let backends: String = (1..=lab.backends.len())
        .map(|n| format!("      - {{name: web{n}, address: \"{}:{PORT}\"}}\n", backend4(n)))
        .collect();
    format!(
        "services:\n  - name: web\n    listen: {{address: {VIP4}, port: {PORT}}}\n    forward: {forward}\n    {more}\n    \
         backends:\n{backends}"
    )
}

/// Requests of all clients in turn, each over a connection of its own, until it is dropped.
fn visitors(lab: &Lab) -> Pulse {
    let target = SocketAddr::new(VIP4, PORT);
    Pulse::start(&lab.client, Duration::from_millis(5), Duration::from_secs(10), move |number| {
        request_from(target, Some(SocketAddr::new(client(number), 0)))
    })
}

/// Until every client has got through to each backend, and so counts.
fn wait_proven(lab: &Lab, daemon: &Daemon<'_>) {
    let enough = 10 * u64::from(CLIENTS);
    wait_for(
        "every client has got through",
        MINUTE,
        || daemon.stats().services[0].backends.iter().map(|b| b.counters.flows).collect::<Vec<_>>(),
        |flows| flows.len() == lab.backends.len() && flows.iter().all(|flows| *flows > enough),
    );
}

fn of(events: &[Event], kind: &str, name: &str) -> Vec<Event> {
    let fits = |event: &&Event| event.kind == kind && event.backend.as_deref() == Some(name);
    events.iter().filter(fits).cloned().collect()
}

#[track_caller]
fn wait_event(daemon: &Daemon<'_>, kind: &str, name: &str, count: usize) -> Event {
    let what = format!("event {kind} number {count} of {name}");
    let seen =
        wait_for(&what, MINUTE, || daemon.events(), |all| of(all, kind, name).len() >= count);
    of(&seen, kind, name)[count - 1].clone()
}

fn web(daemon: &Daemon<'_>, number: usize) -> BackendStatus {
    backend(&daemon.status(), "web", &format!("web{number}")).unwrap().clone()
}

fn unix_milliseconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_millis() as u64
}

/// A backend's machine drops opening packets that fit `what`.
fn blackhole(lab: &Lab, number: usize, what: &str) {
    lab.backends[number - 1]
        .sh(&format!(
            "nft add table ip deaf; nft add chain ip deaf in '{{type filter hook input priority 0;}}'; \
             nft add rule ip deaf in {what} tcp flags '& (syn|ack) == syn' counter drop"
        ))
        .unwrap();
}

fn heal(lab: &Lab, number: usize) {
    lab.backends[number - 1].sh("nft delete table ip deaf").unwrap();
}

#[test]
fn a_syn_blackhole_is_ejected_long_before_its_check_fails() {
    let lab = lab(Return::ThroughLb, 3);
    let more = "observe: layer4\n    check: {type: tcp}\n    backend_defaults: {inter: 2s, fall: 3, timeout: 1s}";
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(&lab, "nat", more)).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let visitors = visitors(&lab);
    wait_proven(&lab, &daemon);
    visitors.take();

    let began = unix_milliseconds();
    blackhole(&lab, 1, "");
    let ejected = wait_event(&daemon, "ejected", "web1", 1);
    // Out of the ring: no new flow comes any more.
    let status = daemon.wait("the ring is without web1", MINUTE, |status| {
        backend(status, "web", "web1").unwrap().slots == 0
    });
    let shown = backend(&status, "web", "web1").unwrap();
    assert!(shown.state.starts_with("EJECTED "), "{shown:?}");
    assert!(ejected.cause.contains("10 SYNs were not answered in a row"), "{ejected:?}");
    let down = wait_event(&daemon, "backend_down", "web1", 1);
    println!(
        "SYN blackhole: ejected after {} ms, DOWN by its check after {} ms",
        ejected.unix_milliseconds - began,
        down.unix_milliseconds - began
    );
    assert!(ejected.id < down.id, "the check was first: {ejected:?} {down:?}");
    for number in [2, 3] {
        assert_eq!(web(&daemon, number).state, "UP");
    }
    let beats = visitors.finish();
    // A SYN that nobody answers is repeated, and then meets another backend.
    assert_eq!(beats.failures(), 0, "{beats:#?}");
}

#[test]
fn a_fault_that_only_clients_meet_is_found_and_open_connections_stay() {
    let lab = lab(Return::ThroughLb, 3);
    let more = "observe: {mode: layer4, base_ejection: 3s, max_ejection: 60s}\n    check: {type: tcp}\n    \
                backend_defaults: {inter: 200ms, timeout: 1s}";
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(&lab, "nat", more)).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let held = Held::open(&lab.client, SocketAddr::new(VIP4, PORT), 60).unwrap();
    assert!(held.count().contains_key("web1"), "{:?}", held.count());
    let visitors = visitors(&lab);
    wait_proven(&lab, &daemon);
    blackhole(&lab, 1, "ip saddr 10.77.1.0/24 ip saddr != 10.77.1.1");
    let first = wait_event(&daemon, "ejected", "web1", 1);
    assert!(first.text.contains("for 3s"), "{first:?}");

    // An ejection outlives the daemon.
    daemon.kill().unwrap();
    daemon.start().unwrap();
    let all = daemon.events();
    let again = of(&all, "ejected", "web1").len() + of(&all, "returned", "web1").len();
    assert!(again >= 1 && of(&all, "backend_down", "web1").is_empty(), "{all:#?}");
    // Its time is over, it is tried, and is out again for twice as long.
    wait_event(&daemon, "returned", "web1", 1);
    let second = wait_event(&daemon, "ejected", "web1", 2);
    assert!(second.text.contains("for 6s"), "{second:?}");
    assert!(second.cause.starts_with('3'), "half open: fewer failures are enough: {second:?}");

    // Healed, it comes back and stays.
    heal(&lab, 1);
    wait_event(&daemon, "returned", "web1", 2);
    daemon.wait("web1 is UP and answers", MINUTE, |status| {
        let web1 = backend(status, "web", "web1").unwrap();
        web1.state == "UP" && web1.slots > 0
    });
    let before = lab.servers[0].as_ref().unwrap().answered();
    wait_for(
        "web1 answers clients",
        MINUTE,
        || lab.servers[0].as_ref().unwrap().answered(),
        |answered| *answered > before + 50,
    );
    let all = daemon.events();
    assert_eq!(of(&all, "ejected", "web1").len(), 2, "{all:#?}");
    assert_eq!(of(&all, "backend_down", "web1"), [], "its check was good all the time");
    assert_eq!(held.broken(), [""; 0], "connections that were open");
    let beats = visitors.finish();
    assert_eq!(beats.failures(), 0, "{beats:#?}");
}

#[test]
fn refusals_eject_at_once_but_never_too_many() {
    let mut lab = lab(Return::ThroughLb, 4);
    let mut servers = std::mem::take(&mut lab.servers);
    let more = "observe: {mode: layer4, max_ejection_percent: 50}\n    check: {type: tcp}\n    \
                backend_defaults: {inter: 20s, fastinter: 500ms}";
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(&lab, "nat", more)).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let visitors = visitors(&lab);
    wait_proven(&lab, &daemon);
    for (place, number) in [1, 2, 3].into_iter().enumerate() {
        let began = unix_milliseconds();
        servers[number - 1] = None;
        let name = format!("web{number}");
        if place < 2 {
            let ejected = wait_event(&daemon, "ejected", &name, 1);
            assert!(ejected.cause.contains("connections were refused"), "{ejected:?}");
            println!("refusing: ejected after {} ms", ejected.unix_milliseconds - began);
        } else {
            let spared = wait_event(&daemon, "suspected", &name, 1);
            assert!(spared.text.contains("no more than 50 %"), "{spared:?}");
        }
    }
    let status = daemon.status();
    let ejected: Vec<_> = (1..=4)
        .filter(|n| {
            let web = backend(&status, "web", &format!("web{n}")).unwrap();
            web.state.starts_with("EJECTED")
        })
        .collect();
    assert_eq!(ejected, [1, 2], "{status:#?}");
    // What an operator sees.
    let csv = daemon.must(&["stats", "--csv"]);
    let header: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    let line = csv.lines().find(|line| line.starts_with("web,web1,")).unwrap();
    let cell = |column: &str| {
        line.split(',').nth(header.iter().position(|c| *c == column).unwrap()).unwrap().to_owned()
    };
    assert!(cell("hanafail").parse::<u64>().unwrap() >= 10, "{line}");
    assert!(cell("status").starts_with("EJECTED"), "{line}");
    let shown = daemon.must(&["status"]);
    assert!(shown.contains("EJECTED"), "{shown}");
    let why = daemon.must(&["why", "web"]);
    assert!(why.contains("EJECTED"), "{why}");
    // Whoever says that it works knows better.
    servers[0] = Some(lab.server(1).unwrap());
    daemon.must(&["ready", "web/web1"]);
    assert_eq!(web(&daemon, 1).state, "UP");
    drop(visitors);
}

#[test]
fn an_ejection_brings_neither_panic_nor_costs_the_quorum() {
    let mut lab = lab(Return::ThroughLb, 4);
    let mut servers = std::mem::take(&mut lab.servers);
    let more = |rule: &str| {
        format!(
            "observe: {{mode: layer4, max_ejection_percent: 100}}\n    {rule}\n    check: {{type: tcp}}\n    \
             backend_defaults: {{inter: 20s, fastinter: 500ms}}"
        )
    };
    let panic = yaml(&lab, "nat", &more("panic_threshold: 60"));
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &panic).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let visitors = visitors(&lab);
    wait_proven(&lab, &daemon);
    // Three of four are 75 %, two would be less than 60.
    servers[0] = None;
    wait_event(&daemon, "ejected", "web1", 1);
    servers[1] = None;
    let spared = wait_event(&daemon, "suspected", "web2", 1);
    assert!(spared.text.contains("web/web2 is not ejected: web would be PANIC"), "{spared:?}");
    assert!(web(&daemon, 2).slots > 0, "{:?}", web(&daemon, 2));

    for number in [1, 2] {
        servers[number - 1] = Some(lab.server(number).unwrap());
        daemon.must(&["ready", &format!("web/web{number}")]);
    }
    daemon.wait("all are UP", MINUTE, |status| {
        status.services[0].backends.iter().all(|one| one.state == "UP" && one.slots > 0)
    });
    daemon.write(&yaml(&lab, "nat", &more("quorum: 3"))).unwrap();
    daemon.must(&["reload"]);
    servers[2] = None;
    wait_event(&daemon, "ejected", "web3", 1);
    servers[3] = None;
    let spared = wait_event(&daemon, "suspected", "web4", 1);
    let why = "web/web4 is not ejected: web would be UNDER-QUORUM";
    assert!(spared.text.contains(why), "{spared:?}");
    assert!(web(&daemon, 4).slots > 0, "{:?}", web(&daemon, 4));
    drop(visitors);
}

/// A packet of somebody who may not exist.
fn made_up(source: u32, port: u16, vip: Ipv4Addr, flags: u8, sequence: u32) -> (Ipv4Addr, Vec<u8>) {
    let source = format!("{}@{port}", Ipv4Addr::from(source));
    let packet = Packet::tcp(&source, &format!("{vip}@{PORT}"), flags)
        .with_tcp(|tcp| (tcp.sequence, tcp.acknowledgement) = (sequence, 7));
    (vip, packet.ip_bytes())
}

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 80);
const DEAD_VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 81);
/// Made-up sources, 10.200.0.0/16: behind lb, who has no route back to them.
const NOBODY: u32 = 0x0ac8_0000;

#[test]
fn a_spoofed_flood_ejects_nobody_neither_alive_nor_dead() {
    let lab = lab(Return::ThroughLb, 4);
    // A service of two that work, and one of two that answer nobody. Nothing but clients could tell.
    let service = |name: &str, vip: Ipv4Addr, numbers: [usize; 2]| {
        format!(
            "  - name: {name}\n    listen: {{address: {vip}, port: {PORT}}}\n    forward: nat\n    observe: layer4\n    \
             backends:\n{}",
            numbers
                .map(|n| format!("      - {{name: web{n}, address: \"{}:{PORT}\"}}\n", backend4(n)))
                .concat()
        )
    };
    let yaml =
        format!("services:\n{}{}", service("web", VIP, [1, 2]), service("dead", DEAD_VIP, [3, 4]));
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    for number in [3, 4] {
        blackhole(&lab, number, "");
    }
    let visitors = visitors(&lab);
    wait_for(
        "clients get through",
        MINUTE,
        || daemon.stats().services[0].total.flows,
        |flows| *flows > 200,
    );
    let before: u64 = daemon.stats().services.iter().map(|service| service.total.flows).sum();
    // The same SYNs twice, a second apart, as if by clients that wait; guesses at what would complete the handshake; and
    // 30,000 in all, more than the tables have places.
    let syns = |round: u32| -> Vec<_> {
        (0..15_000u32)
            .flat_map(|number| {
                let (source, port) = (NOBODY + number / 4, 1_024 + (number % 4) as u16);
                let isn = number.wrapping_mul(0x9e37_79b9);
                let vip = if number % 2 == 0 { VIP } else { DEAD_VIP };
                let syn = made_up(source, port, vip, flag::SYN, isn);
                match round {
                    0 => vec![syn, made_up(source, port, vip, flag::ACK, isn.wrapping_add(1))],
                    _ => vec![syn],
                }
            })
            .collect()
    };
    for round in 0..2 {
        make_up(&lab.client, syns(round));
        std::thread::sleep(Duration::from_secs(1));
    }
    let status = daemon.status();
    let flows: u64 = daemon.stats().services.iter().map(|service| service.total.flows).sum();
    println!("flood: {} SYNs reached the backends", flows - before);
    assert!(flows - before > 20_000, "the flood did not come: {}", flows - before);
    for service in &status.services {
        for backend in &service.backends {
            let observed = backend.observed.as_ref().unwrap();
            assert_eq!(backend.state, "NOLB", "{}/{}", service.name, backend.name);
            assert_eq!((observed.ejections, observed.half_open), (0, false), "{backend:#?}");
            // At the live one the flood may cost a real client a SYN; at the dead one there is nobody real.
            let failures = observed.unanswered + observed.refused;
            assert!(failures == 0 || service.name == "web", "{backend:#?}");
        }
    }
    let all = daemon.events();
    assert!(
        all.iter().all(|event| !["ejected", "suspected"].contains(&event.kind.as_str())),
        "{all:#?}"
    );
    let beats = visitors.finish();
    assert_eq!(beats.failures(), 0, "clients of the live service: {beats:#?}");
}

#[test]
fn in_dsr_a_probe_decides_what_clients_may_have_made_up() {
    let lab = lab(Return::Direct, 3);
    let more = "observe: layer4\n    check: {type: tcp}\n    \
                backend_defaults: {inter: 20s, fastinter: 300ms, fall: 3, timeout: 1s}";
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(&lab, "dsr", more)).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    // Whole flows are made up: SYN, what would follow it, and then SYNs that seem to be unanswered.
    let packets = |round: u32| -> Vec<_> {
        (0..600u32)
            .flat_map(|number| {
                let (source, isn) = (NOBODY + number / 4, number.wrapping_mul(0x9e37_79b9));
                let port = 1_024 + (number % 4) as u16;
                let proves = number % 4 == 0;
                match (round, proves) {
                    (0, true) => vec![
                        made_up(source, port, VIP, flag::SYN, isn),
                        made_up(source, port, VIP, flag::ACK, isn.wrapping_add(1)),
                    ],
                    (1 | 2, false) => vec![made_up(source, port, VIP, flag::SYN, isn)],
                    _ => Vec::new(),
                }
            })
            .collect()
    };
    for round in 0..3 {
        make_up(&lab.client, packets(round));
        std::thread::sleep(Duration::from_millis(800));
    }
    let all = wait_for(
        "backends are asked",
        MINUTE,
        || daemon.events(),
        |all| all.iter().any(|event| event.kind == "suspected"),
    );
    assert!(all.iter().all(|event| event.kind != "backend_down"), "{all:#?}");
    let status = daemon.wait("their answers", MINUTE, |status| {
        status.services[0].backends.iter().all(|backend| backend.state == "UP")
    });
    assert!(status.services[0].backends.iter().all(|backend| backend.slots > 0), "{status:#?}");

    let visitors = visitors(&lab);
    wait_proven(&lab, &daemon);
    found_by_clients(&lab, &daemon, visitors);
}

/// One request, on this thread.
fn request(target: SocketAddr, from: Option<SocketAddr>) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(request_from(target, from))
}

/// SYNs that a machine's kernel has sent again.
fn sent_again(machine: &Machine) -> u64 {
    let table = machine.sh("grep ^TcpExt: /proc/net/netstat").unwrap();
    let mut lines = table.lines().map(|line| line.split_whitespace());
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let (_, value) = names.zip(values).find(|(name, _)| *name == "TCPSynRetrans").unwrap();
    value.parse().unwrap()
}

#[test]
fn repeated_syns_are_as_many_as_the_clients_kernel_has_sent() {
    for (forward, way) in [("nat", Return::ThroughLb), ("dsr", Return::Direct)] {
        let lab = lab(way, 1);
        // Nothing is done about it.
        let more = "observe: {mode: layer4, error_limit: 1000, on_error: fastinter}\n    check: {type: tcp}\n    \
                    backend_defaults: {inter: 5s, fastinter: 5s, fall: 100}";
        let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(&lab, forward, more)).unwrap();
        daemon.start().unwrap();
        daemon.wait_ready(&["UP"]);
        let target = SocketAddr::new(VIP4, PORT);
        let unanswered = || web(&daemon, 1).observed.unwrap().unanswered;
        let addresses = usize::from(CLIENTS);
        for number in 0..addresses {
            let from = Some(SocketAddr::new(client(number), 0));
            lab.client.run(move || request(target, from)).unwrap();
        }
        assert_eq!(unanswered(), 0, "{forward}");
        let before = sent_again(&lab.client);
        blackhole(&lab, 1, "");
        let clients: Vec<_> = (0..addresses)
            .map(|number| {
                let from = Some(SocketAddr::new(client(number), 0));
                lab.client.run(move || std::thread::spawn(move || request(target, from)))
            })
            .collect();
        wait_for(
            "each has asked twice more",
            MINUTE,
            || sent_again(&lab.client) - before,
            |more| *more >= 2 * addresses as u64,
        );
        heal(&lab, 1);
        for client in clients {
            client.join().unwrap().unwrap();
        }
        let sent = sent_again(&lab.client) - before;
        println!("{forward}: {sent} SYNs sent again, {} counted", unanswered());
        assert_eq!(unanswered(), sent, "{forward}");
    }
}

#[test]
fn in_a_tunnel_clients_find_who_answers_nobody() {
    let lab = lab(Return::Direct, 3);
    lab.decapsulate();
    let more = "encap: ipip\n    observe: layer4\n    check: {type: tcp}\n    \
                backend_defaults: {inter: 20s, fastinter: 300ms, fall: 3, timeout: 1s}";
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(&lab, "tunnel", more)).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let visitors = visitors(&lab);
    wait_proven(&lab, &daemon);
    found_by_clients(&lab, &daemon, visitors);
}

/// A backend that answers nobody: clients find it, the probe agrees, long before the next one was due.
fn found_by_clients(lab: &Lab, daemon: &Daemon<'_>, visitors: Pulse) {
    let began = unix_milliseconds();
    blackhole(lab, 1, "");
    let down = wait_event(daemon, "backend_down", "web1", 1);
    println!(
        "SYN blackhole: DOWN by the probe that clients' SYNs asked for after {} ms, checks are 20,000 ms apart",
        down.unix_milliseconds - began
    );
    assert!(down.unix_milliseconds - began < 20_000, "only a regular check found it");
    assert!(of(&daemon.events(), "suspected", "web1").iter().any(|event| event.id < down.id));
    assert_eq!(visitors.finish().failures(), 0);
}
