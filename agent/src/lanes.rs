//! Threads that run samplers, so that one which hangs takes nothing else with it.
//!
//! A lane is one thread and the samplers that it reads in turn. A driver can hang any read in the kernel: then
//! the lane's thread is given up with the one sampler that it is in, and a new thread goes on with the others. The lost
//! thread costs its stack until the kernel lets it go; since a sampler that hangs is not started again
//! before it returns, there is at most one per sampler.

use std::{
    sync::{
        Arc, Mutex, TryLockError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc as blocking,
    },
    thread,
    time::Duration,
};

use belfry_common::{
    clock,
    error_chain::ErrorChain,
    model::{Metric, Reason, Tick, Timestamp},
};
use tokio::sync::mpsc;
use tracing::{debug, error, info};

use crate::{
    readings::Readings,
    samplers::{LaneName, Sampler},
};

/// Results of one round of all samplers: more than there can be at a time.
const RESULTS_MAX: usize = 256;
/// Small: a sampler parses text into numbers.
const STACK_BYTES: usize = 256 * 1024;

/// A sampler and what it collects, locked while it is being read.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) name: &'static str,
    work: Arc<Mutex<Work>>,
}

struct Work {
    sampler: Box<dyn Sampler>,
    readings: Readings,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Slot {
    pub(crate) fn new(sampler: Box<dyn Sampler>, readings: Readings) -> Self {
        Self { name: sampler.name(), work: Arc::new(Mutex::new(Work { sampler, readings })) }
    }
}

/// What reading one sampler once gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The sampler's place.
    pub(crate) place: usize,
    /// Its tick; a sampler without readings gives none.
    pub(crate) tick: Option<Tick>,
    pub(crate) took: Duration,
    /// The readings that failed.
    pub(crate) missing: Vec<(Arc<Metric>, Reason)>,
    /// Why the sampler as a whole failed, if it did.
    pub(crate) failure: Option<Reason>,
}

struct Job {
    place: usize,
    slot: Slot,
    time: Timestamp,
}

/// One lane. Dropping it lets its thread end when it is free.
#[derive(Debug)]
pub(crate) struct Lane {
    name: LaneName,
    jobs: blocking::Sender<Vec<Job>>,
    results: mpsc::Sender<Outcome>,
    /// Tells a thread that comes back from a hang that its place is taken.
    is_given_up: Arc<AtomicBool>,
}

impl Lane {
    pub(crate) fn start(name: LaneName, results: mpsc::Sender<Outcome>) -> std::io::Result<Self> {
        let (jobs, inbox) = blocking::channel::<Vec<Job>>();
        let outbox = results.clone();
        let is_given_up = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_given_up);
        thread::Builder::new().name(name.as_str().into()).stack_size(STACK_BYTES).spawn(move || {
            while let Ok(jobs) = inbox.recv() {
                for job in jobs {
                    let Some(mut outcome) = job.run() else { continue };
                    if flag.load(Relaxed) {
                        // What it read belongs to no time that could be named.
                        outcome.tick = None;
                    }
                    if outbox.blocking_send(outcome).is_err() || flag.load(Relaxed) {
                        return;
                    }
                }
            }
        })?;
        Ok(Self { name, jobs, results, is_given_up })
    }

    pub(crate) fn name(&self) -> LaneName {
        self.name
    }

    /// A channel that holds a round of outcomes.
    pub(crate) fn outcomes() -> (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>) {
        mpsc::channel(RESULTS_MAX)
    }

    /// Reads these samplers, one after the other.
    pub(crate) fn run(&self, time: Timestamp, slots: impl Iterator<Item = (usize, Slot)>) {
        let jobs: Vec<Job> = slots.map(|(place, slot)| Job { place, slot, time }).collect();
        if !jobs.is_empty() && self.jobs.send(jobs).is_err() {
            error!(lane = self.name.as_str(), "lane has ended");
        }
    }

    /// Gives up the thread, which hangs, and goes on with a new one.
    pub(crate) fn replace(&mut self) {
        match Self::start(self.name, self.results.clone()) {
            Ok(lane) => {
                self.is_given_up.store(true, Relaxed);
                *self = lane;
            }
            Err(error) => error!(lane = self.name.as_str(), %error, "no thread to replace one that hangs"),
        }
    }
}

impl Job {
    /// Reads the sampler; `None` if it still hangs from another time.
    fn run(self) -> Option<Outcome> {
        let mut work = match self.slot.work.try_lock() {
            Ok(work) => work,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let Work { sampler, readings } = &mut *work;
        let began = clock::monotonic();
        let result = sampler.sample(readings);
        let took = began.elapsed();
        let mut outcome =
            Outcome { place: self.place, tick: None, took, missing: readings.take_missing(), failure: None };
        match result {
            Ok(()) => outcome.tick = readings.finish(self.time),
            Err(error) => {
                let reason = error.reason();
                // The count is in the metrics; the log has it once per change, not once per second.
                debug!(sampler = self.slot.name, error = %ErrorChain(&error), "sampler failed");
                outcome.failure = Some(reason);
                outcome.tick = readings.fail(self.time, reason);
            }
        }
        if took > Duration::from_secs(1) {
            info!(sampler = self.slot.name, took_ms = took.as_millis() as u64, "sampler was slow");
        }
        Some(outcome)
    }
}
