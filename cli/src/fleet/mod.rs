//! Every node that is enrolled and what was last heard of it.
//!
//! Written by connections as they come and go and by the writer as batches become durable; read by everyone. What the
//! facts mean is in [`standing`].

pub(crate) mod gpu_health;
mod own_series;
mod standing;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use belfry_common::{
    model::{Epoch, NodeName, Timestamp},
    wire::message::Inventory,
};
use belfry_store::NodeId;

pub(crate) use own_series::{OwnCount, OwnSeries, is_of_collector};
pub(crate) use standing::{Cause, Facts, Standing, standing};

/// What is known of a node now.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) name: NodeName,
    pub(crate) facts: Facts,
    pub(crate) agent_version: Option<String>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) epoch: Option<Epoch>,
    /// Newest time that one of its ticks carries.
    pub(crate) tick_time: Option<Timestamp>,
    /// Its clock less the collector's, in milliseconds, when it last said hello.
    pub(crate) clock_skew_ms: Option<i64>,
    /// Series left out because the node has more than it may.
    pub(crate) series_left_out: u64,
    pub(crate) batches: u64,
    /// Who uses its GPUs, as it said last.
    pub(crate) inventory: Option<Arc<Inventory>>,
}

impl Node {
    fn new(id: NodeId, name: NodeName, facts: Facts) -> Self {
        Self {
            id,
            name,
            facts,
            agent_version: None,
            address: None,
            epoch: None,
            tick_time: None,
            clock_skew_ms: None,
            series_left_out: 0,
            batches: 0,
            inventory: None,
        }
    }
}

/// What a node says when it connects.
#[derive(Debug, Clone)]
pub(crate) struct Greeting {
    pub(crate) connection: u64,
    pub(crate) agent_version: String,
    pub(crate) address: SocketAddr,
    pub(crate) epoch: Epoch,
    pub(crate) interval_ms: u32,
    pub(crate) clock_skew_ms: i64,
}

/// All nodes.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// Since when nodes are waited for.
    started: Timestamp,
    nodes: RwLock<BTreeMap<NodeId, Node>>,
    by_name: RwLock<HashMap<Arc<str>, NodeId>>,
    has_departures: AtomicBool,
}

impl Fleet {
    pub(crate) fn new(started: Timestamp) -> Self {
        Self { started, nodes: RwLock::default(), by_name: RwLock::default(), has_departures: AtomicBool::default() }
    }

    /// Takes in a node that has just joined.
    pub(crate) fn enrol(&self, id: NodeId, name: NodeName) {
        self.remember(id, name, Facts::new(self.started));
    }

    /// The facts of a node that the database remembers, when nothing else is known yet.
    pub(crate) fn remembered(&self, heard_at: Option<Timestamp>, has_left: bool, is_refused: bool) -> Facts {
        Facts { heard_at, has_left, is_refused, ..Facts::new(self.started) }
    }

    /// Takes in a node with what is known of it.
    pub(crate) fn remember(&self, id: NodeId, name: NodeName, facts: Facts) {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).insert(name.as_str().into(), id);
        let node = Node::new(id, name, facts);
        self.nodes.write().unwrap_or_else(PoisonError::into_inner).insert(id, node);
    }

    pub(crate) fn connected(&self, id: NodeId, greeting: Greeting, now: Timestamp) {
        self.change(id, |node| {
            node.facts.connection = Some(greeting.connection);
            node.facts.has_left = false;
            node.facts.heard_at = Some(now);
            node.facts.is_awaited = false;
            node.facts.interval_ms = i64::from(greeting.interval_ms).clamp(100, 3_600_000);
            node.agent_version = Some(greeting.agent_version);
            node.address = Some(greeting.address);
            node.epoch = Some(greeting.epoch);
            node.clock_skew_ms = Some(greeting.clock_skew_ms);
        });
    }

    /// A connection is gone; if it took leave, the agent was stopped on purpose.
    pub(crate) fn disconnected(&self, id: NodeId, connection: u64, has_left: bool) {
        self.change(id, |node| {
            if node.facts.connection == Some(connection) {
                node.facts.connection = None;
                node.facts.has_left = has_left;
            }
        });
        self.has_departures.fetch_or(has_left, Relaxed);
    }

    /// Whether agents have taken leave since this was last asked.
    pub(crate) fn take_departures(&self) -> bool {
        self.has_departures.swap(false, Relaxed)
    }

    /// A live batch of this node is durable.
    pub(crate) fn heard(&self, id: NodeId, received: Timestamp, tick_time: Option<Timestamp>) {
        self.change(id, |node| {
            node.facts.heard_at = node.facts.heard_at.max(Some(received));
            node.tick_time = node.tick_time.max(tick_time);
            node.batches += 1;
        });
    }

    /// A node says who uses its GPUs.
    pub(crate) fn took_inventory(&self, id: NodeId, inventory: Inventory) {
        let inventory = Arc::new(inventory);
        self.change(id, |node| node.inventory = Some(inventory));
    }

    /// The collector takes nothing in from here on: that nothing is heard says nothing about who is connected.
    pub(crate) fn close(&self, now: Timestamp) {
        for node in self.nodes.write().unwrap_or_else(PoisonError::into_inner).values_mut() {
            node.facts.closed_at.get_or_insert(now);
        }
    }

    /// The collector takes in again. Who was up when it stopped has from now on to be heard.
    pub(crate) fn open(&self, now: Timestamp) {
        for node in self.nodes.write().unwrap_or_else(PoisonError::into_inner).values_mut() {
            let facts = &mut node.facts;
            if facts.closed_at.is_some() && facts.connection.is_some() && standing(facts, now).0 == Standing::Up {
                facts.heard_at = facts.heard_at.max(Some(now));
            }
            facts.closed_at = None;
        }
    }

    pub(crate) fn contains(&self, id: NodeId) -> bool {
        id == NodeId::COLLECTOR || self.nodes.read().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }

    pub(crate) fn left_out(&self, id: NodeId, series: u64) {
        self.change(id, |node| node.series_left_out = series);
    }

    pub(crate) fn refuse(&self, id: NodeId) {
        self.change(id, |node| node.facts.is_refused = true);
    }

    pub(crate) fn forget(&self, id: NodeId) {
        let removed = self.nodes.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(node) = removed {
            let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
            if by_name.get(node.name.as_str()) == Some(&id) {
                by_name.remove(node.name.as_str());
            }
        }
    }

    /// The number and name of the node with this name.
    pub(crate) fn by_name(&self, name: &str) -> Option<(NodeId, Arc<str>)> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        by_name.get_key_value(name).map(|(name, &id)| (id, Arc::clone(name)))
    }

    /// The numbers and names of all nodes.
    pub(crate) fn names(&self) -> Vec<(NodeId, Arc<str>)> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        by_name.iter().map(|(name, &id)| (id, Arc::clone(name))).collect()
    }

    pub(crate) fn name(&self, id: NodeId) -> Option<NodeName> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).get(&id).map(|node| node.name.clone())
    }

    pub(crate) fn node(&self, id: NodeId) -> Option<Node> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// All nodes, in the order of their numbers.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn change(&self, id: NodeId, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.write().unwrap_or_else(PoisonError::into_inner).get_mut(&id) {
            change(node);
        }
    }
}

/// A node's number as the store has it. Numbers are given one by one: four billion are enough.
pub(crate) fn store_id(node: crate::state::nodes::NodeId) -> NodeId {
    NodeId(u32::try_from(node.as_u64()).unwrap_or(u32::MAX))
}
