//! The host's routes once more, for the program to compare one by one, if they are few.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use lb_common::abi::{FewRoutes, FewTables};

use super::{mapped::Table, prefix::mapped_length};

/// A packet that reads a table has left the program long before this.
const REST: Duration = Duration::from_secs(1);

/// Both families.
pub(super) struct Few {
    map: Table<FewTables>,
    families: [Family; 2],
}

#[derive(Default)]
struct Family {
    wanted: Option<FewRoutes>,
    /// When the tables were last switched: the other one may have readers until [`REST`] later.
    switched: Option<Instant>,
}

impl Few {
    /// Takes over what an earlier daemon has left, which is not believed: the trie is asked until the routes are known.
    pub(super) fn adopt(map: Table<FewTables>) -> Self {
        let few = Self { map, families: [Family::default(), Family::default()] };
        few.stop();
        few
    }

    /// Has the program ask the trie.
    pub(super) fn stop(&self) {
        for family in 0..2 {
            self.map.set_word(family, 0, 0);
        }
    }

    /// What the program has to know: the routes with their rows, as they are in the trie.
    pub(super) fn set<'a>(&mut self, routes: impl Iterator<Item = (&'a IpNet, &'a u32)>) {
        let mut lists = [Vec::new(), Vec::new()];
        for (prefix, row) in routes {
            let list = &mut lists[usize::from(prefix.addr().is_ipv6())];
            list.push((prefix.network().into(), mapped_length(prefix), *row));
        }
        for (family, list) in self.families.iter_mut().zip(&mut lists) {
            family.wanted = FewRoutes::of(list);
        }
        self.settle();
    }

    /// Makes the program use what was wanted, as soon as the table for it has no readers any more; until then the trie is
    /// asked, which is always right.
    pub(super) fn settle(&mut self) {
        for (index, family) in self.families.iter_mut().enumerate() {
            let index = index as u32;
            let loaded = self.map.get(index);
            let in_use = (loaded.active as usize).checked_sub(1).and_then(|n| loaded.tables.get(n));
            if in_use == family.wanted.as_ref() {
                continue;
            }
            let Some(wanted) = family.wanted else {
                self.map.set_word(index, 0, 0);
                family.switched = Some(Instant::now());
                continue;
            };
            if family.switched.is_some_and(|at| at.elapsed() < REST) {
                self.map.set_word(index, 0, 0);
                continue;
            }
            // The table in use now, or, while the trie is asked, either: nobody has read one for a while.
            let next = if loaded.active == 1 { 2 } else { 1 };
            let mut tables = loaded.tables;
            tables[next - 1] = wanted;
            self.map.set(index, &FewTables { active: next as u64, tables });
            family.switched = Some(Instant::now());
        }
    }
}
