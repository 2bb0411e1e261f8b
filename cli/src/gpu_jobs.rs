//! Which job has which GPU, and had it when: intervals, from the inventories that agents send.
//!
//! Kept in the database when they begin and when they end, and all in memory, where `gpu_job_info` is made of them when it is
//! read ([`crate::series`]): a join by time costs no series of its own.
//!
//! An agent that is silent says nothing about its jobs, nor does a GPU that does not tell who holds it. An interval ends with the
//! inventory that could name it and does not; if that comes late, when the job was last seen.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{PoisonError, RwLock},
};

use belfry_common::{
    error_chain::ErrorChain,
    limits,
    model::Timestamp,
    wire::message::{Inventory, InventoryProcess},
};
use belfry_store::NodeId;
use tracing::warn;

use crate::state::{
    State, StateError,
    gpu_jobs::{self, StoredJob},
    nodes,
};

/// How long intervals are kept after their end.
pub(crate) const KEPT_MS: i64 = 90 * 24 * 3_600_000;
/// Intervals in memory, at about 500 bytes. Beyond that the oldest that have ended are left out of joins.
const INTERVALS_MAX: usize = 100_000;
/// A node that sends more inventories than that is not followed in each.
const PACE_MS: i64 = 1000;
/// Inventories come every ten seconds: what was not seen for longer was lost from sight first.
const SIGHT_MS: i64 = 30_000;
/// Intervals of one node that go on: what has not been named for longest ends beyond that.
const GOING_ON_MAX: usize = 2 * limits::INVENTORY_PROCESSES_MAX;
/// A GPU that does not tell who holds it for so long is gone, or will find another job when it tells again.
const UNTOLD_MS: i64 = 3_600_000;

/// Labels of an interval, sorted: GPU and job.
pub(crate) type JobLabels = BTreeMap<String, String>;

/// One job on one GPU.
#[derive(Debug, Clone)]
pub(crate) struct Interval {
    id: u64,
    pub(crate) labels: JobLabels,
    pub(crate) start: Timestamp,
    /// `None` while it goes on.
    pub(crate) end: Option<Timestamp>,
    /// When an inventory named it last.
    seen: Timestamp,
}

impl Interval {
    /// Until when it is known to have gone on.
    pub(crate) fn known_until(&self) -> Timestamp {
        self.end.unwrap_or_else(|| self.seen.plus_millis(SIGHT_MS))
    }
}

/// All intervals, by node.
#[derive(Debug)]
pub(crate) struct GpuJobs {
    state: State,
    nodes: RwLock<HashMap<NodeId, NodeJobs>>,
}

#[derive(Debug, Default)]
struct NodeJobs {
    intervals: Vec<Interval>,
    /// When its last inventory was looked at.
    observed: Option<Timestamp>,
}

impl GpuJobs {
    /// Those that the database has.
    pub(crate) async fn open(state: State, now: Timestamp) -> Result<Self, StateError> {
        let since = now.plus_millis(-KEPT_MS);
        let mut stored = state.read(move |view| gpu_jobs::since(view, since, INTERVALS_MAX)).await?;
        stored.sort_unstable_by_key(|job| job.id);
        let mut nodes: HashMap<NodeId, NodeJobs> = HashMap::new();
        for StoredJob { id, node, labels, start, end, node_seen } in stored {
            let Ok(labels) = serde_json::from_str(&labels) else { continue };
            let seen = end.unwrap_or_else(|| node_seen.map_or(start, |seen| seen.clamp(start, now.max(start))));
            let interval = Interval { id, labels, start, end, seen };
            nodes.entry(crate::fleet::store_id(node)).or_default().intervals.push(interval);
        }
        Ok(Self { state, nodes: RwLock::new(nodes) })
    }

    /// Takes what a node says of its GPUs now. What cannot be written down is found out again with its next inventory.
    pub(crate) async fn observe(&self, node: NodeId, inventory: &Inventory, now: Timestamp) {
        let changes = {
            let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
            let NodeJobs { intervals, observed } = nodes.entry(node).or_default();
            if observed.is_some_and(|before| (0..PACE_MS).contains(&now.millis_since(before))) {
                return;
            }
            *observed = Some(now);
            changes(intervals, inventory, now)
        };
        let Some(stored_node) = nodes::NodeId::new(node.0.into()).filter(|_| !changes.is_empty()) else { return };
        let written = changes.clone();
        let begun = self.state.write(move |transaction| {
            for &(id, end) in &written.ended {
                gpu_jobs::end(transaction, id, end)?;
            }
            let labels = written.begun.iter().map(|labels| serde_json::to_string(labels).unwrap_or_default());
            labels
                .map(|labels| gpu_jobs::begin(transaction, stored_node, &labels, now))
                .collect::<Result<Vec<_>, StateError>>()
        });
        match begun.await {
            Ok(ids) => self.keep(node, changes, &ids, now),
            Err(error) => warn!(error = %ErrorChain(&error), "jobs cannot be written down"),
        }
    }

