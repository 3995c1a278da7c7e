use std::net::IpAddr;

use super::*;
use crate::{hash::expand_seed, sample::address};

const ENGAGE: u32 = 1_000;
const RELEASE: u32 = 500;

/// `count` SYNs in a window, as the program notes them.
fn syns(state: &mut FloodState, window: u32, count: u32) {
    for _ in 0..count {
        *state = match state.window() == window {
            true => FloodState(state.0 + 1),
            false => state.next(window, RELEASE),
        };
        if state.count() > ENGAGE {
            state.0 |= FloodState::ENGAGED;
        }
    }
}

#[test]
fn engaged_at_once_and_released_after_calm() {
    let mut state = FloodState::default();
    syns(&mut state, 5, ENGAGE);
    assert!(!state.is_engaged(5, RELEASE));
    syns(&mut state, 5, 1);
    assert!(state.is_engaged(5, RELEASE), "in the same window");
    for window in 6..100 {
        syns(&mut state, window, RELEASE);
        assert!(state.is_engaged(window, RELEASE), "{window}: above the lower threshold");
    }
    for window in 100..100 + CALM_WINDOWS {
        syns(&mut state, window, RELEASE - 1);
        assert!(state.is_engaged(window, RELEASE), "{window}: calm, but not for long");
    }
    // One that is not calm begins the count anew.
    syns(&mut state, 108, 1);
    assert!(!state.is_engaged(108, RELEASE));
    syns(&mut state, 200, ENGAGE + 1);
    syns(&mut state, 201, RELEASE - 1);
    syns(&mut state, 202, RELEASE);
    syns(&mut state, 203, 0);
    assert!(state.is_engaged(202 + CALM_WINDOWS, RELEASE), "seven windows without any");
    assert!(!state.is_engaged(203 + CALM_WINDOWS, RELEASE), "eight");
    syns(&mut state, 204 + CALM_WINDOWS, 1);
    assert_eq!((state.count(), state.0 & FloodState::ENGAGED), (1, 0));
}

#[test]
fn windows_wrap() {
    let mut state = FloodState::default();
    syns(&mut state, WINDOW_MASK, ENGAGE + 1);
    syns(&mut state, 0, 1);
    assert!(state.is_engaged(0, RELEASE) && state.is_engaged(CALM_WINDOWS - 1, RELEASE));
    assert_eq!(window(u64::MAX), WINDOW_MASK);
    assert_eq!((window(WINDOW - 1), window(WINDOW)), (0, 1));
}

#[test]
fn rates_are_counted_in_windows() {
    assert_eq!(in_window(1_000), 1_074);
    assert_eq!((in_window(0), in_window(1), in_window(10_000_000_000)), (1, 2, u32::MAX));
    let mut state = FloodState::default();
    syns(&mut state, 7, 1_074);
    assert_eq!(state.rate(8 * WINDOW), 1_000, "a whole window");
    assert_eq!(state.rate(7 * WINDOW + WINDOW / 2), 2_000, "half of one");
    assert_eq!(state.rate(9 * WINDOW), 0);
}

#[test]
fn cookies_are_good_for_their_source_their_vip_and_a_minute() {
    let keys = CookieKeys { current: 0, keys: [[1, 2], [3, 4]] };
    let (source, vip) = (address("192.0.2.1"), address("198.51.100.7"));
    let epoch = 1u64 << EPOCH_SHIFT;
    for now in [0, 7 * epoch, 8 * epoch + 5] {
        let cookie = keys.cookie(&source, &vip, now);
        assert!(keys.is_cookie(cookie, &source, &vip, now));
        assert!(keys.is_cookie(cookie, &source, &vip, now + epoch), "the next epoch");
        assert!(!keys.is_cookie(cookie, &source, &vip, now + 2 * epoch), "too late");
        assert!(!keys.is_cookie(cookie, &vip, &source, now));
        assert!(!keys.is_cookie(cookie, &address("192.0.2.2"), &vip, now));
        assert!(!keys.is_cookie(cookie, &address("2001:db8::1"), &vip, now));
        // The next key makes others, and both are good.
        let rotated = CookieKeys { current: 1, ..keys };
        assert_ne!(rotated.cookie(&source, &vip, now), cookie);
        assert!(rotated.is_cookie(cookie, &source, &vip, now));
        let replaced = CookieKeys { current: 1, keys: [[5, 6], [3, 4]] };
        assert!(!replaced.is_cookie(cookie, &source, &vip, now));
    }
    let guesses = (0..20_000u32).map(|number| number.wrapping_mul(0x9E37_79B9));
    let hits = guesses.filter(|guess| keys.is_cookie(*guess, &source, &vip, epoch)).count();
    assert!(hits <= 1, "{hits}");
}

#[test]
fn a_challenge_is_one_that_the_client_must_refuse() {
    assert!(!is_refused(101, 100, 0) && is_refused(100, 100, 0) && is_refused(102, 100, 0));
    assert!(!is_refused(111, 100, 10) && is_refused(112, 100, 10), "data in the SYN");
    assert!(!is_refused(0, u32::MAX, 0) && is_refused(1, u32::MAX, 0));
}

#[test]
fn the_verified_are_known_for_ten_minutes() {
    let keys = expand_seed(&[3; 32]);
    let mut bucket = VerifiedSources::default();
    let source = Verified::of(&keys, &address("192.0.2.1"));
    assert!(!bucket.knows(source, 0));
    bucket.sources[bucket.place(source, 9)] = source.word(9);
    assert!(bucket.knows(source, 9) && bucket.knows(source, 8 + VERIFIED_FOR));
    assert!(!bucket.knows(source, 9 + VERIFIED_FOR));
    let other = Verified::of(&keys, &address("192.0.2.2"));
    assert!(!bucket.knows(other, 9));
    // The one verified first makes room, when no place is free.
    let many: Vec<Verified> =
        (0..9u32).map(|n| Verified::of(&keys, &IpAddr::from(n.to_be_bytes()).into())).collect();
    let mut bucket = VerifiedSources::default();
    for (number, source) in many.iter().enumerate() {
        let window = 100 + number as u32;
        bucket.sources[bucket.place(*source, window)] = source.word(window);
    }
    let known: Vec<bool> = many.iter().map(|source| bucket.knows(*source, 108)).collect();
    assert_eq!(known, [[false].as_slice(), [true; 8].as_slice()].concat());
    let again = bucket.place(many[4], 109);
    assert_eq!(bucket.sources[again], many[4].word(104), "renewed in its place");
    assert!(VERIFIED_FOR as u64 * WINDOW > 600_000_000_000);
}
