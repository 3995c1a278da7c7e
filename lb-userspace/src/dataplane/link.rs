//! What the kernel says about a link: `BPF_OBJ_GET_INFO_BY_FD`, of which aya shows everything but the NIC.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

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

#[repr(C)]
#[derive(Default)]
struct ObjectAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// (program id, ifindex) of a pinned XDP link; ifindex 0 = its NIC is gone or somebody has detached it.
pub(super) fn xdp_link(pin: &Path) -> io::Result<(u32, u32)> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut attributes =
        ObjectAttributes { path: path.as_ptr() as u64, ..ObjectAttributes::default() };
    let fd = bpf(BPF_OBJ_GET, &mut attributes)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let link = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    let mut info = LinkInfo::default();
    let mut attributes = InfoAttributes {
        fd: link.as_raw_fd() as u32,
        length: size_of::<LinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok((info.program, info.ifindex))
}

/// The system call. `T` is the part of `union bpf_attr` that the command reads; what it points to outlives the call.
fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i64> {
    // SAFETY: both callers pass the structure that the command is documented to take (include/uapi/linux/bpf.h), and
    // its pointers are to buffers of theirs of the length they state.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
