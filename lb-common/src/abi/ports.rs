//! Services of more than one port, or of all addresses of a prefix: their VIP (or prefix) and protocol name a list of port
//! ranges, and the first that has the packet's port names the service. Replies of their nat backends are found alike.

/// Entries of a list.
pub const PORT_LIST_ENTRIES: usize = 16;

/// Lists in `PORT_LISTS`; number 0 is never used.
pub const PORT_LISTS: u32 = 1024;

/// Prefixes in `VIP_PREFIXES` at most.
pub const VIP_PREFIXES: u32 = 4096;

/// One range: bits 0..16 its first port, 16..32 its last one, 32..64 a value that is never 0: a row of `SERVICES`, or a
/// backend's id. Zero is the end of a list.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortEntry(pub u64);

impl PortEntry {
    /// The ports `first..=last` (host order).
    pub const fn new(first: u16, last: u16, value: u32) -> Self {
        Self(first as u64 | (last as u64) << 16 | (value as u64) << 32)
    }

    /// The first port.
    pub const fn first(self) -> u16 {
        self.0 as u16
    }

    /// The last port.
    pub const fn last(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// What stands for the range.
    pub const fn value(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether a port (host order) is in the range.
    #[inline(always)]
    pub const fn has(self, port: u16) -> bool {
        self.first() <= port && port <= self.last()
    }
}

/// One entry of `PORT_LISTS`. The best match stands first. Each word is stored whole; which words there are changes only in
/// lists that no packet can find.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortList {
    /// The ranges; behind the last one zeros.
    pub entries: [PortEntry; PORT_LIST_ENTRIES],
}

const _: () = assert!(size_of::<PortList>() == 128);

impl PortList {
    /// The value of the first range that has a port (host order).
    pub fn find(&self, port: u16) -> Option<u32> {
        let used = self.entries.iter().take_while(|entry| entry.0 != 0);
        used.copied().find(|entry| entry.has(port)).map(PortEntry::value)
    }
}

/// What a service listens on beside what stands in its row, by service id: for the controller, which finds its services by it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenRow {
    /// The last port (host order); the row's own where there is only one; 65,535 with a row's port of 0.
    pub last_port: u16,
    /// Length of the VIP's prefix, bits of its own family.
    pub prefix: u8,
    /// Zero.
    pub _pad: [u8; 5],
}

const _: () = assert!(size_of::<ListenRow>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_range_that_has_the_port_counts() {
        let mut list = PortList::default();
        assert_eq!(list.find(0), None);
        list.entries[0] = PortEntry::new(8000, 8000, 7);
        list.entries[1] = PortEntry::new(8000, 8999, 8);
        list.entries[2] = PortEntry::new(1, 65_535, u32::MAX);
        for (port, value) in [
            (0, None),
            (1, Some(u32::MAX)),
            (7999, Some(u32::MAX)),
            (8000, Some(7)),
            (8001, Some(8)),
            (8999, Some(8)),
            (9000, Some(u32::MAX)),
            (65_535, Some(u32::MAX)),
        ] {
            assert_eq!(list.find(port), value, "{port}");
        }
        let entry = PortEntry::new(8000, 8999, 8);
        assert_eq!((entry.first(), entry.last(), entry.value()), (8000, 8999, 8));
        list.entries[0] = PortEntry::default();
        assert_eq!(list.find(8001), None, "a zero ends the list");
    }
}
