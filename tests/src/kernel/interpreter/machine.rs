//! Registers and instructions (RFC 9669).

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use aya_obj::generated::bpf_insn;
use lb_common::abi::next_program;

use super::{Cost, Programs, maps::Maps, memory::Memory};
use crate::kernel::INGRESS;

/// Free bytes in front of a frame, as the kernel has them.
const HEADROOM: usize = 256;
/// Free bytes behind it.
const TAILROOM: usize = 320;
/// More than any packet may cost.
const MOST: u64 = 1_000_000;
const STACK: usize = 512;
/// Upper half of what a register holds that points to a map.
const MAP: u64 = 0xffff_0000;
/// What clocks say, nanoseconds.
const NOW: u64 = 1_000_000_000_000;
/// Jiffies: later than all that the kernel has noted.
const JIFFIES: u64 = 1 << 40;

struct Call {
    back_to: usize,
    saved: [u64; 5],
}

/// A program that runs.
pub struct Machine<'a> {
    code: &'a [bpf_insn],
    /// What tail calls go on to.
    programs: &'a Programs,
    maps: &'a Maps,
    memory: Memory,
    registers: [u64; 11],
    counter: usize,
    calls: Vec<Call>,
    context: u64,
    frame: u64,
    start: usize,
    end: usize,
    /// Addresses of values by map and key; `None` = removed.
    values: BTreeMap<(usize, Vec<u8>), Option<u64>>,
    cost: Cost,
}

impl<'a> Machine<'a> {
    /// At the first instruction, with a frame to look at.
    pub fn new(programs: &'a Programs, maps: &'a Maps, frame: &[u8]) -> Self {
        let mut memory = Memory::default();
        let context = memory.add(vec![0; 24]);
        let room = [&[0; HEADROOM], frame, &[0; TAILROOM]].concat();
        let address = memory.add(room);
        let stack = memory.add(vec![0; STACK]);
        let mut registers = [0; 11];
        registers[1] = context;
        registers[10] = stack + STACK as u64;
        let (start, end) = (HEADROOM, HEADROOM + frame.len());
        let (values, cost) = (BTreeMap::new(), Cost::default());
        Self {
            code: &programs.fast_path,
            programs,
            maps,
            memory,
            registers,
            counter: 0,
            calls: Vec::new(),
            context,
            frame: address,
            start,
            end,
            values,
            cost,
        }
    }

    /// Where it is.
    pub fn counter(&self) -> usize {
        self.counter
    }

    /// The frame as it is now.
    pub fn frame(&self) -> Vec<u8> {
        let bytes = self.memory.bytes(self.frame + self.start as u64, self.end - self.start);
        bytes.map(<[u8]>::to_vec).unwrap_or_default()
    }

    /// What it has cost.
    pub fn into_cost(self) -> Cost {
        self.cost
    }

    /// Runs to the end; the action.
    pub fn run(&mut self) -> Result<u32> {
        loop {
            self.cost.instructions += 1;
            ensure!(self.cost.instructions < MOST, "it does not end");
            let instruction = *self.code.get(self.counter).context("it runs out of its code")?;
            self.counter += 1;
            match instruction.code & 7 {
                0 => self.load_wide(instruction)?,
                1 => self.load(instruction)?,
                2 => self.store(instruction, instruction.imm as i64 as u64)?,
                3 if instruction.code & 0xe0 == 0xc0 => self.atomic(instruction)?,
                3 => self.store(instruction, self.registers[usize::from(instruction.src_reg())])?,
                class @ (4 | 7) => self.arithmetic(instruction, class == 7)?,
                class => {
                    if let Some(action) = self.jump(instruction, class == 5)? {
                        return Ok(action);
                    }
                }
            }
        }
    }

