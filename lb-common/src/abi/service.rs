//! How the packet path finds a service and what it knows of it.

use super::Address;
use crate::be::Be16;

/// Entries of a bucket.
pub const SERVICE_BUCKET_ENTRIES: usize = 8;

/// What an entry of `SERVICE_TABLE` stands for; part of the key, and never 0 in an entry in use.
pub mod key_kind {
    /// (VIP, port, protocol); the value is a row of `SERVICES`.
    pub const SERVICE: u8 = 1;
    /// (address, 0, 0); the value is one of [`super::address_value`].
    pub const ADDRESS: u8 = 2;
    /// (backend address, port, protocol) of a nat service; the value is a backend id, see `REPLIES`.
    pub const REPLY: u8 = 3;
    /// (VIP, 0, protocol); the value is a list of `PORT_LISTS` with rows of `SERVICES`.
    pub const SERVICE_PORTS: u8 = 4;
    /// (backend address, 0, protocol) of nat services of more than one port; the value is a list of `PORT_LISTS` with
    /// backend ids.
    pub const REPLY_PORTS: u8 = 5;
    /// (VIP, 0, protocol); the value is the row of `SERVICES` whose fragments go by the client's address where nothing is known
    /// of their packet.
    pub const FRAGMENTS: u8 = 6;
}

/// Values of [`key_kind::ADDRESS`] entries.
pub mod address_value {
    /// A VIP that is local to this host: echo is answered, what no service wants is passed.
    pub const VIP_LOCAL: u32 = 1;
    /// A VIP that is not local: echo is answered, what no service wants is dropped (passing it could loop).
    pub const VIP: u32 = 2;
    /// An address of this host that is no VIP: every packet to it is passed untouched, and before it could be taken
    /// for a nat reply (a probe's answer comes from a backend's address and port, too).
    pub const HOST: u32 = 3;
    /// From here on: an address that full nat sends from. Bit 0 says whether it is also local to this host, the bits above which of
    /// `SOURCE_POOL` it is.
    pub const POOL: u32 = 0x100;

    /// The value of an address of the pool.
    pub const fn of_pool(address: u32, is_local: bool) -> u32 {
        POOL | address << 1 | is_local as u32
    }

    /// Which address of the pool a value stands for; `None` = none.
    #[inline(always)]
    pub const fn pool_address(value: u32) -> Option<u32> {
        if value & POOL == 0 { None } else { Some((value & (POOL - 1)) >> 1) }
    }
}

/// One entry. The last word is written by one 8-byte store: after the address when an entry is added, to [`ServiceEntry::REMOVED`]
/// or zero when it is removed; an entry is not used for another key before a grace period has passed.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceEntry {
    /// [`Address::high`] of the key.
    pub high: u64,
    /// [`Address::low`] of the key.
    pub low: u64,
    /// [`ServiceEntry::selector`] in the low half, the value in the high half. 0 = free, and so are all that follow in the
    /// bucket: whoever looks for something that is not there need not look further.
    pub word: u64,
}

impl ServiceEntry {
    /// The last word of an entry that is free, though others follow: no selector is 0.
    pub const REMOVED: u64 = 1 << 32;

    /// Whether it holds no key.
    pub const fn is_free(&self) -> bool {
        self.word as u32 == 0
    }

    /// The part of the key beside the address: raw port, protocol and [`key_kind`].
    pub const fn selector(port: Be16, protocol: u8, kind: u8) -> u32 {
        (port.raw() as u32) | ((protocol as u32) << 16) | ((kind as u32) << 24)
    }

    /// An entry's last word.
    pub const fn word(selector: u32, value: u32) -> u64 {
        (selector as u64) | ((value as u64) << 32)
    }

