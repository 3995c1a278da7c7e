//! Capture files (pcap, pcapng) as a row of Ethernet frames.
//!
//! What was captured without Ethernet headers (raw IP, Linux cooked) gets made-up ones. Frames cut short by a snap length are
//! padded with zeros to the length they had, so that the lengths in their headers are right.

use std::{io::Read, time::Duration};

use pcap_file::{
    DataLink, PcapError,
    pcap::PcapReader,
    pcapng::{
        Block, PcapNgReader,
        blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
    },
};

/// Longest frame that is padded to its length.
const LONGEST: u32 = 65_550;
const ETHERNET: usize = 14;

/// One packet of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When, since the beginning of 1970.
    pub time: Duration,
    /// An Ethernet frame.
    pub frame: Vec<u8>,
    /// So many bytes at its end are made up.
    pub padded: usize,
}

/// Why a packet, or all from here on, cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file is no capture.
    #[error("this is neither a pcap nor a pcapng file")]
    Format,
    /// The file is damaged, or ends in the middle.
    #[error("the file is damaged, or ends within packet {number}: {cause}")]
    Damaged {
        /// 1 = the first.
        number: u64,
        /// What is wrong.
        cause: PcapError,
    },
    /// A kind of link that is not known.
    #[error(
        "packet {number} was captured on a link of type {link:?}; Ethernet, raw IP and Linux cooked (v1, v2) are known"
    )]
    Link {
        /// 1 = the first.
        number: u64,
        /// The type.
        link: DataLink,
    },
}

/// The packets of a file, in its order.
pub struct Packets<R: Read> {
    file: File<R>,
    number: u64,
    ended: bool,
}

enum File<R: Read> {
    Pcap(PcapReader<R>),
    PcapNg(PcapNgReader<R>),
}

impl<R: Read> Packets<std::io::Chain<std::io::Cursor<Vec<u8>>, R>> {
    /// Begins to read.
    pub fn new(mut reader: R) -> Result<Self, FileError> {
        let mut magic = Vec::new();
        let begin = reader.by_ref().take(4).read_to_end(&mut magic);
        if begin.is_err() || magic.len() < 4 {
            return Err(FileError::Format);
        }
        let is_pcapng = magic == [0x0a, 0x0d, 0x0d, 0x0a];
        let whole = std::io::Cursor::new(magic).chain(reader);
        let file = match is_pcapng {
            true => PcapNgReader::new(whole).map(File::PcapNg),
            false => PcapReader::new(whole).map(File::Pcap),
        };
        let file = file.map_err(|_| FileError::Format)?;
        Ok(Self { file, number: 0, ended: false })
    }
}

impl<R: Read> Iterator for Packets<R> {
    type Item = Result<Packet, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        self.number += 1;
        let number = self.number;
        let raw = match &mut self.file {
            File::Pcap(file) => next_of_pcap(file),
            File::PcapNg(file) => next_of_pcapng(file),
        };
        let packet = match raw {
            None => {
                self.ended = true;
                return None;
            }
            Some(Err(cause)) => Err(FileError::Damaged { number, cause }),
            Some(Ok(raw)) => {
                let link = raw.link;
                raw.packet().ok_or(FileError::Link { number, link })
            }
        };
        self.ended = packet.is_err();
        Some(packet)
    }
}

/// A packet as it stands in the file.
struct Raw {
    time: Duration,
    link: DataLink,
    data: Vec<u8>,
    length: u32,
}

fn next_of_pcap<R: Read>(file: &mut PcapReader<R>) -> Option<Result<Raw, PcapError>> {
    let header = file.header();
    // Raw: the checked form refuses packets that were cut by the snap length.
    let packet = match file.next_raw_packet()? {
        Ok(packet) => packet,
        Err(error) => return Some(Err(error)),
    };
    let unit = if header.ts_resolution == pcap_file::TsResolution::NanoSecond { 1 } else { 1_000 };
    let fraction = Duration::from_nanos(u64::from(packet.ts_frac) * unit);
    Some(Ok(Raw {
        time: Duration::from_secs(packet.ts_sec.into()) + fraction,
        link: header.datalink,
        data: packet.data.to_vec(),
        length: packet.orig_len,
    }))
}

