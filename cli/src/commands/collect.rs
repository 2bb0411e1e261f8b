//! `belfry collect`

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use belfry_common::{error_chain::ErrorChain, terminal::Terminal};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

use super::Global;
use crate::{allocator, collector::Collector, config::Settings, services::Services};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Configuration file [default: /etc/belfry/collector.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
}

/// What the command line says on top of the configuration; `belfry up` takes the same.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Overrides {
    /// Where everything is kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// UDP address for agents and clients; port 0 means any free one [default: 0.0.0.0:7460]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// TCP address for queries, health and metrics; beyond this machine with TLS and tokens [default: 127.0.0.1:7461]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<SocketAddr>,
    /// Rule files, beside those that ship with the program
    #[arg(long, value_name = "GLOB")]
    pub(crate) rules: Vec<String>,
}

/// Read if no other is named, and if it is there.
const CONFIG_FILE: &str = "/etc/belfry/collector.toml";

pub(crate) fn execute(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let settings = settings(args.config.as_deref(), &args.overrides)?;
    super::start_logging(global, tracing::level_filters::LevelFilter::INFO);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().on_thread_park(allocator::give_back).build()?;
    runtime.block_on(async {
        let mut hangup = signal(SignalKind::hangup()).context("failed to watch for SIGHUP")?;
        let collector = Collector::open(&settings).await?;
        let services = std::sync::Arc::downgrade(collector.services());
        let stop = async {
            tokio::select! {
                () = stop_signal() => {}
                () = reload_on(&mut hangup, &services) => {}
            }
        };
        collector.run(stop).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The configuration with the command line on top.
pub(crate) fn settings(config: Option<&std::path::Path>, overrides: &Overrides) -> anyhow::Result<Settings> {
    let default = std::path::Path::new(CONFIG_FILE);
    let path = config.or_else(|| default.exists().then_some(default));
    let mut settings = match path {
        Some(path) => Settings::read(path)?,
        None => Settings::default(),
    };
    if let Some(directory) = &overrides.data_dir {
        settings.data_directory.clone_from(directory);
    }
    settings.listen = overrides.listen.unwrap_or(settings.listen);
    settings.http = overrides.http.unwrap_or(settings.http);
    settings.rules.patterns.extend(overrides.rules.iter().cloned());
    Ok(settings)
}

/// Ready when the process is asked to stop.
pub(crate) async fn stop_signal() {
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let [Ok(mut terminate), Ok(mut interrupt)] = signals else {
        error!("signals cannot be received: stop the collector with SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Reads the rule files again with each signal; ready when one came because the terminal is gone.
async fn reload_on(hangup: &mut Signal, services: &std::sync::Weak<Services>) {
    let mut terminal = Terminal::at_start();
    loop {
        let signal = tokio::select! {
            signal = hangup.recv() => signal,
            never = terminal.watch() => match never {},
        };
        if signal.is_none() {
            break;
        }
        if terminal.has_just_closed() {
            return;
        }
        let Some(alerting) = services.upgrade().map(|services| services.alerting.clone()) else { break };
        match alerting.reload().await {
            Some(Ok(rules)) => info!(rules, "rules read again"),
            Some(Err(error)) => error!(error = %ErrorChain(&error), "rules refused: going on with the ones before"),
            None => break,
        }
    }
    std::future::pending::<()>().await;
}
