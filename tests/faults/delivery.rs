//! What is acknowledged is stored once, with the right content, whatever the sender does.

use belfry_common::{
    clock,
    model::{Epoch, GapReason, Timestamp},
    wire::{
        frame::Kind,
        message::{FailureCode, GapRun, Gaps, Hello, Run},
    },
};
use belfry_tests::{
    collector::Collector,
    hostile::{Answer, Live, Stream, hello, send_backlog},
    oracle::{Ledger, Stored},
    samples::{Samples, batch_of},
    wait::SOON,
};
use serde_json::json;

const EPOCH: Epoch = Epoch(0xE1);

fn ago(millis: i64) -> Timestamp {
    clock::now().plus_millis(-millis)
}

async fn acknowledged(stream: &mut Stream, sequence: u64) {
    while !stream.answer().await.unwrap().acknowledges(sequence) {}
}

/// Row 5: batches come twice and in any order, live and as backlog, on one connection and on the next.
#[tokio::test]
async fn a_batch_that_comes_again_or_out_of_order_is_stored_once() {
    let mut collector = Collector::start().await;
    let identity = collector.join("node").await;
    let samples = Samples::new(1, ago(60_000), 1000);
    let mut ledger = Ledger::default();
    for sequence in 1..=9 {
        ledger.sent.insert(sequence, samples.batch(sequence));
    }
    for _ in 0..2 {
        let mut live = Live::open(collector.address(), &identity, EPOCH).await.unwrap();
        for sequence in [3, 1, 2, 2, 3, 9] {
            live.store(sequence, &ledger.sent[&sequence]).await;
            ledger.acknowledged.insert(sequence);
        }
        let mut backlog = live.backlog().await.unwrap();
        for frame in [[5, 4, 1, 3], [6, 6, 5, 7]] {
            send_backlog(&mut backlog, frame.map(|sequence| (sequence, &ledger.sent[&sequence]))).await.unwrap();
            acknowledged(&mut backlog, frame[3]).await;
            ledger.acknowledged.extend(frame);
        }
    }
    let live = Live::open(collector.address(), &identity, EPOCH).await.unwrap();
    assert_eq!(live.welcome.durable, [Run::new(1, 7), Run::new(9, 9)], "the hello is told what is durable");
    collector.stop().await;
    Stored::read(&collector.data_directory()).check(identity.subject.id, EPOCH, &ledger);
}

/// Row 5: the same numbers of another node or another epoch are other batches.
#[tokio::test]
async fn numbers_count_for_their_node_and_epoch_only() {
    let mut collector = Collector::start().await;
    let first = collector.join("first").await;
    let second = collector.join("second").await;
    let mut ledgers = Vec::new();
    for (seed, identity, epoch) in [(1, &first, Epoch(1)), (2, &second, Epoch(1)), (3, &second, Epoch(2))] {
        let samples = Samples::new(seed, ago(60_000), 1000);
        let mut ledger = Ledger::default();
        let mut live = Live::open(collector.address(), identity, epoch).await.unwrap();
        for sequence in 1..=5 {
            ledger.sent.insert(sequence, samples.batch(sequence));
            ledger.acknowledged.insert(sequence);
            live.store(sequence, &ledger.sent[&sequence]).await;
        }
        ledgers.push((identity.subject.id, epoch, ledger));
    }
    collector.stop().await;
    let stored = Stored::read(&collector.data_directory());
    for (node, epoch, ledger) in ledgers {
        stored.check(node, epoch, &ledger);
    }
}

/// Row 6: a spool that was copied or restored shows an epoch that was replaced, also to a collector that was restarted.
#[tokio::test]
async fn an_epoch_that_was_replaced_is_refused_for_good() {
    let mut collector = Collector::start().await;
    let identity = collector.join("node").await;
    for epoch in [Epoch(1), Epoch(2)] {
        Live::open(collector.address(), &identity, epoch).await.unwrap();
    }
    for _ in 0..2 {
        let refused = Live::open(collector.address(), &identity, Epoch(1)).await.unwrap_err();
        assert!(refused.contains("StaleEpoch"), "{refused}");
        Live::open(collector.address(), &identity, Epoch(2)).await.unwrap();
        collector.kill();
        collector.restart().await;
    }
}

/// Row 6: a spool that was restored within its epoch would give numbers to other data that are stored already: it is refused
/// before anything that it sends could be taken for a repetition.
#[tokio::test]
async fn a_spool_that_was_set_back_is_refused() {
    let collector = Collector::start().await;
    let identity = collector.join("node").await;
    let mut live = Live::open(collector.address(), &identity, Epoch(1)).await.unwrap();
    for sequence in 1..=5 {
        live.store(sequence, &batch_of(1, "test_value", 0..1, clock::now(), 1.0)).await;
    }
    let from = |next_sequence| Hello { next_sequence, ..hello(Epoch(1)) };
    let refused = Live::open_with(collector.address(), &identity, from(4)).await.unwrap_err();
    assert!(refused.contains("StaleEpoch") && refused.contains("restored backup"), "{refused}");
    let again = Live::open_with(collector.address(), &identity, from(6)).await.unwrap();
    assert_eq!(again.welcome.durable, [Run::new(1, 5)]);
}

