//! Whether the machine is quiet. What runs beside it on a shared one (another thread of the same core, above all) doubles a
//! packet's cost for seconds on end, and makes the bare MAC swap slower by a fifth: the floor itself tells, before and after
//! each turn. What is measured has no part in the choice of the turns that count.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::Result;
use lb_tests::kernel::{
    action,
    lab::{Lab, Stream},
};

use super::subjects::program;
use crate::row::Row;

/// Packets of a look at the floor.
const LOOK: u32 = 1 << 15;
/// How many times the least floor a quiet machine's may be; the same of [`spin`].
const QUIET: f64 = 1.08;
/// How long a floor holds for the next turn, too.
const FRESH: Duration = Duration::from_millis(100);

/// What has been seen of the machine.
pub struct Machine {
    least_floor: f64,
    least_spin: Duration,
    /// The last look, and when it was.
    last: Option<(f64, Instant)>,
    granted: Duration,
    /// What may still be spent on waiting.
    patience: Duration,
    waited: Duration,
}

/// The floor, something that was measured, and the floor again: nanoseconds.
pub struct Turn {
    floors: [f64; 2],
    whole: f64,
}

/// All turns of a row.
#[derive(Default)]
pub struct Turns(Vec<Turn>);

/// What of a row's turns counts.
#[derive(Default)]
pub struct Kept {
    pub floors: Vec<f64>,
    pub differences: Vec<f64>,
}

impl Machine {
    pub fn new(patience: Duration) -> Self {
        Self {
            least_floor: f64::INFINITY,
            least_spin: Duration::MAX,
            last: None,
            granted: patience,
            patience,
            waited: Duration::ZERO,
        }
    }

    /// Grants as much again as a fifth of what was granted first.
    pub fn wait_longer(&mut self) {
        self.patience += self.granted / 5;
    }

    /// Measures something, beginning while the machine is quiet if that can be waited for.
    pub fn turn(
        &mut self,
        lab: &mut Lab,
        stream: &mut Stream,
        measured: impl FnOnce(&mut Lab, &mut Stream) -> Result<f64>,
    ) -> Result<Turn> {
        self.wait();
        let fresh = self.last.filter(|(floor, at)| self.is_quiet(*floor) && at.elapsed() < FRESH);
        let before = match fresh {
            Some((floor, _)) => floor,
            None => self.look(lab, stream)?,
        };
        let whole = measured(lab, stream)?;
        Ok(Turn { floors: [before, self.look(lab, stream)?], whole })
    }

    /// Waits until it is quiet, or patience has run out.
    pub fn wait(&mut self) {
        let mut began = Instant::now();
        while !self.is_impatient() && !self.is_still_quiet() {
            let now = Instant::now();
            let time = now - began;
            self.patience = self.patience.saturating_sub(time);
            self.waited += time;
            began = now;
        }
    }

    /// Whether it has been quiet until now, as far as a [`Machine::wait`] and this tell.
    pub fn is_still_quiet(&mut self) -> bool {
        let time = spin();
        self.least_spin = self.least_spin.min(time);
        time <= self.least_spin.mul_f64(QUIET)
    }

    /// Whether nothing more is spent on waiting.
    pub fn is_impatient(&self) -> bool {
        self.patience.is_zero()
    }

    fn look(&mut self, lab: &mut Lab, stream: &mut Stream) -> Result<f64> {
        let time = lab.stream(stream, program::FLOOR, 0, LOOK, action::TX)?;
        let floor = time.as_nanos() as f64;
        self.least_floor = self.least_floor.min(floor);
        self.last = Some((floor, Instant::now()));
        Ok(floor)
    }

    fn is_quiet(&self, floor: f64) -> bool {
        floor <= QUIET * self.least_floor
    }

    /// How long it took until it was quiet, in all.
    pub fn row(&self, group: &str) -> Row {
        let waited = self.waited.as_secs_f64();
        Row::new("quality", format!("run/waited-for-quiet/{group}"), "s", &[waited], None)
    }
}

/// The time of a few hundred thousand multiplications, which a look at the floor would tell as well, in several times as
/// long.
fn spin() -> Duration {
    let mut words = [1, 2, 3, 4, 5, 6, 7, 8_u64];
    let began = Instant::now();
    for _ in 0..200_000 {
        for word in &mut words {
            *word = word.wrapping_mul(5).wrapping_add(black_box(*word) >> 3);
        }
    }
    black_box(words);
    began.elapsed()
}

impl Turns {
    pub fn add(&mut self, turn: Turn) {
        self.0.push(turn);
    }

    /// Whether there are not yet so many quiet ones (as far as is known by now), and there may be: when nothing more is spent on
    /// waiting, what there is has to do.
    pub fn wants_more(&self, machine: &Machine, turns: usize) -> bool {
        let had = if machine.is_impatient() { self.0.len() } else { self.quiet(machine) };
        had < turns
    }

    fn quiet(&self, machine: &Machine) -> usize {
        self.0.iter().filter(|turn| machine.is_quiet(turn.loudest())).count()
    }

    /// The quiet ones; if none is, the one that was the nearest to it.
    pub fn keep(&self, machine: &Machine) -> Kept {
        let quietest = self.0.iter().map(Turn::loudest).fold(f64::INFINITY, f64::min);
        let counts = |turn: &&Turn| machine.is_quiet(turn.loudest()) || turn.loudest() <= quietest;
        let mut kept = Kept::default();
        for turn in self.0.iter().filter(counts) {
            let floor = (turn.floors[0] + turn.floors[1]) / 2.0;
            kept.floors.push(floor);
            kept.differences.push(turn.whole - floor);
        }
        kept
    }
}

impl Turn {
    fn loudest(&self) -> f64 {
        self.floors[0].max(self.floors[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(least: f64) -> Machine {
        Machine { least_floor: least, ..Machine::new(Duration::ZERO) }
    }

    fn turns(turns: &[(f64, f64, f64)]) -> Turns {
        let turn = |&(before, whole, after): &_| Turn { floors: [before, after], whole };
        Turns(turns.iter().map(turn).collect())
    }

    #[test]
    fn turns_count_by_the_floor_on_both_sides_and_by_nothing_else() {
        let turns = turns(&[
            (60.0, 80.0, 62.0),
            (75.0, 81.0, 60.0),
            (60.0, 81.0, 75.0),
            (61.0, 200.0, 61.0),
        ]);
        let kept = turns.keep(&machine(60.0));
        assert_eq!((kept.floors, kept.differences), (vec![61.0, 61.0], vec![19.0, 139.0]));
    }

    #[test]
    fn without_a_quiet_one_the_nearest_counts() {
        let turns = turns(&[(80.0, 125.0, 75.0), (60.0, 99.0, 76.0), (75.0, 125.0, 79.0)]);
        assert_eq!(turns.quiet(&machine(60.0)), 0);
        assert_eq!(turns.keep(&machine(60.0)).differences, [31.0]);
    }
}
