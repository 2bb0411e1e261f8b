//! Decoding and reducing on several threads what is visited on one, in order.
//!
//! Series go to the threads in runs, in turn, so that what stands in one page is mostly read by one of them. Each is ahead of the visitor by
//! no more than a run.

use std::{
    ops::ControlFlow,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use super::{
    Buffers, Failed, Part, Parts, ReadError, Reduce, Source, Visitor,
    gathered::{Cost, Spent},
};
use crate::columns::Columns;

/// Samples from which on threads pay: they take some tens of microseconds to start, and a sample some ten nanoseconds. Tests have not so many.
const SAMPLES_MIN: u64 = if cfg!(test) { 100 } else { 250_000 };
/// Samples of a run: some megabytes for each thread.
const RUN_SAMPLES: u64 = if cfg!(test) { 200 } else { 128 * 1024 };
const RUN_SERIES_MAX: u64 = 64;

/// How what is left to read is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    threads: usize,
    /// Series of a run.
    run: usize,
}

/// Series that are handed over together: to wake who waits for one costs as much as to read some hundred samples.
const GROUP_SERIES: usize = 8;

/// What some series were reduced to; nothing of those without samples.
type Read<T> = Result<Vec<Option<T>>, ReadError>;

impl Plan {
    /// For so many series of which one took this; `None` if one thread does.
    pub(super) fn of(series: usize, one: Cost, threads_max: usize) -> Option<Self> {
        let is_much = one.samples.saturating_mul(series as u64) >= SAMPLES_MIN;
        let run = (RUN_SAMPLES / one.samples.max(1)).clamp(1, RUN_SERIES_MAX) as usize;
        let threads = threads_max.min(series.div_ceil(run));
        (is_much && threads > 1).then_some(Self { threads, run })
    }

    pub(super) fn visit<T: Default + Send>(
        self,
        (series, sources, of_head): (&[Parts], &[Source], &Columns),
        (part, spent, failed): (Part<'_>, &Spent, Failed<'_>),
        (reduce, visitor): (Reduce<'_, T>, Visitor<'_, T>),
    ) -> Result<ControlFlow<()>, ReadError> {
        let runs: Vec<&[Parts]> = series.chunks(self.run).collect();
        thread::scope(|scope| {
            let mut inboxes = Vec::new();
            for first in 0..self.threads {
                let (queue, inbox) = sync_channel(self.run.div_ceil(GROUP_SERIES));
                let mut sources: Vec<Source> = sources.iter().map(Source::again).collect();
                let groups = runs.iter().skip(first).step_by(self.threads).flat_map(|run| run.chunks(GROUP_SERIES));
                let work = move || {
                    let mut buffers = Buffers::default();
                    let read = |parts: &Parts| {
                        spent.add(parts.read(&mut sources, parts.of_head(of_head), part, &mut buffers, failed)?)?;
                        let samples = buffers.columns.samples();
                        let mut reduced = T::default();
                        Ok((!samples.is_empty()).then(|| {
                            reduce(samples, &mut reduced);
                            reduced
                        }))
                    };
                    decode(groups, read, &queue);
                };
                let spawned = thread::Builder::new().name("read".into()).spawn_scoped(scope, work);
                spawned.map_err(ReadError::Thread)?;
                inboxes.push(inbox);
            }
            visit_in_order(&runs, &inboxes, visitor)
        })
    }
}

/// Reads series until nobody wants more of them.
fn decode<'a, T>(
    groups: impl Iterator<Item = &'a [Parts]>,
    mut read: impl FnMut(&Parts) -> Result<Option<T>, ReadError>,
    queue: &SyncSender<Read<T>>,
) {
    for group in groups {
        let result: Read<T> = group.iter().map(&mut read).collect();
        let is_last = result.is_err();
        if queue.send(result).is_err() || is_last {
            return;
        }
    }
}

fn visit_in_order<T>(
    runs: &[&[Parts]],
    inboxes: &[Receiver<Read<T>>],
    visitor: Visitor<'_, T>,
) -> Result<ControlFlow<()>, ReadError> {
    for (run, inbox) in runs.iter().zip(inboxes.iter().cycle()) {
        for group in run.chunks(GROUP_SERIES) {
            // A thread that is gone has panicked, and so will this one.
            let Ok(read) = inbox.recv() else { return Ok(ControlFlow::Break(())) };
            for (parts, reduced) in group.iter().zip(read?) {
                if reduced.is_some_and(|reduced| visitor(parts.node, &parts.definition, &reduced).is_break()) {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}
