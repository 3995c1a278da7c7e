//! Connection ids of QUIC services.

/// Key of `QUIC_IDS`: a server id that a backend puts into its connection ids ([`crate::quic`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct QuicId {
    /// The service's id (host order).
    pub service: u32,
    /// The config id.
    pub config: u8,
    /// The server id; zeros behind it.
    pub id: [u8; crate::quic::SERVER_ID],
}

const _: () = assert!(size_of::<QuicId>() == 20 && align_of::<QuicId>() == 4);
