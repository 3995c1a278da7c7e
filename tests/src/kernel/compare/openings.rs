//! What the program remembers of openings: how it is made the same as the model's, and the time of cookies.

use std::{net::IpAddr, thread, time::Duration};

use lb_common::{
    abi::{CookieKeys, OpeningState, SourceRates, VerifiedSources, map},
    source_rate,
    syn_flood::{FloodState, Verified, window},
};
use lb_model::{
    Config, Model,
    openings::{Cookies, Openings},
};
use nix::time::{ClockId, clock_gettime};

use super::super::{Kernel, hash_keys};

/// Length of an epoch of cookies as a shift of nanoseconds.
const EPOCH: u32 = 36;
/// No packet is on its way for longer.
const MOMENT: u64 = 100_000_000;

/// Whether any service limits openings, or has a stage.
pub fn are_limited(config: &Config) -> bool {
    config.services().iter().any(|service| service.openings != Openings::default())
}

/// Gives the program the model's keys.
pub fn set_keys(kernel: &mut Kernel, cookies: &Cookies) {
    let keys = CookieKeys { current: cookies.current as u64, keys: cookies.keys };
    kernel.array::<CookieKeys>(map::COOKIE_KEYS).set(0, keys, 0).expect("one entry");
}

/// Makes the program forget what the model has seen of openings, and engages its stages.
pub fn forget(kernel: &mut Kernel, model: &mut Model) {
    let keys = hash_keys();
    let mut rates = kernel.array::<SourceRates>(map::SOURCE_RATES);
    for (service, source) in model.opened().sources() {
        let bucket = source_rate::bucket(source_rate::name(&keys, &source.into(), service));
        rates.set(bucket, SourceRates::default(), 0).expect("within");
    }
    let mut verified = kernel.array::<VerifiedSources>(map::VERIFIED);
    for source in model.opened().proven() {
        let bucket = Verified::of(&keys, &IpAddr::into(source)).bucket;
        verified.set(bucket, VerifiedSources::default(), 0).expect("within");
    }
    let window = u64::from(window(now()));
    let mut states = kernel.array::<OpeningState>(map::OPENING_STATES);
    for service in model.config().services() {
        let flood = match service.openings.stage {
            Some(true) => FloodState::ENGAGED | window << 32 | 1,
            _ => 0,
        };
        let state = OpeningState { flood, ..OpeningState::default() };
        states.set(service.id, state, 0).expect("within");
    }
}

/// The epoch that cookies are of now, and for a moment more: at its end, the next one.
pub fn epoch() -> u64 {
    loop {
        let now = now();
        let (epoch, later) = (now >> EPOCH, (now + MOMENT) >> EPOCH);
        if epoch == later {
            return epoch;
        }
        thread::sleep(Duration::from_nanos((later << EPOCH) - now));
    }
}

/// By the program's clock.
fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("the kernel has this clock");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}
