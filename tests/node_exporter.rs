//! The agent beside node_exporter on this machine: every name that both have agrees in labels and in value.
//!
//! node_exporter's default collectors run with the filters of its current release, because Debian's are its own. A value agrees when
//! it lies between two scrapes around it; what moves gets several tries, and what is wrong never gets there.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers as well")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
};

use belfry_tests::{
    binaries, http,
    process::{Process, free_address, run},
    skip::skipped,
    wait::{SOON, eventually},
};
use serde_json::Value;

/// As Debian names it, and as everybody else does.
const PROGRAMS: [&str; 2] = ["prometheus-node-exporter", "node_exporter"];
/// What Debian's package or an older release filters differently.
const FILTERS: [&str; 4] = [
    "--collector.netdev.device-exclude=",
    "--collector.diskstats.device-exclude=^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\\d+n\\d+p)\\d+$",
    "--collector.filesystem.mount-points-exclude=^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)",
    "--collector.filesystem.fs-types-exclude=^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|erofs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tracefs)$",
];
/// What the agent does not measure.
const NOT_OURS: [&str; 11] = [
    "node_arp_entries",
    "node_exporter_",
    "node_scrape_",
    "node_selinux_",
    "node_softnet_",
    "node_systemd_",
    "node_textfile_",
    "node_time_clocksource_",
    "node_time_zone_",
    "node_udp_queues",
    "node_xfs_",
];
/// Labels that later releases have added to facts.
const LABELS_ADDED: [(&str, &str); 2] = [("node_disk_info", "rotational"), ("node_network_info", "adminstate")];
/// node_exporter says -125000 for a speed that is unknown; the agent says nothing.
const SPEED: &str = "node_network_speed_bytes";
/// What the agent itself adds while it looks, or takes: memory, open files, stacks and threads that sample at once, sockets of its runtime.
const OWN: [(&str, f64); 11] = [
    ("node_filefd_allocated", 100.0),
    ("node_memory_AnonPages_bytes", 16e6),
    ("node_memory_Inactive_anon_bytes", 16e6),
    ("node_memory_KernelStack_bytes", 256e3),
    ("node_memory_Mapped_bytes", 64e6),
    ("node_memory_MemAvailable_bytes", -64e6),
    ("node_memory_MemFree_bytes", -64e6),
    ("node_memory_PageTables_bytes", 512e3),
    ("node_memory_VmallocUsed_bytes", 512e3),
    ("node_procs_running", 4.0),
    ("node_sockstat_sockets_used", 8.0),
];
const TRIES: u32 = 200;
/// Of a gauge that moves between two readings.
const TOLERANCE: f64 = 0.01;
/// Hundredths of a second are what the kernel counts in; both round.
const COUNTER_TOLERANCE: f64 = 0.011;

type Labels = BTreeMap<String, String>;

#[derive(Debug, Default)]
struct Scrape {
    series: BTreeMap<(String, Labels), f64>,
    counters: BTreeSet<String>,
}

#[tokio::test]
async fn what_node_exporter_also_says_agrees_in_name_labels_and_value() {
    let directory = tempfile::Builder::new().prefix("belfry-test-").tempdir().unwrap();
    let Some((_exporter, address)) = start(directory.path()).await else {
        return skipped("node_exporter", "the program is not installed");
    };
    let mut agreed = BTreeSet::new();
    let mut disagreements = Vec::new();
    for _ in 0..TRIES {
        let before = scrape(address).unwrap();
        // A scrape counts its own connection; so shall the agent.
        let connection = TcpStream::connect(address).unwrap();
        let ours = sample().await;
        drop(connection);
        let after = scrape(address).unwrap();
        disagreements = compare(&before, &ours, &after, &mut agreed);
        if disagreements.is_empty() {
            break;
        }
    }
    assert!(disagreements.is_empty(), "{} disagree:\n{}", disagreements.len(), disagreements.join("\n"));
    assert!(agreed.len() > 250, "only {} series are shared", agreed.len());
}

