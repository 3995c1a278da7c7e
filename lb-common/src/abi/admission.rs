//! Who may open connections: limits of rate, and the SYN-flood stage.

/// An entry of `OPENING_RULES`, indexed by service id, one cache line. The controller changes word by word while packets are
/// under way; every mixture of old and new words is valid.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpeningRules {
    /// Nanoseconds from one connection of the service to the next; 0 = no limit.
    pub interval: u64,
    /// Connections at once after a pause.
    pub burst: u64,
    /// Nanoseconds from one connection of a source to the next; 0 = no limit.
    pub source_interval: u64,
    /// Connections of a source at once after a pause.
    pub source_burst: u64,
    /// SYNs in a window ([`crate::syn_flood::WINDOW`]) above which the SYN-flood stage is engaged; 0 = never.
    pub engage: u32,
    /// SYNs in a window below which it is calm.
    pub release: u32,
    /// The greatest MSS that handshakes may offer, with [`super::service_flag::CLAMP_MSS`].
    pub mss: u64,
    /// Zero.
    pub _reserved: [u64; 2],
}

const _: () = assert!(size_of::<OpeningRules>() == 64);

/// An entry of `OPENING_STATES`, indexed by service id, one cache line. The program changes each word by atomic operations;
/// the controller zeroes it before a service id is used.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpeningState {
    /// State of the service's [`crate::limit::Limit`].
    pub admitted: u64,
    /// A [`crate::syn_flood::FloodState`].
    pub flood: u64,
    /// Zero.
    pub _reserved: [u64; 6],
}

const _: () = assert!(size_of::<OpeningState>() == 64);

/// A source of a service in [`SourceRates`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceRate {
    /// [`crate::source_rate::name`]; 0 = free.
    pub name: u64,
    /// State of its [`crate::limit::Limit`].
    pub state: u64,
}

/// An entry of `SOURCE_RATES`, one cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceRates {
    /// In no order.
    pub sources: [SourceRate; 4],
}

const _: () = assert!(size_of::<SourceRates>() == 64);

/// An entry of `VERIFIED`, one cache line: sources that have answered a challenge, each one word
/// ([`crate::syn_flood::Verified`]).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifiedSources {
    /// In no order; 0 = free.
    pub sources: [u64; 8],
}

const _: () = assert!(size_of::<VerifiedSources>() == 64);

/// The entry of `COOKIE_KEYS`: two generations of the key of cookies. The controller writes the one that is not in use, and
/// then makes it the one in use by one 8-byte store.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CookieKeys {
    /// Which makes new cookies, 0 or 1.
    pub current: u64,
    /// Both are good for cookies that come back.
    pub keys: [[u64; 2]; 2],
}

const _: () = assert!(size_of::<CookieKeys>() == 40);
