//! `belfry query`: what an expression amounts to, in every form.

use std::{fs, time::Duration};

use belfry_common::{clock, model::Raw};
use belfry_tests::{
    cli::{Cli, assert_fields, assert_time, objects},
    collector::Collector,
    samples::batch_of,
    wait::eventually,
};
use serde_json::{Value, json};

use crate::node::Node;

/// A collector that has two series of one node, five samples each, a second apart.
async fn with_samples() -> Collector {
    let collector = Collector::start().await;
    let mut node = Node::join(&collector, "node").await;
    let now = clock::now();
    for age in (0..5).rev() {
        let mut batch = batch_of(1, "test_value_watts", 0..2, now.plus_millis(-1000 * age), 1.5);
        batch.ticks[0].values = vec![Raw::float(100.0 + age as f64), Raw::float(f64::NAN)];
        let (live, sequence) = node.live();
        live.store(sequence, &batch).await;
    }
    collector
}

#[tokio::test]
async fn an_instant_in_every_form() {
    let collector = with_samples().await;
    let cli = Cli::admin(&collector);
    let document = cli.json(&["query", "test_value_watts"]).await;
    assert_fields(&document, "type time series warnings infos");
    assert_time(&document["time"]);
    let series = &document["series"][0];
    assert_fields(series, "metric labels samples");
    assert_eq!((&document["type"], &series["metric"]), (&json!("vector"), &json!("test_value_watts")));
    assert_eq!(series["labels"], json!({"device": "d0", "instance": "node", "job": "belfry"}));
    assert_eq!(
        (&series["samples"][0]["value"], &document["series"][1]["samples"][0]["value"]),
        (&json!(100.0), &json!("NaN"))
    );

    let lines = objects(&cli.done(&["query", "test_value_watts", "-o", "jsonl"]).await);
    assert_fields(&lines[0], "time metric labels value");
    let rows = cli.csv(&["query", "test_value_watts"]).await;
    assert_eq!((rows.len(), &*rows[0]["device"], &*rows[0]["value"]), (2, "d0", "100.0"));
    let table = cli.done(&["query", "test_value_watts"]).await;
    for part in
        ["test_value_watts{instance=\"node\",job=\"belfry\"}", "2 series", "VALUE  DEVICE", "100 W  d0", "NaN  d1"]
    {
        assert!(table.contains(part), "{part:?} in {table}");
    }
    assert_eq!(cli.done(&["query", "1 + 1"]).await, "2\n");
    assert_eq!(cli.done(&["query", "'text'"]).await, "text\n");
    assert_eq!(cli.done(&["query", "nosuch"]).await, "no series match\n");
    assert_eq!(cli.done(&["query", "test_value_watts", "--time", "1h"]).await, "no series match\n");
}

#[tokio::test]
async fn a_range_is_plotted_and_all_its_points_are_told() {
    let collector = with_samples().await;
    let cli = Cli::admin(&collector);
    let plot = cli.done(&["query", "test_value_watts{device=\"d0\"}", "--range", "10s"]).await;
    for part in ["┤", "└──", "LAST", "104 W"] {
        assert!(plot.contains(part), "{part:?} in {plot}");
    }
    let mut dotted = plot.lines().filter(|line| line.contains(['│', '┤']));
    assert!(dotted.all(|line| line.chars().count() <= 80), "{plot}");
    let range = ["query", "test_value_watts{device=\"d0\"}", "--range", "10s", "--step", "1s"];
    let document = cli.json(&range).await;
    let samples = document["series"][0]["samples"].as_array().unwrap();
    assert!((5..=11).contains(&samples.len()), "{document}");
    assert_eq!(samples.last().unwrap()["value"], 100.0);
}

#[tokio::test]
async fn what_is_wrong_is_said_in_words() {
    let collector = with_samples().await;
    let cli = Cli::admin(&collector);
    for (words, code, said) in [
        (&["query", "nosuch(up)"][..], 2, "unknown function `nosuch` at 1:1"),
        (&["query", "sum(up) by"][..], 2, "\n  sum(up) by\n            ^\n  unexpected end of expression at 1:11\n"),
        (&["query", "up[5m]", "--range", "1m"], 2, "a range vector has no value at each step of a range"),
        (&["query", "test_value_watts * on() test_value_watts"], 2, "many"),
        (&["query", "up", "--step", "5s"], 2, "--range"),
        (&["query", "up", "--range", "1h", "--step", "0s"], 2, "--step must be at least 1ms"),
        (&["query", "up", "--range", "1h", "--step", "1ms"], 2, "use a longer step"),
        (&["query", "up", "--time", "noon"], 2, "5m for five minutes ago"),
    ] {
        let error = cli.run(words).await.refused(code);
        assert!(error.contains(said), "{words:?}: {error}");
    }
    let viewer = collector.join_as("viewer", "grafana").await;
    let directory = collector.scratch().join("viewer");
    viewer.save(&directory).unwrap();
    let asked = Cli::of(&directory).command(&["--collector", &collector.address().to_string(), "query", "1"]).output();
    assert_eq!(String::from_utf8(asked.unwrap().stdout).unwrap(), "1\n", "a viewer may ask");
}

