//! What was read of blocks and may be wanted again, within a limit: parsed indexes, and open files.
//!
//! Blocks that nobody asks for are not here, and cost nothing.

use std::{
    any::Any,
    sync::{Arc, Mutex, PoisonError},
};

use belfry_common::storage::StorageFile;
use rustc_hash::FxHashMap;

/// Files kept open. A process may have 1,024 by default, and connections need none.
const FILES_MAX: usize = 256;

/// Shared by all blocks of a store.
#[derive(Debug)]
pub(crate) struct Cache {
    parsed: Mutex<Lru<(u64, u64), Arc<dyn Any + Send + Sync>>>,
    files: Mutex<Lru<u64, Arc<dyn StorageFile>>>,
}

impl Cache {
    /// A cache of so many bytes of indexes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { parsed: Mutex::new(Lru::new(bytes_max)), files: Mutex::new(Lru::new(FILES_MAX)) }
    }

    /// What was parsed from a block's section, parsing it unless it is known.
    pub(crate) fn parsed<T: Any + Send + Sync, E>(
        &self,
        block: u64,
        offset: u64,
        parse: impl FnOnce() -> Result<(T, usize), E>,
    ) -> Result<Arc<T>, E> {
        let known = self.parsed.lock().unwrap_or_else(PoisonError::into_inner).get(&(block, offset));
        if let Some(known) = known.and_then(|known| known.downcast().ok()) {
            return Ok(known);
        }
        // Two that ask at the same time both parse: rarely, and nobody waits for the other.
        let (parsed, bytes) = parse()?;
        let parsed = Arc::new(parsed);
        let entry: Arc<dyn Any + Send + Sync> = Arc::<T>::clone(&parsed);
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner).put((block, offset), entry, bytes);
        Ok(parsed)
    }

    /// A block's file, opening it unless it is open.
    pub(crate) fn file<E>(
        &self,
        block: u64,
        open: impl FnOnce() -> Result<Box<dyn StorageFile>, E>,
    ) -> Result<Arc<dyn StorageFile>, E> {
        if let Some(known) = self.files.lock().unwrap_or_else(PoisonError::into_inner).get(&block) {
            return Ok(known);
        }
        let file: Arc<dyn StorageFile> = open()?.into();
        self.files.lock().unwrap_or_else(PoisonError::into_inner).put(block, Arc::clone(&file), 1);
        Ok(file)
    }

    /// Forgets a block that is gone.
    pub(crate) fn forget(&self, block: u64) {
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner).retain(|&(known, _)| known != block);
        self.files.lock().unwrap_or_else(PoisonError::into_inner).retain(|&known| known != block);
    }

    /// Bytes of indexes.
    pub(crate) fn bytes(&self) -> usize {
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner).size
    }
}

/// Entries with sizes; beyond the limit the ones not used for longest go.
#[derive(Debug)]
struct Lru<K, V> {
    entries: FxHashMap<K, Slot<V>>,
    size: usize,
    size_max: usize,
    clock: u64,
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    size: usize,
    used: u64,
}

impl<K: Copy + Eq + std::hash::Hash, V: Clone> Lru<K, V> {
    fn new(size_max: usize) -> Self {
        Self { entries: FxHashMap::default(), size: 0, size_max, clock: 0 }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        self.clock += 1;
        let slot = self.entries.get_mut(key)?;
        slot.used = self.clock;
        Some(slot.value.clone())
    }

    fn put(&mut self, key: K, value: V, size: usize) {
        self.clock += 1;
        let before = self.entries.insert(key, Slot { value, size, used: self.clock });
        self.size = self.size + size - before.map_or(0, |before| before.size);
        if self.size > self.size_max {
            self.make_room();
        }
    }

    /// An eighth more than is needed goes, so that this is seldom.
    fn make_room(&mut self) {
        let mut by_use: Vec<(u64, K)> = self.entries.iter().map(|(&key, slot)| (slot.used, key)).collect();
        by_use.sort_unstable_by_key(|&(used, _)| used);
        for (_, key) in by_use {
            if self.size <= self.size_max - self.size_max / 8 {
                return;
            }
            self.size -= self.entries.remove(&key).map_or(0, |slot| slot.size);
        }
    }

    fn retain(&mut self, is_kept: impl Fn(&K) -> bool) {
        let size = &mut self.size;
        self.entries.retain(|key, slot| {
            let kept = is_kept(key);
            *size -= if kept { 0 } else { slot.size };
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_limit_holds() {
        let mut lru = Lru::new(80);
        for key in 0..100 {
            lru.put(key, key * 10, 10);
            assert_eq!(lru.get(&0), Some(0));
            assert!(lru.size <= 80);
        }
        assert_eq!(lru.get(&50), None);
        lru.retain(|&key| key == 0);
        assert_eq!((lru.size, lru.entries.len()), (10, 1));
    }

    #[test]
    fn a_section_is_parsed_once_and_again_after_its_block_is_forgotten() {
        let cache = Cache::new(1000);
        let parse = |value: u32| cache.parsed::<u32, ()>(1, 2, || Ok((value, 4))).unwrap();
        assert_eq!((*parse(7), *parse(8)), (7, 7));
        cache.forget(1);
        assert_eq!((*parse(9), cache.bytes()), (9, 4));
    }
}
