//! Programs and NICs (fault-cases F26, F44, F45, F46).

use std::fs;

use aya::{
    Ebpf, EbpfLoader,
    programs::{Xdp, XdpMode as Mode},
};
use lb_common::abi::{BackendId, Slot, program};

use super::{
    super::{AttachError, AttachMode, Attachment, Dataplane, attachments_of, detach_all, syscall},
    sandbox::{Sandbox, ifindex, ip, names, program_on, sandbox, veth},
};
use crate::config::model::XdpMode;

#[test]
fn the_program_outlives_the_daemon_and_is_replaced_in_its_link() {
    sandbox(|sandbox| {
        let nic = veth("nic", "far");
        let first = {
            let mut dataplane = sandbox.open();
            let mode = dataplane.attach(nic, "nic", XdpMode::Native, false).unwrap();
            assert_eq!(mode, AttachMode::Native);
            let info = dataplane.program_info().unwrap();
            assert!(info.jitted_bytes > 0 && info.verified_instructions > 0, "{info:?}");
            assert_eq!(dataplane.attachments(), [attachment("nic", nic, info.id, true)]);
            info.id
        };
        assert_eq!(program_on(nic), first, "after the daemon");
        let link = link_id(sandbox, "nic:native");

        let mut dataplane = sandbox.open();
        assert_eq!(dataplane.attachments(), [attachment("nic", nic, first, false)]);
        dataplane.attach(nic, "nic", XdpMode::Auto, false).unwrap();
        let second = dataplane.program_info().unwrap().id;
        assert_ne!(second, first);
        assert_eq!(program_on(nic), second);
        assert_eq!(link_id(sandbox, "nic:native"), link, "the link was replaced, not its program");

        dataplane.detach("nic").unwrap();
        assert_eq!(program_on(nic), 0);
        assert!(dataplane.attachments().is_empty());
        dataplane.attach(nic, "nic", XdpMode::Native, false).unwrap();
        assert_eq!(program_on(nic), second);
    });
}

#[test]
fn a_program_with_other_features_takes_over_with_the_same_maps() {
    sandbox(|sandbox| {
        let nic = veth("nic", "far");
        let mut options = sandbox.options();
        options.have_nat = false;
        let mut dataplane = Dataplane::open(&options).unwrap();
        dataplane.attach(nic, "nic", XdpMode::Native, false).unwrap();
        let slot = Slot::settled(BackendId(5));
        dataplane.arena().set_slot(1, slot);
        let before = program_on(nic);
        assert!(!dataplane.has_features(&sandbox.options()));
        dataplane.reload_program(&sandbox.options()).unwrap();
        assert!(dataplane.has_features(&sandbox.options()));
        let after = program_on(nic);
        assert!(after != 0 && after != before, "{before} -> {after}");
        assert_eq!(dataplane.attachments(), [attachment("nic", nic, after, true)]);
        assert_eq!(dataplane.arena().slot(1), slot);
        dataplane.clock().unwrap();
    });
}

#[test]
fn a_nic_that_was_made_anew_is_attached_anew() {
    sandbox(|sandbox| {
        let old = veth("nic", "far");
        let mut dataplane = sandbox.open();
        dataplane.attach(old, "nic", XdpMode::Native, false).unwrap();
        ip("link del nic");
        let [gone] = &dataplane.attachments()[..] else { panic!("{:?}", dataplane.attachments()) };
        assert_eq!((gone.ifindex, gone.ours), (0, false), "{gone:?}");
        let other = veth("other", "other-far");
        let new = veth("nic", "far");
        assert_ne!(new, old);
        dataplane.attach(new, "nic", XdpMode::Native, false).unwrap();
        let id = dataplane.program_info().unwrap().id;
        assert_eq!(dataplane.attachments(), [attachment("nic", new, id, true)]);
        assert_eq!(names(&sandbox.pins().links()), ["nic:native"]);
        assert_eq!(program_on(other), 0);
    });
}