#[tokio::test]
async fn a_range_is_drawn_into_files() {
    let collector = with_samples().await;
    let cli = Cli::admin(&collector);
    let (svg, png) = (collector.scratch().join("a.svg"), collector.scratch().join("a.png"));
    let (svg, png) = (svg.to_str().unwrap(), png.to_str().unwrap());
    let words = ["query", "test_value_watts", "--range", "10s", "--svg", svg, "--png", png];
    let said = cli.run(&words).await;
    assert_eq!((said.code, said.output.as_str()), (Some(0), ""), "{said:?}");
    assert!(said.error.contains("a.svg: 2 series") && said.error.contains("a.png: 2 series"), "{said:?}");
    let text = fs::read_to_string(svg).unwrap();
    for part in ["<svg ", ">test_value_watts</text>", ">device=d0</text>", " W</text>", "<polyline "] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(fs::read(png).unwrap().starts_with(b"\x89PNG\r\n"));

    let error = cli.run(&["query", "up", "--svg", svg]).await.refused(2);
    assert!(error.contains("--range"), "{error}");
    let error = cli.run(&["query", "up", "--range", "10s", "--png", "/nosuch/a.png"]).await.refused(1);
    assert!(error.contains("failed to write `/nosuch/a.png`"), "{error}");
}

/// Nine hours of a counter that says how many seconds have gone by, a sample each 15 s, of which raw samples are kept for three.
#[tokio::test]
async fn where_raw_samples_are_gone_minutes_are_left() {
    const SECONDS: i64 = 9 * 3600;
    let mut collector =
        Collector::start_with("shipped_rules = false\n[store]\nflush_interval = \"1s\"\nraw_age_max = \"3h\"").await;
    let cli = Cli::admin(&collector);
    collector.join("node").await;
    assert!(collector.stop().await.success());
    let end = clock::now().as_millis() / 60_000 * 60;
    let begin = end - SECONDS;
    let file = collector.scratch().join("old.txt");
    let samples: String =
        (0..SECONDS).step_by(15).map(|at| format!("old_total{{instance=\"node\"}} {at} {}\n", begin + at)).collect();
    fs::write(&file, format!("# TYPE old counter\n{samples}# EOF\n")).unwrap();
    let data = collector.data_directory();
    let words = ["store", "import", "--format", "openmetrics", "--data-dir", data.to_str().unwrap()];
    assert_eq!(cli.run(&[&words[..], &[file.to_str().unwrap()]].concat()).await.code, Some(0));
    collector.launch();
    collector.ready().await;

    let at = |hours: i64| (end - hours * 3600).to_string();
    let value = async |expression: &str, time: &str| -> Value {
        cli.json(&["query", expression, "--time", time]).await["series"][0]["samples"][0]["value"].clone()
    };
    // Old hours are put in order after the start: minutes are made of them, and the raw samples go.
    eventually("raw samples are gone", Duration::from_secs(60), async || {
        (value("changes(old_total[10m])", &at(7)).await == json!(9.0)).then_some(())
    })
    .await;
    assert_eq!(value("changes(old_total[10m])", &at(1)).await, json!(39.0));
    // Minutes know how many samples they stand for.
    assert_eq!(value("count_over_time(old_total[10m])", &at(7)).await, json!(40.0));
    assert_eq!(value("count_over_time(old_total[10m])", &at(1)).await, json!(40.0));
    // Known at the end of each minute, the last sample of it.
    assert_eq!(value("old_total", &at(7)).await, json!((SECONDS - 7 * 3600 - 15) as f64));
    assert_eq!(value("rate(old_total[10m])", &at(7)).await, json!(1.0));
    // Both in one: but for what passes between a minute's last sample and its end.
    let increase = value("increase(old_total[7h])", &at(1)).await.as_f64().unwrap();
    assert!((increase - 25_200.0).abs() <= 60.0, "{increase}");
    let range = ["query", "old_total", "--range", "8h", "--step", "1h", "--time", &at(0)];
    let document = cli.json(&range).await;
    assert_eq!(document["series"][0]["samples"].as_array().map(Vec::len), Some(9), "{document}");
    assert_eq!(cli.json(&["query", "absent(old_total)", "--time", &at(7)]).await["series"], json!([]));
}
