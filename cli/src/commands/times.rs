//! Times on the command line, and how far they lie apart.

use std::{
    str::FromStr,
    time::{Duration, UNIX_EPOCH},
};

use belfry_common::model::Timestamp;

use super::duration;
use crate::instant;

/// A time as it was written: fixed, or so long before now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    At(Timestamp),
    Ago(Duration),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(at) = instant::parse(text).map(Timestamp::from_millis).or_else(|| in_short(text)) {
            return Ok(Self::At(at));
        }
        let ago = duration(text.strip_suffix("ago").unwrap_or(text).trim());
        let help =
            |_| "write it like 2026-11-23T14:03:27Z, 2026-11-23, 1795000000, or 5m for five minutes ago".to_owned();
        ago.map(Self::Ago).map_err(help)
    }
}

/// A day in UTC, or a time of it without its zone.
fn in_short(text: &str) -> Option<Timestamp> {
    let midnight = format!("{text} 00:00:00");
    let time = [text, &midnight].into_iter().find_map(|text| humantime::parse_rfc3339_weak(text).ok())?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(Timestamp::from_millis)
}

impl Moment {
    pub(super) fn time(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(ago) => now.minus(ago),
        }
    }
}

/// Whole milliseconds, as many as there can be.
pub(super) fn length_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

const WEEK: u64 = 604_800;
/// Steps that people can do sums with, in seconds.
const STEPS: [u64; 19] =
    [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 604_800];

/// The least step that people can do sums with of which no more than so many go into a range.
pub(super) fn step_within(range: Duration, most: u64) -> Duration {
    let fits = |step: &u64| range.as_secs() / step <= most;
    let weeks = || (range.as_secs() / most.max(1)).div_ceil(WEEK).max(1) * WEEK;
    Duration::from_secs(STEPS.into_iter().find(fits).unwrap_or_else(weeks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_in_their_forms() {
        let now = Timestamp::from_millis(1_000_000_000_000);
        for (text, expected) in [
            ("2015-07-01T20:10:51.781Z", Ok(1_435_781_451_781)),
            ("2015-07-01 20:10:51", Ok(1_435_781_451_000)),
            ("2015-07-01", Ok(1_435_708_800_000)),
            ("1435781451.5", Ok(1_435_781_451_500)),
            ("5m", Ok(999_999_700_000)),
            ("5m ago", Ok(999_999_700_000)),
            ("1h30m", Ok(999_994_600_000)),
            ("2015-07-01 20:10:51.5", Ok(1_435_781_451_500)),
            ("yesterday", Err(())),
        ] {
            let found = text.parse::<Moment>().map(|moment| moment.time(now).as_millis()).map_err(|_| ());
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn steps_are_those_that_people_count_in() {
        let within = |seconds: u64, most: u64| step_within(Duration::from_secs(seconds), most).as_secs();
        assert_eq!((within(3_600, 160), within(3_600, 250), within(86_400, 250)), (30, 15, 600));
        assert_eq!((within(5 * 365 * 86_400, 250), within(60 * 365 * 86_400, 250)), (2 * WEEK, 13 * WEEK));
    }
}
