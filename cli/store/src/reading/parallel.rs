//! Work on several threads of which the results are visited on one, in order.
//!
//! Items go to the threads in runs, in turn, so that what stands in one page is mostly read by one of them. Each is ahead of the visitor by
//! no more than a run and two groups, whether they will be visited or not.

use std::{
    ops::ControlFlow,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use super::{ReadError, gathered::Cost};

/// Samples from which on threads pay: they take some tens of microseconds to start, and a sample some nanoseconds. Tests have not so many.
const SAMPLES_MIN: u64 = if cfg!(test) { 100 } else { 100_000 };
/// Samples of a run: some megabytes for each thread.
const RUN_SAMPLES: u64 = if cfg!(test) { 200 } else { 128 * 1024 };
const RUN_ITEMS_MAX: u64 = 64;

/// How what is left to do is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    threads: usize,
    /// Items of a run.
    run: usize,
}

/// Items that are handed over together: to wake who waits for one costs as much as to read some hundred samples.
const GROUP_ITEMS: usize = 8;

/// What came of some items.
type Group<O> = Result<Vec<O>, ReadError>;

impl Plan {
    /// For so many items of which one took this; `None` if one thread does.
    pub(super) fn of(items: usize, one: Cost, threads_max: usize) -> Option<Self> {
        let is_much = one.samples.saturating_mul(items as u64) >= SAMPLES_MIN;
        let run = (RUN_SAMPLES / one.samples.max(1)).clamp(1, RUN_ITEMS_MAX) as usize;
        // So that none waits for another that has the last run.
        let run = run.min(items.div_ceil(2 * threads_max.max(1)).max(1));
        let threads = threads_max.min(items.div_ceil(run));
        (is_much && threads > 1).then_some(Self { threads, run })
    }

    /// The same one with no more items in a run.
    pub(super) fn with_run_max(self, most: usize) -> Self {
        Self { run: self.run.min(most), ..self }
    }

    /// Visits what workers, one for each thread, make of items. After an error nothing more is visited.
    pub(super) fn visit<I: Sync, O: Send, W: FnMut(&I) -> Result<O, ReadError> + Send>(
        self,
        items: &[I],
        worker: impl Fn() -> W,
        mut visitor: impl FnMut(&I, O) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let runs: Vec<&[I]> = items.chunks(self.run).collect();
        thread::scope(|scope| {
            let mut inboxes = Vec::new();
            for first in 0..self.threads {
                let (queue, inbox) = sync_channel(self.run.div_ceil(GROUP_ITEMS));
                let groups = runs.iter().skip(first).step_by(self.threads).flat_map(|run| run.chunks(GROUP_ITEMS));
                let worker = worker();
                let spawned = thread::Builder::new()
                    .name("read".into())
                    .spawn_scoped(scope, move || work(groups, worker, &queue));
                spawned.map_err(ReadError::Thread)?;
                inboxes.push(inbox);
            }
            visit_in_order(&runs, &inboxes, &mut visitor)
        })
    }
}

/// Works until nobody wants more of it.
fn work<'a, I: 'a, O>(
    groups: impl Iterator<Item = &'a [I]>,
    mut worker: impl FnMut(&I) -> Result<O, ReadError>,
    queue: &SyncSender<Group<O>>,
) {
    for group in groups {
        let result: Group<O> = group.iter().map(&mut worker).collect();
        let is_last = result.is_err();
        if queue.send(result).is_err() || is_last {
            return;
        }
    }
}

fn visit_in_order<I, O>(
    runs: &[&[I]],
    inboxes: &[Receiver<Group<O>>],
    visitor: &mut impl FnMut(&I, O) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, ReadError> {
    for (run, inbox) in runs.iter().zip(inboxes.iter().cycle()) {
        for group in run.chunks(GROUP_ITEMS) {
            // A thread that is gone has panicked, and so will this one.
            let Ok(results) = inbox.recv() else { return Ok(ControlFlow::Break(())) };
            for (item, result) in group.iter().zip(results?) {
                if visitor(item, result).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}
