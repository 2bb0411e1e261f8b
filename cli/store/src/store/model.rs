//! The store against a model of it, on a disk that loses power and a process that is killed: every batch that was committed is read back,
//! with the readings that it had, and nothing else is.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    ops::Range,
};

use belfry_common::{
    journal::DamageKind,
    model::{Kind, Layout, Metric, Raw, Reason, Resolution, SeriesDefinition, Tick},
    storage::simulated::{Fault, Simulated},
};
use fastrand::Rng;

use super::*;
use crate::{
    Aggregate, CompactOptions, Grain, Keys, Pick, ReadLimits, Sample, Scan, Selected, Selection, StoreFiles, Tier,
    TimeRange,
};

const START: i64 = 1_700_000_000_000;
const NODES: u32 = 3;
const METRICS: [&str; 3] = ["a", "b", "c"];

/// Series (node and name) with what was read of them, by second.
type Content = BTreeMap<(u32, String), BTreeMap<i64, Option<i64>>>;

/// A store on simulated disks, and what must be in it.
struct World {
    random: Rng,
    disks: [Simulated; 2],
    store: Option<(Store, Maintainer)>,
    /// In seconds.
    now: i64,
    next: [u64; NODES as usize + 1],
    committed: Content,
    /// Added, and not committed: it may be there or not.
    pending: Content,
    counts: Counts,
    is_encrypted: bool,
    /// The newest first.
    keys: Vec<u8>,
}

/// What a world has gone through.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    kills: u32,
    power_losses: u32,
    merges: u32,
}

/// What a group reads each second: with two devices, with one, and without a metric; and what another reads every ten seconds.
fn layouts() -> Vec<Arc<Layout>> {
    let [a, b, c] = METRICS.map(|name| Arc::new(Metric::new(name, Kind::Gauge, Resolution::MILLI, &["d"], "")));
    let of = |group, interval_ms, series: &[(&Arc<Metric>, &str)]| {
        let series = series.iter().map(|(metric, device)| {
            Arc::new(SeriesDefinition { metric: Arc::clone(metric), label_values: [(*device).into()].into() })
        });
        Arc::new(Layout { group, sampler: "s".into(), interval_ms, series: series.collect() })
    };
    vec![
        of(1, 1000, &[(&a, "x"), (&b, "x"), (&a, "y"), (&b, "y")]),
        of(1, 1000, &[(&a, "x"), (&b, "x")]),
        of(1, 1000, &[(&a, "x")]),
        of(2, 10_000, &[(&c, "x")]),
    ]
}

fn name(series: &SeriesDefinition) -> String {
    format!("{}{}", series.metric.name, series.label_values[0])
}

impl World {
    fn new(seed: u64) -> Self {
        let disks = [Simulated::new(seed), Simulated::new(seed ^ 77)];
        let (random, now) = (Rng::with_seed(seed), 0);
        let mut world = Self {
            random,
            disks,
            store: None,
            is_encrypted: seed % 2 == 1,
            keys: Vec::new(),
            now,
            next: [1; 4],
            committed: Content::new(),
            pending: Content::new(),
            counts: Counts::default(),
        };
        world.open();
        world
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_millis(START + self.now * 1000)
    }

    fn open(&mut self) {
        let [journal, blocks] = self.disks.clone().map(|disk| Arc::new(disk) as Arc<dyn Storage>);
        let head = HeadOptions { window_ms: 60_000, bytes_max: 40_000 };
        let compact =
            CompactOptions { grace_ms: 30_000, quiet_ms: 60_000, fresh_max: 2, blocks_max: 3, block_bytes_max: 60_000 };
        let maintain = MaintainOptions { compact, merge_bytes_per_second: u64::MAX, ..MaintainOptions::default() };
        // Every other world is encrypted, and now and then its keys are rotated.
        if self.is_encrypted && (self.keys.is_empty() || self.random.u8(0..8) == 0) {
            self.keys.insert(0, self.keys.len() as u8);
        }
        let keys = Keys::of(&self.keys);
        let options = StoreOptions { head, maintain, segment_bytes: 8 * 1024, keys, ..StoreOptions::default() };
        let (store, recovery) = Store::open_in(journal, blocks, options, false, self.time()).unwrap();
        // A power loss may leave a hole behind what was synced.
        assert!(recovery.journal.damages.iter().all(|damage| damage.kind == DamageKind::Hole), "{recovery:?}");
        assert_eq!(recovery.blocks.quarantined, 0);
        let maintainer = store.maintainer();
        self.store = Some((store, maintainer));
    }

