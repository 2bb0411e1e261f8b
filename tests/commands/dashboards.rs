//! The dashboards that ship: Grafana can read them, and a fleet that runs jobs fills every panel.

use std::{collections::BTreeSet, fs, path::Path};

use belfry_tests::{
    cli::{Cli, Stream},
    http::get,
    wait::{SOON, eventually},
};
use serde_json::Value;

struct Dashboard {
    name: String,
    document: Value,
}

fn dashboards() -> Vec<Dashboard> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/grafana/dashboards");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| Dashboard {
        name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
        document: serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap(),
    };
    files.map(read).collect()
}

impl Dashboard {
    fn panels(&self) -> impl Iterator<Item = &Value> {
        self.document["panels"].as_array().unwrap().iter()
    }

    /// What each panel asks for, named for messages, and whether it may find nothing: a list of what is wrong says when it is empty.
    fn queries(&self) -> Vec<(String, &str, bool)> {
        let mut queries = Vec::new();
        for panel in self.panels() {
            let may_be_empty = !panel["fieldConfig"]["defaults"]["noValue"].is_null();
            for target in panel["targets"].as_array().into_iter().flatten() {
                let name = format!("{}: {}", self.name, panel["title"]);
                queries.push((name, target["expr"].as_str().unwrap(), may_be_empty));
            }
        }
        queries
    }

    /// What each variable lists: a selector and a label.
    fn variables(&self) -> Vec<(&str, &str)> {
        let variables = self.document["templating"]["list"].as_array().unwrap().iter();
        let queries = variables.filter(|variable| variable["type"] == "query");
        let listed = queries.map(|variable| {
            let query = variable["query"]["query"].as_str().unwrap();
            let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
            inner.rsplit_once(", ").unwrap()
        });
        listed.collect()
    }
}

#[test]
fn grafana_can_read_them() {
    let dashboards = dashboards();
    let names: BTreeSet<&str> = dashboards.iter().map(|dashboard| &*dashboard.name).collect();
    assert_eq!(
        names,
        ["belfry-collector", "belfry-fleet", "belfry-gpu", "belfry-jobs", "belfry-node"].into(),
        "one for each of what there is to watch"
    );
    for dashboard in &dashboards {
        assert_eq!(dashboard.document["uid"], *dashboard.name);
        let mut ids = BTreeSet::new();
        let mut places: Vec<[u64; 4]> = Vec::new();
        for panel in dashboard.panels() {
            let title = panel["title"].as_str().unwrap();
            assert!(!title.is_empty() && ids.insert(panel["id"].as_u64().unwrap()), "{}: {title}", dashboard.name);
            let place = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            let [x, y, w, h] = place;
            let overlaps = |[other_x, other_y, other_w, other_h]: &[u64; 4]| {
                x < other_x + other_w && *other_x < x + w && y < other_y + other_h && *other_y < y + h
            };
            assert!(x + w <= 24 && !places.iter().any(overlaps), "{}: {title} overlaps", dashboard.name);
            places.push(place);
            for target in panel["targets"].as_array().into_iter().flatten() {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{}: {title}", dashboard.name);
            }
        }
    }
}

#[tokio::test]
async fn a_fleet_that_runs_jobs_fills_every_panel() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let cli = Cli::of(&data);
    let mut command = cli.command(&["up", "--no-watch", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    let _up = Stream::start(command.args(["--demo", "2", "--data-dir"]).arg(&data));
    let address = eventually("the collector answers", SOON, async || {
        let said = cli.run(&["token", "create", "--http", "grafana", "-o", "json"]).await;
        let created: Value = serde_json::from_str(&said.output).ok()?;
        created["url"].as_str().unwrap().strip_prefix("http://").unwrap().parse().ok()
    });
    let address = address.await;
    let ask = |path: &str| -> Option<Value> {
        let (status, body) = get(address, path)?;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str::<Value>(&body).ok().map(|mut answer| answer["data"].take())
    };
    // The machine that the tests run on is a node, too, and the only one with a whole host. Its kernel may lack something.
    let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let measured = eventually("this host is measured", SOON, async || {
        let names = ask("/api/v1/label/__name__/values")?;
        let names =
            names.as_array()?.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect::<BTreeSet<_>>();
        names.contains("node_vmstat_pgfault").then_some(names)
    });
    let measured = measured.await;
    let mut unmeasured = Vec::new();
    for dashboard in dashboards() {
        for (selector, label) in dashboard.variables() {
            let path = format!("/api/v1/label/{label}/values?match[]={}", encoded(&filled(selector, &host)));
            eventually(&format!("{}: {label}", dashboard.name), SOON, async || {
                ask(&path).filter(|values| values.as_array().is_some_and(|values| !values.is_empty()))
            })
            .await;
        }
        for (name, expression, may_be_empty) in dashboard.queries() {
            if host_metrics(expression).any(|metric| !measured.contains(metric)) {
                unmeasured.push(format!("{name}: {expression}"));
                continue;
            }
            let path = format!("/api/v1/query?query={}", encoded(&filled(expression, &host)));
            eventually(&format!("{name}: {expression}"), SOON, async || {
                ask(&path)
                    .filter(|data| may_be_empty || data["result"].as_array().is_some_and(|result| !result.is_empty()))
            })
            .await;
        }
    }
    assert!(unmeasured.len() < 10, "this host lacks too much to tell: {unmeasured:#?}");
}

/// The metrics of a host that an expression reads.
fn host_metrics(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("node_"))
}

/// With what somebody chose: everything, or this host where there is one to choose.
fn filled(query: &str, host: &str) -> String {
    let query = query.replace("$__rate_interval", "1m").replace("=\"$node\"", &format!("=~\"(?i){host}.*\""));
    ["$node", "$gpu", "$user", "$id"].iter().fold(query, |query, variable| query.replace(variable, ".*"))
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
