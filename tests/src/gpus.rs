//! GPUs that a scenario plays: the stub of NVML, loaded as the real library is, and a kernel log to write into.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    binaries,
    cli::objects,
    process::{Said, finish},
    wait::{SOON, eventually},
};

/// The variable by which the stub finds its scenario.
pub const SCENARIO: &str = "BELFRY_NVML_STUB";

/// A machine's GPUs.
#[derive(Debug)]
pub struct Gpus {
    directory: TempDir,
    /// Open for both, so that it never ends and never blocks.
    kernel_log: File,
}

impl Gpus {
    /// GPUs as this scenario says; the form is that of the stub.
    #[must_use]
    pub fn new(scenario: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("belfry-test-gpus-").tempdir().unwrap();
        let log = directory.path().join("kmsg");
        let made = Command::new("mkfifo").arg(&log).status().unwrap();
        assert!(made.success(), "no named pipe");
        let kernel_log = OpenOptions::new().read(true).write(true).open(log).unwrap();
        let gpus = Self { directory, kernel_log };
        gpus.set(scenario);
        gpus
    }

    /// Changes the scenario, at once for whoever is playing it.
    pub fn set(&self, scenario: &str) {
        let (path, new) = (self.scenario(), self.directory.path().join("new.toml"));
        fs::write(&new, scenario).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Where the scenario is.
    #[must_use]
    pub fn scenario(&self) -> PathBuf {
        self.directory.path().join("scenario.toml")
    }

    /// A file beside it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The part of an agent's configuration that makes it read these GPUs, and none of another maker's that the machine may have.
    #[must_use]
    pub fn config(&self) -> String {
        let (library, log) = (binaries::nvml_stub(), self.directory.path().join("kmsg"));
        let amd = ["gpu_amd", "gpu_amd_condition", "gpu_amd_info"];
        let off: String = amd.map(|sampler| format!("[samplers.{sampler}]\nenabled = false\n")).concat();
        format!("[gpu]\nlibrary = {library:?}\nkernel_log = {log:?}\n{off}")
    }

    /// The kernel logs a line, of the priority and facility that the driver's messages have.
    pub fn log(&mut self, text: &str) {
        let since = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = since.tv_sec * 1_000_000 + since.tv_nsec / 1000;
        self.kernel_log.write_all(format!("4,1,{micros},-;{text}\n").as_bytes()).unwrap();
    }

    /// `belfry-agent` with these words, to its end.
    pub async fn agent(&self, words: &[&str]) -> Said {
        let config = self.file("agent.toml");
        fs::write(&config, self.config()).unwrap();
        let state = self.file("state");
        fs::create_dir_all(&state).unwrap();
        let mut command = Command::new(binaries::belfry_agent());
        command.arg("--config").arg(config).arg("--state-dir").arg(state).args(words);
        finish(command.env(SCENARIO, self.scenario())).await
    }

    /// What an agent samples once, its driver having started in time: each reading as `belfry tail` shows it.
    pub async fn sampled(&self) -> Vec<Value> {
        let starts = |reading: &Value| {
            reading["metric"] == "gpu_driver_state"
                && reading["labels"]["state"] == "starting"
                && reading["value"] == 1.0
        };
        eventually("the driver has started", SOON, async || {
            let readings = objects(&self.agent(&["sample", "--once", "-o", "jsonl"]).await.done());
            (!readings.iter().any(starts)).then_some(readings)
        })
        .await
    }
}

/// How many processes read GPUs for the agent that has this state directory.
#[must_use]
pub fn workers(state: &Path) -> usize {
    let words = |entry: io::Result<fs::DirEntry>| fs::read(entry.ok()?.path().join("cmdline")).ok();
    let all = fs::read_dir("/proc").unwrap().filter_map(words);
    let is_worker = |words: &Vec<u8>| {
        let words = String::from_utf8_lossy(words);
        words.contains("gpu-worker") && words.contains(state.to_str().unwrap())
    };
    all.filter(is_worker).count()
}