    /// Adds some batches: live ones, or the backlog of an outage.
    fn add(&mut self, layouts: &[Arc<Layout>]) -> Result<(), StoreError> {
        let count = self.random.i64(1..120);
        let is_late = self.random.u8(0..4) == 0;
        let node = self.random.u32(1..=NODES);
        let from = if is_late { self.now - self.random.i64(0..9000) } else { self.now };
        // A clock that goes back would be another thing: time passes also where the disk fails, and backlog is of the past.
        let until = if is_late { self.now.min(from + count) } else { from + count };
        for second in from..until {
            self.now = if is_late { self.now } else { second };
            // One second of a node has one batch: a second one of the same time says the same.
            let layout = match (second / 40 + i64::from(node)) % 5 {
                0 => 1,
                3 => 2,
                _ => 0,
            };
            let has_seldom = second % 10 == 0;
            let mut ticks = Vec::new();
            for layout in [layout].into_iter().chain(has_seldom.then_some(3)).map(|place| &layouts[place]) {
                let value = |place: i64| match (second * 7 + place) % 23 {
                    0 => Raw::missing(Reason::Timeout),
                    _ => Raw::integer(second * second % 1009 * 10 + place + i64::from(node)),
                };
                let values: Vec<Raw> = (0..layout.series.len() as i64).map(value).collect();
                for (series, raw) in layout.series.iter().zip(&values) {
                    let value = raw.reason().is_none().then(|| raw.bits());
                    self.pending.entry((node, name(series))).or_default().insert(second, value);
                }
                let time = Timestamp::from_millis(START + second * 1000);
                ticks.push(Tick { layout: Arc::clone(layout), time, values });
            }
            let batch = Arc::new(Batch { ticks });
            let key = BatchKey { epoch: Epoch(u64::from(node)), sequence: self.next[node as usize] };
            self.next[node as usize] += 1;
            let received = self.time();
            let (store, _) = self.store.as_mut().unwrap();
            store.add(Entry { node: NodeId(node), key, received, batch })?;
        }
        if !is_late {
            self.now = until;
        }
        Ok(())
    }

    fn step(&mut self, layouts: &[Arc<Layout>]) {
        let disk = self.random.usize(0..2);
        if self.random.u8(0..6) == 0 {
            self.disks[disk].inject(self.random.u64(1..30), Fault::Crash);
        }
        let result = self.try_step(layouts);
        if let Err(error) = result {
            assert!(self.disks.iter().any(Simulated::has_crashed), "{error}");
        }
        if self.disks.iter().any(Simulated::has_crashed) || self.random.u8(0..12) == 0 {
            self.crash();
        }
        self.disks.iter().for_each(Simulated::clear_faults);
    }

    fn try_step(&mut self, layouts: &[Arc<Layout>]) -> Result<(), StoreError> {
        self.add(layouts)?;
        let (store, maintainer) = self.store.as_mut().unwrap();
        store.commit()?;
        for (series, samples) in mem::take(&mut self.pending) {
            self.committed.entry(series).or_default().extend(samples);
        }
        let now = Timestamp::from_millis(START + self.now * 1000);
        if self.random.bool() {
            maintainer.flush(now).map_err(|error| StoreError::Blocks(error.into()))?;
        }
        maintainer.run(now).map_err(|error| StoreError::Blocks(error.into()))?;
        self.counts.merges += u32::from(maintainer.compact(now).map_err(|error| StoreError::Blocks(error.into()))?);
        store.cut(now)
    }

