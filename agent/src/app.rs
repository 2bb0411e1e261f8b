//! The composition root: builds the stages and the channels between them, and runs them until a signal.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use belfry_common::{identity::Identity, stages::Stages};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tracing::{error, info};

use crate::{
    config::Settings,
    itself::{Itself, NodeLabels},
    outbox::{LiveSlot, Outbox},
    samplers::{self, Sampler},
    sampling::Sampling,
    spool::worker::{SpoolHandle, SpoolSettings},
    statistics::Statistics,
    uplink::{Uplink, UplinkSettings},
};

/// Batches between sampling and the outbox, which never waits for anything slow.
const BATCHES_MAX: usize = 16;
/// How long leaving may take in all.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Why a run of the agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Asked to stop.
    Stopped,
    /// Asked to take up a changed configuration.
    Reload,
}

/// Every sampler, the agent's own included.
pub(crate) fn all_samplers(settings: &Settings, statistics: &Arc<Statistics>) -> Vec<Box<dyn Sampler>> {
    let mut all = samplers::all(&settings.roots);
    all.push(Box::new(Itself::new(&settings.roots, Arc::clone(statistics))));
    all.push(Box::new(NodeLabels::new(&settings.labels)));
    all
}

/// The names under which samplers can be configured.
pub(crate) fn sampler_names() -> Vec<&'static str> {
    all_samplers(&Settings::default(), &Statistics::new()).iter().map(|sampler| sampler.name()).collect()
}

/// Runs the agent until it is told to stop or to reload.
pub(crate) async fn run(settings: &Settings) -> anyhow::Result<Outcome> {
    let directory = &settings.state_directory;
    let identity = Identity::load(directory).context(
        "not enrolled: run `belfry-agent join TOKEN --collector HOST:PORT` with a token from `belfry token create`",
    )?;
    let collector = settings.collector.clone().or_else(|| Identity::collector_address(directory));
    let collector = collector.context("no collector is configured: set `collector = \"HOST:PORT\"`")?;

    let statistics = Statistics::new();
    let spool_settings = SpoolSettings {
        directory: directory.join("spool"),
        bytes_max: settings.spool_bytes_max,
        sync_interval: settings.spool_sync_interval,
    };
    let (spool, spool_thread, next_sequence) =
        SpoolHandle::start(spool_settings, Arc::clone(&statistics)).context("failed to open the spool")?;
    let live = Arc::new(LiveSlot::default());
    let (batches, batches_out) = mpsc::channel(BATCHES_MAX);
    let samplers = all_samplers(settings, &statistics);
    let sampling = Sampling::new(samplers, settings, Arc::clone(&statistics)).context("failed to start a thread")?;
    let outbox = Outbox::new(next_sequence, spool.clone(), Arc::clone(&live), Arc::clone(&statistics));
    info!(node = %identity.subject.name, collector, "agent starts");
    let uplink_settings =
        UplinkSettings { collector, state_directory: directory.clone(), interval: sampling.interval_min() };
    let uplink = Uplink { settings: uplink_settings, identity, spool, live, statistics, next_sequence };

    let mut stages = Stages::new();
    stages.spawn("sampling", |token| async move {
        sampling.run(batches, token).await;
        Ok(())
    });
    stages.spawn("outbox", |_| async move {
        outbox.run(batches_out).await;
        Ok(())
    });
    stages.spawn("uplink", |token| async move {
        uplink.run(token).await;
        Ok(())
    });
    let mut outcome = Outcome::Stopped;
    let ended = stages.run(async { outcome = wait_for_signal().await }, STOP_DEADLINE).await;
    spool_thread.stop();
    ended?;
    Ok(outcome)
}

/// Waits for the signal to stop, or to reload.
async fn wait_for_signal() -> Outcome {
    let signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = signals else {
        error!("signals cannot be received: stop the agent with SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => Outcome::Stopped,
        _ = interrupt.recv() => Outcome::Stopped,
        _ = hangup.recv() => Outcome::Reload,
    }
}
