//! Real clients while a flood of SYNs from made-up addresses goes on: the stage is engaged by itself, they prove what they are
//! without knowing it, and get in; connections that are open notice nothing. Rows F22, F23 and S03 of the fault cases.

use std::{
    net::SocketAddr,
    sync::mpsc,
    time::{Duration, Instant},
};

use lb_tests::{
    client::{Held, request_from, wait_for},
    daemon::{Daemon, lb_binary},
    flood::Flood,
    kernel::packet::flag,
    lab::{Arms, Lab, PORT, Return, VIP4, VIP6, backend4, backend6},
};
use lb_userspace::api::types::{Status, SynFlood};

const MINUTE: Duration = Duration::from_secs(60);
/// Clients that nobody has seen before, of each family, and how often each connects while the flood goes on.
const CLIENTS: u16 = 20;
const ENGAGE: u64 = 2_000;
/// Made-up SYNs a second: more than nine in ten of all.
const FLOOD: u64 = 6_000;

/// In this mode the end of a flood is waited for, too.
const NAT: &str = "forward: nat";

fn yaml(forward: &str) -> String {
    let mut yaml = "services:\n".to_owned();
    for (name, vip, backends) in
        [("web", VIP4, [backend4(1), backend4(2)]), ("web6", VIP6, [backend6(1), backend6(2)])]
    {
        yaml += &format!(
            "  - name: {name}\n    listen: {{address: \"{vip}\", port: {PORT}}}\n    {forward}\n    \
             syn_flood: {{engage: {ENGAGE}/s, release: {}/s}}\n    backends:\n",
            ENGAGE / 2
        );
        for (number, address) in backends.iter().enumerate() {
            let address = SocketAddr::new(*address, PORT);
            yaml += &format!("      - {{name: web{}, address: \"{address}\"}}\n", number + 1);
        }
    }
    yaml
}

fn stage(status: &Status, service: &str) -> SynFlood {
    let service = status.services.iter().find(|known| known.name == service);
    service.and_then(|known| known.syn_flood).expect("the service has a stage")
}

fn count(daemon: &Daemon<'_>, service: &str, reason: &str) -> u64 {
    let stats = daemon.stats();
    let service = stats.services.iter().find(|known| known.name == service).unwrap();
    service.reasons.get(reason).copied().unwrap_or(0)
}

/// Addresses that lb has not met: each IPv6 one in a /64 of its own.
fn newcomers(lab: &Lab) -> Vec<(SocketAddr, SocketAddr)> {
    lab.lb.ip("route add fd77:2::/32 dev lb0").unwrap();
    if lab.backends[0].sh("ip addr show dev lo | grep -q fd77::80").is_ok() {
        for backend in &lab.backends {
            backend.ip("route add fd77:2::/32 dev e0").unwrap();
        }
    }
    let mut all = Vec::new();
    for number in 0..CLIENTS {
        let v4 = format!("10.77.1.{}", 100 + number);
        let v6 = format!("fd77:2:{number:x}::2");
        lab.client.ip(&format!("addr add {v4}/24 dev c0")).unwrap();
        lab.client.ip(&format!("addr add {v6}/64 dev c0 nodad")).unwrap();
        for (source, vip) in [(v4, VIP4), (v6, VIP6)] {
            all.push((SocketAddr::new(source.parse().unwrap(), 0), SocketAddr::new(vip, PORT)));
        }
    }
    all
}

/// Each connects once, one after the other; how long it took, or why it failed.
fn connect(lab: &Lab, clients: &[(SocketAddr, SocketAddr)]) -> Vec<Result<Duration, String>> {
    let (answer, result) = mpsc::channel();
    let clients = clients.to_vec();
    lab.client.run(move || {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let all = runtime.unwrap().block_on(async {
                let mut all = Vec::new();
                for (source, target) in clients {
                    let began = Instant::now();
                    let result = request_from(target, Some(source)).await;
                    all.push(
                        result.map(|_| began.elapsed()).map_err(|e| format!("{source}: {e:#}")),
                    );
                }
                all
            });
            // The caller waits for exactly this.
            let _ = answer.send(all);
        });
    });
    result.recv().unwrap()
}

