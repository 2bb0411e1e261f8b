//! `belfry-agent doctor`

use std::{
    fs,
    io::{self, Write},
    net::ToSocketAddrs as _,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use belfry_common::{
    client::{self, ConnectError},
    clock,
    error_chain::ErrorChain,
    identity::{Identity, client_config},
    model::{Batch, SeriesDefinition},
    quic::CloseCode,
};
use serde_json::json;

use super::{
    Format,
    output::{Output, csv_line},
    runtime,
};
use crate::{
    app,
    config::Settings,
    gpu::{DriverState, Maker},
    sampling::Sampling,
    schedule::Schedule,
    statistics::Statistics,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// What was checked, how it stands and what to do.
struct Finding {
    subject: &'static str,
    verdict: Verdict,
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    Warning,
    Failure,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

pub(super) fn execute(_: &Args, settings: &Settings, output: Output) -> anyhow::Result<ExitCode> {
    let mut findings = vec![state_directory(&settings.state_directory)];
    let identity = Identity::load(&settings.state_directory);
    findings.push(match &identity {
        Ok(identity) => certificate(identity),
        Err(error) => {
            failure("identity", format!("{}: run `belfry-agent join TOKEN --collector HOST:PORT`", ErrorChain(error)))
        }
    });
    let address = settings.collector.clone().or_else(|| Identity::collector_address(&settings.state_directory));
    let runtime = runtime()?;
    match (identity, address) {
        (Ok(identity), Some(address)) => findings.extend(runtime.block_on(collector(&identity, &address))),
        (_, None) => {
            findings.push(failure("collector", "no address is configured: set `collector = \"HOST:PORT\"`".into()));
        }
        _ => {}
    }
    findings.extend(runtime.block_on(samplers(settings))?);
    print(&findings, output)?;
    let worst = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok);
    Ok(if worst == Verdict::Failure { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn ok(subject: &'static str, detail: String) -> Finding {
    Finding { subject, verdict: Verdict::Ok, detail }
}

fn warning(subject: &'static str, detail: String) -> Finding {
    Finding { subject, verdict: Verdict::Warning, detail }
}

fn failure(subject: &'static str, detail: String) -> Finding {
    Finding { subject, verdict: Verdict::Failure, detail }
}

fn state_directory(directory: &Path) -> Finding {
    if !directory.exists() {
        return warning("state", format!("{} is not there: `belfry-agent join` makes it", directory.display()));
    }
    let probe = directory.join(".doctor");
    let written = fs::write(&probe, b"x").and_then(|()| fs::remove_file(&probe));
    match written {
        Ok(()) => ok("state", format!("{} can be written", directory.display())),
        Err(error) => failure("state", format!("{} cannot be written: {error}", directory.display())),
    }
}

fn certificate(identity: &Identity) -> Finding {
    let subject = &identity.subject;
    let left = subject.not_after.millis_since(clock::now());
    let Ok(left) = u64::try_from(left) else {
        return failure(
            "identity",
            format!("certificate of {} has expired: join again with a new token", subject.name),
        );
    };
    let left = Duration::from_secs(left / 60_000 * 60);
    // Seconds say nothing about days.
    let left = if left > DAY { Duration::from_secs(left.as_secs() / DAY.as_secs() * DAY.as_secs()) } else { left };
    let detail = format!("{}, certificate ends in {}", subject.name, humantime::format_duration(left));
    if clock::now() > subject.renew_at() {
        warning("identity", format!("{detail} and should have been renewed: is the agent connected?"))
    } else {
        ok("identity", detail)
    }
}

async fn collector(identity: &Identity, address: &str) -> Vec<Finding> {
    if address.to_socket_addrs().is_err() {
        return vec![failure("collector", format!("{address} cannot be resolved"))];
    }
    let tls = match client_config(identity) {
        Ok(tls) => tls,
        Err(error) => return vec![failure("collector", ErrorChain(&error).to_string())],
    };
    let began = clock::monotonic();
    let connection = match client::connect(address, tls).await {
        Ok(connection) => connection,
        Err(error) => return vec![failure("collector", ErrorChain(&error).to_string())],
    };
    // A client's handshake ends before the server has judged its certificate: only what comes back counts.
    let closed = tokio::time::timeout(Duration::from_millis(500), connection.closed()).await;
    let finding = match closed {
        Err(_) => ok("collector", format!("{address} accepts this node, in {} ms", began.elapsed().as_millis())),
        Ok(error) => {
            let error =
                ConnectError::from(belfry_common::quic::StreamError::Read(quinn::ReadError::ConnectionLost(error)));
            failure("collector", format!("{address}: {}", ErrorChain(&error)))
        }
    };
    CloseCode::Done.close(&connection, "");
    vec![finding]
}

async fn samplers(settings: &Settings) -> io::Result<Vec<Finding>> {
    let statistics = Statistics::new();
    let mut sampling =
        Sampling::new(app::dry_samplers(settings, &statistics), settings, std::sync::Arc::clone(&statistics))?;
    let mut schedule = Schedule::new(&sampling.intervals(), clock::now());
    let mut batch = Batch::default();
    if let Some(round) = schedule.take(clock::now()) {
        batch = sampling.sample_all(&round).await;
    }
    let mut findings = vec![ok("samplers", format!("{} readings", batch.readings()))];
    findings.extend(drivers(&batch));
    findings.extend(kernel_log(&batch));
    statistics.for_each_sampler(|name, sampler| {
        for ((reading, reason), count) in &sampler.failures {
            findings
                .push(warning("samplers", format!("{name}: {reading} is missing {count} times: {}", reason.as_str())));
        }
    });
    Ok(findings)
}

/// How the drivers of GPUs stand, where there are GPUs.
fn drivers(batch: &Batch) -> Vec<Finding> {
    let series = batch.ticks.iter().flat_map(|tick| tick.layout.series.iter().zip(&tick.values));
    let states = series.filter(|(series, raw)| &*series.metric.name == "gpu_driver_state" && raw.bits() == 1);
    let finding = |series: &SeriesDefinition| {
        let [maker, state] = &*series.label_values else { return None };
        let words = |advice| format!("{maker}: {}: {advice}", state.replace('_', " "));
        Some(match DriverState::from_word(state)?.advice(Maker::from_word(maker)?) {
            None => ok("gpu", format!("{maker}: its driver answers")),
            Some(advice) => warning("gpu", words(advice)),
        })
    };
    states.filter_map(|(series, _)| finding(series)).collect()
}

/// Whether the errors that drivers log can be read, where there are GPUs that have such.
fn kernel_log(batch: &Batch) -> Option<Finding> {
    let mut series = batch.ticks.iter().flat_map(|tick| tick.layout.series.iter().zip(&tick.values));
    let (_, raw) = series.find(|(series, _)| &*series.metric.name == "gpu_kernel_log_readable")?;
    Some(match raw.bits() {
        1 => ok("gpu", "errors are read from the kernel's log, too".into()),
        _ => warning(
            "gpu",
            "the kernel's log cannot be read: it takes CAP_SYSLOG and access to /dev/kmsg; XIDs come from NVML alone"
                .into(),
        ),
    })
}

fn print(findings: &[Finding], output: Output) -> io::Result<()> {
    let mut out = super::output::output();
    let columns = ["subject", "verdict", "detail"];
    let objects = || {
        findings.iter().map(|Finding { subject, verdict, detail }| {
            json!({"subject": subject, "verdict": verdict.as_str(), "detail": detail})
        })
    };
    match output.format {
        Format::Table => write_table(findings, output.has_colour, &mut out),
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, &objects().collect::<Vec<_>>())?;
            writeln!(out)
        }
        Format::Jsonl => objects().try_for_each(|object| writeln!(out, "{object}")),
        Format::Csv => {
            writeln!(out, "{}", columns.join(","))?;
            objects().try_for_each(|object| writeln!(out, "{}", csv_line(&object, &columns)))
        }
    }
}

fn write_table(findings: &[Finding], has_colour: bool, out: &mut impl Write) -> io::Result<()> {
    let colour = |verdict| match verdict {
        _ if !has_colour => ("", ""),
        Verdict::Ok => ("\x1b[32m", "\x1b[0m"),
        Verdict::Warning => ("\x1b[33m", "\x1b[0m"),
        Verdict::Failure => ("\x1b[31m", "\x1b[0m"),
    };
    for finding in findings {
        let (on, off) = colour(finding.verdict);
        writeln!(out, "{on}{:<8}{off} {:<10} {}", finding.verdict.as_str(), finding.subject, finding.detail)?;
    }
    Ok(())
}