fn next_of_pcapng<R: Read>(file: &mut PcapNgReader<R>) -> Option<Result<Raw, PcapError>> {
    loop {
        let (number, units, data, length) = match file.next_block()? {
            Err(error) => return Some(Err(error)),
            Ok(Block::EnhancedPacket(block)) => {
                // The reader takes every time stamp for nanoseconds.
                let units = block.timestamp.as_nanos() as u64;
                (block.interface_id, units, block.data.to_vec(), block.original_len)
            }
            Ok(Block::SimplePacket(block)) => (0, 0, block.data.to_vec(), block.original_len),
            Ok(_) => continue,
        };
        let Some(interface) = file.interfaces().get(number as usize) else {
            return Some(Err(PcapError::InvalidInterfaceId(number)));
        };
        let time = Duration::from_nanos(nanoseconds(units, interface));
        return Some(Ok(Raw { time, link: interface.linktype, data, length }));
    }
}

/// A time stamp by its interface's resolution: a power of ten, or of two; microseconds if it has none.
fn nanoseconds(units: u64, interface: &InterfaceDescriptionBlock<'_>) -> u64 {
    let resolution = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
        _ => None,
    });
    let exponent = u32::from(resolution.unwrap_or(6) & 0x7f);
    let per_second = match resolution.unwrap_or(6) & 0x80 {
        0 => 10u128.checked_pow(exponent),
        _ => 1u128.checked_shl(exponent),
    };
    let Some(per_second @ 1..) = per_second else { return 0 };
    (u128::from(units).saturating_mul(1_000_000_000) / per_second) as u64
}

impl Raw {
    /// `None`: the link is not known.
    fn packet(self) -> Option<Packet> {
        let Self { time, link, data, length } = self;
        let missing = length.min(LONGEST).saturating_sub(data.len() as u32) as usize;
        let mut frame = match link {
            DataLink::ETHERNET => data,
            DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => {
                with_ethernet(by_version(&data), &data)
            }
            // Protocol at 14, packet from 16 on (v1); protocol at 0, packet from 20 on (v2).
            DataLink::LINUX_SLL => with_ethernet(two(&data, 14), data.get(16..).unwrap_or(&[])),
            DataLink::LINUX_SLL2 => with_ethernet(two(&data, 0), data.get(20..).unwrap_or(&[])),
            _ => return None,
        };
        frame.resize(frame.len() + missing, 0);
        Some(Packet { time, frame, padded: missing })
    }
}

fn by_version(packet: &[u8]) -> [u8; 2] {
    match packet.first().map(|first| first >> 4) {
        Some(6) => [0x86, 0xdd],
        _ => [0x08, 0x00],
    }
}

fn two(data: &[u8], at: usize) -> [u8; 2] {
    data.get(at..at + 2).and_then(|two| two.try_into().ok()).unwrap_or_default()
}

