//! Beside a live Prometheus with the same samples and the tools that come with it: the same answer to each query, the same verdict on
//! each rule file, or a difference that its version explains.
//!
//! Instants lie between samples, so that it does not matter whether a range has its first instant: it has not since Prometheus 3, and older
//! ones have it.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers as well")]
#![expect(clippy::indexing_slicing, reason = "a panic is how a test fails, in its helpers as well")]

mod clients;
mod queries;
mod rules;
mod samples;

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path, process::Command};

use belfry_common::{clock, model::Timestamp};
use belfry_tests::{
    cli::Cli,
    collector::Collector,
    http::get,
    process::{Process, finish, free_address},
    skip::skipped,
    wait::{SOON, eventually},
};
use serde_json::Value;

/// Relative difference up to which two numbers are the same: sums are made in another order.
const TOLERANCE: f64 = 1e-9;
/// From the newest sample back; none of them on a sample.
const AGES_MS: [i64; 3] = [7_300, 21 * 60_000 + 4_100, 71 * 60_000 + 11_700];
/// How long a range is, and its step.
const RANGE_MS: i64 = 20 * 60_000;
const STEP: &str = "33";

/// What may differ, and why.
const EXPLAINED: [(&str, &str); 3] = [
    ("atan2", "before Prometheus 3 it keeps the metric's name"),
    ("5m", "since Prometheus 3 a duration is a number of seconds"),
    (
        "label_replace(node_load1, \"a\", \"b\", \"c\", \"(\")",
        "a malformed expression is refused before it is evaluated",
    ),
];

#[tokio::test]
async fn queries_are_answered_as_a_live_prometheus_answers_them() {
    let mut collector = Collector::start().await;
    let directory = collector.scratch().to_path_buf();
    if ["prometheus", "promtool"].iter().any(|name| Command::new(name).arg("--version").output().is_err()) {
        return skipped("prometheus", "the program is not installed");
    }
    // Some minutes ago, so that nothing more arrives. Not at a whole second: no step of a subquery shall fall on a sample.
    let end = Timestamp::from_millis((clock::now().as_millis() - 600_000).div_euclid(60_000) * 60_000 + 4_321);
    fs::write(directory.join("samples.txt"), samples::text(end)).unwrap();
    for node in samples::NODES {
        collector.join(node).await;
    }
    let cli = Cli::admin(&collector);
    assert!(collector.stop().await.success());
    let data = collector.data_directory();
    let file = directory.join("samples.txt");
    let words =
        ["store", "import", "--format", "openmetrics", "--data-dir", data.to_str().unwrap(), file.to_str().unwrap()];
    assert_eq!(cli.run(&words).await.code, Some(0), "the samples are imported");
    collector.launch();
    collector.ready().await;
    let (_process, theirs) = prometheus(&directory).await;
    let ours = collector.http_address();

    let mut verdicts = Verdicts::default();
    for query in queries::all() {
        for age_ms in AGES_MS {
            let time_ms = end.as_millis() - age_ms;
            let instant = format!("query?query={}&time={}", encoded(&query), seconds(time_ms));
            verdicts.compare(&query, &instant, ours, theirs);
            let from = seconds(time_ms - RANGE_MS);
            let range =
                format!("query_range?query={}&start={from}&end={}&step={STEP}", encoded(&query), seconds(time_ms));
            verdicts.compare(&query, &range, ours, theirs);
        }
    }
    verdicts.judge();
}

/// A Prometheus that has the samples as a block.
async fn prometheus(directory: &Path) -> (Process, SocketAddr) {
    let mut make = Command::new("promtool");
    make.args(["tsdb", "create-blocks-from", "openmetrics", "samples.txt", "blocks"]).current_dir(directory);
    let made = finish(&mut make).await;
    assert_eq!(made.code, Some(0), "a block is made: {made:?}");
    fs::write(directory.join("prometheus.yml"), "{}").unwrap();
    let address = free_address();
    let mut command = Command::new("prometheus");
    command.current_dir(directory).args(["--config.file=prometheus.yml", "--storage.tsdb.path=blocks"]);
    command.arg(format!("--web.listen-address={address}"));
    let process = Process::start(&mut command, &directory.join("prometheus.log"));
    eventually("Prometheus is ready", SOON, async || get(address, "/-/ready").filter(|(status, _)| *status == 200))
        .await;
    (process, address)
}

