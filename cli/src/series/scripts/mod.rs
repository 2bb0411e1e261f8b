//! Scripts in the format of Prometheus' PromQL tests, over the store as the query engine sees it: what is ours and not Prometheus'.
//!
//! Each script runs with all in memory, with all in blocks, and with all merged: where samples are must not change what a query finds.
//! `instance` names the node; of a series without it the collector itself is the node. `stale` is a reading that is missing. One command is
//! added: `until <time>` brings the store to that time: what is due then is merged, made into rows, and let go of.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use belfry_common::model::{
    Batch, BatchKey, Epoch, Kind as MetricKind, Layout, Metric, Raw, Reason, Resolution, SeriesDefinition, Tick,
    Timestamp,
};
use belfry_promql::{Labels, METRIC_NAME, Plan, is_stale};
use belfry_store::{Entry, MaintainOptions, Maintainer, NodeId, Store, StoreOptions};

use super::{INSTANCE, StoreReader};
use crate::{fleet::Fleet, gpu_jobs::GpuJobs, state::State, xid::Catalogue};
use script::{Command, Kind, Load};

#[path = "../../../promql/tests/promqltest/check.rs"]
mod check;
#[path = "../../../promql/tests/promqltest/compare.rs"]
mod compare;
#[path = "../../../promql/tests/promqltest/number.rs"]
mod number;
#[path = "../../../promql/tests/promqltest/script.rs"]
mod script;

/// Where samples are when they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Memory,
    Blocks,
    Merged,
}

/// After the last sample, so long that nothing more is expected of its hour.
const SETTLED_MS: i64 = 2 * 3_600_000;

/// A store and what stands around it.
struct Scene {
    place: Place,
    directory: tempfile::TempDir,
    store: Store,
    maintainer: Maintainer,
    reader: StoreReader,
    fleet: Arc<Fleet>,
    nodes: BTreeMap<String, NodeId>,
    sequence: u64,
    /// Each series is a group: its ticks are its own samples.
    groups: BTreeMap<Labels, (u16, Arc<Layout>)>,
    newest: Timestamp,
}

impl Scene {
    async fn open(place: Place) -> Self {
        let start = Timestamp::from_millis(0);
        let directory = tempfile::tempdir().unwrap();
        let maintain = MaintainOptions { merge_bytes_per_second: u64::MAX, ..MaintainOptions::default() };
        let options = StoreOptions { maintain, ..StoreOptions::default() };
        let (store, _) = Store::open(directory.path(), options, start).unwrap();
        let maintainer = store.maintainer();
        let fleet = Arc::new(Fleet::new(start));
        let gpu_jobs = Arc::new(GpuJobs::open(State::in_memory(), start).await.unwrap());
        let catalogue = Arc::new(Catalogue::built_in());
        let reader = StoreReader::new(store.reader(), Arc::clone(&fleet), catalogue, gpu_jobs).with_all_cores();
        let (nodes, groups) = (BTreeMap::new(), BTreeMap::new());
        Self { place, directory, store, maintainer, reader, fleet, nodes, sequence: 0, groups, newest: start }
    }

    fn load(&mut self, load: &Load) {
        assert!(!load.with_native, "native histograms are not stored");
        let mut ticks: BTreeMap<(i64, NodeId), Vec<Tick>> = BTreeMap::new();
        for (labels, values) in &load.series {
            let node = self.node(labels.value(INSTANCE));
            let layout = self.layout(labels);
            let number::Values::Points(points) = values else { panic!("{labels}: native histograms are not stored") };
            for (step, value) in (0..).zip(points) {
                let Some(value) = *value else { continue };
                let reading = if is_stale(value) { Raw::missing(Reason::Timeout) } else { Raw::float(value) };
                let time = Timestamp::from_millis(step * load.step_ms);
                self.newest = self.newest.max(time);
                let tick = Tick { layout: Arc::clone(&layout), time, values: vec![reading] };
                ticks.entry((time.as_millis(), node)).or_default().push(tick);
            }
        }
        for ((time, node), ticks) in ticks {
            self.sequence += 1;
            let key = BatchKey { epoch: Epoch(1), sequence: self.sequence };
            let received = Timestamp::from_millis(time);
            self.store.add(Entry { node, key, received, batch: Arc::new(Batch { ticks }) }).unwrap();
        }
        self.store.commit().unwrap();
        match self.place {
            Place::Memory => {}
            Place::Blocks => self.maintainer.flush(self.newest).unwrap(),
            Place::Merged => self.settle(self.newest.plus_millis(SETTLED_MS)),
        }
    }

