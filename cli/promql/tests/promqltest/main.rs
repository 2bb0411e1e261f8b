//! Runs scripts in the format of Prometheus' own PromQL tests.
//!
//! Our scripts in `tests/scripts` always run. Prometheus' scripts run where they are found: in the folder named by
//! `BELFRY_PROMQLTEST_DIR`, else in `shared/promqltest` beside the workspace. Each script gets a line in a table:
//! how many evaluations passed, failed, and were skipped for which reason. An evaluation is skipped only if the
//! planner refuses it as not supported, or if it involves native histograms.

mod at;
mod check;
mod compare;
mod number;
mod run;
mod script;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use run::{Outcome, Runner};

#[test]
fn own_scripts_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    assert!(run_folder(&folder) > 0, "no scripts in {}", folder.display());
}

#[test]
fn prometheus_scripts_pass() {
    let folder = std::env::var_os("BELFRY_PROMQLTEST_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/promqltest"), PathBuf::from);
    if run_folder(&folder) == 0 {
        say("skipped: no promqltest data");
    }
}

/// Runs every script of a folder and returns how many there were.
fn run_folder(folder: &Path) -> usize {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "test"));
    paths.sort();
    let mut failures = Vec::new();
    say(&format!("{:<26} {:>6} {:>6} {:>7}  reasons", "script", "passed", "failed", "skipped"));
    for path in &paths {
        failures.extend(run_script(path));
    }
    for failure in &failures {
        say(failure);
    }
    assert!(failures.is_empty(), "{} evaluations failed", failures.len());
    paths.len()
}

/// Runs one script, prints its line of the table, and returns its failures.
fn run_script(path: &Path) -> Vec<String> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let text = fs::read_to_string(path).expect("the script is readable");
    let commands = script::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut runner = Runner::default();
    let mut passed = 0;
    let mut failures = Vec::new();
    let mut skipped: BTreeMap<String, usize> = BTreeMap::new();
    for command in &commands {
        match runner.run(command) {
            None => {}
            Some(Outcome::Passed) => passed += 1,
            Some(Outcome::Skipped(reason)) => *skipped.entry(reason).or_default() += 1,
            Some(Outcome::Failed(why)) => {
                failures.push(format!("{name}:{}: {}\n    {why}", command.line, command.text));
            }
        }
    }
    let reasons: Vec<String> = skipped.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
    let total: usize = skipped.values().sum();
    say(&format!("{name:<26} {passed:>6} {:>6} {total:>7}  {}", failures.len(), reasons.join(", ")));
    failures
}

#[expect(clippy::print_stdout, reason = "the table is what a person runs these tests for")]
fn say(text: &str) {
    println!("{text}");
}
