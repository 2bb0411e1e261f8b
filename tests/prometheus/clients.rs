//! Programs that take the collector for a Prometheus: as from another machine, over TLS and with a token, where their versions can.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use belfry_common::{clock, model::Epoch, wire::message::Hello};
use belfry_tests::{
    cli::Cli,
    collector::Collector,
    hostile::{Live, hello},
    http::get,
    process::{Process, finish, free_address},
    samples::batch_of,
    skip::skipped,
    wait::{SOON, eventually},
};
use serde_json::Value;

/// What vmalert evaluates with our data.
const RULES: &str = "groups:
- name: g
  interval: 1s
  rules:
  - {alert: High, expr: 'test_value > 1', labels: {severity: page}}
  - {alert: Low, expr: 'test_value < 1'}
";

/// A collector that others reach, with a node that has sent the value 3, and who may ask it.
struct Served {
    collector: Collector,
    _node: Live,
    url: String,
    token: String,
    authority: PathBuf,
}

impl Served {
    async fn start() -> Self {
        let mut collector = Collector::prepare("shipped_rules = false");
        collector.serve_http_on(([0, 0, 0, 0], 0).into());
        collector.restart().await;
        let node = node(&collector).await;
        let created = Cli::admin(&collector).json(&["token", "create", "--http", "client"]).await;
        let token = created["token"].as_str().unwrap().to_owned();
        let url = format!("https://localhost:{}", collector.http_address().port());
        let authority = collector.data_directory().join("ca.pem");
        Self { collector, _node: node, url, token, authority }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.collector.scratch().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

/// A node that has sent the value 3.
async fn node(collector: &Collector) -> Live {
    let identity = collector.join("node").await;
    // Silence does not make it stale while a test lasts.
    let greeting = Hello { interval_ms: 3_600_000, ..hello(Epoch(0xC0)) };
    let mut node = Live::open_with(collector.address(), &identity, greeting).await.unwrap();
    node.store(1, &batch_of(1, "test_value", 0..1, clock::now(), 3.0)).await;
    node
}

fn is_missing(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_err()
}

#[tokio::test]
async fn promtool_asks_for_instants_ranges_series_and_labels() {
    if is_missing("promtool") {
        return skipped("promtool query", "the program is not installed");
    }
    let collector = Collector::start().await;
    let _node = node(&collector).await;
    let now = clock::now().as_millis() / 1000;
    let (from, to) = (format!("--start={}", now - 60), format!("--end={}", now + 1));
    let url = format!("http://{}", collector.http_address());
    let url = url.as_str();
    let cases: [(&[&str], &str); 4] = [
        (&["instant", url, "test_value * 2"], "=> 6 @["),
        (&["range", &from, &to, "--step=1s", url, "test_value"], "3 @["),
        (&["series", "--match=test_value", url], "__name__=\"test_value\""),
        (&["labels", url, "__name__"], "test_value"),
    ];
    for (words, expected) in cases {
        let mut command = Command::new("promtool");
        command.arg("query").args(words);
        let said = finish(&mut command).await;
        assert!(said.code == Some(0) && said.output.contains(expected), "{words:?}: {said:?}");
    }
}

#[tokio::test]
async fn a_prometheus_federates() {
    if is_missing("prometheus") {
        return skipped("federation", "Prometheus is not installed");
    }
    let served = Served::start().await;
    let address = free_address();
    let config = format!(
        "scrape_configs:\n- job_name: belfry\n  scrape_interval: 1s\n  honor_labels: true\n  scheme: https\n  metrics_path: /federate\n  \
         params: {{'match[]': ['{{__name__=~\"test_.+|up\"}}']}}\n  static_configs: [{{targets: ['localhost:{}']}}]\n  \
         authorization: {{credentials: {}}}\n  tls_config: {{ca_file: {:?}}}\n",
        served.collector.http_address().port(),
        served.token,
        served.authority.to_str().unwrap()
    );
    let file = served.write("prometheus.yml", &config);
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", file.display())).arg(format!("--web.listen-address={address}"));
    command.arg(format!("--storage.tsdb.path={}", served.collector.scratch().join("tsdb").display()));
    let _process = Process::start(&mut command, &served.collector.scratch().join("prometheus.log"));
    let query = "/api/v1/query?query=test_value{instance=\"node\"}";
    let found = eventually("the sample is federated", SOON, async || {
        let answer: Value = serde_json::from_str(&get(address, query)?.1).ok()?;
        answer["data"]["result"].get(0).cloned()
    });
    let found = found.await;
    assert_eq!((&found["value"][1], &found["metric"]["job"]), (&"3".into(), &"belfry".into()));
}

#[tokio::test]
async fn vmalert_evaluates_rules_with_our_data() {
    if is_missing("vmalert") {
        return skipped("vmalert", "the program is not installed");
    }
    let served = Served::start().await;
    let rules = served.write("rules.yml", RULES);
    let (address, nobody) = (free_address(), free_address());
    let mut command = Command::new("vmalert");
    command.arg(format!("-rule={}", rules.display())).arg(format!("-datasource.url={}", served.url));
    command.arg(format!("-datasource.bearerToken={}", served.token));
    command.arg(format!("-datasource.tlsCAFile={}", served.authority.display()));
    command.arg(format!("-notifier.url=http://{nobody}")).arg(format!("-httpListenAddr={address}"));
    let _process = Process::start(&mut command, &served.collector.scratch().join("vmalert.log"));
    let alerts = eventually("an alert fires", SOON + Duration::from_secs(10), async || {
        let answer: Value = serde_json::from_str(&get(address, "/api/v1/alerts")?.1).ok()?;
        let alerts = answer["data"]["alerts"].as_array()?.clone();
        alerts.iter().any(|alert| alert["state"] == "firing").then_some(alerts)
    });
    let alerts = alerts.await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!((&alerts[0]["name"], &alerts[0]["value"]), (&"High".into(), &"3".into()));
    assert_eq!(alerts[0]["labels"]["instance"], "node");
}
