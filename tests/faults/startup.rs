//! Starts that must not succeed: nothing is touched, and the message says what to do.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    net::{TcpListener, UdpSocket},
    path::Path,
    process::Command,
    time::Duration,
};

use belfry_common::{clock, model::Epoch};
use belfry_tests::{
    agent::Agent,
    binaries,
    collector::Collector,
    hostile::Live,
    process::{Said, run},
    samples::batch_of,
    skip::{SmallDisk, skipped},
    wait::{SOON, eventually},
};

const EPOCH: Epoch = Epoch(0xE4);

/// Every file of a directory with its content and when it was changed.
fn picture(directory: &Path) -> BTreeMap<OsString, (Vec<u8>, std::time::SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(picture(&path));
        } else {
            let changed = fs::metadata(&path).unwrap().modified().unwrap();
            files.insert(path.clone().into(), (fs::read(&path).unwrap(), changed));
        }
    }
    files
}

/// Runs `belfry collect` to its end; it must fail.
async fn refused(data: &Path, more: &[&str]) -> Said {
    let mut arguments: Vec<OsString> = vec!["collect".into(), "--data-dir".into(), data.into()];
    if !more.contains(&"--listen") {
        arguments.extend(["--listen".into(), "127.0.0.1:0".into()]);
    }
    if !more.contains(&"--http") {
        arguments.extend(["--http".into(), "127.0.0.1:0".into()]);
    }
    arguments.extend(more.iter().map(OsString::from));
    let said = tokio::time::timeout(SOON, run(&binaries::belfry(), &arguments)).await.expect("it gives up");
    assert!(matches!(said.code, Some(1 | 2)), "{said:?}");
    said
}

/// A directory that has been used, and whose collector has stopped.
async fn used() -> Collector {
    let mut collector = Collector::start().await;
    let identity = collector.join("node").await;
    let mut live = Live::open(collector.address(), &identity, EPOCH).await.unwrap();
    live.store(1, &batch_of(1, "kept", 0..1, clock::now(), 1.0)).await;
    collector.stop().await;
    collector
}

/// Row 20: a configuration with a mistake is refused by file, line and key before anything is touched.
#[tokio::test]
async fn a_bad_configuration_is_refused_before_anything_is_touched() {
    let mut collector = used().await;
    let data = collector.data_directory();
    let before = picture(&data);
    let config = collector.scratch().join("bad.toml");
    let config_text = config.to_str().unwrap();
    let cases = [
        ("[store]\nmemory_windw = \"1h\"", "bad.toml:2: unknown field `memory_windw`"),
        ("listen = \"nowhere\"", "bad.toml:1:"),
        ("[limits]\nseries_per_node = 0", "series_per_node"),
        ("[store]\nmemory_window = \"1s\"", "memory_window must be at least"),
        ("listen = ", "bad.toml:1:"),
        ("\u{0}\u{1}", "bad.toml:1:"),
    ];
    for (text, words) in cases {
        fs::write(&config, text).unwrap();
        let said = refused(&data, &["--config", config_text]).await;
        assert!(said.error.contains(words), "{text:?}: {}", said.error);
        assert!(picture(&data) == before, "{text:?}: the data directory was touched");
    }
    fs::write(&config, [0xFF, 0xFE, 0x00]).unwrap();
    let directory = collector.scratch().join("directory.toml");
    fs::create_dir(&directory).unwrap();
    let missing = collector.scratch().join("missing.toml");
    for path in [&config, &directory, &missing] {
        let said = refused(&data, &["--config", path.to_str().unwrap()]).await;
        assert!(said.error.contains(path.to_str().unwrap()), "{}", said.error);
        assert!(picture(&data) == before, "{}: the data directory was touched", path.display());
    }
    collector.restart().await;
    assert_eq!(collector.admin().node("node").await["series"], 1, "the data is there");
}

/// Row 20: rules with a mistake are refused by file and line before anything is touched.
#[tokio::test]
async fn bad_rules_are_refused_before_anything_is_touched() {
    let mut collector = used().await;
    let data = collector.data_directory();
    let before = picture(&data);
    let rules = collector.scratch().join("rules.yml");
    fs::write(&rules, "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: sum by (\n").unwrap();
    let said = refused(&data, &["--rules", rules.to_str().unwrap()]).await;
    assert!(said.error.contains("rules.yml:5"), "{}", said.error);
    assert!(picture(&data) == before, "the data directory was touched");
    collector.restart().await;
    assert_eq!(collector.admin().node("node").await["series"], 1, "the data is there");
}

/// Row 29: a second collector on a directory refuses, and the first one does not notice.
#[tokio::test]
async fn a_second_collector_on_a_directory_refuses() {
    let mut collector = Collector::start().await;
    let identity = collector.join("node").await;
    let mut live = Live::open(collector.address(), &identity, EPOCH).await.unwrap();
    live.store(1, &batch_of(1, "kept", 0..1, clock::now(), 1.0)).await;
    let address = fs::read(collector.data_directory().join("collector")).unwrap();
    let said = refused(&collector.data_directory(), &[]).await;
    assert!(said.error.contains("is in use by another collector"), "{}", said.error);
    assert!(said.error.contains(collector.data_directory().to_str().unwrap()), "{}", said.error);
    live.store(2, &batch_of(1, "kept", 0..1, clock::now(), 2.0)).await;
    assert_eq!(
        fs::read(collector.data_directory().join("collector")).unwrap(),
        address,
        "clients still find the first"
    );
    // A lock does not outlive its holder, however that ends.
    collector.kill();
    collector.restart().await;
}

