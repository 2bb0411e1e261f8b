//! Writes a few real encodings for each target into `corpus/`: where the fuzzer starts from.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use belfry_common::{
    identity::{Authority, Identity, JoinToken, Profile, Role},
    journal::{Journal, Options},
    storage::simulated::Simulated,
    model::{
        Batch, Kind as MetricKind, Layout, Metric, NodeName, Raw, Reason, Resolution, SeriesDefinition, Tick, Timestamp,
    },
    wire::{
        codec::{Encoder, column},
        frame::{HEADER_BYTES, Kind, seal},
        message::{
            Ack, Batches, CertificateRequest, Credit, Failure, Gaps, GpuHolders, GpuIdentity, GpuProcess, GpuReadings,
            GpuReady, Hello, Inventory, InventoryJob, InventoryProcess, Message, Refused, Run, SealedBatch, Welcome,
            encode,
        },
    },
};
// The counters that instrumented code reports to are libFuzzer's.
use libfuzzer_sys as _;

const TIME_MS: i64 = 1_799_999_990_000;

fn main() -> Result<(), Box<dyn Error>> {
    let bodies = bodies()?;
    frames(&bodies)?;
    messages(&bodies)?;
    for count in [1, 3, bodies.len()] {
        write("codec", &with_lengths(bodies.iter().take(count)))?;
    }
    columns()?;
    journals()?;
    blocks()?;
    records(&bodies)?;
    identities()?;
    texts()
}

/// Writes one seed; its name follows from what it holds, so that a second run changes nothing.
fn write(target: &str, bytes: &[u8]) -> std::io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(format!("seed-{:08x}", crc32c::crc32c(bytes))), bytes)
}

fn with_lengths<'a>(parts: impl Iterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let sized = parts.flat_map(|part| [&(part.len() as u16).to_le_bytes()[..], part].concat());
    sized.collect()
}

/// The bodies of a few seconds of a small node: integers, floats, missing readings, a device that comes.
fn bodies() -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let counter = Metric::new("node_cpu_seconds_total", MetricKind::Counter, Resolution::CENTI, &["cpu"], "Time.");
    let float = Metric::new("node_load1", MetricKind::Gauge, Resolution::Float, &[], "Load.");
    let (counter, float) = (Arc::new(counter), Arc::new(float));
    let series = |metric: &Arc<Metric>, values: &[&str]| {
        let label_values = values.iter().map(|&value| value.into()).collect();
        Arc::new(SeriesDefinition { metric: Arc::clone(metric), label_values })
    };
    let layout = |group, series: Vec<_>| {
        Arc::new(Layout { group, sampler: "cpu".into(), interval_ms: 1000, series: series.into() })
    };
    let (zero, one) = (series(&counter, &["0"]), series(&counter, &["1"]));
    let small = layout(0, vec![Arc::clone(&zero), series(&float, &[])]);
    let large = layout(0, vec![zero, one, series(&float, &[])]);
    let mut encoder = Encoder::new();
    let mut bodies = Vec::new();
    for second in 0..8_i64 {
        let time = Timestamp::from_millis(TIME_MS + second * 1000);
        let load = Raw::float(0.25 * second as f64);
        let cpu = if second == 5 { Raw::missing(Reason::Timeout) } else { Raw::integer(100 * second) };
        let tick = if second < 4 {
            Tick { layout: Arc::clone(&small), time, values: vec![cpu, load] }
        } else {
            Tick { layout: Arc::clone(&large), time, values: vec![cpu, Raw::integer(second), load] }
        };
        let mut body = Vec::new();
        encoder.encode(&Batch { ticks: vec![tick] }, &mut body)?;
        bodies.push(body);
    }
    Ok(bodies)
}

fn frames(bodies: &[Vec<u8>]) -> std::io::Result<()> {
    let sealed = bodies.iter().zip(1..).map(|(body, sequence)| SealedBatch { sequence, body });
    let batches = encode(&Batches { batches: sealed.collect() });
    for payload in [batches, vec![7; 3000]] {
        let mut frame = Vec::new();
        seal(Kind::Batches, &payload, &mut frame);
        write("frame", &frame)?;
        let is_packed = u8::from(payload.len() > 512);
        write("frame", &[&[Kind::Batches as u8, is_packed], frame.get(HEADER_BYTES..).unwrap_or_default()].concat())?;
    }
    Ok(())
}

