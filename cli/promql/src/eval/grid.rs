//! The instants at which an expression is evaluated.

/// Evenly spaced instants, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) start_ms: i64,
    /// Distance of two instants; of no meaning where there is only one.
    pub(crate) step_ms: i64,
    pub(crate) steps: usize,
}

/// The times that a query was asked for: its end need not be one of its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    /// 0 of an instant query.
    pub(crate) step_ms: i64,
}

impl Period {
    pub(crate) fn instant(time_ms: i64) -> Self {
        Self { start_ms: time_ms, end_ms: time_ms, step_ms: 0 }
    }
}

impl Grid {
    pub(crate) fn instant(time_ms: i64) -> Self {
        Self { start_ms: time_ms, step_ms: 0, steps: 1 }
    }

    /// The multiples of a step that lie after one instant and not after another, or nothing if there are none.
    pub(crate) fn multiples(after_ms: i64, until_ms: i64, step_ms: i64) -> Option<Self> {
        let start_ms = (after_ms.div_euclid(step_ms) + 1) * step_ms;
        let steps = usize::try_from((until_ms - start_ms).div_euclid(step_ms) + 1).ok()?;
        (steps > 0).then_some(Self { start_ms, step_ms, steps })
    }

    pub(crate) fn end_ms(self) -> i64 {
        self.time(self.steps - 1)
    }

    pub(crate) fn times(self) -> impl ExactSizeIterator<Item = i64> + Clone {
        (0..self.steps).map(move |step| self.time(step))
    }

    /// Only the first instant.
    pub(crate) fn first(self) -> Self {
        Self { steps: 1, ..self }
    }

    fn time(self, step: usize) -> i64 {
        // Steps are bounded, and so are times.
        self.start_ms + self.step_ms * i64::try_from(step).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiples_exclude_the_start_and_include_the_end() {
        let grid = |start_ms, steps| Some(Grid { start_ms, step_ms: 60, steps });
        assert_eq!(Grid::multiples(60, 180, 60), grid(120, 2));
        assert_eq!(Grid::multiples(61, 179, 60), grid(120, 1));
        assert_eq!(Grid::multiples(-61, 0, 60), grid(-60, 2));
        assert_eq!(Grid::multiples(61, 100, 60), None);
    }
}
