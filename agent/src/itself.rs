//! What the agent says of itself: its cost, its samplers, its spool, its connection.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use belfry_common::{
    clock,
    model::{Kind, Metric, Raw, Resolution},
};

use crate::{
    readings::Readings,
    samplers::{MINUTE, Roots, SECOND, SampleError, Sampler, Source},
    statistics::{SamplerStatistics, Statistics},
};

/// Fields of `/proc/self/stat` behind the command's name: user and system time in ticks of 10 ms.
const STAT_TIMES: std::ops::Range<usize> = 11..13;
/// The kernel counts processor time for user space in hundredths of a second, whatever its own tick is.
const STAT_RESOLUTION: Resolution = Resolution::CENTI;

/// Samples the agent's own counts.
#[derive(Debug)]
pub(crate) struct Itself {
    statistics: Arc<Statistics>,
    stat: Source,
    statm: Source,
    metrics: Metrics,
}

#[derive(Debug)]
struct Metrics {
    build_info: Arc<Metric>,
    cpu: Arc<Metric>,
    memory: Arc<Metric>,
    sampler_runs: Arc<Metric>,
    sampler_seconds: Arc<Metric>,
    sampler_last: Arc<Metric>,
    sampler_overruns: Arc<Metric>,
    failures: Arc<Metric>,
    counters: Vec<(Arc<Metric>, Count)>,
    gauges: Vec<(Arc<Metric>, Gauge)>,
}

type Count = fn(&Statistics) -> u64;
type Gauge = fn(&Statistics) -> Raw;

impl Itself {
    pub(crate) fn new(roots: &Roots, statistics: Arc<Statistics>) -> Self {
        Self {
            statistics,
            stat: Source::new(roots.proc.join("self/stat")),
            statm: Source::new(roots.proc.join("self/statm")),
            metrics: Metrics::new(),
        }
    }

    fn cost(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        let text = self.stat.read()?;
        // The name may hold spaces and brackets: what counts is behind its last bracket.
        let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut times = fields.split_whitespace().skip(STAT_TIMES.start).take(STAT_TIMES.len());
        let mut time = || times.next().and_then(|field| field.parse::<i64>().ok());
        let Some(total) = time().zip(time()).map(|(user, system)| user.saturating_add(system)) else {
            return Err(self.stat.format_error("user and system time were expected"));
        };
        readings.integer(&self.metrics.cpu, &[], total);
        let text = self.statm.read()?;
        let Some(pages) = text.split_whitespace().nth(1).and_then(|field| field.parse::<u64>().ok()) else {
            return Err(self.statm.format_error("resident pages were expected"));
        };
        readings.unsigned(&self.metrics.memory, &[], pages.saturating_mul(rustix::param::page_size() as u64));
        Ok(())
    }

    fn sampler(metrics: &Metrics, name: &str, sampler: &SamplerStatistics, readings: &mut Readings) {
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        readings.unsigned(&metrics.sampler_runs, &[name], sampler.runs);
        readings.integer(&metrics.sampler_seconds, &[name], micros(sampler.time_total));
        readings.integer(&metrics.sampler_last, &[name], micros(sampler.time_last));
        readings.unsigned(&metrics.sampler_overruns, &[name], sampler.overruns);
        for ((reading, reason), &count) in &sampler.failures {
            readings.unsigned(&metrics.failures, &[name, reading, reason.as_str()], count);
        }
    }
}

impl Sampler for Itself {
    fn name(&self) -> &'static str {
        "agent"
    }

    fn interval(&self) -> Duration {
        SECOND * 10
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        self.cost(readings)?;
        let metrics = &self.metrics;
        readings.integer(&metrics.build_info, &[env!("CARGO_PKG_VERSION")], 1);
        for (metric, count) in &metrics.counters {
            readings.unsigned(metric, &[], count(&self.statistics));
        }
        for (metric, gauge) in &metrics.gauges {
            match gauge(&self.statistics).reason() {
                Some(reason) => readings.missing(metric, &[], reason),
                None => readings.integer(metric, &[], gauge(&self.statistics).bits()),
            }
        }
        self.statistics.for_each_sampler(|name, sampler| Self::sampler(metrics, name, sampler, readings));
        Ok(())
    }
}

fn metric(name: &str, kind: Kind, resolution: Resolution, labels: &[&str], help: &str) -> Arc<Metric> {
    Arc::new(Metric::new(name, kind, resolution, labels, help))
}

