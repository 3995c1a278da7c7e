//! The lab's helper programs: streams of many flows, the bare floor, and the comparison.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunAttrs, TestRunOptions,
    maps::{Array, HashMap, MapData, PerCpuArray, ProgramArray},
    programs::{Xdp, XdpMode, xdp::XdpLinkId},
};

use super::{
    action, array, hash_map, load_program, object,
    packet::{Packet, Transport},
    repeat,
};

#[path = "../../../lb-ebpf/src/bin/lab/abi.rs"]
pub mod abi;

use abi::{Template, WORDS, layout};

// SAFETY: repr(C) over integers, the size asserted to be the sum of the fields, every bit pattern valid.
unsafe impl Pod for Template {}
// SAFETY: as above.
unsafe impl Pod for abi::Constant {}
// SAFETY: as above.
unsafe impl Pod for abi::CompareFlow {}
// SAFETY: as above.
unsafe impl Pod for abi::CompareVip {}
// SAFETY: as above.
unsafe impl Pod for abi::ComparePin {}
// SAFETY: as above.
unsafe impl Pod for abi::CompareBackend {}
// SAFETY: as above.
unsafe impl Pod for abi::CompareCounters {}

/// Live frames that the kernel sends together.
const BATCH: u32 = 64;

/// The loaded helper programs.
pub struct Lab {
    ebpf: Ebpf,
}

/// Which end of a packet varies from flow to flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Varied {
    /// The client is the source (requests).
    Source,
    /// The same, each client in an IPv6 network of its own.
    Network,
    /// The client is the destination (replies).
    Destination,
}

/// A stream of flows made from one packet: address and port of the client vary.
#[derive(Clone, Debug)]
pub struct Stream {
    frame: Vec<u8>,
    template: Template,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Template(counter {}, {} flows)", self.counter, self.mask + 1)
    }
}

impl Stream {
    /// `flows` is a power of two. The packet gets a payload that makes it long enough.
    pub fn new(packet: &Packet, varied: Varied, flows: u32) -> Self {
        assert!(flows.is_power_of_two(), "{flows} flows");
        let mut packet = packet.clone();
        while packet.bytes().len() < WORDS * 8 {
            packet.payload.push(0x55);
        }
        let frame = packet.bytes();
        let is_v4 = packet.ip.source.is_ipv4();
        let is_tcp = matches!(packet.transport, Transport::Tcp(_));
        let transport = if is_v4 { 34 } else { 54 };
        let (layout, address, port) = match (is_v4, is_tcp, varied) {
            (true, true, Varied::Source) => (layout::V4_TCP_SOURCE, 26, transport),
            (true, true, Varied::Destination) => (layout::V4_TCP_DESTINATION, 30, transport + 2),
            (false, true, Varied::Network) => (layout::V6_TCP_NETWORK, 26, transport),
            (true, false, Varied::Source) => (layout::V4_UDP_SOURCE, 26, transport),
            (false, true, Varied::Source) => (layout::V6_TCP_SOURCE, 34, transport),
            (false, true, Varied::Destination) => (layout::V6_TCP_DESTINATION, 50, transport + 2),
            (false, false, Varied::Source) => (layout::V6_UDP_SOURCE, 34, transport),
            (_, false, Varied::Destination) | (_, _, Varied::Network) => {
                panic!("no layout for {varied:?} of this packet")
            }
        };
        let transport_checksum = transport + if is_tcp { 16 } else { 6 };
        let mut bare = frame.clone();
        bare[address..address + 4].fill(0);
        bare[port..port + 2].fill(0);
        bare[transport_checksum..transport_checksum + 2].fill(0);
        if is_v4 {
            bare[24..26].fill(0);
        }
        let addresses = if is_v4 { 26..34 } else { 22..54 };
        let protocol = [0, if is_tcp { 6 } else { 17 }];
        let length = (frame.len() - transport) as u16;
        let pseudo = [&bare[addresses], &protocol, &length.to_be_bytes(), &bare[transport..]];
        let word = |index: usize| {
            u64::from_ne_bytes(bare[index * 8..index * 8 + 8].try_into().expect("eight bytes"))
        };
        let template = Template {
            counter: 0,
            frame: std::array::from_fn(word),
            mask: flows - 1,
            layout,
            moved: 0,
            program: 0,
            address: u32::from_be_bytes(frame[address..address + 4].try_into().expect("four")),
            port: u32::from(u16::from_be_bytes([frame[port], frame[port + 1]])),
            network_sum: if is_v4 { sum(&bare[14..34]) } else { 0 },
            transport_sum: sum(&pseudo.concat()),
            drawn: 0,
            flooded: 0,
        };
        Self { frame, template }
    }

