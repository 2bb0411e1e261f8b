//! What is done by the clock: the collector's own series each second, connections whose time is over, sightings, renewals, retention.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use belfry_common::{clock, error_chain::ErrorChain, model::Timestamp, stages::Failure};
use belfry_store::NodeId;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    fleet::OwnSeries,
    hub::Arrival,
    own_counts::own_counts,
    services::Services,
    state::{
        StateError, certificates, events, http_tokens,
        nodes::{self, Sighting},
        tokens,
    },
};

/// How often a node's last sign of life is written down.
const SIGHTINGS_EVERY: u64 = 60;
const RETENTION_EVERY: u64 = 600;
/// Events are kept this long, and so many at most.
const EVENTS_AGE_MS: i64 = 90 * 24 * 3600 * 1000;
const EVENTS_MAX: u64 = 1_000_000;

/// Runs until the token is cancelled.
pub(crate) async fn run(services: Arc<Services>, token: CancellationToken) -> Result<(), Failure> {
    let mut own = OwnSeries::new();
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut seconds: u64 = 0;
    loop {
        tokio::select! {
            biased;
            () = token.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let now = clock::now();
        match services.writer.statistics.is_full.load(Relaxed) {
            true => services.fleet.close(now),
            false => services.fleet.open(now),
        }
        publish(&services, &mut own, now);
        services.connections.close_refused(&services.access, now);
        services.access.renew_collector(now);
        seconds += 1;
        // That an agent took leave is to be known to the next run; when it was seen may lag.
        if services.fleet.take_departures() || seconds.is_multiple_of(SIGHTINGS_EVERY) {
            report("sightings", note_sightings(&services).await);
        }
        if seconds.is_multiple_of(SIGHTINGS_EVERY) {
            keep_identity(&services, now).await;
            services.series_caps.keep(|node| services.head.contains(node));
            services.writer.wake();
        }
        if seconds.is_multiple_of(RETENTION_EVERY) {
            report("retention", prune(&services, now).await);
            report("jobs", services.gpu_jobs.prune(now).await);
        }
    }
    report("sightings", note_sightings(&services).await);
    Ok(())
}

fn publish(services: &Services, own: &mut OwnSeries, now: Timestamp) {
    let batch = Arc::new(own.batch(&services.fleet.nodes(), &own_counts(services), now));
    services.head.apply(NodeId::COLLECTOR, &batch, now);
    let arrival = Arrival { node: NodeId::COLLECTOR, key: None, batch };
    services.hub.publish(&[arrival].into());
}

/// Writes down who was heard last when, for the next start.
async fn note_sightings(services: &Services) -> Result<(), StateError> {
    let sightings: Vec<Sighting> = services
        .fleet
        .nodes()
        .into_iter()
        .filter_map(|node| {
            Some(Sighting {
                node: nodes::NodeId::new(node.id.0.into())?,
                time: node.facts.heard_at.filter(|_| !node.facts.is_awaited)?,
                has_left: node.facts.has_left,
                agent_version: node.agent_version?,
                address: node.address?.to_string(),
            })
        })
        .collect();
    if !sightings.is_empty() {
        services.state.write(move |transaction| nodes::record_sightings(transaction, &sightings)).await?;
    }
    Ok(())
}

async fn keep_identity(services: &Services, now: Timestamp) {
    let kept = services.access.keep_local_identity(&services.data_directory, now).await;
    if let Err(error) = kept {
        warn!(error = %ErrorChain(&error), "local identity cannot be renewed");
    }
}

async fn prune(services: &Services, now: Timestamp) -> Result<(), StateError> {
    let retention = events::Retention { before: now.plus_millis(-EVENTS_AGE_MS), events_max: EVENTS_MAX };
    services
        .state
        .write(move |transaction| {
            events::prune(transaction, &retention)?;
            tokens::prune(transaction, now)?;
            http_tokens::prune(transaction, now)?;
            certificates::prune(transaction, now)
        })
        .await
        .map(|_| ())
}

fn report(what: &'static str, result: Result<(), StateError>) {
    if let Err(error) = result {
        warn!(what, error = %ErrorChain(&error), "database cannot be written");
    }
}
