//! Finds series of a block by their metric and labels.
//!
//! A matcher is asked once for each value that a label has in the block, not once for each series: values are numbers into one sorted
//! table, and a definition is a row of such numbers.

use std::sync::Arc;

use belfry_common::model::{Metric, Resolution, SeriesDefinition};

use super::{
    catalog::{Catalog, MetricEntry},
    file::BlockError,
    index::MetricIndex,
    reader::Block,
    strings::Strings,
};
use crate::{
    NodeId,
    selection::{Condition, METRIC_NAME, Nodes, Selection},
};

/// Series of one metric that were found.
#[derive(Debug)]
pub(crate) struct FoundMetric {
    pub(crate) index: Arc<MetricIndex>,
    /// Of its readings in this block.
    pub(crate) resolution: Resolution,
    /// In the order of the block.
    pub(crate) series: Vec<FoundSeries>,
}

/// A series that was found.
#[derive(Debug, Clone)]
pub(crate) struct FoundSeries {
    pub(crate) definition: Arc<SeriesDefinition>,
    pub(crate) node: NodeId,
    /// Its number among the metric's.
    pub(crate) number: u32,
}

impl Block {
    /// Finds series, metric by metric, each metric of which there are some once.
    ///
    /// # Errors
    /// [`BlockError`]
    pub(crate) fn find(&self, selection: &Selection<'_>, nodes: Nodes<'_>) -> Result<Vec<FoundMetric>, BlockError> {
        let catalog = self.catalog()?;
        if nodes.is_some_and(|nodes| !nodes.iter().any(|&node| catalog.has_node(node))) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in metrics(&catalog, selection) {
            let series = self.find_in(&catalog, entry, selection, nodes)?;
            found.extend(Some(series).filter(|found| !found.series.is_empty()));
        }
        Ok(found)
    }

    fn find_in(
        &self,
        catalog: &Catalog,
        entry: &MetricEntry,
        selection: &Selection<'_>,
        nodes: Nodes<'_>,
    ) -> Result<FoundMetric, BlockError> {
        let (index, strings) = (self.index(entry)?, self.strings(catalog)?);
        let metric = &entry.metric;
        let mut series = Vec::new();
        if let Some(mut conditions) = Conditions::of(metric, selection.conditions, &strings) {
            for definition in 0..index.definitions() {
                if !conditions.hold(&index, definition) {
                    continue;
                }
                let malformed = || self.damaged("the index of a metric");
                let known = definition_of(metric, &index, definition, &strings).ok_or_else(malformed)?;
                if !(selection.filter)(&known) {
                    continue;
                }
                let known = Arc::new(known);
                let run = index.series_of(definition);
                let of_nodes = (run.clone()).zip(index.nodes(run)).filter(|(_, node)| is_wanted(nodes, **node));
                series.extend(of_nodes.map(|(number, &node)| FoundSeries {
                    definition: Arc::clone(&known),
                    node,
                    number,
                }));
            }
        }
        Ok(FoundMetric { index, resolution: entry.metric.resolution, series })
    }
}

fn is_wanted(nodes: Nodes<'_>, node: NodeId) -> bool {
    nodes.is_none_or(|nodes| nodes.binary_search(&node).is_ok())
}

/// The metrics of which series can be wanted.
fn metrics<'a>(catalog: &'a Catalog, selection: &'a Selection<'_>) -> impl Iterator<Item = &'a MetricEntry> {
    let all = catalog.metrics.as_slice();
    let of_name = match selection.metric {
        Some(name) => {
            let from = all.partition_point(|entry| &*entry.metric.name < name);
            let to = all.partition_point(|entry| &*entry.metric.name <= name);
            all.get(from..to).unwrap_or_default()
        }
        None => all,
    };
    let of_name_condition = |entry: &&MetricEntry| {
        let mut asked = selection.conditions.iter().filter(|condition| condition.label == METRIC_NAME);
        asked.all(|condition| (condition.fits)(&entry.metric.name))
    };
    of_name.iter().filter(of_name_condition)
}

/// A definition with its texts.
pub(super) fn definition_of(
    metric: &Arc<Metric>,
    index: &MetricIndex,
    definition: u32,
    strings: &Strings,
) -> Option<SeriesDefinition> {
    let text = |label| index.label(definition, label).and_then(|number| strings.text(number)).map(Into::into);
    let label_values = (0..metric.label_names.len()).map(text).collect::<Option<_>>()?;
    Some(SeriesDefinition { metric: Arc::clone(metric), label_values })
}

/// The conditions that concern a metric's labels.
struct Conditions<'a> {
    strings: &'a Strings,
    asked: Vec<(usize, &'a Condition<'a>, Vec<Answer>)>,
}

/// Whether a value fits, once that was asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Unknown,
    Fits,
    DoesNot,
}

impl<'a> Conditions<'a> {
    /// `None` if no series of the metric can fit, because of a label that it does not have.
    fn of(metric: &Metric, conditions: &'a [Condition<'a>], strings: &'a Strings) -> Option<Self> {
        let mut asked = Vec::new();
        for condition in conditions.iter().filter(|condition| condition.label != METRIC_NAME) {
            match metric.label_names.iter().position(|name| **name == *condition.label) {
                Some(label) => asked.push((label, condition, vec![Answer::Unknown; strings.len()])),
                None if !(condition.fits)("") => return None,
                None => {}
            }
        }
        Some(Self { strings, asked })
    }

    fn hold(&mut self, index: &MetricIndex, definition: u32) -> bool {
        let strings = self.strings;
        self.asked.iter_mut().all(|(label, condition, answers)| {
            let Some(number) = index.label(definition, *label) else { return false };
            let Some(answer) = answers.get_mut(number as usize) else { return false };
            if *answer == Answer::Unknown {
                let fits = strings.text(number).is_some_and(|text| (condition.fits)(text));
                *answer = if fits { Answer::Fits } else { Answer::DoesNot };
            }
            *answer == Answer::Fits
        })
    }
}
