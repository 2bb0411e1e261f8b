//! The states of aggregations that reduce many values to one.

use crate::functions::{KahanSum, Mean, Moments};

/// Reduces the values of a group at one step to one.
pub(super) trait Reduce: Copy {
    fn first(value: f64) -> Self;
    fn add(&mut self, value: f64);
    fn result(self) -> f64;
}

#[derive(Clone, Copy)]
pub(super) struct Sum(KahanSum);

impl Reduce for Sum {
    fn first(value: f64) -> Self {
        let mut sum = KahanSum::default();
        sum.add(value);
        Self(sum)
    }
    #[inline]
    fn add(&mut self, value: f64) {
        self.0.add(value);
    }
    fn result(self) -> f64 {
        self.0.value()
    }
}

#[derive(Clone, Copy)]
pub(super) struct Avg(Mean);

impl Reduce for Avg {
    fn first(value: f64) -> Self {
        let mut mean = Mean::default();
        mean.add(value);
        Self(mean)
    }
    #[inline]
    fn add(&mut self, value: f64) {
        self.0.add(value);
    }
    fn result(self) -> f64 {
        self.0.value()
    }
}

#[derive(Clone, Copy)]
pub(super) struct Variance(Moments);

impl Reduce for Variance {
    fn first(value: f64) -> Self {
        let mut moments = Moments::default();
        moments.add(value);
        Self(moments)
    }
    #[inline]
    fn add(&mut self, value: f64) {
        self.0.add(value);
    }
    fn result(self) -> f64 {
        self.0.variance()
    }
}

#[derive(Clone, Copy)]
pub(super) struct Count(f64);

impl Reduce for Count {
    fn first(_: f64) -> Self {
        Self(1.0)
    }
    #[inline]
    fn add(&mut self, _: f64) {
        self.0 += 1.0;
    }
    fn result(self) -> f64 {
        self.0
    }
}

#[derive(Clone, Copy)]
pub(super) struct One;

impl Reduce for One {
    fn first(_: f64) -> Self {
        Self
    }
    fn add(&mut self, _: f64) {}
    fn result(self) -> f64 {
        1.0
    }
}

/// NaN only if there is nothing else.
#[derive(Clone, Copy)]
pub(super) struct Min(f64);

impl Reduce for Min {
    fn first(value: f64) -> Self {
        Self(value)
    }
    #[inline]
    fn add(&mut self, value: f64) {
        if value < self.0 || self.0.is_nan() {
            self.0 = value;
        }
    }
    fn result(self) -> f64 {
        self.0
    }
}

/// NaN only if there is nothing else.
#[derive(Clone, Copy)]
pub(super) struct Max(f64);

impl Reduce for Max {
    fn first(value: f64) -> Self {
        Self(value)
    }
    #[inline]
    fn add(&mut self, value: f64) {
        if value > self.0 || self.0.is_nan() {
            self.0 = value;
        }
    }
    fn result(self) -> f64 {
        self.0
    }
}
