//! A process of a test: its log is kept in a file and shown when the test fails, and it never outlives the test.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::RangeInclusive,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{SOON, eventually};

/// Lines of the log that a failing test shows.
const LINES_SHOWN: usize = 80;

/// Ports that the system gives to nobody by itself.
const PORTS: RangeInclusive<u16> = 20_000..=30_000;

/// An address for a program that takes a number and does not say which one it was given: free now, and none that another test gets.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_address() -> SocketAddr {
    let any = || TcpListener::bind((Ipv4Addr::LOCALHOST, fastrand::u16(PORTS))).ok()?.local_addr().ok();
    std::iter::repeat_with(any).take(1000).flatten().next().expect("a port is free")
}

/// A running process, or one that has ended and not been thrown away.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts a program with all that it says appended to `log`.
    #[must_use]
    pub fn start(command: &mut Command, log: &Path) -> Self {
        Self::start_split(command, log, log)
    }

    /// Starts a program with its output appended to one file and what it says beside that to another.
    #[must_use]
    pub fn start_split(command: &mut Command, output: &Path, log: &Path) -> Self {
        let open = |path: &Path| -> File { OpenOptions::new().create(true).append(true).open(path).unwrap() };
        command.stdin(Stdio::piped()).stdout(open(output)).stderr(open(log));
        let child = command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
        Self { child, log: log.to_path_buf(), status: None }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far, and what those before it have written to the same file.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap();
        }
        self.status
    }

    /// How it ends, which must be within this time.
    pub async fn end(&mut self, within: Duration) -> ExitStatus {
        eventually("the process ends", within, async || self.ended()).await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            // A process that has just ended cannot be told anything.
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(&mut self, within: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.end(within).await
    }

    /// Kills it, as nothing can refuse.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            drop(self.child.kill());
            self.status = self.child.wait().ok();
        }
    }

    /// Processor time that its threads have used, without those that have ended.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        cpu(self.id())
    }

    /// Resident memory in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.id())
    }

    /// The processes that it has started and that run.
    #[must_use]
    pub fn children(&self) -> Vec<u32> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id())).unwrap();
        let lists = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
        lists.flat_map(|list| list.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>()).collect()
    }
}

/// Processor time that the threads of a process have used, without those that have ended.
#[must_use]
pub fn cpu(process: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let nanos = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Resident memory of a process in bytes.
#[must_use]
pub fn resident_bytes(process: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{process}/statm")).unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
            let status = self.status.map_or("unknown".into(), |status| match status.signal() {
                Some(signal) => format!("signal {signal}"),
                None => status.to_string(),
            });
            // A broken standard error is nothing to fail for twice.
            drop(writeln!(io::stderr().lock(), "--- {} ({status})\n{shown}\n---", self.log.display()));
        }
    }
}

/// What a program that ran to its end said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub error: String,
}

impl Said {
    /// What it printed, if it did what it was asked for and had nothing to add.
    #[track_caller]
    pub fn done(self) -> String {
        assert!(self.code == Some(0) && self.error.is_empty(), "not done: {self:?}");
        self.output
    }

    /// Its words, if it ended with this code and printed nothing.
    #[track_caller]
    pub fn refused(self, code: i32) -> String {
        assert!(self.code == Some(code) && self.output.is_empty(), "not refused with {code}: {self:?}");
        assert!(!self.error.is_empty(), "refused without a word");
        self.error
    }
}

/// Runs a program to its end, off the test's own thread.
pub async fn run(program: &Path, arguments: &[OsString]) -> Said {
    finish(Command::new(program).args(arguments)).await
}

/// Runs a program to its end, which must come soon, with its output in pipes and off the test's own thread.
pub async fn finish(command: &mut Command) -> Said {
    settle(command, Child::wait_with_output).await
}

/// Reads the first line that a program prints and no more, as `head -1` does, and sees how it takes that.
pub async fn read_one_line(command: &mut Command) -> Said {
    settle(command, |mut child| {
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line)?;
        Ok(Output { stdout: line.into_bytes(), ..child.wait_with_output()? })
    })
    .await
}

async fn settle(command: &mut Command, work: impl FnOnce(Child) -> io::Result<Output> + Send + 'static) -> Said {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let id = Pid::from_child(&child);
    let ended = tokio::task::spawn_blocking(move || work(child));
    let Ok(output) = tokio::time::timeout(SOON, ended).await else {
        // Nobody has waited for it to the end, so that the number is still its own.
        let _ = kill_process(id, Signal::KILL);
        panic!("{command:?} has not ended within {SOON:?}");
    };
    let output = output.unwrap().unwrap();
    Said {
        code: output.status.code(),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        error: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
