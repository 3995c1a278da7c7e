//! Rows, counters, tables of NICs and clocks, read back as the kernel has them.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues};
use lb_common::abi::{BackendCounters, BackendRow, REASONS, Slot, map};

use super::sandbox::{ip, sandbox, veth};

#[test]
fn no_reader_ever_sees_half_a_slot() {
    sandbox(|sandbox| {
        let dataplane = sandbox.open();
        let kernel: Array<MapData, u64> = sandbox.map(map::ARENA);
        let end = AtomicBool::new(false);
        // Both halves of each value are the same, and those of no two values.
        let values: Vec<u64> = (0..64u64).map(|n| (n << 32 | n) * 0x0101_0101).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    for value in &values {
                        dataplane.arena().set_slot(7, Slot(*value));
                    }
                }
            });
            let mut seen = std::collections::HashSet::new();
            let mut reads = 0;
            // On one CPU it takes a while until reader and writer have met.
            while reads < 100_000 || (seen.len() < 2 && reads < 100_000_000) {
                seen.insert(kernel.get(&7, 0).unwrap());
                seen.insert(dataplane.arena().slot(7).0);
                reads += 1;
            }
            end.store(true, Ordering::Relaxed);
            let torn: Vec<_> = seen.iter().filter(|value| !values.contains(value)).collect();
            assert!(torn.is_empty(), "{torn:x?}");
            assert!(seen.len() > 1, "the writer never wrote");
        });
    });
}

#[test]
fn rows_are_what_the_kernel_has() {
    sandbox(|sandbox| {
        let dataplane = sandbox.open();
        let kernel: Array<MapData, BackendRow> = sandbox.map(map::BACKENDS);
        let address = IpAddr::from([10, 1, 2, 3]).into();
        let row = BackendRow {
            address,
            source: address,
            dst_mac: [1, 2, 3, 4, 5, 6],
            src_mac: [7, 8, 9, 10, 11, 12],
            mtu: 1500,
            ifindex: 3,
            flags: 2,
            service: 4,
            outer_sum: 0x1_2345,
            ..BackendRow::default()
        };
        for id in [0, 1, 599] {
            dataplane.backends().set(id, &row);
            assert_eq!(kernel.get(&id, 0).unwrap(), row, "{id}");
        }
        assert_eq!(kernel.get(&2, 0).unwrap(), BackendRow::default());
        let last = std::panic::AssertUnwindSafe(|| dataplane.backends().get(600));
        assert!(std::panic::catch_unwind(last).is_err(), "an entry beyond the map was read");
        let mut service = dataplane.services().get(3);
        service.id = 9;
        dataplane.services().set(3, &service);
        dataplane.set_service_flags(3, 5);
        service.flags = 5;
        assert_eq!(dataplane.services().get(3), service);
    });
}

#[test]
fn counters_are_summed_over_cpus() {
    sandbox(|sandbox| {
        let mut dataplane = sandbox.open();
        let cpus = aya::util::nr_cpus().unwrap() as u64;
        let mut kernel: PerCpuArray<MapData, BackendCounters> = sandbox.map(map::COUNTERS);
        let of = |id: u32, cpu: u64| BackendCounters {
            packets: id as u64 + cpu,
            bytes: id as u64 * 1000,
            flows: 1,
            reply_packets: cpu,
            reply_bytes: 1 << 40,
            reply_resets: id as u64,
            _reserved: [0; 2],
        };
        for id in 0..600 {
            let values: Vec<_> = (0..cpus).map(|cpu| of(id, cpu)).collect();
            kernel.set(id, PerCpuValues::try_from(values).unwrap(), 0).unwrap();
        }
        let ids = [599, 0, 3, 255, 256, 3, 511];
        let found = dataplane.backend_counters(&ids).unwrap();
        let triangle = cpus * (cpus - 1) / 2;
        for (id, found) in ids.into_iter().zip(found) {
            let id = u64::from(id);
            assert_eq!(found.packets, id * cpus + triangle, "{id}");
            assert_eq!(found.bytes, id * 1000 * cpus, "{id}");
            assert_eq!(found.flows, cpus, "{id}");
            assert_eq!(found.reply_packets, triangle, "{id}");
            assert_eq!(found.reply_bytes, cpus << 40, "{id}");
            assert_eq!(found.reply_resets, id * cpus, "{id}");
        }
        assert!(dataplane.backend_counters(&[]).unwrap().is_empty());
        assert!(dataplane.backend_counters(&[600]).is_err(), "there is no backend 600");

        dataplane.backends().set(3, &BackendRow { mtu: 1, ..BackendRow::default() });
        // The first time that it is used nothing has been counted for it: nothing is cleared.
        dataplane.clear_backends(&[3]).unwrap();
        assert_eq!(dataplane.backend_counters(&[3]).unwrap()[0].flows, cpus);
        dataplane.clear_backends(&[3]).unwrap();
        let all = dataplane.backend_counters(&[2, 3, 4]).unwrap();
        assert_eq!(all[1], BackendCounters::default());
        assert!(all[0].packets > 0 && all[2].packets > 0, "{all:?}");
        assert_eq!(dataplane.backends().get(3), BackendRow::default());
    });
}