/// Row 29: the same for an agent.
#[tokio::test]
async fn a_second_agent_on_a_directory_refuses() {
    let collector = Collector::start().await;
    let mut agent = Agent::join(&collector, "agent", collector.address()).await;
    agent.start();
    crate::network::data_flows(&collector, SOON).await;
    let arguments = ["--state-dir".into(), agent.state_directory().into(), "run".into()];
    let said = tokio::time::timeout(SOON, run(&binaries::belfry_agent(), &arguments)).await.expect("it gives up");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.error.contains("in use by another process"), "{}", said.error);
    crate::network::data_flows(&collector, SOON).await;
    assert!(agent.process_mut().ended().is_none());
}

/// A port that is taken is named, with what to do about it.
#[tokio::test]
async fn a_port_in_use_is_named() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let (udp_address, tcp_address) = (udp.local_addr().unwrap().to_string(), tcp.local_addr().unwrap().to_string());
    for (flag, address) in [("--listen", udp_address), ("--http", tcp_address)] {
        let directory = tempfile::tempdir().unwrap();
        let said = refused(directory.path(), &[flag, &address]).await;
        assert!(said.error.contains(&address) && said.error.contains(flag), "{}", said.error);
    }
}

/// An address that is not this machine's is not taken for one in use.
#[tokio::test]
async fn an_address_of_another_machine_is_named() {
    let directory = tempfile::tempdir().unwrap();
    // For documentation (RFC 5737): nobody's.
    let said = refused(&directory.path().join("data"), &["--listen", "192.0.2.1:0"]).await;
    assert!(said.error.contains("this machine has no such address"), "{}", said.error);
}

/// A data directory that cannot be written is named; so is one that is no directory.
#[tokio::test]
async fn an_unusable_data_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    let said = refused(&file, &[]).await;
    assert!(said.error.contains(file.to_str().unwrap()), "{}", said.error);

    let mount = directory.path().join("mount");
    fs::create_dir(&mount).unwrap();
    let disk = match SmallDisk::mount(&mount, 1024 * 1024) {
        Ok(disk) => disk,
        Err(why) => return skipped("an_unusable_data_directory_is_named (read-only)", &why),
    };
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(disk.path()).status().unwrap();
    assert!(remounted.success());
    let said = refused(&mount, &[]).await;
    assert!(said.error.contains(mount.to_str().unwrap()) && said.error.contains("Read-only"), "{}", said.error);
}

/// An agent that never joined says how to, and one with a bad configuration says where the mistake is.
#[tokio::test]
async fn an_agent_that_cannot_run_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let start = async |more: &[&str]| {
        let mut arguments: Vec<OsString> = vec!["--state-dir".into(), directory.path().into()];
        arguments.extend(more.iter().map(OsString::from));
        arguments.push("run".into());
        tokio::time::timeout(SOON, run(&binaries::belfry_agent(), &arguments)).await.expect("it gives up")
    };
    let said = start(&[]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.error.contains("belfry-agent join"), "{}", said.error);
    let config = directory.path().join("agent.toml");
    fs::write(&config, "[samplers.lod]\nenabled = false").unwrap();
    let said = start(&["--config", config.to_str().unwrap()]).await;
    assert!(said.error.contains("did you mean `load`?"), "{}", said.error);
    assert!(said.code == Some(1) && said.error.contains(":1: unknown sampler `lod`"), "{}", said.error);
}

/// A collector whose metadata is half lost does not make new ones over it: every node would be locked out.
#[tokio::test]
async fn half_an_authority_is_never_completed() {
    let mut collector = used().await;
    let data = collector.data_directory();
    for name in ["ca.pem", "ca.key.pem"] {
        let (path, aside) = (data.join(name), data.join("aside"));
        fs::rename(&path, &aside).unwrap();
        let said = refused(&data, &[]).await;
        assert!(said.error.contains(name) && said.error.contains("restore it from a backup"), "{}", said.error);
        assert!(!path.exists(), "{name} was made anew");
        fs::rename(&aside, &path).unwrap();
    }
    collector.restart().await;
}

/// A collector that is told to stop ends in order, soon, with agents connected.
#[tokio::test]
async fn stopping_is_quick_and_clean_with_agents_connected() {
    let mut collector = Collector::start().await;
    let mut agent = Agent::join(&collector, "agent", collector.address()).await;
    agent.start();
    eventually("the node is up", SOON, async || (collector.admin().node("agent").await["state"] == "up").then_some(()))
        .await;
    let status = collector.process_mut().stop(Duration::from_secs(8)).await;
    assert!(status.success(), "{status}");
    let status = agent.process_mut().stop(Duration::from_secs(8)).await;
    assert!(status.success(), "{status}");
}
