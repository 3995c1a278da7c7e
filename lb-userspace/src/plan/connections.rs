//! Which of the counted connections are open, and which entries go. Pure.

use lb_common::abi::Connection;

use super::sweep::{Clock, HANDSHAKE_SECONDS, YOUNG_SECONDS};

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Established, and no side has closed it.
    Active,
    /// Its handshake is not complete, or a side has closed it.
    Inactive,
    /// No longer there: closed by both sides, or silent for too long. Its entry goes.
    Gone,
}

/// Decides on one entry.
pub fn judge(connection: &Connection, clock: &Clock) -> Kind {
    let idle = clock.now.saturating_sub(connection.last_seen) / clock.jiffies_per_second.max(1);
    let closed = [connection.client_closed, connection.server_closed].map(|flag| flag != 0);
    let established = connection.established != 0;
    let (kind, patience) = match (established, closed) {
        (_, [true, true]) => (Kind::Inactive, YOUNG_SECONDS),
        (_, [true, false] | [false, true]) => (Kind::Inactive, clock.closing_idle_seconds),
        (false, _) => (Kind::Inactive, HANDSHAKE_SECONDS),
        (true, _) => (Kind::Active, clock.idle_seconds),
    };
    if idle >= patience { Kind::Gone } else { kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Clock = Clock {
        now: 1_000_000,
        now_seconds: 10_000,
        jiffies_per_second: 100,
        idle_seconds: 900,
        closing_idle_seconds: 120,
    };

    fn connection(idle_seconds: u64, established: u8, closed: [u8; 2]) -> Connection {
        Connection {
            last_seen: CLOCK.now - idle_seconds * CLOCK.jiffies_per_second,
            established,
            client_closed: closed[0],
            server_closed: closed[1],
            ..Connection::default()
        }
    }

    #[test]
    fn each_state_has_its_patience() {
        for (established, closed, kind, patience) in [
            (0, [0, 0], Kind::Inactive, HANDSHAKE_SECONDS),
            (1, [0, 0], Kind::Active, 900),
            (1, [1, 0], Kind::Inactive, 120),
            (1, [0, 1], Kind::Inactive, 120),
            (1, [1, 1], Kind::Inactive, YOUNG_SECONDS),
        ] {
            let young = connection(patience - 1, established, closed);
            assert_eq!(judge(&young, &CLOCK), kind, "{young:?}");
            let old = connection(patience, established, closed);
            assert_eq!(judge(&old, &CLOCK), Kind::Gone, "{old:?}");
        }
    }

    #[test]
    fn a_packet_newer_than_the_clock_is_no_old_one() {
        let newer =
            Connection { last_seen: CLOCK.now + 5, established: 1, ..connection(0, 1, [0; 2]) };
        assert_eq!(judge(&newer, &CLOCK), Kind::Active);
    }
}
