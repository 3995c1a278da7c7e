//! A pin: a remembered flow -> backend, kept only where the ring has changed.

use super::BackendId;

/// Bits of [`Pin::flags`].
pub mod pin_flag {
    /// `server_isn` is known (nat: the SYN-ACK passed through lb).
    pub const SERVER_ISN: u32 = 1;
    /// A FIN or RST was the last thing seen: the short idle time applies. Any later packet that `closing_sequence`
    /// does not explain clears it.
    pub const CLOSING: u32 = 2;
    /// In `PINS_NEW`: the handshake has completed but `PINS` was full, so the entry counts as confirmed where it is.
    pub const PROMOTED: u32 = 4;
    /// In `PINS_NEW`: while the entry was young another SYN came with another sequence number; it was sent to the same
    /// backend, and `closing_sequence` holds its number, so that either handshake completes.
    pub const SECOND_ISN: u32 = 8;
}

/// Value of `PINS` and `PINS_NEW`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pin {
    /// The backend that got the flow's SYN.
    pub backend: BackendId,
    /// Bits of [`pin_flag`].
    pub flags: u32,
    /// Time of the last packet, jiffies; written at most once every 256 jiffies.
    pub last_seen: u64,
    /// When the entry was made, jiffies.
    pub created: u64,
    /// The client's initial sequence number (host order).
    pub client_isn: u32,
    /// The server's initial sequence number (host order), if [`pin_flag::SERVER_ISN`].
    pub server_isn: u32,
    /// With [`pin_flag::CLOSING`]: the sequence number that follows the FIN or RST; with [`pin_flag::SECOND_ISN`]: the
    /// later SYN's initial sequence number (host order).
    pub closing_sequence: u32,
    /// The service's id.
    pub service: u32,
}

const _: () = assert!(size_of::<Pin>() == 40);
