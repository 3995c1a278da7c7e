//! A configuration that a fleet shares by a real etcd: every revision on all nodes as a whole, or on none, whatever becomes of etcd.

use std::{fs, time::Duration};

use lb_tests::{
    client::wait_for,
    daemon::Daemon,
    etcd::{NODES, Stage, yaml},
};
use lb_userspace::api::types::{FleetStatus, SharedStatus, Status};

const MINUTE: Duration = Duration::from_secs(60);
const URL: &str = "etcd://10.79.0.1:2379/lb/edge";
const KEY: &str = "lb/edge/config";

fn shared(status: &Status) -> SharedStatus {
    status.shared.clone().expect("the configuration is shared")
}

fn weight(status: &Status) -> u16 {
    status.services[0].backends[0].configured_weight
}

fn fleet(daemon: &Daemon<'_>) -> FleetStatus {
    let text = daemon.must(&["fleet", "status", "--json"]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Waits until every node has the backend with this weight, by the newest revision.
#[track_caller]
fn all_have(nodes: &[Daemon<'_>], wanted: u16) {
    for node in nodes {
        node.wait(&format!("the weight is {wanted}"), MINUTE, |status| {
            let shared = shared(status);
            weight(status) == wanted
                && shared.refused.is_none()
                && shared.revision == shared.newest_revision
        });
    }
}

#[track_caller]
fn wait_fleet(daemon: &Daemon<'_>, what: &str, good: impl Fn(&FleetStatus) -> bool) -> FleetStatus {
    wait_for(what, MINUTE, || fleet(daemon), good)
}

fn is_whole(fleet: &FleetStatus) -> bool {
    fleet.in_step && fleet.nodes.len() == NODES
}

#[test]
fn all_nodes_or_none_whatever_becomes_of_etcd() {
    let stage = Stage::new().unwrap();
    let etcd = stage.etcd("http", &[]).unwrap();
    let mut nodes: Vec<Daemon<'_>> =
        (1..=NODES).map(|number| stage.node(number, URL).unwrap()).collect();
    let first = stage.write("first.yaml", &yaml(1), 0o644).unwrap();
    let wrong = stage.write("wrong.yaml", "services: 3\n", 0o644).unwrap();
    let output = nodes[0].lb(&["fleet", "put", &wrong, "--config", URL]).unwrap();
    assert_eq!(output.status.code(), Some(3), "what is wrong is not even written: {output:?}");
    nodes[0].must(&["fleet", "put", &first, "--config", URL]);
    nodes.iter_mut().for_each(|node| node.start().unwrap());
    all_have(&nodes, 1);
    wait_fleet(&nodes[0], "all nodes are in step", is_whole);

    // Whoever writes the key: every node has it.
    stage.etcdctl(&["put", KEY, &yaml(2)]);
    all_have(&nodes, 2);

    // Nobody takes what is wrong, and everybody says so; also about what is wrong on a host alone.
    for (text, word) in [
        ("services:\n  - name: web\n    listne: 3\n".to_owned(), "unknown key `listne`"),
        (yaml(3) + "    allow_file: /nowhere/at/all\n", "/nowhere/at/all"),
    ] {
        stage.etcdctl(&["put", KEY, &text]);
        for node in &nodes {
            let status = node.wait("it is refused", MINUTE, |status| {
                shared(status).refused.is_some_and(|refused| refused.error.contains(word))
            });
            let refused = shared(&status).refused.unwrap();
            assert!(refused.error.contains(&format!("{KEY}@{}:", refused.revision)), "{refused:?}");
            assert_eq!(weight(&status), 2, "the last good one goes on");
            assert!(status.config_error.is_some_and(|error| error.contains(word)));
        }
        let fleet = wait_fleet(&nodes[0], "all nodes tell that they have refused it", |fleet| {
            fleet.nodes.iter().all(|node| {
                node.report.refused.as_ref().is_some_and(|one| one.error.contains(word))
            })
        });
        assert!(fleet.nodes.iter().all(|node| node.lag >= 1 && node.differs == ["revision"]));
    }
    let table = nodes[0].must(&["fleet", "status"]);
    assert!(table.contains("lb-2 has refused revision"), "{table}");
    stage.etcdctl(&["put", KEY, &yaml(4)]);
    all_have(&nodes, 4);
    assert!(nodes.iter().all(|node| node.status().config_error.is_none()));

    // A node can try one, but not change its own for good.
    let tried = stage.write("tried.yaml", &yaml(5), 0o644).unwrap();
    let output = nodes[1].lb(&["apply", &tried]).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("lb fleet put"), "{text}");
    nodes[1].must(&["apply", &tried, "--confirm", "10m"]);
    let output = nodes[1].lb(&["confirm"]).unwrap();
    assert!(!output.status.success(), "{output:?}");
    wait_fleet(&nodes[0], "the trial is told", |fleet| {
        fleet.nodes[1].report.trial && fleet.nodes[1].differs.contains(&"revision".to_owned())
    });
    nodes[1].must(&["rollback"]);
    wait_fleet(&nodes[0], "all nodes are in step", is_whole);

    // A node that sees a backend otherwise.
    let hide = "route add unreachable 10.79.0.1/32";
    stage.nodes[2].sh("nft 'add table t; add chain t c { type filter hook output priority 0; }; add rule t c tcp dport 8080 drop'").unwrap();
    wait_fleet(&nodes[0], "the third node's view is another", |fleet| {
        fleet.nodes[2].differs.contains(&"health".to_owned()) && fleet.nodes[2].report.up == 0
    });
    stage.nodes[2].sh("nft delete table t").unwrap();
    wait_fleet(&nodes[0], "all nodes are in step", is_whole);

    // etcd away: everything goes on, and starts.
    etcd.kill().unwrap();
    for node in &nodes {
        node.wait("it is said that etcd is away", MINUTE, |status| {
            shared(status).member.is_none()
                && status.warnings.iter().any(|warning| warning.contains("etcd does not answer"))
        });
    }
    nodes[1].stop().unwrap();
    nodes[1].must(&["detach"]);
    nodes[1].start().unwrap();
    let status = nodes[1].status();
    assert_eq!(weight(&status), 4, "the last good one");
    assert!(shared(&status).revision > 0, "{:?}", shared(&status));

    // Back, with revisions that were written and compacted away while the third node could not hear of them.
    stage.nodes[2].ip(hide).unwrap();
    let etcd = stage.etcd("http", &[]).unwrap();
    for weight in 5..10 {
        stage.etcdctl(&["put", KEY, &yaml(weight)]);
    }
    let text = stage.etcdctl(&["get", KEY, "--write-out=json"]);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    stage.etcdctl(&["compact", &answer["header"]["revision"].to_string()]);
    all_have(&nodes[..2], 9);
    assert_eq!(weight(&nodes[2].status()), 4);
    stage.nodes[2].ip("route del unreachable 10.79.0.1/32").unwrap();
    all_have(&nodes, 9);
    wait_fleet(&nodes[0], "all nodes are in step", is_whole);

    // No key is no configuration, and no reason to forget the one there was.
    stage.etcdctl(&["del", KEY]);
    let status = nodes[0].wait("it is missed", MINUTE, |status| {
        status.warnings.iter().any(|warning| warning.contains(&format!("no key {KEY}")))
    });
    assert_eq!(weight(&status), 9);
    // A start that meets an etcd with what is wrong begins with the last good one.
    stage.etcdctl(&["put", KEY, "services: 3\n"]);
    nodes[1].stop().unwrap();
    nodes[1].start().unwrap();
    let status = nodes[1]
        .wait("it is refused after the start", MINUTE, |status| shared(status).refused.is_some());
    assert_eq!(weight(&status), 9);

    // A node with another's name: both say so, until it has its own again.
    let own = std::mem::replace(&mut nodes[2].arguments, vec!["--node", "lb-1"]);
    nodes[2].stop().unwrap();
    nodes[2].start().unwrap();
    for node in [&nodes[0], &nodes[2]] {
        let status = node.wait("the name is taken", MINUTE, |s| s.name_conflict.is_some());
        let words = "another node reports to etcd as lb-1: on the host ";
        assert!(status.warnings.iter().any(|warning| warning.contains(words)), "{status:#?}");
        assert!(shared(&status).namesake.contains(words), "{status:#?}");
        // The event comes with the daemon's next look around.
        node.wait("the event is there", MINUTE, |_| {
            node.events().iter().any(|event| event.kind == "node_name")
        });
    }
    assert_eq!(nodes[1].status().name_conflict, None);
    nodes[2].stop().unwrap();
    nodes[2].arguments = own;
    nodes[2].start().unwrap();
    nodes[0].wait("the name is its own", MINUTE, |status| status.name_conflict.is_none());
    drop(etcd);
}

/// An authority, and certificates of etcd and of a node.
fn certificates(stage: &Stage) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 9";
    stage
        .store
        .sh(&format!(
            "cd '{}' && exec 2>openssl.log && umask 077 && \
             openssl req -x509 {key} -subj /CN=authority -keyout ca.key -out ca.pem && \
             for name in etcd node; do \
               openssl req {key} -subj /O=$name -keyout $name.key -out $name.csr && \
               echo subjectAltName=IP:10.79.0.1 > $name.ext && \
               openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 9 -extfile $name.ext -out $name.pem; \
             done",
            stage.directory.path().display()
        ))
        .unwrap();
}

#[test]
fn tls_certificates_and_a_user() {
    let stage = Stage::new().unwrap();
    certificates(&stage);
    let file = |name: &str| stage.file(name);
    let (ca, certificate, key) = (file("ca.pem"), file("etcd.pem"), file("etcd.key"));
    let tls = ["--cert-file", &certificate, "--key-file", &key];
    let clients = ["--trusted-ca-file", &ca, "--client-cert-auth"];
    let _etcd = stage.etcd("https", &[&tls[..], &clients[..]].concat()).unwrap();
    let (cacert, cert, key) = (
        format!("--cacert={ca}"),
        format!("--cert={}", file("node.pem")),
        format!("--key={}", file("node.key")),
    );
    let with = ["--endpoints=https://10.79.0.1:2379", &cacert, &cert, &key];
    let ctl = |words: &[&str]| stage.etcdctl(&[&with, words].concat());
    ctl(&["user", "add", "root:swordfish"]);
    for (role, permission) in [("nodes", "readwrite"), ("readers", "read")] {
        ctl(&["role", "add", role]);
        ctl(&["role", "grant-permission", role, "--prefix=true", permission, "lb/"]);
        ctl(&["user", "add", &format!("{role}:of-{role}")]);
        ctl(&["user", "grant-role", role, role]);
    }
    ctl(&["user", "grant-role", "root", "root"]);
    ctl(&["auth", "enable"]);
    ctl(&["--user=root:swordfish", "put", "lb/config", &yaml(1)]);

    let mode = |name: &str, text: &str, mode| stage.write(name, text, mode).unwrap();
    let (right, wrong) = (mode("right", "of-nodes\n", 0o600), mode("wrong", "guessed\n", 0o600));
    let (open, reader) = (mode("open", "of-nodes\n", 0o644), mode("reader", "of-readers\n", 0o600));
    let identity = format!("&cert_file={}&key_file={}", file("node.pem"), file("node.key"));
    let url = |options: &str| format!("etcd://10.79.0.1/lb?{options}");
    let user = |name: &str, password: &str| {
        url(&format!("ca_file={ca}{identity}&user={name}&password_file={password}"))
    };
    let mut node = stage.node(1, &user("nodes", &right)).unwrap();
    node.start().unwrap();
    let status = node.wait("it has heard of it", MINUTE, |status| {
        shared(status).revision > 0 && shared(status).member.is_some()
    });
    assert_eq!(weight(&status), 1);
    ctl(&["--user=root:swordfish", "put", "lb/config", &yaml(2)]);
    node.wait("it hears of changes", MINUTE, |status| weight(status) == 2);
    wait_for(
        "it reports",
        MINUTE,
        || fleet(&node),
        |fleet| fleet.in_step && fleet.nodes.len() == 1,
    );
    // Secrets are not told.
    let text = fs::read_to_string(node.directory.join("lb.log")).unwrap();
    assert!(!text.contains("of-nodes"), "{text}");

    // One that may only read follows, and says that it cannot report.
    let mut second = stage.node(2, &user("readers", &reader)).unwrap();
    second.start().unwrap();
    second.wait("it says that it cannot report", MINUTE, |status| {
        weight(status) == 2
            && shared(status).member.is_some()
            && shared(status).problem.contains("permission denied")
    });

    // Who has no certificate is cut off after the handshake (TLS 1.3): the words depend on who is faster.
    for (url, word) in [
        (user("nodes", &wrong), "invalid user ID or password"),
        (user("nodes", &open), "chmod 600"),
        (url(&format!("ca_file={ca}{identity}")), "permission denied"),
        (url(&format!("ca_file={ca}&user=nodes&password_file={right}")), "10.79.0.1:2379: "),
        (url(&format!("tls=true&user=nodes&password_file={right}")), "TLS"),
        ("etcd://10.79.0.1/lb".to_owned(), "connection"),
    ] {
        let output = node.lb(&["fleet", "status", "--config", &url]).unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(word), "{url}: {text}");
    }
}
