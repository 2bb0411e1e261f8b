//! What `belfry` can be told to do, one file per command.
//!
//! A command parses its arguments, asks, and hands the answer to [`render`](crate::render). Absent: how anything is laid out, and
//! how the collector does what it is asked.

pub(crate) mod alerts;
pub(crate) mod collect;
mod completion;
pub(crate) mod doctor;
pub(crate) mod explain;
mod follow;
pub(crate) mod join;
pub(crate) mod nodes;
pub(crate) mod query;
pub(crate) mod rules;
pub(crate) mod simulate;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod tail;
mod times;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod watch;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::{
    Cli, Command,
    client::Client,
    render::{
        machine,
        output::{self, Color, Format, Output},
        style, text,
    },
};

/// What every command understands.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// How to print: tables are for people, the rest stays the same for scripts
    #[arg(short, long, global = true, value_enum, hide_possible_values = true, value_name = "table|json|jsonl|csv")]
    pub(crate) output: Option<Format>,
    /// The collector's address [default: the one that was joined, or of the collector on this machine]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) collector: Option<String>,
    /// Who asks: a directory with an identity [default: the user's, else that of the collector on this machine]
    #[arg(long, global = true, value_name = "DIR", env = "BELFRY_IDENTITY", hide_env_values = true)]
    pub(crate) identity: Option<PathBuf>,
    /// When to use colours; `auto` heeds NO_COLOR
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, hide_possible_values = true, value_name = "auto|always|never")]
    pub(crate) color: Color,
    /// Log more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Global {
    /// Standard output, in the form asked for or else in this one.
    pub(crate) fn output(&self, default: Format) -> Output {
        self.output_as(self.output.unwrap_or(default))
    }

    /// Standard output, in this form whatever was asked for.
    pub(crate) fn output_as(&self, format: Format) -> Output {
        Output::new(format, self.color)
    }
}

pub(crate) fn execute(cli: &Cli) -> anyhow::Result<ExitCode> {
    let global = &cli.global;
    match &cli.command {
        Command::Up(args) => up::execute(global, args),
        Command::Collect(args) => collect::execute(global, args),
        Command::Status(args) => status::execute(global, args),
        Command::Tail(args) => tail::execute(global, args),
        Command::Query(args) => query::execute(global, args),
        Command::Alerts(args) => alerts::execute(global, args),
        Command::Rules(args) => rules::execute(global, args),
        Command::Nodes(args) => nodes::execute(global, args),
        Command::Token(args) => token::execute(global, args),
        Command::Join(args) => join::execute(global, args),
        Command::Simulate(args) => simulate::execute(global, args),
        Command::Doctor(args) => doctor::execute(global, args),
        Command::Explain(args) => explain::execute(global, args),
        Command::Store(args) => store::execute(global, args),
    }
}

/// Logs go to standard error; under systemd the journal adds the time.
pub(crate) fn start_logging(global: &Global, configured: LevelFilter) {
    let is_colored = style::is_wanted(global.color, io::stderr().is_terminal());
    log_to(BoxMakeWriter::new(io::stderr), is_colored, global, configured);
}

fn log_to(writer: BoxMakeWriter, is_colored: bool, global: &Global, configured: LevelFilter) {
    use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};
    let level = match global.verbose {
        0 => configured,
        1 => configured.max(LevelFilter::DEBUG),
        _ => LevelFilter::TRACE,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false).with_ansi(is_colored);
    tracing_subscriber::registry().with(level).with(lines).init();
}

/// Runs a client's work on one thread: connects, works, and takes its leave.
fn with_client<T>(global: &Global, work: impl AsyncFnOnce(&Client) -> anyhow::Result<T>) -> anyhow::Result<T> {
    run(global, async {
        let client = Client::connect(global).await?;
        let result = work(&client).await;
        client.close().await;
        result
    })
}

/// Runs a client's work on one thread. What writes to a reader that does not read is left behind.
fn run<T>(global: &Global, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    if global.verbose > 0 {
        start_logging(global, LevelFilter::OFF);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::ZERO);
    result
}

/// Runs a stream until it ends, somebody interrupts it, or nobody reads what it prints any more.
async fn until_unwanted(
    output: &Output,
    stream: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    tokio::select! {
        biased;
        () = interrupted() => Ok(ExitCode::SUCCESS),
        () = output.closed() => Ok(ExitCode::SUCCESS),
        result = stream => result,
    }
}

/// Ready when the process is asked to stop.
async fn interrupted() {
    // Not SIGHUP: who starts a stream with nohup means it.
    let [Ok(mut interrupt), Ok(mut terminate)] = [SignalKind::interrupt(), SignalKind::terminate()].map(signal) else {
        // Who cannot be told dies of the signal, which is as quiet.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Prints lines for people, all at once.
fn print_lines(lines: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
    let text: String = lines.into_iter().map(|line| text::escape(&line) + "\n").collect();
    Ok(output::print(&text)?)
}

/// Prints a document for scripts.
fn print_json(document: &impl Serialize) -> anyhow::Result<()> {
    Ok(output::print(&machine::json(&serde_json::to_string(document)?))?)
}

/// A length of time on the command line, such as `5m`, `1h30m` or `90s`.
fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 30s, 5m or 1h30m"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
