//! The handles that callers hold: numbers that look like pointers and that nobody follows.
//!
//! So a handle costs nothing, is the same after a reload, and one that was never given out is refused.

use std::{collections::BTreeMap, marker::PhantomData, ptr};

use nvml_wrapper_sys::bindings::nvmlDevice_t;

/// What the bits above the lower 24 say a handle is for.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(crate) enum Tag {
    Device = 0x44,
    EventSet = 0x45,
    Sample = 0x53,
}

const NUMBER_BITS: u32 = 24;
const SLOT_BITS: u32 = 8;

pub(crate) fn encode<T>(tag: Tag, number: usize) -> *mut T {
    ptr::without_provenance_mut((tag as usize) << NUMBER_BITS | number)
}

pub(crate) fn decode<T>(tag: Tag, handle: *mut T) -> Option<usize> {
    let handle = handle.addr();
    (handle >> NUMBER_BITS == tag as usize).then_some(handle & ((1 << NUMBER_BITS) - 1))
}

/// A GPU, or a MIG device of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) gpu: usize,
    /// Index of the MIG device.
    pub(crate) mig: Option<usize>,
}

impl Handle {
    pub(crate) fn encode(self) -> nvmlDevice_t {
        encode(Tag::Device, self.gpu << SLOT_BITS | self.mig.map_or(0, |mig| mig + 1))
    }

    pub(crate) fn decode(device: nvmlDevice_t) -> Option<Self> {
        let number = decode(Tag::Device, device)?;
        let slot = number & ((1 << SLOT_BITS) - 1);
        Some(Self { gpu: number >> SLOT_BITS, mig: slot.checked_sub(1) })
    }
}

/// What handles of one kind stand for.
#[derive(Debug)]
pub(crate) struct Table<H, T> {
    tag: Tag,
    next: usize,
    entries: BTreeMap<usize, T>,
    handles: PhantomData<fn(*mut H)>,
}

impl<H, T> Table<H, T> {
    pub(crate) const fn new(tag: Tag) -> Self {
        Self { tag, next: 1, entries: BTreeMap::new(), handles: PhantomData }
    }

    /// A handle is never given out twice.
    pub(crate) fn add(&mut self, entry: T) -> *mut H {
        let number = self.next;
        self.next += 1;
        self.entries.insert(number, entry);
        encode(self.tag, number)
    }

    pub(crate) fn get(&self, handle: *mut H) -> Option<&T> {
        self.entries.get(&decode(self.tag, handle)?)
    }

    pub(crate) fn get_mut(&mut self, handle: *mut H) -> Option<&mut T> {
        self.entries.get_mut(&decode(self.tag, handle)?)
    }

    pub(crate) fn remove(&mut self, handle: *mut H) -> Option<T> {
        self.entries.remove(&decode(self.tag, handle)?)
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_survive_the_way_there_and_back() {
        for handle in [Handle { gpu: 0, mig: None }, Handle { gpu: 255, mig: None }, Handle { gpu: 3, mig: Some(6) }] {
            assert_eq!(Handle::decode(handle.encode()), Some(handle));
            assert_eq!(decode(Tag::EventSet, handle.encode()), None);
        }
        assert_eq!(Handle::decode(ptr::null_mut()), None);
        assert_eq!(Handle::decode(ptr::without_provenance_mut(usize::MAX)), None);
    }

    #[test]
    fn a_handle_is_good_until_it_is_removed() {
        let mut table: Table<u8, &str> = Table::new(Tag::Sample);
        let (a, b) = (table.add("a"), table.add("b"));
        assert_eq!((table.get(a), table.get(b)), (Some(&"a"), Some(&"b")));
        assert_eq!(table.remove(a), Some("a"));
        assert_eq!((table.get(a), table.get(b)), (None, Some(&"b")));
        assert_eq!(table.remove(a), None);
        assert_ne!(table.add("c"), a);
    }
}