/// What the events of this life of the daemon say of the first service's stage.
fn told(daemon: &Daemon<'_>) -> Vec<String> {
    (daemon.events().into_iter())
        .filter(|event| event.kind == "syn_flood" && event.service.as_deref() == Some("web"))
        .map(|event| event.text)
        .collect()
}

fn flooded(forward: &str, way: Return) {
    let lab = Lab::new(Arms::One, way, 2).unwrap();
    if forward.contains("tunnel") {
        for backend in &lab.backends {
            let mut command = std::process::Command::new(lb_binary());
            command.args(["decap", "--iface", "e0", "--from", "10.77.0.1", "--from", "fd77::1"]);
            let output = backend.output(command).unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let clients = newcomers(&lab);
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(forward)).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let held: Vec<Held> = [VIP4, VIP6]
        .map(|vip| Held::open(&lab.client, SocketAddr::new(vip, PORT), 100).unwrap())
        .into();
    assert!(!stage(&daemon.status(), "web").engaged, "one hundred connections are no flood");

    let floods: Vec<Flood> = [VIP4, VIP6]
        .map(|vip| Flood::start(&lab.client, (vip, PORT).into(), flag::SYN, FLOOD).unwrap())
        .into();
    daemon.wait("both stages are engaged", MINUTE, |status| {
        stage(status, "web").engaged && stage(status, "web6").engaged
    });
    assert!(daemon.must(&["status"]).contains("SYN-flood stage engaged"));
    let results = connect(&lab, &clients);
    let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let mut times: Vec<_> = results.into_iter().flatten().collect();
    times.sort();
    println!(
        "{forward}: first connections took {:?} (median) to {:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
    // Known now, they are not asked again; the flood still goes on.
    for service in ["web", "web6"] {
        assert_eq!(count(&daemon, service, "syn_proof"), u64::from(CLIENTS), "{service}");
        assert!(stage(&daemon.status(), service).engaged);
    }
    let again = connect(&lab, &clients);
    assert!(again.iter().all(Result::is_ok), "{again:?}");
    for service in ["web", "web6"] {
        assert_eq!(count(&daemon, service, "syn_proof"), u64::from(CLIENTS), "{service}");
    }
    for held in &held {
        assert_eq!(held.broken(), [""; 0]);
    }
    let look = || told(&daemon);
    let told_first = wait_for("its begin is told", MINUTE, look, |told| !told.is_empty());
    assert!(told_first.len() == 1 && told_first[0].contains("engaged"), "{told_first:?}");
    if forward != NAT {
        return;
    }
    // The kernel goes on alone.
    daemon.kill().unwrap();
    let before = floods[0].sent();
    wait_for("the flood goes on", MINUTE, || floods[0].sent(), |sent| *sent > before + FLOOD / 2);
    daemon.start().unwrap();
    assert!(stage(&daemon.status(), "web").engaged);
    let sent: Vec<u64> = floods.iter().map(Flood::sent).collect();
    drop(floods);
    for (service, sent) in ["web", "web6"].into_iter().zip(sent) {
        // What came before the threshold was passed, and what a socket had no room for, was not.
        let challenged = count(&daemon, service, "syn_challenge");
        assert!(challenged > sent / 2 && challenged < sent + 100, "{challenged} of {sent}");
    }
    daemon.wait("both stages are released", MINUTE, |status| {
        !stage(status, "web").engaged && !stage(status, "web6").engaged
    });
    assert!(connect(&lab, &clients[..2]).iter().all(Result::is_ok));
    let look = || told(&daemon);
    let told = wait_for("its end is told", MINUTE, look, |told| !told.is_empty());
    assert!(told.len() == 1 && told[0].contains("released"), "{told:?}");
    for held in &held {
        assert_eq!(held.broken(), [""; 0]);
    }
}

#[test]
fn real_clients_get_in_through_a_flood_in_nat() {
    flooded(NAT, Return::ThroughLb);
}

#[test]
fn real_clients_get_in_through_a_flood_in_dsr() {
    flooded("forward: dsr", Return::Direct);
}

#[test]
fn real_clients_get_in_through_a_flood_in_a_tunnel() {
    flooded("forward: tunnel\n    encap: ipip", Return::Direct);
}
