//! Runs the samplers on schedule and makes a batch of each round.
//!
//! A round is sent when all that was due has answered, or after [`PATIENCE`] without those that have not: they come
//! with a later one, under their own time. A sampler that does not come back in [`HANG`] is given up until it does.

use std::{sync::Arc, time::Duration};

use belfry_common::{
    clock,
    model::{Batch, Layout, Raw, Reason, Tick},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::Settings,
    lanes::{Lane, Outcome, Slot},
    readings::Readings,
    samplers::{LaneName, Sampler},
    schedule::{Round, Schedule},
    statistics::Statistics,
    urgent::Urgent,
};

/// How long a round waits for its slowest sampler. A tick is on its way within this, whatever hangs.
const PATIENCE: Duration = Duration::from_millis(50);
/// After this a sampler counts as hung and its lane gets a new thread.
const HANG: Duration = Duration::from_secs(3);

/// Samplers on their lanes.
pub(crate) struct Sampling {
    samplers: Vec<Entry>,
    /// By their names.
    lanes: [Lane; LaneName::ALL.len()],
    outcomes: mpsc::Receiver<Outcome>,
    statistics: Arc<Statistics>,
    /// What came too late for its own round.
    late: Vec<Tick>,
}

struct Entry {
    slot: Slot,
    lane: LaneName,
    interval: Duration,
    state: State,
    /// The layout of its last tick: what is missing while it hangs.
    layout: Option<Arc<Layout>>,
}

/// Whether a sampler can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// Since when.
    Running(Instant),
    /// Given up; comes back by itself.
    Hung,
}

impl Sampling {
    /// Prepares the samplers that the settings leave enabled. Groups are numbered by the sampler's place in the whole list,
    /// so that a number means the same sampler whatever is enabled.
    pub(crate) fn new(
        samplers: Vec<Box<dyn Sampler>>,
        settings: &Settings,
        statistics: Arc<Statistics>,
    ) -> std::io::Result<Self> {
        let (results, outcomes) = Lane::outcomes();
        let mut entries = Vec::new();
        for (group, sampler) in (1..).zip(samplers) {
            let configured = settings.sampler(sampler.name());
            if !configured.is_enabled {
                continue;
            }
            let interval = configured.interval.unwrap_or(sampler.interval());
            let readings = Readings::new(group, sampler.name(), interval.as_millis() as u32);
            let lane = sampler.lane();
            entries.push(Entry {
                slot: Slot::new(sampler, readings),
                lane,
                interval,
                state: State::Idle,
                layout: None,
            });
        }
        let [fast, slow, gpu] = LaneName::ALL.map(|name| Lane::start(name, results.clone()));
        Ok(Self { samplers: entries, lanes: [fast?, slow?, gpu?], outcomes, statistics, late: Vec::new() })
    }

    /// The intervals, by place.
    pub(crate) fn intervals(&self) -> Vec<Duration> {
        self.samplers.iter().map(|entry| entry.interval).collect()
    }

    /// The shortest interval.
    pub(crate) fn interval_min(&self) -> Duration {
        self.samplers.iter().map(|entry| entry.interval).min().unwrap_or(Duration::from_secs(1))
    }