/// How the answers compare.
#[derive(Debug, Default)]
struct Verdicts {
    /// How many answers agree, of each query.
    agreed: BTreeMap<String, usize>,
    /// Why others do not.
    explained: BTreeMap<String, String>,
    differences: Vec<String>,
}

impl Verdicts {
    fn compare(&mut self, query: &str, path: &str, ours: SocketAddr, theirs: SocketAddr) {
        let path = format!("/api/v1/{path}");
        let [ours, theirs] = [ours, theirs].map(|address| {
            let (status, body) = get(address, &path).unwrap_or_else(|| panic!("no answer to {path}"));
            let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
            (status, body)
        });
        let error = theirs.1["error"].as_str().unwrap_or_default();
        if ours.0 == 200 && error.contains("unknown function") {
            self.explained.insert(query.to_owned(), error.to_owned());
            return;
        }
        match difference(&ours, &theirs) {
            Some(_) if let Some((_, why)) = explanation(query) => {
                self.explained.insert(query.to_owned(), (*why).to_owned());
            }
            None => *self.agreed.entry(query.to_owned()).or_default() += 1,
            Some(difference) => {
                let kind = if path.contains("query_range") { "range" } else { "instant" };
                self.differences.push(format!("{query} ({kind}): {difference}"));
            }
        }
    }

    fn judge(self) {
        let Self { agreed, explained, differences } = self;
        let answers: usize = agreed.values().sum();
        let (queries, others) = (agreed.len(), explained.len());
        say(&format!("{queries} queries agree in {answers} answers; {others} differ for a reason"));
        for (query, why) in explained {
            say(&format!("  {query}: {why}"));
        }
        assert!(differences.is_empty(), "{} answers differ:\n{}", differences.len(), differences.join("\n"));
        assert!(agreed.len() >= 300, "only {} queries were compared", agreed.len());
    }
}

fn explanation(query: &str) -> Option<&'static (&'static str, &'static str)> {
    EXPLAINED.iter().find(|(part, _)| query == *part || part.len() > 2 && query.contains(part))
}

fn difference(ours: &(u16, Value), theirs: &(u16, Value)) -> Option<String> {
    let short = |value: &Value| value.to_string().chars().take(300).collect::<String>();
    let differ = |what: &str, ours: &Value, theirs: &Value| {
        Some(format!("{what}: ours {}\n    theirs {}", short(ours), short(theirs)))
    };
    if ours.0 != theirs.0 || ours.1["errorType"] != theirs.1["errorType"] {
        return differ("status", &ours.1, &theirs.1);
    }
    let (ours, theirs) = (&ours.1["data"], &theirs.1["data"]);
    if ours["resultType"] != theirs["resultType"] {
        return differ("type", ours, theirs);
    }
    let is_listed = |result: &Value| result[0]["metric"].is_object();
    if !is_listed(&ours["result"]) && !is_listed(&theirs["result"]) {
        return if same(&ours["result"], &theirs["result"]) { None } else { differ("result", ours, theirs) };
    }
    let by_labels = |data: &Value| -> BTreeMap<String, Value> {
        let series = data["result"].as_array().unwrap().iter();
        series.map(|series| (series["metric"].to_string(), series.clone())).collect()
    };
    let (ours, theirs) = (by_labels(ours), by_labels(theirs));
    for (labels, series) in &theirs {
        match ours.get(labels) {
            None => return Some(format!("ours lacks {series}")),
            Some(own) if !same(own, series) => return differ("series", own, series),
            Some(_) => {}
        }
    }
    let surplus = ours.iter().find(|(labels, _)| !theirs.contains_key(*labels));
    surplus.map(|(_, series)| format!("theirs lacks {series}"))
}

/// Whether two documents are alike, numbers in texts within the tolerance.
fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (Value::String(a), Value::String(b)) => a == b || close(a, b),
        (a, b) => a == b,
    }
}

fn close(a: &str, b: &str) -> bool {
    let (Ok(a), Ok(b)) = (a.parse::<f64>(), b.parse::<f64>()) else { return false };
    // What is left of equal numbers that were subtracted has no relative size.
    (a.is_nan() && b.is_nan()) || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1e-3)
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

#[expect(clippy::print_stdout, reason = "the count is what a person runs this for")]
fn say(text: &str) {
    println!("{text}");
}
