//! The agent's own counts, shared by whoever adds to them and the sampler that reports them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use belfry_common::model::Reason;

/// Shared counts.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) batches_sent: AtomicU64,
    pub(crate) batches_resent: AtomicU64,
    pub(crate) batches_acked: AtomicU64,
    /// Batches that the spool could not take or had to give up unsent.
    pub(crate) batches_dropped: AtomicU64,
    pub(crate) batches_refused: AtomicU64,
    pub(crate) ticks_missed: AtomicU64,
    /// UDP payload of connections that have ended, and of the present one.
    pub(crate) wire_sent: WireBytes,
    pub(crate) wire_received: WireBytes,
    pub(crate) spool_bytes: AtomicU64,
    pub(crate) spool_batches: AtomicU64,
    /// Time of the oldest batch in the spool that is not acknowledged, in milliseconds; 0 if there is none.
    pub(crate) spool_oldest_ms: AtomicI64,
    pub(crate) is_spool_usable: AtomicBool,
    pub(crate) is_connected: AtomicBool,
    pub(crate) connections: AtomicU64,
    /// When the certificate ends, in milliseconds.
    pub(crate) certificate_end_ms: AtomicI64,
    /// Collector's clock less the agent's at the last handshake, in milliseconds.
    pub(crate) clock_offset_ms: AtomicI64,
    samplers: Mutex<BTreeMap<&'static str, SamplerStatistics>>,
}

/// Bytes over all connections.
#[derive(Debug, Default)]
pub(crate) struct WireBytes {
    ended: AtomicU64,
    present: AtomicU64,
}

impl WireBytes {
    /// What the present connection has counted so far.
    pub(crate) fn observe(&self, bytes: u64) {
        self.present.store(bytes, Relaxed);
    }

    /// The present connection has ended.
    pub(crate) fn end(&self) {
        self.ended.fetch_add(self.present.swap(0, Relaxed), Relaxed);
    }

    pub(crate) fn total(&self) -> u64 {
        self.ended.load(Relaxed) + self.present.load(Relaxed)
    }
}

/// What is counted of one sampler.
#[derive(Debug, Clone, Default)]
pub(crate) struct SamplerStatistics {
    pub(crate) runs: u64,
    pub(crate) time_total: Duration,
    pub(crate) time_last: Duration,
    pub(crate) overruns: u64,
    /// Failed readings by metric and reason; the sampler's own failures have the metric `*`.
    pub(crate) failures: BTreeMap<(Box<str>, Reason), u64>,
}

/// Failed readings that are told apart by metric: a sampler has about a hundred metrics.
const FAILURES_MAX: usize = 512;

impl Statistics {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn add(&self, counter: impl Fn(&Self) -> &AtomicU64, count: u64) {
        counter(self).fetch_add(count, Relaxed);
    }

    /// Changes what is counted of a sampler.
    pub(crate) fn sampler(&self, name: &'static str, change: impl FnOnce(&mut SamplerStatistics)) {
        change(self.samplers.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default());
    }

    /// Shows what is counted of each sampler.
    pub(crate) fn for_each_sampler(&self, mut visit: impl FnMut(&'static str, &SamplerStatistics)) {
        for (name, sampler) in &*self.samplers.lock().unwrap_or_else(PoisonError::into_inner) {
            visit(name, sampler);
        }
    }
}

impl SamplerStatistics {
    pub(crate) fn count_failure(&mut self, reading: &str, reason: Reason) {
        if let Some(count) = self.failures.get_mut(&(reading.into(), reason)) {
            *count += 1;
        } else if self.failures.len() < FAILURES_MAX {
            self.failures.insert((reading.into(), reason), 1);
        }
    }
}
