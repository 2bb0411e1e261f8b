//! How each kind of series behaves.

use crate::Random;

/// How a series behaves from second to second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Always zero.
    Zero,
    /// Always the same multiple of 1 MiB.
    Constant,
    /// A counter of seconds.
    Seconds,
    /// An integer that steps by one in a sixteenth of the seconds, such as a temperature.
    SlowSteps,
    /// An integer that steps by one in a quarter of the seconds.
    Steps,
    /// An integer percentage with noise.
    Percent,
    /// Hundredths that return to their mean, such as watts.
    Hundredths,
    /// A ratio in millionths with noise.
    Ratio,
    /// Bytes in pages of 4 KiB, a random walk.
    Pages,
    /// A counter with a noisy rate.
    Counter,
    /// A counter of hundredths of a second.
    Centiseconds,
    /// A counter of which something is counted in 1/32 of the seconds.
    RareCounter,
}

impl Shape {
    /// Decimal digits of its values: they are integers divided by this power of ten.
    #[must_use]
    pub fn digits(self) -> u8 {
        match self {
            Self::Hundredths | Self::Centiseconds => 2,
            Self::Ratio => 6,
            _ => 0,
        }
    }

    /// What its integers are divided by.
    #[must_use]
    pub fn divisor(self) -> f64 {
        10_f64.powi(i32::from(self.digits()))
    }

    /// Whether it only grows.
    #[must_use]
    pub fn is_counter(self) -> bool {
        matches!(self, Self::Seconds | Self::Counter | Self::Centiseconds | Self::RareCounter)
    }
}

/// The values of one series, one a second, without end: integers, to be divided by [`Shape::divisor`].
#[derive(Debug, Clone)]
pub struct Values {
    shape: Shape,
    random: Random,
    /// What the series is about: its constant, mean or rate.
    level: i64,
    state: i64,
}

impl Values {
    /// The series with this seed.
    #[must_use]
    pub fn new(shape: Shape, seed: u64) -> Self {
        let random = Random::new(seed);
        let first = random.last();
        let (level, state) = match shape {
            Shape::Zero => (0, 0),
            Shape::Constant => (0, (first % 1000 + 1) << 20),
            Shape::Seconds => (0, first % 10_000_000 - 1),
            Shape::SlowSteps => (1 << 27, 45 + first % 30),
            Shape::Steps => (1 << 29, first % 40 + 10),
            Shape::Percent => (first % 60 + 30, 0),
            Shape::Hundredths => (first % 50_000 + 10_000, first % 50_000 + 10_000),
            Shape::Ratio => (first % 800_000 + 100_000, 0),
            Shape::Pages => (0, first % (1 << 24) + (1 << 22)),
            Shape::Counter => ((first & 0xFFFF) << 6, first << 12),
            Shape::Centiseconds => (first % 90, first),
            Shape::RareCounter => (0, first & 0xF_FFFF),
        };
        Self { shape, random, level, state }
    }

    /// The value of the next second.
    pub fn step(&mut self) -> i64 {
        match self.shape {
            Shape::Zero | Shape::Constant => return self.state,
            Shape::Seconds => {
                self.state += 1;
                return self.state;
            }
            _ => {}
        }
        let r = self.random.draw();
        match self.shape {
            Shape::SlowSteps | Shape::Steps => {
                if r < self.level {
                    self.state = (self.state + if r & 1 == 1 { 1 } else { -1 }).max(1);
                }
            }
            Shape::Percent => return (self.level + (r & 15) - 8).clamp(0, 100),
            Shape::Hundredths => self.state += (self.level - self.state).div_euclid(8) + (r & 1023) - 512,
            Shape::Ratio => return (self.level + (r & 131_071) - 65_536).clamp(0, 1_000_000),
            Shape::Pages => {
                if r & 3 != 0 {
                    self.state = (self.state + ((r >> 2) & 4095) - 2048).max(0);
                }
                return self.state * 4096;
            }
            Shape::Counter => self.state += self.level + (r & 0xF_FFFF),
            Shape::Centiseconds => self.state += (self.level + (r & 7) - 4).max(0),
            Shape::RareCounter => {
                if r < 1 << 26 {
                    self.state += 1 + (r & 3);
                }
            }
            Shape::Zero | Shape::Constant | Shape::Seconds => {}
        }
        self.state
    }
}

impl Iterator for Values {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        Some(self.step())
    }
}
