//! Program and NIC: attach, replace, detach. Links are pinned as `links/<NIC>:<mode>`, so that they outlive the daemon.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::programs::{
    ProgramError, Xdp, XdpError, XdpMode as Mode,
    links::{FdLink, LinkError, PinnedLink},
    xdp::XdpLink,
};

use super::{error::chain, foreign, link};
use crate::config::model::XdpMode;

/// How long the kernel may take to detach a link that nobody holds any more (some 30 ms when busy).
const TAKE_OFF: Duration = Duration::from_secs(2);

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

impl AttachMode {
    /// Whether a link in this mode is what the configuration wants.
    pub fn suits(self, wanted: XdpMode) -> bool {
        match wanted {
            XdpMode::Auto => true,
            XdpMode::Native => self == Self::Native,
            XdpMode::Generic => self == Self::Generic,
        }
    }
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

/// Path of a link's pin. Names on a bpffs have no dots, those of NICs (`eth0.100`) no colons.
fn pin_path(links: &Path, ifname: &str, mode: AttachMode) -> PathBuf {
    links.join(format!("{}:{mode}", encoded(ifname)))
}

/// A NIC's name as a bpffs takes it.
pub(super) fn encoded(ifname: &str) -> String {
    ifname.replace('.', "::")
}

/// The NIC's name back.
pub(super) fn decoded(file: &str) -> String {
    file.replace("::", ".")
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
                Attachment { ifname: decoded(ifname), ifindex, mode, program: id, ours };
            Some((attachment, entry.path()))
        })
        .collect()
}

/// Attaches `program`, or puts it in the place of an earlier one of ours, whose link may be in one of the `older`
/// directories, without a packet in between.
pub(super) fn attach(
    program: &mut Xdp,
    links: &Path,
    older: &[PathBuf],
    ifindex: u32,
    ifname: &str,
    mode: XdpMode,
) -> Result<AttachMode, AttachError> {
    let fail = |verb, reason: String| AttachError::Link { ifname: ifname.to_owned(), verb, reason };
    let mut other_mode = None;
    let earlier = older.iter().flat_map(|links| pinned(links, None));
    for (attachment, path) in pinned(links, None).into_iter().chain(earlier) {
        if attachment.ifindex == ifindex {
            if attachment.mode.suits(mode) {
                replace(program, &path).map_err(|reason| fail("replace", reason))?;
                return rename(links, &path, ifname, attachment.mode)
                    .map_err(|error| fail("rename the pin of", error.to_string()));
            }
            // The kernel runs one mode at a time: the NIC is without a program for a moment.
            take_off(&attachment, &path).map_err(|error| fail("detach", error.to_string()))?;
            other_mode = Some(attachment.mode);
        } else if attachment.ifname == ifname {
            // Its NIC is gone, was made anew under another index, or has another name now.
            fs::remove_file(&path)
                .map_err(|error| fail("remove the old pin of", error.to_string()))?;
        }
    }
    let result = attach_anew(program, links, ifindex, ifname, mode);
    if let (Err(error), Some(mode)) = (&result, other_mode) {
        match try_mode(program, links, ifindex, ifname, mode) {
            Ok(()) => {
                tracing::error!(interface = ifname, %error, "the NIC stays in {mode} mode");
                return Ok(mode);
            }
            Err(again) => tracing::error!(
                interface = ifname,
                reason = reason(&again),
                "the NIC could not be put back into {mode} mode"
            ),
        }
    }
    result
}

/// Gives a pin the name of its NIC, which may have been renamed.
fn rename(links: &Path, pin: &Path, ifname: &str, mode: AttachMode) -> io::Result<AttachMode> {
    let wanted = pin_path(links, ifname, mode);
    if pin != wanted {
        fs::rename(pin, wanted)?;
    }
    Ok(mode)
}

fn attach_anew(
    program: &mut Xdp,
    links: &Path,
    ifindex: u32,
    ifname: &str,
    mode: XdpMode,
) -> Result<AttachMode, AttachError> {
    if mode != XdpMode::Generic {
        match try_mode(program, links, ifindex, ifname, AttachMode::Native) {
            Ok(()) => return Ok(AttachMode::Native),
            Err(error) if is_busy(&error) => return Err(occupied(ifname, ifindex)),
            Err(error) if mode == XdpMode::Native => {
                return Err(AttachError::Native {
                    ifname: ifname.to_owned(),
                    reason: reason(&error),
                });
            }
            Err(error) => tracing::warn!(
                interface = ifname,
                reason = reason(&error),
                "no native XDP, falling back to generic mode"
            ),
        }
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
    // Taken out of the program, to close our descriptor only: the pin keeps the link.
    program.take_link(id).map_err(|error| error.to_string()).map(drop)
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
        ProgramError::XdpError(XdpError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    }
}

fn is_busy(error: &ProgramError) -> bool {
    matches!(errno(error), Some(libc::EBUSY | libc::EEXIST))
}

fn reason(error: &ProgramError) -> String {
    errno(error)
        .map_or_else(|| chain(error), |errno| io::Error::from_raw_os_error(errno).to_string())
}

fn occupied(ifname: &str, ifindex: u32) -> AttachError {
    let program = match foreign::program_on(ifindex) {
        Some(found) => format!("XDP program {} ({})", found.id, found.name()),
        None => "an XDP program".to_owned(),
    };
    AttachError::Occupied { ifname: ifname.to_owned(), program }
}

/// Detaches one NIC, or all.
pub(super) fn detach(links: &Path, ifname: Option<&str>) -> io::Result<()> {
    for (attachment, path) in pinned(links, None) {
        if ifname.is_none_or(|ifname| ifname == attachment.ifname) {
            take_off(&attachment, &path)?;
        }
    }
    Ok(())
}

/// Removes a link's pin and waits until the kernel, which does it later, has taken the program off.
fn take_off(attachment: &Attachment, pin: &Path) -> io::Result<()> {
    fs::remove_file(pin)?;
    let deadline = Instant::now() + TAKE_OFF;
    while attachment.ifindex != 0
        && foreign::program_on(attachment.ifindex).is_some_and(|on| on.id == attachment.program)
    {
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "{} still runs XDP program {}: something else holds the link",
                    attachment.ifname, attachment.program
                ),
            ));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