    fn crash(&mut self) {
        self.store = None;
        let power = self.random.bool();
        let count = if power { &mut self.counts.power_losses } else { &mut self.counts.kills };
        *count += 1;
        for disk in &self.disks {
            if power {
                disk.lose_power();
            } else {
                disk.kill();
            }
            disk.clear_faults();
        }
        self.open();
        // What was not committed may have survived: then it is as good as committed.
        let read = self.read(self.everything());
        for (series, samples) in mem::take(&mut self.pending) {
            let survived = read.get(&series).cloned().unwrap_or_default();
            let samples = samples.into_iter().filter(|(second, _)| survived.contains_key(second));
            self.committed.entry(series).or_default().extend(samples);
        }
        self.committed.retain(|_, samples| !samples.is_empty());
    }

    fn everything(&self) -> TimeRange {
        TimeRange { after: Timestamp::from_millis(0), until: Timestamp::from_millis(START * 2) }
    }

    fn read(&self, range: TimeRange) -> Content {
        self.read_as(range, Grain::Raw, 1)
    }

    /// Times are in so many seconds.
    fn read_as(&self, range: TimeRange, grain: Grain, seconds: i64) -> Content {
        let mut content = Content::new();
        for (series, samples) in self.samples(range, grain, Pick::All, None) {
            add_samples(content.entry(series).or_default(), &samples, seconds);
        }
        content.retain(|_, samples| !samples.is_empty());
        content
    }

    fn samples(
        &self,
        range: TimeRange,
        grain: Grain,
        pick: Pick,
        metric: Option<&str>,
    ) -> BTreeMap<(u32, String), Vec<Sample>> {
        let (store, _) = self.store.as_ref().unwrap();
        let limits = ReadLimits { threads: 1 + self.now as usize % 3, ..ReadLimits::NONE };
        let mut found = BTreeMap::new();
        let selection = Selection { metric, range, pick, grain, ..Selection::ALL };
        let nodes: Vec<NodeId> = (1..=NODES).map(NodeId).collect();
        let mut visitor = |node: NodeId, series: &Arc<SeriesDefinition>, samples: &[Sample]| {
            assert!(samples.is_sorted_by(|a, b| a.time < b.time));
            let before = found.insert((node.0, name(series)), samples.to_vec());
            assert_eq!(before, None, "each series once");
            std::ops::ControlFlow::Continue(())
        };
        let visited = store.reader().visit(&nodes, &selection, limits, &mut Selected::default(), &mut visitor);
        assert!(visited.unwrap().is_continue());
        found
    }

    /// Lets some days pass, until nothing is left to merge.
    fn settle(&mut self) {
        self.disks.iter().for_each(Simulated::clear_faults);
        let (_, maintainer) = self.store.as_mut().unwrap();
        let later = Timestamp::from_millis(START + (self.now + 10 * 86_400) * 1000);
        maintainer.flush(later).unwrap();
        while maintainer.compact(later.plus_millis(86_400_000)).unwrap() {}
        let newest = Keys::of(&self.keys).newest();
        let blocks = self.store.as_ref().map(|(store, _)| store.blocks()).unwrap_or_default();
        assert!(blocks.iter().all(|block| block.key == newest), "{blocks:?}");
    }

    /// What there is of each minute or hour, against the samples that it was made of.
    fn check_rows(&mut self) {
        // Late samples count in rows once they are in a block.
        let now = self.time();
        self.store.as_mut().unwrap().1.flush(now).unwrap();
        let everything = self.everything();
        for (tier, seconds) in [(Tier::Minute, 60), (Tier::Hour, 3600)] {
            for aggregate in [Aggregate::Min, Aggregate::Sum, Aggregate::Last] {
                let mut expected = Content::new();
                for (series, samples) in &self.committed {
                    let rows = expected.entry(series.clone()).or_default();
                    for (&second, &value) in samples {
                        // A row is known at its end.
                        let row = (START / 1000 + second).div_euclid(seconds) + 1 - START / 1000 / seconds;
                        let known: &mut Option<i64> = rows.entry(row).or_default();
                        *known = match (*known, value, aggregate) {
                            (Some(known), Some(value), Aggregate::Min) => Some(known.min(value)),
                            (Some(known), Some(value), Aggregate::Sum) => Some(known + value),
                            (known, value, _) => value.or(known),
                        };
                    }
                }
                assert_same(&self.read_as(everything, Grain::Rows(tier, aggregate), seconds), &expected);
            }
        }
    }

