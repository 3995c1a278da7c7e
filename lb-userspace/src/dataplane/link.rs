//! What the kernel says about a pinned link: `BPF_OBJ_GET_INFO_BY_FD`, of which aya shows everything but the NIC.

use std::{io, os::fd::AsRawFd as _, path::Path};

use super::syscall;

const BPF_LINK_TYPE_XDP: u32 = 6;

/// The head of `struct bpf_link_info` (include/uapi/linux/bpf.h) for XDP links, padded to its size.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    _pad: u32,
    ifindex: u32,
    _rest: [u32; 15],
}

#[repr(C)]
#[derive(Default)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// (program id, ifindex) of a pinned XDP link; ifindex 0 = its NIC is gone or somebody has detached it.
pub(super) fn xdp_link(pin: &Path) -> io::Result<(u32, u32)> {
    let link = syscall::open_pin(pin)?;
    let mut info = LinkInfo::default();
    let mut attributes = InfoAttributes {
        fd: link.as_raw_fd() as u32,
        length: size_of::<LinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attributes are those of the command; it writes at most `length` bytes, all of them to `info`, which
    // takes every bit pattern.
    unsafe { syscall::bpf(syscall::OBJ_GET_INFO_BY_FD, &mut attributes)? };
    if info.kind != BPF_LINK_TYPE_XDP {
        return Err(io::Error::other(format!("{} is no XDP link", pin.display())));
    }
    Ok((info.program, info.ifindex))
}
