//! History older than the raw samples: there, of each minute its last sample, and where not even minutes are left, of each hour.
//!
//! A row stands for the samples before its end, and is a sample at that time: what a scrape once a minute, or once an hour, would have
//! seen. Of hours an expression finds something if it looks back for an hour, as `last_over_time(x[1h])` does. The least, the greatest and the
//! mean over time are those of all samples: rows have them.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use belfry_common::model::{Identity, SeriesDefinition};
use belfry_promql::{ReadError, Summary};
use belfry_store::{Aggregate, Columns, Grain, NodeId, Reduce, RowsAlone, Sample, Selected, Selection, TimeRange};
use thiserror::Error;

use super::{NamedVisitor, StoreReader};

/// Most rows that are held until the raw samples of the same series are read: half a gigabyte.
const ROWS_MAX: usize = 20_000_000;

#[derive(Debug, Error)]
#[error("more than {ROWS_MAX} minutes or hours of old history: ask for fewer series, a shorter range or a longer step")]
struct TooManyRows;

/// Rows by their series.
type BySeries = HashMap<(NodeId, Identity<Arc<SeriesDefinition>>), Vec<Sample>>;

#[derive(Default)]
struct Rows {
    by_series: BySeries,
    /// How many were read.
    count: usize,
}

impl StoreReader {
    /// As the store's reader visits, with the nodes' names, and with rows where there are no raw samples any more.
    pub(super) fn visit_nodes(
        &self,
        nodes: &[(NodeId, Arc<str>)],
        asked: (&Selection<'_>, Summary),
        selected: &mut Selected,
        visitor: NamedVisitor<'_, Vec<Sample>>,
    ) -> Result<ControlFlow<()>, ReadError> {
        self.reduce_nodes(nodes, asked, selected, (&|samples, copies| samples.copy_to(copies), visitor))
    }

    /// As [`Self::visit_nodes`], what is made of the samples.
    pub(super) fn reduce_nodes<T: Default + Send>(
        &self,
        nodes: &[(NodeId, Arc<str>)],
        (selection, summary): (&Selection<'_>, Summary),
        selected: &mut Selected,
        (reduce, visitor): (Reduce<'_, T>, NamedVisitor<'_, T>),
    ) -> Result<ControlFlow<()>, ReadError> {
        let alone = self.store.rows_alone(selection.range);
        if alone.is_empty() {
            return self.reduce_tier(nodes, selection, selected, (reduce, visitor));
        }
        let mut rows = Rows::default();
        for of_tier in &alone {
            rows.add((self, nodes), (selection, summary), of_tier, selected)?;
        }
        if rows.by_series.is_empty() {
            return self.reduce_tier(nodes, selection, selected, (reduce, visitor));
        }
        let (mut columns, mut reduced) = (Columns::default(), T::default());
        let mut visit_joined = |node, name: &str, definition: &Arc<SeriesDefinition>, mut samples: Vec<Sample>| {
            put_in_order(&mut samples);
            columns.fill(&samples);
            reduce(columns.samples(), &mut reduced);
            visitor(node, name, definition, &reduced)
        };
        let flow = self.visit_tier(nodes, selection, selected, &mut |node, name, definition, samples| {
            let mut joined = rows.by_series.remove(&(node, Identity(Arc::clone(definition)))).unwrap_or_default();
            joined.extend_from_slice(samples);
            visit_joined(node, name, definition, joined)
        })?;
        if flow.is_break() {
            return Ok(flow);
        }
        let mut others: Vec<_> = rows.by_series.into_iter().collect();
        others.sort_by(|((one, a), _), ((other, b), _)| {
            (one, &a.0.metric.name, &a.0.label_values).cmp(&(other, &b.0.metric.name, &b.0.label_values))
        });
        for ((node, Identity(definition)), samples) in others {
            if visit_joined(node, name_of(nodes, node), &definition, samples).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn visit_tier(
        &self,
        nodes: &[(NodeId, Arc<str>)],
        selection: &Selection<'_>,
        selected: &mut Selected,
        visitor: NamedVisitor<'_, Vec<Sample>>,
    ) -> Result<ControlFlow<()>, ReadError> {
        self.reduce_tier(nodes, selection, selected, (&|samples, copies| samples.copy_to(copies), visitor))
    }

    fn reduce_tier<T: Default + Send>(
        &self,
        nodes: &[(NodeId, Arc<str>)],
        selection: &Selection<'_>,
        selected: &mut Selected,
        (reduce, visitor): (Reduce<'_, T>, NamedVisitor<'_, T>),
    ) -> Result<ControlFlow<()>, ReadError> {
        let numbers: Vec<NodeId> = nodes.iter().map(|(node, _)| *node).collect();
        let mut visitor = |node, definition: &_, reduced: &_| visitor(node, name_of(nodes, node), definition, reduced);
        let reduced = self.store.reduce(&numbers, selection, self.limits, selected, (reduce, &mut visitor));
        reduced.map_err(ReadError::new)
    }
}

impl Rows {
    /// Adds the rows of one tier that stand alone.
    fn add(
        &mut self,
        of: (&StoreReader, &[(NodeId, Arc<str>)]),
        (selection, summary): (&Selection<'_>, Summary),
        alone: &RowsAlone,
        selected: &mut Selected,
    ) -> Result<(), ReadError> {
        let mut read = |aggregate| self.read(of, (selection, aggregate), alone, selected);
        let rows = match summary {
            Summary::Last => read(Aggregate::Last)?,
            Summary::Least => read(Aggregate::Min)?,
            Summary::Greatest => read(Aggregate::Max)?,
            Summary::Mean => {
                let (mut sums, counts) = (read(Aggregate::Sum)?, read(Aggregate::Count)?);
                for (series, sums) in &mut sums {
                    divide(sums, counts.get(series).map_or(&[], Vec::as_slice));
                }
                sums
            }
        };
        for (series, rows) in rows {
            self.by_series.entry(series).or_default().extend(rows);
        }
        Ok(())
    }

    fn read(
        &mut self,
        (reader, nodes): (&StoreReader, &[(NodeId, Arc<str>)]),
        (selection, aggregate): (&Selection<'_>, Aggregate),
        alone: &RowsAlone,
        selected: &mut Selected,
    ) -> Result<BySeries, ReadError> {
        let (wanted, of_rows) = (selection.range, alone.range());
        let range = TimeRange { after: wanted.after.max(of_rows.after), until: wanted.until.min(of_rows.until) };
        let selection = Selection { range, grain: Grain::Rows(alone.tier, aggregate), ..*selection };
        let mut found = BySeries::new();
        let flow = reader.visit_tier(nodes, &selection, selected, &mut |node, _, definition, samples| {
            let rows: Vec<Sample> = samples.iter().filter(|row| alone.has(row.time)).copied().collect();
            self.count += rows.len();
            if !rows.is_empty() {
                found.insert((node, Identity(Arc::clone(definition))), rows);
            }
            if self.count > ROWS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if flow.is_break() { Err(ReadError::new(TooManyRows)) } else { Ok(found) }
    }
}

/// Makes means of sums; both ascend in time. A sum goes whose count is not there: retention may come between two reads.
fn divide(sums: &mut Vec<Sample>, counts: &[Sample]) {
    let mut counts = counts.iter().copied().peekable();
    sums.retain_mut(|row| {
        while counts.next_if(|count| count.time < row.time).is_some() {}
        let count = counts.peek().filter(|count| count.time == row.time).and_then(|count| count.value.ok());
        match (&mut row.value, count) {
            (Ok(sum), Some(count)) => *sum /= count,
            (Ok(_), None) => return false,
            (Err(_), _) => {}
        }
        true
    });
}

/// By time; of two at one time the raw sample, which comes behind, counts.
fn put_in_order(samples: &mut Vec<Sample>) {
    if !samples.is_sorted_by(|a, b| a.time < b.time) {
        samples.sort_by_key(|sample| sample.time);
        samples.reverse();
        samples.dedup_by_key(|sample| sample.time);
        samples.reverse();
    }
}

fn name_of(nodes: &[(NodeId, Arc<str>)], node: NodeId) -> &str {
    let place = nodes.binary_search_by_key(&node, |(known, _)| *known);
    place.ok().and_then(|place| nodes.get(place)).map_or("", |(_, name)| &**name)
}
