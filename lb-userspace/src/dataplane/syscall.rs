//! bpf(2), for the commands that aya does not have. The structures are the parts of `union bpf_attr` that each command
//! reads (include/uapi/linux/bpf.h).

use std::{
    ffi::CString,
    io,
    os::{
        fd::{FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// Opens a pin.
const OBJ_GET: libc::c_int = 7;
/// Describes an object.
pub(super) const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
/// Makes a link of a program to what it is attached to.
const LINK_CREATE: libc::c_int = 28;
/// Reads many entries of a map.
pub(super) const MAP_LOOKUP_BATCH: libc::c_int = 24;
/// Writes many entries of a map.
pub(super) const MAP_UPDATE_BATCH: libc::c_int = 26;
/// Removes many entries of a map.
pub(super) const MAP_DELETE_BATCH: libc::c_int = 27;

#[repr(C)]
#[derive(Default)]
struct ObjectAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens a pin, whatever it is of.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes =
        ObjectAttributes { path: path.as_ptr() as u64, ..ObjectAttributes::default() };
    // SAFETY: the attributes are those of the command; the path is a C string that outlives the call.
    let fd = unsafe { bpf(OBJ_GET, &mut attributes)? };
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Asks for the pin of no path: `EFAULT` or `EINVAL` where BPF is to be had, `ENOSYS` or `EPERM` where it is not.
pub(super) fn is_available() -> io::Result<()> {
    // SAFETY: the attributes are those of the command; it refuses the null path before it opens anything.
    match unsafe { bpf(OBJ_GET, &mut ObjectAttributes::default()) } {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Asks for a link of no program: `EBADF` where there are links, `EINVAL` where the kernel does not know the command.
pub(super) fn has_links() -> bool {
    #[repr(C)]
    #[derive(Default)]
    struct LinkAttributes {
        program: i32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attributes = LinkAttributes { program: -1, ..LinkAttributes::default() };
    // SAFETY: the attributes are the first of those the command takes, and hold no addresses; it refuses the descriptor before it
    // looks for a target.
    let answer = unsafe { bpf(LINK_CREATE, &mut attributes) };
    answer.err().and_then(|error| error.raw_os_error()) != Some(libc::EINVAL)
}

/// The system call. Errors are the kernel's.
///
/// # Safety
///
/// `A` is the part of `union bpf_attr` that the command is documented to take, and every address in it is valid for what
/// the command does there until the call returns.
pub(super) unsafe fn bpf<A>(command: libc::c_int, attributes: &mut A) -> io::Result<i64> {
    // SAFETY: the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
