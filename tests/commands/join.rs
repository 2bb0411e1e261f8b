//! `belfry join` and `belfry-agent join`: what a token gives, to whom, and how often.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use belfry_common::identity::Identity;
use belfry_tests::{
    binaries,
    cli::{self, Cli, assert_fields, csv_rows},
    collector::Collector,
    process::Process,
    wait::{SOON, eventually},
};
use serde_json::Value;

/// A token and the line that uses it, as `belfry token create` prints them.
async fn token(collector: &Collector, wishes: &[&str]) -> (String, String) {
    let created = Cli::admin(collector).json(&[&["token", "create"], wishes].concat()).await;
    let text = |name: &str| created[name].as_str().unwrap().to_string();
    (text("token"), text("command"))
}

fn modes(directory: &Path) -> Vec<u32> {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    vec![mode(directory), mode(&directory.join("key.pem"))]
}

#[tokio::test]
async fn an_agent_joins_with_the_printed_line_and_runs() {
    let collector = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let (_, line) = token(&collector, &[]).await;
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[0], "belfry-agent", "{line}");
    let said = cli::agent(&state, &[&words[1..], &["--name", "node-1"]].concat()).await;
    let (address, place) = (collector.address(), state.display());
    assert_eq!(
        said.done(),
        format!("joined {address} as node-1; now start the agent: belfry-agent --state-dir {place} run\n")
    );
    assert_eq!(modes(&state), [0o700, 0o600]);

    let cli = Cli::admin(&collector);
    assert_eq!(cli.json(&["nodes"]).await[0]["last_seen"], Value::Null);
    let mut run = Command::new(binaries::belfry_agent());
    run.arg("--state-dir").arg(&state).args(["run", "--with-parent"]);
    let mut agent = Process::start(&mut run, &directory.path().join("agent.log"));
    let up = eventually("the node is up", SOON, async || {
        let status = cli.json(&["status", "node-1"]).await;
        (status["nodes"][0]["state"] == "up").then_some(())
    });
    up.await;
    assert!(agent.stop(SOON).await.success());
}

#[tokio::test]
async fn a_person_joins_and_may_do_what_the_token_says() {
    let collector = Collector::start().await;
    let _agent = collector.join("node").await;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("deep/ada");
    let ada = Cli::of(&place);
    let (_, line) = token(&collector, &["--role", "viewer"]).await;
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[0], "belfry", "{line}");
    let joined = ada.json(&[&words[1..], &["--name", "ada"]].concat()).await;
    assert_fields(&joined, "name role collector directory");
    assert_eq!((&joined["name"], &joined["role"]), (&"ada".into(), &"viewer".into()));
    assert_eq!(modes(&place), [0o700, 0o600]);

    assert_eq!(ada.json(&["status"]).await["nodes"][0]["name"], "node");
    for denied in
        [&["nodes", "revoke", "node"][..], &["nodes", "forget", "node"], &["token", "create"], &["token", "list"]]
    {
        let error = ada.run(denied).await.refused(1);
        assert_eq!(error, "belfry: this needs the role admin; ada has the role viewer\n", "{denied:?}");
    }
    assert_eq!(Cli::admin(&collector).json(&["nodes"]).await[0]["reason"], "never_seen", "nothing was done");

    let (another, _) = token(&collector, &["--role", "operator"]).await;
    let address = collector.address().to_string();
    let again = ["join", another.as_str(), "--collector", address.as_str(), "--name", "ada2"];
    let error = ada.run(&again).await.refused(1);
    assert!(error.contains("already holds the identity of ada: use --force"), "{error}");
    let rows = csv_rows(&ada.done(&[&again[..], &["--force", "-o", "csv"]].concat()).await);
    assert_eq!((rows[0]["name"].as_str(), rows[0]["role"].as_str()), ("ada2", "operator"));
    assert_eq!(Identity::load(&place).unwrap().subject.name.as_str(), "ada2");
}

#[tokio::test]
async fn a_token_is_refused_where_it_does_not_belong() {
    let collector = Collector::start().await;
    let address = collector.address().to_string();
    let directory = tempfile::tempdir().unwrap();
    let (person, state) = (directory.path().join("person"), directory.path().join("state"));
    let belfry = Cli::of(&person);
    let (of_agent, _) = token(&collector, &["--name", "gpu-*"]).await;
    let (of_viewer, _) = token(&collector, &["--role", "viewer"]).await;
    let words = |token| ["join", token, "--collector", address.as_str(), "--name", "web-1"];

    let error = belfry.run(&words(&of_agent)).await.refused(1);
    assert!(error.contains("this token is for an agent") && error.contains("belfry-agent join"), "{error}");
    let error = cli::agent(&state, &words(&of_viewer)).await.refused(1);
    assert!(error.contains("this token is for the role viewer") && error.contains("belfry join"), "{error}");
    let error = cli::agent(&state, &words(&of_agent)).await.refused(1);
    assert!(error.contains("token admits names like `gpu-*`, not `web-1`"), "{error}");
    let error = belfry.run(&["join", &of_viewer]).await.refused(2);
    assert!(error.contains("add --collector HOST:PORT"), "{error}");

    // One that was not copied whole, or is none, is wrong usage, and is not shown again: it is a secret.
    let cut = &of_viewer[..of_viewer.len() - 9];
    for (wrong, message) in [(cut, "damaged or incomplete"), ("hunter2", "not a join token")] {
        for said in [belfry.run(&words(wrong)).await, cli::agent(&state, &words(wrong)).await] {
            let error = said.refused(2);
            assert!(error.contains(message) && !error.contains(wrong), "{error}");
        }
    }
    for place in [person, state] {
        assert!(!place.join("certificate.pem").exists() && !place.join("key.pem").exists());
    }
    // Nothing of this has used them up.
    Cli::of(&directory.path().join("late")).done(&words(&of_viewer)).await;
}

#[tokio::test]
async fn a_token_works_as_often_as_it_says() {
    let collector = Collector::start().await;
    let address = collector.address().to_string();
    let directory = tempfile::tempdir().unwrap();
    let join = async |token: &str, name: &str| {
        let words = ["join", token, "--collector", address.as_str(), "--name", name];
        cli::agent(&directory.path().join(name), &words).await
    };
    let (once, _) = token(&collector, &[]).await;
    join(&once, "one").await.done();
    let error = join(&once, "two").await.refused(1);
    assert!(error.contains("failed to join as two\n  token has been used 1 of 1 times"), "{error}");
    let (twice, _) = token(&collector, &["--uses", "2"]).await;
    join(&twice, "three").await.done();
    join(&twice, "four").await.done();
    join(&twice, "five").await.refused(1);
    let nodes = Cli::admin(&collector).json(&["nodes"]).await;
    let names: BTreeSet<&str> = nodes.as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["one", "three", "four"].into());
}