    /// What the files have by themselves is what a reader sees of them, each column of it.
    fn check_scan(&mut self) {
        let now = self.time();
        self.store.as_mut().unwrap().1.flush(now).unwrap();
        let storage = Arc::new(self.disks[1].clone()) as Arc<dyn Storage>;
        let files = StoreFiles::open_in(&storage, &Keys::of(&self.keys)).unwrap();
        let from = self.now - self.random.i64(0..9000);
        let at = |second: i64| Timestamp::from_millis(START + second * 1000);
        for range in [self.everything(), TimeRange { after: at(from), until: at(from + 4000) }] {
            for (tier, seconds) in [(Tier::Raw, 1), (Tier::Minute, 60), (Tier::Hour, 3600)] {
                let mut columns = vec![Content::new(); tier.columns()];
                for metric in METRICS {
                    let nodes: Vec<NodeId> = (1..=NODES).map(NodeId).collect();
                    let scan = Scan { metric, nodes: &nodes, filter: &|_| true, range, tier };
                    let mut visitor = |node: NodeId, series: &Arc<SeriesDefinition>, read: &[Vec<Sample>]| {
                        for (content, samples) in columns.iter_mut().zip(read) {
                            assert!(samples.iter().all(|sample| range.contains(sample.time)));
                            let known = content.entry((node.0, name(series))).or_default();
                            add_samples(known, samples, seconds);
                        }
                        std::ops::ControlFlow::Continue(())
                    };
                    assert!(files.scan(&scan, &mut visitor).unwrap().is_empty());
                }
                for (mut column, aggregate) in columns.into_iter().zip(Aggregate::ALL) {
                    let (grain, shift) = match tier {
                        Tier::Raw => (Grain::Raw, 0),
                        tier => (Grain::Rows(tier, aggregate), seconds * 1000),
                    };
                    let [after, until] = [range.after, range.until].map(|time| time.plus_millis(shift));
                    let mut expected = self.read_as(TimeRange { after, until }, grain, seconds);
                    // A row is known at its end, and a scan has it at its beginning.
                    let begin = |(row, value): (i64, Option<i64>)| (row - i64::from(shift > 0), value);
                    expected.values_mut().for_each(|rows| *rows = mem::take(rows).into_iter().map(begin).collect());
                    for content in [&mut column, &mut expected] {
                        // Of a row in which a series did nothing but end, memory does not know.
                        let is_ended = |value: &Option<i64>| aggregate == Aggregate::Count && *value == Some(0);
                        content.values_mut().for_each(|rows| rows.retain(|_, value| !is_ended(value)));
                        content.retain(|_, rows| !rows.is_empty());
                    }
                    assert_same(&column, &expected);
                }
            }
        }
    }

    fn check(&mut self) {
        assert_same(&self.read(self.everything()), &self.committed);
        let from = self.now - self.random.i64(0..9000);
        let to = from + self.random.i64(1..4000);
        let at = |second: i64| Timestamp::from_millis(START + second * 1000);
        let mut part = self.committed.clone();
        part.values_mut().for_each(|samples| samples.retain(|second, _| *second > from && *second <= to));
        part.retain(|_, samples| !samples.is_empty());
        let range = TimeRange { after: at(from), until: at(to) };
        assert_same(&self.read(range), &part);
        let step_ms = self.random.i64(1..400_000);
        let all = self.samples(range, Grain::Raw, Pick::All, None);
        for metric in METRICS {
            let mut of_it = all.clone();
            of_it.retain(|(_, name), _| name.starts_with(metric));
            assert_eq!(self.samples(range, Grain::Raw, Pick::All, Some(metric)), of_it, "{metric}");
        }
        let thinned = |pick: Pick| {
            let mut all = all.clone();
            all.values_mut().for_each(|samples| pick.thin(samples, 0));
            all
        };
        let each_step = Pick::EachStep { end: at(to - self.random.i64(0..9)), step_ms };
        assert_eq!(self.samples(range, Grain::Raw, each_step, None), thinned(each_step));
        let newest = self.samples(range, Grain::Raw, Pick::Newest, None);
        let newest_of =
            |node: u32| newest.range((node, String::new())..(node + 1, String::new())).flat_map(|(_, samples)| samples);
        for (series, samples) in thinned(Pick::Newest) {
            // Of what has ended, or its node went on without, nothing need be said.
            let Some(last) = samples.first() else { continue };
            let has_ended = || last.value == Err(None) || newest_of(series.0).any(|other| other.time > last.time);
            let is_same = newest.get(&series).map_or_else(has_ended, |newest| *newest == samples);
            assert!(is_same, "{series:?} {samples:?} {newest:?}");
        }
    }
}

