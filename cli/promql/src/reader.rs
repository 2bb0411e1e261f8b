//! What the engine asks of a store.

use std::error::Error;
use std::ops::ControlFlow;

use crate::sample::Columns;
use crate::{Labels, Matcher, Sample, Samples, Series};

/// One read: which series, and which part of each.
#[derive(Debug, Clone, Copy)]
pub struct ReadRequest<'a> {
    /// A series is wanted if every matcher matches the value of its label; a missing label has the value `""`.
    pub matchers: &'a [Matcher],
    /// Samples after this instant, this instant excluded.
    pub start_ms: i64,
    /// Samples up to this instant, this instant included.
    pub end_ms: i64,
    /// Which samples of the range. Giving more of them is allowed.
    pub needed: Needed,
    /// What a sample says of others that it stands for. Only where a store [summarises](SeriesReader::summarises) is it not the last.
    pub summary: Summary,
}

/// Which samples of a range the engine needs of each series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// All.
    All,
    /// The newest: a store may answer from a table of newest values.
    Newest,
    /// Of each step the newest, whether it is a stale marker or not: nothing else is looked at. One step ends at
    /// `end_ms`, which it includes; the others are as long, before and after it without a gap.
    EachStep {
        /// The end of one of the steps.
        end_ms: i64,
        /// How long each is; positive.
        step_ms: i64,
    },
}

/// What one sample says of several, where a store keeps no more than that: of old history, mostly. Of those that stand for themselves alone
/// it says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Summary {
    /// The last of their values.
    #[default]
    Last,
    /// The least.
    Least,
    /// The greatest.
    Greatest,
    /// Their sum.
    Sum,
    /// How many values there are: 1 of a sample that stands for itself.
    Count,
}

impl ReadRequest<'_> {
    /// Whether a series with these labels is asked for.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(labels.value(matcher.name())))
    }

    /// Whether an instant lies within the range.
    #[must_use]
    pub fn covers(&self, time_ms: i64) -> bool {
        time_ms > self.start_ms && time_ms <= self.end_ms
    }
}

/// Why a store could not answer.
#[derive(Debug, thiserror::Error)]
#[error("failed to read series")]
pub struct ReadError(#[source] Box<dyn Error + Send + Sync>);

impl ReadError {
    /// Wraps the store's own error.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// Makes values of the samples of one series, and appends them. It may be called on several threads at a time, for a series each, ahead of the
/// visitor and for series that are never visited.
pub type Reduce<'a> = &'a (dyn Fn(Samples<'_>, &mut Vec<f64>) + Sync);

/// A source of series.
///
/// Stale markers are samples like any other: they are to be returned, the newest one included where
/// [`ReadRequest::needed`] is no more than that. Series without a sample in the range may be left out.
pub trait SeriesReader {
    /// Every series that the matchers accept, each once, its samples ascending in time.
    ///
    /// # Errors
    /// Whatever keeps the store from giving a complete answer: a partial one must not be returned.
    fn select(&self, request: &ReadRequest<'_>) -> Result<Vec<Series>, ReadError>;

    /// Whether samples after `start_ms` and up to `end_ms` may stand for several, so that it matters for which [`Summary`] is asked.
    /// Otherwise functions of the same samples share one read.
    fn summarises(&self, _start_ms: i64, _end_ms: i64) -> bool {
        false
    }

    /// Hands the same series to `visitor` one by one, until it breaks off.
    ///
    /// A store that can decode into one buffer should implement it: a query over a long range then needs the memory
    /// of one series and not of all. Labels and samples are borrowed for the call only.
    ///
    /// # Errors
    /// As [`SeriesReader::select`].
    fn visit(
        &self,
        request: &ReadRequest<'_>,
        visitor: &mut dyn FnMut(&Labels, Samples<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut columns = Columns::default();
        for series in self.select(request)? {
            if visitor(&series.labels, columns.fill(series.samples)).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Visits what becomes of the same series, in the same order: the values that `reduce` makes of the samples of each.
    ///
    /// The engine uses this wherever it needs a series only once. A store that reads on several threads should
    /// implement it: the engine starts none, and what it does with each series is then done on all of them.
    ///
    /// # Errors
    /// As [`SeriesReader::select`].
    fn reduce(
        &self,
        request: &ReadRequest<'_>,
        reduce: Reduce<'_>,
        visitor: &mut dyn FnMut(&Labels, &[f64]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut values = Vec::new();
        self.visit(request, &mut |labels, samples| {
            values.clear();
            reduce(samples, &mut values);
            visitor(labels, &values)
        })
    }
}

/// Series in memory: for tests, and for evaluating rules over what was just received.
impl SeriesReader for [Series] {
    fn select(&self, request: &ReadRequest<'_>) -> Result<Vec<Series>, ReadError> {
        let copied =
            found(self, request).map(|(labels, samples)| Series { labels: labels.clone(), samples: samples.to_vec() });
        Ok(copied.collect())
    }

    fn visit(
        &self,
        request: &ReadRequest<'_>,
        visitor: &mut dyn FnMut(&Labels, Samples<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut columns = Columns::default();
        // Breaking off is no error: the visitor knows why.
        let _ = found(self, request)
            .try_for_each(|(labels, samples)| visitor(labels, columns.fill(samples.iter().copied())));
        Ok(())
    }
}

impl SeriesReader for Vec<Series> {
    fn select(&self, request: &ReadRequest<'_>) -> Result<Vec<Series>, ReadError> {
        self.as_slice().select(request)
    }

    fn visit(
        &self,
        request: &ReadRequest<'_>,
        visitor: &mut dyn FnMut(&Labels, Samples<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        self.as_slice().visit(request, visitor)
    }
}

fn found<'a>(store: &'a [Series], request: &ReadRequest<'_>) -> impl Iterator<Item = (&'a Labels, &'a [Sample])> {
    store
        .iter()
        .filter(|series| request.matches(&series.labels))
        .map(|series| (&series.labels, samples_of(series, request)))
        .filter(|(_, samples)| !samples.is_empty())
}

fn samples_of<'a>(series: &'a Series, request: &ReadRequest<'_>) -> &'a [Sample] {
    let samples = &series.samples;
    let from = samples.partition_point(|sample| sample.time_ms <= request.start_ms);
    let to = samples.partition_point(|sample| sample.time_ms <= request.end_ms).max(from);
    let from = if request.needed == Needed::Newest { to.saturating_sub(1).max(from) } else { from };
    samples.get(from..to).unwrap_or_default()
}
