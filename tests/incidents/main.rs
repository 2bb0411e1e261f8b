//! Public collections of rules on synthetic incidents: each rule loads unchanged, and each alert fires.
//!
//! The collections are not ours to ship. `BELFRY_PUBLIC_RULES` names a directory with their files, `*.yml`; the incidents beside this file
//! cover those that operators use most: the host rules of awesome-prometheus-alerts (`dist/rules/host-and-hardware/node-exporter.yml`),
//! node-mixin as kube-prometheus renders it (the groups of `manifests/nodeExporter-prometheusRule.yaml`), and rules for the metrics of
//! dcgm-exporter.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers as well")]

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use belfry_tests::{cli::Cli, skip::skipped};
use serde_json::Value;

const INCIDENTS: [&str; 2] = [include_str!("minutes.yml"), include_str!("hours.yml")];

#[tokio::test]
async fn every_alert_of_the_public_collections_fires() {
    let Some(rules) = env::var_os("BELFRY_PUBLIC_RULES").map(PathBuf::from) else {
        return skipped("incidents", "BELFRY_PUBLIC_RULES names no directory of rule files");
    };
    let directory = tempfile::tempdir().unwrap();
    let cli = Cli::of(&directory.path().join("nobody"));
    let mut fired = BTreeSet::new();
    let mut silent = Vec::new();
    for incidents in INCIDENTS {
        let file = directory.path().join("incidents.yml");
        let pattern = rules.join("*.yml");
        fs::write(&file, format!("rule_files: [{:?}]\n{incidents}", pattern.to_str().unwrap())).unwrap();
        // Nothing is expected of annotations, which are the collections' own: an alert that fires is a check that fails.
        let said = cli.run(&["rules", "test", file.to_str().unwrap(), "-o", "json"]).await;
        let reports: Value = serde_json::from_str(&said.output).unwrap_or_else(|_| panic!("{said:?}"));
        assert_eq!(reports[0]["problems"], Value::Array(Vec::new()), "the rules load");
        for check in reports[0]["checks"].as_array().unwrap() {
            let alert = check["subject"].as_str().unwrap().to_owned();
            if check["found"].as_array().unwrap().is_empty() {
                silent.push(format!("{}: {alert}", check["test"]));
            } else {
                fired.insert(alert);
            }
        }
    }
    assert!(silent.is_empty(), "do not fire: {silent:#?}");
    let untested: Vec<String> = alerts(&rules).difference(&fired).cloned().collect();
    assert!(untested.is_empty(), "no incident was made for {untested:?}");
    assert!(fired.len() >= 40, "only {} alerts", fired.len());
}

/// The names of all alerts of the collections.
fn alerts(rules: &std::path::Path) -> BTreeSet<String> {
    let files = fs::read_dir(rules).unwrap().map(|entry| entry.unwrap().path());
    let mut names = BTreeSet::new();
    for file in files.filter(|path| path.extension().is_some_and(|extension| extension == "yml")) {
        let text = fs::read_to_string(file).unwrap();
        let words = text.split("alert:").skip(1).filter_map(|rest| rest.split([',', '\n']).next());
        names.extend(words.map(|name| name.trim().trim_matches(['"', '\'']).to_owned()));
    }
    names
}
