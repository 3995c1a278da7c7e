//! `lb decap`: attaching, replacing, counting and leaving nothing behind.

use std::{fs, net::IpAddr, os::unix::fs::MetadataExt as _};

use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuValues};
use ipnet::IpNet;

use super::{
    super::{
        AttachMode,
        decap::{
            DecapRules, DecapStatus, decap_attach, decap_detach, decap_interfaces, decap_status,
        },
        detach_all,
    },
    sandbox::{Sandbox, ifindex, program_on, sandbox, veth},
};
use crate::config::model::XdpMode;

fn attach(sandbox: &Sandbox, nic: u32, name: &str) -> anyhow::Result<AttachMode> {
    // More addresses than the object has room for by itself.
    let local: Vec<IpAddr> = (0..100).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    let from: Vec<IpNet> = (0..=255)
        .map(|n| IpNet::new(IpAddr::from([10, 1, n, 0]), 24).unwrap())
        .chain(["fd00::/64".parse().unwrap(), "::/0".parse().unwrap()])
        .collect();
    let rules = DecapRules { local, from, gue_port: 6080 };
    decap_attach(&sandbox.root(), nic, name, &rules, XdpMode::Native)
}

#[test]
fn it_outlives_the_command_counts_on_when_replaced_and_leaves_nothing() {
    sandbox(|sandbox| {
        let root = sandbox.root();
        let nic = veth("nic.7", "far");
        assert!(decap_interfaces(&root).unwrap().is_empty());
        assert!(decap_status(&root, "nic.7").unwrap_err().to_string().contains("nic.7"));
        assert_eq!(attach(sandbox, nic, "nic.7").unwrap(), AttachMode::Native);
        let first = program_on(nic);
        assert_ne!(first, 0);
        assert_eq!(decap_interfaces(&root).unwrap(), ["nic.7"]);
        assert_eq!(decap_status(&root, "nic.7").unwrap(), DecapStatus::default());
        let directory = root.join("decap").join("nic::7");
        for path in [&root, &root.join("decap"), &directory, &directory.join("links")] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o700, "{}", path.display());
        }

        let pin = directory.join("DECAP_COUNTS");
        let data = MapData::from_pin(&pin).unwrap();
        let mut counts: PerCpuArray<MapData, u64> =
            PerCpuArray::try_from(Map::from_map_data(data).unwrap()).unwrap();
        let cpus = aya::util::nr_cpus().unwrap() as u64;
        for (index, value) in [5, 6, 7].into_iter().enumerate() {
            let values = PerCpuValues::try_from(vec![value; cpus as usize]).unwrap();
            counts.set(index as u32, values, 0).unwrap();
        }
        attach(sandbox, nic, "nic.7").unwrap();
        assert_ne!(program_on(nic), first);
        let expected = DecapStatus { decapsulated: 5 * cpus, refused: 6 * cpus, broken: 7 * cpus };
        assert_eq!(decap_status(&root, "nic.7").unwrap(), expected);

        // The balancer's `lb detach` is another thing.
        detach_all(&root).unwrap();
        assert_ne!(program_on(nic), 0);
        decap_detach(&root, "nic.7").unwrap();
        assert_eq!(program_on(nic), 0);
        assert!(!sandbox.root().exists());
        decap_detach(&root, "nic.7").unwrap();
    });
}

#[test]
fn counters_of_another_shape_are_not_used() {
    sandbox(|sandbox| {
        let root = sandbox.root();
        let nic = veth("nic", "far");
        attach(sandbox, nic, "nic").unwrap();
        let pin = root.join("decap/nic/DECAP_COUNTS");
        fs::remove_file(&pin).unwrap();
        Array::<_, [u64; 64]>::create(3, 0).unwrap().pin(&pin).unwrap();
        decap_status(&root, "nic").unwrap_err();
        attach(sandbox, nic, "nic").unwrap();
        assert_eq!(decap_status(&root, "nic").unwrap(), DecapStatus::default());
    });
}

#[test]
fn a_refused_nic_leaves_nothing() {
    sandbox(|sandbox| {
        let nic = ifindex("lo");
        let error = attach(sandbox, nic, "lo").unwrap_err().to_string();
        assert!(error.contains("refused by the driver of lo"), "{error}");
        assert!(!sandbox.root().exists());
        let elsewhere = sandbox.directory.join("pins");
        let rules = DecapRules { local: Vec::new(), from: Vec::new(), gue_port: 0 };
        let error = decap_attach(&elsewhere, nic, "lo", &rules, XdpMode::Auto).unwrap_err();
        assert!(error.to_string().contains("mount -t bpf"), "{error}");
    });
}
