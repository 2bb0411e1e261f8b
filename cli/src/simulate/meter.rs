//! What a simulation measures.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Counts of all nodes together.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) connected: AtomicU64,
    pub(crate) connections_lost: AtomicU64,
    pub(crate) batches_sent: AtomicU64,
    pub(crate) batches_acked: AtomicU64,
    pub(crate) batches_refused: AtomicU64,
    pub(crate) batches_given_up: AtomicU64,
    pub(crate) samples_sent: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    latency_micros: Mutex<Histogram<u64>>,
}

/// What came of a simulation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) seconds: f64,
    pub(crate) nodes: usize,
    pub(crate) series_per_node: usize,
    pub(crate) connections_lost: u64,
    pub(crate) batches_sent: u64,
    pub(crate) batches_acked: u64,
    pub(crate) batches_refused: u64,
    /// Not acknowledged when the simulation ended.
    pub(crate) batches_given_up: u64,
    pub(crate) batches_per_second: f64,
    pub(crate) samples_per_second: f64,
    /// From sending a batch to its acknowledgement.
    pub(crate) ack_seconds_p50: f64,
    pub(crate) ack_seconds_p90: f64,
    pub(crate) ack_seconds_p99: f64,
    pub(crate) ack_seconds_max: f64,
    /// UDP payload, both directions, handshakes included.
    pub(crate) bytes_per_sample: f64,
    /// From the moment on that all nodes were connected; none if they never were.
    pub(crate) collector_cpu_seconds_per_million_samples: Option<f64>,
    pub(crate) collector_resident_bytes: Option<f64>,
}

impl Meter {
    pub(crate) fn new() -> Self {
        // Microseconds to ten minutes at three digits; the bounds are valid, so that an empty histogram is never needed.
        let histogram = Histogram::new_with_bounds(1, 600_000_000, 3).or_else(|_| Histogram::new(3));
        Self {
            connected: AtomicU64::new(0),
            connections_lost: AtomicU64::new(0),
            batches_sent: AtomicU64::new(0),
            batches_acked: AtomicU64::new(0),
            batches_refused: AtomicU64::new(0),
            batches_given_up: AtomicU64::new(0),
            samples_sent: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            latency_micros: Mutex::new(histogram.expect("three significant digits are within the crate's limits")),
        }
    }

    pub(crate) fn acknowledged(&self, after: Duration) {
        self.batches_acked.fetch_add(1, Relaxed);
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.latency_micros.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
    }

    /// Latency at a quantile, in seconds.
    pub(crate) fn latency(&self, quantile: f64) -> f64 {
        let histogram = self.latency_micros.lock().unwrap_or_else(PoisonError::into_inner);
        histogram.value_at_quantile(quantile) as f64 / 1e6
    }

    pub(crate) fn report(&self, nodes: usize, series_per_node: usize, took: Duration) -> Report {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let seconds = took.as_secs_f64();
        let samples = count(&self.samples_sent) as f64;
        let bytes = (count(&self.bytes_sent) + count(&self.bytes_received)) as f64;
        Report {
            seconds,
            nodes,
            series_per_node,
            connections_lost: count(&self.connections_lost),
            batches_sent: count(&self.batches_sent),
            batches_acked: count(&self.batches_acked),
            batches_refused: count(&self.batches_refused),
            batches_given_up: count(&self.batches_given_up),
            batches_per_second: count(&self.batches_acked) as f64 / seconds,
            samples_per_second: samples / seconds,
            ack_seconds_p50: self.latency(0.5),
            ack_seconds_p90: self.latency(0.9),
            ack_seconds_p99: self.latency(0.99),
            ack_seconds_max: self.latency(1.0),
            bytes_per_sample: if samples > 0.0 { bytes / samples } else { 0.0 },
            collector_cpu_seconds_per_million_samples: None,
            collector_resident_bytes: None,
        }
    }
}
