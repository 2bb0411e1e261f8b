//! Keeps a GPU worker, asks it, and never waits for it longer than it can afford.
//!
//! Three things go wrong with drivers, and are told apart: a call that hangs (the worker's board says which), a library that
//! crashes, and a driver that cannot be used at all. A worker that hangs is given time to come back by itself, then killed;
//! one that cannot even be killed is left to the kernel, and its successor keeps away from the GPU that it hangs in.

use std::{
    path::PathBuf,
    process::Child,
    sync::Arc,
    time::{Duration, Instant},
};

use belfry_common::{backoff::Backoff, clock, model::Reason, wire::message::GpuIdentity};
use tracing::{error, info, warn};

use super::{
    driver::{DriverState, Maker, Set},
    pause::Pause,
    process::{Answer, OnEvent, Silence, Worker},
};

/// A call that takes longer hangs. The slowest that answer at all take some tens of milliseconds.
const CALL_MAX: Duration = Duration::from_secs(1);
/// How long all calls of one request may take together.
const ANSWER_MAX: Duration = Duration::from_millis(1800);
/// The same while a worker opens the driver, which may have to initialise a GPU.
const START_CALL_MAX: Duration = Duration::from_millis(2500);
/// How long a new worker is waited for before the state is told as it is.
const START_PATIENCE: Duration = Duration::from_secs(1);
/// Opening a driver without persistence initialises every GPU, some seconds each.
const START_MAX: Duration = Duration::from_secs(60);
/// A call that hangs may come back, and a worker that is killed costs a new initialisation of every GPU.
const HANG_MAX: Duration = Duration::from_secs(10);
/// How long a GPU in which a worker hung is left alone, so that the others can be read: the first time, and at most.
const AVOID: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));
/// Between two tries to start a worker.
const RESTART: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A worker that has lived so long did not fail at its start.
const LIVED: Duration = Duration::from_secs(60);
/// Processes that cannot be killed. After so many the driver is beyond help.
const UNKILLABLE_MAX: usize = 2;

/// What starting a worker takes.
#[derive(Clone)]
pub(crate) struct WorkerSettings {
    pub(crate) maker: Maker,
    pub(crate) sys: PathBuf,
    pub(crate) library: PathBuf,
    pub(crate) pause: Pause,
    pub(crate) on_event: OnEvent,
    /// Takes the GPUs whenever a worker has found them.
    pub(crate) on_gpus: OnGpus,
}

/// Takes the GPUs that a worker found.
pub(crate) type OnGpus = Arc<dyn Fn(&[GpuIdentity]) + Send + Sync>;

/// The call that does not come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StuckCall {
    pub(crate) call: String,
    pub(crate) gpu: Option<u32>,
}

/// A GPU that is left alone for a while.
#[derive(Debug, Clone, Copy)]
struct Avoided {
    gpu: u32,
    until: Instant,
    span: Duration,
}

/// One maker's worker, or why there is none.
pub(crate) struct Supervisor {
    settings: WorkerSettings,
    state: DriverState,
    worker: Option<Worker>,
    stuck: Option<StuckCall>,
    backoff: Backoff,
    not_before: Option<Instant>,
    /// Killed, and still there.
    unkillable: Vec<(Child, Option<u32>)>,
    /// The GPU in which a worker hung.
    avoided: Option<Avoided>,
    gpus: Vec<GpuIdentity>,
    /// How often a worker has found GPUs.
    found: u64,
}

impl Supervisor {
    pub(crate) fn new(settings: WorkerSettings) -> Self {
        let (first, last) = RESTART;
        Self {
            settings,
            state: DriverState::Starting,
            worker: None,
            stuck: None,
            backoff: Backoff::try_new(first, last).expect("the first is above zero and below the last"),
            not_before: None,
            unkillable: Vec::new(),
            avoided: None,
            gpus: Vec::new(),
            found: 0,
        }
    }

    pub(crate) fn maker(&self) -> Maker {
        self.settings.maker
    }

    /// Whether the GPUs are to be left alone.
    pub(crate) fn is_paused(&self) -> bool {
        self.settings.pause.is_requested(clock::now())
    }