/// Adds samples that follow those that are known. Times are in so many seconds.
fn add_samples(known: &mut BTreeMap<i64, Option<i64>>, samples: &[Sample], seconds: i64) {
    for sample in samples.iter().filter(|sample| sample.value != Err(None)) {
        let second = sample.time.as_millis().div_euclid(1000 * seconds) - START.div_euclid(1000 * seconds);
        let is_new = known.last_key_value().is_none_or(|(last, _)| *last < second);
        assert!(is_new, "each once, and ascending");
        known.insert(second, sample.value.ok().map(|value| (value * 1000.0).round() as i64));
    }
}

/// What two contents differ in, and no more: they are long.
fn assert_same(read: &Content, expected: &Content) {
    let pairs = |content: &Content| -> BTreeMap<(u32, String, i64), Option<i64>> {
        let samples = |((node, name), samples): (&(u32, String), &BTreeMap<i64, Option<i64>>)| {
            samples.iter().map(|(&second, &value)| ((*node, name.clone(), second), value)).collect::<Vec<_>>()
        };
        content.iter().flat_map(samples).collect()
    };
    let (read, expected) = (pairs(read), pairs(expected));
    let differs = |(key, value): &(&(u32, String, i64), &Option<i64>)| read.get(*key) != Some(*value);
    let lost: Vec<String> = expected.iter().filter(differs).map(|sample| format!("{sample:?}")).collect();
    let is_new = |(key, _): &(&(u32, String, i64), &Option<i64>)| !expected.contains_key(*key);
    let invented: Vec<String> = read.iter().filter(is_new).map(|sample| format!("{sample:?}")).collect();
    let first =
        |list: &[String]| format!("{}: {}", list.len(), list.iter().take(5).cloned().collect::<Vec<_>>().join(", "));
    assert!(lost.is_empty() && invented.is_empty(), "lost {}, invented {}", first(&lost), first(&invented));
}

/// The seeds of the worlds that are gone through: `BELFRY_STORE_WORLDS` many, from `BELFRY_STORE_SEED` on, for a long campaign.
fn seeds() -> Range<u64> {
    let setting = |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let first: u64 = setting("BELFRY_STORE_SEED", 0);
    first..first + setting("BELFRY_STORE_WORLDS", 6)
}

#[test]
fn what_was_committed_is_read_back_whatever_happens() {
    let layouts = layouts();
    let mut counts = Counts::default();
    for seed in seeds() {
        let mut world = World::new(seed);
        for step in 0..40 {
            println!("seed {seed} step {step}: {} s", world.now);
            world.step(&layouts);
            world.check();
        }
        world.check_rows();
        world.check_scan();
        world.settle();
        world.check();
        world.check_rows();
        world.check_scan();
        counts.kills += world.counts.kills;
        counts.power_losses += world.counts.power_losses;
        counts.merges += world.counts.merges;
    }
    let Counts { kills, power_losses, merges } = counts;
    assert!(kills > 0 && power_losses > 0 && merges > 0);
    // Past the capture of the test's output: it is what a long campaign is for.
    drop(writeln!(
        io::stderr().lock(),
        "{} worlds: {kills} kills, {power_losses} losses of power, {merges} merges",
        seeds().count()
    ));
}
