//! `lb set`, `lb unset`, `lb save`: values beside the file, in force at once, and written into it when that is wanted.

use std::{fs, net::SocketAddr, time::Duration};

use lb_tests::{
    client::{Load, wait_for},
    daemon::{Daemon, backend},
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};
use lb_userspace::api::types::Setting;

const MINUTE: Duration = Duration::from_secs(60);

fn yaml() -> String {
    format!(
        "\
# The shop.
services:
  - name: web            # as in DNS
    listen: {{address: 10.77.0.80, port: {PORT}}}
    forward: nat
    window: 1s
    timeouts: {{tcp: 2s, tcpfin: 1s}}
    check: {{type: http, path: /healthz}}
    backend_defaults: {{inter: 300ms, fastinter: 100ms, downinter: 300ms, rise: 1, fall: 2}}
    backends:
      - {{name: web1, address: \"{}:{PORT}\"}}   # the old one
      # the new one
      - name: web2
        address: \"{}:{PORT}\"
",
        backend4(1),
        backend4(2)
    )
}

/// Lines of the file that are not there before, and those that are gone.
fn lines(before: &str, after: &str) -> (Vec<String>, Vec<String>) {
    let only = |one: &str, other: &str| {
        let there: Vec<&str> = other.lines().collect();
        one.lines().filter(|line| !there.contains(line)).map(str::to_owned).collect()
    };
    (only(after, before), only(before, after))
}

#[track_caller]
fn refused(daemon: &Daemon<'_>, arguments: &[&str], code: i32, words: &[&str]) {
    let (before, revision) = (daemon.status().settings, daemon.status().revision);
    let output = daemon.lb(arguments).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
    assert_eq!((before, revision), (daemon.status().settings, daemon.status().revision));
}

fn set(target: &str, key: &str, value: &str) -> Setting {
    Setting { target: target.into(), key: key.into(), value: value.into() }
}

#[test]
fn what_is_set_is_in_force_at_once_outlives_the_daemon_and_can_be_saved() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let target = SocketAddr::new(VIP4, PORT);
    let load = Load::start(&lab.client, &[target], 4, Duration::from_millis(3));
    let checks = |daemon: &Daemon<'_>, name: &str| {
        backend(&daemon.status(), "web", name).unwrap().checks.clone().unwrap()
    };

    // A backend's, by HAProxy's notation; a service's; the file's.
    daemon.must(&["set", "web/web1", "rise=4"]);
    assert_eq!((checks(&daemon, "web1").rise, checks(&daemon, "web2").rise), (4, 1));
    daemon.must(&["set", "web", "on-all-down=reject"]);
    daemon.must(&["set", "global", "metrics=127.0.0.1:9180"]);
    daemon.must(&["weight", "web/web2", "50"]);
    daemon.must(&["set", "web/web1", "weight=200"]);
    daemon.must(&["drain", "web/web2"]);
    daemon.must(&["ready", "web/web2"]);
    let status = daemon.status();
    let wanted = [
        set("web/web1", "rise", "4"),
        set("web", "on_all_down", "reject"),
        set("global", "metrics", "127.0.0.1:9180"),
    ];
    assert_eq!(status.settings, wanted);
    assert_eq!(backend(&status, "web", "web1").map(|web1| web1.weight), Some(200));
    assert!(daemon.must(&["status"]).contains("Set beside the file"));
    assert!(daemon.must(&["diff"]).contains("  web/web1 rise=4\n"));
    assert_eq!(fs::read_to_string(&daemon.config).unwrap(), yaml(), "the file is not touched");

    // What cannot be is refused as in a file.
    refused(
        &daemon,
        &["set", "web/web1", "rise=0"],
        3,
        &["services[0].backends[0].rise", "1 to 1000"],
    );
    refused(&daemon, &["set", "web/web1", "raise=3"], 3, &["did you mean `rise`?"]);
    refused(&daemon, &["set", "web/web9", "rise=3"], 6, &["no backend `web9`"]);
    refused(&daemon, &["set", "wbe", "window=3s"], 6, &["did you mean `web`?"]);
    refused(&daemon, &["set", "web", "name=x"], 1, &["lb apply"]);
    refused(&daemon, &["set", "web/web1", "weight=999"], 1, &["0..256"]);
    refused(&daemon, &["set", "global", "limits.pins=5000"], 1, &["fixed"]);
    refused(&daemon, &["unset", "web/web1", "fall"], 6, &["no setting"]);
    refused(
        &daemon,
        &["set", "web/web2", &format!("addr={}:{PORT}", backend4(1))],
        3,
        &["is a backend already"],
    );

    // Reloads and restarts change nothing about it; a file that goes without the backend lets it wait.
    daemon.must(&["reload"]);
    daemon.kill().unwrap();
    daemon.start().unwrap();
    assert_eq!(daemon.status().settings, wanted);
    assert_eq!(checks(&daemon, "web1").rise, 4);
    assert_eq!(backend(&daemon.status(), "web", "web1").map(|web1| web1.weight), Some(200));

    // One that is no more.
    daemon.must(&["unset", "web", "on_all_down"]);
    daemon.must(&["unset", "web/web2"]);
    assert_eq!(backend(&daemon.status(), "web", "web2").map(|web2| web2.weight), Some(100));

    // Another address is another backend; the first one drains.
    daemon.must(&["set", "web/web2", &format!("addr={}:{PORT}", backend4(3))]);
    daemon.wait("web3's server is web2", MINUTE, |status| {
        let found =
            status.services[0].backends.iter().find(|b| b.admin == "ready" && b.name == "web2");
        found.is_some_and(|web2| web2.state == "UP" && web2.address.contains("10.77.0.13"))
    });

    // Saved: those lines, and no others.
    daemon.must(&["set", "web", "check.path=/healthz?full"]);
    // In maintenance its flows would move, and the load must lose none: they end first.
    daemon.must(&["drain", "web/web2", "--wait"]);
    daemon.must(&["maint", "web/web2"]);
    let dry = daemon.must(&["save", "--dry-run"]);
    assert!(
        dry.contains("+metrics: 127.0.0.1:9180") && dry.contains("web/web2 is in maint"),
        "{dry}"
    );
    assert_eq!(fs::read_to_string(&daemon.config).unwrap(), yaml());
    daemon.must(&["save"]);
    let saved = fs::read_to_string(&daemon.config).unwrap();
    let (new, gone) = lines(&yaml(), &saved);
    let web = |number| backend4(number);
    assert_eq!(
        new,
        [
            "metrics: 127.0.0.1:9180".to_owned(),
            "    check: {type: http, path: /healthz?full}".to_owned(),
            format!(
                "      - {{name: web1, address: \"{}:{PORT}\", rise: 4, weight: 200}}   # the old one",
                web(1)
            ),
            format!("        address: {}:{PORT}", web(3)),
        ],
        "{saved}"
    );
    assert_eq!(gone.len(), 3, "{gone:?}");
    let status = daemon.status();
    assert_eq!((status.settings.as_slice(), status.config_error.as_ref()), ([].as_slice(), None));
    assert!(daemon.must(&["diff"]).starts_with("the texts are the same\n\nnothing would change"));
    let web1 = backend(&status, "web", "web1").unwrap();
    assert_eq!((web1.weight, web1.configured_weight), (200, 200));
    let maint =
        status.services[0].backends.iter().find(|b| b.name == "web2" && b.admin != "removed");
    assert_eq!(maint.map(|web2| web2.admin.as_str()), Some("maint"), "stays beside the file");
    assert!(daemon.must(&["save"]).contains("nothing to write"));
    daemon.must(&["rollback"]);
    assert_eq!(fs::read_to_string(&daemon.config).unwrap(), yaml());
    daemon.must(&["ready", "web/web2"]);
    daemon.wait_ready(&["UP"]);
    let tally = load.finish();
    assert_eq!(tally.failures(), 0, "{tally:?}\n{}", daemon.log_tail());
}