    /// Flows come as [`Lab::draw`] has said, not in turn.
    pub fn drawn(mut self) -> Self {
        self.template.drawn = 1;
        self
    }

    /// Makes each packet (IPv4, without DF) the first fragment of a longer one.
    pub fn fragment(&mut self) {
        /// More fragments follow.
        const MORE: [u8; 2] = [0x20, 0];
        const AT: usize = 20;
        assert_eq!(self.frame[12..14], [0x08, 0x00], "IPv4");
        assert_eq!(self.frame[AT..AT + 2], [0, 0], "a whole packet without DF");
        self.frame[AT..AT + 2].copy_from_slice(&MORE);
        let mut word = self.template.frame[AT / 8].to_ne_bytes();
        word[AT % 8..AT % 8 + 2].copy_from_slice(&MORE);
        self.template.frame[AT / 8] = u64::from_ne_bytes(word);
        self.template.network_sum += u32::from(u16::from_ne_bytes(MORE));
    }

    /// The first frame, to begin a test run with.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Number of flows.
    pub fn flows(&self) -> u32 {
        self.template.mask + 1
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

impl Lab {
    /// Loads the programs. `compare_flows`: size of the comparison program's flow table.
    pub fn load(compare_flows: u32) -> Result<Self> {
        let path = object("lab")?;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("COMPARE_FLOWS", compare_flows)
            .load_file(&path)
            .with_context(|| format!("cannot load {}", path.display()))?;
        for name in ["pass", "floor", "sink", "restore", "generator", "compare"] {
            load_program(&mut ebpf, name)?;
        }
        Ok(Self { ebpf })
    }

    /// A program of the lab.
    pub fn program(&self, name: &str) -> &Xdp {
        let program = self.ebpf.program(name).unwrap_or_else(|| panic!("no program {name}"));
        program.try_into().expect("it is an XDP program")
    }

    /// Makes a program callable by `restore`, as number `index` (0..8).
    pub fn register(&mut self, index: u32, program: &Xdp) -> Result<()> {
        let fd = program.fd()?.try_clone()?;
        self.programs()?.set(index, &fd, 0)?;
        Ok(())
    }

    /// The same for a program of the lab.
    pub fn register_own(&mut self, index: u32, name: &str) -> Result<()> {
        let fd = self.program(name).fd()?.try_clone()?;
        self.programs()?.set(index, &fd, 0)?;
        Ok(())
    }

    fn programs(&mut self) -> Result<ProgramArray<&mut MapData>> {
        Ok(ProgramArray::try_from(self.ebpf.map_mut("PROGRAMS").context("no map PROGRAMS")?)?)
    }

    /// Runs the next `rounds` packets of a stream through registered program `index`, which adds `moved` bytes in front;
    /// the mean time of one. The action of the last one must be `expected`.
    pub fn stream(
        &mut self,
        stream: &mut Stream,
        index: u32,
        moved: u32,
        rounds: u32,
        expected: u32,
    ) -> Result<Duration> {
        (stream.template.program, stream.template.moved) = (index, moved);
        let mut templates: Array<_, Template> = array(&mut self.ebpf, "TEMPLATE");
        templates.set(0, stream.template, 0)?;
        let first = [vec![0; moved as usize], stream.frame.clone()].concat();
        let (last, time) = repeat(self.program("restore"), &first, rounds)?;
        let templates: Array<_, Template> = array(&mut self.ebpf, "TEMPLATE");
        let counter = templates.get(&0, 0)?.counter;
        ensure!(
            counter == stream.template.counter + u64::from(rounds),
            "{} of {rounds} packets were made",
            counter - stream.template.counter
        );
        ensure!(last == expected, "action {last} instead of {expected}");
        stream.template.counter = counter;
        Ok(time)
    }

    /// What flows a [`Stream::drawn`] consists of: these numbers, again and again.
    pub fn draw(&mut self, flows: impl Iterator<Item = u32>) -> Result<()> {
        let mut drawn: Array<_, u32> = array(&mut self.ebpf, "DRAWN");
        for (place, flow) in (0..abi::DRAWN).zip(flows) {
            drawn.set(place, flow, 0)?;
        }
        Ok(())
    }

    /// Sends the next packets of a stream from a NIC of this thread's network namespace, as live frames; a share of
    /// them, in 256ths, are another stream's.
    pub fn send(
        &mut self,
        stream: &mut Stream,
        (flood, flooded): (&Stream, u32),
        nic: u32,
        frames: u32,
    ) -> Result<()> {
        (stream.template.program, stream.template.moved) = (0, 0);
        stream.template.flooded = flooded;
        let mut templates: Array<_, Template> = array(&mut self.ebpf, "TEMPLATE");
        templates.set(0, stream.template, 0)?;
        templates.set(1, flood.template, 0)?;
        // struct xdp_md
        let mut context = [0; 24];
        context[4..8].copy_from_slice(&(stream.frame.len() as u32).to_ne_bytes());
        context[12..16].copy_from_slice(&nic.to_ne_bytes());
        self.program("generator").test_run(TestRunOptions {
            data_in: Some(&stream.frame),
            ctx_in: Some(&context),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        })?;
        stream.template.counter += u64::from(frames);
        Ok(())
    }

    /// Frames that `sink` has dropped so far.
    pub fn sunk(&self) -> Result<u64> {
        let map = self.ebpf.map("SUNK").context("no map SUNK")?;
        let counts: PerCpuArray<_, u64> = PerCpuArray::try_from(map)?;
        Ok(counts.get(&0, 0)?.iter().sum())
    }

    /// Attaches a program of the lab to a NIC, by its driver.
    pub fn attach(&mut self, name: &str, nic: u32) -> Result<XdpLinkId> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
        let program: &mut Xdp = program.try_into()?;
        Ok(program.attach_to_if_index(nic, XdpMode::Driver)?)
    }

    /// Takes it off again.
    pub fn detach(&mut self, name: &str, link: XdpLinkId) -> Result<()> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
        let program: &mut Xdp = program.try_into()?;
        Ok(program.detach(link)?)
    }

