//! The pin tables.

use std::{collections::HashMap as Std, net::IpAddr};

use aya::maps::{HashMap, MapData};
use lb_common::{
    abi::{BackendId, FlowKey, Pin, map},
    be::Be16,
};

use super::sandbox::sandbox;

fn flow(number: u32) -> FlowKey {
    FlowKey {
        source: IpAddr::from((0x0a00_0000 + number).to_be_bytes()).into(),
        destination: IpAddr::from([192, 0, 2, 1]).into(),
        source_port: Be16::from_host(number as u16),
        destination_port: Be16::from_host(443),
        protocol: 6,
        _pad: [0; 3],
    }
}

fn pin(number: u32) -> Pin {
    Pin { backend: BackendId(number + 1), last_seen: u64::from(number), ..Pin::default() }
}

#[test]
fn a_hundred_thousand_pins_are_dumped_each_once() {
    const PINS: u32 = 100_000;
    sandbox(|sandbox| {
        let dataplane = sandbox.open();
        assert!(dataplane.dump_pins(true).unwrap().is_empty());
        // As packets make them.
        let mut kernel: HashMap<MapData, FlowKey, Pin> = sandbox.map(map::PINS);
        for number in 0..PINS {
            kernel.insert(&flow(number), &pin(number), 0).unwrap();
        }
        let dumped = dataplane.dump_pins(true).unwrap();
        assert_eq!(dumped.len(), PINS as usize);
        let dumped: Std<FlowKey, Pin> = dumped.into_iter().collect();
        assert_eq!(dumped.len(), PINS as usize, "some were dumped twice");
        for number in 0..PINS {
            assert_eq!(dumped.get(&flow(number)), Some(&pin(number)), "pin {number}");
        }
        assert!(dataplane.dump_pins(false).unwrap().is_empty());
    });
}

#[test]
fn a_dump_under_change_misses_no_pin_that_stays() {
    const PINS: u32 = 5_000;
    sandbox(|sandbox| {
        let dataplane = sandbox.open();
        let mut kernel: HashMap<MapData, FlowKey, Pin> = sandbox.map(map::PINS);
        for number in 0..PINS {
            kernel.insert(&flow(number), &pin(number), 0).unwrap();
        }
        let end = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !end.load(std::sync::atomic::Ordering::Relaxed) {
                    for number in PINS..PINS + 1000 {
                        kernel.insert(&flow(number), &pin(number), 0).unwrap();
                    }
                    for number in PINS..PINS + 1000 {
                        kernel.remove(&flow(number)).unwrap();
                    }
                }
            });
            let dumps: Vec<_> = (0..20).map(|_| dataplane.dump_pins(true)).collect();
            end.store(true, std::sync::atomic::Ordering::Relaxed);
            for dump in dumps {
                let dump: Std<FlowKey, Pin> = dump.unwrap().into_iter().collect();
                let missing = (0..PINS).filter(|number| !dump.contains_key(&flow(*number))).count();
                assert_eq!(missing, 0, "of {} dumped", dump.len());
            }
        });
    });
}

#[test]
fn single_pins_are_read_and_removed() {
    sandbox(|sandbox| {
        let mut dataplane = sandbox.open();
        let mut kernel: HashMap<MapData, FlowKey, Pin> = sandbox.map(map::PINS_NEW);
        kernel.insert(&flow(1), &pin(1), 0).unwrap();
        assert_eq!(dataplane.pin(false, &flow(1)).unwrap(), Some(pin(1)));
        assert_eq!(dataplane.pin(true, &flow(1)).unwrap(), None);
        assert_eq!(dataplane.dump_pins(false).unwrap(), [(flow(1), pin(1))]);
        dataplane.delete_pin(true, &flow(1)).unwrap();
        assert_eq!(dataplane.pin(false, &flow(1)).unwrap(), Some(pin(1)));
        dataplane.delete_pin(false, &flow(1)).unwrap();
        dataplane.delete_pin(false, &flow(1)).unwrap();
        assert_eq!(dataplane.pin(false, &flow(1)).unwrap(), None);
        assert_eq!((dataplane.pin_limit(true), dataplane.pin_limit(false)), (150_000, 1000));
    });
}