/// From and to made-up stations.
fn with_ethernet(kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + packet.len());
    frame.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    frame.extend(kind);
    frame.extend(packet);
    frame
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use pcap_file::{
        Endianness, TsResolution,
        pcap::{PcapHeader, PcapPacket, PcapWriter},
        pcapng::{PcapNgWriter, blocks::enhanced_packet::EnhancedPacketBlock},
    };

    use super::*;

    const FRAME: [u8; 60] = [7; 60];

    fn read(file: &[u8]) -> Vec<Result<Packet, FileError>> {
        Packets::new(file).unwrap().collect()
    }

    fn pcap(link: DataLink, unit: TsResolution, order: Endianness, data: &[u8]) -> Vec<u8> {
        let header = PcapHeader {
            datalink: link,
            ts_resolution: unit,
            endianness: order,
            ..PcapHeader::default()
        };
        let mut file = PcapWriter::with_header(Vec::new(), header).unwrap();
        let time = Duration::new(7, 123_456_789);
        file.write_packet(&PcapPacket::new(time, data.len() as u32, data)).unwrap();
        file.into_writer()
    }

    #[test]
    fn both_resolutions_and_byte_orders_of_pcap_are_read() {
        for (unit, nanoseconds) in
            [(TsResolution::MicroSecond, 123_456_000), (TsResolution::NanoSecond, 123_456_789)]
        {
            for order in [Endianness::Big, Endianness::Little] {
                let packets = read(&pcap(DataLink::ETHERNET, unit, order, &FRAME));
                let [Ok(packet)] = &packets[..] else { panic!("{packets:?}") };
                assert_eq!(packet.time, Duration::new(7, nanoseconds));
                assert_eq!((&packet.frame[..], packet.padded), (&FRAME[..], 0));
            }
        }
    }

    #[test]
    fn packets_without_ethernet_get_some() {
        let six = [&[0x60][..], &[0; 39]].concat();
        let cooked = [&[0; 14][..], &[0x86, 0xdd], &six].concat();
        let cooked2 = [&[0x86, 0xdd][..], &[0; 18], &six].concat();
        for (link, data) in [
            (DataLink::RAW, &six),
            (DataLink::LINUX_SLL, &cooked),
            (DataLink::LINUX_SLL2, &cooked2),
        ] {
            let packets = read(&pcap(link, TsResolution::NanoSecond, Endianness::Little, data));
            let [Ok(packet)] = &packets[..] else { panic!("{link:?}: {packets:?}") };
            assert_eq!(packet.frame[12..14], [0x86, 0xdd], "{link:?}");
            assert_eq!(packet.frame[14..], six, "{link:?}");
        }
        let packets =
            read(&pcap(DataLink::IEEE802_11, TsResolution::NanoSecond, Endianness::Little, &FRAME));
        assert!(matches!(&packets[..], [Err(FileError::Link { number: 1, .. })]), "{packets:?}");
    }

    #[test]
    fn cut_packets_are_padded_and_cut_files_are_said_to_be() {
        let mut file =
            pcap(DataLink::ETHERNET, TsResolution::NanoSecond, Endianness::Little, &FRAME);
        // The packet's original length, and a snap length that is shorter.
        file[36..40].copy_from_slice(&1_514u32.to_le_bytes());
        file[16..20].copy_from_slice(&60u32.to_le_bytes());
        let packets = read(&file);
        let [Ok(packet)] = &packets[..] else { panic!("{packets:?}") };
        assert_eq!((packet.frame.len(), packet.padded), (1_514, 1_454));
        let packets = read(&file[..file.len() - 1]);
        assert!(matches!(&packets[..], [Err(FileError::Damaged { number: 1, .. })]), "{packets:?}");
        assert!(matches!(Packets::new(&b"nonsense, not packets"[..]), Err(FileError::Format)));
        assert!(matches!(Packets::new(&b""[..]), Err(FileError::Format)));
    }

    #[test]
    fn pcapng_is_read_by_its_own_resolution() {
        for (resolution, expected) in
            [(None, 5_000_000), (Some(9), 5_000), (Some(0x80 | 10), 4_882_812)]
        {
            let mut file = PcapNgWriter::new(Vec::new()).unwrap();
            let mut interface = InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0);
            interface.options.extend(resolution.map(InterfaceDescriptionOption::IfTsResol));
            file.write_pcapng_block(interface).unwrap();
            file.write_pcapng_block(EnhancedPacketBlock {
                interface_id: 0,
                timestamp: Duration::from_nanos(5_000),
                original_len: 60,
                data: Cow::Borrowed(&FRAME),
                options: vec![],
            })
            .unwrap();
            let packets = read(&file.into_inner());
            let [Ok(packet)] = &packets[..] else { panic!("{packets:?}") };
            let expected = match resolution {
                Some(0x8a) => Duration::from_nanos(5_000 * 1_000_000_000 / 1_024),
                _ => Duration::from_nanos(expected),
            };
            assert_eq!(packet.time, expected, "{resolution:?}");
        }
    }
}
