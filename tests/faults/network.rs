//! Paths that lose, delay, double, reorder and cut: seen with real agents, whose packets go through a relay.

use std::time::Duration;

use belfry_tests::{
    agent::Agent,
    collector::Collector,
    oracle::Stored,
    recorder::Recorder,
    relay::{Relay, Way},
    wait::{SOON, eventually},
};

/// An idle connection is given up after half a minute; then comes the pause before the next try.
pub(crate) const RECOVERY: Duration = Duration::from_secs(60);

/// Batches that the collector has made durable, of everybody.
pub(crate) async fn batches(collector: &Collector) -> u64 {
    collector.admin().health("batches").await
}

/// Waits until more than what there was is stored.
pub(crate) async fn data_flows(collector: &Collector, within: Duration) {
    let before = batches(collector).await;
    eventually("data flows", within, async || (batches(collector).await > before + 2).then_some(())).await;
}

pub(crate) async fn stop_and_check(mut collector: Collector, mut agent: Agent) -> Stored {
    agent.stop().await;
    collector.stop().await;
    let stored = Stored::read(&collector.data_directory());
    let node = agent.identity.subject.id;
    let epochs = stored.epochs(node);
    assert_eq!(epochs.len(), 1);
    stored.check_complete(node, epochs[0]);
    stored
}

/// Row 14: a fifth of the packets lost, others late, twice and out of order: everything arrives once.
#[tokio::test]
async fn a_bad_path_slows_delivery_and_loses_nothing() {
    let mut collector = Collector::start().await;
    let relay = Relay::to(collector.address()).await;
    let bad = Way { loss: 0.2, duplication: 0.1, delay_ms: 1..40, is_cut: false };
    relay.set(bad.clone(), bad);
    let mut recorder = Recorder::new(collector.join("recorder").await, 14, Duration::from_millis(20));
    let mut progress = recorder.progress();
    let enough =
        async { tokio::time::timeout(RECOVERY, progress.wait_for(|&now| now >= 200)).await.unwrap().map(|now| *now) };
    recorder.sessions_until(relay.address(), enough).await.unwrap();
    collector.stop().await;
    let stored = Stored::read(&collector.data_directory());
    stored.check(recorder.identity.subject.id, recorder.epoch, &recorder.ledger);
}

/// Row 4: batches arrive and acknowledgements do not: on the next connection it is known what arrived, and nothing is doubled.
#[tokio::test]
async fn lost_acknowledgements_cost_no_batch_and_double_none() {
    let mut collector = Collector::start().await;
    let relay = Relay::to(collector.address()).await;
    let mut recorder = Recorder::new(collector.join("recorder").await, 4, Duration::from_millis(20));
    for _ in 0..3 {
        let mut progress = recorder.progress();
        let before = *progress.borrow_and_update();
        let unanswered = async {
            progress.wait_for(|&now| now > before + 10).await.map(|_| ()).unwrap();
            relay.set(Way::CLEAR, Way::CUT);
            let stored = batches(&collector).await;
            eventually("batches arrive without an answer", SOON, async || {
                (batches(&collector).await > stored + 5).then_some(())
            })
            .await;
        };
        recorder.sessions_until(relay.address(), unanswered).await;
        assert!(recorder.acknowledged() < recorder.ledger.sent.len(), "some are not known to be stored");
        relay.set(Way::CLEAR, Way::CLEAR);
    }
    let mut progress = recorder.progress();
    let sent = recorder.ledger.sent.len();
    let all = async { progress.wait_for(|&now| now > sent).await.map(|_| ()) };
    recorder.sessions_until(relay.address(), all).await.unwrap();
    collector.stop().await;
    let stored = Stored::read(&collector.data_directory());
    stored.check(recorder.identity.subject.id, recorder.epoch, &recorder.ledger);
}

/// Row 17: the sender's port changes under a connection, twice: data goes on, under the same identity.
#[tokio::test]
async fn a_forgetful_router_does_not_stop_the_data() {
    let collector = Collector::start().await;
    let relay = Relay::to(collector.address()).await;
    let mut agent = Agent::join(&collector, "agent", relay.address()).await;
    agent.start();
    data_flows(&collector, SOON).await;
    for _ in 0..2 {
        relay.rebind();
        data_flows(&collector, RECOVERY).await;
    }
    let log = agent.process().log();
    assert_eq!(log.matches("connected collector").count(), 1, "it did not have to connect again");
    stop_and_check(collector, agent).await;
}

/// Row 1: an agent whose collector was killed learns it at its next packet, not after half a minute of silence.
#[tokio::test]
async fn an_agent_finds_a_restarted_collector_at_once() {
    let mut collector = Collector::start().await;
    let relay = Relay::to(collector.address()).await;
    let mut agent = Agent::join(&collector, "agent", relay.address()).await;
    agent.start();
    data_flows(&collector, SOON).await;
    collector.kill();
    collector.restart().await;
    relay.lead_to(collector.address());
    data_flows(&collector, Duration::from_secs(10)).await;
    stop_and_check(collector, agent).await;
}

/// Row 15: a path that is cut in one direction is found by both ends; the node is unreachable, which is not down by its own
/// will; afterwards everything is there.
#[tokio::test]
async fn a_path_cut_in_one_direction_is_noticed_at_both_ends() {
    let collector = Collector::start().await;
    let mut ends = Vec::new();
    for (name, up, down) in [("mute", Way::CUT, Way::CLEAR), ("deaf", Way::CLEAR, Way::CUT)] {
        let relay = Relay::to(collector.address()).await;
        let mut agent = Agent::join(&collector, name, relay.address()).await;
        agent.start();
        eventually("the node is up", SOON, async || {
            (collector.admin().node(name).await["state"] == "up").then_some(())
        })
        .await;
        relay.set(up, down);
        ends.push((name, relay, agent));
    }
    for (name, _, agent) in &ends {
        eventually("the collector gives the node up", Duration::from_secs(100), async || {
            let node = collector.admin().node(name).await;
            assert_ne!(node["reason"], "stopped", "nobody took leave: {node}");
            (node["state"] == "down" && node["reason"] == "unreachable").then_some(())
        })
        .await;
        // A mute agent hears the collector's own attempts for half a minute before its own half minute begins.
        eventually("the agent gives the connection up", RECOVERY, async || {
            agent.process().log().contains("not connected").then_some(())
        })
        .await;
    }
    for (_, relay, _) in &ends {
        relay.set(Way::CLEAR, Way::CLEAR);
    }
    for (name, ..) in &ends {
        eventually("the node is up again", RECOVERY, async || {
            (collector.admin().node(name).await["state"] == "up").then_some(())
        })
        .await;
    }
    let mut collector = collector;
    for (name, _, agent) in &mut ends {
        collector.admin().spool_is_sent(name, RECOVERY).await;
        agent.stop().await;
    }
    collector.stop().await;
    let stored = Stored::read(&collector.data_directory());
    for (_, _, agent) in &ends {
        let node = agent.identity.subject.id;
        stored.check_complete(node, stored.epochs(node)[0]);
        assert!(longest_hole_ms(&stored, node) < 2_000, "what was sampled during the cut is there");
    }
}

fn longest_hole_ms(stored: &Stored, node: u64) -> i64 {
    let times = stored.times(node, "load");
    times.windows(2).map(|pair| pair[1].millis_since(pair[0])).max().unwrap()
}
