//! Spreading over CPUs: receive queues, what chooses among them, and who serves their interrupts.

use std::collections::BTreeSet;

use super::{
    Finding, Severity, advice, command,
    facts::{Channels, Facts, Nic, Traffic},
};
use crate::config::model::Protocol;

/// Judges how one NIC spreads packets.
pub(super) fn check(nic: &Nic, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![queues(nic, facts)];
    findings.extend(interrupts(nic, facts));
    findings.extend(ports(nic, facts));
    findings.extend(tunnels(nic));
    findings
}

fn in_use(channels: Channels) -> u32 {
    channels.rx + channels.combined
}

fn queues(nic: &Nic, facts: &Facts) -> Finding {
    const WHY: &str =
        "one receive queue is served by one CPU: the others do not help, however fast packets come";
    let cpus = facts.kernel.cpus;
    let Some(channels) = nic.channels else {
        return Finding::bad(
            Severity::Note,
            &nic.name,
            "queues",
            "not known: the driver does not say how many receive queues it has",
            WHY,
            command(format!("ls /sys/class/net/{}/queues", nic.word())),
        );
    };
    let queues = in_use(channels);
    let most = channels.max_rx + channels.max_combined;
    if queues > 1 || cpus == 1 {
        let found = format!("{queues} receive queue(s) for {cpus} CPU(s)");
        return Finding::ok(&nic.name, "queues", found);
    }
    if most <= 1 {
        return Finding::bad(
            Severity::Note,
            &nic.name,
            "queues",
            format!("1 receive queue for {cpus} CPUs, and the driver has no more"),
            WHY,
            advice(match nic.driver.as_deref() {
                Some("veth") => "make the pair with `numrxqueues N numtxqueues N` on both ends",
                Some("virtio_net") => {
                    "give the machine a NIC with several queues (QEMU: `queues=N,mq=on`)"
                }
                _ => "use a NIC with several queues where one CPU is not enough",
            }),
        );
    }
    let wanted = most.min(cpus as u32);
    let kind = if channels.max_combined > 0 { "combined" } else { "rx" };
    Finding::bad(
        Severity::Warning,
        &nic.name,
        "queues",
        format!("1 receive queue for {cpus} CPUs; the driver has up to {most}"),
        WHY,
        command(format!("ethtool -L {} {kind} {wanted}", nic.word())),
    )
}

fn interrupts(nic: &Nic, facts: &Facts) -> Option<Finding> {
    if nic.interrupts.len() < 2 || facts.kernel.cpus < 2 {
        return None;
    }
    let cpus: BTreeSet<u32> = nic.interrupts.iter().flatten().copied().collect();
    let count = nic.interrupts.len();
    if cpus.len() > 1 {
        let found = format!("{count} interrupts on {} CPUs", cpus.len());
        return Some(Finding::ok(&nic.name, "interrupts", found));
    }
    Some(Finding::bad(
        Severity::Warning,
        &nic.name,
        "interrupts",
        format!("all its {count} interrupts go to the same CPU"),
        "queues help only if different CPUs serve them",
        command("apt-get install -y irqbalance && systemctl enable --now irqbalance"),
    ))
}

/// UDP is often hashed by its addresses only.
fn ports(nic: &Nic, facts: &Facts) -> Option<Finding> {
    let config = facts.config()?;
    if nic.channels.is_none_or(|channels| in_use(channels) < 2) {
        return None;
    }
    let all = config.services.iter().map(|service| &service.listen);
    let mut all = all.flat_map(|listen| listen.vips.iter().map(move |vip| (listen, vip)));
    let without = all.find_map(|(listen, vip)| {
        let traffic = match (listen.protocol, vip.addr().is_ipv4()) {
            (Protocol::Tcp, true) => Traffic::Tcp4,
            (Protocol::Tcp, false) => Traffic::Tcp6,
            (Protocol::Udp | Protocol::Quic, true) => Traffic::Udp4,
            (Protocol::Udp | Protocol::Quic, false) => Traffic::Udp6,
        };
        let fields = nic.hashes.get(&traffic)?;
        (!fields.ports).then_some(traffic)
    });
    let Some(traffic) = without else {
        let said = !nic.hashes.is_empty();
        return said.then(|| Finding::ok(&nic.name, "rx_hash", "ports choose the queue, too"));
    };
    Some(Finding::bad(
        Severity::Note,
        &nic.name,
        "rx_hash",
        format!("{} packets are spread over queues by their addresses only", traffic.name()),
        "all that comes from one address (a proxy, a resolver, a NAT) meets one CPU",
        command(format!("ethtool -N {} rx-flow-hash {} sdfn", nic.word(), traffic.name())),
    ))
}

