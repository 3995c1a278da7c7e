//! Memory of the interpreted program: regions that an address names by its upper half.

use anyhow::{Result, ensure};

/// All regions. An address is the number of a region plus one in its upper half, and an offset in its lower half, so that
/// arithmetic that leaves a region is seen.
#[derive(Default)]
pub struct Memory {
    regions: Vec<Vec<u8>>,
}

impl Memory {
    /// A new region with this content; its address.
    pub fn add(&mut self, bytes: Vec<u8>) -> u64 {
        self.regions.push(bytes);
        (self.regions.len() as u64) << 32
    }

    /// So many bytes at an address.
    pub fn bytes(&self, address: u64, length: usize) -> Result<&[u8]> {
        let (region, offset) = split(address);
        let found = self.regions.get(region).and_then(|region| region.get(offset..offset + length));
        found.ok_or_else(|| {
            anyhow::anyhow!("{length} bytes at {address:#x} are read, which are not there")
        })
    }

    /// Writes bytes at an address.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let (region, offset) = split(address);
        let place = self
            .regions
            .get_mut(region)
            .and_then(|region| region.get_mut(offset..offset + bytes.len()));
        ensure!(
            place.is_some(),
            "{} bytes at {address:#x} are written, which are not there",
            bytes.len()
        );
        place.into_iter().for_each(|place| place.copy_from_slice(bytes));
        Ok(())
    }

    /// A number of 1, 2, 4 or 8 bytes.
    pub fn load(&self, address: u64, size: usize) -> Result<u64> {
        let mut number = [0; 8];
        number[..size].copy_from_slice(self.bytes(address, size)?);
        Ok(u64::from_le_bytes(number))
    }

    /// Stores the lower 1, 2, 4 or 8 bytes of a number.
    pub fn store(&mut self, address: u64, size: usize, value: u64) -> Result<()> {
        self.write(address, &value.to_le_bytes()[..size])
    }
}

fn split(address: u64) -> (usize, usize) {
    ((address >> 32).wrapping_sub(1) as usize, (address & 0xffff_ffff) as usize)
}
