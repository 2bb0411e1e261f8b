//! The kill campaign (rows 1 and 2): collector and agent are killed at random points, again and again; what was acknowledged is
//! there exactly once, nothing else is, and data flows again after each start.
//!
//! `BELFRY_KILL_CYCLES` says how often; 200 is the full form. `BELFRY_KILL_SEED` repeats a campaign.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails, in its helpers as well"
)]

use std::{
    env,
    io::{self, Write as _},
    str::FromStr,
    time::Duration,
};

use belfry_common::{clock, model::Timestamp};
use belfry_tests::{agent::Agent, collector::Collector, oracle::Stored, recorder::Recorder, relay::Relay, wait::SOON};

const CYCLES: u32 = 10;
/// The agent's fastest sampler.
const INTERVAL_MS: i64 = 100;
/// Beyond the interval, for a machine that does ten other things.
const SLACK_MS: i64 = 900;
/// Long enough for backlog, for commits under way and for none.
const LIFE_MS_MAX: u64 = 700;
/// An agent may be in a long pause between two tries when the campaign ends.
const RECOVERY: Duration = Duration::from_secs(90);

fn setting<T: FromStr>(name: &str, default: T) -> T {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

struct Campaign {
    collector: Collector,
    recorder: Recorder,
    agent: Agent,
    relay: Relay,
    rng: fastrand::Rng,
    agent_killed: Vec<Timestamp>,
    collector_kills: u32,
}

impl Campaign {
    async fn begin(seed: u64) -> Self {
        let collector = Collector::start().await;
        let relay = Relay::to(collector.address()).await;
        let recorder = Recorder::new(collector.join("recorder").await, seed, Duration::from_millis(5));
        let mut agent = Agent::join(&collector, "agent", relay.address()).await;
        agent.configure("[samplers.load]\ninterval = \"100ms\"\n");
        agent.start();
        let rng = fastrand::Rng::with_seed(seed);
        Self { collector, recorder, agent, relay, rng, agent_killed: Vec::new(), collector_kills: 0 }
    }

    /// Data flows; then, at some point, somebody dies and comes back.
    async fn cycle(&mut self) {
        let mut progress = self.recorder.progress();
        let before = *progress.borrow_and_update();
        let life = Duration::from_millis(self.rng.u64(..LIFE_MS_MAX));
        let flows = async {
            let flowing = tokio::time::timeout(SOON, progress.wait_for(|&now| now > before)).await;
            flowing.expect("fresh data is acknowledged after a start").unwrap();
            tokio::time::sleep(life).await;
        };
        self.recorder.sessions_until(self.collector.address(), flows).await;
        let victim = self.rng.u8(..10);
        if victim < 7 {
            self.collector.kill();
            self.collector_kills += 1;
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

    async fn start_collector(&mut self) {
        // Now and then it dies before it is up.
        while self.rng.u8(..4) == 0 {
            self.collector.launch();
            tokio::time::sleep(Duration::from_millis(self.rng.u64(..150))).await;
            self.collector.kill();
            self.collector_kills += 1;
        }
        self.collector.restart().await;
        self.relay.lead_to(self.collector.address());
    }

    /// Everybody comes to rest: the recorder has nothing unacknowledged, the agent's spool is empty.
    async fn settle(&mut self) {
        let (mut progress, sent) = (self.recorder.progress(), self.recorder.ledger.sent.len());
        let all = async {
            let done = tokio::time::timeout(RECOVERY, progress.wait_for(|&now| now >= sent)).await;
            done.expect("what was under way is acknowledged").unwrap();
        };
        self.recorder.sessions_until(self.collector.address(), all).await;
        self.collector.admin().spool_is_sent("agent", RECOVERY).await;
        self.agent.stop().await;
        assert!(self.collector.stop().await.success());
    }

    fn judge(&self) {
        let stored = Stored::read(&self.collector.data_directory());
        let Recorder { identity, epoch, ledger, .. } = &self.recorder;
        assert!(ledger.acknowledged.len() > 20, "too little was sent to mean anything");
        stored.check(identity.subject.id, *epoch, ledger);
        let agent = self.agent.identity.subject.id;
        let epochs = stored.epochs(agent);
        assert_eq!(epochs.len(), 1, "the agent's spool was kept: {epochs:?}");
        stored.check_complete(agent, epochs[0]);
        let times = stored.times(agent, "load");
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
        let (batches, agents) = (ledger.acknowledged.len(), stored.sequences(agent, epochs[0]).len());
        let summary = format!(
            "collector killed {kills} times, agent {agent_kills} times; {batches} + {agents} batches stored once, \
             at most {lost} ms of samples lost by a kill of the agent"
        );
        say(&summary);
    }
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
