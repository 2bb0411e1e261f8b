//! Values that behave like those of a busy node: counters with a noisy rate, random walks, steps, constants.
//!
//! One generator of random numbers per series, that of the reference data set, so that a run can be repeated anywhere bit by bit. Values
//! are integers at the resolution of their kind.

use belfry_reference::Random;

/// How a series behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Always zero.
    Zero,
    /// Always this.
    Fixed(i64),
    /// Seconds that pass.
    Seconds,
    /// An integer that steps by one in a sixteenth of the ticks, such as a temperature.
    SlowSteps,
    /// An integer that steps by one in a quarter of the ticks.
    Steps,
    /// Hertz that move by 15 MHz in a quarter of the ticks.
    Clock,
    /// A load average in hundredths that returns to its mean.
    Load,
    /// An integer percentage with noise.
    Percent,
    /// A value in hundredths that returns to its mean, such as watts.
    Wandering,
    /// A ratio in millionths with noise.
    Ratio,
    /// Bytes in pages, a random walk.
    Pages,
    /// A counter with a noisy rate.
    Counter,
    /// A counter of hundredths of a second.
    CpuTime,
    /// A counter of rare events.
    RareCounter,
}

/// One series' generator.
#[derive(Debug, Clone)]
pub(super) struct Generator {
    shape: Shape,
    random: Random,
    first: i64,
    value: i64,
}

impl Generator {
    /// The generator of the series with this seed.
    pub(super) fn new(shape: Shape, seed: u64) -> Self {
        let random = Random::new(seed);
        let first = random.last();
        let mut generator = Self { shape, random, first, value: 0 };
        generator.value = match shape {
            Shape::Zero => 0,
            Shape::Fixed(value) => value,
            Shape::Seconds => first % 10_000_000 - 1,
            Shape::SlowSteps => 45 + first % 30,
            Shape::Steps => first % 40 + 10,
            Shape::Clock => first % 40 + 90,
            Shape::Load => first % 2_000 + 200,
            Shape::Percent => first % 60 + 30,
            Shape::Wandering => first % 50_000 + 10_000,
            Shape::Ratio => first % 800_000 + 100_000,
            Shape::Pages => first % (1 << 24) + (1 << 22),
            Shape::Counter => first << 12,
            Shape::CpuTime => first,
            Shape::RareCounter => first & 0xF_FFFF,
        };
        generator
    }

    /// The value of the next tick.
    pub(super) fn next(&mut self) -> i64 {
        match self.shape {
            Shape::Zero | Shape::Fixed(_) => return self.value,
            Shape::Seconds => {
                self.value += 1;
                return self.value;
            }
            _ => {}
        }
        let r = self.random.draw();
        match self.shape {
            Shape::SlowSteps => self.move_by_one(r, 1 << 27),
            Shape::Steps => self.move_by_one(r, 1 << 29),
            Shape::Clock => {
                self.move_by_one(r, 1 << 29);
                return self.value * 15_000_000;
            }
            Shape::Load => {
                let mean = self.first % 2_000 + 200;
                self.value = (self.value + (mean - self.value).div_euclid(8) + (r & 31) - 16).max(0);
            }
            Shape::Percent => return (self.first % 60 + 30 + (r & 15) - 8).clamp(0, 100),
            Shape::Wandering => {
                let mean = self.first % 50_000 + 10_000;
                self.value += (mean - self.value).div_euclid(8) + (r & 1023) - 512;
            }
            Shape::Ratio => return (self.first % 800_000 + 100_000 + (r & 131_071) - 65_536).clamp(0, 1_000_000),
            Shape::Pages => {
                if r & 3 != 0 {
                    self.value = (self.value + ((r >> 2) & 4095) - 2048).max(0);
                }
                return self.value * 4096;
            }
            Shape::Counter => self.value += ((self.first & 0xFFFF) << 6) + (r & 0xF_FFFF),
            Shape::CpuTime => self.value += (self.first % 90 + (r & 7) - 4).max(0),
            Shape::RareCounter => {
                if r < 1 << 26 {
                    self.value += 1 + (r & 3);
                }
            }
            Shape::Zero | Shape::Fixed(_) | Shape::Seconds => {}
        }
        self.value
    }

    fn move_by_one(&mut self, r: i64, chance: i64) {
        if r < chance {
            self.value = (self.value + if r & 1 == 1 { 1 } else { -1 }).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(shape: Shape, ticks: usize) -> Vec<i64> {
        let mut generator = Generator::new(shape, 7);
        (0..ticks).map(|_| generator.next()).collect()
    }

    #[test]
    fn counters_never_go_back_and_ratios_stay_in_range() {
        for shape in [Shape::Counter, Shape::CpuTime, Shape::RareCounter, Shape::Seconds] {
            assert!(run(shape, 1000).is_sorted(), "{shape:?}");
        }
        assert!(run(Shape::Ratio, 1000).iter().all(|value| (0..=1_000_000).contains(value)));
        assert!(run(Shape::Percent, 1000).iter().all(|value| (0..=100).contains(value)));
        assert!(run(Shape::Pages, 1000).iter().all(|value| value % 4096 == 0));
    }

    #[test]
    fn a_seed_gives_the_same_values_again() {
        assert_eq!(run(Shape::Wandering, 100), run(Shape::Wandering, 100));
        assert_ne!(Generator::new(Shape::Counter, 1).next(), Generator::new(Shape::Counter, 2).next());
    }
}