fn message(kind: u8, message: &impl Message) -> std::io::Result<()> {
    write("message", &[&[kind][..], &encode(message)].concat())
}

fn messages(bodies: &[Vec<u8>]) -> std::io::Result<()> {
    let hello = Hello {
        protocol_min: 1,
        protocol_max: 1,
        agent_version: "0.1.0".into(),
        epoch: 7,
        next_sequence: 1025,
        time_ms: TIME_MS,
        interval_ms: 1000,
    };
    message(0, &hello)?;
    let durable = vec![Run::new(1, 500), Run::new(700, 1024)];
    let welcome = Welcome {
        protocol: 1,
        collector_version: "0.1.0".into(),
        time_ms: TIME_MS,
        durable: durable.clone(),
        backlog_credit: 64,
    };
    message(1, &welcome)?;
    let sealed = bodies.iter().zip(1..).map(|(body, sequence)| SealedBatch { sequence, body });
    message(2, &Batches { batches: sealed.collect() })?;
    message(3, &Ack { runs: durable })?;
    message(4, &Credit { batches: 64 })?;
    message(5, &Gaps { gaps: Vec::new() })?;
    message(6, &Refused { sequence: 9, reason: "a tick from the future".into() })?;
    message(8, &CertificateRequest { name: "node-1".into(), csr: vec![0x30; 40] })?;
    message(11, &Failure { code: 3, message: "revoked".into(), retry_after_ms: 0 })?;
    // Behind the flags and the length, a first body holds its definitions.
    let definitions = bodies.first().and_then(|body| body.get(5..)).unwrap_or_default();
    write("message", &[&[17][..], definitions].concat())?;
    gpu_messages(bodies)
}

fn gpu_messages(bodies: &[Vec<u8>]) -> std::io::Result<()> {
    let holds = GpuProcess {
        gpu: 1,
        pid: 2411,
        memory_bytes: Some(1 << 33),
        sm_percent: Some(97),
        encoder_percent: None,
        decoder_percent: None,
        gpu_instance: Some(1),
        compute_instance: None,
    };
    let identity = GpuIdentity { index: 1, uuid: "GPU-1".into(), pci_bus_id: "0000:3b:00.0".into() };
    message(14, &GpuReady { state: 0, detail: String::new(), gpus: vec![identity] })?;
    let body = bodies.first().map(Vec::as_slice).unwrap_or_default();
    let holders = vec![GpuHolders { gpu: 1, processes: vec![holds.clone()] }];
    message(15, &GpuReadings { sequence: 7, body, holders: Some(holders) })?;
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let job = InventoryJob { labels: vec![label("job_kind", "slurm"), label("job_id", "4711")] };
    let process =
        InventoryProcess { holds, uuid: "GPU-1".into(), user: "ada".into(), command: "python3".into(), job: Some(job) };
    message(12, &Inventory { time_ms: TIME_MS, gpus: vec!["GPU-1".into()], processes: vec![process], left_out: 3 })
}

fn columns() -> std::io::Result<()> {
    let integer = |i: i64| if i == 20 { Raw::missing(Reason::Timeout) } else { Raw::integer(i * 1000 + i % 3) };
    let integers: Vec<Raw> = (0..40).map(integer).collect();
    let floats: Vec<Raw> = (0..40_i32).map(|i| Raw::float(f64::from(i).sin())).collect();
    let mut bytes = vec![40, 0];
    column::encode(Resolution::ONE, &integers, &mut bytes);
    write("column", &bytes)?;
    let mut bytes = vec![40, 255];
    column::encode(Resolution::Float, &floats, &mut bytes);
    write("column", &bytes)?;
    let mut bytes = vec![40, 0];
    column::encode(Resolution::ONE, &[Raw::integer(7); 40], &mut bytes);
    write("column", &bytes)
}

