//! One NIC: by netlink and ethtool, which answer for this network namespace; by /sys only if that shows the same one.

use std::{fs, path::Path};

use super::{ethtool, netdev, read, system};
use crate::{
    dataplane::{self, program_on},
    doctor::facts::{Nic, Program, Traffic},
    net::Snapshot,
};

/// What is known about the NIC of this name.
pub(super) fn gather(name: &str, snapshot: &Snapshot, pin_dir: &Path, decapsulates: bool) -> Nic {
    let mut nic = Nic { name: name.to_owned(), decapsulates, ..Nic::default() };
    let Some(link) = snapshot.link_by_name(name) else { return nic };
    nic.ifindex = Some(link.ifindex);
    nic.mtu = link.mtu;
    nic.up = link.up;
    nic.program = program(link.ifindex, pin_dir);
    nic.xdp_features = netdev::xdp_features(link.ifindex).ok();
    nic.vlans = read("/proc/thread-self/net/vlan/config")
        .map(|text| vlans_on(&text, name))
        .unwrap_or_default();
    nic.rp_filter = read(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"))
        .and_then(|text| text.trim().parse().ok());
    nic.interrupts = interrupts(name, link.ifindex);
    if let Ok(driver) = ethtool::Device::open(name) {
        nic.driver = driver.driver();
        nic.offloads = driver.offloads().unwrap_or_default();
        nic.channels = driver.channels();
        nic.hashes = Traffic::ALL
            .into_iter()
            .filter_map(|traffic| Some((traffic, driver.hash_fields(traffic)?)))
            .collect();
    }
    nic
}

fn program(ifindex: u32, pin_dir: &Path) -> Option<Program> {
    let found = program_on(ifindex)?;
    let ours = dataplane::attachments_of(pin_dir)
        .iter()
        .any(|attachment| attachment.ifindex == ifindex && attachment.program == found.id);
    Some(Program {
        name: format!("XDP program {} ({})", found.id, found.name()),
        mode: found.mode_name().to_owned(),
        ours,
    })
}

/// /proc/net/vlan/config: `eth0.7         | 7  | eth0` after two lines of headings.
fn vlans_on(config: &str, nic: &str) -> Vec<String> {
    config
        .lines()
        .skip(2)
        .filter_map(|line| {
            let mut fields = line.split('|').map(str::trim);
            let (name, _id, parent) = (fields.next()?, fields.next()?, fields.next()?);
            (parent == nic).then(|| name.to_owned())
        })
        .collect()
}

/// The CPUs of each interrupt, for NICs on a bus.
fn interrupts(name: &str, ifindex: u32) -> Vec<Vec<u32>> {
    let directory = Path::new("/sys/class/net").join(name);
    // A mount namespace may show another network namespace's NICs here.
    let shown = read(directory.join("ifindex")).and_then(|text| text.trim().parse().ok());
    if shown != Some(ifindex) {
        return Vec::new();
    }
    // virtio's interrupts belong to the device above.
    ["device/msi_irqs", "device/../msi_irqs"]
        .iter()
        .find_map(|path| fs::read_dir(directory.join(path)).ok())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name();
            let irq = Path::new("/proc/irq").join(number);
            let list = read(irq.join("effective_affinity_list"))
                .or_else(|| read(irq.join("smp_affinity_list")))?;
            Some(system::cpus(&list)).filter(|cpus| !cpus.is_empty())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_of_a_nic_are_found() {
        let config = "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
            eth0.7         | 7  | eth0\nstorage        | 9  | eth1\n";
        assert_eq!(vlans_on(config, "eth0"), ["eth0.7"]);
        assert_eq!(vlans_on(config, "eth1"), ["storage"]);
        assert!(vlans_on(config, "eth").is_empty());
    }
}
