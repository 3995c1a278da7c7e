//! What Prometheus gets to see of a real daemon.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};

use lb_tests::{
    client::{Held, Load, requests, wait_for},
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
    prometheus::Prometheus,
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
    scrape_as(lab, port, "Accept: application/openmetrics-text\r\n")
}

/// The same with other headers.
fn scrape_as(lab: &Lab, port: u16, headers: &'static str) -> std::io::Result<(String, String)> {
    lab.lb.run(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        Ok((head.to_owned(), body.to_owned()))
    })
}

fn value_of(text: &str, sample: &str) -> Option<f64> {
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
    assert_eq!(value_of(&text, &format!("lb_backend_flows_total{of_web1}")), Some(50.0), "{text}");
    assert_eq!(value_of(&text, &format!("lb_backend_up{of_web1}")), Some(1.0), "{text}");
    assert_eq!(
        value_of(&text, "lb_interface_attached{interface=\"lb0\",mode=\"native\"}"),
        Some(1.0)
    );
    let packets = value_of(
        &text,
        "lb_backend_packets_total{service=\"web\",backend=\"web1\",direction=\"in\"}",
    );
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
    // The other group is about what is not always there.
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

/// A file of the repository's `configs`.
fn configs(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs")).join(name)
}

fn promtool(arguments: &[&str], input: Option<&str>) -> Output {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(configs("prometheus"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool comes with Prometheus: `cargo xtask setup`");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.unwrap_or_default().as_bytes()).expect("promtool reads");
    drop(stdin);
    child.wait_with_output().expect("promtool ends")
}

#[track_caller]
fn promtool_accepts(arguments: &[&str], input: Option<&str>) -> String {
    let output = promtool(arguments, input);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}

#[test]
fn promtool_accepts_rules_configuration_and_the_tests_of_every_alert() {
    promtool_accepts(&["check", "rules", "alerts.yml"], None);
    promtool_accepts(&["check", "config", "prometheus.yml"], None);
    promtool_accepts(&["test", "rules", "alerts_test.yml"], None);
    let read = |name: &str| -> serde_yaml::Value {
        serde_yaml::from_str(&fs::read_to_string(configs("prometheus").join(name)).unwrap())
            .unwrap()
    };
    let rules = read("alerts.yml");
    let tests = serde_yaml::to_string(&read("alerts_test.yml")).unwrap();
    let groups = rules["groups"].as_sequence().unwrap();
    for rule in groups.iter().flat_map(|group| group["rules"].as_sequence().unwrap()) {
        let name = rule["alert"].as_str().unwrap();
        let tested = tests.matches(&format!("alertname: {name}\n")).count();
        assert!(tested >= 2, "{name} needs a test that it fires, and one that it does not");
    }
}

#[test]
fn promtool_accepts_the_metrics() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml("metrics: 127.0.0.1:9180")).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    requests(&lab.client, SocketAddr::new(VIP4, PORT), 20, 5);
    // As curl asks: promtool reads the older format only.
    let (head, text) = scrape_as(&lab, 9180, "Accept: */*\r\n").unwrap();
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let said = promtool_accepts(&["check", "metrics"], Some(&text));
    assert!(said.trim().is_empty(), "{said}");
}

/// Queries of the dashboard: of panels, of variables, and of annotations.
fn dashboard() -> (Vec<String>, Vec<(String, String)>) {
    let text = fs::read_to_string(configs("grafana/lb.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let filled = |query: &str| {
        let query = query.replace("$__rate_interval", "20s").replace("$job", "lb");
        let query = ["$instance", "$service", "$backend"]
            .iter()
            .fold(query, |query, name| query.replace(name, ".*"));
        assert!(!query.contains('$'), "{query}");
        query
    };
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push(filled(target["expr"].as_str().unwrap()));
        }
    }
    let mut variables = Vec::new();
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(query) = variable["definition"].as_str() else { continue };
        let inside = query.strip_prefix("label_values(").and_then(|q| q.strip_suffix(')'));
        let (selector, label) = inside.unwrap().rsplit_once(", ").unwrap();
        variables.push((filled(selector), label.to_owned()));
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        queries.push(filled(annotation["expr"].as_str().unwrap()));
    }
    (queries, variables)
}

