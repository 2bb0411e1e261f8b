//! A real collector, started, asked, killed and started again.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use belfry_common::{
    client::{self, ConnectError},
    identity::{Identity, JoinToken, client_config},
    quic::FrameReader,
    wire::frame::Kind,
};
use quinn::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    binaries, http,
    process::Process,
    wait::{SOON, eventually},
};

/// Batches that are under way while an agent has nothing to make up for.
const SPOOL_AT_REST: f64 = 5.0;
/// How long a collector may take to stop in order.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// A collector with a directory of its own.
#[derive(Debug)]
pub struct Collector {
    // First, so that it is dead before its directory is deleted.
    process: Option<Process>,
    directory: TempDir,
    address: Option<SocketAddr>,
    listen: SocketAddr,
    http: SocketAddr,
    launcher: Vec<String>,
}

impl Collector {
    /// A collector that runs with its defaults, except that it evaluates no rules.
    pub async fn start() -> Self {
        Self::start_with("shipped_rules = false").await
    }

    /// A collector that runs with this configuration.
    pub async fn start_with(config: &str) -> Self {
        let mut collector = Self::prepare(config);
        collector.restart().await;
        collector
    }

    /// A collector that evaluates these rules and no others; they are in `rules.yml` of its [`Self::scratch`].
    pub async fn start_with_rules(rules: &str) -> Self {
        let mut collector = Self::prepare("");
        let path = collector.scratch().join("rules.yml");
        fs::write(&path, rules).unwrap();
        collector.configure(&format!("shipped_rules = false\nrules = [{:?}]", path.to_str().unwrap()));
        collector.restart().await;
        collector
    }

    /// A collector that does not run yet.
    #[must_use]
    pub fn prepare(config: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("belfry-test-").tempdir().unwrap();
        fs::create_dir(directory.path().join("data")).unwrap();
        let collector = {
            let any = ([127, 0, 0, 1], 0).into();
            Self { process: None, directory, address: None, listen: any, http: any, launcher: Vec::new() }
        };
        collector.configure(config);
        collector
    }

    /// Replaces the configuration; it counts from the next start on.
    pub fn configure(&self, config: &str) {
        fs::write(self.config_path(), config).unwrap();
    }

    /// Listens on this address from the next start on, instead of any free one.
    pub fn listen_on(&mut self, address: SocketAddr) {
        self.listen = address;
    }

    /// Serves HTTP on this address from the next start on, instead of any free one of this machine alone.
    pub fn serve_http_on(&mut self, address: SocketAddr) {
        self.http = address;
    }

    /// Puts another program and its arguments before the collector's from the next start on.
    pub fn launch_with(&mut self, launcher: &[&str]) {
        self.launcher = launcher.iter().map(ToString::to_string).collect();
    }

    /// Starts the process without waiting for anything.
    pub fn launch(&mut self) {
        // One that still runs is dead before the next opens the same files.
        self.process = None;
        // What is left of the last run would be taken for the address of this one.
        drop(fs::remove_file(self.data_directory().join("collector")));
        let program = binaries::belfry();
        let mut command = match self.launcher.split_first() {
            Some((launcher, arguments)) => {
                let mut command = Command::new(launcher);
                command.args(arguments).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(["collect", "--listen", &self.listen.to_string(), "--http", &self.http.to_string(), "--data-dir"]);
        command.arg(self.data_directory()).arg("--config").arg(self.config_path());
        self.process = Some(Process::start(&mut command, &self.directory.path().join("collector.log")));
        self.address = None;
    }

    /// Starts the collector, again or for the first time, and waits until it answers.
    pub async fn restart(&mut self) {
        self.launch();
        self.ready().await;
    }

    /// Starts it although it cannot start; what it says of that.
    pub async fn refuse_to_start(&mut self) -> String {
        self.launch();
        let status = self.process_mut().end(SOON).await;
        assert!(!status.success(), "the collector should not have started");
        self.process().log()
    }

    /// Waits until the collector answers.
    pub async fn ready(&mut self) {
        let directory = self.data_directory();
        let process = self.process.as_mut().unwrap();
        let address = eventually("the collector answers", SOON, async || {
            assert!(process.ended().is_none(), "the collector ended at its start");
            let address: SocketAddr = Identity::collector_address(&directory)?.parse().ok()?;
            let admin = Admin { directory: directory.clone(), address };
            admin.try_ask(&json!({"request": "health"})).await.ok().map(|_| address)
        });
        self.address = Some(address.await);
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
        self.process.as_mut().expect("the collector was started")
    }

    /// The process of the last start.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the collector was started")
    }

    /// Where agents and clients reach it, this time.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address.expect("the collector is ready")
    }

