//! A load of the agents' real protocol: real identities, real connections, the values of 8-GPU nodes.
//!
//! Each simulated node is a task with its own socket. It has no spool: what is not acknowledged when a connection breaks is sent
//! again on the next one. Samplers, clocks and disks of real agents are absent; everything that the collector sees is not.

mod catalogue;
mod demo;
mod generator;
mod meter;
mod node;

use std::{sync::Arc, time::Duration};

use belfry_common::{
    client::{self, ConnectError},
    clock,
    identity::{Identity, JoinToken},
};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use demo::DemoNode;
pub(crate) use meter::{Meter, Report};
use node::{Node, Source};

/// Names of simulated nodes begin with this.
pub(crate) const NAME_PREFIX: &str = "sim-";
/// Joins at a time: each is a handshake, two keys and a database write.
const JOINS_AT_ONCE: usize = 32;

/// What to simulate.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) collector: String,
    pub(crate) nodes: usize,
    pub(crate) what: What,
    pub(crate) interval: Duration,
}

/// What simulated nodes send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A load of so many series, under the names that real agents use.
    Load(usize),
    /// The reference data set, under its own names.
    Reference,
    /// A story for people to look at.
    Demo,
}

/// The name of a simulated node.
fn name(place: usize) -> String {
    format!("{NAME_PREFIX}{place:05}")
}

/// Whether a node of this name is one of ours.
pub(crate) fn is_simulated(name: &str) -> bool {
    name.strip_prefix(NAME_PREFIX).is_some_and(|place| place.len() == 5 && place.bytes().all(|b| b.is_ascii_digit()))
}

/// Gives every node an identity. `progress` is called with each that has one.
pub(crate) async fn enrol(plan: &Plan, token: &JoinToken, progress: impl Fn()) -> Result<Vec<Identity>, ConnectError> {
    let at_once = Arc::new(Semaphore::new(JOINS_AT_ONCE));
    let mut joins = JoinSet::new();
    for place in 0..plan.nodes {
        let (token, collector, at_once) = (token.clone(), plan.collector.clone(), Arc::clone(&at_once));
        joins.spawn(async move {
            let _permit = at_once.acquire().await;
            client::join(&token, &collector, &name(place)).await.map(|identity| (place, identity))
        });
    }
    let mut identities = Vec::with_capacity(plan.nodes);
    while let Some(joined) = joins.join_next().await {
        // A task that panicked is a defect of this program.
        identities.push(joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?);
        progress();
    }
    identities.sort_by_key(|(place, _)| *place);
    Ok(identities.into_iter().map(|(_, identity)| identity).collect())
}

/// Runs all nodes until the token is cancelled and what they sent is acknowledged, or given up.
pub(crate) async fn run(plan: &Plan, identities: Vec<Identity>, meter: Arc<Meter>, token: CancellationToken) {
    let mut nodes = JoinSet::new();
    let began = clock::now();
    for (place, identity) in identities.into_iter().enumerate() {
        let interval_ms = u32::try_from(plan.interval.as_millis()).unwrap_or(u32::MAX);
        let source = match plan.what {
            What::Demo => Source::Story(Box::new(DemoNode::new(place, plan.nodes, began))),
            What::Load(series) => Source::Load(catalogue::groups(place, series, interval_ms)),
            What::Reference => Source::Load(catalogue::reference(place, interval_ms)),
        };
        let node = Node::new(place, plan, identity, Arc::clone(&meter), source);
        nodes.spawn(node.run(token.clone()));
    }
    while nodes.join_next().await.is_some() {}
}
