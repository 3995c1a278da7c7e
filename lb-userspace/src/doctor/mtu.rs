//! MTUs: what drivers take for native XDP, and room for the outer header of tunnels.

use super::{
    Finding, Severity, command,
    facts::{Facts, Nic},
};
use crate::config::model::XdpMode;

/// The MTU of the Internet's Ethernet.
const CLIENT: u32 = 1_500;

/// Judges one NIC's MTU.
pub(super) fn check(nic: &Nic, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![native(nic, facts)];
    findings.extend(tunnel(nic, facts));
    findings
}

/// The largest MTU with which a driver accepts a program for packets in one buffer, on a machine with pages of 4 KiB, from
/// how they are built: a page, less headroom, headers and the kernel's `skb_shared_info`. Measured for veth alone.
fn largest(driver: &str) -> Option<u32> {
    Some(match driver {
        // 4096 - 256 - 320 - 14; of the far end's MTU.
        "veth" => 3_506,
        "virtio_net" => 3_506,
        // 4096 - 256 - 320 - 18
        "bnxt_en" => 3_502,
        // 4096 - 256 - 320 - 22
        "mlx5_core" | "mlx4_en" | "ena" => 3_498,
        // 3072 - 26
        "ixgbe" | "i40e" | "ice" => 3_046,
        _ => return None,
    })
}

fn native(nic: &Nic, facts: &Facts) -> Finding {
    let driver = nic.driver.as_deref().unwrap_or("unknown");
    let wanted = facts.config().map(|config| config.xdp_mode).unwrap_or_default();
    let Some(largest) = largest(driver) else {
        let known = nic.mtu <= CLIENT || wanted == XdpMode::Generic;
        let found = format!("MTU {}; how much {driver} takes for native XDP is not known", nic.mtu);
        return match known {
            true => Finding::ok(&nic.name, "mtu", found),
            false => Finding::bad(
                Severity::Note,
                &nic.name,
                "mtu",
                found,
                "many drivers take what fits into one page, about 3,500",
                command(format!("ip link set dev {} mtu {CLIENT}", nic.word())),
            ),
        };
    };
    let attached =
        nic.program.as_ref().is_some_and(|program| program.ours && program.mode == "native");
    if nic.mtu <= largest || wanted == XdpMode::Generic || attached {
        let found = format!("MTU {} (native XDP with {driver}: up to {largest})", nic.mtu);
        return Finding::ok(&nic.name, "mtu", found);
    }
    let severity = if wanted == XdpMode::Auto { Severity::Warning } else { Severity::Error };
    Finding::bad(
        severity,
        &nic.name,
        "mtu",
        format!("MTU {} is more than the {largest} that {driver} takes for native XDP", nic.mtu),
        "the driver refuses lb's program, which wants each packet in one buffer",
        command(format!("ip link set dev {} mtu {largest}", nic.word())),
    )
}

fn tunnel(nic: &Nic, facts: &Facts) -> Option<Finding> {
    let config = facts.config()?;
    let header = config
        .services
        .iter()
        .filter(|service| service.forward.is_tunnel())
        .flat_map(|service| service.backends.iter().map(|backend| (service.forward, backend)))
        .map(|(forward, backend)| {
            let ip = if backend.address.is_ipv4() { 20 } else { 40 };
            if forward.is_gue() { ip + u32::from(lb_common::gue::OVERHEAD) } else { ip }
        })
        .max()?;
    // By which NIC packets leave is the kernel's routing: all of lb's have to have the room.
    let needed = CLIENT + header;
    if nic.mtu >= needed {
        let found = format!("MTU {} has room for the outer header ({header} bytes)", nic.mtu);
        return Some(Finding::ok(&nic.name, "tunnel_mtu", found));
    }
    Some(Finding::bad(
        Severity::Warning,
        &nic.name,
        "tunnel_mtu",
        format!(
            "MTU {} leaves clients {} bytes, as tunnels add {header}",
            nic.mtu,
            nic.mtu.saturating_sub(header)
        ),
        "full packets of clients with an MTU of 1,500 are answered with `too big`; where a firewall eats that answer, connections hang",
        command(format!("ip link set dev {} mtu {needed}", nic.word())),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        facts::Program,
        testing::{assert_finds, config},
    };

    fn nic(driver: &str, mtu: u32) -> Nic {
        Nic { name: "eth0".into(), driver: Some(driver.into()), mtu, ..Nic::default() }
    }

    #[test]
    fn each_driver_has_its_largest() {
        for (driver, mtu, severity) in [
            ("veth", 3_506, Severity::Ok),
            ("veth", 3_507, Severity::Error),
            ("mlx5_core", 3_499, Severity::Error),
            ("ixgbe", 3_046, Severity::Ok),
            ("i40e", 9_000, Severity::Error),
            ("r8169", 1_500, Severity::Ok),
            ("r8169", 9_000, Severity::Note),
        ] {
            let findings = check(&nic(driver, mtu), &Facts::default());
            assert_finds(&findings, "mtu", severity, "ip link set dev eth0 mtu");
        }
        let attached = Program { name: "lb".into(), mode: "native".into(), ours: true };
        let accepted = Nic { program: Some(attached), ..nic("ice", 9_000) };
        assert_finds(&check(&accepted, &Facts::default()), "mtu", Severity::Ok, "");
        let mut facts = Facts::default();
        let mut auto = config("forward: nat", "10.0.0.1:80");
        auto.xdp_mode = XdpMode::Auto;
        facts.config = Some(Ok(auto));
        assert_finds(&check(&nic("ice", 9_000), &facts), "mtu", Severity::Warning, "mtu 3046");
    }

    #[test]
    fn tunnels_need_room_for_the_outer_header() {
        let mut facts = Facts::default();
        let none = check(&nic("veth", 1_500), &facts);
        assert!(!none.iter().any(|finding| finding.check == "tunnel_mtu"));
        facts.config = Some(Ok(config("forward: tunnel\n    encap: ipip", "10.0.0.1:80")));
        let finds = |mtu, severity, remedy| {
            assert_finds(&check(&nic("veth", mtu), &facts), "tunnel_mtu", severity, remedy);
        };
        finds(1_500, Severity::Warning, "mtu 1520");
        finds(1_520, Severity::Ok, "");
        facts.config = Some(Ok(config("forward: tunnel\n    encap: ipip", "[fd00::1]:80")));
        let findings = check(&nic("veth", 1_520), &facts);
        assert_finds(&findings, "tunnel_mtu", Severity::Warning, "mtu 1540");
    }
}
