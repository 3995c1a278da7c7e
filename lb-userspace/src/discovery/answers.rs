//! What DNS has said of names: the last good answer to each question, and when it is asked again. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// The first pause after a failure; each further failure doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest pause after failures: so late does lb notice that DNS works again.
const LAST_RETRY: Duration = Duration::from_secs(8);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Question {
    /// The name; without a dot at its end, the search list applies.
    pub name: String,
    /// SRV records, and the addresses that they lead to; else the name's own addresses.
    pub srv: bool,
    /// Whether IPv4 addresses are of use.
    pub v4: bool,
    /// Whether IPv6 addresses are.
    pub v6: bool,
}

impl fmt::Display for Question {
    /// `app.internal (A, AAAA)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [(self.srv, "SRV"), (self.v4, "A"), (self.v6, "AAAA")];
        let kinds: Vec<&str> = kinds.iter().filter(|(asked, _)| *asked).map(|(_, k)| *k).collect();
        write!(f, "{} ({})", self.name, kinds.join(", "))
    }
}

/// One address of an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Found {
    /// The address.
    pub address: IpAddr,
    /// What its SRV record says; `None` = there is none.
    pub record: Option<SrvRecord>,
}

/// What an SRV record says (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SrvRecord {
    /// Lower ones are used first.
    pub priority: u16,
    /// Share among those of the same priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The name that has the address.
    pub target: String,
}

/// The last good answer to each question: sets, so that neither order nor repetition in a packet matter.
pub type Answers = BTreeMap<Question, BTreeSet<Found>>;

/// When a good answer is to be asked for again.
pub fn next_question(ttl: Duration, least: Duration, most: Duration) -> Duration {
    ttl.clamp(least, most.max(least))
}

/// When a question that has failed so many times in a row (at least once) is asked again.
pub fn next_attempt(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (FIRST_RETRY * 2_u32.pow(doublings)).min(LAST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_have_a_floor_and_a_ceiling() {
        let seconds = Duration::from_secs;
        for (ttl, expected) in
            [(0, 2), (1, 2), (2, 2), (60, 60), (300, 300), (301, 300), (86_400, 300)]
        {
            assert_eq!(next_question(seconds(ttl), seconds(2), seconds(300)), seconds(expected));
        }
        // No pair of bounds makes it panic.
        assert_eq!(next_question(seconds(5), seconds(9), seconds(3)), seconds(9));
    }

    #[test]
    fn failures_are_asked_about_ever_more_rarely_but_soon_enough() {
        let pauses: Vec<u64> = (1..7).map(|failures| next_attempt(failures).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 8, 8]);
        assert_eq!(next_attempt(u32::MAX), LAST_RETRY);
        assert_eq!(next_attempt(0), FIRST_RETRY);
    }

    #[test]
    fn questions_are_told_by_their_types() {
        let question = Question { name: "app.internal".into(), srv: true, v4: true, v6: false };
        assert_eq!(question.to_string(), "app.internal (SRV, A)");
    }
}