impl Metrics {
    fn new() -> Self {
        use Kind::{Counter, Gauge, Info};
        let (one, micro) = (Resolution::ONE, Resolution::MICRO);
        let sampler = |name: &str, kind, resolution, help: &str| {
            metric(&format!("belfry_agent_sampler_{name}"), kind, resolution, &["sampler"], help)
        };
        let failures = "Readings that failed; the reading * is the sampler as a whole.";
        let failure_labels = ["sampler", "reading", "reason"];
        Self {
            build_info: metric("belfry_agent_build_info", Info, one, &["version"], "The agent's release."),
            cpu: metric(
                "belfry_agent_process_cpu_seconds_total",
                Counter,
                STAT_RESOLUTION,
                &[],
                "Processor time of the agent.",
            ),
            memory: metric(
                "belfry_agent_process_resident_memory_bytes",
                Gauge,
                one,
                &[],
                "Resident memory of the agent.",
            ),
            sampler_runs: sampler("runs_total", Counter, one, "Times a sampler was read."),
            sampler_seconds: sampler(
                "duration_seconds_total",
                Counter,
                micro,
                "Time that reading a sampler took, in all.",
            ),
            sampler_last: sampler("duration_seconds", Gauge, micro, "Time that reading a sampler took the last time."),
            sampler_overruns: sampler(
                "overruns_total",
                Counter,
                one,
                "Times a sampler was due while it was still being read.",
            ),
            failures: metric("belfry_reading_failures_total", Counter, one, &failure_labels, failures),
            counters: counters(),
            gauges: gauges(),
        }
    }
}

fn counters() -> Vec<(Arc<Metric>, Count)> {
    let counter = |name: &str, help: &str, count: Count| {
        (metric(&format!("belfry_agent_{name}_total"), Kind::Counter, Resolution::ONE, &[], help), count)
    };
    vec![
        counter("batches_sent", "Batches sent as they were made.", |s| s.batches_sent.load(Relaxed)),
        counter("batches_resent", "Batches sent from the spool.", |s| s.batches_resent.load(Relaxed)),
        counter("batches_acked", "Batches that the collector has on disk.", |s| s.batches_acked.load(Relaxed)),
        counter("batches_dropped", "Batches given up unsent.", |s| s.batches_dropped.load(Relaxed)),
        counter("batches_refused", "Batches that the collector refused for good.", |s| s.batches_refused.load(Relaxed)),
        counter("ticks_missed", "Ticks that were due and not made.", |s| s.ticks_missed.load(Relaxed)),
        counter("wire_sent_bytes", "UDP payload sent to the collector.", |s| s.wire_sent.total()),
        counter("wire_received_bytes", "UDP payload received from the collector.", |s| s.wire_received.total()),
        counter("connections", "Connections made to the collector.", |s| s.connections.load(Relaxed)),
    ]
}

fn gauges() -> Vec<(Arc<Metric>, Gauge)> {
    let gauge = |name: &str, resolution, help: &str, gauge: Gauge| {
        (metric(&format!("belfry_agent_{name}"), Kind::Gauge, resolution, &[], help), gauge)
    };
    let (one, milli) = (Resolution::ONE, Resolution::MILLI);
    vec![
        gauge("spool_bytes", one, "Bytes of the spool on disk.", |s| Raw::unsigned(s.spool_bytes.load(Relaxed))),
        gauge("spool_batches", one, "Batches not acknowledged yet.", |s| Raw::unsigned(s.spool_batches.load(Relaxed))),
        gauge(
            "spool_oldest_age_seconds",
            milli,
            "Age of the oldest batch not acknowledged yet; 0 if there is none.",
            |s| match s.spool_oldest_ms.load(Relaxed) {
                0 => Raw::integer(0),
                oldest => Raw::integer(clock::now().as_millis().saturating_sub(oldest).max(0)),
            },
        ),
        gauge("spool_usable", one, "Whether the spool can be written.", |s| flag(s.is_spool_usable.load(Relaxed))),
        gauge("connected", one, "Whether the collector has accepted the agent.", |s| {
            flag(s.is_connected.load(Relaxed))
        }),
        gauge("certificate_expiry_timestamp_seconds", milli, "When the agent's certificate ends.", |s| {
            Raw::integer(s.certificate_end_ms.load(Relaxed))
        }),
        gauge("clock_offset_seconds", milli, "The collector's clock less the agent's when it connected last.", |s| {
            Raw::integer(s.clock_offset_ms.load(Relaxed))
        }),
    ]
}

fn flag(value: bool) -> Raw {
    Raw::integer(i64::from(value))
}

/// The operator's labels for this node, as one series to join with.
#[derive(Debug)]
pub(crate) struct NodeLabels {
    metric: Arc<Metric>,
    values: Vec<String>,
}

impl NodeLabels {
    pub(crate) fn new(labels: &std::collections::BTreeMap<String, String>) -> Self {
        let names: Vec<&str> = labels.keys().map(String::as_str).collect();
        let help = "Labels that the node's configuration gives it.";
        let metric = Arc::new(Metric::new("node_labels_info", Kind::Info, Resolution::ONE, &names, help));
        Self { metric, values: labels.values().cloned().collect() }
    }
}

impl Sampler for NodeLabels {
    fn name(&self) -> &'static str {
        "labels"
    }

    fn interval(&self) -> Duration {
        MINUTE
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        if !self.values.is_empty() {
            let values: Vec<&str> = self.values.iter().map(String::as_str).collect();
            readings.integer(&self.metric, &values, 1);
        }
        Ok(())
    }
}
