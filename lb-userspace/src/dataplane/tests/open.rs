//! Opening: fresh, over what an earlier daemon has left, and what is refused (fault-cases F41, F43, S15).

use std::{fs, os::unix::fs::MetadataExt as _};

use aya::{EbpfLoader, maps::Array, programs::Xdp};
use lb_common::{
    abi::{
        Address, BackendId, BackendRow, Phase, ReplyRow, ServiceRow, Slot, key_kind, map, program,
    },
    be::Be16,
};

use super::{
    super::{Dataplane, EntryKey, LoadError, Lock, LockError, Options, Sizes, layout, options},
    sandbox::{names, sandbox, veth},
};
use crate::config::model::XdpMode;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_OBJECT_BALANCER"));

#[test]
fn a_new_data_plane_is_pinned_and_for_its_owner_alone() {
    sandbox(|sandbox| {
        let dataplane = sandbox.open();
        assert!(!dataplane.adopted());
        assert_eq!(dataplane.sizes(), sandbox.options().sizes);
        let pins = sandbox.pins();
        for directory in [sandbox.root(), pins.version(), pins.maps(), pins.links()] {
            let mode = fs::metadata(&directory).unwrap().mode() & 0o7777;
            assert_eq!(mode, 0o700, "{} has {mode:o}", directory.display());
        }
        let wanted = layout::wanted(&sandbox.options());
        for map in &wanted {
            let path = pins.maps().join(map.name);
            let mode = fs::metadata(&path).unwrap().mode() & 0o7777;
            assert_eq!(mode, 0o600, "{} has {mode:o}", map.name);
            assert_eq!(layout::compare(&path, map).unwrap(), map.entries, "{}", map.name);
        }
        let mut expected: Vec<&str> = wanted.iter().map(|map| map.name).collect();
        expected.sort_unstable();
        assert_eq!(names(&pins.maps()), expected, "what is pinned");
    });
}

#[test]
fn every_map_of_the_object_is_pinned_but_those_that_begin_anew() {
    sandbox(|sandbox| {
        let ebpf = EbpfLoader::new().load(OBJECT).unwrap();
        let wanted = layout::wanted(&sandbox.options());
        for (name, _) in ebpf.maps() {
            let anew = [
                "LIMITS",
                "SCRATCH",
                "FRAGMENT_IN_HAND",
                "AYA_LOGS",
                map::SOURCE_RATES,
                map::TRACE,
            ]
            .contains(&name)
                || name.starts_with("CAPTURE")
                || name.starts_with('.');
            let pinned = wanted.iter().any(|map| map.name == name);
            assert!(pinned != anew, "{name}: pinned {pinned}");
        }
    });
}

#[test]
fn a_restart_adopts_everything() {
    sandbox(|sandbox| {
        let vip = Address::from(std::net::IpAddr::from([192, 0, 2, 1]));
        let slot = Slot::new(BackendId(3), BackendId(4), Phase::Window, 77);
        let service = ServiceRow { ring: 5, slots: 11, id: 2, vip, ..ServiceRow::default() };
        let backend = BackendRow { address: vip, mtu: 1400, flags: 2, ..BackendRow::default() };
        let reply = ReplyRow { vip, row: 9, ..ReplyRow::default() };
        let port = Be16::from_host(443);
        {
            let mut dataplane = sandbox.open();
            dataplane.arena().set_slot(4098, slot);
            dataplane.services().set(16, &service);
            dataplane.backends().set(599, &backend);
            dataplane.replies().set(599, &reply);
            dataplane.publish(vip, port, 6, key_kind::SERVICE, 16).unwrap();
        }
        // A smaller configuration runs in what there is.
        let asked = Sizes {
            services: 1,
            backends: 1,
            ring_slots: 1,
            table_buckets: 1,
            pins: 1,
            pins_unconfirmed: 1,
            connections: 100,
            flows: 20,
            flows_unconfirmed: 21,
            sources: 22,
            source_addresses: 0,
            allow_prefixes: 1,
            deny_prefixes: 1,
        };
        let options = Options { sizes: asked, ..sandbox.options() };
        let dataplane = Dataplane::open(&options).unwrap();
        assert!(dataplane.adopted());
        assert_eq!(dataplane.sizes(), sandbox.options().sizes);
        assert_eq!(dataplane.arena().len(), 4099);
        assert_eq!(dataplane.arena().slot(4098), slot);
        assert_eq!(dataplane.services().get(16), service);
        assert_eq!(dataplane.backends().get(599), backend);
        assert_eq!(dataplane.replies().get(599), reply);
        let key = EntryKey { address: vip, port: 443, protocol: 6, kind: key_kind::SERVICE };
        assert_eq!(dataplane.entries(), [(key, 16)]);
    });
}

