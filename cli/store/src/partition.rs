//! Spans of time that blocks cover: an hour at first, a day and thirty days when they are merged.

use belfry_common::model::Timestamp;

/// Milliseconds of an hour.
pub(crate) const HOUR_MS: i64 = 3_600_000;

/// The number of the hour since 1970 that a time is in.
pub(crate) fn hour_of(time: Timestamp) -> i64 {
    time.as_millis().div_euclid(HOUR_MS)
}

/// What one block covers at most; all of one length follow each other without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Length {
    Hour,
    Day,
    /// Thirty days.
    Month,
}

impl Length {
    pub(crate) const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Month];

    pub(crate) fn millis(self) -> i64 {
        match self {
            Self::Hour => HOUR_MS,
            Self::Day => 24 * HOUR_MS,
            Self::Month => 30 * 24 * HOUR_MS,
        }
    }
}

/// One of these spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Span {
    pub(crate) length: Length,
    /// Its number since 1970.
    pub(crate) number: i64,
}

impl Span {
    /// The span of this length that a time is in.
    pub(crate) fn of(length: Length, ms: i64) -> Self {
        Self { length, number: ms.div_euclid(length.millis()) }
    }

    /// The shortest span that has both times.
    pub(crate) fn covering(first_ms: i64, last_ms: i64) -> Option<Self> {
        let span = |length| Some(Self::of(length, first_ms)).filter(|span| *span == Self::of(length, last_ms));
        Length::ALL.into_iter().find_map(span)
    }

    pub(crate) fn end_ms(self) -> i64 {
        (self.number + 1).saturating_mul(self.length.millis())
    }

    /// The next longer span around it.
    pub(crate) fn longer(self) -> Option<Self> {
        let length = match self.length {
            Length::Hour => Length::Day,
            Length::Day => Length::Month,
            Length::Month => return None,
        };
        Some(Self::of(length, self.number.saturating_mul(self.length.millis())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_nest() {
        let hour = Span::of(Length::Hour, -1);
        assert_eq!((hour.number, hour.end_ms()), (-1, 0));
        let day = hour.longer().unwrap();
        assert_eq!((day.length, day.number, day.end_ms()), (Length::Day, -1, 0));
        assert_eq!(day.longer().and_then(Span::longer), None);
        assert_eq!(Span::covering(0, HOUR_MS - 1), Some(Span::of(Length::Hour, 0)));
        assert_eq!(Span::covering(0, HOUR_MS), Some(Span::of(Length::Day, 0)));
        assert_eq!(Span::covering(-1, 0), None);
    }
}
