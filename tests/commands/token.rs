//! `belfry token`: made, listed, taken back.

use belfry_tests::{
    cli::{self, Cli, assert_fields, assert_time, csv_rows},
    collector::Collector,
};

#[tokio::test]
async fn a_new_token_is_printed_with_the_line_that_uses_it() {
    let collector = Collector::start().await;
    let cli = Cli::admin(&collector);
    let address = collector.address().to_string();
    let created = cli.json(&["token", "create", "--role", "viewer"]).await;
    assert_fields(&created, "id token role expires_at collector command");
    assert_time(&created["expires_at"]);
    assert_eq!(created["collector"], address);
    let line = format!("belfry join {} --collector {address}", created["token"].as_str().unwrap());
    assert_eq!(created["command"], line);
    let rows = csv_rows(&cli.done(&["token", "create", "-o", "csv"]).await);
    assert!(rows[0]["command"].starts_with("belfry-agent join belfry1_"), "{rows:?}");
    let text = cli.done(&["token", "create", "--uses", "3", "--ttl", "30m"]).await;
    assert!(text.starts_with("Run this on the node, up to 3 times, within 30m (token "), "{text}");
    assert!(text.contains("\n    belfry-agent join belfry1_"), "{text}");
    assert!(text.contains("put this machine's name or address in place of the loopback address"), "{text}");
}

#[tokio::test]
async fn tokens_are_listed_without_their_secrets_and_revoked() {
    let collector = Collector::start().await;
    let cli = Cli::admin(&collector);
    assert_eq!(cli.done(&["token", "list"]).await, "no tokens\n");
    let created = cli.json(&["token", "create", "--name", "gpu-*", "--uses", "5"]).await;
    let (id, secret) = (created["id"].as_str().unwrap(), created["token"].as_str().unwrap());
    let error = cli.run(&["token", "revoke", "0123"]).await.refused(1);
    assert!(error.contains("no token has the id \"0123\""), "{error}");
    let listed = cli.json(&["token", "list"]).await;
    assert_fields(&listed[0], "id role names uses_left uses_total expires_at created_at created_by state kind");
    assert_eq!((&listed[0]["id"], &listed[0]["names"]), (&id.into(), &"gpu-*".into()));
    assert_eq!((&listed[0]["uses_left"], &listed[0]["state"]), (&5.into(), &"usable".into()));
    let table = cli.done(&["token", "list"]).await;
    assert!(table.contains(id) && table.contains("5 of 5") && table.contains("gpu-*"), "{table}");
    for form in ["table", "json", "jsonl", "csv"] {
        let text = cli.done(&["token", "list", "-o", form]).await;
        assert!(text.contains(id) && !text.contains(secret), "{text}");
    }

    assert_eq!(cli.done(&["token", "revoke", id]).await, format!("revoked: token {id}\n"));
    assert_eq!(cli.json(&["token", "list"]).await[0]["state"], "revoked");
    let directory = tempfile::tempdir().unwrap();
    let address = collector.address().to_string();
    let words = ["join", secret, "--collector", address.as_str(), "--name", "gpu-1"];
    let error = cli::agent(directory.path(), &words).await.refused(1);
    assert!(error.contains("revoked"), "{error}");
}
