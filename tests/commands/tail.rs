//! `belfry tail`: what is shown, in which form, and how a stream ends.

use std::collections::BTreeSet;

use belfry_common::{
    clock,
    model::{Batch, Raw, Reason, Tick},
};
use belfry_tests::{
    cli::{Cli, assert_fields, assert_time, csv_rows},
    collector::Collector,
    process::read_one_line,
    samples::batch_of,
    wait::{SOON, eventually},
};
use rustix::process::Signal;
use serde_json::Value;

use crate::node::Node;

/// The value by which a test knows that all before it has been shown.
const MARK: f64 = 77.0;

fn is_marked(lines: &[Value]) -> bool {
    lines.iter().any(|line| line["value"] == MARK)
}

#[tokio::test]
async fn lines_have_the_promised_fields_and_a_failed_reading_its_reason() {
    let collector = Collector::start().await;
    let mut node = Node::join(&collector, "node").await;
    let mut batch = batch_of(1, "test_value", 0..4, clock::now(), 1.5);
    batch.ticks[0].values =
        vec![Raw::float(1.5), Raw::missing(Reason::Timeout), Raw::float(f64::NAN), Raw::float(f64::NEG_INFINITY)];
    let (live, sequence) = node.live();
    live.store(sequence, &batch).await;
    let mut tail = Cli::admin(&collector).start(&["tail", "test_value", "--since", "1m", "-o", "jsonl"]);
    let mut lines = tail.until("the past is shown", |lines| lines.len() == 4).await;
    lines.sort_by_key(|line| line["labels"]["device"].to_string());
    for (line, value) in lines.iter().zip([Value::from(1.5), Value::Null, "NaN".into(), "-Inf".into()]) {
        let has_failed = value.is_null();
        assert_fields(line, if has_failed { "time metric labels value reason" } else { "time metric labels value" });
        assert_fields(&line["labels"], "instance job device");
        assert_time(&line["time"]);
        assert_eq!((&line["metric"], &line["labels"]["instance"]), (&"test_value".into(), &"node".into()));
        assert_eq!(line["value"], value);
        assert!(!has_failed || line["reason"] == "timeout", "{line}");
    }
    tail.stop().await;
}

#[tokio::test]
async fn the_past_is_shown_once_and_then_what_comes() {
    let collector = Collector::start().await;
    let mut node = Node::join(&collector, "node").await;
    let begin = clock::now();
    for (age_ms, value) in [(120_000, 0.0), (20_000, 1.0), (10_000, 2.0)] {
        let batch = batch_of(1, "test_value", 0..1, begin.plus_millis(-age_ms), value);
        let (live, sequence) = node.live();
        live.store(sequence, &batch).await;
    }
    let cli = Cli::admin(&collector);
    let mut with_past = cli.start(&["tail", "test_value", "--since", "1m", "-o", "json"]);
    with_past.until("the past is shown", |lines| lines.len() == 2).await;
    let mut without_past = cli.start(&["tail", "test_value", "-o", "jsonl"]);
    // There is no sign of a stream that has begun and has nothing to show, so that it must be given something.
    let begun = eventually("the stream begins", SOON, async || {
        node.say("test_value", 1, 3.0).await;
        Some(without_past.objects()).filter(|lines| !lines.is_empty())
    });
    begun.await;
    node.say("test_value", 1, MARK).await;
    for (tail, first) in [(&mut with_past, [1.0, 2.0, 3.0].as_slice()), (&mut without_past, &[3.0])] {
        let lines = tail.until("what comes is shown", is_marked).await;
        let mut values: Vec<f64> = lines.iter().map(|line| line["value"].as_f64().unwrap()).collect();
        values.dedup();
        assert_eq!(values, [first, &[MARK]].concat());
    }
    let shown = with_past.objects();
    let times: BTreeSet<&str> = shown.iter().map(|line| line["time"].as_str().unwrap()).collect();
    assert_eq!(times.len(), shown.len(), "nothing is shown twice");
}

#[tokio::test]
async fn globs_selectors_and_nodes_choose() {
    let collector = Collector::start().await;
    let mut one = Node::join(&collector, "one").await;
    let mut two = Node::join(&collector, "two").await;
    let cli = Cli::admin(&collector);
    let all =
        ["one test_value d0", "one test_value d1", "one other_value d0", "two test_value d0", "two test_value d1"];
    let cases = [
        (&["test_*"][..], &[all[0], all[1], all[3], all[4]][..]),
        (&["?ther_value"], &[all[2]]),
        (&["test_value{device=\"d1\"}"], &[all[1], all[4]]),
        (&["{__name__=~\"other.*|test.*\",device!=\"d1\"}"], &[all[0], all[2], all[3]]),
        (&["test_value{device=\"d1\"}", "other_*"], &[all[1], all[2], all[4]]),
        (&["*", "--node", "one"], &all[..3]),
        (&["test_value", "--node", "two"], &all[3..]),
        (&["*_value"], &all),
    ];
    let start = |(words, _): &(&[&str], _)| cli.start(&[&["tail", "-o", "jsonl", "--since", "5m"], *words].concat());
    let tails: Vec<_> = cases.iter().map(start).collect();
    // Each case has something from the last batch of either node, before which all else has been shown.
    for value in [1.0, MARK] {
        one.say("other_value", 1, value).await;
        one.say("test_value", 2, value).await;
        two.say("test_value", 2, value).await;
    }
    for ((words, expected), mut tail) in cases.into_iter().zip(tails) {
        let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
        let series = |line: &Value| {
            let text = |value: &Value| value.as_str().unwrap().to_string();
            let Value::Object(labels) = &line["labels"] else { panic!("{line}") };
            [text(&labels["instance"]), text(&line["metric"]), text(&labels["device"])].join(" ")
        };
        let marked = |lines: &[Value]| lines.iter().filter(|line| line["value"] == MARK).map(series).collect();
        let lines = tail
            .until("all that was chosen is shown", |lines| {
                let marked: BTreeSet<String> = marked(lines);
                marked.is_superset(&expected)
            })
            .await;
        assert_eq!(lines.iter().map(series).collect::<BTreeSet<_>>(), expected, "{words:?}");
    }
}

