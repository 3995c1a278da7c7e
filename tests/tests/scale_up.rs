//! The scaled-up infrastructure: three tiers of real software behind a pair of lb nodes, through all failures of the
//! story, and with no more paths between the tiers than there have to be.

use std::collections::{BTreeMap, BTreeSet};

use lb_tests::scale_up::{
    ScaleUp, WEB,
    story::{SESSIONS, Story, VISITORS},
};

#[test]
fn every_failure_under_load() {
    let lab = ScaleUp::new().unwrap();
    let mut story = Story::begin(&lab).unwrap();
    story.tell().unwrap();
    // VIPs have moved, and nobody has taken that for a host with another's address (F53).
    for node in &story.nodes {
        let events = node.daemon.events();
        let conflicts: Vec<_> = events.iter().filter(|one| one.kind == "vip_conflict").collect();
        assert!(conflicts.is_empty(), "{conflicts:#?}");
    }
    let rows = story.finish();
    let row = |words: &str| {
        rows.iter()
            .find(|row| row.event.contains(words))
            .unwrap_or_else(|| panic!("{words}: {rows:#?}"))
    };
    for free in [
        "lb's daemon killed",
        "that node back",
        "the former primary back",
        "the database tier from 2 to 6",
        "the database tier from 6 to 2",
        "the application tier from 3 to 2",
        "the application tier from 2 to 6 to 2",
        "the application servers taken out",
        "the web tier from 3 to 2",
        "the web tier from 2 to 6 to 2",
    ] {
        assert_eq!((row(free).failed, row(free).broken), (0, 0), "{:#?}", row(free));
    }
    // Of six databases, one is written.
    for words in ["the database tier from 2 to 6", "the database tier from 6 to 2"] {
        assert_eq!(row(words).databases, BTreeSet::from(["db2".to_owned()]), "{:#?}", row(words));
    }
    // A session stays where it is, unless that is gone.
    for kept in [
        "lb's daemon killed",
        "lb node dead",
        "that node back",
        "that server back",
        "replica promoted",
        "the database tier from 2 to 6",
        "the database tier from 6 to 2",
        "the application tier from 2 to 6 to 2",
        "the application servers taken out",
        "the web tier from 2 to 6 to 2",
        "the web servers taken out",
    ] {
        for row in rows.iter().filter(|row| row.event.contains(kept)) {
            assert_eq!((row.moved_web, row.moved_app), (0, 0), "{row:#?}");
        }
    }
    // Who has to leave was where something is gone, and nobody else.
    for (event, server) in [
        ("a web server killed", "web1"),
        ("an application server killed", "app1"),
        ("the application tier from 3 to 2", "app3"),
        ("the web tier from 3 to 2", "web3"),
    ] {
        let row = row(event);
        assert_eq!(row.moved_from, BTreeSet::from([server.to_owned()]), "{row:#?}");
    }
    let lost = row("a web server killed").moved_web;
    assert!(lost > 0 && lost < SESSIONS, "only its own sessions: {lost}");
    let lost = row("an application server killed").moved_app;
    assert!(lost > 0 && lost < SESSIONS, "only its own sessions: {lost}");
    assert_eq!(row("lb node dead").broken, 0, "{:#?}", row("lb node dead"));
    let lost = row("a web server killed").broken;
    assert!(lost > 0 && lost < VISITORS, "only its own connections: {lost}");
    let back: Vec<_> = rows.iter().filter(|row| row.event == "that server back").collect();
    assert!(
        back.len() == 2 && back.iter().all(|row| row.failed + row.broken as u64 == 0),
        "{back:#?}"
    );
    // What costs requests is over by itself, or by the promotion.
    for dear in
        ["lb node dead", "a web server killed", "an application server killed", "replica promoted"]
    {
        assert!(row(dear).answered > 0, "{:#?}", row(dear));
    }
    assert_eq!(
        row("the web tier from 2 to 6 to 2").web_servers,
        WEB,
        "everybody gets a share: {rows:#?}"
    );
}

/// From, to, whether that is a path.
const PATHS: [(&str, &str, bool); 39] = [
    ("client", "10.80.0.10/443", true),
    ("client", "10.80.0.10/80", false),
    ("client", "10.80.1.100/8000", false),
    ("client", "10.80.2.100/3306", false),
    ("client", "10.80.1.11/443", false),
    ("client", "10.80.2.11/8000", false),
    ("client", "10.80.3.11/3306", false),
    ("client", "10.80.1.100/8001", false),
    ("client", "10.80.3.3/7946", false),
    ("client", "10.80.0.3/7946", false),
    ("client", "10.80.0.3/22", false),
    ("client", "10.80.9.31/3306", false),
    ("web1", "10.80.1.100/8000", true),
    ("web1", "10.80.1.100/8001", true),
    ("web1", "10.80.0.10/443", false),
    ("web1", "10.80.1.3/7946", false),
    ("web1", "10.80.9.31/3306", false),
    ("web1", "10.80.2.100/3306", false),
    ("web1", "10.80.2.11/8000", false),
    ("web1", "10.80.3.11/3306", false),
    ("web1", "10.80.1.12/80", false),
    ("app1", "10.80.2.100/3306", true),
    ("app1", "10.80.0.10/443", false),
    ("app1", "10.80.1.100/8000", false),
    ("app1", "10.80.1.11/443", false),
    ("app1", "10.80.9.31/3306", false),
    ("app1", "10.80.3.11/3306", false),
    ("app1", "10.80.3.12/3306", false),
    ("app1", "10.80.2.12/8000", false),
    ("db1", "10.80.3.12/3306", true),
    ("db1", "10.80.2.100/3306", false),
    ("db1", "10.80.3.3/7946", false),
    ("db1", "10.80.1.11/443", false),
    ("db1", "10.80.0.10/443", false),
    ("db1", "10.80.1.100/8000", false),
    ("db1", "10.80.2.11/8000", false),
    ("admin", "10.80.9.31/3306", true),
    ("admin", "10.80.9.21/8000", false),
    ("admin", "10.80.9.11/443", false),
];

#[test]
fn no_path_that_is_not_needed() {
    let lab = ScaleUp::new().unwrap();
    let _story = Story::begin(&lab).unwrap();
    // All at once for each machine: what is dropped takes its second.
    let sources: BTreeSet<&str> = PATHS.iter().map(|(from, _, _)| *from).collect();
    let mut seen = BTreeMap::new();
    for from in sources {
        let tries: String = PATHS
            .iter()
            .filter(|(source, _, _)| *source == from)
            .map(|(_, to, _)| {
                format!(
                    "(timeout 1 bash -c 'exec 3<>/dev/tcp/{to}' 2>/dev/null && echo {to} open) & "
                )
            })
            .collect();
        seen.insert(from, lab.machine(from).unwrap().sh(&format!("{tries} wait")).unwrap());
    }
    let wrong: Vec<_> = PATHS
        .iter()
        .filter(|(from, to, wanted)| seen[from].contains(&format!("{to} open")) != *wanted)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
