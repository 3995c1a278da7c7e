//! What becomes of a file.

use super::*;
use crate::config::{Source, model, parse};
use crate::import::Forward;

const FILE: &str = "\
global
    maxconn 20000
defaults
    mode tcp
    timeout connect 5s
    timeout check 800
    default-server inter 1s fall 2
frontend www
    bind 192.0.2.10:80
    acl is_api path_beg /api
    acl bad src 198.51.100.0/24 2001:db8::/32
    tcp-request connection reject if bad
    use_backend api if is_api
    default_backend servers
backend servers
    balance leastconn
    option httpchk GET /healthz
    http-check expect status 200-299
    stick-table type ip size 1m expire 30m
    stick on src
    server web1 10.0.0.11:8080 check weight 3 observe layer4 error-limit 2 on-error sudden-death
    server web2 10.0.0.12:8080 check fastinter 250ms
    server old 10.0.0.13:8080 check backup slowstart 30s
    server named app.example:8080 check
listen tls
    bind :443 ssl crt /etc/x.pem
    server web1 10.0.0.11:8443 track servers/web1
    server web2 10.0.0.12:8443 track gone/web9
listen postgres
    bind 192.0.2.20:5432
    option pgsql-check user lb
    server db1 10.0.1.11 check port 5433
";

fn model(imported: &Imported) -> crate::config::Config {
    let source = Source { path: "lb.yaml".into(), text: imported.yaml.clone() };
    parse(&source).unwrap_or_else(|errors| panic!("{errors}\n{}", imported.yaml)).config
}

#[test]
fn a_tcp_proxy_becomes_services() {
    let choices = Choices { vip: Some("192.0.2.12".parse().unwrap()), ..Choices::default() };
    let imported = import(FILE, &choices);
    let config = model(&imported);
    let listens: Vec<String> = (config.services.iter())
        .map(|s| format!("{} {}:{}", s.name, s.listen.address, s.listen.port))
        .collect();
    assert_eq!(listens, ["www 192.0.2.10:80", "tls 192.0.2.12:443", "postgres 192.0.2.20:5432"]);
    let web = &config.services[0];
    let backends: Vec<String> = (web.backends.iter())
        .map(|b| {
            format!(
                "{} {}:{} {} {:?} {:?} {}",
                b.name,
                b.address,
                b.port,
                b.weight,
                b.timing.inter,
                b.timing.fastinter,
                b.timing.fall
            )
        })
        .collect();
    assert_eq!(
        backends,
        [
            "web1 10.0.0.11:8080 3 1s 500ms 2",
            "web2 10.0.0.12:8080 1 1s 250ms 2",
            "old 10.0.0.13:8080 1 1s 500ms 2",
            "named 0.0.0.0:8080 1 1s 500ms 2"
        ]
    );
    let name = crate::config::model::Origin::Name("app.example".into());
    assert_eq!(web.backends[3].origin, name);
    assert_eq!((web.backends[2].tier, web.backends[2].slowstart.as_secs()), (1, 30));
    let tracked = |index: usize| config.services[1].backends[index].track.clone();
    assert_eq!(tracked(0).map(|tracked| tracked.name), Some("www/web1".to_owned()));
    assert_eq!(tracked(1), None);
    assert_eq!(web.backends[0].timing.timeout.as_millis(), 800);
    assert_eq!(web.balance, crate::config::model::Balance::Wlc);
    let persistence = web.persistence.expect("stick on src");
    assert_eq!(persistence.timeout, Some(std::time::Duration::from_secs(1_800)));
    assert_eq!(web.deny, ["198.51.100.0/24".parse().unwrap()], "of the VIP's family");
    let observe = web.observe.unwrap();
    assert_eq!((observe.error_limit, observe.min_sources), (2, 2));
    assert_eq!(observe.on_error, crate::config::model::OnError::SuddenDeath);
    assert_eq!(config.services[1].observe, None);
    let check = format!("{:?}", web.check);
    assert!(check.contains("/healthz") && check.contains("GET"), "{check}");
    assert_eq!(config.services[2].backends[0].port, 5432, "the bind's port");
    for (line, word) in
        [(10, "acl"), (13, "use_backend"), (24, "app.example"), (26, "TLS"), (31, "pgsql-check")]
    {
        let expected = format!("line {line}: ");
        let found =
            imported.notes.iter().any(|note| note.starts_with(&expected) && note.contains(word));
        assert!(found, "no note about `{word}`: {:#?}", imported.notes);
    }
}

#[test]
fn algorithms_have_equivalents() {
    for (words, expected) in [
        ("balance roundrobin", "Wrr None"),
        ("balance static-rr", "Wrr None"),
        ("balance leastconn", "Wlc None"),
        ("balance random(2)", "Random2 None"),
        ("balance source", "Source None"),
        ("balance source\n hash-balance-factor 150", "Source Some(150)"),
        ("balance leastconn\n hash-balance-factor 150", "Wlc None"),
        ("balance hdr(host)", "Maglev None"),
    ] {
        let file = format!("listen web\n bind 192.0.2.10:80\n {words}\n server a 10.0.0.11:80\n");
        let config = model(&import(&file, &Choices::default()));
        let service = &config.services[0];
        let found = format!("{:?} {:?}", service.balance, service.hash_balance_factor);
        assert_eq!(found, expected, "{words}");
    }
}

#[test]
fn an_address_that_is_not_named_is_asked_for() {
    let imported = import(FILE, &Choices::default());
    assert!(imported.yaml.contains("THE-VIP"), "{}", imported.yaml);
    assert!(imported.notes.iter().any(|note| note.contains("--vip")), "{:#?}", imported.notes);
}

