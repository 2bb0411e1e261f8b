//! `belfry simulate`

use std::{
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context as _, bail};
use belfry_common::{clock, identity::JoinToken, limits};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

use super::Global;
use crate::{
    api::{Health, NodeRow, Request, TokenCreated},
    client::Client,
    exit::UsageError,
    render::{machine, output::Format},
    simulate::{self, Meter, Plan, Report, What},
};

/// Open files beside a socket per node.
const FILES_BESIDE: u64 = 256;
/// Those of an 8-GPU node.
const SERIES: usize = 500;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many nodes
    #[arg(long)]
    nodes: usize,
    /// Series of each node; 0 only connects
    #[arg(long, default_value_t = SERIES)]
    series: usize,
    /// Send the reference data set, on which compression and ingest are measured: 500 series under names of its own, which rules and
    /// status do not know
    #[arg(long, conflicts_with = "series")]
    reference: bool,
    /// Time between two batches of a node
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// End after this long; without it at Ctrl-C
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Leave the simulated nodes enrolled
    #[arg(long)]
    keep: bool,
}

pub(crate) fn execute(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    super::start_logging(global, tracing::level_filters::LevelFilter::WARN);
    if args.nodes == 0 || args.nodes > 20_000 {
        return Err(UsageError("--nodes must be between 1 and 20000".into()).into());
    }
    if args.series > limits::SERIES_PER_NODE_DEFAULT {
        let most = limits::SERIES_PER_NODE_DEFAULT;
        return Err(
            UsageError(format!("--series must be at most {most}: a collector takes no more of one node")).into()
        );
    }
    if args.interval < Duration::from_millis(100) {
        return Err(UsageError("--interval must be at least 100ms".into()).into());
    }
    raise_file_limit(args.nodes)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(global, args))
}

async fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let client = Client::connect(global).await?;
    let plan = Plan {
        collector: client.address().to_string(),
        nodes: args.nodes,
        what: if args.reference { What::Reference } else { What::Load(args.series) },
        interval: args.interval,
    };
    forget(&client).await?;
    let token = token(&client, args.nodes).await?;
    let bar = progress(args.nodes as u64, "enrolling {pos}/{len} nodes [{wide_bar}] {eta}");
    let identities =
        simulate::enrol(&plan, &token, || bar.inc(1)).await.context("failed to enrol the simulated nodes")?;
    bar.finish_and_clear();

    let meter = Arc::new(Meter::new());
    let stop = CancellationToken::new();
    let began = clock::monotonic();
    let nodes = simulate::run(&plan, identities, Arc::clone(&meter), stop.clone());
    let mut steady = None;
    let watch = watch(args, &client, &meter, &mut steady);
    tokio::pin!(nodes);
    let is_over = tokio::select! {
        () = &mut nodes => true,
        () = watch => false,
    };
    // The collector may have been restarted meanwhile.
    let client = Client::connect(global).await;
    let last = match &client {
        Ok(client) => Cost::now(client, &meter).await,
        Err(_) => None,
    };
    stop.cancel();
    if !is_over {
        nodes.await;
    }
    let mut report = meter.report(args.nodes, args.series, began.elapsed());
    if let (Some(first), Some(last)) = (&steady, &last) {
        report.collector_cpu_seconds_per_million_samples = first.until(last);
        report.collector_resident_bytes = Some(last.resident_bytes);
    }
    let is_complete = report.batches_given_up == 0 && report.batches_refused == 0;
    print(global, &report)?;
    if !args.keep {
        forget(&client.context("the simulated nodes are still enrolled")?).await?;
    }
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn token(client: &Client, nodes: usize) -> anyhow::Result<JoinToken> {
    let request = Request::CreateToken {
        role: "agent".into(),
        ttl_ms: 15 * 60 * 1000,
        uses: u32::try_from(nodes)?,
        names: format!("{}*", simulate::NAME_PREFIX),
    };
    let created: TokenCreated =
        client.ask(&request).await.context("failed to make a token: an admin identity is needed")?;
    Ok(JoinToken::parse(&created.token)?)
}

/// Adds simulated nodes to a fleet until `stop` is cancelled, and removes them again.
pub(super) async fn run_beside(client: &Client, nodes: usize, stop: CancellationToken) -> anyhow::Result<()> {
    raise_file_limit(nodes)?;
    let collector = client.address().to_string();
    let plan = Plan { collector, nodes, what: What::Demo, interval: Duration::from_secs(1) };
    forget(client).await?;
    let token = token(client, nodes).await?;
    let identities = simulate::enrol(&plan, &token, || ()).await.context("failed to enrol the simulated nodes")?;
    simulate::run(&plan, identities, Arc::new(Meter::new()), stop).await;
    forget(client).await
}

