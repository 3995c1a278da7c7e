//! The two commands of bpf(2) that only an operator's hand would give.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

const OBJ_GET: libc::c_int = 7;
const LINK_DETACH: libc::c_int = 34;

/// `bpftool link detach pinned PIN`
pub fn detach_link(pin: &Path) -> io::Result<()> {
    #[repr(C)]
    struct ObjGet {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let path = CString::new(pin.as_os_str().as_encoded_bytes()).map_err(io::Error::other)?;
    let mut open = ObjGet { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: these are the command's attributes, and the path ends with a zero and outlives the call.
    let descriptor = unsafe { bpf(OBJ_GET, &mut open) }?;
    // SAFETY: the command has just returned this descriptor to us alone.
    let link = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let mut detach = link.as_raw_fd() as u32;
    // SAFETY: the command takes a descriptor and no address.
    unsafe { bpf(LINK_DETACH, &mut detach) }.map(drop)
}

/// # Safety
///
/// `attributes` must be the command's, with valid addresses.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the caller's promise; the kernel reads and writes no more than the size it is told.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, (&raw mut *attributes).cast::<u8>(), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
