//! A dropped packet, as the program shows some of them to the controller.

/// Bytes of a packet that a sample holds at most: Ethernet, two VLAN tags, IPv6 and TCP with some options.
pub const SAMPLE_BYTES: usize = 96;

/// A record of `SAMPLES`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedSample {
    /// The service's id; 0 = none.
    pub service: u32,
    /// Number of the [`super::Reason`].
    pub reason: u32,
    /// NIC the packet came in by (host order).
    pub ifindex: u32,
    /// Length of the frame, bytes (host order).
    pub length: u16,
    /// How many of `bytes` are the frame's (host order); what follows them means nothing.
    pub captured: u16,
    /// The start of the frame.
    pub bytes: [u8; SAMPLE_BYTES],
}

const _: () = assert!(size_of::<DroppedSample>() == 112);
