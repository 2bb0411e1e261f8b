//! What the agent can be told to do, one file per command.

pub(crate) mod doctor;
pub(crate) mod gpu;
mod gpu_worker;
pub(crate) mod join;
mod output;
pub(crate) mod run;
pub(crate) mod sample;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
};

use tracing::level_filters::LevelFilter;

use crate::{Cli, Command, app, config::Settings};
pub(crate) use output::Format;
use output::Output;

/// Read if no other is named, and if it is there.
const CONFIG_FILE: &str = "/etc/belfry/agent.toml";

pub(crate) fn execute(cli: &Cli) -> anyhow::Result<ExitCode> {
    let settings = settings(cli)?;
    let output = Output::new(cli.output, cli.color);
    match &cli.command {
        Command::Run(args) => run::execute(cli, args, settings),
        Command::Join(args) => join::execute(cli, args, &settings, output),
        Command::Sample(args) => sample::execute(args, &settings, output),
        Command::Doctor(args) => doctor::execute(args, &settings, output),
        Command::Gpu(args) => gpu::execute(args, &settings, output),
        Command::GpuWorker(args) => gpu_worker::execute(args),
    }
}

/// The configuration, with what the command line says on top.
pub(crate) fn settings(cli: &Cli) -> anyhow::Result<Settings> {
    let default = Path::new(CONFIG_FILE);
    let path = cli.config.as_deref().or_else(|| default.exists().then_some(default));
    let mut settings = match path {
        Some(path) => Settings::read(path, &app::sampler_names())?,
        None => Settings::default(),
    };
    if let Some(directory) = &cli.state_dir {
        settings.state_directory.clone_from(directory);
    }
    Ok(settings)
}

/// How much to log: what the configuration says, or more.
fn log_level(cli: &Cli, settings: &Settings) -> LevelFilter {
    let configured = LevelFilter::from(settings.log);
    match cli.verbose {
        0 => configured,
        1 => configured.max(LevelFilter::DEBUG),
        _ => LevelFilter::TRACE,
    }
}

/// Logs go to standard error; under systemd the journal adds the time.
fn start_logging(level: LevelFilter) -> tracing_subscriber::reload::Handle<LevelFilter, tracing_subscriber::Registry> {
    use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};
    let (filter, handle) = tracing_subscriber::reload::Layer::new(level);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    let lines = lines.with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(filter).with(lines).init();
    handle
}

/// The lines of an error: what failed, and below it why.
pub(crate) fn print_error(error: &anyhow::Error) -> io::Result<()> {
    let mut out = io::stderr().lock();
    writeln!(out, "belfry-agent: {error}")?;
    for cause in error.chain().skip(1) {
        writeln!(out, "  {cause}")?;
    }
    Ok(())
}

/// Async work on one thread: the agent is a guest on its node.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
