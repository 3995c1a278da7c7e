//! `via: vip`: the probe takes clients' way, and notices what a probe of the backend's own address cannot: a VIP or a tunnel device
//! that is missing.

use std::process::Command;

use lb_tests::{
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, VIP6, backend4, backend6},
    stand::sees,
};

fn yaml(vip: std::net::IpAddr, backend: std::net::IpAddr, forward: &str, check: &str) -> String {
    format!(
        "backend_defaults: {{inter: 200ms, fastinter: 100ms, downinter: 200ms, timeout: 2s, rise: 1, fall: 1}}\n\
         services:\n  - name: web\n    listen: {{address: '{vip}', port: {PORT}}}\n    forward: {forward}\n    \
         check: {{{check}}}\n    backends:\n      - {{name: web1, address: '{backend}'}}\n"
    )
}

/// Gives the service another check, and waits for what it finds.
#[track_caller]
fn finds(daemon: &Daemon<'_>, yaml: &str, code: &str, words: &str) -> String {
    daemon.write(yaml).unwrap();
    daemon.must(&["reload"]);
    sees(daemon, code, words).state
}

/// What of the host a probe might change.
fn network(lab: &Lab) -> String {
    lab.lb.sh("ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; ip -br link | sort").unwrap()
}

#[test]
fn dsr_a_backend_without_the_vip_is_found() {
    let lab = Lab::new(Arms::One, Return::Direct, 1).unwrap();
    let before = network(&lab);
    let web1 = &lab.backends[0];
    let four = |check: &str| yaml(VIP4, backend4(1), "dsr", check);
    let mut daemon =
        Daemon::new(&lab.lb, &lab.nics, &four("type: http, path: /healthz, via: vip")).unwrap();
    daemon.start().unwrap();
    sees(&daemon, "L7OK", "200 OK");
    finds(&daemon, &four("type: tcp, via: vip"), "L4OK", "connected");
    // The VIP that this host has, too, as with keepalived.
    lab.lb.ip(&format!("addr add {VIP4}/32 dev lo")).unwrap();
    finds(&daemon, &four("type: http, path: /healthz, via: vip"), "L7OK", "200 OK");
    lab.lb.ip(&format!("addr del {VIP4}/32 dev lo")).unwrap();

    web1.ip(&format!("addr del {VIP4}/32 dev lo")).unwrap();
    let state = sees(&daemon, "L4TOUT", "no connection").state;
    assert_eq!(state, "DOWN");
    let state = finds(&daemon, &four("type: http, path: /healthz"), "L7OK", "200 OK");
    assert_eq!(state, "UP", "its own address answers");
    web1.ip(&format!("addr add {VIP4}/32 dev lo")).unwrap();
    // A port of the VIP that nobody has.
    let state = finds(&daemon, &four("type: tcp, port: 9, via: vip"), "L4CON", "refused");
    assert_eq!(state, "DOWN");
    finds(&daemon, &four("type: udp, via: vip, send: hello, expect: web1"), "L7OK", "web1");

    let six = |check: &str| yaml(VIP6, backend6(1), "dsr", check);
    finds(&daemon, &six("type: http, path: /healthz, via: vip"), "L7OK", "200 OK");
    finds(&daemon, &six("type: udp, via: vip, send: hello, expect: web1"), "L7OK", "web1");
    web1.ip(&format!("addr del {VIP6}/128 dev lo")).unwrap();
    assert_eq!(finds(&daemon, &six("type: tcp, via: vip"), "L4TOUT", "no connection"), "DOWN");
    assert_eq!(finds(&daemon, &six("type: tcp"), "L4OK", "connected"), "UP");

    // Nothing is left of it, however it ends.
    finds(&daemon, &four("type: http, path: /healthz, via: vip"), "L7OK", "200 OK");
    daemon.kill().unwrap();
    let strip = |text: String| text.replace("/xdp", "").replace("xdp", "");
    assert_eq!(strip(network(&lab)), strip(before));
    let listeners = lab.lb.sh("ss -Hltn; ss -Hlun; ss -H0; ss -Hw").unwrap();
    assert_eq!(listeners.trim(), "");
}

#[test]
fn tunnel_a_backend_without_its_device_is_found() {
    let lab = Lab::new(Arms::One, Return::Direct, 1).unwrap();
    let web1 = &lab.backends[0];
    let tunnel = "tunnel\n    encap: ipip";
    let asking = "type: http, path: /healthz, via: vip";
    let mut daemon =
        Daemon::new(&lab.lb, &lab.nics, &yaml(VIP4, backend4(1), tunnel, asking)).unwrap();
    daemon.start().unwrap();
    // Nobody there opens the packets: the backend's kernel says so.
    let state = sees(&daemon, "L4CON", "Protocol not available").state;
    assert_eq!(state, "DOWN");
    let direct = yaml(VIP4, backend4(1), tunnel, "type: http, path: /healthz");
    assert_eq!(finds(&daemon, &direct, "L7OK", "200 OK"), "UP", "its own address answers");

    web1.run(|| {
        let mut command = Command::new(lb_tests::daemon::lb_binary());
        command.args(["decap", "--iface", "e0", "--from", "10.77.0.1/32", "--from", "fd77::1/128"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    let vips = [VIP4, VIP6];
    let backends = [backend4(1), backend6(1)];
    for vip in vips {
        for backend in backends {
            let state = finds(&daemon, &yaml(vip, backend, tunnel, asking), "L7OK", "200 OK");
            assert_eq!(state, "UP", "{vip} in a tunnel to {backend}");
        }
    }
    web1.ip(&format!("addr del {VIP6}/128 dev lo")).unwrap();
    let six = yaml(VIP6, backend4(1), tunnel, asking);
    assert_eq!(finds(&daemon, &six, "L4TOUT", "no connection"), "DOWN");
}
