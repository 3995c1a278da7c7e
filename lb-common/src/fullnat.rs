//! Full nat: who may have a port, and for how long (RFC 4787, RFC 5382).
//!
//! A flow has a port of an address of lb's own, on which its backend sees it; the slot of that port is all that is known of
//! it. A slot is free when it was never used, or when its flow has been idle for as long as its state says: nothing has to
//! be tidied up. Where nothing is free, a flow that nobody has answered so far gives way.

use crate::{abi::protocol, frame::tcp_flag};

/// Ports looked at for a new flow.
pub const PROBES: u32 = 128;

/// Idle time of a TCP connection that is being opened or half closed, seconds: the four minutes of RFC 5382 REQ-5.
pub const TRANSITORY_SECONDS: u64 = 240;

/// Nobody takes the port of a flow that nobody has answered before so many seconds.
pub const YOUNG_SECONDS: u64 = 5;

/// Nothing takes so long as this, seconds: a slot still being written was left so by a program that is gone.
pub const WRITING_SECONDS: u64 = 10;

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;

/// What a slot's word says: bits 0..8 flags, 8..16 the IP protocol, bit 16 a flag, 32..64 the generation, which changes with each flow, so that
/// nobody takes one flow's packets for the next one's.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State(pub u64);

/// Flags of a [`State`].
pub mod state_flag {
    /// A flow has the port.
    pub const USED: u64 = 1;
    /// Its backend has answered.
    pub const ANSWERED: u64 = 2;
    /// TCP: the handshake is complete.
    pub const ESTABLISHED: u64 = 4;
    /// The client has closed.
    pub const CLIENT_FIN: u64 = 8;
    /// The backend has closed.
    pub const SERVER_FIN: u64 = 16;
    /// Somebody has reset the connection.
    pub const RESET: u64 = 32;
    /// A packet is writing the slot.
    pub const WRITING: u64 = 64;
    /// TCP: the backend has sent data, so it has seen the client's part of the handshake. Noted where [`crate::toa`] is in use.
    pub const SERVER_SPOKE: u64 = 1 << 16;
}

use state_flag::{ANSWERED, CLIENT_FIN, ESTABLISHED, RESET, SERVER_FIN, USED, WRITING};

const FLAGS: u64 = 0xff;

impl State {
    /// Of a flow that begins: the next generation.
    #[inline(always)]
    pub const fn begun(self, protocol: u8) -> Self {
        Self(((self.0 >> 32).wrapping_add(1) << 32) | (protocol as u64) << 8 | USED)
    }

    /// While it is written.
    #[inline(always)]
    pub const fn writing(self) -> Self {
        Self((((self.0 >> 32).wrapping_add(1)) << 32) | WRITING)
    }

    /// Of the flow that has been written: the generation stays.
    #[inline(always)]
    pub const fn written(self, protocol: u8) -> Self {
        Self((self.0 >> 32 << 32) | (protocol as u64) << 8 | USED)
    }

    /// Of nobody: the generation stays.
    #[inline(always)]
    pub const fn given_up(self) -> Self {
        Self(self.0 >> 32 << 32)
    }