#[test]
fn a_larger_configuration_is_told_which_limit_and_what_to_do() {
    sandbox(|sandbox| {
        drop(sandbox.open());
        let mut larger = sandbox.options();
        larger.sizes.ring_slots += 1;
        let message = sandbox.refused(&larger).to_string();
        for part in ["ARENA", "4099", "4100", "limits.ring_slots", "lb detach"] {
            assert!(message.contains(part), "no {part:?} in: {message}");
        }
        drop(sandbox.open());
    });
}

#[test]
fn sizes_that_no_map_can_have_are_refused_before_anything_is_made() {
    sandbox(|sandbox| {
        for change in [
            |sizes: &mut options::Sizes| sizes.table_buckets = 24,
            |sizes: &mut options::Sizes| sizes.pins = 0,
            |sizes: &mut options::Sizes| sizes.services = u32::MAX,
        ] {
            let mut options = sandbox.options();
            change(&mut options.sizes);
            let error = sandbox.refused(&options);
            assert!(matches!(error, LoadError::Size { .. }), "{error}");
        }
        assert!(!sandbox.root().exists());
    });
}

#[test]
fn a_pin_of_another_layout_is_refused_by_name() {
    sandbox(|sandbox| {
        drop(sandbox.open());
        let pin = sandbox.pins().maps().join(map::BACKENDS);
        let refuse = |what: &str| {
            let message = sandbox.refused(&sandbox.options()).to_string();
            for part in ["BACKENDS", what, "lb detach"] {
                assert!(message.contains(part), "no {part:?} in: {message}");
            }
        };
        fs::remove_file(&pin).unwrap();
        // A larger value: the kernel would write past the buffers of whoever reads it.
        Array::<_, [u64; 16]>::create(600, 1024).unwrap().pin(&pin).unwrap();
        refuse("value of 128");
        fs::remove_file(&pin).unwrap();
        // Cannot be mapped.
        Array::<_, [u64; 8]>::create(600, 0).unwrap().pin(&pin).unwrap();
        refuse("flags 0x0");
        fs::remove_file(&pin).unwrap();
        aya::maps::PerCpuArray::<_, [u64; 8]>::create(600, 0).unwrap().pin(&pin).unwrap();
        refuse("PerCpuArray");
        fs::remove_file(&pin).unwrap();
        // No map at all.
        let mut ebpf = EbpfLoader::new().load(OBJECT).unwrap();
        let clock: &mut Xdp = ebpf.program_mut(program::CLOCK).unwrap().try_into().unwrap();
        clock.load().unwrap();
        clock.pin(&pin).unwrap();
        let error = sandbox.refused(&sandbox.options());
        assert!(error.to_string().contains("BACKENDS"), "{error}");
    });
}

#[test]
fn pins_that_disagree_about_a_limit_are_refused() {
    sandbox(|sandbox| {
        drop(sandbox.open());
        let pin = sandbox.pins().maps().join(map::REPLIES);
        fs::remove_file(&pin).unwrap();
        Array::<_, ReplyRow>::create(599, 1024).unwrap().pin(&pin).unwrap();
        let asked = Sizes { backends: 10, ..sandbox.options().sizes };
        let error = sandbox.refused(&Options { sizes: asked, ..sandbox.options() });
        assert!(matches!(error, LoadError::TooSmall { .. }), "{error}");
    });
}

#[test]
fn a_missing_pin_is_refused_while_a_nic_is_attached_and_else_begins_anew() {
    sandbox(|sandbox| {
        let nic = veth("nic", "far");
        let pin = sandbox.pins().maps().join(map::ARENA);
        {
            let mut dataplane = sandbox.open();
            dataplane.attach(nic, "nic", XdpMode::Native, false).unwrap();
            dataplane.arena().set_slot(0, Slot::settled(BackendId(1)));
        }
        fs::remove_file(&pin).unwrap();
        let message = sandbox.refused(&sandbox.options()).to_string();
        assert!(message.contains("ARENA") && message.contains("lb detach"), "{message}");
        fs::remove_file(sandbox.pins().links().join("nic:native")).unwrap();
        // As a crash leaves it in the middle of the first start.
        let dataplane = sandbox.open();
        assert!(!dataplane.adopted());
        assert_eq!(dataplane.arena().slot(0), Slot::default());
    });
}

#[test]
fn one_daemon_at_a_time() {
    sandbox(|sandbox| {
        let run = sandbox.directory.join("run");
        let lock = Lock::acquire(&run).unwrap();
        match Lock::acquire(&run) {
            Err(error @ LockError::Running { .. }) => {
                let message = error.to_string();
                let pid = format!("already running (pid {})", std::process::id());
                assert!(message.contains(&pid), "{message}");
            }
            other => panic!("{:?}", other.err()),
        }
        // With another run directory, the pins tell.
        let first = sandbox.open();
        let error = sandbox.refused(&sandbox.options());
        assert!(matches!(error, LoadError::InUse { .. }), "{error}");
        drop((first, lock));
        assert!(sandbox.open().adopted());
        Lock::acquire(&run).unwrap();
    });
}
