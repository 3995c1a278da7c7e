//! Two hundred files, good and bad, under load.

use std::{net::SocketAddr, time::Duration};

use lb_tests::{
    client::Load,
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

const MINUTE: Duration = Duration::from_secs(60);
const RELOADS: usize = 200;

/// A valid configuration: some of the backends, some weights, some settings, in some order.
fn valid(random: &mut StdRng) -> String {
    let mut numbers = vec![1, 2, 3];
    numbers.shuffle(random);
    numbers.truncate(random.random_range(2..=3));
    let mut yaml = format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    \
         ring_size: {}\n    window: {}s\n    timeouts: {{tcp: 4s, tcpfin: 1s}}\n    backends:\n",
        if random.random_bool(0.1) { 4093 } else { 1021 },
        random.random_range(1..=3),
    );
    for number in &numbers {
        let weight = [50, 100, 200][random.random_range(0..3)];
        yaml += &format!(
            "      - {{name: web{number}, address: \"{}:{PORT}\", weight: {weight}}}\n",
            backend4(*number)
        );
    }
    yaml
}

/// The same with a fault in it.
fn invalid(random: &mut StdRng) -> String {
    let yaml = valid(random);
    match random.random_range(0..6) {
        0 => yaml[..yaml.len() * 2 / 3].trim_end().to_owned() + ": {",
        1 => yaml.replace("forward: nat", "forward: teleport"),
        2 => yaml.replace("weight: ", "wieght: "),
        3 => yaml.replace("10.77.0.80", "10.77.0.800"),
        4 => String::new(),
        _ => yaml.replace("window: ", "window: -"),
    }
}

#[test]
fn two_hundred_reloads_lose_nothing() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &valid(&mut random)).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let load =
        Load::start(&lab.client, &[SocketAddr::new(VIP4, PORT)], 8, Duration::from_millis(2));
    let mut in_force = None;
    for number in 0..RELOADS {
        let good = random.random_bool(0.6);
        let yaml = if good { valid(&mut random) } else { invalid(&mut random) };
        daemon.write(&yaml).unwrap();
        let output = daemon.lb(&["reload"]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), good, "reload {number} (seed {seed}): {said}\n{yaml}");
        if good {
            in_force = Some(yaml);
        } else {
            assert_eq!(output.status.code(), Some(3), "{said}");
            assert!(said.contains("lb.yaml:"), "an error without its place: {said}");
            let status = daemon.status();
            assert!(status.config_error.is_some(), "the error is in the status: {status:#?}");
        }
    }
    let tally = load.finish();
    assert_eq!(tally.failures(), 0, "seed {seed}: {tally:?}\n{}", daemon.log_tail());
    assert!(tally.ok() > RELOADS as u64, "{tally:?}");
    let wanted = in_force.expect("some file was valid");
    let expected: serde_yaml::Value = serde_yaml::from_str(&wanted).unwrap();
    daemon.wait("the last valid file is in force", MINUTE, |status| {
        let backends = expected["services"][0]["backends"].as_sequence().unwrap();
        let service = &status.services[0];
        backends.iter().all(|backend| {
            service.backends.iter().any(|known| {
                Some(known.name.as_str()) == backend["name"].as_str()
                    && Some(known.weight as u64) == backend["weight"].as_u64()
                    && known.admin == "ready"
            })
        })
    });
    daemon.write(&wanted).unwrap();
    daemon
        .wait("the file on disk is in force again", MINUTE, |status| status.config_error.is_none());
    daemon.wait_settled(Duration::from_secs(120));
}
