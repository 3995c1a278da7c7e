//! Streams of flows: a packet, and where in it the things are that vary from flow to flow.

use super::{
    super::packet::{Packet, Transport},
    abi::{QUOTING_WORDS, Template, WORDS, layout},
};

/// More fragments follow.
const MORE_V4: u16 = 0x2000;
/// The same in IPv6.
const MORE_V6: u16 = 1;

/// Which end of a packet varies from flow to flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Varied {
    /// The client is the source (requests).
    Source,
    /// The same, each client in an IPv6 network of its own.
    Network,
    /// The client is the destination (replies).
    Destination,
    /// The destination is a port of a pool of addresses, each of which has 16,384 of the flows (replies of full nat).
    Pool,
}

/// A stream of flows made from one packet: address and port of the client vary.
#[derive(Clone, Debug)]
pub struct Stream {
    pub(super) frame: Vec<u8>,
    pub(super) template: Template,
    /// What is mixed in, or the second packet of each pair.
    pub(super) other: Option<Box<Template>>,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Template(counter {}, {} flows)", self.counter, self.flows)
    }
}

/// Where in a frame the things are that vary, and what the checksum is of.
struct Places {
    layout: u32,
    address: usize,
    port: usize,
    checksum: usize,
    transport: usize,
    protocol: u8,
}

impl Stream {
    /// The packet gets a payload that makes it long enough.
    pub fn new(packet: &Packet, varied: Varied, flows: u32) -> Self {
        let mut packet = packet.clone();
        while packet.bytes().len() < WORDS * 8 {
            packet.payload.push(0x55);
        }
        let is_v4 = packet.ip.source.is_ipv4();
        let is_tcp = matches!(packet.transport, Transport::Tcp(_));
        let transport = if is_v4 { 34 } else { 54 };
        let (layout, address, port) = match (is_v4, is_tcp, varied) {
            (true, true, Varied::Source) => (layout::V4_TCP_SOURCE, 26, transport),
            (true, true, Varied::Destination) => (layout::V4_TCP_DESTINATION, 30, transport + 2),
            (true, true, Varied::Pool) => (layout::V4_TCP_POOL, 30, transport + 2),
            (false, true, Varied::Pool) => (layout::V6_TCP_POOL, 50, transport + 2),
            (false, true, Varied::Network) => (layout::V6_TCP_NETWORK, 26, transport),
            (true, false, Varied::Source) => (layout::V4_UDP_SOURCE, 26, transport),
            (false, true, Varied::Source) => (layout::V6_TCP_SOURCE, 34, transport),
            (false, true, Varied::Destination) => (layout::V6_TCP_DESTINATION, 50, transport + 2),
            (false, false, Varied::Source) => (layout::V6_UDP_SOURCE, 34, transport),
            (_, false, Varied::Destination | Varied::Pool) | (_, _, Varied::Network) => {
                panic!("no layout for {varied:?} of this packet")
            }
        };
        let checksum = transport + if is_tcp { 16 } else { 6 };
        let protocol = if is_tcp { 6 } else { 17 };
        let places = Places { layout, address, port, checksum, transport, protocol };
        Self::of_frame(packet.bytes(), flows, &places)
    }

    /// Where the client is the destination of the TCP packet (IPv4) that an ICMP error quotes.
    pub fn quoting(error: &Packet, flows: u32) -> Self {
        /// The quoted packet.
        const QUOTE: usize = 42;
        let frame = error.bytes();
        assert!(error.ip.source.is_ipv4() && frame.len() >= WORDS * 8, "{} bytes", frame.len());
        let mut bare = frame.clone();
        for field in
            [36..38, QUOTE + 10..QUOTE + 12, QUOTE + 16..QUOTE + 20, QUOTE + 22..QUOTE + 24]
        {
            bare[field].fill(0);
        }
        let (address, port) = (QUOTE + 16, QUOTE + 22);
        let mut stream = Self::plain(frame, &bare, flows, layout::V4_QUOTE, (address, port));
        stream.template.network_sum = sum(&bare[QUOTE..QUOTE + 20]);
        // A header with its checksum comes to nothing.
        stream.template.transport_sum = sum(&[&bare[34..QUOTE], &bare[QUOTE + 20..]].concat());
        stream
    }

    /// The same of IPv6.
    pub fn quoting6(error: &Packet, flows: u32) -> Self {
        let frame = error.bytes();
        assert!(frame.len() >= QUOTING_WORDS * 8, "{} bytes", frame.len());
        let (layout, protocol) = (layout::V6_QUOTE, 58);
        let places =
            Places { layout, address: 98, port: 104, checksum: 56, transport: 54, protocol };
        Self::of_frame(frame, flows, &places)
    }

