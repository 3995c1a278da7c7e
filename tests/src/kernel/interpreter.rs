//! The balancer's program, one instruction at a time and outside the kernel: what the way of a packet costs in
//! instructions, map operations and helper calls. Unlike a time, that is the same on every machine and in every run.
//!
//! Instructions are those of the object, before the kernel removes the branches that load-time globals rule out. Maps are
//! the loaded program's own; what a run writes stays in its memory.

mod machine;
mod maps;
mod memory;

use std::{
    collections::{BTreeMap, HashSet},
    fs,
};

use anyhow::{Context as _, Result};
use aya_obj::{Object, generated::bpf_insn};
use lb_common::abi::program;

use self::{machine::Machine, maps::Maps};
use super::{Kernel, Outcome, object};

/// What one packet has cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Instructions.
    pub instructions: u64,
    /// Look-ups by map. Those in array maps are inlined by the kernel, the others are calls.
    pub lookups: BTreeMap<String, u64>,
    /// Insertions and removals by map.
    pub updates: BTreeMap<String, u64>,
    /// Other helpers, by name; also functions of the program itself: what calls cost is the way back.
    pub helpers: BTreeMap<&'static str, u64>,
}

/// The balancer's instructions, ready to be run.
pub struct Interpreter {
    programs: Programs,
    maps: Maps,
}

/// Each with its functions.
struct Programs {
    fast_path: Vec<bpf_insn>,
    balancer: Vec<bpf_insn>,
    fullnat: Vec<bpf_insn>,
}

impl Interpreter {
    /// Of a loaded balancer, whose maps it will read.
    pub fn new(kernel: &Kernel) -> Result<Self> {
        let bytes = fs::read(object("balancer")?)?;
        let mut object = Object::parse(&bytes).context("the balancer's object")?;
        let maps = Maps::of(&kernel.ebpf)?;
        let sections: HashSet<usize> =
            object.functions.keys().map(|(section, _)| *section).collect();
        let declared = object.maps.clone();
        let numbered = declared
            .iter()
            .filter_map(|(name, map)| Some((name.as_str(), maps.number(name)? as i32, map)));
        object.relocate_maps(numbered, &sections)?;
        object.relocate_calls(&sections)?;
        let mut code = |name: &str| {
            let program =
                object.programs.get(name).with_context(|| format!("no program `{name}`"))?;
            let function = object.functions.remove(&program.function_key());
            anyhow::Ok(function.context("the program has no code")?.instructions)
        };
        let programs = Programs {
            fast_path: code(program::FAST_PATH)?,
            balancer: code(program::BALANCER)?,
            fullnat: code(program::FULLNAT)?,
        };
        Ok(Self { programs, maps })
    }

    /// Runs one frame.
    pub fn run(&self, frame: &[u8]) -> Result<(Outcome, Cost)> {
        let mut machine = Machine::new(&self.programs, &self.maps, frame);
        let action =
            machine.run().with_context(|| format!("at instruction {}", machine.counter()))?;
        Ok((Outcome { action, frame: machine.frame() }, machine.into_cost()))
    }
}