    /// Composes the next packet of a stream and leaves it at that.
    pub fn next(&mut self, stream: &mut Stream) -> Result<Vec<u8>> {
        stream.template.moved = 0;
        let mut templates: Array<_, Template> = array(&mut self.ebpf, "TEMPLATE");
        templates.set(0, stream.template, 0)?;
        let outcome = super::run(self.program("generator"), &stream.frame);
        ensure!(outcome.action == action::TX, "action {}", outcome.action);
        stream.template.counter += 1;
        Ok(outcome.frame)
    }

    /// Configures the comparison program: a VIP with backends, in turn on its ring.
    pub fn compare(&mut self, vip: IpAddr, port: u16, backends: &[IpAddr]) -> Result<()> {
        let raw = |address: &IpAddr| match address {
            IpAddr::V4(v4) => Ok(u32::from_ne_bytes(v4.octets())),
            IpAddr::V6(_) => Err(anyhow::anyhow!("the comparison serves IPv4 only")),
        };
        let key = abi::CompareVip { address: raw(&vip)?, port: port.to_be(), protocol: 6, _pad: 0 };
        let mut vips: HashMap<_, abi::CompareVip, u32> = hash_map(&mut self.ebpf, "COMPARE_VIPS");
        vips.insert(key, 0, 0)?;
        let mut ring: Array<_, u32> = array(&mut self.ebpf, "COMPARE_RING");
        for slot in 0..ring.len() {
            ring.set(slot, slot % backends.len() as u32, 0)?;
        }
        let mut rows: Array<_, abi::CompareBackend> = array(&mut self.ebpf, "COMPARE_BACKENDS");
        for (index, backend) in backends.iter().enumerate() {
            let mac = [2, 0, 0, 0, 0xcc, index as u8];
            let row = abi::CompareBackend { address: raw(backend)?, mac, _pad: [0; 6] };
            rows.set(index as u32, row, 0)?;
        }
        Ok(())
    }
}
