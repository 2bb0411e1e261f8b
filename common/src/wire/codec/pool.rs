//! Gives equal layouts one place in memory.
//!
//! The nodes of a fleet resemble each other: what their CPUs and disks have is the same word for word. A collector that decodes thousands of
//! streams keeps one copy of it. What nobody uses any more is let go of.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use hashbrown::HashTable;

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

    /// Gives back what the pool itself occupies for what is gone: otherwise that waits for something new.
    pub fn sweep(&self) {
        // What is made of others goes first, and so do its references.
        self.layouts.lock().unwrap_or_else(PoisonError::into_inner).sweep();
        self.series.lock().unwrap_or_else(PoisonError::into_inner).sweep();
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner).sweep();
    }
}

/// Values with their hash. Weak, so that the pool keeps nothing alive.
#[derive(Debug)]
struct Pool<T> {
    known: HashTable<(u64, Weak<T>)>,
    hasher: RandomState,
    /// At this many, what is gone is dropped.
    sweep_at: usize,
}

/// Below this a pool is not swept by what is new.
const SWEEP_MIN: usize = 1024;

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { known: HashTable::new(), hasher: RandomState::new(), sweep_at: SWEEP_MIN }
    }
}

fn hash_of<T>((hash, _): &(u64, Weak<T>)) -> u64 {
    *hash
}

impl<T: Eq + Hash> Pool<T> {
    fn share(&mut self, value: T) -> Arc<T> {
        if self.known.len() >= self.sweep_at {
            self.sweep();
        }
        let hash = self.hasher.hash_one(&value);
        let same = |known: &Weak<T>| known.upgrade().filter(|known| **known == value);
        let mut of_hash = self.known.iter_hash(hash).filter(|(of, _)| *of == hash);
        if let Some(known) = of_hash.find_map(|(_, known)| same(known)) {
            return known;
        }
        let new = Arc::new(value);
        let entry = (hash, Arc::downgrade(&new));
        // What comes and goes again and again takes one place.
        match self.known.find_mut(hash, |(of, known)| *of == hash && known.strong_count() == 0) {
            Some(gone) => *gone = entry,
            None => drop(self.known.insert_unique(hash, entry, hash_of)),
        }
        new
    }

    fn sweep(&mut self) {
        self.known.retain(|(_, known)| known.strong_count() > 0);
        self.sweep_at = SWEEP_MIN.max(2 * self.known.len());
        self.known.shrink_to(self.sweep_at, hash_of);
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
        pool.sweep();
        assert_eq!(pool.known.len(), 1);
        for _ in 0..10 {
            drop(pool.share("b".into()));
        }
        assert_eq!(pool.known.len(), 2);
        assert!(Arc::ptr_eq(&first, &pool.share("a".into())));
    }
}
