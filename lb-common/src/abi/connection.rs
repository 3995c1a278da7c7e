//! A connection that is counted: services of nat that say `count_connections`.

use super::BackendId;

/// Value of `CONNECTIONS`, from the backend's SYN-ACK on. Each field below `last_seen` is written by one store of its
/// own, so that both directions may write at the same time.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// The backend that accepted it.
    pub backend: BackendId,
    /// The service's id.
    pub service: u32,
    /// Time of the client's last packet, jiffies; written at most once every 256 jiffies.
    pub last_seen: u64,
    /// 1 = the client has answered the SYN-ACK: the handshake is complete.
    pub established: u8,
    /// 1 = the client has sent a FIN.
    pub client_closed: u8,
    /// 1 = the backend has sent a FIN.
    pub server_closed: u8,
    /// Zero.
    pub _pad: [u8; 5],
}

const _: () = assert!(size_of::<Connection>() == 24);
