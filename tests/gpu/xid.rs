//! Errors that the driver reports: from either source, once, at once, and with what to do.

use std::fs;

use belfry_tests::{
    cli::{Cli, Stream},
    collector::Collector,
    gpus::Gpus,
    wait::{SOON, eventually},
};
use serde_json::Value;

use crate::scene::{Scene, TWO, are_ok};

/// Where the stub puts its GPU of this index.
async fn address(gpus: &Gpus, index: &str) -> String {
    let samples = gpus.sampled().await;
    let info = samples.iter().find(|sample| sample["metric"] == "gpu_info" && sample["labels"]["gpu"] == index);
    let address = info.unwrap()["labels"]["pci_bus_id"].as_str().unwrap().to_owned();
    address.split_once('.').unwrap().0.to_owned()
}

async fn told(events: &Stream, xid: &str) -> Value {
    eventually(&format!("XID {xid}"), SOON, async || {
        let is_it = |told: &Value| told["labels"]["xid"] == xid && told["event"] == "firing";
        events.objects().into_iter().find(is_it)
    })
    .await
}

#[tokio::test]
async fn an_error_is_told_once_with_its_class_and_what_to_do_whoever_reports_it() {
    let collector = Collector::prepare("");
    let local = collector.scratch().join("xid.toml");
    fs::write(&local, "[[xid]]\ncode = 31\nname = \"a local name\"\n").unwrap();
    collector.configure(&format!("xid_catalogue = {local:?}"));
    let mut collector = collector;
    collector.restart().await;
    let gpus = Gpus::new(TWO);
    let place = address(&gpus, "1").await;
    let mut scene = Scene::at(collector, gpus).await;
    let events = scene.cli.start(&["alerts", "--follow"]);
    scene.until("both are ok", are_ok).await;

    // Both sources, as it is on a real machine.
    scene.gpus.log(&format!("NVRM: Xid (PCI:{place}): 79, pid=2411, name=python3, GPU has fallen off the bus."));
    scene.gpus.set(&format!("{TWO}[[xid]]\ngpu = 1\ncode = 79\n"));
    let fired = told(&events, "79").await;
    let labels = &fired["labels"];
    assert_eq!((&fired["rule"], &fired["severity"]), (&"GpuXidFatal".into(), &"critical".into()));
    assert_eq!(
        (&labels["gpu"], &labels["class"], &labels["action"]),
        (&"1".into(), &"fatal".into(), &"reboot_inspect".into())
    );
    assert_eq!(fired["annotations"]["summary"], "gpu-01 GPU 1: XID 79, GPU has fallen off the bus");

    // Only the driver's library.
    scene.gpus.set(&format!("{TWO}[[xid]]\ngpu = 0\ncode = 48\n"));
    assert_eq!(told(&events, "48").await["labels"]["gpu"], "0");
    // One that is newer than the catalogue.
    scene.gpus.set(&format!("{TWO}[[xid]]\ngpu = 0\ncode = 250\n"));
    let fired = told(&events, "250").await;
    assert_eq!((&fired["rule"], &fired["labels"]["action"]), (&"GpuXid".into(), &"inspect".into()));
    // Only the kernel's log; what a job's end leaves there is no fault, and what another process writes is no error.
    scene.gpus.log(&format!("NVRM: Xid (PCI:{place}): 45, pid=2411, Ch 00000008"));
    scene.gpus.log(&format!("NVRM: Xid (PCI:{place}): 31, pid=99, name=bash, Ch 00000010"));
    let fired = told(&events, "31").await;
    assert_eq!((&fired["rule"], &fired["labels"]["xid_name"]), (&"GpuXid".into(), &"a local name".into()));

    let state = scene.status().await[1].clone();
    assert_eq!(
        (&state["state"], &state["causes"][0]),
        (&"failed".into(), &"XID 79: GPU has fallen off the bus".into())
    );
    let counts = counts(&scene.cli, "31").await;
    assert_eq!(
        counts,
        [("31", 1.0), ("45", 1.0), ("48", 1.0), ("79", 1.0), ("250", 1.0)].map(|(xid, count)| (xid.to_owned(), count))
    );
    assert!(!events.text().contains("\"xid\":\"45\""), "{}", events.text());
    scene.end().await;
}

