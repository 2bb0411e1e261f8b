//! What memory has of some nodes: all that is asked for, or what blocks have not.

use std::{ops::ControlFlow, sync::Arc};

use belfry_common::model::SeriesDefinition;

use super::{ReadError, Reduce, Visitor, gathered::Cost, parallel};
use crate::{
    Head, NodeId,
    columns::Columns,
    head::Selected,
    rows_of::RowsOf,
    selection::{Sample, Selection},
};

/// Samples of a node up to which several nodes are read at once.
const NODE_SAMPLES_MAX: usize = 128 * 1024;
/// Samples of memory that blocks have not, of several nodes together, beyond which the next nodes wait until these are done: 64 MiB.
const REST_SAMPLES_MAX: usize = if cfg!(test) { 100 } else { 4 * 1024 * 1024 };
/// Nodes that go to a thread at a time: a node may have thousands of series.
const NODES_RUN_MAX: usize = 8;

/// How memory is read.
pub(super) struct Memory<'a, T> {
    pub(super) head: &'a Head,
    pub(super) rows: Option<RowsOf>,
    pub(super) selection: &'a Selection<'a>,
    /// What of the raw samples that takes.
    pub(super) widened: &'a Selection<'a>,
    pub(super) reduce: Reduce<'a, T>,
}

/// What memory has of a node.
enum Found<T> {
    /// All, reduced.
    All(Vec<(Arc<SeriesDefinition>, T)>),
    /// What blocks have not.
    Rest(Selected),
}

impl<T: Default + Send> Memory<'_, T> {
    /// Visits the series of nodes of which memory has all, node by node, and gives what it has of others to `rest`. Says how many nodes it has
    /// done: not all, if that would be too much for `rest`.
    pub(super) fn visit(
        &self,
        nodes: &[NodeId],
        threads: usize,
        selected: &mut Selected,
        visitor: Visitor<'_, T>,
        rest: impl FnMut(NodeId, &Selected),
    ) -> Result<(ControlFlow<()>, usize), ReadError> {
        selected.remember(nodes.len() > 1);
        let flow = self.visit_remembering(nodes, threads, selected, visitor, rest);
        selected.remember(false);
        flow
    }

    fn visit_remembering(
        &self,
        nodes: &[NodeId],
        threads: usize,
        selected: &mut Selected,
        visitor: Visitor<'_, T>,
        mut rest: impl FnMut(NodeId, &Selected),
    ) -> Result<(ControlFlow<()>, usize), ReadError> {
        let mut of_rest = 0;
        let (mut columns, mut reduced) = (Columns::default(), T::default());
        for (done, &node) in (1..).zip(nodes) {
            if self.head.select_beside_blocks(node, self.widened, selected) {
                for (definition, samples) in selected.iter() {
                    if self.fill(&mut columns, samples) {
                        (self.reduce)(columns.samples(), &mut reduced);
                        if visitor(node, definition, &reduced).is_break() {
                            return Ok((ControlFlow::Break(()), done));
                        }
                    }
                }
            } else {
                rest(node, selected);
                of_rest += selected.read();
                if of_rest >= REST_SAMPLES_MAX {
                    return Ok((ControlFlow::Continue(()), done));
                }
            }
            let others = nodes.get(done..).unwrap_or_default();
            let others = others.get(..REST_SAMPLES_MAX / selected.read().max(1)).unwrap_or(others);
            // What several threads have of nodes with so much at once would be too much.
            let cost = Some(selected.read()).filter(|&samples| samples <= NODE_SAMPLES_MAX).map(Cost::of_memory);
            if let Some(plan) = cost.and_then(|cost| parallel::Plan::of(others.len(), cost, threads)) {
                let flow = self.visit_on_threads(plan.with_run_max(NODES_RUN_MAX), others, visitor, rest)?;
                return Ok((flow, done + others.len()));
            }
        }
        Ok((ControlFlow::Continue(()), nodes.len()))
    }

    fn visit_on_threads(
        &self,
        plan: parallel::Plan,
        nodes: &[NodeId],
        visitor: Visitor<'_, T>,
        mut rest: impl FnMut(NodeId, &Selected),
    ) -> Result<ControlFlow<()>, ReadError> {
        let worker = || {
            let (mut selected, mut columns) = (Selected::default(), Columns::default());
            selected.remember(true);
            move |&node: &_| {
                if !self.head.select_beside_blocks(node, self.widened, &mut selected) {
                    return Ok(Found::Rest(selected.take()));
                }
                let reduced = selected.iter().filter_map(|(definition, samples)| {
                    let mut reduced = T::default();
                    self.fill(&mut columns, samples).then(|| (self.reduce)(columns.samples(), &mut reduced))?;
                    Some((Arc::clone(definition), reduced))
                });
                Ok(Found::All(reduced.collect()))
            }
        };
        plan.visit(nodes, worker, |&node, found| match found {
            Found::All(series) => {
                series.iter().try_for_each(|(definition, reduced)| visitor(node, definition, reduced))
            }
            Found::Rest(selected) => {
                rest(node, &selected);
                ControlFlow::Continue(())
            }
        })
    }

    /// Puts samples in their columns, or the rows that are made of them; whether there are any.
    fn fill(&self, columns: &mut Columns, samples: &[Sample]) -> bool {
        let made = self.rows.map(|rows| rows.of_samples(samples, self.selection.extent()));
        columns.fill(made.as_deref().unwrap_or(samples));
        columns.len() > 0
    }
}