    /// How the driver stands.
    pub(crate) fn state(&self) -> DriverState {
        self.state
    }

    /// The call that hangs, if one does.
    pub(crate) fn stuck(&self) -> Option<&StuckCall> {
        self.stuck.as_ref()
    }

    /// The GPUs that the last worker found.
    pub(crate) fn gpus(&self) -> &[GpuIdentity] {
        &self.gpus
    }

    /// Reads a set. Takes three seconds at most, whatever the driver does.
    pub(crate) fn read(&mut self, set: Set) -> Result<Answer, Reason> {
        self.unkillable.retain_mut(|(child, _)| matches!(child.try_wait(), Ok(None)));
        if self.is_paused() {
            self.stop();
            self.set_state(DriverState::Paused, "");
            return Err(Reason::Unsupported);
        }
        if self.state == DriverState::Paused {
            self.set_state(DriverState::Starting, "");
            self.not_before = None;
        }
        self.try_avoided_again();
        let mut worker = match self.worker.take() {
            Some(worker) => worker,
            None => self.start()?,
        };
        let answer = self.make_ready(&mut worker).and_then(|()| worker.ask(set, CALL_MAX, ANSWER_MAX));
        match answer {
            Ok(answer) => {
                if let Some(gpus) = worker.found() {
                    self.know(gpus, worker.without());
                }
                // A worker that keeps away from a GPU proves nothing about it.
                if worker.without().is_empty() {
                    if self.stuck.take().is_some() {
                        info!("GPU driver answers again");
                    }
                    self.avoided = None;
                    self.set_state(DriverState::Ok, "");
                }
                if worker.age() > LIVED {
                    self.backoff.reset();
                }
                self.worker = Some(worker);
                Ok(answer)
            }
            Err(silence) => Err(self.endure(worker, silence)),
        }
    }

    /// How often a worker has found GPUs: when it opened the driver, and when there were others later.
    pub(crate) fn found(&self) -> u64 {
        self.found
    }

    /// GPUs that the worker does not touch because one before it hung in them.
    pub(crate) fn without(&self) -> &[u32] {
        self.worker.as_ref().map_or(&[], Worker::without)
    }

    /// Lets the worker go in good order, and waits a little for it.
    pub(crate) fn stop(&mut self) {
        self.stuck = None;
        if let Some(worker) = self.worker.take() {
            self.leave(worker, None);
        }
    }

    /// Ends a worker that keeps away from a GPU when it is time to see whether that answers again.
    fn try_avoided_again(&mut self) {
        let is_due = |avoided: &Avoided| clock::monotonic() >= avoided.until;
        let is_partial = self.worker.as_ref().is_some_and(|worker| !worker.without().is_empty());
        if is_partial && self.unkillable.is_empty() && self.avoided.as_ref().is_some_and(is_due) {
            info!("trying again the GPU that hung");
            if let Some(worker) = self.worker.take() {
                self.leave(worker, None);
            }
            self.not_before = None;
        }
    }

    fn start(&mut self) -> Result<Worker, Reason> {
        if self.not_before.is_some_and(|not_before| clock::monotonic() < not_before) {
            return Err(self.reason());
        }
        if self.unkillable.len() >= UNKILLABLE_MAX {
            return Err(Reason::Timeout);
        }
        let mut without: Vec<u32> = self.unkillable.iter().filter_map(|(_, gpu)| *gpu).collect();
        // With nobody to name, a successor would hang in the same call.
        if without.len() < self.unkillable.len() {
            return Err(Reason::Timeout);
        }
        let avoided = self.avoided.filter(|avoided| clock::monotonic() < avoided.until);
        without.extend(avoided.map(|avoided| avoided.gpu).filter(|gpu| !without.contains(gpu)));
        match Worker::start(&self.settings, &without) {
            Ok(worker) => Ok(worker),
            Err(error) => {
                error!(%error, "GPU worker cannot be started");
                self.set_state(DriverState::Failed, &format!("worker cannot be started: {error}"));
                self.try_again_later();
                Err(Reason::Error)
            }
        }
    }