/// Row 18: a tick of the far future is refused with a reason that says what to do; the ones around it are kept.
#[tokio::test]
async fn a_clock_that_is_ahead_is_told_so_and_costs_that_batch_alone() {
    let mut collector = Collector::start().await;
    let identity = collector.join("node").await;
    let mut live = Live::open(collector.address(), &identity, EPOCH).await.unwrap();
    let year_ms = 365 * 24 * 3_600_000;
    let mut ledger = Ledger::default();
    for (sequence, ahead_ms) in [(1, 0), (2, 11 * 60_000), (3, -year_ms), (4, 9 * 60_000), (5, year_ms), (6, 1000)] {
        let batch = batch_of(1, "test_value", 0..2, ago(-ahead_ms), 1.0);
        live.send(sequence, &batch).await.unwrap();
        let answer = live.stream.answer().await.unwrap();
        if ahead_ms > 600_000 {
            let Answer::Refused(refused) = answer else { panic!("{answer:?}") };
            assert_eq!(refused.sequence, sequence);
            assert!(refused.reason.contains("in the future") && refused.reason.contains("set the node's clock"));
        } else {
            assert!(answer.acknowledges(sequence), "{answer:?}");
            ledger.acknowledged.insert(sequence);
            ledger.sent.insert(sequence, batch);
        }
    }
    let mut backlog = live.backlog().await.unwrap();
    let gap = GapRun { run: Run::new(2, 2), reason: GapReason::Refused.code() };
    backlog.message(Kind::Gaps, &Gaps { gaps: vec![gap] }).await.unwrap();
    acknowledged(&mut backlog, 2).await;
    collector.stop().await;
    let stored = Stored::read(&collector.data_directory());
    stored.check(identity.subject.id, EPOCH, &ledger);
    assert_eq!(stored.gaps(identity.subject.id, EPOCH).len(), 1);
}

/// Row 51: a node with too many series keeps the ones that it had, and what is left out is counted.
#[tokio::test]
async fn a_label_bomb_leaves_the_series_that_were_there_first() {
    let collector = Collector::start_with("shipped_rules = false\n[limits]\nseries_per_node = 100").await;
    let identity = collector.join("node").await;
    let mut live = Live::open(collector.address(), &identity, EPOCH).await.unwrap();
    live.store(1, &batch_of(1, "good", 0..60, ago(0), 1.0)).await;
    live.store(2, &batch_of(2, "bomb", 0..5_000, ago(0), 2.0)).await;
    live.store(3, &batch_of(1, "good", 0..60, ago(0), 3.0)).await;
    let node = collector.admin().node("node").await;
    assert_eq!((&node["series"], &node["series_left_out"]), (&json!(100), &json!(4_960)));
    let request = json!({"request": "tail", "selectors": ["good"], "node": "node", "since_ms": 60_000});
    let mut lines = collector.admin().follow(&request).await;
    let mut values = Vec::new();
    for _ in 0..120 {
        values.push(lines.next(SOON).await.unwrap()["value"].as_f64().unwrap());
    }
    assert_eq!(values.iter().filter(|&&value| value == 3.0).count(), 60, "the old series go on");
}

/// Row 51: names and values beyond their limits cost the batch and the stream, and nobody else anything.
#[tokio::test]
async fn an_unacceptable_series_is_refused_and_the_node_may_come_again() {
    let collector = Collector::start().await;
    let identity = collector.join("node").await;
    let other = collector.join("other").await;
    let mut bystander = Live::open(collector.address(), &other, EPOCH).await.unwrap();
    let long = "x".repeat(10_000);
    for name in ["0bad", "a\nb", "ä", &long] {
        let mut live = Live::open(collector.address(), &identity, EPOCH).await.unwrap();
        live.send(7, &batch_of(1, name, 0..1, ago(0), 1.0)).await.unwrap();
        let answer = live.stream.answer().await.unwrap();
        assert!(matches!(&answer, Answer::Refused(refused) if refused.sequence == 7), "{name:.9}: {answer:?}");
        let answer = live.stream.answer().await.unwrap();
        assert!(matches!(answer, Answer::Failure(FailureCode::Retry, _)), "{name:.9}: {answer:?}");
    }
    bystander.store(1, &batch_of(1, "good", 0..1, ago(0), 1.0)).await;
}

/// Row 52: what is no number arrives as what it is.
#[tokio::test]
async fn not_a_number_and_infinity_are_shown_as_such() {
    let collector = Collector::start().await;
    let identity = collector.join("node").await;
    let mut live = Live::open(collector.address(), &identity, EPOCH).await.unwrap();
    let mut lines = {
        let request = json!({"request": "tail", "selectors": ["odd"], "node": null, "since_ms": 60_000});
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.5];
        for (sequence, value) in (1..).zip(values) {
            live.store(sequence, &batch_of(1, "odd", 0..1, ago(10_000 - sequence as i64), value)).await;
        }
        collector.admin().follow(&request).await
    };
    for expected in [json!("NaN"), json!("+Inf"), json!("-Inf"), json!(-1.5)] {
        assert_eq!(lines.next(SOON).await.unwrap()["value"], expected);
    }
}
