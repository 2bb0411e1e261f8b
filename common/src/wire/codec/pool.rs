//! Gives equal layouts one place in memory.
//!
//! The nodes of a fleet resemble each other: what their CPUs and disks have is the same word for word. A collector that decodes thousands of
//! streams keeps one copy of it. What nobody uses any more is let go of.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::model::{Layout, Metric, SeriesDefinition};

/// Layouts, series and metrics in use, each once.
#[derive(Debug, Default)]
pub struct LayoutPool {
    metrics: Mutex<Pool<Metric>>,
    series: Mutex<Pool<SeriesDefinition>>,
    layouts: Mutex<Pool<Layout>>,
}

impl LayoutPool {
    /// The metric that is like this one.
    pub fn metric(&self, metric: Metric) -> Arc<Metric> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner).share(metric)
    }

    /// The series that is like this one.
    pub fn series(&self, series: SeriesDefinition) -> Arc<SeriesDefinition> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner).share(series)
    }

    /// The layout that is like this one.
    pub fn layout(&self, layout: Layout) -> Arc<Layout> {
        self.layouts.lock().unwrap_or_else(PoisonError::into_inner).share(layout)
    }
}

/// Values by their hash. Weak, so that the pool keeps nothing alive.
#[derive(Debug)]
struct Pool<T> {
    known: HashMap<u64, Vec<Weak<T>>>,
    hasher: RandomState,
    /// At this many hashes, those of what is gone are dropped.
    sweep_at: usize,
}

/// Below this a pool is never swept.
const SWEEP_MIN: usize = 1024;

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { known: HashMap::new(), hasher: RandomState::new(), sweep_at: SWEEP_MIN }
    }
}

impl<T: Eq + Hash> Pool<T> {
    fn share(&mut self, value: T) -> Arc<T> {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, same| same.iter().any(|known| known.strong_count() > 0));
            self.known.shrink_to(2 * self.known.len());
            self.sweep_at = SWEEP_MIN.max(2 * self.known.len());
        }
        let same = self.known.entry(self.hasher.hash_one(&value)).or_default();
        if let Some(known) = same.iter().filter_map(Weak::upgrade).find(|known| **known == value) {
            return known;
        }
        same.retain(|known| known.strong_count() > 0);
        let new = Arc::new(value);
        same.push(Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_equal_is_one_and_what_is_gone_is_forgotten() {
        let mut pool = Pool::<String>::default();
        let first = pool.share("a".into());
        assert!(Arc::ptr_eq(&first, &pool.share("a".into())));
        assert!(!Arc::ptr_eq(&first, &pool.share("b".into())));
        for number in 0..100 * SWEEP_MIN {
            drop(pool.share(number.to_string()));
        }
        assert!(pool.known.len() <= 2 * SWEEP_MIN, "{}", pool.known.len());
        assert!(Arc::ptr_eq(&first, &pool.share("a".into())));
    }
}
