//! The kill campaign (rows 1, 2 and 27): collector and agent are killed at random points, again and again; what was acknowledged is
//! there exactly once, nothing else is, and data flows again after each start.
//!
//! One node sends what is now, one what was long ago, so that blocks are written, merged and merged again all the time, and many kills
//! wait for just that. The journal is short: most of what is there at the end is in blocks alone.
//!
//! `BELFRY_KILL_CYCLES` says how often; 200 is the full form. `BELFRY_KILL_SEED` repeats a campaign.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails, in its helpers as well"
)]

use std::{
    env, fs,
    io::{self, Write as _},
    str::FromStr,
    time::Duration,
};

use belfry_common::{clock, model::Timestamp};
use belfry_store::{Keys, StoreFiles, Tier};
use belfry_tests::{
    agent::Agent,
    collector::Collector,
    oracle::Stored,
    recorder::Recorder,
    relay::Relay,
    samples::Samples,
    wait::{SOON, eventually},
};
use rustix::process::Signal;
use tokio::sync::watch;

/// Blocks every second, and a journal that is cut all the time. Nothing is too old.
const CONFIG: &str =
    "shipped_rules = false\n[store]\nflush_interval = \"1s\"\nmemory_window = \"1m\"\nraw_age_max = \"3650days\"\n";
/// The past begins so long ago, and its samples are so far apart: a second of the campaign is some two hours of it.
const PAST_MS: i64 = 60 * 86_400_000;
const PAST_STEP_MS: i64 = 37_000;

const CYCLES: u32 = 10;
/// The agent's fastest sampler.
const INTERVAL_MS: i64 = 100;
/// Beyond the interval, for a machine that does ten other things.
const SLACK_MS: i64 = 900;
/// Long enough for backlog, for commits under way and for none.
const LIFE_MS_MAX: u64 = 700;
/// For a block to be begun: the first one comes two seconds after a start.
const BLOCK_MS_MAX: u64 = 3000;
/// Into the writing of a block, into the end of a collector that was told to stop.
const INTO_BLOCK_MS_MAX: u64 = 3;
const INTO_STOP_MS_MAX: u64 = 60;
/// An agent may be in a long pause between two tries when the campaign ends.
const RECOVERY: Duration = Duration::from_secs(90);

