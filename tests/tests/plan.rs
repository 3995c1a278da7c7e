//! A plan says what a reload then does.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use lb_tests::{
    client::answers_by_port,
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};
use lb_userspace::{
    api::{
        client::Client,
        types::{Plan, PlanService},
    },
    explain::frame::{Flow, Kind, frame},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

const MINUTE: Duration = Duration::from_secs(60);

fn yaml(settings: &str, weights: &[(usize, u16)]) -> String {
    let mut yaml = format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    {settings}\n    backends:\n"
    );
    for (number, weight) in weights {
        yaml += &format!(
            "      - {{name: web{number}, address: \"{}:{PORT}\", weight: {weight}}}\n",
            backend4(*number)
        );
    }
    yaml
}

/// The plan for a file, which is then put in force.
#[track_caller]
fn plan_and_apply(daemon: &Daemon<'_>, yaml: &str) -> (PlanService, String) {
    let draft = daemon.directory.join("draft.yaml");
    std::fs::write(&draft, yaml).unwrap();
    let answer = daemon.must(&["plan", "--json", draft.to_str().unwrap()]);
    let mut plan: Plan = serde_json::from_str(&answer).unwrap();
    let before = daemon.status().revision;
    assert_ne!(daemon.must(&["plan", draft.to_str().unwrap()]), "");
    assert_eq!(daemon.status().revision, before, "a plan changes nothing");
    let told = daemon.log().len();
    daemon.write(yaml).unwrap();
    daemon.must(&["reload"]);
    // Whether by this command or because lb has seen the file change: the log has it.
    let said = daemon.log()[told..].to_owned();
    println!("planned: {plan:#?}\ndone: {said}");
    (plan.services.remove(0), said)
}

#[test]
fn a_plan_predicts_the_share_that_a_reload_moves() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let mut daemon =
        Daemon::new(&lab.lb, &lab.nics, &yaml("window: 1s", &[(1, 100), (2, 100)])).unwrap();
    daemon.start().unwrap();
    daemon.wait("the service is there", MINUTE, |status| !status.services.is_empty());
    let steps: [&[(usize, u16)]; 4] = [
        &[(1, 100), (2, 100), (3, 100)],
        &[(1, 100), (3, 100)],
        &[(1, 50), (3, 100)],
        &[(3, 100), (1, 50)],
    ];
    for weights in steps {
        let (plan, said) = plan_and_apply(&daemon, &yaml("window: 1s", weights));
        let moved = format!("{} of {} slots change hands", plan.moved_slots, plan.slots);
        assert_eq!(plan.moved_slots > 0, said.contains(&moved), "planned {moved}, done: {said}");
        assert_eq!(plan.change == "none", !said.contains("service web"), "{plan:#?}\n{said}");
        assert!(!plan.open_flows_move);
    }
    let (plan, _) = plan_and_apply(&daemon, &yaml("window: 1s", &[(1, 50), (3, 100), (2, 150)]));
    assert!((plan.moved_share - 0.5).abs() < 0.02, "half of the weight is new: {plan:#?}");
    assert!(plan.lines[0].contains("web2") && plan.lines[0].contains("it gets 50."), "{plan:#?}");
    let web2 = plan.backends.iter().find(|backend| backend.name == "web2").unwrap();
    // Removed a moment ago, it may still be there, draining.
    assert!(["added", "back"].contains(&web2.change.as_str()) && web2.lost == 0.0, "{plan:#?}");
    let (plan, _) = plan_and_apply(&daemon, &yaml("window: 3s", &[(1, 50), (3, 100), (2, 150)]));
    assert_eq!(plan.lines, ["settings: window"]);
    let weights = [(1, 50), (3, 100), (2, 150)];
    let (plan, said) = plan_and_apply(&daemon, &yaml("ring_size: 4093", &weights));
    assert!(
        plan.lines.iter().any(|line| line.starts_with("ring length 1021 -> 4093")),
        "{plan:#?}"
    );
    assert!(said.contains("ring length 1021 -> 4093"), "{said}");
    // The weights are the same: what moves is what differs between two rings of one shape.
    assert!(plan.moved_share > 0.3 && plan.moved_share < 0.9, "{plan:#?}");
}

/// A change is through within seconds.
const QUICK: &str = "window: 1s\n    timeouts: {tcp: 1s, tcpfin: 1s}";
/// Flows that are asked for.
const FLOWS: usize = 10_000;
/// Flows that really connect.
const CONNECTIONS: u16 = 2_000;

/// A measured share may differ from the true one by this much: five standard deviations of a count of `flows` independent
/// flows, which less than one in a million exceeds.
fn tolerance(share: f64, flows: usize) -> f64 {
    5.0 * (share * (1.0 - share) / flows as f64).sqrt() + 1.0 / flows as f64
}

#[track_caller]
fn agrees(what: &str, predicted: f64, moved: usize, flows: usize) {
    let measured = moved as f64 / flows as f64;
    let tolerance = tolerance(predicted, flows);
    println!(
        "{what}: predicted {predicted:.4}, measured {measured:.4} +- {tolerance:.4} ({flows} flows)"
    );
    assert!((measured - predicted).abs() <= tolerance, "{what}");
}