    /// Samples until the token is cancelled. Batches that find no room are counted and dropped: sampling waits for nobody.
    pub(crate) async fn run(mut self, urgent: Arc<Urgent>, batches: mpsc::Sender<Batch>, token: CancellationToken) {
        let mut schedule = Schedule::new(&self.intervals(), clock::now());
        let mut last_urgent = None;
        loop {
            let wait = schedule.wait(clock::now());
            let round = tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = tokio::time::sleep(wait) => schedule.take(clock::now()),
                () = urgent.wait(last_urgent) => {
                    last_urgent = Some(clock::monotonic());
                    Some(Round { time: clock::now(), due: self.places(&urgent.take()), missed: 0 })
                }
            };
            let Some(round) = round else { continue };
            let batch = self.sample(&round).await;
            if batch.ticks.is_empty() {
                continue;
            }
            if batches.try_send(batch).is_err() {
                self.statistics.add(|statistics| &statistics.batches_dropped, 1);
            }
        }
    }

    fn places(&self, names: &[&'static str]) -> Vec<usize> {
        let places = self.samplers.iter().enumerate();
        places.filter(|(_, entry)| names.contains(&entry.slot.name)).map(|(place, _)| place).collect()
    }

    /// Reads what is due, once, and goes on without what takes longer than [`PATIENCE`].
    pub(crate) async fn sample(&mut self, round: &Round) -> Batch {
        self.sample_within(round, PATIENCE).await
    }

    /// Reads what is due, once, and waits for it until it counts as hung.
    pub(crate) async fn sample_all(&mut self, round: &Round) -> Batch {
        self.sample_within(round, HANG).await
    }

    async fn sample_within(&mut self, round: &Round, patience: Duration) -> Batch {
        if round.missed > 0 {
            self.statistics.add(|statistics| &statistics.ticks_missed, round.missed);
        }
        // What came in between belongs to a round that is gone: it goes out first, under its own time.
        while let Ok(outcome) = self.outcomes.try_recv() {
            if let Some(tick) = self.settle(outcome) {
                self.late.push(tick);
            }
        }
        self.give_up_hung();
        let mut ticks = std::mem::take(&mut self.late);
        ticks.extend(self.missing(round));
        let mut waiting = self.start(round);
        let deadline = Instant::from_std(clock::monotonic()) + patience;
        while !waiting.is_empty() {
            let outcome = tokio::select! {
                biased;
                outcome = self.outcomes.recv() => outcome,
                () = sleep_until(deadline) => None,
            };
            let Some(outcome) = outcome else { break };
            waiting.retain(|&place| place != outcome.place);
            ticks.extend(self.settle(outcome));
        }
        self.merge(ticks)
    }

    /// The ticks of samplers that are due and hang: every series is missing because of the timeout.
    fn missing(&self, round: &Round) -> Vec<Tick> {
        let hung =
            round.due.iter().filter_map(|&place| self.samplers.get(place)).filter(|entry| entry.state == State::Hung);
        hung.filter_map(|entry| {
            let layout = Arc::clone(entry.layout.as_ref()?);
            let values = vec![Raw::missing(Reason::Timeout); layout.series.len()];
            Some(Tick { layout, time: round.time, values })
        })
        .collect()
    }

    fn start(&mut self, round: &Round) -> Vec<usize> {
        let now = Instant::from_std(clock::monotonic());
        let mut started = Vec::new();
        for &place in &round.due {
            let Some(entry) = self.samplers.get_mut(place) else { continue };
            if entry.state == State::Idle {
                entry.state = State::Running(now);
                started.push(place);
            } else {
                self.statistics.sampler(entry.slot.name, |sampler| sampler.overruns += 1);
            }
        }
        for lane in &self.lanes {
            let slots = started.iter().filter_map(|&place| {
                let entry = self.samplers.get(place)?;
                (entry.lane == lane.name()).then(|| (place, entry.slot.clone()))
            });
            lane.run(round.time, slots);
        }
        started
    }

    fn settle(&mut self, outcome: Outcome) -> Option<Tick> {
        let entry = self.samplers.get_mut(outcome.place)?;
        if entry.state == State::Hung {
            info!(sampler = entry.slot.name, "sampler is back");
        }
        entry.state = State::Idle;
        self.statistics.sampler(entry.slot.name, |sampler| {
            sampler.runs += 1;
            sampler.time_total += outcome.took;
            sampler.time_last = outcome.took;
            for (metric, reason) in &outcome.missing {
                sampler.count_failure(&metric.name, *reason);
            }
            if let Some(reason) = outcome.failure {
                sampler.count_failure("*", reason);
            }
        });
        if let Some(tick) = &outcome.tick {
            entry.layout = Some(Arc::clone(&tick.layout));
        }
        outcome.tick
    }

    /// Replaces the thread of a lane whose present sampler does not come back. Samplers that only wait behind it are
    /// started again with the next round.
    fn give_up_hung(&mut self) {
        for lane in &mut self.lanes {
            let running_since = |entry: &Entry| match entry.state {
                State::Running(since) if entry.lane == lane.name() => Some(since),
                _ => None,
            };
            // A lane works in order: who was started first is where it is, the others only wait behind.
            let first = self.samplers.iter_mut().filter_map(|entry| Some((running_since(entry)?, entry)));
            let hung = first.min_by_key(|&(since, _)| since).filter(|(since, _)| since.elapsed() > HANG);
            let Some((_, hung)) = hung else { continue };
            hung.state = State::Hung;
            let name = hung.slot.name;
            warn!(sampler = name, "sampler hangs: going on without it");
            self.statistics.sampler(name, |sampler| sampler.count_failure("*", Reason::Timeout));
            for entry in &mut self.samplers {
                if entry.lane == lane.name() && matches!(entry.state, State::Running(_)) {
                    entry.state = State::Idle;
                }
            }
            lane.replace();
        }
    }

    /// One tick of each group to a batch; a second one of a group waits for the next.
    fn merge(&mut self, ticks: Vec<Tick>) -> Batch {
        let mut batch = Batch::default();
        for tick in ticks {
            if batch.ticks.iter().any(|other| other.layout.group == tick.layout.group) {
                self.late.push(tick);
            } else {
                batch.ticks.push(tick);
            }
        }
        batch.ticks.sort_by_key(|tick| tick.layout.group);
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io, sync::mpsc as blocking};

    use belfry_common::model::{Kind, Metric, Resolution, Timestamp};

    use super::*;
    use crate::{samplers::SampleError, statistics::SamplerStatistics};

    /// Far longer than a round may take, on a machine that does ten other things; far shorter than a hang.
    const PROMPT: Duration = Duration::from_secs(1);

    /// A sampler of one series that does as it is told before each reading: with `None` it fails.
    struct Told {
        name: &'static str,
        metric: Arc<Metric>,
        orders: blocking::Receiver<Option<i64>>,
    }

    impl Sampler for Told {
        fn name(&self) -> &'static str {
            self.name
        }

        fn interval(&self) -> Duration {
            Duration::from_secs(1)
        }

        fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
            let Ok(Some(value)) = self.orders.recv() else {
                return Err(SampleError::Read {
                    path: "/proc/told".into(),
                    source: io::ErrorKind::PermissionDenied.into(),
                });
            };
            readings.integer(&self.metric, &[], value);
            Ok(())
        }
    }

    struct Bench {
        sampling: Sampling,
        statistics: Arc<Statistics>,
        second: i64,
    }

    impl Bench {
        fn new<const N: usize>(names: [&'static str; N]) -> (Self, [blocking::Sender<Option<i64>>; N]) {
            let statistics = Statistics::new();
            let mut samplers: Vec<Box<dyn Sampler>> = Vec::new();
            let orders = names.map(|name| {
                let metric = Arc::new(Metric::new(name, Kind::Gauge, Resolution::ONE, &[], ""));
                let (sender, orders) = blocking::channel();
                samplers.push(Box::new(Told { name, metric, orders }));
                sender
            });
            let sampling = Sampling::new(samplers, &Settings::default(), Arc::clone(&statistics)).unwrap();
            (Self { sampling, statistics, second: 0 }, orders)
        }

        /// A round in which all are due, as the agent makes it: what it says of each sampler, with the second that the tick tells.
        async fn round(&mut self) -> Said {
            let began = clock::monotonic();
            let round = self.next();
            let batch = self.sampling.sample(&round).await;
            assert!(began.elapsed() < PROMPT, "the round took {:?}", began.elapsed());
            said(&batch)
        }

        /// A round that waits for all that do not hang.
        async fn patient_round(&mut self) -> Said {
            let round = self.next();
            said(&self.sampling.sample_all(&round).await)
        }

        fn next(&mut self) -> Round {
            self.second += 1;
            let time = Timestamp::from_millis(self.second * 1000);
            Round { time, due: (0..self.sampling.samplers.len()).collect(), missed: 0 }
        }

        fn count(&self, name: &str, count: impl Fn(&SamplerStatistics) -> u64) -> u64 {
            let mut found = 0;
            self.statistics.for_each_sampler(|known, statistics| {
                if known == name {
                    found = count(statistics);
                }
            });
            found
        }

        fn failures(&self, name: &str, reason: Reason) -> u64 {
            self.count(name, |statistics| statistics.failures.get(&("*".into(), reason)).copied().unwrap_or(0))
        }
    }

    type Said = BTreeMap<String, (i64, Result<i64, Reason>)>;

    fn said(batch: &Batch) -> Said {
        let of_tick = |tick: &Tick| {
            let [raw] = tick.values[..] else { panic!("{tick:?}") };
            (tick.layout.sampler.to_string(), (tick.time.as_millis() / 1000, raw.reason().map_or(Ok(raw.bits()), Err)))
        };
        batch.ticks.iter().map(of_tick).collect()
    }

    #[tokio::test]
    async fn one_that_fails_is_missing_with_its_reason_and_counted_and_the_others_go_on() {
        let (mut bench, [first, second]) = Bench::new(["first", "second"]);
        for order in [Some(1), None, Some(3)] {
            first.send(order).unwrap();
            second.send(Some(10)).unwrap();
        }
        assert_eq!(bench.patient_round().await["first"], (1, Ok(1)));
        let failed = bench.patient_round().await;
        assert_eq!((failed["first"], failed["second"]), ((2, Err(Reason::Permission)), (2, Ok(10))));
        assert_eq!(bench.failures("first", Reason::Permission), 1);
        assert_eq!(bench.failures("second", Reason::Permission), 0);
        assert_eq!(bench.patient_round().await["first"], (3, Ok(3)), "it is asked again");
    }

    #[tokio::test]
    async fn one_that_overruns_is_counted_and_comes_later_under_its_own_time() {
        let (mut bench, [slow, healthy]) = Bench::new(["slow", "healthy"]);
        healthy.send(Some(0)).unwrap();
        slow.send(Some(1)).unwrap();
        bench.patient_round().await;
        // It has not begun to answer when the round is over, nor when the next one is.
        assert!(bench.round().await.is_empty());
        assert!(bench.round().await.is_empty());
        assert_eq!(bench.count("slow", |statistics| statistics.overruns), 1);
        slow.send(Some(2)).unwrap();
        healthy.send(Some(3)).unwrap();
        // Its answer is on its way to a later round.
        let late = loop {
            if let Some(&late) = bench.round().await.get("slow") {
                break late;
            }
        };
        assert_eq!(late, (2, Ok(2)));
    }

    /// Those before it have answered, and wait behind it from the next round on: longer than a hang themselves, when the
    /// agent was held up.
    #[tokio::test]
    async fn the_one_that_hangs_is_given_up_and_not_one_that_waits_behind_it() {
        let (mut bench, [waits, hangs]) = Bench::new(["waits", "hangs"]);
        for sender in [&waits, &hangs] {
            sender.send(Some(1)).unwrap();
        }
        bench.patient_round().await;
        waits.send(Some(2)).unwrap();
        bench.round().await;
        bench.round().await;
        tokio::time::sleep(HANG + PROMPT).await;
        waits.send(Some(3)).unwrap();
        let said = bench.patient_round().await;
        assert_eq!(said["hangs"], (bench.second, Err(Reason::Timeout)));
        assert_eq!(said["waits"], (bench.second, Ok(3)));
    }

    #[tokio::test]
    async fn one_that_hangs_is_given_up_and_its_neighbours_and_at_last_itself_come_back() {
        let (mut bench, [hangs, healthy]) = Bench::new(["hangs", "healthy"]);
        for (place, sender) in [&hangs, &healthy].into_iter().enumerate() {
            sender.send(Some(place as i64)).unwrap();
        }
        bench.patient_round().await;
        // In the same lane, behind it.
        let given_up = loop {
            healthy.send(Some(7)).unwrap();
            let said = bench.round().await;
            if said.contains_key("hangs") {
                break said;
            }
        };
        assert_eq!(given_up["hangs"], (bench.second, Err(Reason::Timeout)));
        healthy.send(Some(7)).unwrap();
        assert_eq!(bench.patient_round().await["healthy"].1, Ok(7), "a new thread goes on with the others");
        assert_eq!(bench.failures("hangs", Reason::Timeout), 1);
        // What it read when it came back belongs to no time; then it is sampled again.
        hangs.send(Some(8)).unwrap();
        let back = loop {
            healthy.send(Some(9)).unwrap();
            hangs.send(Some(9)).unwrap();
            if let (time, Ok(value)) = bench.patient_round().await["hangs"] {
                break (time, value);
            }
        };
        assert_eq!(back, (bench.second, 9));
    }
}