#[test]
fn renamed_nics_and_names_with_dots_keep_their_link() {
    sandbox(|sandbox| {
        let nic = veth("nic.100", "far");
        let mut dataplane = sandbox.open();
        dataplane.attach(nic, "nic.100", XdpMode::Native, false).unwrap();
        let id = dataplane.program_info().unwrap().id;
        assert_eq!(dataplane.attachments(), [attachment("nic.100", nic, id, true)]);
        ip("link set nic.100 down");
        ip("link set nic.100 name wan.7");
        dataplane.attach(nic, "wan.7", XdpMode::Native, false).unwrap();
        assert_eq!(dataplane.attachments(), [attachment("wan.7", nic, id, true)]);
        dataplane.detach("wan.7").unwrap();
        assert!(names(&sandbox.pins().links()).is_empty());
        assert_eq!(program_on(nic), 0);
    });
}

#[test]
fn somebody_elses_program_stays_unless_forced() {
    sandbox(|sandbox| {
        let nic = veth("nic", "far");
        let mut dataplane = sandbox.open();
        for generic in [false, true] {
            let mut other = foreign();
            let id = {
                let program = xdp(&mut other);
                let id = program.info().unwrap().id();
                program.pin(sandbox.bpffs.join("other")).unwrap();
                id
            };
            let mode = if generic { "xdpgeneric" } else { "xdp" };
            let pin = sandbox.bpffs.join("other");
            ip(&format!("link set dev nic {mode} pinned {}", pin.display()));
            assert_eq!(program_on(nic), id);
            for wanted in [XdpMode::Native, XdpMode::Auto, XdpMode::Generic] {
                let error = dataplane.attach(nic, "nic", wanted, false).unwrap_err();
                assert!(matches!(error, AttachError::Occupied { .. }), "{error}");
                let message = error.to_string();
                assert!(message.contains(&format!("XDP program {id} (decap)")), "{message}");
                assert!(message.contains("--force"), "{message}");
                assert_eq!(program_on(nic), id, "it was replaced");
            }
            assert!(names(&sandbox.pins().links()).is_empty());
            dataplane.attach(nic, "nic", XdpMode::Native, true).unwrap();
            assert_eq!(program_on(nic), dataplane.program_info().unwrap().id);
            dataplane.detach("nic").unwrap();
            fs::remove_file(pin).unwrap();
        }
    });
}

#[test]
fn a_link_of_somebody_else_cannot_be_forced_off() {
    sandbox(|sandbox| {
        let nic = veth("nic", "far");
        let mut other = foreign();
        let program = xdp(&mut other);
        program.attach_to_if_index(nic, Mode::Driver).unwrap();
        let id = program.info().unwrap().id();
        let message =
            sandbox.open().attach(nic, "nic", XdpMode::Native, true).unwrap_err().to_string();
        assert!(message.contains("a BPF link of its owner holds it"), "{message}");
        assert_eq!(program_on(nic), id);
    });
}

#[test]
fn native_mode_is_refused_with_a_remedy_and_auto_falls_back() {
    sandbox(|sandbox| {
        let mut dataplane = sandbox.open();
        let jumbo = veth("jumbo", "far");
        ip("link set far mtu 9000");
        ip("link set jumbo mtu 9000");
        for (name, nic) in [("lo", ifindex("lo")), ("jumbo", jumbo)] {
            let error = dataplane.attach(nic, name, XdpMode::Native, false).unwrap_err();
            assert!(matches!(error, AttachError::Native { .. }), "{error}");
            let message = error.to_string();
            assert!(message.contains("xdp_mode: auto") && message.contains("MTU"), "{message}");
            assert_eq!(program_on(nic), 0);
            let mode = dataplane.attach(nic, name, XdpMode::Auto, false).unwrap();
            assert_eq!(mode, AttachMode::Generic, "{name}");
            assert_ne!(program_on(nic), 0);
        }
        ip("link set far mtu 1500");
        ip("link set jumbo mtu 1500");
        // Auto stays with what it has; native and generic are what they say.
        for (wanted, found) in [
            (XdpMode::Auto, AttachMode::Generic),
            (XdpMode::Native, AttachMode::Native),
            (XdpMode::Auto, AttachMode::Native),
            (XdpMode::Generic, AttachMode::Generic),
        ] {
            assert_eq!(dataplane.attach(jumbo, "jumbo", wanted, false).unwrap(), found);
            let modes: Vec<AttachMode> = dataplane
                .attachments()
                .into_iter()
                .filter(|attachment| attachment.ifindex == jumbo)
                .map(|attachment| attachment.mode)
                .collect();
            assert_eq!(modes, [found], "wanted {wanted:?}");
        }
    });
}

