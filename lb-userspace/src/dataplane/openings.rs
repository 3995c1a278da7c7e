//! Limits of rate and SYN-flood stages: the rules that the program reads, what it says of them, and the keys of cookies.

use lb_common::abi::{CookieKeys, OpeningRules, OpeningState};
use rand::Rng as _;

use super::mapped::Table;

/// What the controller has to do with openings.
pub struct Openings {
    rules: Table<OpeningRules>,
    states: Table<OpeningState>,
    keys: Table<CookieKeys>,
}

impl Openings {
    /// Takes over what an earlier daemon has left, or makes the first keys.
    pub(super) fn adopt(
        rules: Table<OpeningRules>,
        states: Table<OpeningState>,
        keys: Table<CookieKeys>,
    ) -> Self {
        let openings = Self { rules, states, keys };
        if openings.keys.get(0).keys == [[0; 2]; 2] {
            openings.keys.set(0, &CookieKeys { current: 0, keys: rand::rng().random() });
        }
        openings
    }

    /// The rules of a service.
    pub fn rules(&self, service: u32) -> OpeningRules {
        self.rules.get(service)
    }

    /// Changes the rules of a service, which are in force with the next packet if its row says that it has some.
    pub fn set_rules(&self, service: u32, rules: &OpeningRules) {
        self.rules.set(service, rules);
    }

    /// What has come for a service of late.
    pub fn state(&self, service: u32) -> OpeningState {
        self.states.get(service)
    }

    /// Cookies are made with a new key from now on. Those made with the last one stay good as long as they would have been,
    /// unless this is called again before.
    pub fn rotate_key(&self) {
        let before = self.keys.get(0);
        let next = (before.current ^ 1) & 1;
        let mut keys = before;
        keys.keys[next as usize] = rand::rng().random();
        keys.current = next;
        self.keys.set(0, &keys);
    }

    /// Zeroes what is known of a service id before it is used again.
    pub(super) fn clear(&self, service: u32) {
        self.rules.set(service, &OpeningRules::default());
        self.states.set(service, &OpeningState::default());
    }
}
