//! Every dropped packet is explained: `lb why`, against packets that were really dropped.

use std::{net::UdpSocket, time::Duration};

use lb_tests::{
    client::wait_for,
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, backend4},
};
use lb_userspace::api::types::{Why, WhyReason};

const MINUTE: Duration = Duration::from_secs(60);

fn why(daemon: &Daemon<'_>, arguments: &[&str]) -> Why {
    let answer = daemon.must(&[&["why", "--json"], arguments].concat());
    serde_json::from_str(&answer).unwrap()
}

fn find<'a>(reasons: &'a [WhyReason], name: &str) -> Option<&'a WhyReason> {
    reasons.iter().find(|reason| reason.name == name)
}

#[test]
fn drops_are_explained_with_the_packets_that_were_dropped() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let yaml = format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    allow: [192.0.2.0/24]\n    \
         backends:\n      - {{name: web1, address: \"{}:{PORT}\"}}\n",
        backend4(1)
    );
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    assert_eq!(why(&daemon, &[]).services[0].reasons.len(), 0, "nothing has come yet");

    // A client who may not get in, and a port that no service has.
    let try_all = || {
        lab.client.run(|| {
            let socket = UdpSocket::bind("10.77.1.2:4711").unwrap();
            // Whether it is sent does not matter: the next one will be.
            let _ = socket.send_to(b"anybody there?", "10.77.0.80:53");
            std::net::TcpStream::connect_timeout(
                &"10.77.0.80:8080".parse().unwrap(),
                Duration::from_millis(100),
            )
            .unwrap_err();
        });
        why(&daemon, &["web"])
    };
    let seen = wait_for("both are explained", MINUTE, try_all, |why| {
        let explained = |reason: Option<&WhyReason>| reason.is_some_and(|r| !r.samples.is_empty());
        explained(find(&why.services[0].reasons, "not_allowed"))
            && explained(find(&why.node, "no_service"))
    });
    let refused = find(&seen.services[0].reasons, "not_allowed").unwrap();
    assert!(refused.drop && refused.count > 0 && refused.remedy.contains("allow"), "{refused:#?}");
    let sample = &refused.samples[0];
    assert_eq!(sample.interface, "lb0");
    assert!(
        sample.packet.starts_with("10.77.1.2:")
            && sample.packet.ends_with(" > 10.77.0.80:8080 TCP SYN, ttl 64"),
        "{sample:?}"
    );
    let stray = &find(&seen.node, "no_service").unwrap().samples[0];
    assert_eq!(stray.packet, "10.77.1.2:4711 > 10.77.0.80:53 UDP length 22, ttl 64");

    // By the VIP, too, and for people.
    let text = daemon.must(&["why", "10.77.0.80:8080"]);
    assert!(text.contains("not_allowed, dropped") && text.contains("TCP SYN"), "{text}");
    assert_eq!(daemon.lb(&["why", "wbe"]).unwrap().status.code(), Some(6));
}