    /// A number of 64 bits: a constant, a map, or a place in a map's one value.
    fn load_wide(&mut self, instruction: bpf_insn) -> Result<()> {
        let upper = self.code.get(self.counter).context("half an instruction")?.imm;
        self.counter += 1;
        let number = instruction.imm as u32 as usize;
        let value = match instruction.src_reg() {
            0 => u64::from(instruction.imm as u32) | (u64::from(upper as u32) << 32),
            1 => (MAP << 32) | number as u64,
            2 => {
                let address = self
                    .value(number, &0u32.to_le_bytes())?
                    .context("a global that is not there")?;
                address + u64::from(upper as u32)
            }
            kind => bail!("a number of kind {kind}"),
        };
        self.registers[usize::from(instruction.dst_reg())] = value;
        Ok(())
    }

    fn load(&mut self, instruction: bpf_insn) -> Result<()> {
        let address = self.registers[usize::from(instruction.src_reg())]
            .wrapping_add_signed(i64::from(instruction.off));
        let value = match address.checked_sub(self.context) {
            // struct xdp_md: what are 32 bits to a program are addresses.
            Some(0 | 8) => self.frame + self.start as u64,
            Some(4) => self.frame + self.end as u64,
            Some(12) => u64::from(INGRESS),
            _ => self.memory.load(address, size(instruction))?,
        };
        self.registers[usize::from(instruction.dst_reg())] = value;
        Ok(())
    }

    fn store(&mut self, instruction: bpf_insn, value: u64) -> Result<()> {
        let address = self.registers[usize::from(instruction.dst_reg())]
            .wrapping_add_signed(i64::from(instruction.off));
        self.memory.store(address, size(instruction), value)
    }

    fn atomic(&mut self, instruction: bpf_insn) -> Result<()> {
        let (source, size) = (usize::from(instruction.src_reg()), size(instruction));
        let address = self.registers[usize::from(instruction.dst_reg())]
            .wrapping_add_signed(i64::from(instruction.off));
        let (old, operand) = (self.memory.load(address, size)?, self.registers[source]);
        let new = match instruction.imm & !1 {
            0x00 => old.wrapping_add(operand),
            0x40 => old | operand,
            0x50 => old & operand,
            0xa0 => old ^ operand,
            0xe0 => operand,
            0xf0 if old == self.registers[0] => operand,
            0xf0 => old,
            other => bail!("atomic operation {other:#x}"),
        };
        self.memory.store(address, size, new)?;
        match instruction.imm {
            0xf1 => self.registers[0] = old,
            fetching if fetching & 1 == 1 => self.registers[source] = old,
            _ => {}
        }
        Ok(())
    }

    fn operand(&self, instruction: bpf_insn) -> u64 {
        match instruction.code & 8 {
            0 => instruction.imm as i64 as u64,
            _ => self.registers[usize::from(instruction.src_reg())],
        }
    }

    fn arithmetic(&mut self, instruction: bpf_insn, wide: bool) -> Result<()> {
        let place = usize::from(instruction.dst_reg());
        let (left, right) = (self.registers[place], self.operand(instruction));
        let operation = instruction.code & 0xf0;
        self.registers[place] = match (operation, wide) {
            (0xd0, _) => swapped(left, instruction)?,
            (_, true) => wide_result(operation, left, right)?,
            (_, false) => narrow_result(operation, left as u32, right as u32)?,
        };
        Ok(())
    }

