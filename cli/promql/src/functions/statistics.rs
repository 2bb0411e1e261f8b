//! Sums, moments and quantiles, as accurate as Prometheus computes them.

/// A sum that keeps what rounding loses, after Kahan and Neumaier.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KahanSum {
    sum: f64,
    lost: f64,
}

impl KahanSum {
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        if sum.is_infinite() {
            self.lost = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.lost += (self.sum - sum) + value;
        } else {
            self.lost += (value - sum) + self.sum;
        }
        self.sum = sum;
    }

    pub(crate) fn value(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.lost }
    }

    /// Both parts scaled alike.
    fn scaled(self, factor: f64) -> Self {
        Self { sum: self.sum * factor, lost: self.lost * factor }
    }
}

/// The mean of a stream: a plain sum as long as that is finite, an incremental mean from then on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mean {
    total: KahanSum,
    count: f64,
    incremental: bool,
}

impl Mean {
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if !self.incremental {
            let mut total = self.total;
            total.add(value);
            if self.count <= 1.0 || total.value().is_finite() {
                self.total = total;
                return;
            }
            self.incremental = true;
            self.total = self.total.scaled(1.0 / (self.count - 1.0));
        }
        let share = (self.count - 1.0) / self.count;
        let mut mean = self.total.scaled(share);
        mean.add(value / self.count);
        self.total = mean;
    }

    pub(crate) fn value(self) -> f64 {
        if self.incremental { self.total.value() } else { self.total.value() / self.count }
    }
}

/// Count, mean and variance of a stream, after Welford.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moments {
    count: f64,
    mean: KahanSum,
    squares: KahanSum,
}

impl Moments {
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - self.mean.value();
        self.mean.add(delta / self.count);
        self.squares.add(delta * (value - self.mean.value()));
    }

    /// Of the population, not a sample of it.
    pub(crate) fn variance(&self) -> f64 {
        self.squares.value() / self.count
    }
}

/// The φ-quantile of values in ascending order (NaN first), interpolated between neighbours.
pub(crate) fn quantile(phi: f64, sorted: &[f64]) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    if phi.is_nan() {
        return f64::NAN;
    }
    if phi < 0.0 {
        return f64::NEG_INFINITY;
    }
    if phi > 1.0 {
        return f64::INFINITY;
    }
    #[expect(clippy::cast_precision_loss, reason = "no window has 2^53 samples")]
    let rank = phi * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= rank <= last")]
    let below = (rank.floor() as usize).min(last);
    let at = |index: usize| sorted.get(index.min(last)).copied().unwrap_or(f64::NAN);
    let weight = rank - rank.floor();
    at(below) * (1.0 - weight) + at(below + 1) * weight
}

/// Sorts ascending with NaN first, as quantiles need it.
pub(crate) fn sort_nan_first(values: &mut [f64]) {
    values.sort_unstable_by(|a, b| match (a.is_nan(), b.is_nan()) {
        (false, false) => a.total_cmp(b),
        (a_nan, b_nan) => b_nan.cmp(&a_nan),
    });
}

/// What is wrong with a φ, if anything is.
pub(crate) fn quantile_message(phi: f64) -> Option<String> {
    (!(0.0..=1.0).contains(&phi))
        .then(|| format!("quantile value should be between 0 and 1, got {}", crate::value::number(phi)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_keep_small_terms_beside_large_ones() {
        let mut sum = KahanSum::default();
        for value in [5e30, 1.0, -5e30] {
            sum.add(value);
        }
        assert_eq!(sum.value(), 1.0);
    }

    #[test]
    fn means_of_huge_values_are_finite() {
        let mut mean = Mean::default();
        for _ in 0..3 {
            mean.add(f64::MAX);
        }
        assert!((mean.value() / f64::MAX - 1.0).abs() < 1e-12);
    }

    #[test]
    fn quantiles_interpolate() {
        let sorted = [0.0, 1.0, 2.0, 4.0];
        assert_eq!(quantile(0.5, &sorted), 1.5);
        assert_eq!(quantile(0.0, &sorted), 0.0);
        assert_eq!(quantile(1.0, &sorted), 4.0);
        assert_eq!(quantile(2.0, &sorted), f64::INFINITY);
        assert_eq!(quantile(-1.0, &sorted), f64::NEG_INFINITY);
        assert!(quantile(0.5, &[]).is_nan());
    }
}
