//! Captured packets as pcapng: one interface a NIC; before and after as two packets, inbound and outbound, each with a
//! comment that says what became of it.

use std::{borrow::Cow, collections::HashMap, io::Write, time::Duration};

use pcap_file::{
    DataLink, PcapResult,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        },
    },
};

use super::fate_of;
use crate::capture::stream::Packet;

/// `if_tsresol` of nanoseconds.
const NANOSECONDS: u8 = 9;
/// The two bits of `epb_flags` that tell the direction.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// The file.
pub struct PcapNg<W: Write> {
    file: PcapNgWriter<W>,
    interfaces: HashMap<String, u32>,
    snaplen: u32,
}

impl<W: Write> PcapNg<W> {
    /// Begins a file.
    pub fn new(out: W, snaplen: u32) -> PcapResult<Self> {
        Ok(Self { file: PcapNgWriter::new(out)?, interfaces: HashMap::new(), snaplen })
    }

    /// Writes a packet as it came and, if it left, as it left.
    pub fn write(
        &mut self,
        packet: &Packet,
        before: &[u8],
        after: Option<&[u8]>,
    ) -> PcapResult<()> {
        let fate = fate_of(packet);
        let fate = fate.trim_start_matches("-> ");
        let reason = &packet.verdict.reason;
        let number = packet.number;
        let comment = format!("lb packet {number} as it came: {fate}, {reason}");
        let ingress = packet.interface.clone();
        self.block(packet, &ingress, (before, packet.length), INBOUND, &comment)?;
        if let Some(after) = after {
            let egress = packet.verdict.egress.clone().unwrap_or(ingress);
            let comment = format!("lb packet {number} as it left: {fate}, {reason}");
            self.block(packet, &egress, (after, packet.length_after), OUTBOUND, &comment)?;
        }
        Ok(())
    }

    fn block(
        &mut self,
        packet: &Packet,
        interface: &str,
        (bytes, length): (&[u8], u32),
        direction: u32,
        comment: &str,
    ) -> PcapResult<()> {
        let interface_id = self.interface(interface)?;
        self.file.write_pcapng_block(EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(packet.unix_nanoseconds),
            original_len: length,
            data: Cow::Borrowed(bytes),
            options: vec![
                EnhancedPacketOption::Comment(Cow::Borrowed(comment)),
                EnhancedPacketOption::Flags(direction),
            ],
        })?;
        Ok(())
    }

    /// The number of a NIC, which is described when it is first met.
    fn interface(&mut self, name: &str) -> PcapResult<u32> {
        if let Some(number) = self.interfaces.get(name) {
            return Ok(*number);
        }
        let number = self.interfaces.len() as u32;
        self.file.write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.snaplen,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        })?;
        self.interfaces.insert(name.to_owned(), number);
        Ok(number)
    }

    /// Sends what is written on its way.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.file.get_mut().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::types::PacketVerdict, explain::capture_file::Packets};

    #[test]
    fn what_is_written_is_read_again() {
        let mut file = PcapNg::new(Vec::new(), 256).unwrap();
        let mut packet = Packet {
            number: 7,
            unix_nanoseconds: 1_800_000_000_123_456_789,
            interface: "eth0".into(),
            length: 60,
            captured: 60,
            length_after: 80,
            captured_after: 64,
            verdict: PacketVerdict {
                verdict: "forwarded".into(),
                reason: "transmitted".into(),
                egress: Some("eth1".into()),
                ..PacketVerdict::default()
            },
        };
        file.write(&packet, &[1; 60], Some(&[2; 64])).unwrap();
        packet.verdict.egress = None;
        file.write(&packet, &[3; 60], None).unwrap();
        let bytes = file.file.into_inner();
        let packets: Vec<_> = Packets::new(&bytes[..]).unwrap().map(Result::unwrap).collect();
        let lengths: Vec<_> = packets
            .iter()
            .map(|packet| (packet.frame[0], packet.frame.len(), packet.padded))
            .collect();
        assert_eq!(lengths, [(1, 60, 0), (2, 80, 16), (3, 60, 0)]);
        assert_eq!(packets[0].time, Duration::from_nanos(1_800_000_000_123_456_789));
        let text = String::from_utf8_lossy(&bytes);
        for part in ["eth0", "eth1", "packet 7 as it came: forwarded", "packet 7 as it left"] {
            assert!(text.contains(part), "{part}: {text:?}");
        }
    }
}