    /// Waits for a new worker to have opened the driver.
    fn make_ready(&mut self, worker: &mut Worker) -> Result<(), Silence> {
        let Some(ready) = worker.ready(START_CALL_MAX, START_PATIENCE)? else { return Ok(()) };
        match DriverState::from_code(ready.state) {
            DriverState::Ok => {
                info!(maker = self.settings.maker.as_str(), gpus = ready.gpus.len(), "GPU driver opened");
                self.know(ready.gpus, worker.without());
                Ok(())
            }
            state => Err(Silence::Unusable { state, detail: ready.detail }),
        }
    }

    /// Takes the GPUs that a worker has found, but for those `without` which it does.
    fn know(&mut self, gpus: Vec<GpuIdentity>, without: &[u32]) {
        (self.settings.on_gpus)(&gpus);
        // One that keeps away from a GPU does not know it: better than knowing none.
        if without.is_empty() || self.gpus.is_empty() {
            self.gpus = gpus;
        }
        self.found += 1;
    }

    /// What becomes of a worker that did not answer.
    fn endure(&mut self, worker: Worker, silence: Silence) -> Reason {
        match silence {
            Silence::Starting => {
                if self.stuck.is_none() {
                    self.set_state(DriverState::Starting, "");
                }
                self.worker = Some(worker);
            }
            Silence::Slow => self.worker = Some(worker),
            Silence::Hung { call, gpu, since } => {
                self.hang(worker, StuckCall { call, gpu }, since);
            }
            Silence::Gone => {
                let call = worker.noted().map(|noted| noted.call).unwrap_or_default();
                warn!(call, "GPU worker died");
                self.set_state(DriverState::Crashed, &format!("worker died in {call}"));
                self.stuck = None;
                self.leave(worker, None);
                self.try_again_later();
            }
            Silence::Unusable { state, detail } => {
                self.set_state(state, &detail);
                self.stuck = None;
                self.leave(worker, None);
                self.try_again_later();
            }
        }
        self.reason()
    }

    fn hang(&mut self, worker: Worker, stuck: StuckCall, since: Duration) {
        if self.stuck.as_ref() != Some(&stuck) {
            warn!(call = stuck.call, gpu = stuck.gpu, "GPU driver does not answer");
        }
        let gpu = stuck.gpu;
        self.set_state(DriverState::Hung, &format!("{} does not come back", stuck.call));
        self.stuck = Some(stuck);
        if since > if worker.is_ready() { HANG_MAX } else { START_MAX } {
            self.avoid(gpu);
            self.leave(worker, gpu);
            self.try_again_later();
        } else {
            self.worker = Some(worker);
        }
    }

    fn avoid(&mut self, gpu: Option<u32>) {
        let Some(gpu) = gpu else { return };
        let (first, last) = AVOID;
        let span =
            self.avoided.filter(|avoided| avoided.gpu == gpu).map_or(first, |avoided| (avoided.span * 2).min(last));
        self.avoided = Some(Avoided { gpu, until: clock::monotonic() + span, span });
    }

    fn leave(&mut self, worker: Worker, gpu: Option<u32>) {
        if let Some(child) = worker.stop() {
            warn!(pid = child.id(), "GPU worker cannot be killed: it waits for the kernel");
            self.unkillable.push((child, gpu));
        }
    }

    fn try_again_later(&mut self) {
        // One process on one node: there is no herd to spread.
        self.not_before = Some(clock::monotonic() + self.backoff.next(1.0));
    }

    /// Why there are no readings in this state.
    fn reason(&self) -> Reason {
        match self.state {
            DriverState::Hung | DriverState::Starting | DriverState::Ok => Reason::Timeout,
            DriverState::NoPermission => Reason::Permission,
            _ => Reason::Error,
        }
    }

    fn set_state(&mut self, state: DriverState, detail: &str) {
        if self.state != state {
            info!(maker = self.settings.maker.as_str(), state = state.as_str(), detail, "GPU driver");
        }
        self.state = state;
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop();
    }
}