fn setting<T: FromStr>(name: &str, default: T) -> T {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

struct Campaign {
    collector: Collector,
    recorder: Recorder,
    historian: Recorder,
    agent: Agent,
    relay: Relay,
    rng: fastrand::Rng,
    agent_killed: Vec<Timestamp>,
    collector_kills: u32,
    /// Kills after which a block was there that was not finished.
    unfinished: u32,
}

impl Campaign {
    async fn begin(seed: u64) -> Self {
        let collector = Collector::start_with(CONFIG).await;
        let relay = Relay::to(collector.address()).await;
        let pace = Duration::from_millis(5);
        let recorder = Recorder::new(collector.join("recorder").await, seed, pace);
        let past = Samples::new(seed, clock::now().plus_millis(-PAST_MS), PAST_STEP_MS);
        let historian = Recorder::of(collector.join("historian").await, past, seed, pace);
        let mut agent = Agent::join(&collector, "agent", relay.address()).await;
        agent.configure("[samplers.load]\ninterval = \"100ms\"\n");
        agent.start();
        let (agent_killed, rng) = (Vec::new(), fastrand::Rng::with_seed(seed));
        Self { collector, recorder, historian, agent, relay, rng, agent_killed, collector_kills: 0, unfinished: 0 }
    }

    /// Data flows; then, at some point, somebody dies and comes back.
    async fn cycle(&mut self) {
        let victim = self.rng.u8(..10);
        let life = if self.rng.bool() {
            Life::Of(self.rng.u64(..LIFE_MS_MAX))
        } else {
            Life::UntilBlock(self.rng.u64(..INTO_BLOCK_MS_MAX))
        };
        let progress = [&self.recorder, &self.historian].map(Recorder::progress);
        let address = self.collector.address();
        let flows = async {
            for mut progress in progress {
                acknowledged_more(&mut progress).await;
            }
            life.pass(&self.collector).await;
        };
        self.historian.sessions_until(address, self.recorder.sessions_until(address, flows)).await;
        if victim < 7 {
            if victim < 2 {
                // What is in memory goes to blocks when it is told to stop; it does not get to the end of that.
                self.collector.process_mut().signal(Signal::TERM);
                tokio::time::sleep(Duration::from_millis(self.rng.u64(..INTO_STOP_MS_MAX))).await;
            }
            self.kill_collector();
            self.unfinished += u32::from(has_unfinished(&self.collector));
        }
        if victim >= 5 {
            self.agent_killed.push(clock::now());
            self.agent.kill();
        }
        if victim < 7 {
            self.start_collector().await;
        }
        if victim >= 5 {
            self.agent.start();
        }
    }

    fn kill_collector(&mut self) {
        self.collector.kill();
        self.collector_kills += 1;
    }

    async fn start_collector(&mut self) {
        // Now and then it dies before it is up.
        while self.rng.u8(..4) == 0 {
            self.collector.launch();
            tokio::time::sleep(Duration::from_millis(self.rng.u64(..150))).await;
            self.kill_collector();
        }
        self.collector.restart().await;
        self.relay.lead_to(self.collector.address());
    }

    /// Everybody comes to rest: what was sent is acknowledged, the agent's spool is empty, and something was merged.
    async fn settle(&mut self) {
        let address = self.collector.address();
        for recorder in [&mut self.recorder, &mut self.historian] {
            let (mut progress, sent) = (recorder.progress(), recorder.ledger.sent.len());
            let all = async {
                let done = tokio::time::timeout(RECOVERY, progress.wait_for(|&now| now >= sent)).await;
                done.expect("everything is acknowledged in the end").unwrap();
            };
            recorder.sessions_until(address, all).await;
        }
        self.collector.admin().spool_is_sent("agent", RECOVERY).await;
        self.agent.stop().await;
        let data = self.collector.data_directory();
        eventually("blocks are merged", RECOVERY, async || {
            let files = StoreFiles::open(&data, &Keys::default()).unwrap();
            files.blocks().any(|block| block.tier == Tier::Raw && block.is_final).then_some(())
        })
        .await;
        assert!(self.collector.stop().await.success());
    }

    fn judge(&self) {
        let stored = Stored::read(&self.collector.data_directory());
        let samples = [&self.recorder, &self.historian].map(|recorder| {
            let Recorder { identity, epoch, ledger, .. } = recorder;
            assert!(ledger.acknowledged.len() > 20, "too little was sent to mean anything");
            stored.check_journal(identity.subject.id, *epoch, ledger);
            stored.check_samples(identity.subject.id, *epoch, ledger)
        });
        let agent = self.agent.identity.subject.id;
        let epochs = stored.epochs(agent);
        assert_eq!(epochs.len(), 1, "the agent's spool was kept: {epochs:?}");
        stored.check_complete(agent, epochs[0]);
        let times = stored.sample_times(agent, "node_load1");
        let lost = self.agent_killed.iter().map(|killed| {
            let last = times
                .partition_point(|time| time <= killed)
                .checked_sub(1)
                .map_or(Timestamp::default(), |at| times[at]);
            killed.millis_since(last)
        });
        let lost = lost.max().unwrap_or(0);
        assert!(lost <= INTERVAL_MS + SLACK_MS, "a kill of the agent cost {lost} ms of samples");
        let (kills, agent_kills) = (self.collector_kills, self.agent_killed.len());
        let batches = self.recorder.acknowledged() + self.historian.acknowledged();
        say(&format!(
            "collector killed {kills} times, {} of them over a block that was not finished, agent {agent_kills} times; {batches} batches \
             acknowledged, {} samples of them read once; at most {lost} ms of samples lost by a kill of the agent",
            self.unfinished,
            samples.iter().sum::<usize>(),
        ));
        let blocks = stored.blocks();
        let of = |tier| blocks.iter().filter(|block| block.tier == tier).count();
        let [raw, minute, hour] = Tier::ALL.map(of);
        let (merged, written) =
            (blocks.iter().filter(|block| block.is_final).count(), blocks.iter().map(|block| block.number).max());
        say(&format!(
            "{} blocks were begun; {raw} raw ones, {merged} of all merged, {minute} of minutes and {hour} of hours are left",
            written.unwrap_or(0)
        ));
    }
}

/// How long a collector lives.
enum Life {
    /// So many milliseconds.
    Of(u64),
    /// Until it writes a block, and so many milliseconds into that.
    UntilBlock(u64),
}

impl Life {
    async fn pass(self, collector: &Collector) {
        match self {
            Self::Of(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Self::UntilBlock(ms) => {
                let block = async {
                    while !has_unfinished(collector) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                };
                // None comes if nothing is due.
                drop(tokio::time::timeout(Duration::from_millis(BLOCK_MS_MAX), block).await);
            }
        }
    }
}

/// Whether a block is being written.
fn has_unfinished(collector: &Collector) -> bool {
    let entries = fs::read_dir(collector.data_directory().join("blocks")).into_iter().flatten();
    entries.filter_map(Result::ok).any(|entry| entry.path().extension().is_some_and(|end| end == "tmp"))
}

/// Ready when more is acknowledged than was.
async fn acknowledged_more(progress: &mut watch::Receiver<usize>) {
    let before = *progress.borrow_and_update();
    let flowing = tokio::time::timeout(SOON, progress.wait_for(|&now| now > before)).await;
    flowing.expect("fresh data is acknowledged after a start").unwrap();
}

fn say(what: &str) {
    // A broken standard error changes nothing about the result.
    drop(writeln!(io::stderr().lock(), "{what}"));
}

#[tokio::test]
async fn what_was_acknowledged_survives_every_kill() {
    let seed = setting("BELFRY_KILL_SEED", 1);
    let mut campaign = Campaign::begin(seed).await;
    let cycles = setting("BELFRY_KILL_CYCLES", CYCLES);
    for cycle in 1..=cycles {
        campaign.cycle().await;
        if cycle % 50 == 0 {
            say(&format!("{cycle} of {cycles} cycles"));
        }
    }
    campaign.settle().await;
    campaign.judge();
}
