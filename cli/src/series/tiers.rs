//! History older than the raw samples: there, of each minute its last sample, and where not even minutes are left, of each hour.
//!
//! A row stands for the samples before its end, and is a sample at that time: what a scrape once a minute would have seen.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use belfry_common::model::{SeriesDefinition, Timestamp};
use belfry_promql::ReadError;
use belfry_store::{Aggregate, Grain, NodeId, Sample, Selected, Selection, Tier, TimeRange};
use thiserror::Error;

use super::{NamedVisitor, StoreReader};

/// Most rows that are held until the raw samples of the same series are read: half a gigabyte.
const ROWS_MAX: usize = 20_000_000;

#[derive(Debug, Error)]
#[error("more than {ROWS_MAX} minutes or hours of old history: ask for fewer series, a shorter range or a longer step")]
struct TooManyRows;

/// Rows by their series.
#[derive(Default)]
struct Rows {
    by_series: HashMap<(NodeId, Arc<SeriesDefinition>), Vec<Sample>>,
    count: usize,
}

impl StoreReader {
    /// As the store's reader visits, with the nodes' names, and with rows where there are no raw samples any more.
    pub(super) fn visit_nodes(
        &self,
        nodes: &[(NodeId, Arc<str>)],
        selection: &Selection<'_>,
        selected: &mut Selected,
        visitor: NamedVisitor<'_>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let Some(raw_since) = self.store.since(Tier::Raw).filter(|since| *since > selection.range.after) else {
            return self.visit_tier(nodes, selection, selected, visitor);
        };
        let mut rows = Rows::default();
        let minutes_since = self.store.since(Tier::Minute).unwrap_or(raw_since).min(raw_since);
        for (tier, until) in [(Tier::Hour, minutes_since), (Tier::Minute, raw_since)] {
            let until = until.min(selection.range.until);
            if until > selection.range.after {
                rows.add(self, nodes, (selection, tier, until), selected)?;
            }
        }
        let mut joined = Vec::new();
        let flow = self.visit_tier(nodes, selection, selected, &mut |node, name, definition, samples| {
            let Some(before) = rows.by_series.remove(&(node, Arc::clone(definition))) else {
                return visitor(node, name, definition, samples);
            };
            let first = samples.first().map(|sample| sample.time);
            joined.clear();
            joined.extend(before.into_iter().filter(|row| first.is_none_or(|first| row.time < first)));
            joined.extend_from_slice(samples);
            visitor(node, name, definition, &joined)
        })?;
        if flow.is_break() {
            return Ok(flow);
        }
        for ((node, definition), samples) in &rows.by_series {
            if visitor(*node, name_of(nodes, *node), definition, samples).is_break() {
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
        visitor: NamedVisitor<'_>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let numbers: Vec<NodeId> = nodes.iter().map(|(node, _)| *node).collect();
        let visited = self.store.visit(&numbers, selection, self.limits, selected, &mut |node, definition, samples| {
            visitor(node, name_of(nodes, node), definition, samples)
        });
        visited.map_err(ReadError::new)
    }
}

impl Rows {
    /// Adds the rows of one tier up to a time; those of the tier before are older.
    fn add(
        &mut self,
        reader: &StoreReader,
        nodes: &[(NodeId, Arc<str>)],
        (selection, tier, until): (&Selection<'_>, Tier, Timestamp),
        selected: &mut Selected,
    ) -> Result<(), ReadError> {
        let range = TimeRange { until, ..selection.range };
        let selection = Selection { range, grain: Grain::Rows(tier, Aggregate::Last), ..*selection };
        let flow = reader.visit_tier(nodes, &selection, selected, &mut |node, _, definition, samples| {
            let rows = self.by_series.entry((node, Arc::clone(definition))).or_default();
            rows.extend_from_slice(samples);
            self.count += samples.len();
            if self.count > ROWS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if flow.is_break() { Err(ReadError::new(TooManyRows)) } else { Ok(()) }
    }
}

fn name_of(nodes: &[(NodeId, Arc<str>)], node: NodeId) -> &str {
    let place = nodes.binary_search_by_key(&node, |(known, _)| *known);
    place.ok().and_then(|place| nodes.get(place)).map_or("", |(_, name)| &**name)
}
