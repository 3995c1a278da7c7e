//! The host's own part in forwarding: what lb leaves to it, and what a backend must not do.

use super::{
    Finding, Severity, command,
    facts::{Facts, Nic},
};
use crate::config::model::{Config, Forward};

const GROUP: &str = "routing";

/// Judges sysctls of the network.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(config) = facts.config() {
        findings.extend(forwarding(facts, config));
        findings.extend(backends_elsewhere(config));
        findings.extend(tunnels_elsewhere(config));
    }
    findings.extend(facts.nics.iter().filter_map(|nic| reverse_path(nic, facts)));
    if !facts.loopback_addresses.is_empty() {
        findings.push(arp(
            facts,
            "net.ipv4.conf.all.arp_ignore",
            "arp_ignore",
            1,
            "this host answers ARP for the VIP on its lo, and draws the clients' packets past the balancer",
        ));
        findings.push(arp(
            facts,
            "net.ipv4.conf.all.arp_announce",
            "arp_announce",
            2,
            "this host names the VIP as the sender of its own ARP requests, by which neighbours learn to send VIP packets here",
        ));
    }
    findings
}

fn forwarding(facts: &Facts, config: &Config) -> Vec<Finding> {
    const WHY: &str = "lb does not need it for what it balances; but what backends send on their own account through this host ends here, and the kernel's routing table does not help while lb looks for a next hop";
    let nat = |v4: bool| {
        config.services.iter().any(|service| {
            service.forward == Forward::Nat
                && service.listen.vips.iter().any(|vip| vip.addr().is_ipv4() == v4)
        })
    };
    [
        (true, "net.ipv4.ip_forward", "ip_forward"),
        (false, "net.ipv6.conf.all.forwarding", "ip6_forward"),
    ]
    .into_iter()
    .filter(|(v4, _, _)| nat(*v4))
    .filter_map(|(_, name, check)| {
        let value = facts.kernel.number(name)?;
        Some(match value {
            0 => Finding::bad(
                Severity::Note,
                GROUP,
                check,
                format!("{name} is 0"),
                WHY,
                command(format!("sysctl -w {name}=1")),
            ),
            _ => Finding::ok(GROUP, check, format!("{name} is {value}")),
        })
    })
    .collect()
}

/// The way of the kernel: the stricter of `all` and the NIC's own counts, 2 (loose) being more than 1 (strict).
fn reverse_path(nic: &Nic, facts: &Facts) -> Option<Finding> {
    let all = facts.kernel.number("net.ipv4.conf.all.rp_filter").unwrap_or(0);
    let value = all.max(nic.rp_filter?);
    let found = format!("{}: rp_filter is {value}", nic.name);
    if value != 1 {
        return Some(Finding::ok(GROUP, "rp_filter", found));
    }
    let several = facts.nics.len() > 1;
    if !facts.is_backend() && !several {
        return Some(Finding::ok(GROUP, "rp_filter", format!("{found}, and it is the only NIC")));
    }
    Some(Finding::bad(
        if facts.is_backend() { Severity::Warning } else { Severity::Note },
        GROUP,
        "rp_filter",
        format!("{found} (strict)"),
        match facts.is_backend() {
            true => {
                "packets of clients that lb sends here are dropped without a word if the way back to the client leads by another NIC"
            }
            false => {
                "what lb passes to this host is dropped if the way back leads by another NIC (what it balances is not concerned)"
            }
        },
        command(format!("sysctl -w net/ipv4/conf/{}/rp_filter=2", nic.word())),
    ))
}

fn arp(
    facts: &Facts,
    name: &'static str,
    check: &'static str,
    wanted: i64,
    why: &'static str,
) -> Finding {
    let value = facts.kernel.number(name).unwrap_or(0);
    if value >= wanted {
        return Finding::ok(GROUP, check, format!("{name} is {value}"));
    }
    let first = facts.loopback_addresses[0];
    Finding::bad(
        Severity::Warning,
        GROUP,
        check,
        format!("{name} is {value}, and {first} is on lo"),
        why,
        command(format!("sysctl -w {name}={wanted}")),
    )
}

