//! The nodes: who is enrolled, and taking their rights away.

use belfry_common::{clock, error_chain::ErrorChain, model::NodeName};
use belfry_store::NodeId;

use super::{ServeError, deed};
use crate::{
    api::{self, NodeRow},
    fleet::{Cause, standing, store_id},
    listen::Member,
    services::Services,
    state::{
        StateError,
        audit::{self, Outcome},
        nodes::{self, NodeError, Revoked},
    },
};

impl From<NodeError> for ServeError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::State(error) => error.into(),
            error => Self::NotFound(error.to_string()),
        }
    }
}

pub(super) async fn list(services: &Services) -> Result<Vec<NodeRow>, ServeError> {
    let known = services.state.read(nodes::list).await?;
    let now = clock::now();
    let rows = known.into_iter().filter(|node| !matches!(node.standing, nodes::Standing::Forgotten(_))).map(|node| {
        let live = services.fleet.node(store_id(node.id));
        let (state, cause) = live.as_ref().map_or(("down", Cause::None), |live| {
            let (state, cause) = standing(&live.facts, now);
            (state.as_str(), cause)
        });
        let mut series = 0;
        services.head.for_each_series(store_id(node.id), |_| series += 1);
        let live = live.as_ref();
        let address = live.and_then(|live| live.address).map(|address| address.to_string());
        NodeRow {
            id: node.id.as_u64(),
            name: node.name.to_string(),
            state: state.to_string(),
            reason: Some(cause.as_str().to_string()).filter(|reason| !reason.is_empty()),
            address: address.or(node.address),
            agent_version: live.and_then(|live| live.agent_version.clone()).or(node.agent_version),
            joined_at: api::time(node.first_seen),
            last_seen: live.and_then(|live| live.facts.heard_at).or(node.last_seen).map(api::time),
            series,
            series_left_out: live.map_or(0, |live| live.series_left_out),
            clock_skew_seconds: live.and_then(|live| live.clock_skew_ms).map(|skew| skew as f64 / 1000.0),
        }
    });
    Ok(rows.collect())
}

pub(super) async fn revoke(member: &Member, name: &str) -> Result<(), ServeError> {
    let revoked = change(member, name, "nodes revoke", nodes::revoke).await?;
    member.services.fleet.refuse(NodeId(revoked));
    Ok(())
}

pub(super) async fn forget(member: &Member, name: &str) -> Result<(), ServeError> {
    let forgotten = NodeId(change(member, name, "nodes forget", nodes::forget).await?);
    let services = &member.services;
    services.fleet.forget(forgotten);
    services.series_caps.forget(forgotten);
    // A writer that has ended has nothing to forget.
    drop(services.writer.forget_node(forgotten).await);
    services.alerting.forget(name.to_string()).await;
    Ok(())
}

type Change =
    fn(&crate::state::Transaction<'_>, &NodeName, belfry_common::model::Timestamp) -> Result<Revoked, NodeError>;

/// Does it, notes it in the same transaction, and closes the connections of those who may no longer speak.
async fn change(member: &Member, name: &str, action: &'static str, change: Change) -> Result<u32, ServeError> {
    let name: NodeName = name.parse().map_err(|error| ServeError::Invalid(ErrorChain(&error).to_string()))?;
    let services = &member.services;
    let deed = deed(member, action, name.as_str(), String::new(), Outcome::Done);
    let revoked = services.state.write(move |transaction| {
        let revoked = change(transaction, &name, deed.time)?;
        audit::append(transaction, &deed)?;
        Ok::<_, NodeError>(revoked)
    });
    let revoked = revoked.await?;
    services.access.reload().await.map_err(|error: StateError| ServeError::from(error))?;
    services.connections.close_refused(&services.access, clock::now());
    Ok(store_id(revoked.node).0)
}
