//! Coarser samples: the least, the greatest, the sum, the count and the last value of each minute or hour.
//!
//! A row stands at the beginning of its minute or hour, which it includes, and covers all up to the next, which it does not. A row without a
//! value says why: the reason of its last reading is that of all its columns but the count, which is 0. Pure.

use belfry_common::model::{Raw, Reason};

use crate::{
    block::{ENDED, Tier},
    partition::HOUR_MS,
};

/// The columns of a row, in the order of the file: least, greatest, sum, count, last.
pub(crate) const COLUMNS: usize = 5;
const COUNT: usize = 3;

/// Milliseconds of a row of a tier; none of raw samples.
pub(crate) fn row_ms(tier: Tier) -> Option<i64> {
    match tier {
        Tier::Raw => None,
        Tier::Minute => Some(60_000),
        Tier::Hour => Some(HOUR_MS),
    }
}

/// Rows of one series: their times, and their columns.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) times: Vec<i64>,
    pub(crate) columns: [Vec<Raw>; COLUMNS],
}

impl Rows {
    pub(crate) fn clear(&mut self) {
        self.times.clear();
        self.columns.iter_mut().for_each(Vec::clear);
    }

    /// Adds the rows of these samples, whose times ascend. `is_float`: the values are floats, not integers of some resolution.
    pub(crate) fn add(&mut self, times: &[i64], readings: &[Raw], row_ms: i64, is_float: bool) {
        let row_of = |time: &i64| time.div_euclid(row_ms);
        let mut from = 0;
        for row in times.chunk_by(|a, b| row_of(a) == row_of(b)) {
            let of_row = readings.get(from..from + row.len()).unwrap_or_default();
            from += row.len();
            if let Some(first) = row.first() {
                self.times.push(row_of(first).saturating_mul(row_ms));
                let columns = if is_float { float_row(of_row) } else { integer_row(of_row) };
                self.columns.iter_mut().zip(columns).for_each(|(column, value)| column.push(value));
            }
        }
    }
}

/// What there is of a row without values.
fn empty_row(readings: &[Raw]) -> [Raw; COLUMNS] {
    let reason = readings.iter().rfind(|reading| **reading != ENDED).copied();
    let mut row = [reason.unwrap_or(ENDED); COLUMNS];
    row[COUNT] = Raw::integer(0);
    row
}

/// An ended series has a reason, too, though none that is known.
fn has_value(reading: Raw) -> bool {
    reading.reason().is_none()
}

fn integer_row(readings: &[Raw]) -> [Raw; COLUMNS] {
    let (mut min, mut max, mut sum, mut count, mut last) = (i64::MAX, i64::MIN, 0_i128, 0, 0);
    for value in readings.iter().filter(|reading| has_value(**reading)).map(|reading| reading.bits()) {
        min = min.min(value);
        max = max.max(value);
        sum += i128::from(value);
        count += 1;
        last = value;
    }
    if count == 0 {
        return empty_row(readings);
    }
    // A counter of bytes can overflow 64 bits when it is summed for an hour: then there is no sum.
    let sum = i64::try_from(sum).map_or(Raw::missing(Reason::OutOfRange), Raw::integer);
    [Raw::integer(min), Raw::integer(max), sum, Raw::integer(count), Raw::integer(last)]
}

fn float_row(readings: &[Raw]) -> [Raw; COLUMNS] {
    let (mut min, mut max, mut sum, mut count, mut last) = (f64::NAN, f64::NAN, 0.0, 0, 0.0);
    for reading in readings.iter().filter(|reading| has_value(**reading)) {
        let value = f64::from_bits(reading.bits().cast_unsigned());
        min = value.min(min);
        max = value.max(max);
        sum += value;
        count += 1;
        last = value;
    }
    if count == 0 {
        return empty_row(readings);
    }
    [Raw::float(min), Raw::float(max), Raw::float(sum), Raw::integer(count), Raw::float(last)]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn check(readings: &[(i64, Raw)], is_float: bool, expected: &expect_test::Expect) {
        let (times, readings): (Vec<i64>, Vec<Raw>) = readings.iter().copied().unzip();
        let mut rows = Rows::default();
        rows.add(&times, &readings, 60_000, is_float);
        let text = |raw: Raw| match raw.reason() {
            _ if raw == ENDED => "ended".to_string(),
            Some(reason) => reason.as_str().to_string(),
            None if is_float => f64::from_bits(raw.bits().cast_unsigned()).to_string(),
            None => raw.bits().to_string(),
        };
        let line = |at: usize| {
            let columns = rows.columns.iter().enumerate();
            let columns = columns.map(|(column, values)| match column {
                COUNT => values[at].bits().to_string(),
                _ => text(values[at]),
            });
            format!("{}: {}", rows.times[at] / 1000, columns.collect::<Vec<_>>().join(" "))
        };
        expected.assert_eq(&(0..rows.times.len()).map(line).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn a_row_has_what_its_minute_had() {
        let values = [(0, 5), (59_999, 3), (60_000, -7), (61_000, 9), (61_500, 1)];
        check(
            &values.map(|(time, value)| (time, Raw::integer(value))),
            false,
            &expect![[r#"
            0: 3 5 8 2 3
            60: -7 9 3 3 1"#]],
        );
        check(
            &values.map(|(time, value)| (time, Raw::float(value as f64 / 2.0))),
            true,
            &expect![[r#"
            0: 1.5 2.5 4 2 1.5
            60: -3.5 4.5 1.5 3 0.5"#]],
        );
    }

    #[test]
    fn what_is_missing_does_not_count_and_a_row_without_values_says_why() {
        let lost = Raw::missing(Reason::Lost);
        let readings = [
            (0, Raw::integer(5)),
            (1, lost),
            (60_000, Raw::missing(Reason::Timeout)),
            (60_001, lost),
            (180_000, ENDED),
        ];
        check(
            &readings,
            false,
            &expect![[r#"
            0: 5 5 5 1 5
            60: lost lost lost 0 lost
            180: ended ended ended 0 ended"#]],
        );
    }

    #[test]
    fn a_sum_that_no_number_holds_is_missing() {
        let large = Raw::integer(i64::MAX - 1);
        check(
            &[(0, large), (1, large)],
            false,
            &expect!["0: 9223372036854775806 9223372036854775806 out_of_range 2 9223372036854775806"],
        );
    }
}
