//! Where the noise comes from.

/// A 64-bit linear congruential generator; multiplier and increment are Knuth's (MMIX).
#[derive(Debug, Clone)]
pub struct Random(u64);

const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
const INCREMENT: u64 = 1_442_695_040_888_963_407;
/// Draws before the first use, so that neighbouring seeds have gone apart.
const WARM_UP: usize = 4;

impl Random {
    /// The generator of a seed, warmed up.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0xD1B5_4A32_D192_ED03));
        for _ in 0..WARM_UP {
            random.draw();
        }
        random
    }

    /// The next 31 random bits.
    pub fn draw(&mut self) -> i64 {
        self.0 = self.0.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
        self.last()
    }

    /// The bits of the last draw again.
    #[must_use]
    pub fn last(&self) -> i64 {
        (self.0 >> 33) as i64
    }
}
