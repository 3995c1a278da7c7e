//! Filters that are right, wrong, and what they want.

use lb_common::abi::BackendId;

use super::*;
use crate::explain::frame::{Flow, Kind, frame};

fn names() -> Names {
    let mut names = Names::default();
    names.services.insert(3, "web".into());
    names.backends.insert(BackendId(7), ("web".into(), "web1".into()));
    names.interfaces.insert(2, "eth0".into());
    names
}

fn verdict(verdict: &str, reason: &str) -> PacketVerdict {
    PacketVerdict {
        verdict: verdict.into(),
        reason: reason.into(),
        service: Some("web".into()),
        backend: Some("web1".into()),
        ..PacketVerdict::default()
    }
}

/// A client's SYN to 192.0.2.10:443, sent on to 10.0.0.11:8443.
fn wants(filter: &str) -> bool {
    let flow = |to: &str| Flow {
        source: "198.51.100.7:4711".parse().unwrap(),
        destination: to.parse().unwrap(),
        segment: Kind::Syn,
    };
    let (before, after) = (frame(&flow("192.0.2.10:443")), frame(&flow("10.0.0.11:8443")));
    let facts = Facts {
        interface: "eth0",
        before: &before,
        after: &after,
        verdict: &verdict("forwarded", "transmitted"),
    };
    Filter::parse(filter).unwrap().wants(&facts)
}

#[test]
fn filters_want_what_they_say() {
    for yes in [
        "",
        "host 192.0.2.10",
        "host 10.0.0.11",
        "net 198.51.100.0/24 and port 443",
        "src net 198.51.100.0/24 and dst port 8443",
        "tcp port 443",
        "tcp and not udp",
        "ip and !ip6",
        "service web",
        "backend web/web1",
        "forwarded or dropped",
        "reason transmitted",
        "interface eth0",
        "not (udp or dropped) && (port 1 || port 443)",
        "udp and port 1 or tcp",
    ] {
        assert!(wants(yes), "{yes}");
    }
    for no in [
        "host 192.0.2.11",
        "dst host 198.51.100.7",
        "src port 443",
        "udp port 443",
        "ip6",
        "icmp",
        "service db",
        "backend web/web2",
        "dropped",
        "reason ttl",
        "interface eth1",
        "not tcp",
        "tcp and (port 1 or port 2)",
        "not tcp port 443",
    ] {
        assert!(!wants(no), "{no}");
    }
}

#[test]
fn frames_that_are_no_packets_fit_no_address() {
    let facts = Facts {
        interface: "eth0",
        before: &[0xff; 20],
        after: &[],
        verdict: &verdict("passed", "passed"),
    };
    assert!(!Filter::parse("host 192.0.2.7").unwrap().wants(&facts));
    assert!(Filter::parse("passed").unwrap().wants(&facts));
}

#[test]
fn the_kernel_gets_what_all_wanted_packets_have() {
    let rule = |text: &str| Filter::parse(text).unwrap().rule(&names()).unwrap();
    let both = rule("net 192.0.2.0/24 and tcp port 443 and service web and reason ttl and dropped");
    let flags = rule_flag::ADDRESS
        | rule_flag::PORT
        | rule_flag::PROTOCOL
        | rule_flag::SERVICE
        | rule_flag::REASON
        | rule_flag::DROPPED;
    assert_eq!(both.flags, flags);
    assert_eq!((both.port.to_host(), both.protocol, both.service, both.reason), (443, 6, 3, 6));
    let address = |words: [u32; 4]| Address { words: words.map(Be32::from_host) };
    assert_eq!(both.address, Address::from("192.0.2.0".parse::<IpAddr>().unwrap()));
    assert_eq!(both.mask, address([u32::MAX, u32::MAX, u32::MAX, 0xffff_ff00]));
    assert_eq!(rule("net ::/0").mask, address([0; 4]));
    assert_eq!(rule("host 2001:db8::1").mask, address([u32::MAX; 4]));
    assert_eq!(rule("backend web/web1").backend, BackendId(7));
    // What only some wanted packets have does not narrow it.
    for all in ["", "tcp or udp", "not tcp", "not (tcp and port 1)", "forwarded", "ip6"] {
        assert_eq!(rule(all).flags, 0, "{all}");
    }
    assert_eq!(rule("(tcp or udp) and port 53").flags, rule_flag::PORT);
    assert_eq!(rule("host 192.0.2.1 and host 192.0.2.2").flags, rule_flag::ADDRESS);
}

#[test]
fn names_that_are_not_there_are_refused() {
    for (text, error) in [
        ("service wbe", "there is no service `wbe`; did you mean `web`?"),
        (
            "not (tcp or backend web/web2)",
            "there is no backend `web/web2`; did you mean `web/web1`?",
        ),
        ("interface eth1", "there is no NIC `eth1` (interface)"),
    ] {
        let failure = Filter::parse(text).unwrap().rule(&names()).unwrap_err();
        assert_eq!((failure.kind, failure.error.as_str()), (FailureKind::NotFound, error));
    }
}

#[test]
fn errors_name_the_place_and_the_remedy() {
    for (text, error) in [
        ("host", "after `host`: an address is missing"),
        ("host nobody", "at `nobody`, after `host`: this is no address"),
        ("tcp port 66000", "at `66000`, after `tcp port`: this is no port"),
        ("net 192.0.2.0", "this is no prefix"),
        ("tcp host 192.0.2.7", "at `host`, after `tcp`: `and` or `or` is missing"),
        ("tcp and", "after `tcp and`: something to compare is missing"),
        ("(tcp", "after `( tcp`: a `)` is missing"),
        ("tcp)", "at `)`, after `tcp`: a `)` without its `(`"),
        ("src tcp", "`host`, `net` or `port` is missing"),
        ("backend web1", "a backend is named SERVICE/BACKEND"),
        ("reason tll", "did you mean `ttl`?"),
        ("hots 192.0.2.7", "did you mean `host`?"),
    ] {
        let found = Filter::parse(text).unwrap_err();
        assert!(found.starts_with("filter: ") && found.contains(error), "{text}: {found}");
    }
    let deep = "(".repeat(10_000);
    assert!(Filter::parse(&deep).unwrap_err().contains("more than 50"));
    assert!(Filter::parse(&"not ".repeat(10_000)).unwrap_err().contains("more than 50"));
}