/// On a backend: all that one balancer tunnels has the same two outer addresses.
fn tunnels(nic: &Nic) -> Option<Finding> {
    if !nic.decapsulates || nic.channels.is_none_or(|channels| in_use(channels) < 2) {
        return None;
    }
    Some(Finding::bad(
        Severity::Note,
        &nic.name,
        "tunnel_spread",
        match nic.hashes.get(&Traffic::Ip4) {
            Some(_) => {
                "what one balancer tunnels here arrives on one queue: IP in IP is spread by its outer addresses"
            }
            None => {
                "what one balancer tunnels here probably arrives on one queue; the driver does not say how it spreads IP in IP"
            }
        },
        "one CPU serves all that a balancer sends to this backend, unless the NIC looks into tunnels",
        advice(
            "see `ethtool -S` for one queue that gets all; then give lb an `outer_source` prefix or use `encap: gue`",
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        facts::{HashFields, Kernel},
        testing::{assert_finds, config},
    };

    fn facts() -> Facts {
        Facts { kernel: Kernel { cpus: 4, ..Kernel::default() }, ..Facts::default() }
    }

    fn nic(combined: u32, max_combined: u32) -> Nic {
        let channels = Channels { combined, max_combined, ..Channels::default() };
        Nic { name: "eth0".into(), channels: Some(channels), ..Nic::default() }
    }

    #[test]
    fn one_queue_is_enough_for_one_cpu_only() {
        let finds = |nic: &Nic, severity, remedy| {
            assert_finds(&check(nic, &facts()), "queues", severity, remedy);
        };
        finds(&nic(4, 8), Severity::Ok, "");
        finds(&nic(1, 8), Severity::Warning, "ethtool -L eth0 combined 4");
        finds(&nic(1, 1), Severity::Note, "several queues");
        let veth = Channels { rx: 1, max_rx: 2, ..Channels::default() };
        let veth = Nic { channels: Some(veth), ..nic(0, 0) };
        finds(&veth, Severity::Warning, "ethtool -L eth0 rx 2");
        finds(&Nic { channels: None, ..nic(0, 0) }, Severity::Note, "queues");
        let one_cpu = Facts { kernel: Kernel { cpus: 1, ..Kernel::default() }, ..facts() };
        assert_finds(&check(&nic(1, 8), &one_cpu), "queues", Severity::Ok, "");
    }

    #[test]
    fn interrupts_of_one_cpu_are_found() {
        let mut nic = nic(2, 2);
        nic.interrupts = vec![vec![0], vec![0]];
        assert_finds(&check(&nic, &facts()), "interrupts", Severity::Warning, "irqbalance");
        nic.interrupts = vec![vec![0], vec![1]];
        assert_finds(&check(&nic, &facts()), "interrupts", Severity::Ok, "");
    }

    #[test]
    fn the_hash_should_have_ports() {
        let mut facts = facts();
        let mut udp = config("forward: nat", "10.0.0.1:80");
        udp.services[0].listen.protocol = Protocol::Udp;
        facts.config = Some(Ok(udp));
        let mut nic = nic(4, 4);
        let addresses = HashFields { addresses: true, ports: false };
        nic.hashes.insert(Traffic::Udp4, addresses);
        assert_finds(&check(&nic, &facts), "rx_hash", Severity::Note, "rx-flow-hash udp4 sdfn");
        nic.hashes.insert(Traffic::Udp4, HashFields { ports: true, ..addresses });
        assert_finds(&check(&nic, &facts), "rx_hash", Severity::Ok, "");
    }

    #[test]
    fn tunnels_meet_one_queue() {
        let mut nic = nic(4, 4);
        assert!(!check(&nic, &facts()).iter().any(|f| f.check == "tunnel_spread"));
        nic.decapsulates = true;
        assert_finds(&check(&nic, &facts()), "tunnel_spread", Severity::Note, "outer_source");
    }
}
