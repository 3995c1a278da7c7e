//! With which capabilities it works, and without which not (fault-cases F42).

use super::{
    super::detach_all,
    sandbox::{sandbox, veth},
};
use crate::config::model::XdpMode;

/// Capability numbers (capabilities(7)) that suffice, and their names.
const NEEDED: [(u32, &str); 3] = [(39, "CAP_BPF"), (38, "CAP_PERFMON"), (12, "CAP_NET_ADMIN")];

#[test]
fn the_named_capabilities_suffice() {
    sandbox(|sandbox| {
        let nic = veth("nic", "far");
        keep_capabilities(&NEEDED.map(|(number, _)| number));
        let mut dataplane = sandbox.open();
        dataplane.attach(nic, "nic", XdpMode::Native, false).unwrap();
        dataplane.clock().unwrap();
        dataplane.dump_pins(true).unwrap();
        assert_eq!(dataplane.attachments().len(), 1);
        drop(dataplane);
        sandbox.open().attach(nic, "nic", XdpMode::Native, false).unwrap();
        detach_all(&sandbox.root()).unwrap();
    });
}

#[test]
fn a_missing_capability_is_named() {
    for (without, name) in NEEDED {
        sandbox(|sandbox| {
            let others: Vec<u32> =
                NEEDED.map(|(number, _)| number).into_iter().filter(|n| *n != without).collect();
            keep_capabilities(&others);
            let message = sandbox.refused(&sandbox.options()).to_string();
            assert!(message.contains(&format!("lb needs {name} to load")), "{message}");
        });
    }
}

/// Gives all other capabilities of this thread away.
fn keep_capabilities(numbers: &[u32]) {
    const VERSION_3: u32 = 0x2008_0522;
    let mask = numbers.iter().fold(0u64, |mask, number| mask | 1 << number);
    let (low, high) = (mask as u32, (mask >> 32) as u32);
    let header = [VERSION_3, 0];
    // Effective, permitted, inheritable: the low halves, then the high ones.
    let data = [low, low, 0, high, high, 0];
    // SAFETY: capset(2) reads a header of 8 and data of 24 bytes; it changes this thread only, which ends with the test.
    let result = unsafe { libc::syscall(libc::SYS_capset, (&raw const header), (&raw const data)) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
