//! What outlives a call: whether the library is initialised, the scenario in force, event sets and GPM samples.
//!
//! No lock is held while a call sleeps: a call that hangs leaves the others alone.

use std::{
    env,
    fmt::{self, Display},
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nvml_wrapper_sys::bindings::{nvmlEventSet_st, nvmlEventSet_t, nvmlGpmSample_st};

use crate::{
    changes::Changes,
    clock::{self, Moment},
    codes::Code,
    events::EventSet,
    gpm::Sample,
    handle::{Table, Tag},
    scenario::{Effect, Number, Scenario, Xid},
};

/// Names the scenario's file.
const SCENARIO_VARIABLE: &str = "BELFRY_NVML_STUB";

/// A scenario's file is looked at this often, and not for each of the hundreds of calls of a tick.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);
/// How long a call that hangs sleeps before it looks whether its fault is over.
const HANG_INTERVAL: Duration = Duration::from_millis(20);

static LIBRARY: Mutex<Library> = Mutex::new(Library::new());

pub(crate) fn lock() -> MutexGuard<'static, Library> {
    // A panic ends the process where it would leave an exported function: only the tests below see a poisoned lock.
    LIBRARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call that may go on: nothing befell it, or only that its first output is `value`.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) moment: Moment,
    pub(crate) value: Option<Number>,
}

/// Every call but `nvmlInit` begins here: writes it to the log and lets its faults befall it.
pub(crate) fn enter(name: &str, gpu: Option<usize>) -> Result<Call, Code> {
    lock().current()?.log(name, gpu);
    befall(name, gpu, |library| library.current())
}

/// `nvmlInit`, which reads the scenario.
pub(crate) fn init(name: &str) -> Result<(), Code> {
    lock().load()?.log(name, None);
    let call = befall(name, None, Library::load)?;
    if let Some(code) = call.loaded.scenario.init_error {
        return Err(code);
    }
    lock().users += 1;
    Ok(())
}

/// Takes back one `nvmlInit`; the last one takes everything with it but the scenario.
pub(crate) fn shutdown() -> Result<(), Code> {
    let mut library = lock();
    library.users = library.users.checked_sub(1).ok_or(Code::Uninitialized)?;
    if library.users == 0 {
        library.event_sets.clear();
        library.samples.clear();
    }
    Ok(())
}

/// Lets the first fault that matches happen, over again as long as it is to hang.
fn befall(
    name: &str,
    gpu: Option<usize>,
    current: impl Fn(&mut Library) -> Result<Arc<Loaded>, Code>,
) -> Result<Call, Code> {
    loop {
        let loaded = current(&mut lock())?;
        let mut moment = loaded.moment();
        let mut value = None;
        match loaded.scenario.fault(name, gpu, moment.since_load) {
            None => {}
            Some(Effect::Error(code)) => return Err(code),
            Some(Effect::Value(number)) => value = Some(number),
            Some(Effect::Delay(delay)) => {
                thread::sleep(delay);
                moment = loaded.moment();
            }
            Some(Effect::Crash) => process::abort(),
            Some(Effect::Hang) => {
                thread::sleep(HANG_INTERVAL);
                continue;
            }
        }
        return Ok(Call { loaded, moment, value });
    }
}

/// Everything behind the lock.
#[derive(Debug)]
pub(crate) struct Library {
    /// How often `nvmlInit` was called, less `nvmlShutdown`.
    users: usize,
    source: Option<Source>,
    loaded: Option<Arc<Loaded>>,
    /// How many scenarios were loaded.
    generations: u64,
    pub(crate) event_sets: Table<nvmlEventSet_st, EventSet>,
    /// A sample is empty until it is taken.
    pub(crate) samples: Table<nvmlGpmSample_st, Option<Sample>>,
}

impl Library {
    const fn new() -> Self {
        Self {
            users: 0,
            source: None,
            loaded: None,
            generations: 0,
            event_sets: Table::new(Tag::EventSet),
            samples: Table::new(Tag::Sample),
        }
    }

