//! XDP programs that are not ours: who sits on a NIC, and (only by `--force`) off with it. Plain rtnetlink
//! (include/uapi/linux/rtnetlink.h, if_link.h), asked once and answered at once.

use std::{io, os::fd::AsRawFd as _};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_FLAGS: u16 = 3;
const IFLA_XDP_PROG_ID: u16 = 4;
const XDP_ATTACHED_SKB: u8 = 2;
const XDP_ATTACHED_HW: u8 = 3;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const XDP_FLAGS_HW_MODE: u32 = 1 << 3;
const NLA_F_NESTED: u16 = 1 << 15;
const HEADERS: usize = 32;

/// An XDP program on a NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnNic {
    /// Its id.
    pub id: u32,
    /// `XDP_FLAGS_*_MODE` of how it is attached.
    mode: u32,
}

impl OnNic {
    /// How it is attached, as `ip link` says it: `native`, `generic` or `offloaded`.
    pub fn mode_name(&self) -> &'static str {
        match self.mode {
            XDP_FLAGS_SKB_MODE => "generic",
            XDP_FLAGS_HW_MODE => "offloaded",
            _ => "native",
        }
    }

    /// The program's name.
    pub fn name(&self) -> String {
        aya::programs::loaded_programs()
            .flatten()
            .find(|program| program.id() == self.id)
            .and_then(|program| program.name_as_str().map(ToOwned::to_owned))
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "unnamed".to_owned())
    }
}

/// The XDP program on a NIC.
pub fn program_on(ifindex: u32) -> Option<OnNic> {
    let answer = ask(RTM_GETLINK, NLM_F_REQUEST, ifindex, &[]).ok()?;
    let xdp = attribute(answer.get(HEADERS..)?, IFLA_XDP)?;
    let id = u32::from_ne_bytes(attribute(xdp, IFLA_XDP_PROG_ID)?.try_into().ok()?);
    let mode = match attribute(xdp, IFLA_XDP_ATTACHED)?.first() {
        Some(&XDP_ATTACHED_SKB) => XDP_FLAGS_SKB_MODE,
        Some(&XDP_ATTACHED_HW) => XDP_FLAGS_HW_MODE,
        _ => XDP_FLAGS_DRV_MODE,
    };
    (id != 0).then_some(OnNic { id, mode })
}

/// Takes the program off a NIC. Fails with the kernel's word; `EBUSY` if a link of its owner holds it.
pub(super) fn remove(ifindex: u32) -> io::Result<()> {
    let Some(program) = program_on(ifindex) else { return Ok(()) };
    let mut nested = Vec::new();
    put(&mut nested, IFLA_XDP_FD, &(-1i32).to_ne_bytes());
    put(&mut nested, IFLA_XDP_FLAGS, &program.mode.to_ne_bytes());
    let mut attributes = Vec::new();
    put(&mut attributes, IFLA_XDP | NLA_F_NESTED, &nested);
    ask(RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, ifindex, &attributes).map(drop)
}

/// One question, one answer.
fn ask(kind: u16, flags: u16, ifindex: u32, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let mut message = Vec::with_capacity(HEADERS + attributes.len());
    message.extend(((HEADERS + attributes.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0u8; 8]);
    // struct ifinfomsg: family, pad, type, index, flags, change.
    message.extend([0u8; 4]);
    message.extend(ifindex.to_ne_bytes());
    message.extend([0u8; 8]);
    message.extend(attributes);
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = vec![0u8; 65_536];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    let answer_kind = answer.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    if answer_kind == Some(NLMSG_ERROR) {
        let code = answer
            .get(16..20)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(-libc::EIO, i32::from_ne_bytes);
        if code != 0 {
            return Err(io::Error::from_raw_os_error(-code));
        }
    }
    Ok(answer)
}

/// Appends an attribute (struct nlattr) and its padding.
pub(crate) fn put(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    buffer.extend(((4 + value.len()) as u16).to_ne_bytes());
    buffer.extend(kind.to_ne_bytes());
    buffer.extend(value);
    buffer.resize(buffer.len().next_multiple_of(4), 0);
}

/// The value of the first attribute of this kind.
pub(crate) fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    while rest.len() >= 4 {
        let length = u16::from_ne_bytes([rest[0], rest[1]]) as usize;
        let kind = u16::from_ne_bytes([rest[2], rest[3]]) & !NLA_F_NESTED;
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}
