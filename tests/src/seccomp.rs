//! Kernels that do not know a system call, or a command of bpf(2): a seccomp filter answers in their place.

use std::{io, os::unix::process::CommandExt as _, process::Command};

/// Makes a link (Linux 5.7; for XDP 5.9).
pub const BPF_LINK_CREATE: u32 = 28;

/// The process and its children get `errno` from this command of bpf(2).
pub fn refuse_bpf_command(command: &mut Command, of_bpf: u32, errno: i32) {
    install(command, Some(of_bpf), errno);
}

/// They get it from every command.
pub fn refuse_bpf(command: &mut Command, errno: i32) {
    install(command, None, errno);
}

fn install(command: &mut Command, of_bpf: Option<u32>, errno: i32) {
    let filter = filter(of_bpf, errno);
    let work = move || {
        let program =
            libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program points to as many instructions as it says, which live until the call returns.
        let result = unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: prctl is async-signal-safe; the closure allocates nothing, and reads only what it owns.
    unsafe {
        command.pre_exec(work);
    }
}

/// Loads words of `struct seccomp_data` (the number at 0, the lower half of the first argument at 16) and compares them.
fn filter(of_bpf: Option<u32>, errno: i32) -> Vec<libc::sock_filter> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let refuse = libc::SECCOMP_RET_ERRNO | (errno as u32 & libc::SECCOMP_RET_DATA);
    let mut filter = vec![step(LOAD, 0, 0, 0)];
    match of_bpf {
        Some(of_bpf) => filter.extend([
            step(IS, libc::SYS_bpf as u32, 0, 3),
            step(LOAD, 16, 0, 0),
            step(IS, of_bpf, 0, 1),
        ]),
        None => filter.push(step(IS, libc::SYS_bpf as u32, 0, 1)),
    }
    filter.extend([step(RETURN, refuse, 0, 0), step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0)]);
    filter
}
