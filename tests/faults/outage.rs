//! Agents without a collector, and collectors that tell agents what to do.

use std::{process::Command, time::Duration};

use belfry_common::{
    clock,
    model::{GapReason, Timestamp},
    quic::{FrameReader, FrameWriter},
    wire::{
        frame::Kind,
        message::{Ack, Batches, Failure, FailureCode, Gaps, Hello, Refused, Run, Welcome, decode},
    },
};
use belfry_tests::{
    agent::{Agent, BRISK},
    binaries,
    collector::Collector,
    fake_collector::FakeCollector,
    oracle::Stored,
    process::Process,
    relay::Relay,
    skip::{SmallDisk, skipped},
    wait::{SOON, eventually, timed},
};
use quinn::Connection;

use crate::network::{RECOVERY, data_flows};

/// Ten batches a second: an outage of seconds makes a backlog of hundreds.
const FAST: &str = "[samplers.load]\ninterval = \"100ms\"\n";
const LIVE_RATE: f64 = 10.0;

/// Row 8: after an outage live data goes first and is not held up, the backlog comes at ten times the live rate or more, and
/// nothing is missing.
#[tokio::test]
async fn after_an_outage_live_data_goes_first_and_the_backlog_follows() {
    let mut collector = Collector::start().await;
    let relay = Relay::to(collector.address()).await;
    let mut agent = Agent::join(&collector, "agent", relay.address()).await;
    agent.configure(FAST);
    agent.start();
    data_flows(&collector, SOON).await;
    collector.stop().await;
    let stopped = clock::now();
    // The outage is over when the spool has this much: a span of time would say less.
    let spool = agent.state_directory().join("spool");
    let before = directory_bytes(&spool);
    eventually("a backlog has grown", Duration::from_secs(60), async || {
        let is_long = clock::now().millis_since(stopped) > 20_000;
        (is_long && directory_bytes(&spool) > before).then_some(())
    })
    .await;
    collector.restart().await;
    relay.lead_to(collector.address());
    collector.admin().spool_is_sent("agent", RECOVERY).await;
    agent.stop().await;
    collector.stop().await;

    let stored = Stored::read(&collector.data_directory());
    let node = agent.identity.subject.id;
    stored.check_complete(node, stored.epochs(node)[0]);
    let times = stored.times(node, "load");
    let hole = times.windows(2).map(|pair| pair[1].millis_since(pair[0])).max().unwrap();
    assert!(hole < 1_000, "samples of {hole} ms are missing");

    let arrivals = stored.arrivals(node);
    let back = arrivals.iter().map(|&(_, received)| received).filter(|&received| received > stopped).min().unwrap();
    let (backlog, live): (Vec<_>, Vec<_>) = arrivals
        .iter()
        .filter(|&&(_, received)| received >= back)
        .partition(|&&(made, _)| back.millis_since(made) > 300);
    let drained = backlog.iter().map(|&&(_, received)| received).max().unwrap();
    let seconds = drained.millis_since(back).max(1) as f64 / 1000.0;
    let rate = backlog.len() as f64 / seconds;
    assert!(backlog.len() > 100, "the backlog was {} batches", backlog.len());
    assert!(rate >= 10.0 * LIVE_RATE, "{} batches of backlog took {seconds} s", backlog.len());
    let delay = |&&(made, received): &&(Timestamp, Timestamp)| received.millis_since(made);
    let slowest = live.iter().filter(|&&&(made, _)| made >= back && made <= drained).map(delay).max().unwrap_or(0);
    assert!(slowest < 700, "a live batch took {slowest} ms while the backlog came");
    println!(
        "{} batches of backlog in {seconds} s; the slowest live batch beside them took {slowest} ms",
        backlog.len()
    );
}

fn directory_bytes(directory: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|file| file.len()).sum()
}

