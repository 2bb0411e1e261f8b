//! `belfry up`: one command, and this machine is watched; when it ends, however that happens, nothing of it is left.

use std::{fs, path::Path, time::Duration};

use belfry_common::model::NodeName;
use belfry_tests::{
    cli::{Cli, Stream},
    wait::{SOON, eventually},
};
use serde_json::Value;

const STOP_WITHIN: Duration = Duration::from_secs(15);

fn start(data: &Path, more: &[&str]) -> Stream {
    let mut command = Cli::of(data).command(&["up", "--no-watch", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    Stream::start(command.arg("--data-dir").arg(data).args(more))
}

/// The name under which this machine joins.
fn this_machine() -> String {
    NodeName::from_host_name(&rustix::system::uname().nodename().to_string_lossy()).to_string()
}

/// How many processes have this path on their command line.
fn processes(path: &Path) -> usize {
    let path = path.to_str().unwrap();
    let has_path = |entry: &fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(path)
    };
    fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter(has_path).count()
}

/// Waits until these nodes, and no others, are up and have said what they have.
async fn nodes_are_up(up: &mut Stream, data: &Path, expected: &[&str]) {
    let cli = Cli::of(data);
    eventually("the nodes are up", SOON, async || {
        assert!(up.process_mut().ended().is_none(), "it has ended");
        // It is not there yet, or it is.
        let said = cli.run(&["status", "-o", "json"]).await;
        let document: Value = serde_json::from_str(&said.output).ok()?;
        let nodes = document["nodes"].as_array().unwrap();
        let names: Vec<&str> = nodes.iter().filter_map(|node| node["name"].as_str()).collect();
        let is_up = |node: &Value| node["state"] == "up" && node["memory"]["used_bytes"].is_number();
        (names == expected && nodes.iter().all(is_up)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn this_machine_is_up_until_it_is_told_to_stop() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let name = this_machine();
    let mut up = start(&data, &["--demo", "1"]);
    nodes_are_up(&mut up, &data, &[&name, "sim-00000"]).await;
    assert_eq!(processes(&data), 2, "the collector and the agent");
    let status = up.process_mut().stop(STOP_WITHIN).await;
    assert!(status.success(), "{status}");
    assert_eq!(processes(&data), 0, "the agent has ended first");
    assert_eq!(up.text(), "", "without a view there is nothing to print");

    // The same directory is the same fleet; what was simulated is not part of it.
    let mut up = start(&data, &[]);
    nodes_are_up(&mut up, &data, &[&name]).await;
    up.process_mut().kill();
    eventually("the agent does not outlive it", STOP_WITHIN, async || (processes(&data) == 0).then_some(())).await;
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let name = this_machine();
    let mut first = start(&data, &[]);
    nodes_are_up(&mut first, &data, &[&name]).await;
    let mut second = start(&data, &[]);
    let status = second.process_mut().end(SOON).await;
    assert!(
        status.code() == Some(1) && second.error().contains("is in use by another collector"),
        "{status}: {}",
        second.error()
    );
    nodes_are_up(&mut first, &data, &[&name]).await;
}
