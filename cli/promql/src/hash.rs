//! A fast hash for label sets.
//!
//! Matching and grouping hash every label of every series, and the standard hash would be most of that work. This
//! one multiplies words of eight bytes into 128 bits and folds the halves. It is seeded at random for each map, so
//! that nobody can choose labels which collide.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};

/// A map keyed by label sets.
pub(crate) type FastMap<K, V> = HashMap<K, V, FastState>;

/// A set of label sets.
pub(crate) type FastSet<K> = HashSet<K, FastState>;

/// The seed of a map.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FastState(u64);

impl Default for FastState {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0_u8))
    }
}

impl BuildHasher for FastState {
    type Hasher = FastHasher;

    fn build_hasher(&self) -> FastHasher {
        FastHasher(self.0)
    }
}

/// The state of one hash.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FastHasher(u64);

impl FastHasher {
    #[inline]
    fn mix(&mut self, word: u64) {
        // An odd constant with its bits evenly spread, from the fraction of the golden ratio.
        let product = u128::from(self.0 ^ word) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        #[expect(clippy::cast_possible_truncation, reason = "the halves are folded")]
        let folded = (product as u64) ^ ((product >> 64) as u64);
        self.0 = folded.rotate_left(23);
    }
}

impl Hasher for FastHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        for (place, byte) in last.iter_mut().zip(rest) {
            *place = *byte;
        }
        // The length tells texts apart that end in zeros.
        self.mix(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    #[inline]
    fn write_u8(&mut self, byte: u8) {
        self.mix(u64::from(byte));
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        let mut last = *self;
        last.mix(0);
        last.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Labels;

    #[test]
    fn like_labels_spread_over_all_buckets() {
        let state = FastState::default();
        let mut buckets = [0_u32; 64];
        for gpu in 0..6_400 {
            let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("gpu", gpu.to_string())]);
            let bucket = usize::try_from(state.hash_one(&labels) % 64).expect("a small number");
            if let Some(count) = buckets.get_mut(bucket) {
                *count += 1;
            }
        }
        assert!(buckets.iter().all(|count| (50..170).contains(count)), "{buckets:?}");
    }

    #[test]
    fn equal_labels_hash_alike_and_split_texts_differ() {
        let state = FastState::default();
        let hash = |name: &str, value: &str| state.hash_one(Labels::from_pairs([(name, value)]));
        assert_eq!(hash("a", "b"), hash("a", "b"));
        assert_ne!(hash("ab", "c"), hash("a", "bc"));
        assert_ne!(hash("a", "b\0"), hash("a", "b"));
    }
}
