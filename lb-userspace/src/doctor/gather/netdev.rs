//! The kernel's `netdev` family (generic netlink, Linux 6.3; Documentation/netlink/specs/netdev.yaml): what a driver can
//! do with XDP, without trying it.

use std::{io, os::fd::AsRawFd as _};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::{
    dataplane::{attribute, put},
    doctor::facts::XdpFeatures,
};

const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// The family that knows the other families' numbers.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const GET_DEVICE: u8 = 1;
const DEVICE_IFINDEX: u16 = 1;
const DEVICE_XDP_FEATURES: u16 = 3;
const BASIC: u64 = 1;
const REDIRECT: u64 = 2;
const TARGET: u64 = 4;
/// struct nlmsghdr and struct genlmsghdr.
const HEADERS: usize = 20;

/// What the driver of a NIC says. Fails with `NotFound` before Linux 6.3.
pub(super) fn xdp_features(ifindex: u32) -> io::Result<XdpFeatures> {
    let mut name = Vec::new();
    put(&mut name, FAMILY_NAME, b"netdev\0");
    let answer = ask(CONTROL, GET_FAMILY, &name)?;
    let family = value(&answer, FAMILY_ID)?;
    let mut index = Vec::new();
    put(&mut index, DEVICE_IFINDEX, &ifindex.to_ne_bytes());
    let answer = ask(family as u16, GET_DEVICE, &index)?;
    let features = value(&answer, DEVICE_XDP_FEATURES)?;
    Ok(XdpFeatures {
        basic: features & BASIC != 0,
        redirect: features & REDIRECT != 0,
        target: features & TARGET != 0,
    })
}

/// An unsigned number of 2, 4 or 8 bytes in an answer.
fn value(answer: &[u8], kind: u16) -> io::Result<u64> {
    let missing = || io::Error::from(io::ErrorKind::InvalidData);
    let bytes = attribute(answer.get(HEADERS..).ok_or_else(missing)?, kind).ok_or_else(missing)?;
    match *bytes {
        [a, b] => Ok(u16::from_ne_bytes([a, b]).into()),
        [a, b, c, d] => Ok(u32::from_ne_bytes([a, b, c, d]).into()),
        _ => Ok(u64::from_ne_bytes(bytes.try_into().map_err(|_| missing())?)),
    }
}

/// One question, one answer.
fn ask(family: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkGeneric,
    )?;
    let mut message = Vec::with_capacity(HEADERS + attributes.len());
    message.extend(((HEADERS + attributes.len()) as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port.
    message.extend([0u8; 8]);
    // Command, version, reserved.
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = vec![0u8; 16_384];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    if kind == Some(NLMSG_ERROR) {
        let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok());
        return Err(io::Error::from_raw_os_error(-code.map_or(-libc::EIO, i32::from_ne_bytes)));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_no_native_xdp_and_a_missing_nic_is_an_error() {
        match xdp_features(1) {
            Ok(features) => assert_eq!(features, XdpFeatures::default()),
            // Before Linux 6.3.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}"),
        }
        assert!(xdp_features(u32::MAX >> 1).is_err());
    }
}
