//! Runs queries: on threads of their own, a few at a time, each for a limited time, and none for somebody who is gone.
//!
//! What is asked of the store by people and programs comes through here; rules do not, they have a thread of their own. The threads
//! step back behind all others, so that a heavy query takes what ingest and alerts leave.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use belfry_common::clock;
use belfry_promql::{
    EvalError, Limits, Output, Plan, PlanError, PlanOptions, ReadError, evaluate_instant, evaluate_range,
};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::error;

use crate::{priority, series::StoreReader};

/// The longest that a query may take; also what one may take that does not ask for less.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(120);

/// Queries that wait for a thread. A dashboard of 30 panels opened by several people asks for this much at once; who comes after
/// is told to come back.
const WAITING_MAX: usize = 256;

/// Results that are made and not sent yet, in all: who reads slowly holds one for as long.
const RESULTS_MEBIBYTES_MAX: usize = 1024;

/// One query.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) expression: String,
    pub(crate) options: PlanOptions,
    pub(crate) when: When,
    /// From when it is asked on, waiting included.
    pub(crate) timeout: Duration,
}

/// When an expression is evaluated, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Instant(i64),
    /// At the start and each step after it, up to the end.
    Range {
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    },
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum QueryError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Evaluate(#[from] EvalError),
    #[error("failed to read the store")]
    Read(#[from] ReadError),
    #[error("query timed out after {:?}: ask for fewer series, a shorter range or a longer step", .0)]
    Timeout(Duration),
    #[error("too many queries, or results of others, are waiting: try again later")]
    TooMany,
    #[error("the query failed inside: the collector's log says why")]
    Ended,
}

type Job = Box<dyn FnOnce() + Send>;

/// Runs queries. They end with the last handle.
#[derive(Debug)]
pub(crate) struct Queries {
    jobs: SyncSender<Job>,
    reader: StoreReader,
    /// Mebibytes of results that may wait to be sent.
    room: Arc<Semaphore>,
    pub(crate) statistics: Arc<QueryStatistics>,
}

/// What is counted of queries.
#[derive(Debug, Default)]
pub(crate) struct QueryStatistics {
    pub(crate) done: AtomicU64,
    /// Ended because their time was over, or because nobody waited any more.
    pub(crate) stopped: AtomicU64,
    pub(crate) micros: AtomicU64,
}

/// Whether a query should go on.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    deadline: Instant,
    is_gone: Arc<AtomicBool>,
}

impl Patience {
    pub(crate) fn is_over(&self) -> bool {
        self.is_gone.load(Relaxed) || clock::monotonic() >= self.deadline
    }
}

/// Tells a query that nobody waits for it, unless it is done.
struct Leaver(Arc<AtomicBool>);

impl Drop for Leaver {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl Queries {
    /// Starts the threads: as many as there are cores, and two at least, so that one long query does not hold up all short ones.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(reader: StoreReader) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel::<Job>(WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..thread::available_parallelism().map_or(2, |cores| cores.get().max(2)) {
            let waiting = Arc::clone(&waiting);
            thread::Builder::new().name("query".into()).spawn(move || work(&waiting))?;
        }
        let room = Arc::new(Semaphore::new(RESULTS_MEBIBYTES_MAX));
        Ok(Self { jobs, reader: reader.with_all_cores(), room, statistics: Arc::default() })
    }

    /// Plans and evaluates a query. It ends early when the future is dropped.
    ///
    /// # Errors
    /// [`QueryError`].
    pub(crate) async fn run(&self, query: Query) -> Result<Output, QueryError> {
        let Query { expression, options, when, timeout } = query;
        let timeout = timeout.min(TIMEOUT_MAX);
        let evaluated = self.read(timeout, move |reader, patience| {
            let is_over = || patience.is_over();
            let limits = Limits { cancelled: Some(&is_over), ..Limits::default() };
            let plan = Plan::parse_with(&expression, options)?;
            Ok(match when {
                When::Instant(time_ms) => evaluate_instant(&plan, reader, time_ms, &limits),
                When::Range { start_ms, end_ms, step_ms } => {
                    evaluate_range(&plan, reader, start_ms, end_ms, step_ms, &limits)
                }
            }?)
        });
        match evaluated.await? {
            Err(QueryError::Evaluate(EvalError::Cancelled)) => Err(QueryError::Timeout(timeout)),
            evaluated => evaluated,
        }
    }

    /// Room for a result of so many bytes until it is sent.
    ///
    /// # Errors
    /// [`QueryError::TooMany`]: others have not been sent yet.
    pub(crate) fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, QueryError> {
        let mebibytes = u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX);
        Arc::clone(&self.room).try_acquire_many_owned(mebibytes).map_err(|_| QueryError::TooMany)
    }

    /// Does something with the store's reader on one of the threads.
    ///
    /// # Errors
    /// [`QueryError::Timeout`], [`QueryError::TooMany`], [`QueryError::Ended`].
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        timeout: Duration,
        work: impl FnOnce(&StoreReader, &Patience) -> T + Send + 'static,
    ) -> Result<T, QueryError> {
        let timeout = timeout.min(TIMEOUT_MAX);
        let leaver = Leaver(Arc::default());
        let patience = Patience { deadline: clock::monotonic() + timeout, is_gone: Arc::clone(&leaver.0) };
        let (done, result) = oneshot::channel();
        let (reader, statistics) = (self.reader.clone(), Arc::clone(&self.statistics));
        let deadline = patience.deadline;
        let job = Box::new(move || {
            if patience.is_over() {
                statistics.stopped.fetch_add(1, Relaxed);
                return;
            }
            let began = clock::monotonic();
            let value = work(&reader, &patience);
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            statistics.micros.fetch_add(micros, Relaxed);
            let count = if patience.is_over() { &statistics.stopped } else { &statistics.done };
            count.fetch_add(1, Relaxed);
            // Nobody waits any more: it was for them alone.
            drop(done.send(value));
        });
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => QueryError::TooMany,
            TrySendError::Disconnected(_) => QueryError::Ended,
        })?;
        match tokio::time::timeout(timeout, result).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) if clock::monotonic() < deadline => Err(QueryError::Ended),
            Ok(Err(_)) | Err(_) => Err(QueryError::Timeout(timeout)),
        }
    }
}

/// One thread's life.
fn work(waiting: &Mutex<Receiver<Job>>) {
    priority::step_back(NICE);
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A fault in one query is that query's: who asked sees that its answer is lost.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            error!("a query has panicked");
        }
    }
}

/// Behind what must be done in time, before what puts files in order.
const NICE: i32 = 10;