#[test]
fn a_nic_that_refuses_the_other_mode_stays_as_it_was() {
    sandbox(|sandbox| {
        let nic = ifindex("lo");
        let mut dataplane = sandbox.open();
        dataplane.attach(nic, "lo", XdpMode::Generic, false).unwrap();
        let mode = dataplane.attach(nic, "lo", XdpMode::Native, false).unwrap();
        assert_eq!(mode, AttachMode::Generic);
        assert_ne!(program_on(nic), 0);
        assert_eq!(names(&sandbox.pins().links()), ["lo:generic"]);
    });
}

#[test]
fn a_link_that_an_operator_has_detached_is_seen_and_attached_anew() {
    sandbox(|sandbox| {
        let nic = veth("nic", "far");
        let mut dataplane = sandbox.open();
        dataplane.attach(nic, "nic", XdpMode::Native, false).unwrap();
        operator_detaches(sandbox, "nic:native");
        let [found] = &dataplane.attachments()[..] else { panic!("{:?}", dataplane.attachments()) };
        assert_eq!((found.ifindex, found.ours), (0, false), "{found:?}");
        assert_eq!(program_on(nic), 0);
        dataplane.attach(nic, "nic", XdpMode::Native, false).unwrap();
        assert_eq!(program_on(nic), dataplane.program_info().unwrap().id);
    });
}

#[test]
fn detach_leaves_nothing() {
    sandbox(|sandbox| {
        let (one, two) = (veth("one", "far1"), veth("two", "far2"));
        {
            let mut dataplane = sandbox.open();
            dataplane.attach(one, "one", XdpMode::Native, false).unwrap();
            dataplane.attach(two, "two", XdpMode::Generic, false).unwrap();
            dataplane.set_devices(&[(one, 0), (two, 1)]).unwrap();
            assert!(dataplane.still_loaded());
        }
        assert_eq!(attachments_of(&sandbox.root()).len(), 2);
        detach_all(&sandbox.root()).unwrap();
        assert_eq!((program_on(one), program_on(two)), (0, 0));
        assert!(!sandbox.root().exists());
        assert!(attachments_of(&sandbox.root()).is_empty());
        detach_all(&sandbox.root()).unwrap();
        // And a start right after it finds the NICs free.
        let mut dataplane = sandbox.open();
        assert!(!dataplane.adopted());
        dataplane.attach(one, "one", XdpMode::Native, false).unwrap();
    });
}

fn attachment(ifname: &str, ifindex: u32, program: u32, ours: bool) -> Attachment {
    Attachment { ifname: ifname.to_owned(), ifindex, mode: AttachMode::Native, program, ours }
}

/// An XDP program that is not the balancer.
fn foreign() -> Ebpf {
    static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_OBJECT_DECAP"));
    let mut other = EbpfLoader::new().load(OBJECT).unwrap();
    xdp(&mut other).load().unwrap();
    other
}

fn xdp(ebpf: &mut Ebpf) -> &mut Xdp {
    ebpf.program_mut(program::DECAP).unwrap().try_into().unwrap()
}

fn link_id(sandbox: &Sandbox, name: &str) -> u32 {
    use aya::programs::links::{FdLink, PinnedLink};
    let link = PinnedLink::from_pin(sandbox.pins().links().join(name)).unwrap();
    FdLink::from(link).info().unwrap().id()
}

/// `bpftool link detach`
fn operator_detaches(sandbox: &Sandbox, name: &str) {
    use std::os::fd::AsRawFd as _;
    const LINK_DETACH: libc::c_int = 34;
    let link = syscall::open_pin(&sandbox.pins().links().join(name)).unwrap();
    let mut attributes = link.as_raw_fd() as u32;
    // SAFETY: the command takes the descriptor of a link and no address.
    unsafe { syscall::bpf(LINK_DETACH, &mut attributes) }.unwrap();
}