/// Row 2: an agent that is killed while it is offline goes on from its first unacknowledged batch.
#[tokio::test]
async fn an_agent_killed_while_offline_keeps_what_it_had() {
    let mut collector = Collector::start().await;
    let relay = Relay::to(collector.address()).await;
    let mut agent = Agent::join(&collector, "agent", relay.address()).await;
    agent.configure(FAST);
    agent.start();
    data_flows(&collector, SOON).await;
    collector.stop().await;
    let spool = agent.state_directory().join("spool");
    let mut killed = Vec::new();
    for _ in 0..3 {
        let before = directory_bytes(&spool);
        eventually("the spool grows", SOON, async || (directory_bytes(&spool) > before + 200).then_some(())).await;
        killed.push(clock::now());
        agent.kill();
        agent.start();
    }
    collector.restart().await;
    relay.lead_to(collector.address());
    collector.admin().spool_is_sent("agent", RECOVERY).await;
    agent.stop().await;
    collector.stop().await;
    let stored = Stored::read(&collector.data_directory());
    let node = agent.identity.subject.id;
    let epochs = stored.epochs(node);
    assert_eq!(epochs.len(), 1);
    stored.check_complete(node, epochs[0]);
    assert!(stored.gaps(node, epochs[0]).iter().all(|gap| gap.reason == GapReason::Unused));
    let times = stored.times(node, "load");
    for killed in killed {
        let last = times[times.partition_point(|&time| time <= killed) - 1];
        let lost = killed.millis_since(last);
        assert!(lost < 1_000, "the kill cost {lost} ms of samples");
    }
}

/// Row 9: with no room on its disk an agent goes on sampling and sending, and what was lost is declared.
#[tokio::test]
async fn an_agent_on_a_full_disk_goes_on() {
    let mut collector = Collector::start().await;
    let relay = Relay::to(collector.address()).await;
    let mut agent = Agent::join(&collector, "agent", relay.address()).await;
    agent.configure(FAST);
    let spool = agent.state_directory().join("spool");
    std::fs::create_dir_all(&spool).unwrap();
    let disk = match SmallDisk::mount(&spool, 2 * 1024 * 1024) {
        Ok(disk) => disk,
        Err(why) => return skipped("an_agent_on_a_full_disk_goes_on", &why),
    };
    agent.start();
    data_flows(&collector, SOON).await;
    disk.fill(0);
    // Live, nothing is lost by it.
    for _ in 0..3 {
        data_flows(&collector, SOON).await;
    }
    collector.stop().await;
    let offline = clock::now();
    eventually("the agent finds that it cannot keep what it makes", SOON, async || {
        agent.process().log().contains("spool failed").then_some(())
    })
    .await;
    assert!(agent.process_mut().ended().is_none(), "the agent ended");
    collector.restart().await;
    relay.lead_to(collector.address());
    data_flows(&collector, Duration::from_secs(60)).await;
    disk.free();
    data_flows(&collector, SOON).await;
    collector.admin().spool_is_sent("agent", RECOVERY).await;
    agent.stop().await;
    collector.stop().await;
    let stored = Stored::read(&collector.data_directory());
    let node = agent.identity.subject.id;
    let epochs = stored.epochs(node);
    let times = stored.times(node, "load");
    assert!(times.iter().any(|&time| time > offline), "it goes on");
    stored.check_complete(node, epochs[0]);
}

/// What an agent says first on its live stream.
async fn greeted(connection: &Connection) -> (Hello, quinn::SendStream) {
    let (send, receive) = connection.accept_bi().await.unwrap();
    let mut reader = FrameReader::new(receive);
    let hello = reader.expect(Kind::Hello, SOON).await.unwrap();
    (decode(&hello).unwrap(), send)
}

async fn refuse(connection: &Connection, failure: &Failure) -> Hello {
    let (hello, send) = greeted(connection).await;
    let mut writer = FrameWriter::new(send);
    writer.send(Kind::Failure, failure).await.unwrap();
    hello
}

/// Row 10: the collector can say when to come again, and an agent keeps to it.
#[tokio::test]
async fn an_agent_comes_again_when_it_was_told_to() {
    let collector = Collector::start().await;
    let fake = FakeCollector::start(&collector.data_directory());
    let mut agent = Agent::join(&collector, "agent", fake.address()).await;
    agent.configure(BRISK);
    agent.start();
    let failure = Failure { code: FailureCode::Retry.code(), message: "later".into(), retry_after_ms: 3_000 };
    let first = tokio::time::timeout(SOON, fake.accept()).await.unwrap();
    refuse(&first, &failure).await;
    let (waited, second) = timed(tokio::time::timeout(SOON, fake.accept())).await;
    assert!(waited >= Duration::from_millis(2_900), "it came again after {waited:?}");
    // A code of another version means to try again, not to give up (row 12).
    refuse(&second.unwrap(), &Failure { code: 4711, message: "?".into(), retry_after_ms: 0 }).await;
    let (waited, third) = timed(tokio::time::timeout(SOON, fake.accept())).await;
    third.unwrap();
    assert!(waited < Duration::from_secs(10), "it came again after {waited:?}");
}