    /// Where health and metrics are, this time.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        let log = self.process().log();
        let line = log.lines().rfind(|line| line.contains("collector ready")).unwrap();
        line.split_whitespace().find_map(|word| word.strip_prefix("http=")).unwrap().parse().unwrap()
    }

    /// Everything that it keeps.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A directory for the test's own files that goes with the collector.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The configuration's file.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.directory.path().join("collector.toml")
    }

    /// What it answers over HTTP: the status, and the body.
    #[must_use]
    pub fn get(&self, path: &str) -> (u16, String) {
        http::get(self.http_address(), path).unwrap_or_else(|| panic!("no answer to {path}"))
    }

    /// A number of the collector's own metrics, as Prometheus would scrape it.
    #[must_use]
    pub fn own_metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} is not among the metrics: {text}")).parse().unwrap()
    }

    /// The administrator that the collector makes for its own machine.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin { directory: self.data_directory(), address: self.address() }
    }

    /// A token for one agent of any name.
    pub async fn token(&self) -> JoinToken {
        self.admin().token(json!({"role": "agent", "ttl_ms": 3_600_000, "uses": 1, "names": "*"})).await
    }

    /// A fresh identity for an agent of this name, by the way that real ones take.
    pub async fn join(&self, name: &str) -> Identity {
        client::join(&self.token().await, &self.address().to_string(), name).await.unwrap()
    }

    /// A fresh identity for a person.
    pub async fn join_as(&self, role: &str, name: &str) -> Identity {
        let wish = json!({"role": role, "ttl_ms": 3_600_000, "uses": 1, "names": "*"});
        let token = self.admin().token(wish).await;
        client::join(&token, &self.address().to_string(), name).await.unwrap()
    }
}

/// Asks the collector as its administrator would.
#[derive(Debug, Clone)]
pub struct Admin {
    directory: PathBuf,
    address: SocketAddr,
}

impl Admin {
    /// The answer to a request.
    pub async fn ask(&self, request: Value) -> Value {
        self.try_ask(&request).await.unwrap_or_else(|error| panic!("{request}: {error:?}"))
    }

    /// The answer to a request; null if it is empty.
    ///
    /// # Errors
    /// The collector's refusal, or that it is not there.
    pub async fn try_ask(&self, request: &Value) -> Result<Value, ConnectError> {
        let identity = Identity::load(&self.directory)?;
        ask(&identity, self.address, request).await
    }

    /// A token by these wishes.
    pub async fn token(&self, wish: Value) -> JoinToken {
        let created = self.ask(with_request("create_token", wish)).await;
        JoinToken::parse(created["token"].as_str().unwrap()).unwrap()
    }

    /// What `belfry nodes` knows of a node.
    pub async fn node(&self, name: &str) -> Value {
        let nodes = self.ask(json!({"request": "nodes"})).await;
        nodes.as_array().unwrap().iter().find(|node| node["name"] == name).cloned().unwrap_or(Value::Null)
    }

    /// A number of the collector's account of itself.
    pub async fn health(&self, field: &str) -> u64 {
        self.ask(json!({"request": "health"})).await[field].as_u64().unwrap()
    }

    /// Waits until an agent says of itself that its spool holds nothing but what it has just made.
    pub async fn spool_is_sent(&self, node: &str, within: Duration) {
        let began = self.ask(json!({"request": "health"})).await["time"].as_str().unwrap().to_string();
        let request =
            json!({"request": "tail", "selectors": ["belfry_agent_spool_batches"], "node": node, "since_ms": null});
        let mut lines = self.follow(&request).await;
        let sent = async {
            // What comes late tells of before.
            let is_news = |line: &Value| line["time"].as_str().is_some_and(|time| time > began.as_str());
            let is_sent = |line: &Value| line["value"].as_f64().is_some_and(|batches| batches <= SPOOL_AT_REST);
            while !lines.next(within).await.is_some_and(|line| is_news(&line) && is_sent(&line)) {}
        };
        tokio::time::timeout(within, sent).await.expect("the agent's spool is sent");
    }

    /// Opens a stream of lines.
    pub async fn follow(&self, request: &Value) -> Lines {
        let identity = Identity::load(&self.directory).unwrap();
        let connection = connect(&identity, self.address).await.unwrap();
        let reader = send(&connection, request).await.unwrap();
        Lines { _connection: connection, reader, buffer: Vec::new() }
    }
}

/// The answer to a request of anybody.
///
/// # Errors
/// The collector's refusal, or that it is not there.
pub async fn ask(identity: &Identity, address: SocketAddr, request: &Value) -> Result<Value, ConnectError> {
    let connection = connect(identity, address).await?;
    let mut reader = send(&connection, request).await?;
    let mut document = Vec::new();
    loop {
        match reader.next_within(SOON).await? {
            (Kind::Reply, piece) => document.extend_from_slice(&piece),
            (Kind::End, _) => break,
            (Kind::Failure, payload) => return Err(client::refusal(&payload)),
            (kind, _) => panic!("{kind:?} in the answer to {request}"),
        }
    }
    Ok(if document.is_empty() { Value::Null } else { serde_json::from_slice(&document).unwrap() })
}

async fn connect(identity: &Identity, address: SocketAddr) -> Result<Connection, ConnectError> {
    client::connect(&address.to_string(), client_config(identity)?).await
}

async fn send(connection: &Connection, request: &Value) -> Result<FrameReader, ConnectError> {
    let (mut writer, reader) = client::open(connection).await?;
    writer.send_bytes(Kind::Request, request.to_string().as_bytes()).await?;
    Ok(reader)
}

fn with_request(name: &str, mut fields: Value) -> Value {
    fields["request"] = name.into();
    fields
}

/// Lines of JSON as they come.
#[derive(Debug)]
pub struct Lines {
    _connection: Connection,
    reader: FrameReader,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next line; `None` when the stream or the collector is gone.
    pub async fn next(&mut self, within: Duration) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            match self.reader.next_within(within).await {
                Ok((Kind::Reply, piece)) => self.buffer.extend_from_slice(&piece),
                _ => return None,
            }
        }
    }
}