    fn jump(&mut self, instruction: bpf_insn, wide: bool) -> Result<Option<u32>> {
        let operation = instruction.code & 0xf0;
        match (operation, wide) {
            (0x80, _) => self.call(instruction)?,
            (0x90, _) => {
                let Some(call) = self.calls.pop() else {
                    return Ok(Some(self.registers[0] as u32));
                };
                self.counter = call.back_to;
                self.registers[6..].copy_from_slice(&call.saved);
            }
            (0x00, true) => self.go(i64::from(instruction.off)),
            (0x00, false) => self.go(i64::from(instruction.imm)),
            _ => {
                let (left, right) =
                    (self.registers[usize::from(instruction.dst_reg())], self.operand(instruction));
                let (left, right) = if wide {
                    (left, right)
                } else {
                    (u64::from(left as u32), u64::from(right as u32))
                };
                let signed = |number: u64| {
                    if wide { number as i64 } else { i64::from(number as u32 as i32) }
                };
                let taken = match operation {
                    0x10 => left == right,
                    0x20 => left > right,
                    0x30 => left >= right,
                    0x40 => left & right != 0,
                    0x50 => left != right,
                    0x60 => signed(left) > signed(right),
                    0x70 => signed(left) >= signed(right),
                    0xa0 => left < right,
                    0xb0 => left <= right,
                    0xc0 => signed(left) < signed(right),
                    0xd0 => signed(left) <= signed(right),
                    other => bail!("jump {other:#x}"),
                };
                if taken {
                    self.go(i64::from(instruction.off));
                }
            }
        }
        Ok(None)
    }

    fn go(&mut self, offset: i64) {
        self.counter = (self.counter as i64 + offset) as usize;
    }

    fn call(&mut self, instruction: bpf_insn) -> Result<()> {
        if instruction.src_reg() != 0 {
            self.helper("own function", 0);
            let saved = [6, 7, 8, 9, 10].map(|register: usize| self.registers[register]);
            self.calls.push(Call { back_to: self.counter, saved });
            self.registers[10] = self.memory.add(vec![0; STACK]) + STACK as u64;
            self.go(i64::from(instruction.imm));
            return Ok(());
        }
        let [_, first, second, third, fourth, ..] = self.registers;
        self.registers[0] = match instruction.imm {
            1 => self.look_up(first, second)?,
            2 => self.update(first, second, Some(third))?,
            3 => self.update(first, second, None)?,
            5 => self.helper("ktime_get_ns", NOW),
            7 => self.helper("get_prandom_u32", 0x5eed_5eed),
            8 => self.helper("get_smp_processor_id", 0),
            12 => {
                ensure!(self.calls.is_empty(), "a tail call from within a function");
                let next = match third as u32 {
                    next_program::BALANCER => &self.programs.balancer,
                    _ => &self.programs.fullnat,
                };
                (self.code, self.counter) = (next, 0);
                self.helper("tail_call", 0);
                self.registers[1] = first;
                return Ok(());
            }
            44 => self.move_head(second as i32)?,
            51 => self.redirect(first, second, third)?,
            65 => self.move_tail(second as i32)?,
            69 => self.helper("fib_lookup", 3),
            118 => self.helper("jiffies64", JIFFIES),
            131 => {
                let place = self.memory.add(vec![0; second as usize]);
                self.helper("ringbuf_reserve", place)
            }
            132 | 133 => self.helper("ringbuf_submit", 0),
            160 => self.helper("ktime_get_coarse_ns", NOW),
            189 => {
                let bytes = self
                    .memory
                    .bytes(self.frame + self.start as u64 + second, fourth as usize)?
                    .to_vec();
                self.memory.write(third, &bytes)?;
                self.helper("xdp_load_bytes", 0)
            }
            other => bail!("helper {other}"),
        };
        Ok(())
    }

    fn helper(&mut self, name: &'static str, result: u64) -> u64 {
        *self.cost.helpers.entry(name).or_default() += 1;
        result
    }

    fn map(pointer: u64) -> Result<usize> {
        ensure!(pointer >> 32 == MAP, "{pointer:#x} is no map");
        Ok((pointer & 0xffff_ffff) as usize)
    }

    /// Address of a value, as this run sees it.
    fn value(&mut self, number: usize, key: &[u8]) -> Result<Option<u64>> {
        let place = (number, key.to_vec());
        if let Some(known) = self.values.get(&place) {
            return Ok(*known);
        }
        let map = self.maps.get(number).context("no such map")?;
        let found = map.look_up(key).with_context(|| format!("reading {}", map.name))?;
        let address = found.map(|bytes| self.memory.add(bytes));
        self.values.insert(place, address);
        Ok(address)
    }