async fn start(directory: &Path) -> Option<(Process, SocketAddr)> {
    let program = PROGRAMS.into_iter().find(|name| Command::new(name).arg("--version").output().is_ok())?;
    let address = free_address();
    let mut command = Command::new(program);
    command.arg(format!("--web.listen-address={address}")).args(FILTERS);
    let process = Process::start(&mut command, &directory.join("node_exporter.log"));
    eventually("node_exporter answers", SOON, async || scrape(address).filter(|scrape| !scrape.series.is_empty()))
        .await;
    Some((process, address))
}

fn scrape(address: SocketAddr) -> Option<Scrape> {
    let (_, text) = http::get(address, "/metrics")?;
    let mut scrape = Scrape::default();
    for line in text.lines() {
        if let Some(counter) = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")) {
            scrape.counters.insert(counter.to_string());
        } else if line.starts_with("node_") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            scrape.series.insert(parse(series), value.parse().unwrap());
        }
    }
    Some(scrape)
}

/// A series in the text format: `name{label="value",…}`.
fn parse(series: &str) -> (String, Labels) {
    let (name, mut rest) = series.split_once('{').unwrap_or((series, "}"));
    let mut labels = Labels::new();
    while let Some((label, quoted)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        loop {
            match characters.next().unwrap() {
                (end, '"') => {
                    rest = quoted[end + 1..].trim_start_matches(',');
                    break;
                }
                (_, '\\') => value.push(match characters.next().unwrap().1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        }
        labels.insert(label.to_string(), value);
    }
    (name.to_string(), labels)
}

async fn sample() -> BTreeMap<(String, Labels), f64> {
    let said = run(&binaries::belfry_agent(), &["sample", "--once", "-o", "json"].map(Into::into)).await;
    assert_eq!(said.code, Some(0), "{}", said.error);
    let samples: Value = serde_json::from_str(&said.output).unwrap();
    let samples = samples.as_array().unwrap().iter().filter(|sample| sample["value"].is_number());
    samples
        .map(|sample| {
            let name = sample["metric"].as_str().unwrap().to_string();
            let mut labels: Labels = serde_json::from_value(sample["labels"].clone()).unwrap();
            for (_, label) in LABELS_ADDED.iter().filter(|(metric, _)| *metric == name) {
                labels.remove(*label);
            }
            ((name, labels), sample["value"].as_f64().unwrap())
        })
        .collect()
}

/// What disagrees. Series that have agreed once are right, whatever they do next.
fn compare(
    before: &Scrape,
    ours: &BTreeMap<(String, Labels), f64>,
    after: &Scrape,
    agreed: &mut BTreeSet<(String, Labels)>,
) -> Vec<String> {
    let names: BTreeSet<&str> = ours.keys().map(|(name, _)| name.as_str()).collect();
    let mut wrong = Vec::new();
    for (series, &first) in &before.series {
        let (name, labels) = series;
        let Some(&last) = after.series.get(series) else { continue };
        if NOT_OURS.iter().any(|prefix| name.starts_with(prefix)) || name == SPEED && first < 0.0 {
            continue;
        }
        match ours.get(series) {
            Some(&value) if agrees(name, value, (first, last), before) => {
                agreed.insert(series.clone());
            }
            Some(_) if agreed.contains(series) => {}
            Some(value) => wrong.push(format!("{name} {labels:?}: {value}, node_exporter {first} and {last}")),
            None if names.contains(name.as_str()) => wrong.push(format!("{name} {labels:?} is missing")),
            None => wrong.push(format!("{name} is missing altogether")),
        }
    }
    let theirs: BTreeSet<&str> = before.series.keys().map(|(name, _)| name.as_str()).collect();
    let is_extra = |series: &&(String, Labels)| {
        theirs.contains(series.0.as_str())
            && !before.series.contains_key(*series)
            && !after.series.contains_key(*series)
    };
    wrong.extend(ours.keys().filter(is_extra).map(|(name, labels)| format!("{name} {labels:?} is ours alone")));
    wrong
}

fn agrees(name: &str, value: f64, (first, last): (f64, f64), scrape: &Scrape) -> bool {
    let slack = if scrape.counters.contains(name) { COUNTER_TOLERANCE } else { TOLERANCE * first.abs() };
    let own = OWN.into_iter().find_map(|(known, own)| (known == name).then_some(own)).unwrap_or(0.0);
    value >= first.min(last) - slack + own.min(0.0) && value <= first.max(last) + slack + own.max(0.0)
}