/// Row 19: an agent that meets a collector of another version says so, and keeps what it has until one of the two is updated.
#[tokio::test]
async fn an_agent_of_another_version_keeps_its_spool() {
    let mut collector = Collector::start().await;
    let fake = FakeCollector::start(&collector.data_directory());
    let relay = Relay::to(fake.address()).await;
    let mut agent = Agent::join(&collector, "agent", relay.address()).await;
    agent.start();
    let connection = tokio::time::timeout(SOON, fake.accept()).await.unwrap();
    // A frame of version 2, as a newer collector would answer.
    let (_, mut send) = greeted(&connection).await;
    send.write_all(&[0xBF, 0x59, 2, Kind::Welcome as u8, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
    eventually("the agent says what is wrong", SOON, async || {
        let words = "peer uses frames of version 2, this build version 1; update the older of the two";
        agent.process().log().contains(words).then_some(())
    })
    .await;
    let began = clock::now();
    relay.lead_to(collector.address());
    drop(fake);
    data_flows(&collector, Duration::from_secs(90)).await;
    collector.admin().spool_is_sent("agent", RECOVERY).await;
    agent.stop().await;
    collector.stop().await;
    let stored = Stored::read(&collector.data_directory());
    let times = stored.times(agent.identity.subject.id, "load");
    assert!(times[0] < began, "what was sampled before is there");
}

/// A fake collector's end of an agent's connection, with both streams open.
struct Session {
    connection: Connection,
    reader: FrameReader,
    writer: FrameWriter,
    backlog: FrameReader,
    /// Closed when it is dropped.
    _backlog_writer: quinn::SendStream,
}

impl Session {
    async fn accept(fake: &FakeCollector) -> Self {
        let connection = tokio::time::timeout(SOON, fake.accept()).await.unwrap();
        let (send, receive) = connection.accept_bi().await.unwrap();
        let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(receive));
        reader.expect(Kind::Hello, SOON).await.unwrap();
        let welcome = Welcome {
            protocol: 1,
            collector_version: "fake".into(),
            time_ms: clock::now().as_millis(),
            durable: Vec::new(),
            backlog_credit: 64,
        };
        writer.send(Kind::Welcome, &welcome).await.unwrap();
        let (backlog_writer, receive) = connection.accept_bi().await.unwrap();
        let mut backlog = FrameReader::new(receive);
        backlog.expect(Kind::Backlog, SOON).await.unwrap();
        Self { connection, reader, writer, backlog, _backlog_writer: backlog_writer }
    }

    /// Acknowledges this many live batches.
    async fn acknowledge(&mut self, batches: usize) {
        for _ in 0..batches {
            let payload = self.reader.expect(Kind::Batches, SOON).await.unwrap();
            let sequence = decode::<Batches<'_>>(&payload).unwrap().batches[0].sequence;
            let ack = Ack { runs: vec![Run::new(sequence, sequence)] };
            self.writer.send(Kind::Ack, &ack).await.unwrap();
        }
    }
}

/// Row 42: a renewal that fails for now does not disturb the stream; there is a third of the certificate's life to try again.
#[tokio::test]
async fn a_renewal_that_fails_does_not_end_the_session() {
    let config = "shipped_rules = false\n[identity]\ncertificate_life = \"30s\"\n";
    let collector = Collector::start_with(config).await;
    let fake = FakeCollector::start(&collector.data_directory());
    let mut agent = Agent::join(&collector, "agent", fake.address()).await;
    agent.start();
    let mut session = Session::accept(&fake).await;
    let connection = session.connection.clone();
    let renewal = loop {
        tokio::select! {
            renewal = connection.accept_bi() => break renewal.unwrap(),
            () = session.acknowledge(1) => {}
        }
    };
    let (mut writer, mut reader) = (FrameWriter::new(renewal.0), FrameReader::new(renewal.1));
    reader.expect(Kind::Renew, SOON).await.unwrap();
    let failure = Failure { code: FailureCode::Retry.code(), message: "not now".into(), retry_after_ms: 0 };
    writer.send(Kind::Failure, &failure).await.unwrap();
    eventually("the agent says so", SOON, async || {
        agent.process().log().contains("certificate cannot be renewed: trying again").then_some(())
    })
    .await;
    session.acknowledge(4).await;
    assert!(connection.close_reason().is_none(), "{:?}", connection.close_reason());
}

/// Row 10: a collector that stops ends its streams and then says when to come back; an agent waits for the reason.
#[tokio::test]
async fn an_agent_hears_why_a_collector_leaves() {
    let mut collector = Collector::start().await;
    let mut agent = Agent::join(&collector, "agent", collector.address()).await;
    agent.start();
    data_flows(&collector, SOON).await;
    collector.stop().await;
    eventually("the agent knows why", SOON, async || {
        agent.process().log().contains("the collector stops, come back in").then_some(())
    })
    .await;
}

/// Row 10: when a collector dies and comes back, a fleet of agents comes back to it, all of them, and loses nothing.
#[tokio::test]
async fn a_fleet_comes_back_after_its_collector_was_killed() {
    const NODES: usize = 200;
    let mut collector = Collector::start().await;
    collector.listen_on(collector.address());
    let mut simulation = Command::new(binaries::belfry());
    simulation.args(["simulate", "--series", "20", "--duration", "30s", "-o", "json", "--nodes", &NODES.to_string()]);
    simulation.arg("--identity").arg(collector.data_directory());
    let output = collector.scratch().join("report.json");
    let mut simulation = Process::start_split(&mut simulation, &output, &output.with_extension("log"));
    eventually("the fleet sends", SOON, async || {
        (collector.admin().health("batches").await > 2 * NODES as u64).then_some(())
    })
    .await;
    collector.kill();
    collector.restart().await;
    let status = simulation.end(Duration::from_secs(120)).await;
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&output).unwrap()).unwrap();
    assert!(status.success(), "{report}");
    assert!(report["connections_lost"].as_u64().unwrap() >= NODES as u64, "{report}");
    assert_eq!(report["batches_sent"], report["batches_acked"], "{report}");
}

