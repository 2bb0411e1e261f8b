//! The composition root: builds the stages and the channels between them, and runs them until a signal.

use std::{
    io,
    sync::{Arc, atomic::AtomicU64},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use belfry_common::{identity::Identity, stages::Stages, terminal::Terminal, wire::message::Inventory};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    config::Settings,
    gpu,
    itself::{Itself, NodeLabels},
    outbox::{LiveSlot, Outbox},
    samplers::{self, Sampler},
    sampling::Sampling,
    spool::worker::{SpoolHandle, SpoolSettings},
    statistics::Statistics,
    uplink::{Uplink, UplinkSettings},
    urgent::Urgent,
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
fn all_samplers(
    settings: &Settings,
    statistics: &Arc<Statistics>,
    urgent: &Arc<Urgent>,
    inventory: &watch::Sender<Inventory>,
) -> Vec<Box<dyn Sampler>> {
    let mut all = samplers::all(&settings.roots);
    all.push(Box::new(Itself::new(&settings.roots, Arc::clone(statistics))));
    all.push(Box::new(NodeLabels::new(&settings.labels)));
    // New ones come last: the place is the group's number.
    all.extend(gpu::samplers(settings, urgent, inventory));
    all
}

/// Every sampler, for a run that sends nothing.
pub(crate) fn dry_samplers(settings: &Settings, statistics: &Arc<Statistics>) -> Vec<Box<dyn Sampler>> {
    all_samplers(settings, statistics, &Urgent::new(), &watch::Sender::default())
}

/// The names under which samplers can be configured.
pub(crate) fn sampler_names() -> Vec<&'static str> {
    dry_samplers(&Settings::default(), &Statistics::new()).iter().map(|sampler| sampler.name()).collect()
}

/// Runs the agent until it is told to stop or to reload.
pub(crate) async fn run(settings: &Settings, parent: &Parent) -> anyhow::Result<Outcome> {
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
    let urgent = Urgent::new();
    let (inventory, inventories) = watch::channel(Inventory::default());
    let samplers = all_samplers(settings, &statistics, &urgent, &inventory);
    let sampling = Sampling::new(samplers, settings, Arc::clone(&statistics)).context("failed to start a thread")?;
    let next_sequence = Arc::new(AtomicU64::new(next_sequence));
    let outbox = Outbox::new(Arc::clone(&next_sequence), spool.clone(), Arc::clone(&live), Arc::clone(&statistics));
    info!(node = %identity.subject.name, collector, "agent starts");
    let uplink_settings =
        UplinkSettings { collector, state_directory: directory.clone(), interval: sampling.interval_min() };
    let uplink = Uplink { settings: uplink_settings, identity, spool, live, statistics, next_sequence, inventories };

    let mut stages = Stages::new();
    stages.spawn("sampling", |token| async move {
        sampling.run(urgent, batches, token).await;
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
    let ended = stages.run(async { outcome = wait_for_signal(parent).await }, STOP_DEADLINE).await;
    spool_thread.stop();
    ended?;
    Ok(outcome)
}

/// The process that the agent shall not outlive, if there is one.
#[derive(Debug, Clone)]
pub(crate) struct Parent {
    is_gone: Option<CancellationToken>,
}

impl Parent {
    pub(crate) fn none() -> Self {
        Self { is_gone: None }
    }

    /// Watches standard input, which ends with the process at its other end, however that dies.
    pub(crate) fn watch() -> io::Result<Self> {
        let is_gone = CancellationToken::new();
        let token = is_gone.clone();
        thread::Builder::new().name("parent".into()).stack_size(64 * 1024).spawn(move || {
            // An error means the same as the end.
            drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
            token.cancel();
        })?;
        Ok(Self { is_gone: Some(is_gone) })
    }

    async fn gone(&self) {
        match &self.is_gone {
            Some(is_gone) => is_gone.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

/// Waits for the signal to stop, or to reload.
async fn wait_for_signal(parent: &Parent) -> Outcome {
    let signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = signals else {
        error!("signals cannot be received: stop the agent with SIGKILL");
        return std::future::pending().await;
    };
    let mut terminal = Terminal::at_start();
    tokio::select! {
        _ = terminate.recv() => Outcome::Stopped,
        _ = interrupt.recv() => Outcome::Stopped,
        _ = hangup.recv() => if terminal.has_just_closed() { Outcome::Stopped } else { Outcome::Reload },
        () = parent.gone() => Outcome::Stopped,
        never = terminal.watch() => match never {},
    }
}
