//! Event sets: which cards they listen to, and which of the scenario's XIDs they have told.
//!
//! Pure: waiting is `api::events`'s.

use std::collections::{BTreeMap, BTreeSet};

use nvml_wrapper_sys::bindings::nvmlEventTypeXidCriticalError;

use crate::scenario::Xid;

/// An event set of NVML.
#[derive(Debug, Default)]
pub(crate) struct EventSet {
    registered: BTreeMap<usize, Registration>,
    /// The scenario of `told`.
    generation: u64,
    /// Places of the XIDs that this set has delivered.
    told: BTreeSet<usize>,
}

/// What a set hears of a card, and from when on.
#[derive(Debug, Clone, Copy)]
struct Registration {
    types: u64,
    generation: u64,
    seconds: f64,
}

impl EventSet {
    /// From now on, which is so long after the scenario of this number was loaded.
    pub(crate) fn register(&mut self, gpu: usize, types: u64, generation: u64, seconds: f64) {
        let new = Registration { types: 0, generation, seconds };
        self.registered.entry(gpu).or_insert(new).types |= types;
    }

    /// The first XID that came since its card was registered and was not yet told. Each is told once per scenario.
    pub(crate) fn next(&mut self, generation: u64, xids: &[Xid], seconds: f64) -> Option<Xid> {
        if self.generation != generation {
            self.generation = generation;
            self.told.clear();
        }
        let is_due = |xid: &Xid| xid.at <= seconds && self.listens_to(xid);
        let (place, xid) = xids.iter().enumerate().find(|(place, xid)| is_due(xid) && !self.told.contains(place))?;
        self.told.insert(place);
        Some(*xid)
    }

    fn listens_to(&self, xid: &Xid) -> bool {
        self.registered.get(&xid.gpu).is_some_and(|registration| {
            let is_past = registration.generation == self.generation && xid.at < registration.seconds;
            registration.types & u64::from(nvmlEventTypeXidCriticalError) != 0 && !is_past
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XID: u64 = nvmlEventTypeXidCriticalError as u64;

    fn xid(gpu: usize, code: u64, at: f64) -> Xid {
        Xid { gpu, code, at, gpu_instance: None }
    }

    #[test]
    fn each_xid_is_told_once_in_each_scenario() {
        let mut set = EventSet::default();
        set.register(3, XID, 0, 0.0);
        let xids = [xid(3, 79, 0.0), xid(3, 31, 2.0)];
        let mut next = |generation, seconds| set.next(generation, &xids, seconds).map(|xid| xid.code);
        assert_eq!([next(1, 0.0), next(1, 0.0), next(1, 2.0), next(1, 9.0)], [Some(79), None, Some(31), None]);
        assert_eq!([next(2, 0.0), next(2, 0.0)], [Some(79), None], "told again after a reload");
    }

    #[test]
    fn what_came_before_a_card_was_registered_is_not_heard() {
        let mut set = EventSet::default();
        set.register(3, XID, 1, 5.0);
        let xids = [xid(3, 79, 4.0), xid(3, 31, 6.0)];
        assert_eq!(set.next(1, &xids, 7.0).map(|xid| xid.code), Some(31));
        assert_eq!(set.next(1, &xids, 7.0), None);
        assert_eq!(set.next(2, &xids, 4.0).map(|xid| xid.code), Some(79), "a later scenario");
    }

    #[test]
    fn a_set_hears_only_what_it_listens_to() {
        let mut set = EventSet::default();
        set.register(0, XID, 0, 0.0);
        set.register(1, 1, 0, 0.0);
        let xids = [xid(1, 79, 0.0), xid(2, 79, 0.0), xid(0, 31, 0.0)];
        assert_eq!(set.next(1, &xids, 1.0).map(|xid| xid.code), Some(31));
        assert_eq!(set.next(1, &xids, 1.0), None);
        set.register(1, XID, 1, 0.0);
        assert_eq!(set.next(1, &xids, 1.0).map(|xid| xid.code), Some(79));
    }
}
