//! A flow's key.

use super::Address;
use crate::be::Be16;

/// IP protocol numbers in use.
pub mod protocol {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 2473).
    pub const IPV6: u8 = 41;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
}

/// The 5-tuple of a flow, in the client's direction (destination = VIP).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Client address.
    pub source: Address,
    /// VIP address.
    pub destination: Address,
    /// Client port.
    pub source_port: Be16,
    /// VIP port.
    pub destination_port: Be16,
    /// IP protocol.
    pub protocol: u8,
    /// Zero: implicit padding would make lookups miss.
    pub _pad: [u8; 3],
}

impl FlowKey {
    /// The same flow seen from its other end.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            _pad: [0; 3],
        }
    }
}

const _: () = assert!(size_of::<FlowKey>() == 40);