/// Opening packets of flows from everywhere.
fn openers() -> Vec<Vec<u8>> {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut flow = || Flow {
        source: SocketAddr::new(
            Ipv4Addr::from(0xc612_0000 | random.random_range(0..1u32 << 17)).into(),
            random.random_range(1024..=u16::MAX),
        ),
        destination: SocketAddr::new(VIP4, PORT),
        segment: Kind::Syn,
    };
    (0..FLOWS).map(|_| frame(&flow())).collect()
}

/// Which backend the loaded program, in the kernel, chooses for each.
fn choices(daemon: &Daemon<'_>, frames: &[Vec<u8>]) -> Vec<String> {
    let client = Client::new(&daemon.socket);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let verdicts = runtime.block_on(client.replay(frames, None, &[])).unwrap();
    assert_eq!(verdicts.len(), frames.len());
    verdicts.into_iter().map(|verdict| verdict.backend.expect("a SYN to the VIP")).collect()
}

/// What is changed, the settings, and the backends' weights.
type Step<'a> = (&'a str, &'a str, &'a [(usize, u16)]);

fn differ<T: PartialEq>(before: &[T], after: &[T]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}

#[test]
fn what_flows_do_agrees_with_the_plan() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let first = yaml(QUICK, &[(1, 100), (2, 100)]);
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &first).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let frames = openers();
    let mut before = choices(&daemon, &frames);
    let ports = 20_000..20_000 + CONNECTIONS;
    let target = SocketAddr::new(VIP4, PORT);
    let real = answers_by_port(&lab.client, target, ports.clone()).unwrap();
    let steps: [Step<'_>; 6] = [
        ("web3 comes", "", &[(1, 100), (2, 100), (3, 100)]),
        ("web1 is worth half", "", &[(1, 50), (2, 100), (3, 100)]),
        ("web2 goes, web3 doubles", "", &[(1, 50), (3, 200)]),
        ("a longer ring", "\n    ring_size: 4093", &[(1, 50), (3, 200)]),
        ("by source", "\n    ring_size: 4093\n    balance: source", &[(1, 50), (3, 200)]),
        ("a shorter ring and web2", "\n    balance: source", &[(1, 50), (2, 50), (3, 200)]),
    ];
    for (what, settings, weights) in steps {
        let settings = format!("{QUICK}{settings}");
        if settings.contains("ring_size") || settings.contains("balance") {
            // Such a change waits for the one before.
            daemon.wait_settled(MINUTE);
        }
        let (plan, _) = plan_and_apply(&daemon, &yaml(&settings, weights));
        let after = choices(&daemon, &frames);
        agrees(what, plan.moved_share, differ(&before, &after), FLOWS);
        for backend in &plan.backends {
            let count = |choices: &[String]| {
                choices.iter().filter(|choice| **choice == backend.name).count()
            };
            let name = &backend.name;
            agrees(&format!("{what}: {name} before"), backend.share_before, count(&before), FLOWS);
            agrees(&format!("{what}: {name} after"), backend.share_after, count(&after), FLOWS);
            let gained = before.iter().zip(&after).filter(|(b, a)| a != b && *a == name).count();
            agrees(&format!("{what}: {name} gains"), backend.gained, gained, FLOWS);
            let lost = before.iter().zip(&after).filter(|(b, a)| a != b && *b == name).count();
            agrees(&format!("{what}: {name} loses"), backend.lost, lost, FLOWS);
        }
        if what == "web3 comes" {
            daemon.wait_ready(&["NOLB"]);
            let now = answers_by_port(&lab.client, target, ports.clone()).unwrap();
            let pairs: (Vec<_>, Vec<_>) = (real.values().collect(), now.values().collect());
            let moved = differ(&pairs.0, &pairs.1);
            agrees("real connections", plan.moved_share, moved, CONNECTIONS.into());
        }
        before = after;
    }
}

#[test]
fn a_plan_refuses_what_a_reload_would() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let good = yaml("window: 1s", &[(1, 100)]);
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &good).unwrap();
    daemon.start().unwrap();
    let draft = daemon.directory.join("draft.yaml");
    for (bad, word) in [
        (good.replace("forward: nat", "forward: teleport"), "teleport"),
        (good.replace("10.77.0.80", "10.77.1.1"), "force: true"),
    ] {
        std::fs::write(&draft, bad).unwrap();
        let output = daemon.lb(&["plan", draft.to_str().unwrap()]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("draft.yaml:") && said.contains(word), "{said}");
    }
    assert_eq!(daemon.status().config_error, None, "the file in force is not concerned");
    let more = format!(
        "{good}  - name: other\n    listen: {{address: 10.77.0.81, port: 53, protocol: udp}}\n    forward: nat\n    backends: \
         [{{name: x, address: \"10.77.0.99:53\"}}]\n"
    );
    std::fs::write(&draft, more).unwrap();
    let said = daemon.must(&["plan", draft.to_str().unwrap()]);
    assert!(said.contains("service other  10.77.0.81:53/udp\n  added with 1 backend"), "{said}");
    assert!(!said.contains("service web"), "{said}");
}
