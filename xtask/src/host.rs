//! What this machine lets us do: root, and BPF in the kernel.

use std::{fs, io};

use anyhow::{Result, bail};

/// Whether we run as root (effective user id 0).
pub fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// An error in one sentence unless we are root and the kernel takes XDP programs.
pub fn require(purpose: &str) -> Result<()> {
    match problem() {
        None => Ok(()),
        Some(problem) => bail!("{purpose} {problem}"),
    }
}

/// What keeps this machine from running XDP programs; reads as the end of "running lb ...".
pub fn problem() -> Option<String> {
    if !is_root() {
        return Some(
            "needs root: become root (or use `sudo env PATH=\"$PATH\" cargo xtask ...`) and run it again".into(),
        );
    }
    match load_trivial_program() {
        Ok(()) => None,
        Err(error) => Some(explain(&error)),
    }
}

fn explain(error: &io::Error) -> String {
    let remedy = match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "this kernel is built without it (CONFIG_BPF_SYSCALL); use a Linux kernel from 6.1 on"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "it is not allowed here; a container needs `--privileged` (CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN)"
        }
        _ => "use a Linux kernel from 6.1 on with CONFIG_BPF_SYSCALL and CONFIG_BPF_JIT",
    };
    format!(
        "needs BPF, but the kernel ({}) refuses to load an XDP program ({error}): {remedy}",
        kernel_release()
    )
}

fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// The part of the kernel's `union bpf_attr` that BPF_PROG_LOAD has had since Linux 4.1 (all later fields zero).
#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// Loads `return XDP_PASS` and lets go of it again.
fn load_trivial_program() -> io::Result<()> {
    const BPF_PROG_LOAD: libc::c_long = 5;
    const BPF_PROG_TYPE_XDP: u32 = 6;
    // `r0 = 2 (XDP_PASS)`: opcode 0xb7, registers, offset, 32-bit immediate; `exit`: opcode 0x95.
    const PROGRAM: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let mut program = PROGRAM;
    if cfg!(target_endian = "big") {
        program[0][4..8].copy_from_slice(&2u32.to_be_bytes());
    }
    let load = ProgramLoad {
        program_type: BPF_PROG_TYPE_XDP,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..ProgramLoad::default()
    };
    // SAFETY: `load` is a valid prefix of bpf_attr of the length given; `program` and the licence outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<ProgramLoad>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new file descriptor that nothing else owns.
    unsafe { libc::close(result as libc::c_int) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_one_sentence_with_a_remedy() {
        for (code, word) in [(libc::ENOSYS, "CONFIG_BPF_SYSCALL"), (libc::EPERM, "--privileged")] {
            let text = explain(&io::Error::from_raw_os_error(code));
            assert!(text.contains(word) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn root_is_told_from_others() {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
        assert_eq!(is_root(), uid.split_whitespace().nth(1) == Some("0"), "{uid}");
    }
}
