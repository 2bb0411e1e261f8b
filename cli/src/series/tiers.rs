//! History older than the raw samples: there, of each minute its last sample, and where not even minutes are left, of each hour.
//!
//! A row stands for the samples before its end, and is a sample at that time: what a scrape once a minute, or once an hour, would have
//! seen. Of hours an expression finds something if it looks back for an hour, as `last_over_time(x[1h])` does. The least, the greatest, sum,
//! count and mean over time are those of all samples: rows have them.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use belfry_common::model::{Identity, Reason, SeriesDefinition};
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
        let is_counted = summary == Summary::Count;
        if alone.is_empty() && !is_counted {
            return self.reduce_tier(nodes, selection, selected, (reduce, visitor));
        }
        let mut rows = Rows::default();
        for of_tier in &alone {
            rows.add((self, nodes), (selection, summary), of_tier, selected)?;
        }
        if rows.by_series.is_empty() && !is_counted {
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
            let one = |&sample: &Sample| Sample {
                value: sample.value.map(|value| if is_counted { 1.0 } else { value }),
                ..sample
            };
            joined.extend(samples.iter().map(one));
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
            Summary::Count => read(Aggregate::Count)?,
            Summary::Sum => {
                let mut sums = read(Aggregate::Sum)?;
                if sums.values().flatten().any(is_too_large) {
                    let (counts, lasts) = (read(Aggregate::Count)?, read(Aggregate::Last)?);
                    estimate(&mut sums, &counts, &lasts);
                }
                sums
            }
        };
        for (series, rows) in rows {
            // Without a value there is nothing to count, as nothing is counted of raw samples without.
            let rows = rows.into_iter().filter(|row| summary != Summary::Count || row.value != Ok(0.0));
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

/// Whether a sum did not fit into the 64 bits that a row has for it.
fn is_too_large(sum: &Sample) -> bool {
    sum.value == Err(Some(Reason::OutOfRange))
}

/// Where a sum is too large for its row the last value stands for all: what is so large, as a counter of bytes, moves little in an hour.
fn estimate(sums: &mut BySeries, counts: &BySeries, lasts: &BySeries) {
    for (series, sums) in sums {
        let at = |rows: &BySeries, time| {
            let rows = rows.get(series)?;
            let place = rows.binary_search_by_key(&time, |row| row.time).ok()?;
            rows.get(place)?.value.ok()
        };
        for sum in sums.iter_mut().filter(|sum| is_too_large(sum)) {
            if let (Some(count), Some(last)) = (at(counts, sum.time), at(lasts, sum.time)) {
                sum.value = Ok(count * last);
            }
        }
    }
}

/// By time. A row that ends where raw samples begin is of what came before the first of these, and keeps to that.
fn put_in_order(samples: &mut [Sample]) {
    samples.sort_by_key(|sample| sample.time);
    for at in 1..samples.len() {
        if let Some([row, raw]) = samples.get_mut(at - 1..=at)
            && row.time == raw.time
        {
            row.time = row.time.plus_millis(-1);
        }
    }
}

fn name_of(nodes: &[(NodeId, Arc<str>)], node: NodeId) -> &str {
    let place = nodes.binary_search_by_key(&node, |(known, _)| *known);
    place.ok().and_then(|place| nodes.get(place)).map_or("", |(_, name)| &**name)
}