    /// Puts all into blocks and does what is due then.
    fn settle(&self, now: Timestamp) {
        self.maintainer.flush(now).unwrap();
        while self.maintainer.compact(now).unwrap() {}
        self.maintainer.run(now).unwrap();
    }

    fn node(&mut self, name: &str) -> NodeId {
        if name.is_empty() {
            return NodeId::COLLECTOR;
        }
        let next = NodeId(self.nodes.len() as u32 + 1);
        *self.nodes.entry(name.to_owned()).or_insert_with(|| {
            self.fleet.enrol(next, name.parse().unwrap());
            next
        })
    }

    fn layout(&mut self, labels: &Labels) -> Arc<Layout> {
        let next = self.groups.len() as u16 + 1;
        let (_, layout) = self.groups.entry(labels.clone()).or_insert_with(|| {
            let own: Vec<(&str, &str)> =
                labels.iter().filter(|(name, _)| ![METRIC_NAME, INSTANCE].contains(name)).collect();
            let names: Vec<&str> = own.iter().map(|(name, _)| *name).collect();
            let name = labels.metric_name().expect("a metric has a name");
            let metric = Arc::new(Metric::new(name, MetricKind::Gauge, Resolution::Float, &names, ""));
            let label_values = own.iter().map(|(_, value)| (*value).into()).collect();
            let series = Box::new([Arc::new(SeriesDefinition { metric, label_values })]);
            (next, Arc::new(Layout { group: next, sampler: "script".into(), interval_ms: 1000, series }))
        });
        Arc::clone(layout)
    }
}

/// Runs a script; what of it failed.
async fn run(commands: &[Command], place: Place) -> Vec<String> {
    let mut scene = Scene::open(place).await;
    let mut failures = Vec::new();
    for Command { line, text, kind } in commands {
        let result = match kind {
            Kind::Clear => {
                scene = Scene::open(place).await;
                Ok(())
            }
            Kind::Load(load) => {
                scene.load(load);
                Ok(())
            }
            Kind::Eval(eval) => match Plan::parse(&eval.expression) {
                Ok(plan) => check::check(eval, &plan, &scene.reader, |_, _| None),
                Err(error) => Err(error.to_string()),
            },
            Kind::Other => match text.strip_prefix("until ").map(number::duration_ms) {
                Some(Ok(time_ms)) => {
                    scene.settle(Timestamp::from_millis(time_ms));
                    Ok(())
                }
                _ => Err("unknown command".to_owned()),
            },
        };
        failures.extend(result.err().map(|why| format!("line {line}, in {place:?}: {text}\n    {why}")));
    }
    drop(scene.directory);
    failures
}

#[tokio::test]
async fn scripts_pass_wherever_samples_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/series/scripts");
    let (mut scripts, mut failures) = (0, Vec::new());
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "test") {
            continue;
        }
        scripts += 1;
        let commands = script::parse(&fs::read_to_string(&path).unwrap()).unwrap();
        for place in [Place::Memory, Place::Blocks, Place::Merged] {
            let failed = run(&commands, place).await;
            failures.extend(failed.into_iter().map(|why| format!("{}, {why}", path.display())));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(scripts >= 5, "{scripts} scripts");
}
