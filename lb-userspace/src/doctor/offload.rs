//! Offloads that change packets before XDP sees them.

use super::{Finding, Severity, advice, command, facts::Nic};

/// Judges one NIC's offloads.
pub(super) fn check(nic: &Nic) -> Vec<Finding> {
    if nic.offloads.is_empty() {
        return vec![Finding::bad(
            Severity::Note,
            &nic.name,
            "offloads",
            "not known: the driver does not say which offloads it has",
            "large receive offload and VLAN stripping would change packets before XDP sees them",
            command(format!("ethtool -k {}", nic.word())),
        )];
    }
    vec![
        merging(
            nic,
            ("rx-lro", "lro"),
            "lro",
            "large receive offload (LRO)",
            "merged packets do not fit through XDP, and cannot be forwarded: drivers refuse native XDP or lose such packets",
        ),
        merging(
            nic,
            ("rx-gro-hw", "rx-gro-hw"),
            "gro_hw",
            "GRO in hardware",
            "merged packets do not fit into the one buffer that XDP has: drivers switch it off by themselves, refuse, or lose packets",
        ),
        vlan(nic),
    ]
}

fn merging(
    nic: &Nic,
    (name, switch): (&str, &str),
    check: &'static str,
    what: &str,
    why: &'static str,
) -> Finding {
    // A driver that has taken the program in native mode does not merge while it is there.
    let accepted = nic.program.as_ref().is_some_and(|program| program.mode == "native");
    match nic.offloads.get(name) {
        Some(offload) if offload.on && accepted && check == "gro_hw" => Finding::ok(
            &nic.name,
            check,
            format!("{what} is on; the driver has accepted XDP beside it"),
        ),
        Some(offload) if offload.on && offload.fixed => Finding::bad(
            Severity::Error,
            &nic.name,
            check,
            format!("{what} is on, and the driver does not let it be switched off"),
            why,
            match nic.driver.as_deref() {
                Some("virtio_net") => advice(
                    "give the virtual NIC `guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,guest_csum=off` or `ctrl_guest_offloads=on` (QEMU); in generic mode merged packets would be lost, too",
                ),
                _ => advice("use another NIC; in generic mode merged packets would be lost, too"),
            },
        ),
        Some(offload) if offload.on => Finding::bad(
            Severity::Warning,
            &nic.name,
            check,
            format!("{what} is on"),
            why,
            command(format!("ethtool -K {} {switch} off", nic.word())),
        ),
        Some(_) => Finding::ok(&nic.name, check, format!("{what} is off")),
        None => Finding::ok(&nic.name, check, format!("the kernel knows no {what}")),
    }
}

fn vlan(nic: &Nic) -> Finding {
    const WHY: &str = "the NIC takes the VLAN tag off before XDP sees the packet: lb takes a tagged packet for an untagged one, and sends it on untagged";
    let Some(offload) = nic.offloads.get("rx-vlan-hw-parse").filter(|offload| offload.on) else {
        return Finding::ok(&nic.name, "rx_vlan", "VLAN tags stay in received packets");
    };
    // Without VLANs there are no tags to lose.
    let severity = if nic.vlans.is_empty() { Severity::Note } else { Severity::Warning };
    let used = match nic.vlans.as_slice() {
        [] => "no VLAN interface is on this NIC".to_owned(),
        vlans => format!("in use by {}", vlans.join(", ")),
    };
    let remedy = match offload.fixed {
        true => advice("give lb a NIC or port without tags: this driver always strips them"),
        false => command(format!("ethtool -K {} rxvlan off", nic.word())),
    };
    let found = format!("received VLAN tags are stripped ({used})");
    Finding::bad(severity, &nic.name, "rx_vlan", found, WHY, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{facts::Offload, testing::assert_finds};

    fn nic(name: &str, on: bool, fixed: bool) -> Nic {
        let offloads = [(name.to_owned(), Offload { on, fixed })].into();
        Nic { name: "eth0".into(), offloads, ..Nic::default() }
    }

    #[test]
    fn what_merges_packets_is_to_be_switched_off() {
        for (name, check_name, remedy) in [
            ("rx-lro", "lro", "ethtool -K eth0 lro off"),
            ("rx-gro-hw", "gro_hw", "ethtool -K eth0 rx-gro-hw off"),
        ] {
            let finds = |on, fixed, severity, remedy| {
                assert_finds(&check(&nic(name, on, fixed)), check_name, severity, remedy);
            };
            finds(true, false, Severity::Warning, remedy);
            finds(true, true, Severity::Error, "another NIC");
            finds(false, false, Severity::Ok, "");
            finds(false, true, Severity::Ok, "");
        }
    }

    #[test]
    fn what_the_driver_has_accepted_is_no_obstacle() {
        use crate::doctor::facts::Program;
        let mut virtual_nic = nic("rx-gro-hw", true, true);
        virtual_nic.driver = Some("virtio_net".into());
        assert_finds(&check(&virtual_nic), "gro_hw", Severity::Error, "ctrl_guest_offloads=on");
        virtual_nic.program =
            Some(Program { name: "balancer".into(), mode: "native".into(), ours: true });
        assert_finds(&check(&virtual_nic), "gro_hw", Severity::Ok, "");
    }

    #[test]
    fn stripped_tags_matter_where_there_are_vlans() {
        let mut stripping = nic("rx-vlan-hw-parse", true, false);
        assert_finds(&check(&stripping), "rx_vlan", Severity::Note, "ethtool -K eth0 rxvlan off");
        stripping.vlans = vec!["eth0.7".into()];
        assert_finds(&check(&stripping), "rx_vlan", Severity::Warning, "rxvlan off");
        let fixed = nic("rx-vlan-hw-parse", true, true);
        assert_finds(&check(&fixed), "rx_vlan", Severity::Note, "without tags");
        let off = nic("rx-vlan-hw-parse", false, false);
        assert_finds(&check(&off), "rx_vlan", Severity::Ok, "");
        assert_finds(&check(&Nic::default()), "offloads", Severity::Note, "ethtool -k");
    }
}
