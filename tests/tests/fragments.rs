//! Datagrams that no link takes whole, through real stacks: answered in every mode, by answers in fragments.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use lb_tests::{
    daemon::{Daemon, lb_binary},
    lab::{Arms, Lab, Return, VIP4, VIP6, backend4, backend6},
};

/// Port of the servers, on backends and VIPs.
const PORT: u16 = 9000;
const LENGTH: usize = 4_000;
const DATAGRAMS: usize = 20;

/// Sends every datagram back, on an address of a backend.
fn echo(lab: &Lab, number: usize, address: IpAddr) {
    lab.backends[number - 1].run(move || {
        let socket = UdpSocket::bind((address, PORT)).unwrap();
        thread::spawn(move || {
            let mut datagram = vec![0; 65_536];
            while let Ok((length, from)) = socket.recv_from(&mut datagram) {
                // An answer that cannot be sent is the client's to miss.
                let _ = socket.send_to(&datagram[..length], from);
            }
        });
    });
}

/// Asks from as many ports; the number of right answers.
fn ask(lab: &Lab, vip: IpAddr) -> usize {
    lab.client.run(move || {
        let any: IpAddr =
            if vip.is_ipv4() { [0; 4].into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
        let answered = |number: usize| {
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            socket.connect((vip, PORT)).unwrap();
            let datagram: Vec<u8> = (0..LENGTH).map(|at| (at * 7 + number) as u8).collect();
            let mut answer = vec![0; 65_536];
            // Datagrams may be lost while neighbours are asked for.
            (0..3).any(|_| {
                let sent = socket.send(&datagram).is_ok();
                sent && socket.recv(&mut answer).is_ok_and(|length| answer[..length] == datagram)
            })
        };
        (0..DATAGRAMS).filter(|number| answered(*number)).count()
    })
}

fn all_answered(lab: &Lab, forward: &str, way: Return) {
    let mut yaml = "services:\n".to_owned();
    for (name, vip) in [("v4", VIP4), ("v6", VIP6)] {
        yaml += &format!(
            "  - name: {name}\n    listen: {{address: \"{vip}\", port: {PORT}, protocol: udp}}\n    {forward}\n    backends:\n"
        );
        for number in 1..=lab.backends.len() {
            let address = if vip.is_ipv4() { backend4(number) } else { backend6(number) };
            yaml += &format!(
                "      - {{name: web{number}, address: \"{}\"}}\n",
                SocketAddr::new(address, PORT)
            );
        }
    }
    // Answers in fragments that the client's link takes: those of the backends and of lb are wider, for tunnels.
    for backend in &lab.backends {
        let narrower = match way {
            Return::ThroughLb => {
                "ip route replace default via 10.77.0.1 mtu 1500; ip route replace default via fd77::1 mtu 1500"
            }
            Return::Direct => {
                "ip route replace 10.77.1.0/24 dev e0 mtu 1500; ip route replace fd77:1::/64 dev e0 mtu 1500"
            }
        };
        backend.sh(narrower).unwrap();
    }
    for number in 1..=lab.backends.len() {
        match way {
            Return::ThroughLb => {
                echo(lab, number, backend4(number));
                echo(lab, number, backend6(number));
            }
            Return::Direct => {
                echo(lab, number, VIP4);
                echo(lab, number, VIP6);
            }
        }
    }
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    for vip in [VIP4, VIP6] {
        let answered = ask(lab, vip);
        assert_eq!(answered, DATAGRAMS, "{forward} {vip}: {:#?}", daemon.stats());
    }
    for service in &daemon.stats().services {
        assert!(service.total.packets_in >= 3 * DATAGRAMS as u64, "{service:#?}");
    }
}

#[test]
fn nat() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    all_answered(&lab, "forward: nat", Return::ThroughLb);
}

#[test]
fn dsr() {
    let lab = Lab::new(Arms::One, Return::Direct, 2).unwrap();
    all_answered(&lab, "forward: dsr", Return::Direct);
}

#[test]
fn tunnel() {
    let lab = Lab::new(Arms::One, Return::Direct, 2).unwrap();
    for backend in &lab.backends {
        let mut command = std::process::Command::new(lb_binary());
        command.args(["decap", "--iface", "e0", "--from", "10.77.0.1/32", "--from", "fd77::1/128"]);
        let output = backend.output(command).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    all_answered(&lab, "forward: tunnel\n    encap: ipip", Return::Direct);
}