/// Removes simulated nodes of this and earlier runs.
async fn forget(client: &Client) -> anyhow::Result<()> {
    let nodes: Vec<NodeRow> = client.ask(&Request::Nodes).await?;
    for node in nodes.into_iter().filter(|node| simulate::is_simulated(&node.name)) {
        client.tell(&Request::ForgetNode { name: node.name }).await.context("failed to remove a simulated node")?;
    }
    Ok(())
}

/// What the collector has cost so far.
#[derive(Debug, Clone)]
struct Cost {
    /// Which run of the collector.
    started_at: String,
    cpu_seconds: f64,
    resident_bytes: f64,
    samples: u64,
}

impl Cost {
    /// None if the collector does not say.
    async fn now(client: &Client, meter: &Meter) -> Option<Self> {
        let health: Health = client.ask(&Request::Health { with_audit: false }).await.ok()?;
        let samples = meter.samples_sent.load(Relaxed);
        let (cpu_seconds, resident_bytes) = (health.cpu_seconds?, health.resident_bytes?);
        Some(Self { started_at: health.started_at, cpu_seconds, resident_bytes, samples })
    }

    /// CPU seconds per million samples since; none if nothing was sent or the collector has started anew.
    fn until(&self, later: &Self) -> Option<f64> {
        let samples = (later.samples - self.samples) as f64;
        let is_one_run = self.started_at == later.started_at;
        (is_one_run && samples > 0.0).then_some((later.cpu_seconds - self.cpu_seconds) * 1e6 / samples)
    }
}

/// Shows how it goes until time is up or somebody stops it. `steady` is the cost when all nodes were connected.
async fn watch(args: &Args, client: &Client, meter: &Meter, steady: &mut Option<Cost>) {
    let bar = progress(args.duration.map_or(0, |duration| duration.as_secs()), "{elapsed_precise} {msg}");
    let began = clock::monotonic();
    let mut acked_before = 0;
    loop {
        tokio::select! {
            () = super::collect::stop_signal() => break,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        if steady.is_none() && meter.connected.load(Relaxed) == args.nodes as u64 {
            *steady = Cost::now(client, meter).await;
        }
        let acked = meter.batches_acked.load(Relaxed);
        bar.set_message(format!(
            "{} connected · {} batches/s acknowledged · ack p50 {:.1} ms p99 {:.1} ms · {} connections lost",
            meter.connected.load(Relaxed),
            acked - acked_before,
            meter.latency(0.5) * 1e3,
            meter.latency(0.99) * 1e3,
            meter.connections_lost.load(Relaxed),
        ));
        acked_before = acked;
        bar.tick();
        if args.duration.is_some_and(|duration| began.elapsed() >= duration) {
            break;
        }
    }
    bar.finish_and_clear();
}

fn progress(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn print(global: &Global, report: &Report) -> anyhow::Result<()> {
    let output = global.output(Format::Table);
    match output.format {
        Format::Table => {}
        Format::Json | Format::Jsonl => return super::print_json(report),
        Format::Csv => {
            let serde_json::Value::Object(fields) = serde_json::to_value(report)? else { bail!("a report has fields") };
            let names: Vec<&str> = fields.keys().map(String::as_str).collect();
            let row = fields.values().map(|value| if value.is_null() { String::new() } else { value.to_string() });
            return Ok(output.print(&machine::csv(&names, [row.collect()])?)?);
        }
    }
    let known = |value: Option<f64>, text: &dyn Fn(f64) -> String| value.map_or("unknown".to_string(), text);
    super::print_lines([
        format!("{} nodes x {} series for {:.0} s", report.nodes, report.series_per_node, report.seconds),
        format!(
            "batches   {} sent, {} acknowledged, {} refused, {} unacknowledged at the end",
            report.batches_sent, report.batches_acked, report.batches_refused, report.batches_given_up
        ),
        format!("rate      {:.0} batches/s, {:.0} samples/s", report.batches_per_second, report.samples_per_second),
        format!(
            "ack       p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            report.ack_seconds_p50 * 1e3,
            report.ack_seconds_p90 * 1e3,
            report.ack_seconds_p99 * 1e3,
            report.ack_seconds_max * 1e3
        ),
        format!("wire      {:.2} bytes of UDP payload per sample, both directions", report.bytes_per_sample),
        format!("broken    {} connections lost", report.connections_lost),
        format!(
            "collector {} once all were connected, {} resident",
            known(report.collector_cpu_seconds_per_million_samples, &|cost| {
                format!("{cost:.2} CPU seconds per million samples")
            }),
            known(report.collector_resident_bytes, &|bytes| format!("{:.0} MB", bytes / 1e6)),
        ),
    ])
}

/// Each node has a socket of its own.
fn raise_file_limit(nodes: usize) -> anyhow::Result<()> {
    let needed = nodes as u64 + FILES_BESIDE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        bail!("{nodes} nodes need {needed} open files and the hard limit is lower: raise it with `ulimit -Hn`");
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), ..limit })
        .context("failed to raise the limit of open files")
}
