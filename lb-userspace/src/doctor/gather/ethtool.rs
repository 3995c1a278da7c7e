//! ethtool's ioctl (include/uapi/linux/ethtool.h): each command is a structure in memory that begins with its number, and
//! the kernel writes the answer over it. Structures are laid out by hand in buffers, so that only one function is unsafe.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::doctor::facts::{Channels, HashFields, Offload, Traffic};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const GET_DRIVER: u32 = 0x03;
const GET_STRINGS: u32 = 0x1b;
const GET_HASH_FIELDS: u32 = 0x29;
const GET_STRING_COUNT: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const GET_CHANNELS: u32 = 0x3c;
/// The set of the features' names.
const FEATURES: u32 = 4;
/// Length of one name in a set.
const NAME: usize = 32;
/// Bytes every command may write: `struct ethtool_drvinfo` and `ethtool_rxnfc` are 196 and 192 long.
const SMALL: usize = 256;
const HASH_ADDRESSES: u64 = 1 << 4 | 1 << 5;
const HASH_PORTS: u64 = 1 << 6 | 1 << 7;

/// A NIC to ask.
pub(super) struct Device {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl Device {
    /// The NIC of this name in this thread's network namespace.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let bytes = name.as_bytes();
        if bytes.len() >= libc::IFNAMSIZ {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut ifname = [0; libc::IFNAMSIZ];
        for (to, from) in ifname.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Self { socket, name: ifname })
    }

    /// The driver's name.
    pub(super) fn driver(&self) -> Option<String> {
        let answer = self.ask(Request::new(GET_DRIVER, SMALL)).ok()?;
        Some(text(answer.bytes(4, NAME))).filter(|name| !name.is_empty())
    }

    /// Offloads by name.
    pub(super) fn offloads(&self) -> io::Result<BTreeMap<String, Offload>> {
        let mut request = Request::new(GET_STRING_COUNT, SMALL);
        request.put(8, 1 << FEATURES);
        let count = self.ask(request)?.number(16) as usize;
        // The kernel writes as many names as it has, which is a constant of its build.
        let mut request = Request::new(GET_STRINGS, 12 + count * NAME + SMALL);
        request.put(4, FEATURES);
        request.put(8, count as u32);
        let names = self.ask(request)?;
        let blocks = count.div_ceil(32);
        let mut request = Request::new(GET_FEATURES, 8 + blocks * 16 + SMALL);
        request.put(4, blocks as u32);
        let states = self.ask(request)?;
        Ok((0..count)
            .map(|index| {
                // Each block: available, requested, active, never_changed.
                let block = 8 + index / 32 * 16;
                let bit = |word: usize| states.number(block + word * 4) & 1 << (index % 32) != 0;
                let offload = Offload { on: bit(2), fixed: !bit(0) || bit(3) };
                (text(names.bytes(12 + index * NAME, NAME)), offload)
            })
            .filter(|(name, _)| !name.is_empty())
            .collect())
    }

    /// Numbers of queues.
    pub(super) fn channels(&self) -> Option<Channels> {
        let answer = self.ask(Request::new(GET_CHANNELS, SMALL)).ok()?;
        Some(Channels {
            max_rx: answer.number(4),
            max_combined: answer.number(16),
            rx: answer.number(20),
            combined: answer.number(32),
        })
    }

    /// What chooses the receive queue of some traffic.
    pub(super) fn hash_fields(&self, traffic: Traffic) -> Option<HashFields> {
        let mut request = Request::new(GET_HASH_FIELDS, SMALL);
        request.put(4, flow_type(traffic));
        let answer = self.ask(request).ok()?;
        let fields = u64::from(answer.number(8)) | u64::from(answer.number(12)) << 32;
        Some(HashFields {
            addresses: fields & HASH_ADDRESSES != 0,
            ports: fields & HASH_PORTS == HASH_PORTS,
        })
    }

    fn ask(&self, mut request: Request) -> io::Result<Request> {
        let mut interface = libc::ifreq {
            ifr_name: self.name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: request.words.as_mut_ptr().cast() },
        };
        // SAFETY: `ifru_data` is what this ioctl reads of the union. It points to a buffer that lives until the call
        // returns, is aligned for any of ethtool's structures, and is at least as long as what the kernel writes for
        // its command: `SMALL` is more than any structure of fixed length here, and the two that are not are asked for
        // with the length that the kernel has named.
        let result =
            unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut interface) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(request) }
    }
}

fn flow_type(traffic: Traffic) -> u32 {
    match traffic {
        Traffic::Tcp4 => 0x01,
        Traffic::Udp4 => 0x02,
        Traffic::Tcp6 => 0x05,
        Traffic::Udp6 => 0x06,
        Traffic::Ip4 => 0x10,
        Traffic::Ip6 => 0x11,
    }
}

/// A command's structure; afterwards, the answer.
struct Request {
    words: Vec<u64>,
}

impl Request {
    fn new(command: u32, bytes: usize) -> Self {
        let mut request = Self { words: vec![0; bytes.div_ceil(8)] };
        request.put(0, command);
        request
    }

    /// Writes a number at a multiple of 4.
    fn put(&mut self, offset: usize, value: u32) {
        let word = &mut self.words[offset / 8];
        let mut bytes = word.to_ne_bytes();
        bytes[offset % 8..][..4].copy_from_slice(&value.to_ne_bytes());
        *word = u64::from_ne_bytes(bytes);
    }

    fn number(&self, offset: usize) -> u32 {
        let bytes = self.words[offset / 8].to_ne_bytes();
        let at = offset % 8;
        u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }

    fn bytes(&self, offset: usize, length: usize) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_ne_bytes()).skip(offset).take(length).collect()
    }
}

/// Up to the first NUL.
fn text(bytes: Vec<u8>) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_laid_out_by_offset() {
        let mut request = Request::new(0x1b, 20);
        request.put(4, 7);
        request.put(16, 9);
        assert_eq!([0, 4, 8, 16].map(|at| request.number(at)), [0x1b, 7, 0, 9]);
        assert_eq!(request.bytes(4, 4), 7u32.to_ne_bytes());
        assert_eq!(text(b"veth\0\0junk".to_vec()), "veth");
    }

    #[test]
    fn the_loopback_has_offloads_and_no_queues_to_set() {
        let lo = Device::open("lo").unwrap();
        let offloads = lo.offloads().unwrap();
        assert!(offloads.contains_key("rx-lro"), "{offloads:?}");
        assert!(offloads["loopback"].on && offloads["loopback"].fixed, "{offloads:?}");
        assert_eq!(lo.channels(), None);
        assert_eq!(lo.hash_fields(Traffic::Tcp4), None);
        assert!(Device::open("no-such-nic").unwrap().offloads().is_err());
        assert!(Device::open("a-name-that-is-too-long").is_err());
    }
}
