//! How long queries take over HTTP, of the reference data: at its end, over the hour before that, of which the last minutes are in memory and
//! the rest on disk in pieces, and over the last hour by the clock, which is merged.
//!
//! `cargo bench -p belfry-tests --bench query_speed [-- NODES [QUERY [ADDRESS…]]]`: medians and the collector's CPU time, of 20 nodes with 500
//! series each unless it is told otherwise, and of all queries or of those that have a text. Servers at these addresses that have the last hour
//! by the clock of the same data are asked the same in turn, at its end and over it, and told not to answer from a cache.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench says what it finds, and panics where it cannot")]

#[path = "../../cli/store/benches/fleet/mod.rs"]
#[expect(dead_code, reason = "of the store's benches")]
mod fleet;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use belfry_common::{
    clock,
    model::{Batch, BatchKey, Epoch, Timestamp},
};
use belfry_store::{Entry, NodeId, Store};
use belfry_tests::collector::Collector;
use fleet::Node;

const SERIES: usize = 500;
const HOUR_MS: i64 = 3_600_000;
/// After the end of an hour its last samples are waited for, and it is merged.
const MERGED_MS: i64 = 6 * 60_000;
const TRIES: usize = 30;
/// Long enough for the clock of processes, which counts hundredths of a second.
const PERIOD: Duration = Duration::from_secs(2);

/// What is asked, and over which range if not at an instant; in the order of the design's figures.
const QUERIES: [(&str, bool); 10] = [
    ("load1", false),
    ("gpu_power_watts", false),
    ("topk(10, gpu_power_watts)", false),
    ("topk(10, avg_over_time(gpu_power_watts[5m]))", false),
    ("avg by (instance) (gpu_util_percent)", true),
    ("avg by (instance) (avg_over_time(gpu_util_percent[15s]))", true),
    ("sum by (instance) (rate(cpu_seconds_total[1m]))", true),
    ("quantile by (instance) (0.9, gpu_temp_celsius)", true),
    ("gpu_power_watts > 300 and on (instance, gpu) gpu_util_percent < 50", true),
    ("count({__name__=~\"gpu_.*\"})", false),
];

fn main() {
    // Cargo adds a flag of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let nodes: u64 = arguments.first().map_or(20, |nodes| nodes.parse().unwrap());
    let text = arguments.get(1).map_or("", |text| text);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let end = Timestamp::from_millis(clock::now().as_millis().div_euclid(1000) * 1000);
    let hour = Timestamp::from_millis((end.as_millis() - MERGED_MS).div_euclid(HOUR_MS) * HOUR_MS);
    let collector = runtime.block_on(filled(nodes, hour.plus_millis(-HOUR_MS), end));
    println!("{nodes} nodes × {SERIES} series at 1 s; median of {TRIES} or more, and CPU time of each");
    let mut server = Server::connect(&collector.http_address().to_string());
    for (query, is_range) in QUERIES.into_iter().filter(|(query, _)| query.contains(text)) {
        let of_hour = if is_range { range(query, hour) } else { instant(query, hour) };
        let last = if is_range { range(query, end) } else { instant(query, end) };
        let paths = [(last, "at last"), (of_hour.clone(), "of the hour")];
        for (path, when) in paths.into_iter().take(if is_range { 2 } else { 1 }) {
            let process = collector.process().id();
            let before = cpu(process);
            let Measured { median, count, bytes } = measured(&mut server, &path);
            let cpu = (cpu(process) - before) / count;
            println!("{median:>9.2?}  {cpu:>9.2?} of CPU  {bytes:>9} bytes  {query}, {when}");
        }
        for address in arguments.iter().skip(2) {
            // A connection that waited for the data to be made would have been closed.
            let Measured { median, bytes, .. } =
                measured(&mut Server::connect(address), &format!("{of_hour}&nocache=1"));
            println!("{median:>9.2?}  {:>16}  {bytes:>9} bytes  {query}, of the hour, {address}", "");
        }
    }
}

/// How long one query took.
struct Measured {
    median: Duration,
    count: u32,
    /// Of the answer.
    bytes: usize,
}

fn measured(server: &mut Server, path: &str) -> Measured {
    let bytes = server.get(path);
    let began = clock::monotonic();
    let mut times = Vec::new();
    while times.len() < TRIES || began.elapsed() < PERIOD {
        let began = clock::monotonic();
        server.get(path);
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    Measured { median, count: times.len() as u32, bytes }
}

/// Of all threads of a process, those that have ended included.
fn cpu(process: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // Behind the name, which is in brackets: user and system time are the twelfth and thirteenth field.
    let fields = text.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

fn instant(query: &str, time: Timestamp) -> String {
    format!("/api/v1/query?query={}&time={}", encoded(query), seconds(time))
}

/// The hour up to then.
fn range(query: &str, end: Timestamp) -> String {
    let start = seconds(end.plus_millis(-HOUR_MS));
    format!("/api/v1/query_range?query={}&start={start}&end={}&step=15", encoded(query), seconds(end))
}

fn encoded(query: &str) -> String {
    query.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn seconds(time: Timestamp) -> f64 {
    time.as_millis() as f64 / 1000.0
}

/// A collector that has the data after one time up to another.
async fn filled(nodes: u64, after: Timestamp, end: Timestamp) -> Collector {
    let mut collector = Collector::start().await;
    for node in 0..nodes {
        collector.join(&format!("node-{node:04}")).await;
    }
    assert!(collector.stop().await.success());
    let (mut store, _) = Store::open(&collector.data_directory(), fleet::options(), end).unwrap();
    let maintainer = store.maintainer();
    let mut fleet: Vec<Node> = (0..nodes).map(|node| Node::new(node, SERIES, 1000, store.head().pool())).collect();
    for second in 1..=end.millis_since(after) / 1000 {
        let time = after.plus_millis(second * 1000);
        let batches: Vec<Batch> = fleet.iter_mut().map(|node| node.batch(time)).collect();
        for (number, batch) in (1..).zip(batches) {
            let key = BatchKey { epoch: Epoch(1), sequence: second as u64 };
            store.add(Entry { node: NodeId(number), key, received: time, batch: Arc::new(batch) }).unwrap();
        }
        store.commit().unwrap();
        maintainer.run(time).unwrap();
        store.cut(time).unwrap();
    }
    drop((store, maintainer));
    collector.launch();
    collector.ready().await;
    collector
}

/// A connection that is kept.
struct Server(BufReader<TcpStream>);

impl Server {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// The bytes of the answer's body, which is in one piece or in chunks.
    fn get(&mut self, path: &str) -> usize {
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut length, mut is_first) = (None, true);
        loop {
            let line = self.line();
            assert!(!std::mem::take(&mut is_first) || line.contains(" 200 "), "{path}: {line}");
            if line.is_empty() {
                break;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = Some(value.trim().parse().unwrap());
            }
        }
        if let Some(length) = length {
            return self.take(length);
        }
        let mut bytes = 0;
        loop {
            let size = usize::from_str_radix(&self.line(), 16).unwrap();
            bytes += self.take(size);
            self.line();
            if size == 0 {
                return bytes;
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn take(&mut self, bytes: usize) -> usize {
        let mut body = vec![0; bytes];
        self.0.read_exact(&mut body).unwrap();
        bytes
    }
}
