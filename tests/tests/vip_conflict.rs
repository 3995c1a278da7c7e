//! Another host with a VIP of this one (F53): said while it is so, and of nobody who may have it.

use std::{net::IpAddr, time::Duration};

use lb_tests::{
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, VIP6, backend4, backend6},
};
use lb_userspace::api::types::Status;

const MINUTE: Duration = Duration::from_secs(60);

fn yaml() -> String {
    let service = |name: &str, vip: IpAddr, backend: IpAddr| {
        let at = std::net::SocketAddr::new(backend, PORT);
        format!(
            "  - name: {name}\n    listen: {{address: \"{vip}\", port: 80, add_address_to: lb0}}\n    forward: nat\n    \
             backends: [{{name: web1, address: \"{at}\"}}]\n"
        )
    };
    let services = [service("v4", VIP4, backend4(1)), service("v6", VIP6, backend6(1))];
    format!("metrics: 127.0.0.1:9180\nservices:\n{}", services.concat())
}

fn conflicts(status: &Status) -> Vec<String> {
    status.vip_conflicts.iter().map(|one| format!("{} {}", one.address, one.mac)).collect()
}

#[test]
fn two_hosts_with_one_address() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    let rival = &lab.backends[1];
    let nic = rival
        .sh("ip -o link show type veth | sed 's/^[0-9]*: \\([^@:]*\\).*/\\1/' | head -1")
        .unwrap();
    let nic = nic.trim();
    let mac = rival
        .sh(&format!("ip -o link show dev {nic} | sed 's/.*ether \\([^ ]*\\).*/\\1/'"))
        .unwrap();
    let vips = [format!("{VIP4}/32"), format!("{VIP6}/128")];
    assert_eq!(conflicts(&daemon.status()), [""; 0]);

    // It need say nothing by itself: it is asked.
    for vip in &vips {
        let nodad = if vip.contains(':') { " nodad" } else { "" };
        rival.ip(&format!("addr add {vip} dev {nic}{nodad}")).unwrap();
    }
    let expected: Vec<String> =
        [VIP4, VIP6].iter().map(|vip| format!("{vip} {}", mac.trim())).collect();
    let status = daemon.wait("both are noticed", MINUTE, |status| conflicts(status).len() == 2);
    assert_eq!(conflicts(&status), expected);
    let warned = |word: &str| status.warnings.iter().any(|warning| warning.contains(word));
    assert!(warned(&VIP4.to_string()) && warned(&VIP6.to_string()), "{:?}", status.warnings);
    let told = |daemon: &Daemon<'_>| {
        daemon.events().iter().filter(|event| event.kind == "vip_conflict").count()
    };
    assert_eq!(told(&daemon), 2);
    let metrics = lab
        .lb
        .sh("bash -c 'exec 3<>/dev/tcp/127.0.0.1/9180; printf \"GET /metrics HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n\" >&3; cat <&3'")
        .unwrap();
    let line = format!("lb_vip_conflict{{address=\"{VIP4}\",mac=\"{}\"}} 1", mac.trim());
    assert!(metrics.contains(&line), "{metrics}");
    let doctor = daemon.lb(&["doctor"]).unwrap();
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains(&format!("VIP {VIP4} is its own")), "{doctor}");

    // A backend that is set up as dsr wants it has the address, and does not say so.
    rival.sh(&format!("ip addr del {} dev {nic}; ip addr add {} dev lo; echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore", vips[0], vips[0])).unwrap();
    rival.ip(&format!("addr del {} dev {nic}", vips[1])).unwrap();
    let status = daemon.wait("both are over", 2 * MINUTE, |status| conflicts(status).is_empty());
    assert!(!status.warnings.iter().any(|warning| warning.contains("is its own")));
    assert_eq!(told(&daemon), 4, "{:?}", daemon.events());
}