#[tokio::test]
async fn a_gpu_that_is_lost_does_not_end_the_watch_of_the_others() {
    let lost = |call: &str| format!("[[fault]]\ncall = {call:?}\ngpu = 1\nerror = \"gpu_is_lost\"\n");
    let scene = Scene::begin(&format!("{TWO}{}", lost("nvmlDeviceRegisterEvents"))).await;
    let events = scene.cli.start(&["alerts", "--follow"]);
    scene.until("both are ok", are_ok).await;
    scene.gpus.set(&format!("{TWO}{}[[xid]]\ngpu = 0\ncode = 48\n", lost("nvmlDeviceRegisterEvents")));
    assert_eq!(told(&events, "48").await["labels"]["gpu"], "0");

    // The wait of all of them fails because of one. What is told after that is told once.
    let waits = "[[fault]]\ncall = \"nvmlEventSetWait_v2\"\nerror = \"gpu_is_lost\"\nuntil = 0.5\n";
    let later = |gpu: u32, code: u32| format!("[[xid]]\ngpu = {gpu}\ncode = {code}\nat = 8\n");
    scene.gpus.set(&format!("{TWO}{waits}{}{}", later(0, 95), later(1, 79)));
    assert_eq!(told(&events, "95").await["labels"]["gpu"], "0");
    assert_eq!(told(&events, "79").await["labels"]["gpu"], "1", "it is taken back");
    let expected = [("48", 1.0), ("79", 1.0), ("95", 1.0)].map(|(xid, count)| (xid.to_owned(), count));
    assert_eq!(counts(&scene.cli, "79").await, expected);
    scene.end().await;
}

/// How often each error was counted, when this one was.
async fn counts(cli: &Cli, last: &str) -> Vec<(String, f64)> {
    let mut tail = cli.start(&["tail", "gpu_xid_errors_total", "--since", "1m", "-o", "jsonl"]);
    let samples =
        tail.until("the counts", |samples| samples.iter().any(|sample| sample["labels"]["xid"] == last)).await;
    let mut counts: Vec<(String, f64)> = Vec::new();
    for sample in samples {
        let xid = sample["labels"]["xid"].as_str().unwrap().to_owned();
        counts.retain(|(known, _)| *known != xid);
        counts.push((xid, sample["value"].as_f64().unwrap_or(0.0)));
    }
    counts.sort_by_key(|(xid, _)| xid.parse::<u32>().unwrap());
    counts
}

#[tokio::test]
async fn what_an_error_means_can_be_asked_without_a_collector() {
    let directory = tempfile::tempdir().unwrap();
    let belfry = Cli::of(directory.path());
    let page = belfry.done(&["explain", "xid", "79"]).await;
    assert!(
        page.starts_with("XID 79: GPU has fallen off the bus\nfatal: reboot, then inspect the hardware\n"),
        "{page}"
    );
    let told = belfry.json(&["explain", "xid", "63"]).await;
    assert_eq!((&told["class"], &told["action"]), (&"fatal".into(), &"reboot_inspect".into()));
    let local = directory.path().join("xid.toml");
    fs::write(&local, "[[xid]]\ncode = 79\naction = \"inspect\"\n").unwrap();
    let told = belfry.json(&["explain", "xid", "79", "--catalogue", local.to_str().unwrap()]).await;
    assert_eq!((&told["class"], &told["action"]), (&"fatal".into(), &"inspect".into()));
    fs::write(&local, "[[xid]]\ncode = 79\naktion = \"inspect\"\n").unwrap();
    let error = belfry.run(&["explain", "xid", "79", "--catalogue", local.to_str().unwrap()]).await.refused(1);
    assert!(error.contains("xid.toml:3: unknown field `aktion`"), "{error}");
    assert!(belfry.run(&["explain", "xid", "9999"]).await.refused(1).contains("not in the catalogue"));
}
