//! HAProxy's rise/fall machine: pure, with time and results as arguments.

use std::time::Duration;

use super::{CheckCode, Health, Outcome, Suspicion, Tally};
use crate::config::model::{InitState, Timing};

/// One target's state.
#[derive(Clone, Debug)]
pub struct Machine {
    timing: Timing,
    up: bool,
    checked: bool,
    /// Answers against `up` in a row; below `fall` or `rise`.
    streak: u32,
    changed_unix: u64,
    weight_percent: Option<u8>,
    tally: Tally,
}

impl Machine {
    /// A target before its first answer, or as it was left.
    pub fn new(timing: Timing, restored: Option<&Health>) -> Self {
        match restored {
            Some(health) => {
                let limit = if health.up { timing.fall } else { timing.rise };
                Self {
                    timing,
                    up: health.up,
                    checked: true,
                    streak: health.streak.min(limit.saturating_sub(1)),
                    changed_unix: health.changed_unix,
                    weight_percent: health.weight_percent,
                    tally: health.tally.clone(),
                }
            }
            None => Self {
                timing,
                up: timing.init_state == InitState::Up,
                checked: false,
                streak: 0,
                changed_unix: 0,
                weight_percent: None,
                tally: Tally::default(),
            },
        }
    }

    /// Takes an answer. The prober's own faults (`good: None`) change nothing.
    pub fn on_result(&mut self, unix: u64, outcome: &Outcome) -> Health {
        self.tally.probe(outcome, self.up && self.checked);
        if let Some(good) = outcome.good {
            self.take(unix, good);
        }
        // Who does not say changes nothing.
        self.weight_percent = outcome.weight_percent.or(self.weight_percent);
        self.health(outcome)
    }

    /// Takes what clients' failures say of a target (HAProxy's `on-error`); `None` = it shows with the next answer.
    pub fn on_suspicion(&mut self, unix: u64, suspicion: Suspicion) -> Option<Health> {
        if !self.up || !self.checked {
            return None;
        }
        match suspicion {
            Suspicion::Hurry => None,
            Suspicion::Fatal => {
                self.streak = self.timing.fall.saturating_sub(1);
                None
            }
            Suspicion::Failed => {
                self.tally.suspected(true);
                self.take(unix, false);
                let output = "clients' connections failed";
                Some(self.health(&Outcome::new(CheckCode::Hana, output, Duration::ZERO)))
            }
        }
    }

    fn health(&self, outcome: &Outcome) -> Health {
        Health {
            up: self.up,
            display: self.display(),
            code: outcome.code.name().to_owned(),
            output: outcome.output.clone(),
            milliseconds: Some(outcome.duration.as_secs_f64() * 1e3),
            changed_unix: self.changed_unix,
            streak: self.streak,
            weight_percent: self.weight_percent,
            tally: self.tally.clone(),
        }
    }

    fn take(&mut self, unix: u64, good: bool) {
        // The first answer ever decides by itself: nobody waits `rise` answers for a backend that works.
        let limit = match (self.checked, self.up) {
            (false, _) => 1,
            (true, true) => self.timing.fall,
            (true, false) => self.timing.rise,
        };
        let first = !std::mem::replace(&mut self.checked, true);
        if good == self.up {
            self.streak = 0;
            if self.changed_unix == 0 {
                self.changed_unix = unix;
            }
            return;
        }
        self.streak += 1;
        if self.streak >= limit {
            // What the first answer finds is where the target begins, and no change.
            match (first, good) {
                (true, _) => {}
                (false, false) => self.tally.went_down(),
                (false, true) => {
                    self.tally.came_up(Duration::from_secs(unix.saturating_sub(self.changed_unix)));
                }
            }
            self.up = good;
            self.streak = 0;
            self.changed_unix = unix;
        }
    }

    /// As HAProxy's statistics show it.
    pub fn display(&self) -> String {
        match (self.up, self.streak) {
            (true, 0) => "UP".to_owned(),
            (false, 0) => "DOWN".to_owned(),
            (true, bad) => format!("UP {}/{}", self.timing.fall - bad, self.timing.fall),
            (false, good) => format!("DOWN {good}/{}", self.timing.rise),
        }
    }

    /// Whether it takes new flows.
    pub fn up(&self) -> bool {
        self.up
    }

