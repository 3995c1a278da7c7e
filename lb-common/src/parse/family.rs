//! The shapes of packets, resolved at compile time: the fast paths have constant offsets.

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use super::{NETWORK, extensions};
use crate::{
    abi::Reason,
    frame::{Frame, Wire, be16},
    ip::IpHeader,
};

/// One shape.
pub trait Family {
    /// The IP header.
    type Header: IpHeader;
    /// Length of the header without options.
    const MINIMUM: usize = <Self::Header as Wire>::LENGTH;
    /// Whether every header has that length, and no extensions.
    const FIXED: bool;
    /// Whether the header may have IPv4's options.
    const HAS_OPTIONS: bool = false;
    /// Whether it has IPv6's extension headers.
    const HAS_EXTENSIONS: bool = false;

    /// Whether TCP or UDP follows at [`Family::header_length`]: right version and header length, no fragment.
    fn is_plain(header: &Self::Header) -> bool;
    /// Length of the header with its options, as it says; at most 60.
    fn header_length(header: &Self::Header) -> usize;
    /// Whether the header with its options is no longer than the packet.
    fn check_length(header: &Self::Header) -> Result<(), Reason>;
    /// Whether the packet is whole, and what follows is no extension header.
    fn check_chain(header: &Self::Header) -> Result<(), Reason>;

    /// Protocol and offset in the frame of what follows the IP header and its extensions.
    #[inline(always)]
    fn transport(_: &(impl Frame + ?Sized), header: &Self::Header) -> Result<(u8, usize), Reason> {
        Self::check_chain(header)?;
        Ok((header.protocol(), NETWORK + Self::header_length(header)))
    }

    /// Offset in the frame of the fragment header of a fragment, which only IPv6 has.
    #[inline(always)]
    fn fragment_header(_: &(impl Frame + ?Sized)) -> Result<usize, Reason> {
        Ok(NETWORK + Self::MINIMUM)
    }
}

/// IPv4 without options.
#[derive(Debug)]
pub enum V4 {}

/// IPv4 with options, or with a header length that makes no sense.
#[derive(Debug)]
pub enum V4Options {}

/// IPv6 without extension headers, or with only a fragment header.
#[derive(Debug)]
pub enum V6 {}

/// IPv6 with extension headers.
#[derive(Debug)]
pub enum V6Extended {}

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
    const HAS_OPTIONS: bool = true;

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
        match header.next_hdr {
            extensions::FRAGMENT => Err(Reason::FragmentDropped),
            kind if extensions::is_extension(kind) => Err(Reason::ExtensionHeader),
            _ => Ok(()),
        }
    }
}

impl Family for V6Extended {
    type Header = Ipv6Hdr;
    const FIXED: bool = false;
    const HAS_EXTENSIONS: bool = true;

    #[inline(always)]
    fn is_plain(header: &Ipv6Hdr) -> bool {
        V6::is_plain(header)
    }

    #[inline(always)]
    fn header_length(header: &Ipv6Hdr) -> usize {
        V6::header_length(header)
    }

    #[inline(always)]
    fn check_length(header: &Ipv6Hdr) -> Result<(), Reason> {
        V6::check_length(header)
    }

    #[inline(always)]
    fn check_chain(_: &Ipv6Hdr) -> Result<(), Reason> {
        Ok(())
    }

    #[inline(always)]
    fn transport(frame: &(impl Frame + ?Sized), _: &Ipv6Hdr) -> Result<(u8, usize), Reason> {
        match frame.extensions().end() {
            None => Err(Reason::ExtensionHeader),
            Some((extensions::FRAGMENT, _)) => Err(Reason::FragmentDropped),
            Some(end) => Ok(end),
        }
    }

    #[inline(always)]
    fn fragment_header(frame: &(impl Frame + ?Sized)) -> Result<usize, Reason> {
        match frame.extensions().end() {
            Some((extensions::FRAGMENT, offset)) => Ok(offset),
            _ => Err(Reason::ExtensionHeader),
        }
    }
}

#[inline(always)]
fn is_fragment(header: &Ipv4Hdr) -> bool {
    /// More-fragments flag and fragment offset: set in every fragment, clear in every whole packet.
    const FRAGMENT: u16 = 0x3fff;
    be16(header.frags).to_host() & FRAGMENT != 0
}