#[test]
fn reasons_are_those_of_one_service() {
    sandbox(|sandbox| {
        let mut dataplane = sandbox.open();
        let cpus = aya::util::nr_cpus().unwrap() as u64;
        let mut kernel: PerCpuArray<MapData, u64> = sandbox.map(map::REASON_COUNTS);
        for index in 0..8 * REASONS {
            let values = vec![u64::from(index); cpus as usize];
            kernel.set(index, PerCpuValues::try_from(values).unwrap(), 0).unwrap();
        }
        for service in [0, 1, 7] {
            let expected: Vec<u64> =
                (0..REASONS).map(|reason| cpus * u64::from(service * REASONS + reason)).collect();
            assert_eq!(dataplane.reasons(service).unwrap(), expected[..], "service {service}");
        }
        // The first time that it is used nothing has been counted for it: nothing is cleared.
        dataplane.clear_reasons(1).unwrap();
        assert_ne!(dataplane.reasons(1).unwrap()[63], 0);
        dataplane.clear_reasons(1).unwrap();
        assert_eq!(dataplane.reasons(1).unwrap(), [0; REASONS as usize]);
        assert_ne!(dataplane.reasons(0).unwrap()[63], 0);
        assert_ne!(dataplane.reasons(2).unwrap()[0], 0);
    });
}

#[test]
fn the_tables_of_nics_hold_exactly_these() {
    sandbox(|sandbox| {
        let (one, two) = (veth("one", "far1"), veth("two", "far2"));
        let mut dataplane = sandbox.open();
        let numbers = || {
            let kernel: HashMap<MapData, u32, u32> = sandbox.map(map::INTERFACES);
            let mut all: Vec<(u32, u32)> = kernel.iter().map(Result::unwrap).collect();
            all.sort_unstable();
            all
        };
        let egress = |ifindex: u32| {
            let kernel: aya::maps::xdp::DevMapHash<MapData> = sandbox.map(map::DEVICES);
            kernel.get(ifindex, 0).ok().map(|value| value.if_index)
        };
        dataplane.set_devices(&[(one, 0), (two, 1)]).unwrap();
        assert_eq!(numbers(), [(one, 0), (two, 1)]);
        assert_eq!((egress(one), egress(two)), (Some(one), Some(two)));
        ip("link del one");
        dataplane.set_devices(&[(two, 0)]).unwrap();
        assert_eq!(numbers(), [(two, 0)]);
        assert_eq!((egress(one), egress(two)), (None, Some(two)));
        dataplane.set_devices(&[]).unwrap();
        assert!(numbers().is_empty() && egress(two).is_none());
    });
}

#[test]
fn both_clocks_go_on_together() {
    sandbox(|sandbox| {
        let dataplane = sandbox.open();
        let hz = dataplane.hz().unwrap();
        assert!([100, 250, 300, 1000].contains(&hz), "{hz}");
        let first = dataplane.clock().unwrap();
        let mut second = dataplane.clock().unwrap();
        while second.jiffies == first.jiffies {
            second = dataplane.clock().unwrap();
        }
        assert!(second.jiffies > first.jiffies, "{first:?} {second:?}");
        assert!(second.nanoseconds > first.nanoseconds, "{first:?} {second:?}");
    });
}

#[tokio::test]
async fn a_grace_period_passes() {
    super::super::grace().await;
}