    /// The scenario in force, which may be a newer one than that of the call before.
    pub(crate) fn current(&mut self) -> Result<Arc<Loaded>, Code> {
        if self.users == 0 {
            return Err(Code::Uninitialized);
        }
        self.refresh();
        self.loaded.clone().ok_or(Code::Uninitialized)
    }

    /// The scenario of the file that the environment names now.
    fn load(&mut self) -> Result<Arc<Loaded>, Code> {
        let path = env::var_os(SCENARIO_VARIABLE).map(PathBuf::from);
        let path = path.filter(|path| path.exists()).ok_or(Code::DriverNotLoaded)?;
        if self.source.as_ref().is_none_or(|source| source.path != path) {
            self.source = Some(Source { path, stamp: None, checked: None });
            self.loaded = None;
        }
        self.refresh();
        self.loaded.clone().ok_or(Code::Unknown)
    }

    /// Reads the file if it changed. What cannot be read leaves the scenario before it in force.
    fn refresh(&mut self) {
        let Some(source) = &mut self.source else { return };
        match source.changed(clock::monotonic()) {
            Ok(None) => {}
            Ok(Some(scenario)) => {
                self.generations += 1;
                let loaded = Loaded { scenario, generation: self.generations, at: clock::monotonic() };
                self.loaded = Some(Arc::new(loaded));
            }
            Err(problem) => complain(&source.path, &problem),
        }
    }

    /// Lets a set hear of a card from now on.
    pub(crate) fn register(&mut self, set: nvmlEventSet_t, gpu: usize, types: u64) -> Result<(), Code> {
        let loaded = self.current()?;
        let set = self.event_sets.get_mut(set).ok_or(Code::InvalidArgument)?;
        set.register(gpu, types, loaded.generation, loaded.moment().since_load);
        Ok(())
    }

    /// The next event of a set, if there is one by now; else after which time there may be one, unless the scenario changes.
    pub(crate) fn next_event(&mut self, set: nvmlEventSet_t) -> Result<Result<Xid, Duration>, Code> {
        let loaded = self.current()?;
        let set = self.event_sets.get_mut(set).ok_or(Code::InvalidArgument)?;
        let (xids, seconds) = (&loaded.scenario.xids, loaded.moment().since_load);
        let next = set.next(loaded.generation, xids, seconds);
        let later = xids.iter().map(|xid| xid.at - seconds).filter(|after| *after > 0.0);
        let after = later.reduce(f64::min).and_then(|after| Duration::try_from_secs_f64(after).ok());
        Ok(next.ok_or(after.unwrap_or(Duration::MAX)))
    }

    /// What happens to the scenario's file from now on.
    pub(crate) fn changes(&self) -> Option<Changes> {
        Changes::of(&self.source.as_ref()?.path).ok()
    }

    /// Looks at the scenario's file at the next call, however lately that was done.
    pub(crate) fn look_again(&mut self) {
        if let Some(source) = &mut self.source {
            source.checked = None;
        }
    }
}

/// A scenario in force.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) scenario: Scenario,
    /// Different for each scenario of this process.
    pub(crate) generation: u64,
    at: Instant,
}

impl Loaded {
    pub(crate) fn moment(&self) -> Moment {
        Moment::now(self.at)
    }

    /// Writes a call down. One write appends one line, so that processes may share a log.
    fn log(&self, name: &str, gpu: Option<usize>) {
        let Some(path) = &self.scenario.log else { return };
        let line = gpu.map_or_else(|| format!("{name}\n"), |gpu| format!("{name} {gpu}\n"));
        let log = OpenOptions::new().create(true).append(true).open(path);
        if let Err(error) = log.and_then(|mut log| log.write_all(line.as_bytes())) {
            complain(path, &error);
        }
    }
}

/// Where the scenario comes from, and what its file was when it was last looked at.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    stamp: Option<Stamp>,
    checked: Option<Instant>,
}

/// A file's time of change in ns, inode and size.
type Stamp = (i128, u64, u64);