    /// Time until the next probe: `inter` when settled UP, `downinter` when settled DOWN, `fastinter` in between.
    pub fn interval(&self) -> Duration {
        match (self.checked && self.streak == 0, self.up) {
            (false, _) => self.timing.fastinter,
            (true, true) => self.timing.inter,
            (true, false) => self.timing.downinter,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::health::CheckCode;

    fn timing(rise: u32, fall: u32, init_state: InitState) -> Timing {
        Timing {
            inter: Duration::from_secs(2),
            fastinter: Duration::from_millis(500),
            downinter: Duration::from_secs(5),
            rise,
            fall,
            timeout: Duration::from_secs(1),
            init_state,
        }
    }

    fn outcome(good: Option<bool>) -> Outcome {
        let code = if good == Some(true) { CheckCode::L4Ok } else { CheckCode::L4Con };
        Outcome { good, ..Outcome::new(code, "", Duration::ZERO) }
    }

    fn history(machine: &mut Machine, answers: &str) -> Vec<String> {
        answers
            .chars()
            .map(|answer| {
                let good = match answer {
                    '+' => Some(true),
                    '-' => Some(false),
                    _ => None,
                };
                machine.on_result(1, &outcome(good)).display
            })
            .collect()
    }

    #[test]
    fn goes_as_haproxy_goes() {
        let cases: &[(InitState, &str, &[&str])] = &[
            (InitState::Down, "+", &["UP"]),
            (InitState::Up, "-", &["DOWN"]),
            (InitState::Up, "+---", &["UP", "UP 2/3", "UP 1/3", "DOWN"]),
            (InitState::Up, "+--+-", &["UP", "UP 2/3", "UP 1/3", "UP", "UP 2/3"]),
            (InitState::Down, "-++", &["DOWN", "DOWN 1/2", "UP"]),
            (InitState::Down, "-+-", &["DOWN", "DOWN 1/2", "DOWN"]),
            (InitState::Down, "+-?--", &["UP", "UP 2/3", "UP 2/3", "UP 1/3", "DOWN"]),
        ];
        for (init, answers, expected) in cases {
            let mut machine = Machine::new(timing(2, 3, *init), None);
            assert_eq!(history(&mut machine, answers), *expected, "{init:?} {answers}");
        }
    }

    #[test]
    fn probes_faster_while_changing() {
        let mut machine = Machine::new(timing(2, 3, InitState::Down), None);
        assert_eq!(machine.interval(), Duration::from_millis(500));
        history(&mut machine, "+");
        assert_eq!(machine.interval(), Duration::from_secs(2));
        history(&mut machine, "-");
        assert_eq!(machine.interval(), Duration::from_millis(500));
        history(&mut machine, "--");
        assert_eq!(machine.interval(), Duration::from_secs(5));
    }

    #[test]
    fn clients_failures_do_what_on_error_says() {
        let up = || {
            let mut machine = Machine::new(timing(2, 3, InitState::Down), None);
            assert_eq!(machine.on_suspicion(1, Suspicion::Failed), None, "nothing is known yet");
            history(&mut machine, "+");
            machine
        };
        let mut hurry = up();
        assert_eq!(hurry.on_suspicion(1, Suspicion::Hurry), None);
        assert_eq!(history(&mut hurry, "-"), ["UP 2/3"]);
        let mut fatal = up();
        assert_eq!(fatal.on_suspicion(1, Suspicion::Fatal), None);
        assert_eq!(history(&mut fatal.clone(), "-"), ["DOWN"]);
        assert_eq!(history(&mut fatal, "+-"), ["UP", "UP 2/3"], "a good answer ends it");
        let mut failed = up();
        let states: Vec<_> = (0..4)
            .map(|_| failed.on_suspicion(9, Suspicion::Failed).map(|health| health.display))
            .collect();
        let shown = |text: &str| Some(text.to_owned());
        assert_eq!(states, [shown("UP 2/3"), shown("UP 1/3"), shown("DOWN"), None]);
        let health = failed.on_result(10, &outcome(Some(true)));
        assert_eq!((health.tally.failed, health.tally.codes.named()["HANA"]), (3, 3));
    }

    #[test]
    fn a_restart_is_no_flap() {
        let mut machine = Machine::new(timing(2, 3, InitState::Down), None);
        history(&mut machine, "+-");
        let health = machine.on_result(9, &outcome(None));
        let mut again = Machine::new(timing(2, 3, InitState::Down), Some(&health));
        assert!(again.up());
        assert_eq!(history(&mut again, "--"), ["UP 1/3", "DOWN"]);
    }

    #[test]
    fn a_wall_clock_that_jumps_changes_no_state() {
        let mut machine = Machine::new(timing(2, 3, InitState::Down), None);
        // A day ahead, a day back, before 1970.
        let times = [1_000_000, 1_086_400, 913_600, 0, 1_000_001];
        for (unix, good) in times.into_iter().zip([true, true, false, true, true]) {
            let health = machine.on_result(unix, &outcome(Some(good)));
            assert!(health.up, "{unix}: {health:?}");
        }
        for unix in [2_000_000, 5, 7] {
            machine.on_result(unix, &outcome(Some(false)));
        }
        assert!(!machine.up(), "three failures in a row, whatever the time");
        machine.on_result(3, &outcome(Some(true)));
        let back = machine.on_result(1, &outcome(Some(true)));
        assert_eq!((back.up, back.tally.down_seconds), (true, 0), "time went back meanwhile");
    }

    #[test]
    fn downs_and_downtime_are_counted_across_a_restart() {
        let mut machine = Machine::new(timing(2, 3, InitState::Down), None);
        let at = |machine: &mut Machine, unix, good| machine.on_result(unix, &outcome(Some(good)));
        at(&mut machine, 100, true);
        for unix in 110..113 {
            at(&mut machine, unix, false);
        }
        let down = at(&mut machine, 120, false);
        assert_eq!((down.up, down.tally.failed, down.tally.downs), (false, 3, 1), "{down:?}");
        let mut again = Machine::new(timing(2, 3, InitState::Down), Some(&down));
        at(&mut again, 130, true);
        let up = at(&mut again, 132, true);
        assert_eq!((up.up, up.tally.down_seconds, up.tally.downs), (true, 20, 1), "{up:?}");
        assert_eq!(up.tally.durations.histogram().count, 7);
    }

    proptest! {
        #[test]
        fn flips_only_after_enough_answers_in_a_row(
            rise in 1u32..6, fall in 1u32..6, answers in proptest::collection::vec(any::<bool>(), 1..200),
        ) {
            let mut machine = Machine::new(timing(rise, fall, InitState::Down), None);
            let mut up = machine.on_result(0, &outcome(Some(answers[0]))).up;
            let mut against = 0;
            for answer in &answers[1..] {
                against = if *answer == up { 0 } else { against + 1 };
                let now = machine.on_result(0, &outcome(Some(*answer))).up;
                let needed = if up { fall } else { rise };
                prop_assert_eq!(now != up, against == needed);
                if now != up {
                    up = now;
                    against = 0;
                }
            }
        }
    }
}
