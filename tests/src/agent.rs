//! A real agent.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, ExitStatus},
    time::Duration,
};

use belfry_common::identity::Identity;
use tempfile::TempDir;

use crate::{
    binaries,
    collector::Collector,
    gpus::{self, Gpus},
    process::Process,
};

/// A configuration under which an agent makes four batches a second.
pub const BRISK: &str = "[samplers.load]\ninterval = \"250ms\"\n";

/// How long an agent may take to stop in order.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// An agent with a directory of its own.
#[derive(Debug)]
pub struct Agent {
    // First, so that it is dead before its directory is deleted.
    process: Option<Process>,
    directory: TempDir,
    environment: Vec<(String, PathBuf)>,
    /// Who it is.
    pub identity: Identity,
}

impl Agent {
    /// An agent that has joined and does not run yet. It will connect to `address`.
    pub async fn join(collector: &Collector, name: &str, address: SocketAddr) -> Self {
        let directory = tempfile::Builder::new().prefix("belfry-test-agent-").tempdir().unwrap();
        let identity = collector.join(name).await;
        let agent = Self { process: None, directory, environment: Vec::new(), identity };
        agent.identity.save(&agent.state_directory()).unwrap();
        Identity::save_collector_address(&agent.state_directory(), &address.to_string()).unwrap();
        agent.configure(BRISK);
        agent
    }

    /// Replaces the configuration; it counts from the next start on.
    pub fn configure(&self, config: &str) {
        fs::write(self.config_path(), config).unwrap();
    }

    /// Gives it these GPUs, with the rest of its configuration; it counts from the next start on.
    pub fn equip(&mut self, gpus: &Gpus, config: &str) {
        self.configure(&format!("{config}{}", gpus.config()));
        self.environment = vec![(gpus::SCENARIO.to_owned(), gpus.scenario())];
    }

    /// Starts it, again or for the first time.
    pub fn start(&mut self) {
        let mut command = Command::new(binaries::belfry_agent());
        command.arg("--state-dir").arg(self.state_directory()).arg("--config").arg(self.config_path());
        // Ends with the test, however that ends: its standard input closes.
        command.args(["run", "--with-parent"]).envs(self.environment.iter().cloned());
        self.process = Some(Process::start(&mut command, &self.directory.path().join("agent.log")));
    }

    /// Kills it: what it had in mind is gone.
    pub fn kill(&mut self) {
        self.process_mut().kill();
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(&mut self) -> ExitStatus {
        self.process_mut().stop(STOP_WITHIN).await
    }

    /// The process of the last start.
    pub fn process_mut(&mut self) -> &mut Process {
        self.process.as_mut().expect("the agent was started")
    }

    /// The process of the last start.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the agent was started")
    }

    /// Identity and spool.
    #[must_use]
    pub fn state_directory(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn config_path(&self) -> PathBuf {
        self.directory.path().join("agent.toml")
    }
}
