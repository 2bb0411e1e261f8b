//! What alerting counts, and whether it is alive.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use belfry_common::model::Timestamp;

/// A thread that has not taken anything up for this long is stuck.
const STUCK_AFTER_MS: i64 = 30_000;

/// What alerting counts.
#[derive(Debug, Default)]
pub(crate) struct AlertingStatistics {
    pub(crate) evaluations: AtomicU64,
    pub(crate) evaluation_micros: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) arrivals_lost: AtomicU64,
    /// From the time of a tick to the end of its evaluation, the last time.
    pub(crate) lag_ms: AtomicU64,
    /// Why the rules were not read again the last time, if they were not.
    rules_refused: Mutex<Option<String>>,
    /// When the thread last took something up.
    alive_at_ms: AtomicI64,
    /// Firing and pending alerts by node, for the status.
    by_node: Mutex<HashMap<String, (u64, u64)>>,
}

impl AlertingStatistics {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { alive_at_ms: now.as_millis().into(), ..Self::default() }
    }

    /// The thread takes something up.
    pub(super) fn note_alive(&self, now: Timestamp) {
        self.alive_at_ms.store(now.as_millis(), Relaxed);
    }

    pub(super) fn is_alive(&self, now: Timestamp) -> bool {
        now.as_millis() - self.alive_at_ms.load(Relaxed) <= STUCK_AFTER_MS
    }

    pub(super) fn note_evaluation(&self, took: Duration) {
        self.evaluations.fetch_add(1, Relaxed);
        self.evaluation_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn set_rules_refused(&self, why: Option<String>) {
        *self.rules_refused.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub(super) fn set_by_node(&self, counts: HashMap<String, (u64, u64)>) {
        *self.by_node.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    /// Why the rules were not read again the last time, if they were not: the ones before are in force.
    pub(crate) fn rules_refused(&self) -> Option<String> {
        self.rules_refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Firing and pending alerts of a node.
    pub(crate) fn of_node(&self, node: &str) -> (u64, u64) {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner).get(node).copied().unwrap_or_default()
    }
}