/// Row 11: a collector that refuses a batch for good does not stop the ones behind it.
#[tokio::test]
async fn a_refused_batch_is_declared_and_the_rest_goes_on() {
    let collector = Collector::start().await;
    let fake = FakeCollector::start(&collector.data_directory());
    let mut agent = Agent::join(&collector, "agent", fake.address()).await;
    agent.start();
    let mut session = Session::accept(&fake).await;
    let Session { reader, writer, backlog, .. } = &mut session;
    let mut refused = None;
    for _ in 0..6 {
        let payload = reader.expect(Kind::Batches, SOON).await.unwrap();
        let Batches { batches } = decode(&payload).unwrap();
        let sequence = batches[0].sequence;
        if refused.is_none() {
            refused = Some(sequence);
            let poison = Refused { sequence, reason: "poison".into() };
            writer.send(Kind::Refused, &poison).await.unwrap();
        } else {
            writer.send(Kind::Ack, &Ack { runs: vec![Run::new(sequence, sequence)] }).await.unwrap();
        }
    }
    let declared = eventually("the refused batch is declared as a gap", SOON, async || {
        let (kind, payload) = backlog.next_within(SOON).await.unwrap();
        if kind == Kind::Batches {
            // What was sampled before the connection stood is backlog.
            let Batches { batches } = decode(&payload).unwrap();
            assert!(batches.iter().all(|batch| Some(batch.sequence) != refused), "a refused batch came again");
        }
        (kind == Kind::Gaps).then(|| decode::<Gaps>(&payload).unwrap())
    })
    .await;
    let runs: Vec<_> = declared.gaps.iter().map(|gap| gap.parse()).collect();
    assert!(runs.iter().any(|gap| Some(gap.first) == refused && gap.reason == GapReason::Refused), "{runs:?}");
    drop(collector);
}