    /// The last bits of the generation.
    #[inline(always)]
    pub const fn generation(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The IP protocol.
    #[inline(always)]
    pub const fn protocol(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Whether a flow has the port.
    #[inline(always)]
    pub const fn is_used(self) -> bool {
        self.0 & (USED | WRITING) == USED
    }

    /// Whether this flag is set.
    #[inline(always)]
    pub const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    /// Whether the connection is over: both sides have closed it, or one has reset it.
    #[inline(always)]
    pub const fn is_closed(self) -> bool {
        const BOTH: u64 = CLIENT_FIN | SERVER_FIN;
        self.0 & RESET != 0 || self.0 & BOTH == BOTH
    }

    /// Whether either side has closed it, or reset it.
    #[inline(always)]
    pub const fn is_closing(self) -> bool {
        self.0 & (CLIENT_FIN | SERVER_FIN | RESET) != 0
    }

    /// Whether a packet of the client shows that it is a connection.
    #[inline(always)]
    pub const fn is_established(self) -> bool {
        match self.protocol() {
            protocol::TCP => self.0 & ESTABLISHED != 0,
            _ => self.0 & ANSWERED != 0,
        }
    }

    /// After a client's packet with these TCP flags (UDP: 0).
    #[inline(always)]
    pub const fn after_client(self, flags: u8) -> Self {
        let mut word = self.0;
        if self.protocol() == protocol::TCP {
            if word & ANSWERED != 0 && flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::ACK {
                word |= ESTABLISHED;
            }
            if flags & tcp_flag::FIN != 0 {
                word |= CLIENT_FIN;
            }
            if flags & tcp_flag::RST != 0 {
                word |= RESET;
            }
        }
        Self(word)
    }

    /// After a backend's packet with these TCP flags (UDP: 0).
    #[inline(always)]
    pub const fn after_server(self, flags: u8) -> Self {
        let mut word = self.0 | ANSWERED;
        if self.protocol() == protocol::TCP {
            if flags & tcp_flag::FIN != 0 {
                word |= SERVER_FIN;
            }
            if flags & tcp_flag::RST != 0 {
                word |= RESET;
            }
        }
        Self(word)
    }

    /// After a backend's segment with data.
    #[inline(always)]
    pub const fn after_data(self) -> Self {
        Self(self.0 | state_flag::SERVER_SPOKE)
    }

    /// Idle time after which the port may have another flow, seconds. `idle` and `closed` are the slot's own.
    #[inline(always)]
    pub const fn patience(self, idle: u16, closed: u16) -> u64 {
        if self.0 & WRITING != 0 {
            return WRITING_SECONDS;
        }
        if self.0 & USED == 0 {
            return 0;
        }
        if self.protocol() != protocol::TCP {
            return idle as u64;
        }
        if self.is_closed() {
            return closed as u64;
        }
        if self.0 & ESTABLISHED != 0 && self.0 & (CLIENT_FIN | SERVER_FIN) == 0 {
            return idle as u64;
        }
        TRANSITORY_SECONDS
    }

    /// Whether the port may have another flow now, having been idle for `age` nanoseconds.
    #[inline(always)]
    pub const fn is_free(self, age: u64, idle: u16, closed: u16) -> bool {
        self.0 & FLAGS == 0 || age > self.patience(idle, closed) * SECOND
    }

    /// Whether the port may have another flow if there is no better one.
    #[inline(always)]
    pub const fn gives_way(self, age: u64) -> bool {
        self.is_used() && self.0 & (ANSWERED | ESTABLISHED) == 0 && age > YOUNG_SECONDS * SECOND
    }
}

/// Nanoseconds since a slot was last used. A clock read a moment before another CPU's is no age of centuries.
#[inline(always)]
pub const fn age(now: u64, last_seen: u64) -> u64 {
    let age = now.wrapping_sub(last_seen);
    if age >> 63 != 0 { 0 } else { age }
}

/// The ports (host order) that are looked at for a flow, in turn: all of the pool from a place on that the flow's hash says,
/// address by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Index of the address among those of its family.
    pub address: u32,
    /// The port.
    pub port: u32,
}

impl Probe {
    /// The first one. There is at least one address, and `first_port <= last_port`.
    #[inline(always)]
    pub const fn first(hash: u32, addresses: u32, first_port: u32, last_port: u32) -> Self {
        // Another place than the ring's: flows of one backend are spread over all ports.
        let mixed = hash.wrapping_mul(0x9E37_79B1).rotate_left(15);
        let address = crate::hash::slot_of(mixed, addresses);
        let ports = last_port.wrapping_sub(first_port).wrapping_add(1);
        let step = crate::hash::slot_of(mixed.wrapping_mul(0x85EB_CA6B), ports);
        let port = first_port.wrapping_add(step);
        Self { address, port }
    }

    /// The one after it.
    #[inline(always)]
    pub const fn next(self, addresses: u32, first_port: u32, last_port: u32) -> Self {
        if self.port < last_port {
            return Self { port: self.port.wrapping_add(1), ..self };
        }
        let next = self.address.wrapping_add(1);
        Self { address: if next < addresses { next } else { 0 }, port: first_port }
    }
}

#[cfg(test)]
mod tests;