#[test]
fn what_is_set_waits_for_its_backend_and_a_file_that_contradicts_is_refused() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    daemon.must(&["set", "web/web2", "fall=9"]);
    let file = yaml();
    let without = file.lines().take_while(|line| !line.contains("the new one"));
    let without = without.collect::<Vec<_>>().join("\n") + "\n";
    daemon.write(&without).unwrap();
    daemon.must(&["reload"]);
    assert_eq!(daemon.status().settings.len(), 1, "it waits");
    assert!(daemon.must(&["save"]).contains("the file has no such thing"));
    daemon.write(&yaml()).unwrap();
    daemon.must(&["reload"]);
    let web2 = || backend(&daemon.status(), "web", "web2").unwrap().checks.clone().unwrap();
    assert_eq!(web2().fall, 9, "and is there again");
    // With what is set, this file would have two backends of one address.
    daemon.must(&["set", "web/web2", &format!("address={}:9", backend4(2))]);
    let other = yaml()
        .replace("# the new one", &format!("- {{name: web3, address: \"{}:9\"}}", backend4(2)));
    daemon.write(&other).unwrap();
    let output = daemon.lb(&["reload"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("with what `lb set` has set") && said.contains("is a backend already"),
        "{said}"
    );
    assert!(backend(&daemon.status(), "web", "web3").is_none());
    daemon.must(&["unset", "web/web2", "addr"]);
    wait_for(
        "the file is in force without it",
        MINUTE,
        || {
            let output = daemon.lb(&["reload"]).unwrap();
            (output.status.success(), backend(&daemon.status(), "web", "web3").is_some())
        },
        |seen| *seen == (true, true),
    );
}
