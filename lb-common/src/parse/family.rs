//! The shapes of packets, resolved at compile time: the fast paths have constant offsets.

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    abi::Reason,
    frame::{Wire, be16},
    ip::IpHeader,
};

/// One shape.
pub trait Family {
    /// The IP header.
    type Header: IpHeader;
    /// Length of the header without options.
    const MINIMUM: usize = <Self::Header as Wire>::LENGTH;
    /// Whether every header has that length.
    const FIXED: bool;

    /// Whether TCP or UDP follows at [`Family::header_length`]: right version and header length, no fragment.
    fn is_plain(header: &Self::Header) -> bool;
    /// Length of the header with its options, as it says; at most 60.
    fn header_length(header: &Self::Header) -> usize;
    /// Whether the header with its options is no longer than the packet.
    fn check_length(header: &Self::Header) -> Result<(), Reason>;
    /// Whether the packet is whole, and what follows is no extension header.
    fn check_chain(header: &Self::Header) -> Result<(), Reason>;
}

/// IPv4 without options.
#[derive(Debug)]
pub enum V4 {}

/// IPv4 with options, or with a header length that makes no sense.
#[derive(Debug)]
pub enum V4Options {}

/// IPv6 without extension headers.
#[derive(Debug)]
pub enum V6 {}

impl Family for V4 {
    type Header = Ipv4Hdr;
    const FIXED: bool = true;

    #[inline(always)]
    fn is_plain(header: &Ipv4Hdr) -> bool {
        header.vihl == 0x45 && !is_fragment(header)
    }

    #[inline(always)]
    fn header_length(_: &Ipv4Hdr) -> usize {
        Self::MINIMUM
    }

    #[inline(always)]
    fn check_length(_: &Ipv4Hdr) -> Result<(), Reason> {
        Ok(())
    }

    #[inline(always)]
    fn check_chain(header: &Ipv4Hdr) -> Result<(), Reason> {
        if is_fragment(header) { Err(Reason::FragmentDropped) } else { Ok(()) }
    }
}

impl Family for V4Options {
    type Header = Ipv4Hdr;
    const FIXED: bool = false;

    #[inline(always)]
    fn is_plain(header: &Ipv4Hdr) -> bool {
        header.is_version() && header.vihl & 15 >= 5 && !is_fragment(header)
    }

    #[inline(always)]
    fn header_length(header: &Ipv4Hdr) -> usize {
        (header.vihl & 15) as usize * 4
    }

    #[inline(always)]
    fn check_length(header: &Ipv4Hdr) -> Result<(), Reason> {
        let length = Self::header_length(header);
        if length < Self::MINIMUM || length > header.length() as usize {
            return Err(Reason::IpHeaderLength);
        }
        Ok(())
    }

    #[inline(always)]
    fn check_chain(header: &Ipv4Hdr) -> Result<(), Reason> {
        V4::check_chain(header)
    }
}

impl Family for V6 {
    type Header = Ipv6Hdr;
    const FIXED: bool = true;

    #[inline(always)]
    fn is_plain(header: &Ipv6Hdr) -> bool {
        header.is_version()
    }

    #[inline(always)]
    fn header_length(_: &Ipv6Hdr) -> usize {
        Self::MINIMUM
    }

    #[inline(always)]
    fn check_length(_: &Ipv6Hdr) -> Result<(), Reason> {
        Ok(())
    }

    #[inline(always)]
    fn check_chain(header: &Ipv6Hdr) -> Result<(), Reason> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT_HEADER: u8 = 44;
        const AUTHENTICATION: u8 = 51;
        const DESTINATION_OPTIONS: u8 = 60;
        match header.next_hdr {
            FRAGMENT_HEADER => Err(Reason::FragmentDropped),
            HOP_BY_HOP | ROUTING | AUTHENTICATION | DESTINATION_OPTIONS => {
                Err(Reason::ExtensionHeader)
            }
            _ => Ok(()),
        }
    }
}

#[inline(always)]
fn is_fragment(header: &Ipv4Hdr) -> bool {
    /// More-fragments flag and fragment offset: set in every fragment, clear in every whole packet.
    const FRAGMENT: u16 = 0x3fff;
    be16(header.frags).to_host() & FRAGMENT != 0
}