    /// The bucket of a key: its hash, folded before it is multiplied (consecutive addresses would cluster), then
    /// masked by the number of buckets minus one.
    pub const fn bucket(address: &Address, selector: u32, mask: u32) -> u32 {
        let key = address.low() ^ address.high().rotate_left(29) ^ ((selector as u64) << 7);
        let folded = key ^ (key >> 32);
        ((folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u32) & mask
    }
}

/// One bucket of `SERVICE_TABLE`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceBucket {
    /// The entries.
    pub entries: [ServiceEntry; SERVICE_BUCKET_ENTRIES],
}

const _: () = assert!(size_of::<ServiceBucket>() == 192);

/// How packets reach a backend.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forward {
    /// Destination address and port rewritten; the reply comes back through lb.
    Nat = 1,
    /// Destination MAC address rewritten (layer 2); the backend has the VIP and answers the client directly.
    Dsr = 2,
    /// Encapsulated in IP (RFC 2003, RFC 2473) towards the backend, which answers the client directly.
    Ipip = 3,
    /// Encapsulated in UDP ([`crate::gue`]) towards the backend, which answers the client directly; or, where the backend's row says
    /// [`super::backend_flag::IPIP`], in IP from a prefix: the tunnels that tell flows apart.
    Gue = 4,
    /// Both ends rewritten: the source becomes an address of lb's own, which the backend answers, wherever it is.
    FullNat = 5,
}

/// What happens to packets for a service whose backends are all DOWN (administratively drained ones never count).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnAllDown {
    /// The ring keeps pointing at the DOWN backends; nothing to do in the packet path.
    FailOpen = 0,
    /// TCP reset, ICMP port unreachable.
    Reject = 1,
    /// Counted drop.
    Drop = 2,
}

/// Bits of [`ServiceRow::flags`].
pub mod service_flag {
    /// No backend can be used and the policy is `reject`: answer with a reset or port unreachable.
    pub const REJECT: u32 = 1;
    /// No backend can be used and the policy is `drop`, or all are administratively out.
    pub const DROP: u32 = 2;
    /// Only clients in `allow_list` may in.
    pub const ALLOW: u32 = 4;
    /// Only packets that came in by a NIC in `interfaces`.
    pub const INTERFACES: u32 = 8;
    /// `REJECT` and `DROP` meet only opening packets (TCP SYN without ACK): the backends are drained but alive, and
    /// their old flows go on.
    pub const NEW_ONLY: u32 = 16;
    /// Packets in fragments are taken.
    pub const FRAGMENTS: u32 = 32;
    /// The ring is asked by the client's address alone ([`crate::hash::source_hash`]).
    pub const BY_SOURCE: u32 = 64;
    /// So is the old ring.
    pub const OLD_BY_SOURCE: u32 = 128;
    /// Connections are counted.
    pub const COUNT_CONNECTIONS: u32 = 256;
    /// What packets tell of backends is noted ([`crate::observe`]).
    pub const OBSERVE: u32 = 512;
    /// No client in `deny_list` may in.
    pub const DENY: u32 = 1 << 16;
    /// Openings are limited ([`crate::limit`], [`crate::source_rate`]).
    pub const LIMIT_OPENINGS: u32 = 1 << 17;
    /// There is a SYN-flood stage ([`crate::syn_flood`]).
    pub const SYN_FLOOD: u32 = 1 << 18;
    /// Its datagrams are QUIC's ([`crate::quic`]).
    pub const QUIC: u32 = 1 << 19;
    /// What handshakes offer as maximum segment size is clamped ([`crate::mss`]).
    pub const CLAMP_MSS: u32 = 1 << 20;
    /// Both ends of its flows are translated ([`crate::fullnat`]).
    pub const FULLNAT: u32 = 1 << 21;
    /// Servers are told the clients' addresses ([`crate::toa`]).
    pub const TOA: u32 = 1 << 22;
    /// Every flow is remembered, and its backend chosen by the service's [`super::Policy`] ([`crate::track`]).
    pub const TRACK: u32 = 1 << 24;
    /// The flags that change in place by one 4-byte store; the others come with a new row.
    pub const RUN_TIME: u32 = REJECT | DROP | NEW_ONLY;

