//! Program and NIC: attach, replace, detach. Links are pinned as `links/<NIC>:<mode>`, so that they outlive the daemon.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use aya::programs::{
    ProgramError, Xdp, XdpMode as Mode,
    links::{FdLink, LinkError, PinnedLink},
    xdp::XdpLink,
};

use super::link;
use crate::config::model::XdpMode;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// One pinned link, as the kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// NIC's name when it was attached.
    pub ifname: String,
    /// NIC's index; 0 = detached by somebody else, or the NIC is gone.
    pub ifindex: u32,
    /// How.
    pub mode: AttachMode,
    /// Program id.
    pub program: u32,
    /// It is this daemon's program.
    pub ours: bool,
}

/// Why a NIC is not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The slot is taken.
    #[error(
        "NIC {ifname} already runs {program}, an XDP program that is not lb's; remove it with its own tool or `ip link set dev {ifname} xdp off`, or start lb with --force"
    )]
    Occupied {
        /// The NIC.
        ifname: String,
        /// `XDP program 12 (name)`.
        program: String,
    },
    /// The driver refuses.
    #[error(
        "native XDP refused by the driver of {ifname}: {reason}; lower its MTU (usually to 3,500 or less) if it is larger, or say `xdp_mode: auto` to fall back to the slower generic mode"
    )]
    Native {
        /// The NIC.
        ifname: String,
        /// The kernel's word.
        reason: String,
    },
    /// Generic mode is refused, too.
    #[error("XDP refused on {ifname} in generic mode: {reason}")]
    Generic {
        /// The NIC.
        ifname: String,
        /// The kernel's word.
        reason: String,
    },
    /// Pinning or reading a link failed.
    #[error("cannot {verb} the link of {ifname}: {reason}")]
    Link {
        /// The NIC.
        ifname: String,
        /// What was tried.
        verb: &'static str,
        /// The kernel's word.
        reason: String,
    },
}

/// Path of a link's pin.
fn pin_path(links: &Path, ifname: &str, mode: AttachMode) -> PathBuf {
    links.join(format!("{ifname}:{mode}"))
}

/// The pinned links of a directory.
pub(super) fn pinned(links: &Path, program: Option<u32>) -> Vec<(Attachment, PathBuf)> {
    let Ok(entries) = fs::read_dir(links) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let file = entry.file_name().into_string().ok()?;
            let (ifname, mode) = file.rsplit_once(':')?;
            let mode = if mode == "native" { AttachMode::Native } else { AttachMode::Generic };
            let (id, ifindex) = link::xdp_link(&entry.path()).ok()?;
            let ours = ifindex != 0 && program.is_none_or(|program| program == id);
            let attachment =
                Attachment { ifname: ifname.to_owned(), ifindex, mode, program: id, ours };
            Some((attachment, entry.path()))
        })
        .collect()
}

/// Attaches `program`, or puts it in the place of an earlier one of ours without a packet in between.
pub(super) fn attach(
    program: &mut Xdp,
    links: &Path,
    ifindex: u32,
    ifname: &str,
    mode: XdpMode,
) -> Result<AttachMode, AttachError> {
    let fail = |verb, reason: String| AttachError::Link { ifname: ifname.to_owned(), verb, reason };
    for (attachment, path) in pinned(links, None) {
        if attachment.ifname != ifname && attachment.ifindex != ifindex {
            continue;
        }
        if attachment.ifindex == ifindex && attachment.ifname == ifname {
            return replace(program, &path)
                .map(|()| attachment.mode)
                .map_err(|e| fail("replace", e));
        }
        // Its NIC is gone, was made anew under another index, or has another name now.
        fs::remove_file(&path).map_err(|error| fail("remove the old pin of", error.to_string()))?;
    }
    let native = match mode {
        XdpMode::Generic => None,
        XdpMode::Native | XdpMode::Auto => {
            Some(try_mode(program, links, ifindex, ifname, AttachMode::Native))
        }
    };
    match (native, mode) {
        (Some(Ok(())), _) => return Ok(AttachMode::Native),
        (Some(Err(error)), _) if is_busy(&error) => return Err(occupied(ifname, ifindex)),
        (Some(Err(error)), XdpMode::Native) => {
            return Err(AttachError::Native { ifname: ifname.to_owned(), reason: reason(&error) });
        }
        (Some(Err(error)), _) => {
            tracing::warn!(
                interface = ifname,
                reason = reason(&error),
                "no native XDP, falling back to generic mode"
            );
        }
        (None, _) => {}
    }
    match try_mode(program, links, ifindex, ifname, AttachMode::Generic) {
        Ok(()) => Ok(AttachMode::Generic),
        Err(error) if is_busy(&error) => Err(occupied(ifname, ifindex)),
        Err(error) => {
            Err(AttachError::Generic { ifname: ifname.to_owned(), reason: reason(&error) })
        }
    }
}

fn replace(program: &mut Xdp, path: &Path) -> Result<(), String> {
    let link = PinnedLink::from_pin(path).map_err(|error| error.to_string())?;
    let link = XdpLink::try_from(FdLink::from(link)).map_err(|error| error.to_string())?;
    let id = program.attach_to_link(link).map_err(|error| reason(&error))?;
    // Taken out of the program, or dropping that would detach it; the pin keeps it.
    program.take_link(id).map_err(|error| error.to_string()).map(forget)
}

/// Closes our descriptor of a pinned link without detaching it.
fn forget(link: XdpLink) {
    if let Ok(link) = FdLink::try_from(link) {
        drop(link);
    }
}

fn try_mode(
    program: &mut Xdp,
    links: &Path,
    ifindex: u32,
    ifname: &str,
    mode: AttachMode,
) -> Result<(), ProgramError> {
    let flags = match mode {
        AttachMode::Native => Mode::Driver,
        AttachMode::Generic => Mode::Skb,
    };
    let id = program.attach_to_if_index(ifindex, flags)?;
    let link = program.take_link(id)?;
    let link: FdLink = link
        .try_into()
        .map_err(|error: LinkError| ProgramError::IOError(io::Error::other(error.to_string())))?;
    link.pin(pin_path(links, ifname, mode))
        .map(drop)
        .map_err(|error| ProgramError::IOError(io::Error::other(error.to_string())))
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::IOError(error) => error.raw_os_error(),
        _ => None,
    }
}

fn is_busy(error: &ProgramError) -> bool {
    matches!(errno(error), Some(libc::EBUSY | libc::EEXIST))
}

fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::SyscallError(error) => error.io_error.to_string(),
        error => error.to_string(),
    }
}

fn occupied(ifname: &str, ifindex: u32) -> AttachError {
    let program = match super::foreign::program_on(ifindex) {
        Some((id, name)) => format!("XDP program {id} ({name})"),
        None => "an XDP program".to_owned(),
    };
    AttachError::Occupied { ifname: ifname.to_owned(), program }
}

/// Detaches one NIC.
pub(super) fn detach(links: &Path, ifname: &str) -> io::Result<()> {
    for (attachment, path) in pinned(links, None) {
        if attachment.ifname == ifname {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
