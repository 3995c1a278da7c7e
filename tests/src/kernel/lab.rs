//! The lab's helper programs: streams of many flows, the bare floor, and the comparison.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunAttrs, TestRunOptions,
    maps::{Array, HashMap, MapData, PerCpuArray, ProgramArray},
    programs::{Xdp, XdpMode, xdp::XdpLinkId},
};

use super::{action, array, hash_map, load_program, object, repeat};

#[path = "../../../lb-ebpf/src/bin/lab/abi.rs"]
pub mod abi;
mod stream;

pub use stream::{Stream, Varied};

use abi::Template;

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

    /// Makes a program callable by `restore`, as number `index` (0..32).
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
        if let Some(other) = &stream.other {
            templates.set(1, **other, 0)?;
        }
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
        if let Some(other) = &stream.other {
            templates.set(1, **other, 0)?;
        }
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
        let key = abi::CompareVip {
            address: [raw(&vip)?.into(), 0],
            port: port.to_be(),
            protocol: 6,
            _pad: [0; 5],
        };
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
