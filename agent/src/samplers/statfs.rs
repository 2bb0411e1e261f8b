//! Asks file systems for their size without ever waiting for one that hangs.
//!
//! `statfs` on a dead server's mount can block for ever, and nothing can end such a call. So it is made by
//! helper threads. [`Prober::ask`] waits only so long; a call that has not returned by then keeps its
//! thread, its mount is not asked again before it does, and all other mounts go on.
//!
//! Threads come one by one, when those there are do not get on: a healthy machine has one, which
//! answers for all mounts. There are never more than [`THREADS_MAX`], however many mounts hang.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing::warn;

/// Threads that may be stuck at once.
pub(super) const THREADS_MAX: usize = 8;

/// Of these, how many may be with remote file systems, so that local disks are heard whatever the network does.
const REMOTE_THREADS_MAX: usize = 6;

/// Calls to one server at a time: a dead server with 20 mounts must not take every thread.
const SERVER_THREADS_MAX: usize = 2;

/// After this long without an end in sight another thread comes to help.
const HELP_AFTER: Duration = Duration::from_millis(5);

/// `statfs` shares the caller's buffers and calls nothing else.
const STACK_BYTES: usize = 64 * 1024;

/// What a file system says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) size_bytes: u64,
    pub(super) free_bytes: u64,
    pub(super) available_bytes: u64,
    pub(super) files: u64,
    pub(super) files_free: u64,
}

/// `statfs` or, in tests, something that hangs.
pub(super) type Statfs = dyn Fn(&Path) -> io::Result<Usage> + Send + Sync;

/// One mount to ask.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) path: PathBuf,
    /// What it shares its fate with: a server's name, or the device.
    pub(super) server: Box<str>,
    pub(super) is_remote: bool,
}

/// Asks many mounts at once; see the module.
pub(super) struct Prober {
    shared: Arc<Shared>,
}

struct Shared {
    statfs: Box<Statfs>,
    state: Mutex<State>,
    /// There is work, or the prober is gone.
    work: Condvar,
    /// An answer came.
    answered: Condvar,
}

#[derive(Default)]
struct State {
    /// Tells answers that are waited for from those that come too late.
    round: u64,
    queue: VecDeque<Job>,
    running: Vec<Job>,
    answers: Vec<Option<io::Result<Usage>>>,
    unanswered: usize,
    threads: usize,
    is_closed: bool,
}

#[derive(Debug, Clone)]
struct Job {
    round: u64,
    place: usize,
    question: Arc<Question>,
}

impl Prober {
    pub(super) fn new(statfs: Box<Statfs>) -> Self {
        let (state, work, answered) = (Mutex::new(State::default()), Condvar::new(), Condvar::new());
        Self { shared: Arc::new(Shared { statfs, state, work, answered }) }
    }

    /// Asks every mount whose last call has returned, and waits for the answers, at most for `patience` (a
    /// multiple of 5 ms). `None` for a mount that did not answer, whether its call began or not.
    pub(super) fn ask(&self, questions: Vec<Question>, patience: Duration) -> Vec<Option<io::Result<Usage>>> {
        let mut state = self.shared.lock();
        state.begin(questions);
        for _ in 0..patience.as_millis().div_ceil(HELP_AFTER.as_millis()) {
            if state.unanswered == 0 {
                break;
            }
            if state.next_job().is_some() {
                self.help(&mut state);
            }
            let wait = self.shared.answered.wait_timeout_while(state, HELP_AFTER, |state| state.unanswered > 0);
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.end()
    }

    /// Wakes an idle thread, or starts another.
    fn help(&self, state: &mut State) {
        if state.threads > state.running.len() {
            self.shared.work.notify_one();
        } else if state.threads < THREADS_MAX {
            let shared = Arc::clone(&self.shared);
            match thread::Builder::new().name("statfs".into()).stack_size(STACK_BYTES).spawn(move || shared.work()) {
                Ok(_) => state.threads += 1,
                Err(error) => warn!(%error, "failed to start a thread that asks file systems"),
            }
        }
    }
}

impl Drop for Prober {
    /// Idle threads end. A stuck one is left to the end of the process: nobody can wait for it.
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.work.notify_all();
    }
}

impl State {
    fn begin(&mut self, questions: Vec<Question>) {
        self.round += 1;
        self.answers.clear();
        self.answers.resize_with(questions.len(), || None);
        for (place, question) in questions.into_iter().enumerate() {
            // What still runs has hung since an earlier round: nobody waits for what it holds up.
            let is_hung = self.running.iter().any(|job| job.question.path == question.path);
            if !is_hung && self.may_begin(&question) {
                self.queue.push_back(Job { round: self.round, place, question: Arc::new(question) });
            }
        }
        self.unanswered = self.queue.len();
    }

