//! `belfry` and `belfry-agent` as people at a shell and scripts use them: words in, text and an exit code out.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    binaries,
    collector::Collector,
    process::{Process, Said, finish},
    wait::{SOON, eventually},
};

/// What the surroundings of a test could say to the programs.
const VARIABLES: [&str; 3] = ["BELFRY_IDENTITY", "COLUMNS", "NO_COLOR"];
/// How long a stream may take to end when it is told to.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// `belfry`, asked by somebody.
#[derive(Debug, Clone)]
pub struct Cli {
    identity: PathBuf,
}

impl Cli {
    /// Asked by the collector's administrator on its own machine. No address is given: the directory has it.
    #[must_use]
    pub fn admin(collector: &Collector) -> Self {
        Self::of(&collector.data_directory())
    }

    /// Asked by whoever this directory says.
    #[must_use]
    pub fn of(identity: &Path) -> Self {
        Self { identity: identity.to_path_buf() }
    }

    /// The command, not started.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binaries::belfry());
        command.arg("--identity").arg(&self.identity).args(words);
        without_variables(command)
    }

    /// Runs a command that ends by itself.
    pub async fn run(&self, words: &[&str]) -> Said {
        finish(&mut self.command(words)).await
    }

    /// What a command prints that must be done.
    pub async fn done(&self, words: &[&str]) -> String {
        self.run(words).await.done()
    }

    /// The document that a command prints with `-o json`.
    pub async fn json(&self, words: &[&str]) -> Value {
        let text = self.done(&[words, &["-o", "json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}: {text}"))
    }

    /// The rows that a command prints with `-o csv`, by the names in the first line.
    pub async fn csv(&self, words: &[&str]) -> Vec<BTreeMap<String, String>> {
        csv_rows(&self.done(&[words, &["-o", "csv"]].concat()).await)
    }

    /// Starts a command that goes on until it is stopped.
    #[must_use]
    pub fn start(&self, words: &[&str]) -> Stream {
        Stream::start(&mut self.command(words))
    }
}

/// Runs `belfry-agent` to its end.
pub async fn agent(state: &Path, words: &[&str]) -> Said {
    let mut command = Command::new(binaries::belfry_agent());
    command.arg("--state-dir").arg(state).args(words);
    finish(&mut without_variables(command)).await
}

fn without_variables(mut command: Command) -> Command {
    for name in VARIABLES {
        command.env_remove(name);
    }
    command
}

/// A command that prints as things happen.
#[derive(Debug)]
pub struct Stream {
    // First, so that it is dead before its directory is deleted.
    process: Process,
    directory: TempDir,
}

impl Stream {
    /// Starts one; what it prints goes to a file of its own.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let directory = tempfile::Builder::new().prefix("belfry-test-stream-").tempdir().unwrap();
        let process = Process::start_split(command, &directory.path().join("output"), &directory.path().join("error"));
        Self { process, directory }
    }

    /// The process.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has said beside its output.
    #[must_use]
    pub fn error(&self) -> String {
        self.process.log()
    }

    /// The whole lines that it has printed.
    #[must_use]
    pub fn text(&self) -> String {
        let text = fs::read_to_string(self.directory.path().join("output")).unwrap();
        let end = text.rfind('\n').map_or(0, |end| end + 1);
        text[..end].to_string()
    }

    /// The same, each line an object.
    #[must_use]
    pub fn objects(&self) -> Vec<Value> {
        objects(&self.text())
    }

    /// Waits until what it has printed satisfies `is_enough`.
    pub async fn until(&mut self, what: &str, is_enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        eventually(what, SOON, async || {
            let objects = self.objects();
            let is_enough = is_enough(&objects);
            assert!(is_enough || self.process.ended().is_none(), "{what}: the stream has ended: {objects:?}");
            is_enough.then_some(objects)
        })
        .await
    }

    /// Asks it to stop, which it must do in order.
    pub async fn stop(mut self) -> String {
        let status = self.process.stop(STOP_WITHIN).await;
        assert!(status.success(), "{status}: {}", self.error());
        assert_eq!(self.error(), "", "it was only asked to stop");
        self.text()
    }
}

/// Lines of JSON.
#[must_use]
pub fn objects(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Comma-separated values, by the names in their first line.
#[must_use]
pub fn csv_rows(text: &str) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_reader(text.as_bytes()).deserialize().map(Result::unwrap).collect()
}

/// An object has these fields and no others.
#[track_caller]
pub fn assert_fields(object: &Value, fields: &str) {
    let mut expected: Vec<&str> = fields.split_whitespace().collect();
    expected.sort_unstable();
    let mut found: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, expected, "{object}");
}

/// A time is RFC 3339 in UTC with milliseconds.
#[track_caller]
pub fn assert_time(time: &Value) {
    let digits_as_zeros = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "0");
    assert_eq!(time.as_str().map(digits_as_zeros).as_deref(), Some("0000-00-00T00:00:00.000Z"), "{time}");
}