#[tokio::test]
async fn a_node_that_is_not_there_is_an_error() {
    let collector = Collector::start().await;
    let error = Cli::admin(&collector).run(&["tail", "--node", "nobody"]).await.refused(1);
    assert_eq!(error, "belfry: no node is called \"nobody\"; `belfry nodes` lists them\n");
}

#[tokio::test]
async fn people_and_spreadsheets_get_lines_of_their_own() {
    let collector = Collector::start().await;
    let mut node = Node::join(&collector, "node").await;
    node.say("test_value", 1, 1.5).await;
    let cli = Cli::admin(&collector);
    let first_lines = async |form: &str, count: usize| {
        let tail = cli.start(&["tail", "test_value", "--since", "1m", "-o", form]);
        eventually("the past is shown", SOON, async || (tail.text().lines().count() == count).then_some(())).await;
        tail.stop().await
    };
    let table = first_lines("table", 1).await;
    assert!(
        table.contains("node") && table.contains("1.5") && table.ends_with("test_value{device=\"d0\"}\n"),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'), "an escape code in a pipe: {table:?}");
    let rows = csv_rows(&first_lines("csv", 2).await);
    let cell = |name: &str| rows[0][name].as_str();
    assert_eq!((cell("metric"), cell("value"), cell("reason")), ("test_value", "1.5", ""));
    let labels: Value = serde_json::from_str(cell("labels")).unwrap();
    assert_eq!(labels["device"], "d0");
}

/// Also if nothing is left to be shown: the end is not noticed by a failing write, which would never come.
#[tokio::test]
async fn a_closed_pipe_ends_a_stream_quietly() {
    let collector = Collector::start().await;
    let mut node = Node::join(&collector, "node").await;
    node.say("test_value", 1, 1.5).await;
    for form in ["table", "jsonl"] {
        let words = ["tail", "test_value", "--since", "1m", "-o", form];
        let said = read_one_line(&mut Cli::admin(&collector).command(&words)).await;
        assert!(said.output.contains("1.5"), "{said:?}");
        assert!(said.code == Some(0) && said.error.is_empty(), "{said:?}");
    }
}

#[tokio::test]
async fn a_signal_ends_a_stream_in_order_and_a_collector_that_goes_does_not() {
    let mut collector = Collector::start().await;
    let mut node = Node::join(&collector, "node").await;
    node.say("test_value", 1, 1.5).await;
    let tail = || Cli::admin(&collector).start(&["tail", "test_value", "--since", "1m", "-o", "jsonl"]);
    for signal in [Signal::INT, Signal::TERM] {
        let mut tail = tail();
        tail.until("the past is shown", |lines| lines.len() == 1).await;
        tail.process_mut().signal(signal);
        let status = tail.process_mut().end(SOON).await;
        assert!(status.success() && tail.error().is_empty(), "{status}: {}", tail.error());
    }
    let mut tail = tail();
    tail.until("the past is shown", |lines| lines.len() == 1).await;
    collector.stop().await;
    let status = tail.process_mut().end(SOON).await;
    assert!(status.code() == Some(1) && tail.error().starts_with("belfry: "), "{status}: {}", tail.error());
}

/// What one reading has said stays as it was said: a batch of nothing but a failed reading is shown, too.
#[tokio::test]
async fn a_reading_that_begins_to_fail_is_shown_at_once() {
    let collector = Collector::start().await;
    let mut node = Node::join(&collector, "node").await;
    node.say("test_value", 1, 1.5).await;
    let mut tail = Cli::admin(&collector).start(&["tail", "test_value", "--since", "1m", "-o", "jsonl"]);
    tail.until("the past is shown", |lines| lines.len() == 1).await;
    let Batch { ticks } = batch_of(1, "test_value", 0..1, clock::now(), 0.0);
    let failing = |tick: Tick| Tick { values: vec![Raw::missing(Reason::Timeout)], ..tick };
    let (live, sequence) = node.live();
    live.store(sequence, &Batch { ticks: ticks.into_iter().map(failing).collect() }).await;
    let lines = tail.until("the failure is shown", |lines| lines.len() == 2).await;
    assert_eq!((&lines[1]["value"], &lines[1]["reason"]), (&Value::Null, &"timeout".into()));
}