    fn keep(&self, node: NodeId, changes: Changes, ids: &[u64], now: Timestamp) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let intervals = &mut nodes.entry(node).or_default().intervals;
        for (id, end) in changes.ended {
            if let Some(interval) = intervals.iter_mut().find(|interval| interval.id == id) {
                interval.end = Some(end);
            }
        }
        for (labels, id) in changes.begun.into_iter().zip(ids) {
            intervals.push(Interval { id: *id, labels, start: now, end: None, seen: now });
        }
        drop_oldest(&mut nodes, INTERVALS_MAX);
    }

    /// Calls `visit` with each interval of a node.
    pub(crate) fn each(&self, node: NodeId, mut visit: impl FnMut(&Interval)) {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.get(&node).into_iter().flat_map(|jobs| &jobs.intervals).for_each(&mut visit);
    }

    /// Forgets what ended long ago.
    pub(crate) async fn prune(&self, now: Timestamp) -> Result<(), StateError> {
        let before = now.plus_millis(-KEPT_MS);
        self.state.write(move |transaction| gpu_jobs::prune(transaction, before, gpu_jobs::ENDED_MAX)).await?;
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        nodes.values_mut().for_each(|jobs| jobs.intervals.retain(|interval| interval.known_until() > before));
        nodes.retain(|_, jobs| !jobs.intervals.is_empty());
        Ok(())
    }
}

/// Forgets the intervals that ended first, if there are more than `max`: and some more, so that this is not done each time.
fn drop_oldest(nodes: &mut HashMap<NodeId, NodeJobs>, max: usize) {
    let all: usize = nodes.values().map(|jobs| jobs.intervals.len()).sum();
    if all <= max {
        return;
    }
    let mut ends: Vec<Timestamp> =
        nodes.values().flat_map(|jobs| &jobs.intervals).filter_map(|interval| interval.end).collect();
    let too_many = (all - max + max / 10).min(ends.len());
    let Some(last) = too_many.checked_sub(1) else { return };
    let (_, until, _) = ends.select_nth_unstable(last);
    let until = *until;
    let is_kept = |interval: &Interval| interval.end.is_none_or(|end| end > until);
    nodes.values_mut().for_each(|jobs| jobs.intervals.retain(is_kept));
}

/// Every pair of GPU and job that an inventory names.
fn named(inventory: &Inventory) -> BTreeSet<JobLabels> {
    let labels = |process: &InventoryProcess| {
        let job = process.job.as_ref()?;
        let mut labels: JobLabels = job.labels.iter().cloned().collect();
        labels.insert("gpu".into(), process.holds.gpu.to_string());
        labels.insert("uuid".into(), process.uuid.clone());
        labels.extend(process.holds.gpu_instance.map(|id| ("gpu_instance".into(), id.to_string())));
        Some(labels)
    };
    // Of one job's processes one may know more than another: the fullest labels stand for it.
    let mut jobs: BTreeMap<Vec<String>, JobLabels> = BTreeMap::new();
    for labels in inventory.processes.iter().filter_map(labels) {
        let known = jobs.entry(identity(&labels)).or_default();
        if labels.len() > known.len() {
            *known = labels;
        }
    }
    jobs.into_values().collect()
}

/// What makes two sets of labels the same job on the same GPU.
fn identity(labels: &JobLabels) -> Vec<String> {
    ["uuid", "gpu_instance", "job_kind", "job_id"].map(|name| labels.get(name).cloned().unwrap_or_default()).to_vec()
}

/// What an inventory changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Changes {
    begun: Vec<JobLabels>,
    ended: Vec<(u64, Timestamp)>,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.ended.is_empty()
    }
}

