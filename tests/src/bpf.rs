//! Commands of bpf(2) that only an operator's hand would give.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::Path,
};

const MAP_LOOKUP: libc::c_int = 1;
const MAP_GET_NEXT_KEY: libc::c_int = 4;
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

#[repr(C)]
struct Element {
    map: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The key after `key` (`None` = the first one) of a map whose keys have `size` bytes.
pub fn next_key(map: RawFd, key: Option<&[u8]>, size: usize) -> io::Result<Option<Vec<u8>>> {
    let mut next = vec![0; size];
    let from = key.map_or(0, |key| key.as_ptr() as u64);
    let value = next.as_mut_ptr() as u64;
    let mut element = Element { map: map as u32, _pad: 0, key: from, value, flags: 0 };
    // SAFETY: these are the command's attributes; it reads a key, if there is one, and writes one, both of `size` bytes.
    match unsafe { bpf(MAP_GET_NEXT_KEY, &mut element) } {
        Ok(_) => Ok(Some(next)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The value of a key, `size` bytes with those of all CPUs; `None` = there is none.
pub fn look_up(map: RawFd, key: &[u8], size: usize) -> io::Result<Option<Vec<u8>>> {
    let mut found = vec![0; size];
    let (from, value) = (key.as_ptr() as u64, found.as_mut_ptr() as u64);
    let mut element = Element { map: map as u32, _pad: 0, key: from, value, flags: 0 };
    // SAFETY: these are the command's attributes; it reads the key and writes a value of `size` bytes.
    match unsafe { bpf(MAP_LOOKUP, &mut element) } {
        Ok(_) => Ok(Some(found)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes ever put into a ring buffer: the producer's position, in its second page.
pub fn ring_written(map: RawFd) -> io::Result<u64> {
    const PAGE: usize = 4_096;
    // SAFETY: a new mapping for reading, of a page that every ring buffer has.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ,
            libc::MAP_SHARED,
            map,
            PAGE as libc::off_t,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page begins with that word, and is ours until it is unmapped.
    let written = unsafe { page.cast::<u64>().read_volatile() };
    // SAFETY: what was mapped above, and nobody uses any more.
    unsafe { libc::munmap(page, PAGE) };
    Ok(written)
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
