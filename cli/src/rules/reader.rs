//! Views of a store: what one evaluation is to see of it.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use belfry_promql::{
    Labels, METRIC_NAME, MatchOp, Matcher, Needed, ReadError, ReadRequest, Reduce, Sample, Samples, Series,
    SeriesReader, Summary, is_stale,
};

use super::rule::INSTANCE;

/// Only the series of some nodes.
pub(crate) struct OnNodes<'a> {
    reader: &'a dyn SeriesReader,
    nodes: Matcher,
}

impl<'a> OnNodes<'a> {
    /// Restricts a reader to one node, named as in the label `instance`.
    pub(crate) fn one(reader: &'a dyn SeriesReader, node: &str) -> Self {
        Self::some(reader, &[node])
    }

    /// Restricts a reader to some nodes.
    pub(crate) fn some(reader: &'a dyn SeriesReader, nodes: &[&str]) -> Self {
        Self { reader, nodes: Matcher::any_of(INSTANCE, nodes) }
    }

    fn matchers(&self, request: &ReadRequest<'_>) -> Vec<Matcher> {
        request.matchers.iter().chain([&self.nodes]).cloned().collect()
    }
}

impl SeriesReader for OnNodes<'_> {
    fn select(&self, request: &ReadRequest<'_>) -> Result<Vec<Series>, ReadError> {
        let matchers = self.matchers(request);
        self.reader.select(&ReadRequest { matchers: &matchers, ..*request })
    }

    fn summarises(&self, start_ms: i64, end_ms: i64) -> bool {
        self.reader.summarises(start_ms, end_ms)
    }

    fn visit(
        &self,
        request: &ReadRequest<'_>,
        visitor: &mut dyn FnMut(&Labels, Samples<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let matchers = self.matchers(request);
        self.reader.visit(&ReadRequest { matchers: &matchers, ..*request }, visitor)
    }

    fn reduce(
        &self,
        request: &ReadRequest<'_>,
        reduce: Reduce<'_>,
        visitor: &mut dyn FnMut(&Labels, &[f64]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let matchers = self.matchers(request);
        self.reader.reduce(&ReadRequest { matchers: &matchers, ..*request }, reduce, visitor)
    }
}

/// Samples that rules recorded just now and that are not in the store yet, by metric.
#[derive(Debug, Default)]
pub(crate) struct Recorded(BTreeMap<String, Vec<(Labels, Sample)>>);

impl Recorded {
    /// Adds samples of one metric.
    pub(crate) fn add(&mut self, metric: &str, samples: &[(Labels, Sample)]) {
        self.0.entry(metric.to_owned()).or_default().extend_from_slice(samples);
    }

    fn matching(&self, request: &ReadRequest<'_>) -> Vec<&(Labels, Sample)> {
        let by_name = request.matchers.iter().filter(|matcher| matcher.name() == METRIC_NAME);
        let names: Vec<&Matcher> = by_name.collect();
        let metrics = self.0.iter().filter(|(metric, _)| names.iter().all(|matcher| matcher.matches(metric)));
        metrics
            .flat_map(|(_, samples)| samples)
            .filter(|(labels, sample)| request.covers(sample.time_ms) && request.matches(labels))
            .collect()
    }
}

/// A store together with what rules just recorded.
pub(crate) struct WithRecorded<'a> {
    pub(crate) reader: &'a dyn SeriesReader,
    pub(crate) recorded: &'a Recorded,
}

impl SeriesReader for WithRecorded<'_> {
    fn select(&self, request: &ReadRequest<'_>) -> Result<Vec<Series>, ReadError> {
        let mut found = self.reader.select(request)?;
        let fresh = self.recorded.matching(request);
        if fresh.is_empty() {
            return Ok(found);
        }
        let places: HashMap<Labels, usize> =
            found.iter().enumerate().map(|(at, series)| (series.labels.clone(), at)).collect();
        for (labels, sample) in fresh {
            match places.get(labels).and_then(|at| found.get_mut(*at)) {
                None => found.push(Series { labels: labels.clone(), samples: vec![*sample] }),
                Some(series) if series.samples.last().is_none_or(|last| last.time_ms < sample.time_ms) => {
                    series.samples.push(*sample);
                }
                Some(_) => {}
            }
        }
        Ok(found)
    }

    fn summarises(&self, start_ms: i64, end_ms: i64) -> bool {
        self.reader.summarises(start_ms, end_ms)
    }
}

/// A store in which series that have brought nothing new for a while are as they were before.
///
/// A series counts as new if its newest sample is younger than the while and no stale marker. Every other one that
/// had a value then is shown as it was, moved in time to the present. So an expression that held then and does not
/// hold in this view was contradicted by data, and one that still holds merely ran out of it.
pub(crate) struct AsItWas<'a> {
    pub(crate) reader: &'a dyn SeriesReader,
    /// How long ago, in milliseconds; more than 0.
    pub(crate) back_ms: i64,
}

impl SeriesReader for AsItWas<'_> {
    fn select(&self, request: &ReadRequest<'_>) -> Result<Vec<Series>, ReadError> {
        let now = self.reader.select(request)?;
        let (start_ms, end_ms) = (self.back(request.start_ms), self.back(request.end_ms));
        let then = self.reader.select(&ReadRequest { start_ms, end_ms, ..*request })?;
        let is_new = |series: &Series| series.samples.last().is_some_and(|s| s.time_ms > end_ms && !is_stale(s.value));
        let mut view: HashMap<Labels, Vec<Sample>> = then
            .into_iter()
            .filter(|series| series.samples.last().is_some_and(|sample| !is_stale(sample.value)))
            .map(|series| (series.labels, self.moved(series.samples)))
            .collect();
        for series in now {
            if is_new(&series) || !view.contains_key(&series.labels) {
                view.insert(series.labels, series.samples);
            }
        }
        Ok(view.into_iter().map(|(labels, samples)| Series { labels, samples }).collect())
    }

    fn summarises(&self, start_ms: i64, end_ms: i64) -> bool {
        self.reader.summarises(self.back(start_ms), end_ms)
    }
}

impl AsItWas<'_> {
    fn back(&self, time_ms: i64) -> i64 {
        time_ms.saturating_sub(self.back_ms)
    }

    fn moved(&self, mut samples: Vec<Sample>) -> Vec<Sample> {
        samples.iter_mut().for_each(|sample| sample.time_ms = sample.time_ms.saturating_add(self.back_ms));
        samples
    }
}

/// Whether a node is known to be up: the newest sample of its `up` is 1.
pub(crate) fn is_up(reader: &dyn SeriesReader, node: &str, time_ms: i64) -> Result<bool, ReadError> {
    let matcher = Matcher::new(METRIC_NAME, MatchOp::Equal, "up").expect("an equality has no pattern to be malformed");
    let request = ReadRequest {
        matchers: &[matcher],
        start_ms: time_ms.saturating_sub(UP_MS),
        end_ms: time_ms,
        needed: Needed::Newest,
        summary: Summary::Last,
    };
    let found = OnNodes::one(reader, node).select(&request)?;
    Ok(found.iter().filter_map(|series| series.samples.last()).any(|sample| sample.value >= 1.0))
}

/// How far back `up` is looked for: it is written every second.
const UP_MS: i64 = 300_000;
