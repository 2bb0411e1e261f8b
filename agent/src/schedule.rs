//! When each sampler is due: at whole multiples of its interval on the wall clock, so that the ticks of a fleet line up.
//!
//! Pure: the caller passes `now` and does the waiting.

use std::time::Duration;

use belfry_common::model::Timestamp;

/// A tick that begins this late still carries the time at which it was due: scheduling noise, not another instant.
const LATE_MS_MAX: i64 = 50;

/// The next due times of all samplers.
#[derive(Debug)]
pub(crate) struct Schedule {
    intervals_ms: Vec<i64>,
    next: Vec<Timestamp>,
}

/// A round: the samplers that are due together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Round {
    /// The time that its ticks carry.
    pub(crate) time: Timestamp,
    /// Places of the samplers.
    pub(crate) due: Vec<usize>,
    /// Ticks that were due before and can no longer be made, over all samplers.
    pub(crate) missed: u64,
}

impl Schedule {
    /// Everything is due once right away, then at multiples of its interval.
    pub(crate) fn new(intervals: &[Duration], now: Timestamp) -> Self {
        let intervals_ms: Vec<i64> =
            intervals.iter().map(|interval| i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1)).collect();
        Self { next: vec![now; intervals_ms.len()], intervals_ms }
    }

    /// How long until something is due.
    pub(crate) fn wait(&self, now: Timestamp) -> Duration {
        let next = self.next.iter().min().copied().unwrap_or_else(|| now.plus_millis(1000));
        let longest = self.intervals_ms.iter().max().copied().unwrap_or(1000);
        // A clock that stepped back by a year must not mean a year without ticks.
        let wait = next.millis_since(now).clamp(0, longest);
        Duration::from_millis(wait.unsigned_abs())
    }

    /// Takes what is due at `now`; `None` if nothing is.
    pub(crate) fn take(&mut self, now: Timestamp) -> Option<Round> {
        let mut round = Round { time: now, due: Vec::new(), missed: 0 };
        let mut due_at = None;
        for (place, (next, &interval)) in self.next.iter_mut().zip(&self.intervals_ms).enumerate() {
            let is_stepped_back = next.millis_since(now) > interval;
            if *next > now && !is_stepped_back {
                continue;
            }
            let late = now.millis_since(*next).max(0);
            round.missed += (late / interval).unsigned_abs();
            round.due.push(place);
            let boundary = Timestamp::from_millis(now.as_millis().div_euclid(interval) * interval);
            due_at = due_at.max(Some(boundary));
            *next = boundary.plus_millis(interval);
        }
        let boundary = due_at?;
        if now.millis_since(boundary) <= LATE_MS_MAX {
            round.time = boundary;
        }
        Some(round)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis)
    }

    fn started() -> Schedule {
        let mut schedule = Schedule::new(&[SECOND, SECOND * 10], at(-700));
        let first = schedule.take(at(-700)).unwrap();
        assert_eq!((first.time, first.due), (at(-700), vec![0, 1]), "everything at once, at its own time");
        schedule
    }

    #[test]
    fn ticks_stand_on_whole_multiples_of_their_interval() {
        let mut schedule = started();
        assert_eq!(schedule.wait(at(-700)), Duration::from_millis(700));
        assert_eq!(schedule.take(at(-1)), None);
        assert_eq!(schedule.take(at(3)), Some(Round { time: at(0), due: vec![0, 1], missed: 0 }));
        for second in 1..10 {
            let time = at(second * 1000);
            assert_eq!(schedule.take(time.plus_millis(1)), Some(Round { time, due: vec![0], missed: 0 }));
        }
        assert_eq!(schedule.take(at(10_000)), Some(Round { time: at(10_000), due: vec![0, 1], missed: 0 }));
    }

    #[test]
    fn a_late_round_tells_its_true_time_and_what_it_missed() {
        let mut schedule = started();
        schedule.take(at(0));
        let late = schedule.take(at(3400)).unwrap();
        assert_eq!(late, Round { time: at(3400), due: vec![0], missed: 2 });
        assert_eq!(schedule.wait(at(3400)), Duration::from_millis(600), "and then back on the grid");
    }

    #[test]
    fn a_clock_that_steps_does_not_stop_the_ticks() {
        let mut schedule = started();
        schedule.take(at(0));
        let year = 365 * 24 * 3_600_000;
        assert!(schedule.wait(at(-year)) <= SECOND * 10);
        assert_eq!(schedule.take(at(-year)).unwrap().due, [0, 1]);
        assert_eq!(schedule.take(at(-year + 1000)).unwrap().due, [0]);
        assert_eq!(schedule.take(at(year)).unwrap().due, [0, 1]);
    }
}
