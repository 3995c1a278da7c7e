//! The backend's decapsulator, as [`super::Kernel`] is the balancer.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{LpmTrie, PerCpuArray, lpm_trie::Key},
    programs::Xdp,
};
use lb_common::abi::{Address, RouteKey, program};

use super::{Outcome, hash_map, load_program, object, run};

/// The loaded program.
pub struct Decap {
    ebpf: Ebpf,
}

impl Decap {
    /// Loads it: outer destinations that are its own, outer sources that may send, and the UDP port of GUE.
    pub fn load(local: &[IpAddr], from: &[IpAddr], gue_port: u16) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .override_global("DECAP_GUE_PORT", &u32::from(gue_port), true)
            .load_file(object(program::DECAP)?)?;
        for address in local {
            hash_map::<Address, u32>(&mut ebpf, "DECAP_LOCAL").insert(
                Address::from(*address),
                1,
                0,
            )?;
        }
        let map = ebpf.map_mut("DECAP_FROM").context("no map DECAP_FROM")?;
        let mut sources: LpmTrie<_, RouteKey, u32> = LpmTrie::try_from(map)?;
        for address in from {
            let key = RouteKey { destination: Address::from(*address) };
            sources.insert(&Key::new(128, key), 1, 0)?;
        }
        load_program(&mut ebpf, program::DECAP)?;
        Ok(Self { ebpf })
    }

    /// Runs one frame through it, and tells how many packets were decapsulated, refused and broken by that.
    pub fn count(&mut self, frame: &[u8]) -> (Outcome, [u64; 3]) {
        let before = self.counts();
        let program: &Xdp =
            self.ebpf.program(program::DECAP).expect("loaded").try_into().expect("XDP");
        let outcome = run(program, frame);
        let after = self.counts();
        (outcome, [0, 1, 2].map(|index| after[index] - before[index]))
    }

    fn counts(&mut self) -> [u64; 3] {
        let map = self.ebpf.map_mut("DECAP_COUNTS").expect("the program declares it");
        let counts: PerCpuArray<_, u64> = PerCpuArray::try_from(map).expect("its type");
        [0, 1, 2].map(|index| counts.get(&index, 0).expect("within").iter().sum())
    }
}
