//! Wrong usage ends with 2, whatever is wrong: scripts tell it from what went wrong.

use belfry_tests::{
    cli::{self, Cli},
    collector::Collector,
    process::read_one_line,
};

#[tokio::test]
async fn wrong_words_end_with_two() {
    let directory = tempfile::tempdir().unwrap();
    let belfry = Cli::of(&directory.path().join("nobody"));
    for line in [
        "",
        "frobnicate",
        "-o xml status",
        "--color sometimes status",
        "status one two",
        "status --watch",
        "status --watch --check",
        "tail --since 5",
        "alerts --since now",
        "alerts --since yesterday",
        "alerts --state gone",
        "alerts --follow --state firing",
        "rules",
        "rules check",
        "rules test",
        "rules backtest",
        "nodes revoke",
        "token",
        "token create --uses 0",
        "token create --role king",
        "token create --ttl soon",
        "token revoke",
        "join",
        "join belfry1_ --name ../x",
        "simulate",
        "simulate --nodes 0",
        "simulate --nodes 1 --interval 1ms",
        "collect --listen nowhere",
        "up --demo 0",
        "up --http nowhere",
        "doctor everything",
        "store",
        "store export",
        "store export --to x.csv --since yesterday",
        "store export --to x --format xml",
        "store import",
        "store import x.om --node n --node-label host",
        "store backup",
        "store backup x --keep 0",
        "store restore",
        "store repair x",
    ] {
        let said = belfry.run(&line.split_whitespace().collect::<Vec<_>>()).await;
        assert_eq!(said.code, Some(2), "belfry {line}: {said:?}");
        let error = said.refused(2);
        assert!(!error.contains("panicked"), "belfry {line}: {error}");
    }
    for line in ["", "frobnicate", "run now", "join", "join belfry1_", "sample -o xml", "doctor everything"] {
        let said = cli::agent(&directory.path().join("state"), &line.split_whitespace().collect::<Vec<_>>()).await;
        assert_eq!(said.code, Some(2), "belfry-agent {line}: {said:?}");
        assert!(said.output.is_empty() && !said.error.is_empty(), "belfry-agent {line}: {said:?}");
    }
    assert_eq!(directory.path().read_dir().unwrap().count(), 0, "nothing was made before the words were read");
}

#[tokio::test]
async fn what_only_the_collector_can_find_wrong_ends_with_two_as_well() {
    let collector = Collector::start().await;
    let belfry = Cli::admin(&collector);
    for (words, message) in [
        (&["tail", "node_load1{"][..], "\"node_load1{\" is no selector: unclosed brace at 1:11"),
        (&["tail", "rate(x[5m])"], "\"rate(x[5m])\" is no selector: a plain selector such as"),
        (&["tail", "node_load1 offset 5m"], "leave out `offset` and `@`"),
        (&["tail", "node_load1 @ 5"], "leave out `offset` and `@`"),
        (&["alerts", "--cursor", "../x"], "\"../x\" is no name for a cursor"),
        (&["token", "create", "--ttl", "0s"], "a token lives for more than nothing"),
        (&["nodes", "revoke", "../x"], "\"../x\" is not valid"),
    ] {
        let error = belfry.run(words).await.refused(2);
        assert!(error.contains(message), "{words:?}: {error}");
    }
}

#[tokio::test]
async fn help_and_version_are_no_errors_and_bear_a_closed_pipe() {
    let directory = tempfile::tempdir().unwrap();
    let belfry = Cli::of(directory.path());
    for words in [&["--help"][..], &["status", "--help"], &["--version"]] {
        let text = belfry.done(words).await;
        assert!(text.to_lowercase().contains("belfry"), "{text}");
        let text = cli::agent(directory.path(), &words[words.len() - 1..]).await.done();
        assert!(text.contains("belfry-agent"), "{text}");
        let said = read_one_line(&mut belfry.command(words)).await;
        assert!(said.code == Some(0) && said.error.is_empty(), "{said:?}");
    }
}
