//! Decoding on several threads what is visited on one, in order.
//!
//! Series go to the threads in runs, in turn, so that what stands in one page is mostly read by one of them. Each is ahead of the visitor by
//! no more than a run.

use std::{
    mem,
    ops::ControlFlow,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use super::{
    Buffers, Failed, Part, Parts, ReadError, Source, Visitor,
    gathered::{Cost, Spent},
};
use crate::selection::Sample;

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

/// Some series that were read.
type Read = Result<Vec<Vec<Sample>>, ReadError>;

impl Plan {
    /// For so many series of which one took this; `None` if one thread does.
    pub(super) fn of(series: usize, one: Cost, threads_max: usize) -> Option<Self> {
        let is_much = one.samples.saturating_mul(series as u64) >= SAMPLES_MIN;
        let run = (RUN_SAMPLES / one.samples.max(1)).clamp(1, RUN_SERIES_MAX) as usize;
        let threads = threads_max.min(series.div_ceil(run));
        (is_much && threads > 1).then_some(Self { threads, run })
    }

    pub(super) fn visit(
        self,
        series: &[Parts],
        sources: &[Source],
        of_head: &[Sample],
        (part, spent, failed): (Part<'_>, &Spent, Failed<'_>),
        visitor: Visitor<'_>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let runs: Vec<&[Parts]> = series.chunks(self.run).collect();
        thread::scope(|scope| {
            let mut inboxes = Vec::new();
            for first in 0..self.threads {
                let (queue, inbox) = sync_channel(self.run.div_ceil(GROUP_SERIES));
                let mut sources: Vec<Source> = sources.iter().map(Source::again).collect();
                let groups = runs.iter().skip(first).step_by(self.threads).flat_map(|run| run.chunks(GROUP_SERIES));
                let work = move || {
                    let read = |parts: &Parts, buffers: &mut Buffers| {
                        let cost = parts.read(&mut sources, of_head, part, buffers, failed)?;
                        spent.add(cost)
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
fn decode<'a>(
    groups: impl Iterator<Item = &'a [Parts]>,
    mut read: impl FnMut(&Parts, &mut Buffers) -> Result<(), ReadError>,
    queue: &SyncSender<Read>,
) {
    let mut buffers = Buffers::default();
    let mut read = |parts: &Parts| {
        read(parts, &mut buffers)?;
        let next = Vec::with_capacity(buffers.samples.len());
        Ok(mem::replace(&mut buffers.samples, next))
    };
    for group in groups {
        let result: Read = group.iter().map(&mut read).collect();
        let is_last = result.is_err();
        if queue.send(result).is_err() || is_last {
            return;
        }
    }
}

fn visit_in_order(
    runs: &[&[Parts]],
    inboxes: &[Receiver<Read>],
    visitor: Visitor<'_>,
) -> Result<ControlFlow<()>, ReadError> {
    for (run, inbox) in runs.iter().zip(inboxes.iter().cycle()) {
        for group in run.chunks(GROUP_SERIES) {
            // A thread that is gone has panicked, and so will this one.
            let Ok(read) = inbox.recv() else { return Ok(ControlFlow::Break(())) };
            for (parts, samples) in group.iter().zip(read?) {
                if !samples.is_empty() && visitor(parts.node, &parts.definition, &samples).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}