/// Compares what goes on with what is named now. Pure, but that it notes what was seen.
fn changes(intervals: &mut [Interval], inventory: &Inventory, now: Timestamp) -> Changes {
    let mut changes = Changes::default();
    let named = named(inventory);
    // Of a GPU that does not tell, and when not all fit in, it is not known who is gone.
    let tells = |labels: &JobLabels| {
        inventory.left_out == 0 && labels.get("uuid").is_some_and(|uuid| inventory.gpus.contains(uuid))
    };
    let mut known = BTreeSet::new();
    let is_named: BTreeSet<Vec<String>> = named.iter().map(identity).collect();
    for interval in intervals.iter_mut().filter(|interval| interval.end.is_none()) {
        let identity = identity(&interval.labels);
        if is_named.contains(&identity) {
            interval.seen = interval.seen.max(now);
            known.insert(identity);
            continue;
        }
        let unseen = now.millis_since(interval.seen);
        if tells(&interval.labels) || unseen > UNTOLD_MS {
            let is_in_sight = unseen <= SIGHT_MS;
            changes.ended.push((interval.id, if is_in_sight { now } else { interval.seen }));
        }
    }
    changes.begun = named.iter().filter(|labels| !known.contains(&identity(labels))).cloned().collect();
    let ended: BTreeSet<u64> = changes.ended.iter().map(|(id, _)| *id).collect();
    let mut going_on: Vec<(Timestamp, u64)> = intervals
        .iter()
        .filter(|interval| interval.end.is_none() && !ended.contains(&interval.id))
        .map(|interval| (interval.seen, interval.id))
        .collect();
    let too_many = (going_on.len() + changes.begun.len()).saturating_sub(GOING_ON_MAX);
    going_on.sort_unstable();
    changes.ended.extend(going_on.into_iter().take(too_many).map(|(seen, id)| (id, seen)));
    changes
}

#[cfg(test)]
mod tests {
    use belfry_common::{
        model::NodeName,
        wire::message::{GpuProcess, InventoryJob},
    };

    use super::*;