    /// Packets of UDP in two fragments, one behind the other, so that each is complete when its flow begins the next. The datagram
    /// (IPv4: without DF) is what the first one carries, and the other as much.
    pub fn of_fragments(datagram: &Packet, flows: u32) -> Self {
        let is_v4 = datagram.ip.source.is_ipv4();
        let data = datagram.length() - if is_v4 { 20 } else { 40 };
        assert!(data.is_multiple_of(8), "{data} bytes");
        let data = data as u16;
        let [mut first, last] = if is_v4 {
            [MORE_V4, data / 8].map(|field| {
                let mut stream = Self::new(datagram, Varied::Source, flows);
                stream.write_fragment_field(field);
                stream
            })
        } else {
            [MORE_V6, data].map(|field| Self::of_fragment6(datagram, flows, field))
        };
        first.template.paired = 1;
        first.other = Some(Box::new(last.template));
        first
    }

    /// One fragment each of IPv6 datagrams of UDP. `field`: its offset and whether more follow.
    fn of_fragment6(datagram: &Packet, flows: u32, field: u16) -> Self {
        let mut frame = datagram.bytes();
        assert_eq!(frame[20], 17, "UDP over IPv6");
        let length = u16::from_be_bytes([frame[18], frame[19]]) + 8;
        frame[18..20].copy_from_slice(&length.to_be_bytes());
        frame[20] = 44;
        // UDP follows, offset and more fragments, an identification.
        let [high, low] = field.to_be_bytes();
        let header = [17, 0, high, low, 0, 0, 0, 77];
        frame.splice(54..54, header);
        let (layout, protocol) = (layout::V6_FRAGMENT_SOURCE, 17);
        let places =
            Places { layout, address: 34, port: 62, checksum: 68, transport: 62, protocol };
        Self::of_frame(frame, flows, &places)
    }

    fn of_frame(frame: Vec<u8>, flows: u32, places: &Places) -> Self {
        let is_v4 = frame[12..14] == [0x08, 0x00];
        let Places { layout, address, port, checksum, transport, protocol } = *places;
        let mut bare = frame.clone();
        bare[address..address + 4].fill(0);
        bare[port..port + 2].fill(0);
        bare[checksum..checksum + 2].fill(0);
        if is_v4 {
            bare[24..26].fill(0);
        }
        let addresses = if is_v4 { 26..34 } else { 22..54 };
        let length = (frame.len() - transport) as u16;
        let pseudo =
            [&bare[addresses], &[0, protocol], &length.to_be_bytes(), &bare[transport..]].concat();
        let mut stream = Self::plain(frame, &bare, flows, layout, (address, port));
        stream.template.network_sum = if is_v4 { sum(&bare[14..34]) } else { 0 };
        stream.template.transport_sum = sum(&pseudo);
        stream
    }

    /// Without the sums. `bare` is the frame with nothing where something varies.
    fn plain(
        frame: Vec<u8>,
        bare: &[u8],
        flows: u32,
        layout: u32,
        (address, port): (usize, usize),
    ) -> Self {
        let word = |index: usize| {
            let bytes = bare.get(index * 8..index * 8 + 8).unwrap_or(&[0; 8]);
            u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))
        };
        let template = Template {
            counter: 0,
            frame: std::array::from_fn(word),
            mask: flows.next_power_of_two() - 1,
            layout,
            moved: 0,
            program: 0,
            address: u32::from_be_bytes(frame[address..address + 4].try_into().expect("four")),
            port: u16::from_be_bytes([frame[port], frame[port + 1]]).into(),
            network_sum: 0,
            transport_sum: 0,
            drawn: 0,
            flooded: 0,
            flows,
            paired: 0,
        };
        Self { frame, template, other: None }
    }

    /// Flows come as [`Lab::draw`] has said, not in turn.
    pub fn drawn(mut self) -> Self {
        self.template.drawn = 1;
        self
    }

    /// Makes each packet (IPv4, without DF) the first fragment of a longer one.
    pub fn fragment(&mut self) {
        self.write_fragment_field(MORE_V4);
    }

    /// Makes each packet (IPv4, without DF) a fragment. `field`: its offset and whether more follow.
    fn write_fragment_field(&mut self, field: u16) {
        const AT: usize = 20;
        let field = field.to_be_bytes();
        assert_eq!(self.frame[12..14], [0x08, 0x00], "IPv4");
        assert_eq!(self.frame[AT..AT + 2], [0, 0], "a whole packet without DF");
        self.frame[AT..AT + 2].copy_from_slice(&field);
        let mut word = self.template.frame[AT / 8].to_ne_bytes();
        word[AT % 8..AT % 8 + 2].copy_from_slice(&field);
        self.template.frame[AT / 8] = u64::from_ne_bytes(word);
        self.template.network_sum += u32::from(u16::from_ne_bytes(field));
    }

    /// The first frame, to begin a test run with.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Number of flows.
    pub fn flows(&self) -> u32 {
        self.template.flows
    }

    /// With another stream's packets mixed in: of 256 so many.
    pub fn flooded_by(mut self, flood: &Self, of_256: u32) -> Self {
        assert_eq!(self.template.layout, flood.template.layout);
        self.template.flooded = of_256;
        self.other = Some(Box::new(flood.template));
        self
    }
}

/// Folded one's-complement sum in native byte order.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}