/// What cannot be seen from the balancer.
fn backends_elsewhere(config: &Config) -> Option<Finding> {
    let direct = config.services.iter().find(|service| !service.forward.sees_replies())?;
    Some(Finding::bad(
        Severity::Note,
        GROUP,
        "backends_arp",
        format!(
            "the backends of {} answer clients directly; their settings cannot be seen from here",
            direct.name
        ),
        "a backend that answers ARP for the VIP draws the clients' packets past lb; one with strict rp_filter drops them",
        command(format!(
            "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2 && ip address replace {}/{} dev lo && lb doctor   # on each backend",
            direct.listen.address,
            direct.listen.vips[0].prefix_len()
        )),
    ))
}

fn tunnels_elsewhere(config: &Config) -> Option<Finding> {
    let tunnel = config.services.iter().find(|service| service.forward == Forward::Ipip)?;
    Some(Finding::bad(
        Severity::Note,
        GROUP,
        "backends_spread",
        format!(
            "all that this node sends to one backend of {} has the same outer addresses",
            tunnel.name
        ),
        "the backend's NIC spreads IP in IP by them: one receive queue, and one CPU, gets everything, unless the NIC looks into tunnels",
        command("lb doctor --iface eth0   # on each backend, with its NIC"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{assert_finds, config};

    fn facts(sysctls: &[(&'static str, &str)], rp_filter: i64) -> Facts {
        let nic = Nic { name: "eth0".into(), rp_filter: Some(rp_filter), ..Nic::default() };
        let mut facts = Facts { nics: vec![nic], ..Facts::default() };
        facts.kernel.sysctl =
            sysctls.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        facts
    }

    #[test]
    fn nat_tells_of_a_host_that_does_not_forward() {
        let mut facts = facts(&[("net.ipv4.ip_forward", "0")], 0);
        assert!(!check(&facts).iter().any(|finding| finding.check == "ip_forward"));
        facts.config = Some(Ok(config("forward: nat", "10.0.0.1:80")));
        assert_finds(
            &check(&facts),
            "ip_forward",
            Severity::Note,
            "sysctl -w net.ipv4.ip_forward=1",
        );
        facts.kernel.sysctl.insert("net.ipv4.ip_forward", "1\n".into());
        assert_finds(&check(&facts), "ip_forward", Severity::Ok, "");
        assert!(!check(&facts).iter().any(|finding| finding.check == "ip6_forward"));
    }

    #[test]
    fn strict_filters_matter_to_backends() {
        let strict = facts(&[("net.ipv4.conf.all.rp_filter", "0")], 1);
        assert_finds(&check(&strict), "rp_filter", Severity::Ok, "");
        let mut backend = strict.clone();
        backend.nics[0].decapsulates = true;
        let remedy = "sysctl -w net/ipv4/conf/eth0/rp_filter=2";
        assert_finds(&check(&backend), "rp_filter", Severity::Warning, remedy);
        let mut two = strict.clone();
        two.nics.push(Nic { name: "eth1".into(), ..Nic::default() });
        assert_finds(&check(&two), "rp_filter", Severity::Note, remedy);
        // The larger number counts, and 2 is the milder rule.
        let loose = facts(&[("net.ipv4.conf.all.rp_filter", "1")], 2);
        assert_finds(&check(&loose), "rp_filter", Severity::Ok, "");
    }

    #[test]
    fn a_vip_on_lo_wants_silence() {
        let mut facts = facts(&[("net.ipv4.conf.all.arp_ignore", "1")], 0);
        facts.loopback_addresses = vec!["192.0.2.10".parse().unwrap()];
        assert_finds(&check(&facts), "arp_ignore", Severity::Ok, "");
        assert_finds(&check(&facts), "arp_announce", Severity::Warning, "arp_announce=2");
    }

    #[test]
    fn what_cannot_be_seen_is_said() {
        let mut facts = facts(&[], 0);
        facts.config = Some(Ok(config("forward: dsr", "10.0.0.1:80")));
        assert_finds(&check(&facts), "backends_arp", Severity::Note, "arp_ignore=1");
        assert!(!check(&facts).iter().any(|finding| finding.check == "backends_spread"));
        facts.config = Some(Ok(config("forward: tunnel\n    encap: ipip", "10.0.0.1:80")));
        assert_finds(&check(&facts), "backends_spread", Severity::Note, "on each backend");
    }
}
