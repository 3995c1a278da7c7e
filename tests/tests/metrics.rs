//! What Prometheus gets to see of a real daemon.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use lb_tests::{
    client::requests,
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};

const MINUTE: Duration = Duration::from_secs(60);

fn yaml(metrics: &str) -> String {
    format!(
        "{metrics}\nservices:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    \
         check: {{type: http, path: /healthz}}\n    backends:\n      - {{name: web1, address: \"{}:{PORT}\"}}\n",
        backend4(1)
    )
}

/// One scrape: status line and headers, and the text.
fn scrape(lab: &Lab, port: u16) -> std::io::Result<(String, String)> {
    lab.lb.run(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: lb\r\nAccept: application/openmetrics-text\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        Ok((head.to_owned(), body.to_owned()))
    })
}

fn value(text: &str, sample: &str) -> Option<f64> {
    let line = text
        .lines()
        .find(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn a_scrape_agrees_with_what_has_happened() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml("metrics: 127.0.0.1:9180")).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let tally = requests(&lab.client, SocketAddr::new(VIP4, PORT), 50, 5);
    assert_eq!((tally.ok(), tally.failures()), (50, 0), "{tally:?}");
    let (head, text) = scrape(&lab, 9180).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let of_web1 = "{service=\"web\",backend=\"web1\"}";
    assert_eq!(value(&text, &format!("lb_backend_flows_total{of_web1}")), Some(50.0), "{text}");
    assert_eq!(value(&text, &format!("lb_backend_up{of_web1}")), Some(1.0), "{text}");
    assert_eq!(value(&text, "lb_interface_attached{interface=\"lb0\",mode=\"native\"}"), Some(1.0));
    let packets =
        value(&text, "lb_backend_packets_total{service=\"web\",backend=\"web1\",direction=\"in\"}");
    assert!(packets.is_some_and(|packets| packets >= 200.0), "{packets:?}");
}

#[test]
fn the_listener_moves_and_goes_with_the_configuration() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml("metrics: 127.0.0.1:9180")).unwrap();
    daemon.start().unwrap();
    daemon.write(&yaml("metrics: 127.0.0.1:9181")).unwrap();
    daemon.must(&["reload"]);
    assert!(scrape(&lab, 9180).is_err() && scrape(&lab, 9181).is_ok());
    daemon.write(&yaml("")).unwrap();
    daemon.must(&["reload"]);
    assert!(scrape(&lab, 9181).is_err());
    // A port that is taken costs nothing but a warning, until it is free.
    let taken = lab.lb.run(|| std::net::TcpListener::bind("127.0.0.1:9182").unwrap());
    daemon.write(&yaml("metrics: 127.0.0.1:9182")).unwrap();
    daemon.must(&["reload"]);
    let warned = |warnings: &[String]| warnings.iter().any(|warning| warning.contains("9182"));
    assert!(warned(&daemon.status().warnings));
    drop(taken);
    daemon.wait("the port is listened on", MINUTE, |status| !warned(&status.warnings));
    assert!(scrape(&lab, 9182).is_ok());
}

#[test]
fn alert_rules_are_about_what_is_served() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml("metrics: 127.0.0.1:9180")).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let (_, text) = scrape(&lab, 9180).unwrap();
    let served: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/prometheus/alerts.yml");
    let rules: serde_yaml::Value =
        serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let rules = rules["groups"][0]["rules"].as_sequence().unwrap();
    assert!(rules.len() > 5, "{rules:?}");
    for rule in rules {
        let expression = rule["expr"].as_str().unwrap();
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("lb_")) {
            assert!(served.contains(word), "{word} of `{expression}` is not served");
        }
    }
}
