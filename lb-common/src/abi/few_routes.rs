//! The host's routes where there are only a few, as on most hosts: compared one by one, which costs a tenth of a lookup
//! in the trie that holds them all.

use super::Address;

/// Routes of one family at most; with more, the trie is asked.
pub const FEW: usize = 8;

/// One route.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FewRoute {
    /// [`Address::high`] of the prefix.
    pub high: u64,
    /// [`Address::low`] of the prefix.
    pub low: u64,
    /// The bits of `high` that count.
    pub high_mask: u64,
    /// The bits of `low` that count.
    pub low_mask: u64,
    /// Row in `NEXTHOPS`; 0 = no route. A zeroed entry matches everything and says so.
    pub row: u64,
}

/// The routes of one family, the longest prefixes first.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FewRoutes {
    /// The routes; unused ones at the end are zeroed.
    pub routes: [FewRoute; FEW],
}

/// One entry of `FEW_ROUTES`: index 0 for IPv4, 1 for IPv6. The controller fills the table that is not in use, and then
/// changes `active` by one store.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FewTables {
    /// 0 = ask `ROUTES`; else the number of the table in use, from 1.
    pub active: u64,
    /// The tables.
    pub tables: [FewRoutes; 2],
}

const _: () = assert!(size_of::<FewRoute>() == 40 && size_of::<FewTables>() == 8 + 2 * 320);

impl FewRoute {
    /// A prefix in v4-mapped form (an IPv4 prefix of length n has length 96 + n) and its row.
    pub fn new(prefix: &Address, length: u32, row: u32) -> Self {
        let mask = Address::v6([0, 1, 2, 3].map(|word| {
            let bits = length.saturating_sub(word * 32).min(32);
            crate::be::Be32::from_host((!0u64 << (32 - bits)) as u32)
        }));
        Self {
            high: prefix.high() & mask.high(),
            low: prefix.low() & mask.low(),
            high_mask: mask.high(),
            low_mask: mask.low(),
            row: row as u64,
        }
    }

    /// Whether an address is within the prefix.
    #[inline(always)]
    pub const fn contains(&self, address: &Address) -> bool {
        address.high() & self.high_mask == self.high && address.low() & self.low_mask == self.low
    }
}

impl FewRoutes {
    /// The table of these routes (prefix, its length in v4-mapped form, row), if they are few.
    pub fn of(routes: &mut [(Address, u32, u32)]) -> Option<Self> {
        if routes.len() > FEW {
            return None;
        }
        routes.sort_unstable_by_key(|(_, length, row)| (core::cmp::Reverse(*length), *row));
        let mut table = Self::default();
        for (place, (prefix, length, row)) in table.routes.iter_mut().zip(routes) {
            *place = FewRoute::new(prefix, *length, *row);
        }
        Some(table)
    }

    /// The row of the longest prefix that contains an address; 0 = no route.
    #[inline(always)]
    pub fn find(&self, address: &Address) -> u32 {
        for route in &self.routes {
            if route.contains(address) {
                return route.row as u32;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str, row: u32) -> (Address, u32, u32) {
        let (address, length) = text.split_once('/').unwrap();
        let address: core::net::IpAddr = address.parse().unwrap();
        let mapped = if address.is_ipv4() { 96 } else { 0 };
        (address.into(), mapped + length.parse::<u32>().unwrap(), row)
    }

    fn find(table: &FewRoutes, address: &str) -> u32 {
        table.find(&address.parse::<core::net::IpAddr>().unwrap().into())
    }

    #[test]
    fn the_longest_prefix_wins_whatever_the_order() {
        let mut routes = [
            route("0.0.0.0/0", 1),
            route("10.0.0.0/8", 2),
            route("10.1.2.0/24", 3),
            route("10.1.2.3/32", 4),
        ];
        for _ in 0..routes.len() {
            routes.rotate_left(1);
            let table = FewRoutes::of(&mut routes.clone()).unwrap();
            for (address, row) in
                [("192.0.2.1", 1), ("10.9.9.9", 2), ("10.1.2.9", 3), ("10.1.2.3", 4)]
            {
                assert_eq!(find(&table, address), row, "{address}");
            }
        }
    }

    #[test]
    fn ipv6_prefixes_of_any_length_match_what_they_contain() {
        let mut routes =
            [route("2001:db8::/33", 1), route("2001:db8:1::/64", 2), route("fd00::1/128", 3)];
        let table = FewRoutes::of(&mut routes).unwrap();
        for (address, row) in [
            ("2001:db8:7fff::1", 1),
            ("2001:db8:8000::1", 0),
            ("2001:db8:1::ffff", 2),
            ("2001:db8:1:1::1", 1),
            ("fd00::1", 3),
            ("fd00::2", 0),
            ("::", 0),
        ] {
            assert_eq!(find(&table, address), row, "{address}");
        }
    }

    #[test]
    fn nothing_matches_in_an_empty_table_and_too_many_are_none() {
        assert_eq!(find(&FewRoutes::default(), "192.0.2.1"), 0);
        let full: Vec<_> = (0..8).map(|n| route(&format!("10.{n}.0.0/16"), n + 1)).collect();
        let table = FewRoutes::of(&mut full.clone()).unwrap();
        assert_eq!((find(&table, "10.7.0.1"), find(&table, "10.8.0.1")), (8, 0));
        let mut more = [full.as_slice(), &[route("0.0.0.0/0", 9)]].concat();
        assert_eq!(FewRoutes::of(&mut more), None);
    }
}
