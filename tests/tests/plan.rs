//! A plan says what a reload then does.

use std::time::Duration;

use lb_tests::{
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, backend4},
};
use lb_userspace::api::types::{Plan, PlanService};

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