fn journals() -> Result<(), Box<dyn Error>> {
    let disk = Simulated::new(1);
    let options = Options { segment_bytes: 4096, buffer_bytes: 1024, preallocate: false };
    let (mut journal, _) = Journal::open_in(Arc::new(disk.clone()), options)?;
    for record in [&b"one"[..], b"two", &[3; 300]] {
        journal.append(record)?;
    }
    journal.sync()?;
    let segment = disk.contents("0000000000000001.journal").unwrap_or_default();
    write("journal", &[&[0][..], &segment].concat())?;
    // Two records, a roll, a third one, the end; then one byte of the first segment flipped and the second one cut.
    write("journal", b"\x01\x03one\x03two\xff\x05three\x00\x00\x28\x00\x10\x01\x30\x00\x00")?;
    Ok(write("journal", b"\x01\x03one\x03two\x03abc\x00\x01\x34\x00\x00")?)
}

/// Blocks that the store's own tests read.
fn blocks() -> std::io::Result<()> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/store/src/block/tests");
    for entry in fs::read_dir(tests)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "block") {
            write("block", &fs::read(path)?)?;
        }
    }
    Ok(())
}

/// Records of the collector's journal and of the spool, as their modules describe them.
fn records(bodies: &[Vec<u8>]) -> std::io::Result<()> {
    let (node, epoch) = (7_u32.to_le_bytes(), 9_u64.to_le_bytes());
    let time = TIME_MS.to_le_bytes();
    let number = |n: u64| n.to_le_bytes();
    let snapshot = [&[1][..], &time, &node, &epoch, &1_u32.to_le_bytes(), &number(1), &number(20)].concat();
    let mut records = vec![snapshot];
    for (body, sequence) in bodies.iter().zip(21..) {
        records.push([&[2][..], &node, &epoch, &number(sequence), &time, body].concat());
    }
    records.push([&[3][..], &node, &epoch, &number(30), &number(40), &[1]].concat());
    write("store", &with_lengths(records.iter()))?;
    write("spool_record", &[&[1][..], &epoch, &number(1024), &1_u32.to_le_bytes(), &number(1), &number(5)].concat())?;
    write("spool_record", &[&[2][..], &number(6), &time, b"body"].concat())?;
    write("spool_record", &[&[3][..], &number(1), &number(5)].concat())?;
    write("spool_record", &[&[4][..], &number(2048)].concat())?;
    write("spool_record", &[&[5][..], &number(1), &number(5), &[1]].concat())
}

fn identities() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let now = Timestamp::from_millis(TIME_MS);
    let authority = Authority::open(directory.path(), now)?;
    let (_, request) = Identity::request()?;
    let profile =
        Profile { name: NodeName::from_host_name("node-1"), role: Role::Agent, id: 1, life: Duration::from_secs(3600) };
    let issued = authority.certify(&request, &profile, now)?;
    for der in [&request[..], &issued.certificate, authority.certificate()] {
        write("certificate", der)?;
    }
    Ok(write("token", JoinToken::generate([7; 32], Role::Agent)?.reveal().as_bytes())?)
}

/// Expressions of the engine's own tests, and the example configurations with every key in force.
fn texts() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut scripts: Vec<PathBuf> =
        fs::read_dir(root.join("cli/promql/tests/scripts"))?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    scripts.sort();
    for script in scripts {
        for line in fs::read_to_string(script)?.lines() {
            let expression = line.strip_prefix("eval").and_then(|rest| rest.split_once(" at ")?.1.split_once(' '));
            if let Some((_, expression)) = expression {
                write("promql", expression.as_bytes())?;
            }
        }
    }
    for name in ["agent.toml", "collector.toml"] {
        let text = fs::read_to_string(root.join("packaging").join(name))?;
        let keys =
            text.lines().filter_map(|line| line.strip_prefix('#').or(Some(line)).filter(|line| !line.starts_with(' ')));
        write("config", keys.collect::<Vec<_>>().join("\n").as_bytes())?;
    }
    Ok(())
}