#[test]
fn a_real_prometheus_scrapes_lb_and_every_query_of_the_dashboard_has_data() {
    let mut lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let web2 = format!("      - {{name: web2, address: \"{}:{PORT}\"}}\n", backend4(2));
    let quick = "backend_defaults: {inter: 200ms, fastinter: 100ms, downinter: 200ms}";
    let text = yaml(&format!("metrics: 127.0.0.1:9180\n{quick}")) + &web2;
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &text).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    // The example with quicker scrapes.
    let example = fs::read_to_string(configs("prometheus/prometheus.yml")).unwrap();
    let config = example.replace("interval: 10s", "interval: 500ms");
    let directory = tempfile::tempdir().unwrap();
    fs::copy(configs("prometheus/alerts.yml"), directory.path().join("alerts.yml")).unwrap();
    let prometheus = Prometheus::start(&lab.lb, directory.path(), &config).unwrap();
    let vip = |port| SocketAddr::new(VIP4, port);
    let load = Load::start(&lab.client, &[vip(PORT)], 4, Duration::from_millis(10));

    // Before anything changes, the first scrapes see how it was.
    let seen = || prometheus.query("count_over_time(lb_config_revision[1m]) >= 3").unwrap();
    wait_for("lb is scraped", MINUTE, seen, |found| !found.is_empty());

    let (queries, variables) = dashboard();
    assert!(queries.len() > 30 && variables.len() == 4, "{} {}", queries.len(), variables.len());
    // What comes only with trouble that this lab does not make for long.
    let may_be_empty =
        |query: &str| query.starts_with("sum by (service, backend) (lb_backend_pins");
    let mut turn = 0;
    let look = || {
        // Changes, packets to a port that nobody has, and a failing backend.
        turn += 1;
        match turn % 4 {
            0 => daemon.must(&["drain", "web/web1"]),
            2 => daemon.must(&["ready", "web/web1"]),
            _ => String::new(),
        };
        lab.client.run(move || {
            let _ = TcpStream::connect_timeout(&vip(PORT + 1), Duration::from_millis(50));
        });
        if turn == 10 {
            lab.servers[1] = None;
            daemon.write(&text.replace("name: web1,", "name: web1, weight: 50,")).unwrap();
            daemon.must(&["reload"]);
        }
        let mut missing: Vec<String> = Vec::new();
        for query in queries.iter().filter(|query| !may_be_empty(query)) {
            match prometheus.query(query) {
                Ok(found) if found.is_empty() => missing.push(query.clone()),
                Ok(_) => {}
                Err(error) => panic!("{error:#}"),
            }
        }
        missing
    };
    wait_for("every query has data", MINUTE, look, Vec::is_empty);
    for query in &queries {
        prometheus.query(query).unwrap();
    }
    for (selector, label) in variables {
        let found = prometheus.query(&selector).unwrap();
        assert!(!found.is_empty(), "{selector}");
        assert!(found.iter().all(|series| series["metric"][&label].is_string()), "{found:?}");
    }
    let targets = prometheus.data("targets").unwrap();
    assert_eq!(targets["activeTargets"][0]["health"], "up", "{targets}");
    let rules = prometheus.data("rules").unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() > 10, "{rules:?}");
    assert!(rules.iter().all(|rule| rule["health"] == "ok"), "{rules:#?}");
    drop(load.finish());
}

#[test]
fn failed_checks_and_downtime_are_counted_across_a_restart() {
    let mut lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let web2 = format!("      - {{name: web2, address: \"{}:{PORT}\"}}\n", backend4(2));
    let quick = "backend_defaults: {inter: 200ms, fastinter: 100ms, downinter: 200ms}";
    let text = yaml(&format!("metrics: 127.0.0.1:9180\n{quick}")) + &web2;
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &text).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    lab.servers[1] = None;
    let web2 = |status: &lb_userspace::api::types::Status| {
        let backend = lb_tests::daemon::backend(status, "web", "web2").cloned();
        backend.and_then(|backend| Some((backend.state, backend.checks?))).unwrap_or_default()
    };
    let down = daemon.wait("web2 has been DOWN for a while", MINUTE, |status| {
        let (state, checks) = web2(status);
        state == "DOWN" && checks.down_seconds >= 1
    });
    let (_, before) = web2(&down);
    assert_eq!((before.downs, before.failed, before.rise, before.fall), (1, 3, 2, 3), "{before:?}");
    assert_eq!(before.health, 0);
    daemon.kill().unwrap();
    daemon.start().unwrap();
    let (_, after) = web2(&daemon.status());
    assert!(after.downs == 1 && after.failed == 3, "{after:?}");
    assert!(after.down_seconds >= before.down_seconds, "{before:?} {after:?}");
    // HAProxy's columns say the same.
    let csv = daemon.must(&["stats", "--csv"]);
    let mut lines = csv.lines();
    let heads: Vec<&str> = lines.next().unwrap().trim_start_matches("# ").split(',').collect();
    let row: Vec<&str> =
        lines.find(|line| line.starts_with("web,web2,")).unwrap().split(',').collect();
    let value = |name: &str| row[heads.iter().position(|head| *head == name).unwrap()];
    assert_eq!(["chkfail", "chkdown", "status", "mode"].map(value), ["3", "1", "DOWN", "tcp"]);
    assert!(value("downtime").parse::<u64>().unwrap() >= before.down_seconds, "{csv}");
    let (_, text) = scrape(&lab, 9180).unwrap();
    let failed = "lb_backend_check_failures_total{service=\"web\",backend=\"web2\"}";
    assert_eq!(value_of(&text, failed), Some(3.0), "{text}");
    let list = daemon.must(&["stats", "--ipvs"]);
    assert!(list.contains("TCP  10.77.0.80:8080 mh (mh-port)"), "{list}");
    assert!(
        list.contains("  -> 10.77.0.11:8080              Masq    100    -          -"),
        "{list}"
    );
    let rates = daemon.must(&["stats", "--ipvs=rate"]);
    assert!(rates.contains("     CPS    InPPS   OutPPS    InBPS   OutBPS"), "{rates}");
}

#[test]
fn connections_are_shown_where_they_are_counted_and_nowhere_else() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let counting =
        yaml("").replace("forward: nat\n", "forward: nat\n    count_connections: true\n");
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &counting).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let held = Held::open(&lab.client, SocketAddr::new(VIP4, PORT), 12).unwrap();
    let line = || {
        let list = daemon.must(&["stats", "--ipvs"]);
        list.lines().find(|line| line.contains("-> 10.77.0.11")).unwrap_or_default().to_owned()
    };
    let counted = |line: &String| line.split_whitespace().skip(4).eq(["12", "0"]);
    wait_for("twelve active connections", MINUTE, line, counted);
    daemon.write(&yaml("")).unwrap();
    daemon.must(&["reload"]);
    let unknown = |line: &String| line.split_whitespace().skip(4).eq(["-", "-"]);
    wait_for("nobody counts", MINUTE, line, unknown);
    assert!(held.broken().is_empty(), "{:?}", held.broken());
}
