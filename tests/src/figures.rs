//! What was measured, and how it is told: median, tail and extremes.

use std::fmt;

/// Numbers of one kind.
#[derive(Debug, Clone, Default)]
pub struct Figures(Vec<f64>);

impl Figures {
    /// Takes in one more.
    pub fn add(&mut self, number: f64) {
        self.0.push(number);
    }

    /// The smallest number that at least this share of them does not exceed; 0 if there are none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| self.quantile(share));
        write!(f, "p50 {p50:.1}, p99 {p99:.1}, max {max:.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_numbers() {
        let mut figures = Figures::default();
        assert_eq!(figures.quantile(0.5), 0.0);
        (1..=100).rev().for_each(|number| figures.add(f64::from(number)));
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| figures.quantile(share)), [1.0, 50.0, 99.0, 100.0]);
    }
}