    fn end(&mut self) -> Vec<Option<io::Result<Usage>>> {
        self.queue.clear();
        self.unanswered = 0;
        std::mem::take(&mut self.answers)
    }

    /// The place in the queue of the first job that may begin.
    fn next_job(&self) -> Option<usize> {
        self.queue.iter().position(|job| self.may_begin(&job.question))
    }

    fn may_begin(&self, question: &Question) -> bool {
        let running =
            |is_one_of: &dyn Fn(&Question) -> bool| self.running.iter().filter(|job| is_one_of(&job.question)).count();
        running(&|other| other.server == question.server) < SERVER_THREADS_MAX
            && (!question.is_remote || running(&|other| other.is_remote) < REMOTE_THREADS_MAX)
    }

    fn take_job(&mut self) -> Option<Job> {
        let job = self.queue.remove(self.next_job()?)?;
        self.running.push(job.clone());
        Some(job)
    }

    /// Whether the asker need not wait any longer.
    fn finish(&mut self, job: &Job, answer: io::Result<Usage>) -> bool {
        self.running.retain(|running| (running.round, running.place) != (job.round, job.place));
        if job.round == self.round
            && let Some(place) = self.answers.get_mut(job.place)
        {
            *place = Some(answer);
            self.unanswered = self.unanswered.saturating_sub(1);
        }
        self.unanswered == 0
    }

