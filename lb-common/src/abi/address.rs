//! IP addresses of both families in one shape.

use crate::be::Be32;

/// An IPv4 or IPv6 address, 16 bytes in network order. IPv4 is stored v4-mapped (`::ffff:a.b.c.d`, RFC 4291 2.5.5.2):
/// packets that carry a mapped address on the wire are dropped as martians, so the form is unambiguous.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Address {
    /// The four words of the address, network order each; IPv4 in `words[3]`.
    pub words: [Be32; 4],
}

const _: () = assert!(size_of::<Address>() == 16 && align_of::<Address>() == 4);

impl Address {
    /// The prefix word of v4-mapped addresses.
    pub const MAPPED: Be32 = Be32::from_host(0x0000_ffff);

    /// The v4-mapped form of an IPv4 address.
    pub const fn v4(address: Be32) -> Self {
        let zero = Be32::from_host(0);
        Self { words: [zero, zero, Self::MAPPED, address] }
    }

    /// An IPv6 address from its four words.
    pub const fn v6(words: [Be32; 4]) -> Self {
        Self { words }
    }

    /// Whether this is an IPv4 address.
    pub const fn is_v4(&self) -> bool {
        self.words[0].raw() == 0
            && self.words[1].raw() == 0
            && self.words[2].raw() == Self::MAPPED.raw()
    }

    /// From its [`Self::high`] and [`Self::low`].
    pub const fn from_halves(high: u64, low: u64) -> Self {
        let [a, b] = split(high);
        let [c, d] = split(low);
        Self { words: [a, b, c, d] }
    }

    /// The first eight bytes as one raw memory word (native load of `words[0..2]`).
    pub const fn high(&self) -> u64 {
        join(self.words[0], self.words[1])
    }

    /// The last eight bytes as one raw memory word (native load of `words[2..4]`).
    pub const fn low(&self) -> u64 {
        join(self.words[2], self.words[3])
    }
}

const fn split(half: u64) -> [Be32; 2] {
    let (first, second) = if cfg!(target_endian = "little") { (0, 32) } else { (32, 0) };
    [Be32::from_raw((half >> first) as u32), Be32::from_raw((half >> second) as u32)]
}

const fn join(first: Be32, second: Be32) -> u64 {
    if cfg!(target_endian = "little") {
        (first.raw() as u64) | ((second.raw() as u64) << 32)
    } else {
        ((first.raw() as u64) << 32) | (second.raw() as u64)
    }
}

#[cfg(any(test, feature = "user"))]
impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::v4(Be32::from_host(u32::from(v4))),
            core::net::IpAddr::V6(v6) => {
                let value = u128::from(v6);
                let word = |shift: u32| Be32::from_host((value >> shift) as u32);
                Self::v6([word(96), word(64), word(32), word(0)])
            }
        }
    }
}

#[cfg(any(test, feature = "user"))]
impl From<Address> for core::net::IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            core::net::Ipv4Addr::from(address.words[3].to_host()).into()
        } else {
            let value = address.words.iter().fold(0u128, |v, w| (v << 32) | w.to_host() as u128);
            core::net::Ipv6Addr::from(value).into()
        }
    }
}

impl core::fmt::Debug for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.is_v4() {
            let [a, b, c, d] = self.words[3].to_host().to_be_bytes();
            write!(f, "{a}.{b}.{c}.{d}")
        } else {
            let [a, b, c, d] = self.words;
            write!(
                f,
                "{:08x}:{:08x}:{:08x}:{:08x}",
                a.to_host(),
                b.to_host(),
                c.to_host(),
                d.to_host()
            )
        }
    }
}
