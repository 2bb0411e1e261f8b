//! Parts of dates, in UTC, and the times of samples.

use crate::Labels;
use crate::eval::{Block, EvalError};
use crate::functions::Arguments;
use crate::functions::scalars::seconds;

const DAY_SECONDS: i64 = 86_400;

/// The time of each sample; of a calculated vector the time of evaluation.
pub(super) fn timestamp(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    let mut block = match arguments.sample_times(0)? {
        Some(times) => times,
        None => {
            let mut block = arguments.vector(0)?;
            let times: Vec<f64> = arguments.grid().times().map(seconds).collect();
            for values in block.values_mut() {
                for (value, &time) in values.iter_mut().zip(&times) {
                    if !crate::is_stale(*value) {
                        *value = time;
                    }
                }
            }
            block
        }
    };
    block.drop_names();
    Ok(block)
}

pub(super) fn minute(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    part(arguments, |time| time.rem_euclid(3_600) / 60)
}

pub(super) fn hour(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    part(arguments, |time| time.rem_euclid(DAY_SECONDS) / 3_600)
}

/// 0 is Sunday.
pub(super) fn day_of_week(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    // The epoch began on a Thursday.
    part(arguments, |time| (time.div_euclid(DAY_SECONDS) + 4).rem_euclid(7))
}

pub(super) fn day_of_month(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    part(arguments, |time| Date::of(time).day)
}

pub(super) fn day_of_year(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    part(arguments, |time| {
        let months = 1..Date::of(time).month;
        Date::of(time).day + months.map(|month| days_in(Date::of(time).year, month)).sum::<i64>()
    })
}

pub(super) fn days_in_month(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    part(arguments, |time| days_in(Date::of(time).year, Date::of(time).month))
}

pub(super) fn month(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    part(arguments, |time| Date::of(time).month)
}

pub(super) fn year(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    part(arguments, |time| Date::of(time).year)
}

/// A whole number from each value taken as seconds since the epoch; without argument from the time of evaluation.
fn part(arguments: &mut Arguments<'_, '_>, body: impl Fn(i64) -> i64) -> Result<Block, EvalError> {
    let mut block = if arguments.len() > 0 {
        arguments.vector(0)?
    } else {
        let times: Vec<f64> = arguments.grid().times().map(seconds).collect();
        let mut block = Block::new(times.len());
        block.push(Labels::empty(), false, &times);
        block
    };
    block.drop_names();
    block.map(|value| {
        if !(-1e15..1e15).contains(&value) {
            return f64::NAN;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
        let time = value as i64;
        #[expect(clippy::cast_precision_loss, reason = "parts of dates are small")]
        let part = body(time) as f64;
        part
    });
    Ok(block)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Date {
    year: i64,
    month: i64,
    day: i64,
}

impl Date {
    /// The date in the Gregorian calendar, by Howard Hinnant's `civil_from_days`: years start in March, so that
    /// the leap day is their last.
    fn of(time: i64) -> Self {
        let days = time.div_euclid(DAY_SECONDS) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self { year, month, day: day_of_year - (153 * shifted + 2) / 5 + 1 }
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_around_leap_days_and_the_epoch() {
        let date = |year, month, day| Date { year, month, day };
        for (time, expected) in [
            (0, date(1970, 1, 1)),
            (-1, date(1969, 12, 31)),
            (951_782_400, date(2000, 2, 29)),
            (951_868_800, date(2000, 3, 1)),
            (4_107_542_400, date(2100, 3, 1)),
        ] {
            assert_eq!(Date::of(time), expected, "{time}");
        }
        assert_eq!((days_in(2000, 2), days_in(2100, 2), days_in(2024, 2)), (29, 28, 29));
    }
}