    /// Whether a thread without work should end: one stays.
    fn is_spare(&self) -> bool {
        self.is_closed || self.threads > self.running.len() + 1
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a helper thread.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.take_job() {
                drop(state);
                let answer = (self.statfs)(&job.question.path);
                state = self.lock();
                if state.finish(&job, answer) {
                    self.answered.notify_one();
                }
            } else if state.is_spare() {
                state.threads -= 1;
                return;
            } else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// The system call. A block count that no disk has is cut to the largest number.
pub(super) fn statfs(path: &Path) -> io::Result<Usage> {
    let usage = rustix::fs::statfs(path)?;
    let block_bytes = u64::try_from(usage.f_bsize).unwrap_or(0);
    let bytes = |blocks: u64| blocks.saturating_mul(block_bytes);
    Ok(Usage {
        size_bytes: bytes(usage.f_blocks),
        free_bytes: bytes(usage.f_bfree),
        available_bytes: bytes(usage.f_bavail),
        files: usage.f_files,
        files_free: usage.f_ffree,
    })
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prober").field("threads", &self.shared.lock().threads).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const USAGE: Usage = Usage { size_bytes: 1, free_bytes: 1, available_bytes: 1, files: 1, files_free: 1 };
    /// A tick's patience: what it costs when something hangs.
    const BRIEF: Duration = Duration::from_millis(50);
    /// So long that a test which really waits for it fails.
    const LONG: Duration = Duration::from_secs(600);

    /// Paths whose calls hang until they are taken out.
    #[derive(Default)]
    struct Hung {
        paths: Mutex<HashSet<PathBuf>>,
        changed: Condvar,
        calls: Mutex<Vec<PathBuf>>,
    }

    impl Hung {
        fn prober(self: &Arc<Self>) -> Prober {
            let hung = Arc::clone(self);
            Prober::new(Box::new(move |path| {
                hung.calls.lock().unwrap().push(path.to_owned());
                let paths = hung.paths.lock().unwrap();
                drop(hung.changed.wait_while(paths, |paths| paths.contains(path)).unwrap());
                Ok(USAGE)
            }))
        }

        fn set(&self, paths: &[&str]) {
            *self.paths.lock().unwrap() = paths.iter().map(PathBuf::from).collect();
            self.changed.notify_all();
        }

        fn take_calls(&self) -> usize {
            std::mem::take(&mut *self.calls.lock().unwrap()).len()
        }
    }

    fn question(path: &str) -> Question {
        let (server, is_remote) = match path.split_once(':') {
            Some((server, _)) => (server, true),
            None => (path, false),
        };
        Question { path: path.into(), server: server.into(), is_remote }
    }

    /// The paths that did not answer.
    fn silent(prober: &Prober, paths: &[&str], patience: Duration) -> Vec<String> {
        let answers = prober.ask(paths.iter().map(|path| question(path)).collect(), patience);
        assert_eq!(answers.len(), paths.len());
        let silent = paths.iter().zip(answers).filter(|(_, answer)| answer.is_none());
        silent.map(|(path, _)| (*path).to_owned()).collect()
    }

    /// Asks until only `hung` are silent: on a busy machine a healthy one may miss a brief tick. From then on
    /// none of them is waited for.
    fn settle(prober: &Prober, paths: &[&str], hung: &[&str]) {
        while silent(prober, paths, BRIEF) != hung {}
        assert_eq!(silent(prober, paths, LONG), hung);
    }

    fn wait_until(condition: impl Fn() -> bool) {
        while !condition() {
            thread::yield_now();
        }
    }

    #[test]
    fn a_healthy_machine_has_one_thread_however_many_mounts() {
        let hung = Arc::new(Hung::default());
        let prober = hung.prober();
        let paths: Vec<_> = (0..500).map(|number| format!("/{number}")).collect();
        let paths: Vec<_> = paths.iter().map(String::as_str).collect();
        for _ in 0..3 {
            assert_eq!(silent(&prober, &paths, LONG), [""; 0]);
            assert_eq!(hung.take_calls(), 500);
        }
        wait_until(|| prober.shared.lock().threads == 1);
    }

    #[test]
    fn a_hung_mount_costs_only_itself_is_not_asked_again_and_recovers() {
        let hung = Arc::new(Hung::default());
        hung.set(&["nas:/b"]);
        let prober = hung.prober();
        let paths = ["/a", "nas:/b", "/c"];
        settle(&prober, &paths, &["nas:/b"]);
        hung.take_calls();
        assert_eq!(silent(&prober, &paths, LONG), ["nas:/b"]);
        assert_eq!(hung.take_calls(), 2);

        hung.set(&[]);
        wait_until(|| prober.shared.lock().running.is_empty());
        assert_eq!(silent(&prober, &paths, LONG), [""; 0]);
        assert_eq!(hung.take_calls(), 3);
        wait_until(|| prober.shared.lock().threads == 1);
    }

    #[test]
    fn two_hung_mounts_and_two_threads_stuck() {
        let hung = Arc::new(Hung::default());
        hung.set(&["/a", "nas:/b"]);
        let prober = hung.prober();
        settle(&prober, &["/a", "nas:/b", "/c", "/d"], &["/a", "nas:/b"]);
        assert_eq!(prober.shared.lock().running.len(), 2);
    }

    #[test]
    fn a_dead_server_with_many_mounts_leaves_threads_for_the_others() {
        let hung = Arc::new(Hung::default());
        let dead: Vec<_> = (0..20).map(|number| format!("dead:/{number}")).collect();
        let dead: Vec<_> = dead.iter().map(String::as_str).collect();
        hung.set(&dead);
        let prober = hung.prober();
        settle(&prober, &[&*dead, &["alive:/x", "/local"]].concat(), &dead);
        assert_eq!(prober.shared.lock().running.len(), SERVER_THREADS_MAX);
    }

    #[test]
    fn however_many_servers_die_threads_are_bounded_and_local_disks_answer() {
        let hung = Arc::new(Hung::default());
        let dead: Vec<_> = (0..100).map(|number| format!("dead{number}:/")).collect();
        let dead: Vec<_> = dead.iter().map(String::as_str).collect();
        hung.set(&dead);
        let prober = hung.prober();
        let paths = [&*dead, &["/local"]].concat();
        settle(&prober, &paths, &dead);
        assert_eq!(prober.shared.lock().running.len(), REMOTE_THREADS_MAX);
        assert!(prober.shared.lock().threads <= THREADS_MAX);

        hung.set(&[]);
        wait_until(|| prober.shared.lock().running.is_empty());
        assert_eq!(silent(&prober, &paths, LONG), [""; 0]);
    }

    #[test]
    fn a_late_answer_is_not_taken_for_another_mounts() {
        let hung = Arc::new(Hung::default());
        hung.set(&["/a", "/b"]);
        let prober = hung.prober();
        while hung.calls.lock().unwrap().is_empty() {
            assert_eq!(silent(&prober, &["/a"], BRIEF), ["/a"]);
        }
        while hung.calls.lock().unwrap().len() < 2 {
            assert_eq!(silent(&prober, &["/b"], BRIEF), ["/b"]);
        }
        hung.set(&["/b"]);
        wait_until(|| prober.shared.lock().running.len() == 1);
        assert_eq!(silent(&prober, &["/b"], LONG), ["/b"]);
        hung.set(&[]);
    }

    #[test]
    fn threads_end_with_the_prober() {
        let prober = Prober::new(Box::new(statfs));
        assert_eq!(silent(&prober, &["/"], LONG), [""; 0]);
        let shared = Arc::clone(&prober.shared);
        drop(prober);
        wait_until(|| shared.lock().threads == 0);
    }
}