#[test]
fn ranges_of_ports_and_segment_sizes_are_translated() {
    let text =
        "listen a\n bind 192.0.2.1:8000-8999 mss 1360\n server s 10.0.0.1\n server t 10.0.0.2:80\n";
    let imported = import(text, &Choices::default());
    let config = model(&imported);
    let service = &config.services[0];
    assert!(!service.listen.has_one_port(), "{}", imported.yaml);
    assert_eq!((service.listen.port, service.mss_clamp), (8_000, Some(1_360)));
    assert_eq!(service.backends.len(), 1);
    assert!(imported.notes[0].contains("port of its own"), "{:?}", imported.notes);
    let checked = "listen a\n bind 192.0.2.1:8000-8999\n server s 10.0.0.1 check\n";
    assert!(import(checked, &Choices::default()).notes[0].contains("which of the ports"));
}

#[test]
fn a_server_of_two_services_is_named() {
    let text = "listen a\n bind 192.0.2.1:80,192.0.2.2:81\n server s 10.0.0.1:8080\n";
    let imported = import(text, &Choices::default());
    assert_eq!(imported.services, 2);
    assert!(imported.yaml.contains("- name: a\n") && imported.yaml.contains("- name: a-81\n"));
    assert_eq!(
        imported.notes,
        [
            "10.0.0.1:8080 serves a, a-81: with nat, let it listen on a port or address of its own for each"
        ]
    );
}

#[test]
fn the_way_to_the_backends_can_be_chosen() {
    let text = "listen a\n bind 192.0.2.1:80\n server s 10.0.0.1:80\n";
    let imported = import(text, &Choices { vip: None, forward: Forward::Tunnel });
    let config = model(&imported);
    assert_eq!(config.services[0].check, None);
    assert!(imported.notes.is_empty(), "{:?}", imported.notes);
}

#[test]
fn nothing_makes_it_fall_over() {
    for text in [
        "",
        "bind",
        "listen",
        "listen x\nserver",
        "frontend f\nbind\nbind :\nbind :x",
        "\"",
        "listen a\n bind :1\n server x y",
    ] {
        import(text, &Choices::default());
    }
    let choices = Choices { vip: Some("192.0.2.12".parse().unwrap()), ..Choices::default() };
    for end in 0..FILE.len() {
        import(&FILE[..end], &choices);
    }
}

/// The one service of a backend with these lines.
fn service_of(lines: &str) -> (model::Service, Vec<String>) {
    let file =
        format!("listen db\n  bind 192.0.2.10:3306\n{lines}\n  server a 10.0.0.11:3306 check\n");
    let imported = import(&file, &Choices::default());
    let source = Source { path: "lb.yaml".into(), text: imported.yaml.clone() };
    let config =
        parse(&source).unwrap_or_else(|errors| panic!("{errors}\n{}", imported.yaml)).config;
    (config.services.into_iter().next().unwrap(), imported.notes)
}

#[test]
fn checks_of_other_protocols_are_translated() {
    let kind = |lines: &str| format!("{:?}", service_of(lines).0.check.unwrap());
    for (lines, words) in [
        ("option mysql-check user lb", vec!["Mysql", "\"lb\""]),
        ("option pgsql-check user lb", vec!["Postgres", "\"lb\""]),
        ("option redis-check", vec!["Redis"]),
        ("option ssl-hello-chk", vec!["Tls("]),
        ("option smtpchk", vec!["Tcp", "220"]),
        (
            "option external-check\n external-check command /usr/bin/true",
            vec!["Exec", "/usr/bin/true"],
        ),
        (
            "option tcp-check\n tcp-check send PING\\\\r\\\\n\n tcp-check expect string +PONG",
            vec!["Text(\"+PONG\")"],
        ),
        (
            "option httpchk GET /\n http-check send hdr X-A b\n http-check expect rstring ^ok$",
            vec!["X-A", "Regex(\"^ok$\")"],
        ),
        ("source 10.0.0.5\n option tcp-check", vec!["10.0.0.5:0"]),
    ] {
        let kind = kind(lines);
        assert!(words.iter().all(|word| kind.contains(word)), "{lines}: {kind}");
    }
    let (_, notes) = service_of("source 0.0.0.0 usesrc client");
    assert!(notes.iter().any(|note| note.contains("0.0.0.0")), "{notes:?}");
}

#[test]
fn names_and_templates_are_translated() {
    let (service, notes) = service_of(
        "server-template app 5 app.internal:3307 check resolvers r weight 7\n server-template s 3 _db._tcp.app.internal check",
    );
    let origins: Vec<_> =
        service.backends.iter().map(|b| (&*b.name, &b.origin, b.weight)).collect();
    use crate::config::model::Origin;
    assert_eq!(
        origins,
        [
            ("app", &Origin::Name("app.internal".into()), 7),
            ("s", &Origin::Srv("_db._tcp.app.internal".into()), 1),
            ("a", &Origin::Written, 1)
        ]
    );
    assert_eq!(service.backends[0].port, 3_307);
    assert!(notes.iter().any(|note| note.contains("server-template app 5")), "{notes:?}");
}

#[test]
fn agents_are_translated() {
    let agents = "server b 10.0.0.12:3306 check agent-check agent-port 8888 agent-inter 5s agent-send b\\\\n agent-addr 10.0.0.9";
    let (service, _) = service_of(agents);
    let agent = service.agent_check.unwrap();
    assert_eq!((agent.port, agent.inter.as_secs()), (8888, 5));
    assert_eq!(agent.address, Some("10.0.0.9".parse().unwrap()));
    assert_eq!(agent.send.as_deref(), Some("b\n"));
}