    fn look_up(&mut self, map: u64, key: u64) -> Result<u64> {
        let number = Self::map(map)?;
        let facts = self.maps.get(number).context("no such map")?;
        *self.cost.lookups.entry(facts.name.clone()).or_default() += 1;
        let key = self.memory.bytes(key, facts.key)?.to_vec();
        Ok(self.value(number, &key)?.unwrap_or(0))
    }

    fn update(&mut self, map: u64, key: u64, value: Option<u64>) -> Result<u64> {
        let number = Self::map(map)?;
        let facts = self.maps.get(number).context("no such map")?;
        *self.cost.updates.entry(facts.name.clone()).or_default() += 1;
        let key = self.memory.bytes(key, facts.key)?.to_vec();
        let bytes = value
            .map(|address| self.memory.bytes(address, facts.value).map(<[u8]>::to_vec))
            .transpose()?;
        let address = bytes.map(|bytes| self.memory.add(bytes));
        self.values.insert((number, key), address);
        Ok(0)
    }

    fn redirect(&mut self, map: u64, key: u64, otherwise: u64) -> Result<u64> {
        let known = self.value(Self::map(map)?, &(key as u32).to_le_bytes())?.is_some();
        Ok(self.helper("redirect_map", if known { 4 } else { otherwise & 3 }))
    }

    fn move_head(&mut self, by: i32) -> Result<u64> {
        let start = self.start as i64 + i64::from(by);
        ensure!(start >= 0 && start + 14 <= self.end as i64, "the head is moved to {start}");
        self.start = start as usize;
        Ok(self.helper("xdp_adjust_head", 0))
    }

    fn move_tail(&mut self, by: i32) -> Result<u64> {
        let end = self.end as i64 + i64::from(by);
        ensure!(end >= self.start as i64 + 14, "the tail is moved to {end}");
        self.end = end as usize;
        Ok(self.helper("xdp_adjust_tail", 0))
    }
}

fn size(instruction: bpf_insn) -> usize {
    match instruction.code & 0x18 {
        0x00 => 4,
        0x08 => 2,
        0x10 => 1,
        _ => 8,
    }
}

fn swapped(value: u64, instruction: bpf_insn) -> Result<u64> {
    let to_big = instruction.code & 8 != 0;
    Ok(match (instruction.imm, to_big) {
        (16, true) => u64::from((value as u16).swap_bytes()),
        (16, false) => u64::from(value as u16),
        (32, true) => u64::from((value as u32).swap_bytes()),
        (32, false) => u64::from(value as u32),
        (64, true) => value.swap_bytes(),
        (64, false) => value,
        (bits, _) => bail!("a number of {bits} bits is turned round"),
    })
}

fn wide_result(operation: u8, left: u64, right: u64) -> Result<u64> {
    Ok(match operation {
        0x00 => left.wrapping_add(right),
        0x10 => left.wrapping_sub(right),
        0x20 => left.wrapping_mul(right),
        0x30 => left.checked_div(right).unwrap_or(0),
        0x40 => left | right,
        0x50 => left & right,
        0x60 => left.wrapping_shl(right as u32),
        0x70 => left.wrapping_shr(right as u32),
        0x80 => left.wrapping_neg(),
        0x90 => left.checked_rem(right).unwrap_or(left),
        0xa0 => left ^ right,
        0xb0 => right,
        0xc0 => (left as i64).wrapping_shr(right as u32) as u64,
        other => bail!("operation {other:#x}"),
    })
}

fn narrow_result(operation: u8, left: u32, right: u32) -> Result<u64> {
    let result = match operation {
        0x60 => left.wrapping_shl(right),
        0x70 => left.wrapping_shr(right),
        0x80 => left.wrapping_neg(),
        0xc0 => (left as i32).wrapping_shr(right) as u32,
        _ => wide_result(operation, u64::from(left), u64::from(right))? as u32,
    };
    Ok(u64::from(result))
}
