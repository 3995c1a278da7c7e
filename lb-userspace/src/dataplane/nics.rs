//! The data plane and its NICs.

use std::io;

use anyhow::Context as _;
use aya::programs::Xdp;
use lb_common::abi::program;

use super::{
    AttachError, AttachMode, Attachment, Dataplane, attach, detach::remove_versions, foreign,
    remove::missing_is_fine,
};
use crate::config::model::XdpMode;

/// The loaded program, as the kernel tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    /// The kernel's id of it.
    pub id: u32,
    /// Instructions the verifier has gone through to prove it safe; what each feature costs a start.
    pub verified_instructions: u32,
    /// Bytes after the verifier's rewriting.
    pub translated_bytes: u32,
    /// Bytes of machine code; 0 = interpreted, which costs several times as much.
    pub jitted_bytes: u32,
    /// Packets seen, while the kernel counts them (`sysctl kernel.bpf_stats_enabled=1`).
    pub run_count: u64,
    /// Nanoseconds spent on them.
    pub run_nanoseconds: u64,
}

impl Dataplane {
    /// Attaches a NIC, or replaces the program that an earlier daemon has left there without a packet in between. With
    /// `force`, somebody else's program is taken off first.
    pub fn attach(
        &mut self,
        ifindex: u32,
        ifname: &str,
        mode: XdpMode,
        force: bool,
    ) -> Result<AttachMode, AttachError> {
        let links = self.directory.links();
        let older = self.directory.other_links();
        let fail =
            |verb, reason: String| AttachError::Link { ifname: ifname.to_owned(), verb, reason };
        let program =
            self.balancer().map_err(|error| fail("find the program for", error.to_string()))?;
        match attach::attach(program, &links, &older, ifindex, ifname, mode) {
            Err(AttachError::Occupied { program: other, .. }) if force => {
                tracing::warn!(
                    interface = ifname,
                    program = other,
                    "taking another XDP program off, as --force says"
                );
                foreign::remove(ifindex).map_err(|error| {
                    let owner = match error.raw_os_error() {
                        Some(libc::EBUSY) => " (a BPF link of its owner holds it: end that first)",
                        _ => "",
                    };
                    fail("take the other program off", format!("{error}{owner}"))
                })?;
                attach::attach(program, &links, &older, ifindex, ifname, mode)
            }
            other => other,
        }
    }

    /// The pinned links, as the kernel sees them now.
    pub fn attachments(&self) -> Vec<Attachment> {
        let program = self.program().and_then(|program| Ok(program.info()?.id())).ok();
        attach::pinned(&self.directory.links(), program)
            .into_iter()
            .map(|(attachment, _)| attachment)
            .collect()
    }

    /// Removes what other versions have left, once this one is in force on all NICs: from those that are no longer
    /// configured, their programs.
    pub fn remove_other_versions(&self) -> io::Result<()> {
        remove_versions(&self.directory.other_versions())
    }

    /// Detaches one NIC; returns when its program is off.
    pub fn detach(&self, ifname: &str) -> io::Result<()> {
        attach::detach(&self.directory.links(), Some(ifname))
    }

    /// Makes the tables of NICs hold exactly these (ifindex, number 0..32).
    pub fn set_devices(&mut self, devices: &[(u32, u32)]) -> anyhow::Result<()> {
        let known: Vec<u32> = self.interfaces.keys().collect::<Result<_, _>>()?;
        for ifindex in known {
            if !devices.iter().any(|(wanted, _)| *wanted == ifindex) {
                missing_is_fine(self.interfaces.remove(&ifindex))?;
                // The kernel removes the entry of a device that is gone by itself.
                missing_is_fine(self.devices.remove(ifindex))?;
            }
        }
        for (ifindex, number) in devices {
            self.interfaces.insert(ifindex, number, 0)?;
            self.devices.insert(*ifindex, *ifindex, None, 0)?;
        }
        Ok(())
    }

    /// What the kernel tells of the loaded program.
    pub fn program_info(&self) -> anyhow::Result<ProgramInfo> {
        let info = self.program()?.info()?;
        Ok(ProgramInfo {
            id: info.id(),
            verified_instructions: info.verified_instruction_count().unwrap_or(0),
            translated_bytes: info.size_translated().unwrap_or(0),
            jitted_bytes: info.size_jitted(),
            run_count: info.run_count(),
            run_nanoseconds: info.run_time().as_nanos() as u64,
        })
    }

    /// The program in force.
    fn program(&self) -> anyhow::Result<&Xdp> {
        if let Some(capture) = &self.capture {
            return capture.program().with_context(missing);
        }
        let program = self.ebpf.program(program::FAST_PATH).with_context(missing)?;
        Ok(program.try_into()?)
    }

    fn balancer(&mut self) -> anyhow::Result<&mut Xdp> {
        if let Some(capture) = &mut self.capture {
            return capture.program_mut().with_context(missing);
        }
        let program = self.ebpf.program_mut(program::FAST_PATH).with_context(missing)?;
        Ok(program.try_into()?)
    }
}

fn missing() -> String {
    format!("the object has no program `{}`", program::FAST_PATH)
}