    /// Every flag is a bit of its own.
    const _: () = {
        let all = [
            REJECT,
            DROP,
            ALLOW,
            INTERFACES,
            NEW_ONLY,
            FRAGMENTS,
            BY_SOURCE,
            OLD_BY_SOURCE,
            COUNT_CONNECTIONS,
            OBSERVE,
            DENY,
            LIMIT_OPENINGS,
            SYN_FLOOD,
            QUIC,
            CLAMP_MSS,
            FULLNAT,
            TOA,
            TRACK,
        ];
        let (mut seen, mut index) = (0, 0);
        while index < all.len() {
            assert!(all[index].is_power_of_two() && seen & all[index] == 0);
            seen |= all[index];
            index += 1;
        }
    };
}

/// Lengths of prefixes that stand for one client, bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefixes {
    /// Of IPv4, 0..=32.
    pub v4: u8,
    /// Of IPv6, 0..=128.
    pub v6: u8,
}

impl Default for Prefixes {
    /// A host: the whole IPv4 address, or the first 64 bits of an IPv6 one (a host changes the others at will, RFC 8981).
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

impl Prefixes {
    /// The address with its host part zero.
    #[inline(always)]
    pub const fn masked(self, address: &Address) -> Address {
        let [a, b, c, d] = address.words;
        let is_v4 = address.is_v4();
        Address::v6([
            a.and(self.mask(is_v4, 0)),
            b.and(self.mask(is_v4, 1)),
            c.and(self.mask(is_v4, 2)),
            d.and(self.mask(is_v4, 3)),
        ])
    }

    /// What is kept of a word (0..4) of an address, host order. Of a mapped IPv4 address only the last word is its own.
    #[inline(always)]
    pub const fn mask(self, is_v4: bool, word: u32) -> u32 {
        match (is_v4, word) {
            (true, 3) => mask(self.v4 as u32),
            (true, _) => u32::MAX,
            (false, word) => mask((self.v6 as u32).saturating_sub(32 * word)),
        }
    }
}

/// The first `length` bits of a word, host order; all of them from 32 on.
#[inline(always)]
const fn mask(length: u32) -> u32 {
    match length {
        0 => 0,
        1..32 => u32::MAX << (32 - length),
        _ => u32::MAX,
    }
}

/// One entry of `SERVICES`, one cache line. Immutable once its index is published in `SERVICE_TABLE` (a change of the
/// service writes another row and publishes that), except `flags`, which may change by one 4-byte store.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceRow {
    /// First slot of the ring in the arena.
    pub ring: u32,
    /// Number of slots (`M`).
    pub slots: u32,
    /// First slot of the ring before its length changed.
    pub old_ring: u32,
    /// Its number of slots; 0 = there is none. Slots whose base is [`super::BackendId::OLD_RING`] ask it.
    pub old_slots: u32,
    /// The service's id: stable over its life, indexes counters.
    pub id: u32,
    /// Bits of [`service_flag`].
    pub flags: u32,
    /// Bit mask of NIC numbers, with [`service_flag::INTERFACES`].
    pub interfaces: u32,
    /// Number of the list in `ALLOW`, with [`service_flag::ALLOW`].
    pub allow_list: u32,
    /// The VIP, the first of several; of a prefix, its network address.
    pub vip: Address,
    /// The VIP's port, the first of several; 0 = any.
    pub port: Be16,
    /// IP protocol.
    pub protocol: u8,
    /// [`Forward`] as a number.
    pub forward: u8,
    /// Idle time after which a confirmed pin may go, or a flow of full nat, seconds (host order).
    pub idle_seconds: u16,
    /// The same after FIN or RST.
    pub closed_seconds: u16,
    /// Number of the list in `DENY`, with [`service_flag::DENY`].
    pub deny_list: u32,
    /// With [`service_flag::BY_SOURCE`]: how much of a client's address counts.
    pub prefix: Prefixes,
    /// The same for the old ring.
    pub old_prefix: Prefixes,
}

const _: () = assert!(size_of::<ServiceRow>() == 64);
