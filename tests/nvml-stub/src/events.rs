//! Event sets: which cards they listen to, and which of the scenario's XIDs they have told.
//!
//! Pure: waiting is `api::events`'s.

use std::collections::{BTreeMap, BTreeSet};

use nvml_wrapper_sys::bindings::nvmlEventTypeXidCriticalError;

use crate::scenario::Xid;

/// An event set of NVML.
#[derive(Debug, Default)]
pub(crate) struct EventSet {
    /// Types of events by card.
    registered: BTreeMap<usize, u64>,
    /// The scenario of `told`.
    generation: u64,
    /// Places of the XIDs that this set has delivered.
    told: BTreeSet<usize>,
}

impl EventSet {
    pub(crate) fn register(&mut self, gpu: usize, types: u64) {
        *self.registered.entry(gpu).or_default() |= types;
    }

    /// The first XID that has come and was not yet told. Each is told once per scenario.
    pub(crate) fn next(&mut self, generation: u64, xids: &[Xid], seconds: f64) -> Option<Xid> {
        if self.generation != generation {
            self.generation = generation;
            self.told.clear();
        }
        let is_due = |xid: &Xid| xid.at <= seconds && self.listens_to(xid.gpu);
        let (place, xid) = xids.iter().enumerate().find(|(place, xid)| is_due(xid) && !self.told.contains(place))?;
        self.told.insert(place);
        Some(*xid)
    }

    fn listens_to(&self, gpu: usize) -> bool {
        self.registered.get(&gpu).is_some_and(|types| types & u64::from(nvmlEventTypeXidCriticalError) != 0)
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
        set.register(3, XID);
        let xids = [xid(3, 79, 0.0), xid(3, 31, 2.0)];
        let mut next = |generation, seconds| set.next(generation, &xids, seconds).map(|xid| xid.code);
        assert_eq!([next(1, 0.0), next(1, 0.0), next(1, 2.0), next(1, 9.0)], [Some(79), None, Some(31), None]);
        assert_eq!([next(2, 0.0), next(2, 0.0)], [Some(79), None], "told again after a reload");
    }

    #[test]
    fn a_set_hears_only_what_it_listens_to() {
        let mut set = EventSet::default();
        set.register(0, XID);
        set.register(1, 1);
        let xids = [xid(1, 79, 0.0), xid(2, 79, 0.0), xid(0, 31, 0.0)];
        assert_eq!(set.next(1, &xids, 1.0).map(|xid| xid.code), Some(31));
        assert_eq!(set.next(1, &xids, 1.0), None);
        set.register(1, XID);
        assert_eq!(set.next(1, &xids, 1.0).map(|xid| xid.code), Some(79));
    }
}