impl Source {
    /// The scenario of a file that is not what it was; each problem is reported once.
    fn changed(&mut self, now: Instant) -> Result<Option<Scenario>, Problem> {
        if self.checked.is_some_and(|checked| now.duration_since(checked) < CHECK_INTERVAL) {
            return Ok(None);
        }
        self.checked = Some(now);
        // The file may be gone for good, or just be replaced. It is looked at far more often than it changes: not by opening it.
        if fs::metadata(&self.path).is_ok_and(|metadata| self.stamp == Some(stamp(&metadata))) {
            return Ok(None);
        }
        let Ok(file) = File::open(&self.path) else { return Ok(None) };
        self.stamp = Some(stamp(&file.metadata().map_err(Problem::Read)?));
        let text = io::read_to_string(file).map_err(Problem::Read)?;
        Scenario::from_str(&text).map(Some).map_err(Problem::Parse)
    }
}

/// Time of the last change in ns, number and size: a file that is another has another.
fn stamp(metadata: &Metadata) -> Stamp {
    let changed_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    (changed_ns, metadata.ino(), metadata.size())
}

/// Why a scenario's file is not in force.
#[derive(Debug)]
enum Problem {
    Read(io::Error),
    Parse(toml::de::Error),
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Parse(error) => error.fmt(f),
        }
    }
}

#[expect(clippy::print_stderr, reason = "a test's files are wrong, and stderr is what a failed test shows")]
fn complain(path: &Path, problem: &dyn Display) {
    eprintln!("nvml stub: {}: {problem}", path.display());
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A directory of its own for one test.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("nvml-stub-{name}-{}", process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// Replaces a file as tests do.
        fn write(&self, text: &str) -> PathBuf {
            let (new, path) = (self.0.join("new"), self.0.join("scenario.toml"));
            fs::write(&new, text).unwrap();
            fs::rename(new, &path).unwrap();
            path
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_file_is_read_when_it_changed_and_not_too_often() {
        let directory = Directory::new("changes");
        let mut source = Source { path: directory.write("cuda_version = 1"), stamp: None, checked: None };
        let start = clock::monotonic();
        let mut version = |at_ms| {
            let changed = source.changed(start + Duration::from_millis(at_ms));
            changed.map(|scenario| scenario.map(|scenario| scenario.cuda_version)).map_err(|error| error.to_string())
        };
        assert_eq!(version(0), Ok(Some(1)));
        assert_eq!(version(20), Ok(None), "unchanged");
        directory.write("cuda_version = 2");
        assert_eq!(version(25), Ok(None), "looked at a moment ago");
        assert_eq!(version(40), Ok(Some(2)));
        directory.write("cuda_version = two");
        assert!(version(60).unwrap_err().contains("TOML parse error"));
        assert_eq!(version(80), Ok(None), "said once");
        fs::remove_file(directory.0.join("scenario.toml")).unwrap();
        assert_eq!(version(100), Ok(None), "gone");
        directory.write("cuda_version = 3");
        assert_eq!(version(120), Ok(Some(3)));
    }

    #[test]
    fn a_log_has_a_line_for_each_call() {
        let directory = Directory::new("log");
        let path = directory.0.join("calls.log");
        let scenario = Scenario::from_str(&format!("log = {path:?}")).unwrap();
        let loaded = Loaded { scenario, generation: 1, at: clock::monotonic() };
        loaded.log("nvmlDeviceGetName", Some(3));
        loaded.log("nvmlShutdown", None);
        assert_eq!(fs::read_to_string(path).unwrap(), "nvmlDeviceGetName 3\nnvmlShutdown\n");
    }

    #[test]
    fn nothing_works_before_init_and_without_a_scenario() {
        let mut library = Library::new();
        assert_eq!(library.current().err(), Some(Code::Uninitialized));
        assert_eq!(library.next_event(std::ptr::null_mut()).err(), Some(Code::Uninitialized));
        library.users = 1;
        assert_eq!(library.current().err(), Some(Code::Uninitialized));
    }
}