    const NODE: NodeId = NodeId(7);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + second * 1000)
    }

    fn inventory(jobs: &[(&str, &str)]) -> Inventory {
        let process = |(uuid, id): &(&str, &str)| InventoryProcess {
            holds: GpuProcess {
                gpu: 0,
                pid: 1,
                memory_bytes: None,
                sm_percent: None,
                encoder_percent: None,
                decoder_percent: None,
                gpu_instance: None,
                compute_instance: None,
            },
            uuid: (*uuid).into(),
            user: String::new(),
            command: String::new(),
            job: Some(InventoryJob {
                labels: vec![("job_kind".into(), "slurm".into()), ("job_id".into(), (*id).into())],
            }),
        };
        let gpus = ["u0", "u1"].map(str::to_owned).to_vec();
        Inventory { time_ms: 1, gpus, processes: jobs.iter().map(process).collect(), left_out: 0 }
    }

    async fn jobs(state: &State) -> GpuJobs {
        for number in 1..=NODE.0 {
            let name: NodeName = format!("n{number}").parse().unwrap();
            state.write(move |transaction| nodes::enrol(transaction, &name, at(0))).await.unwrap();
        }
        GpuJobs::open(state.clone(), at(0)).await.unwrap()
    }

    /// Each interval: its job, its first second, and its last one.
    fn intervals(jobs: &GpuJobs) -> Vec<(String, i64, Option<i64>)> {
        let mut all = Vec::new();
        let second = |time: Timestamp| time.millis_since(at(0)) / 1000;
        jobs.each(NODE, |interval| {
            all.push((interval.labels["job_id"].clone(), second(interval.start), interval.end.map(second)));
        });
        all
    }

    #[tokio::test]
    async fn an_interval_goes_from_the_first_inventory_that_names_a_job_to_the_first_that_does_not() {
        let state = State::in_memory();
        let known = jobs(&state).await;
        known.observe(NODE, &inventory(&[("u0", "1"), ("u0", "1"), ("u1", "1")]), at(0)).await;
        known.observe(NODE, &inventory(&[("u0", "1"), ("u1", "1")]), at(10)).await;
        known.observe(NODE, &inventory(&[("u0", "1"), ("u1", "2")]), at(20)).await;
        let expected =
            [("1", 0, None), ("1", 0, Some(20)), ("2", 20, None)].map(|(id, start, end)| (id.into(), start, end));
        assert_eq!(intervals(&known), expected);

        let again = GpuJobs::open(state, at(25)).await.unwrap();
        assert_eq!(intervals(&again), expected, "the same after a restart");
        again.observe(NODE, &inventory(&[("u0", "1")]), at(30)).await;
        assert_eq!(intervals(&again)[2].2, Some(30));
        again.observe(NODE, &inventory(&[]), at(400)).await;
        assert_eq!(intervals(&again)[0].2, Some(30), "it was last seen then");
    }

    #[tokio::test]
    async fn who_is_not_told_of_is_not_gone() {
        let known = jobs(&State::in_memory()).await;
        known.observe(NODE, &inventory(&[("u0", "1"), ("u1", "2")]), at(0)).await;
        known.observe(NODE, &Inventory { gpus: vec!["u1".into()], ..inventory(&[("u1", "2")]) }, at(10)).await;
        known.observe(NODE, &Inventory { left_out: 1, ..inventory(&[("u1", "2")]) }, at(20)).await;
        assert_eq!(intervals(&known), [("1", 0, None), ("2", 0, None)].map(|(id, start, end)| (id.into(), start, end)));
        known.observe(NODE, &inventory(&[("u1", "2")]), at(30)).await;
        assert_eq!(intervals(&known)[0].2, Some(30));

        let silent = Inventory { gpus: vec![], ..inventory(&[]) };
        known.observe(NODE, &silent, at(3_600)).await;
        assert_eq!(intervals(&known)[1].2, None);
        known.observe(NODE, &silent, at(3_631)).await;
        assert_eq!(intervals(&known)[1].2, Some(30), "not told of for an hour");
    }

    #[tokio::test]
    async fn a_node_that_ends_nothing_cannot_fill_the_memory() {
        let known = jobs(&State::in_memory()).await;
        for second in 0..4 {
            let ids: Vec<String> = (0..limits::INVENTORY_PROCESSES_MAX).map(|id| format!("{second}-{id}")).collect();
            let named: Vec<(&str, &str)> = ids.iter().map(|id| ("u0", id.as_str())).collect();
            known.observe(NODE, &Inventory { gpus: vec![], ..inventory(&named) }, at(second)).await;
        }
        let going_on = intervals(&known).into_iter().filter(|(_, _, end)| end.is_none());
        assert_eq!(going_on.count(), GOING_ON_MAX);
    }

    #[tokio::test]
    async fn what_goes_on_is_known_after_a_restart_whatever_has_ended_since() {
        let state = State::in_memory();
        let known = jobs(&state).await;
        known.observe(NODE, &inventory(&[("u0", "old")]), at(0)).await;
        for second in 1..5 {
            known.observe(NODE, &inventory(&[("u0", "old"), ("u1", &second.to_string())]), at(second)).await;
        }
        let stored = state.read(|view| gpu_jobs::since(view, at(0), 3)).await.unwrap();
        let ends: Vec<_> = stored.into_iter().map(|job| job.end).collect();
        assert_eq!(ends, [None, None, Some(at(4))]);
        state.write(|transaction| gpu_jobs::prune(transaction, at(0), 1)).await.unwrap();
        let stored = state.read(|view| gpu_jobs::since(view, at(0), 9)).await.unwrap();
        let ends: Vec<_> = stored.into_iter().map(|job| job.end).collect();
        assert_eq!(ends, [None, None, Some(at(4))], "the one that ended last is kept");
    }

    #[tokio::test]
    async fn a_node_cannot_begin_and_end_more_than_one_inventory_a_second_says() {
        let known = jobs(&State::in_memory()).await;
        known.observe(NODE, &inventory(&[("u0", "1")]), at(0)).await;
        known.observe(NODE, &inventory(&[("u0", "2")]), at(0).plus_millis(PACE_MS - 1)).await;
        assert_eq!(intervals(&known), [("1".into(), 0, None)]);
        known.observe(NODE, &inventory(&[("u0", "2")]), at(1)).await;
        assert_eq!(intervals(&known), [("1".into(), 0, Some(1)), ("2".into(), 1, None)]);
    }

    #[tokio::test]
    async fn what_goes_on_at_a_node_that_is_gone_is_known_until_it_was_heard_of() {
        let state = State::in_memory();
        let known = jobs(&state).await;
        known.observe(NODE, &inventory(&[("u0", "1")]), at(0)).await;
        let node = nodes::NodeId::new(NODE.0.into()).unwrap();
        let sighting = nodes::Sighting {
            node,
            time: at(500),
            agent_version: "1".into(),
            address: "[::1]:1".into(),
            has_left: false,
        };
        state.write(move |transaction| nodes::record_sightings(transaction, &[sighting])).await.unwrap();
        let again = GpuJobs::open(state.clone(), at(90_000)).await.unwrap();
        let mut until = Vec::new();
        again.each(NODE, |interval| until.push(interval.known_until()));
        assert_eq!(until, [at(500).plus_millis(SIGHT_MS)]);
        again.prune(at(501).plus_millis(KEPT_MS)).await.unwrap();
        let again = GpuJobs::open(state, at(501)).await.unwrap();
        assert_eq!(intervals(&again), []);
    }

    #[test]
    fn of_too_many_those_that_ended_first_are_forgotten() {
        let interval = |id: u64, end: Option<i64>| Interval {
            id,
            labels: JobLabels::new(),
            start: at(0),
            end: end.map(at),
            seen: at(0),
        };
        let mut all = vec![interval(0, None)];
        all.extend((1..=20).map(|id| interval(id, Some(100 - id as i64))));
        let mut nodes = HashMap::from([(NODE, NodeJobs { intervals: all, observed: None })]);
        drop_oldest(&mut nodes, 21);
        assert_eq!(nodes[&NODE].intervals.len(), 21);
        drop_oldest(&mut nodes, 10);
        let left: Vec<u64> = nodes[&NODE].intervals.iter().map(|interval| interval.id).collect();
        assert_eq!(left, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
