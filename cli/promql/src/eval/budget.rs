//! What a query has cost so far, held against its limits.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::EvalError;
use crate::limits::Limits;
use crate::{Labels, Sample};

/// Bytes of one value of an intermediate result.
pub(super) const VALUE_BYTES: usize = size_of::<f64>();

/// What a row of an intermediate result takes beside its values: its labels may be its own.
const ROW_BYTES: usize = 256;

/// What a label takes beside its text.
const LABEL_BYTES: usize = 40;

/// What is left of the limits of one query. Series may be reduced on several threads: they all take of it.
#[derive(Debug)]
pub(crate) struct Budget<'q> {
    limits: &'q Limits<'q>,
    samples: AtomicUsize,
    series: AtomicUsize,
    scans: AtomicU64,
    /// Bytes of what is held while other parts are evaluated.
    held: AtomicUsize,
}

impl<'q> Budget<'q> {
    pub(super) fn new(limits: &'q Limits<'q>) -> Self {
        Self {
            limits,
            samples: limits.samples_max.into(),
            series: limits.series_max.into(),
            scans: limits.scanned_max.into(),
            held: 0.into(),
        }
    }

    pub(super) fn check_cancelled(&self) -> Result<(), EvalError> {
        if self.limits.cancelled.is_some_and(|cancelled| cancelled()) { Err(EvalError::Cancelled) } else { Ok(()) }
    }

    /// Counts a series that was read from the store.
    pub(super) fn read(&self, samples: usize) -> Result<(), EvalError> {
        let left = self.series.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        left.map_err(|_| EvalError::TooManySeries { limit: self.limits.series_max })?;
        self.scan(samples)
    }

    /// Counts samples that stay until the query ends.
    pub(super) fn keep_samples(&self, samples: usize) -> Result<(), EvalError> {
        let left = self.samples.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(samples));
        left.map_err(|_| EvalError::TooManySamples { limit: self.limits.samples_max })?;
        self.keep(samples.saturating_mul(size_of::<Sample>()))
    }

    /// Counts labels that a function made.
    pub(super) fn keep_labels(&self, labels: &Labels) -> Result<(), EvalError> {
        let bytes = labels.iter().map(|(name, value)| name.len() + value.len() + LABEL_BYTES).sum();
        self.keep(bytes)
    }

    /// Counts values that are looked at.
    pub(super) fn scan(&self, values: usize) -> Result<(), EvalError> {
        self.check_cancelled()?;
        let values = u64::try_from(values).map_err(|_| self.too_much_work())?;
        let left = self.scans.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(values));
        left.map_err(|_| self.too_much_work())?;
        Ok(())
    }

    /// Refuses work that is known before it begins.
    pub(super) fn check_scans(&self, values: u64) -> Result<(), EvalError> {
        if values > self.limits.scanned_max { Err(self.too_much_work()) } else { Ok(()) }
    }

    fn too_much_work(&self) -> EvalError {
        EvalError::TooMuchWork { limit: self.limits.scanned_max }
    }

    /// Refuses an allocation beside what is held, before memory is taken for it.
    pub(super) fn check_bytes(&self, bytes: usize) -> Result<(), EvalError> {
        let limit = self.limits.bytes_max;
        if self.held.load(Relaxed).saturating_add(bytes) > limit {
            Err(EvalError::TooManyBytes { limit })
        } else {
            Ok(())
        }
    }

    /// Counts bytes that stay until the query ends.
    pub(super) fn keep(&self, bytes: usize) -> Result<(), EvalError> {
        self.check_bytes(bytes)?;
        self.held.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// Counts bytes as held no longer.
    pub(super) fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
    }

    /// Counts bytes that stay until the result is dropped.
    pub(super) fn hold(self: &Rc<Self>, bytes: usize) -> Result<Held<'q>, EvalError> {
        self.keep(bytes)?;
        Ok(Held { budget: Rc::clone(self), bytes })
    }
}

/// What rows with one value per step take.
pub(super) fn bytes_of(rows: usize, steps: usize) -> usize {
    rows.saturating_mul(steps.saturating_mul(VALUE_BYTES).saturating_add(ROW_BYTES))
}

/// Bytes that count until this is dropped.
#[derive(Debug)]
pub(crate) struct Held<'q> {
    budget: Rc<Budget<'q>>,
    bytes: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

/// Values looked at within one loop, told to the budget now and then: its checks would cost more than a short window.
#[derive(Debug)]
pub(super) struct Scan<'b, 'q> {
    budget: &'b Budget<'q>,
    pending: usize,
    result: Result<(), EvalError>,
}

impl<'b, 'q> Scan<'b, 'q> {
    const PENDING_MAX: usize = 1 << 20;

    pub(super) fn new(budget: &'b Budget<'q>) -> Self {
        Self { budget, pending: 0, result: Ok(()) }
    }

    /// Whether the query must end.
    pub(super) fn is_over(&mut self, values: usize) -> bool {
        self.pending += values;
        if self.pending > Self::PENDING_MAX && self.result.is_ok() {
            self.result = self.budget.scan(std::mem::take(&mut self.pending));
        }
        self.result.is_err()
    }

    pub(super) fn finish(self) -> Result<(), EvalError> {
        self.result.and_then(|()| self.budget.scan(self.pending))
    }
}
