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

impl Metrics {
    fn new() -> Self {
        let metric = |name: &str, kind, resolution, labels: &[&str], help: &str| {
            Arc::new(Metric::new(name, kind, resolution, labels, help))
        };
        let counter =
            |name: &str, help: &str, count: Count| (metric(name, Kind::Counter, Resolution::ONE, &[], help), count);
        let gauge = |name: &str, resolution, help: &str, gauge: Gauge| {
            (metric(name, Kind::Gauge, resolution, &[], help), gauge)
        };
        Self {
            build_info: metric(
                "belfry_agent_build_info",
                Kind::Info,
                Resolution::ONE,
                &["version"],
                "The agent's release.",
            ),
            cpu: metric(
                "belfry_agent_process_cpu_seconds_total",
                Kind::Counter,
                STAT_RESOLUTION,
                &[],
                "Processor time of the agent, user and system.",
            ),
            memory: metric(
                "belfry_agent_process_resident_memory_bytes",
                Kind::Gauge,
                Resolution::ONE,
                &[],
                "Resident memory of the agent.",
            ),
            sampler_runs: metric(
                "belfry_agent_sampler_runs_total",
                Kind::Counter,
                Resolution::ONE,
                &["sampler"],
                "Times a sampler was read.",
            ),
            sampler_seconds: metric(
                "belfry_agent_sampler_duration_seconds_total",
                Kind::Counter,
                Resolution::MICRO,
                &["sampler"],
                "Time that reading a sampler took, in all.",
            ),
            sampler_last: metric(
                "belfry_agent_sampler_duration_seconds",
                Kind::Gauge,
                Resolution::MICRO,
                &["sampler"],
                "Time that reading a sampler took the last time.",
            ),
            sampler_overruns: metric(
                "belfry_agent_sampler_overruns_total",
                Kind::Counter,
                Resolution::ONE,
                &["sampler"],
                "Times a sampler was due while it was still being read.",
            ),
            failures: metric(
                "belfry_reading_failures_total",
                Kind::Counter,
                Resolution::ONE,
                &["sampler", "reading", "reason"],
                "Readings that failed; the reading * is the sampler as a whole.",
            ),
            counters: vec![
                counter("belfry_agent_batches_sent_total", "Batches sent as they were made.", |s| {
                    s.batches_sent.load(Relaxed)
                }),
                counter("belfry_agent_batches_resent_total", "Batches sent from the spool.", |s| {
                    s.batches_resent.load(Relaxed)
                }),
                counter("belfry_agent_batches_acked_total", "Batches that the collector has on disk.", |s| {
                    s.batches_acked.load(Relaxed)
                }),
                counter("belfry_agent_batches_dropped_total", "Batches given up unsent.", |s| {
                    s.batches_dropped.load(Relaxed)
                }),
                counter("belfry_agent_batches_refused_total", "Batches that the collector refused for good.", |s| {
                    s.batches_refused.load(Relaxed)
                }),
                counter("belfry_agent_ticks_missed_total", "Ticks that were due and not made.", |s| {
                    s.ticks_missed.load(Relaxed)
                }),
                counter("belfry_agent_wire_sent_bytes_total", "UDP payload sent to the collector.", |s| {
                    s.wire_sent.total()
                }),
                counter("belfry_agent_wire_received_bytes_total", "UDP payload received from the collector.", |s| {
                    s.wire_received.total()
                }),
                counter("belfry_agent_connections_total", "Connections made to the collector.", |s| {
                    s.connections.load(Relaxed)
                }),
            ],
            gauges: vec![
                gauge("belfry_agent_spool_bytes", Resolution::ONE, "Bytes of the spool on disk.", |s| {
                    Raw::unsigned(s.spool_bytes.load(Relaxed))
                }),
                gauge("belfry_agent_spool_batches", Resolution::ONE, "Batches not acknowledged yet.", |s| {
                    Raw::unsigned(s.spool_batches.load(Relaxed))
                }),
                gauge(
                    "belfry_agent_spool_oldest_age_seconds",
                    Resolution::MILLI,
                    "Age of the oldest batch not acknowledged yet; 0 if there is none.",
                    |s| match s.spool_oldest_ms.load(Relaxed) {
                        0 => Raw::integer(0),
                        oldest => Raw::integer(clock::now().as_millis().saturating_sub(oldest).max(0)),
                    },
                ),
                gauge("belfry_agent_spool_usable", Resolution::ONE, "Whether the spool can be written.", |s| {
                    Raw::integer(i64::from(s.is_spool_usable.load(Relaxed)))
                }),
                gauge(
                    "belfry_agent_connected",
                    Resolution::ONE,
                    "Whether the collector has accepted the agent.",
                    |s| Raw::integer(i64::from(s.is_connected.load(Relaxed))),
                ),
                gauge(
                    "belfry_agent_certificate_expiry_timestamp_seconds",
                    Resolution::MILLI,
                    "When the agent's certificate ends.",
                    |s| Raw::integer(s.certificate_end_ms.load(Relaxed)),
                ),
                gauge(
                    "belfry_agent_clock_offset_seconds",
                    Resolution::MILLI,
                    "The collector's clock less the agent's when it connected last.",
                    |s| Raw::integer(s.clock_offset_ms.load(Relaxed)),
                ),
            ],
        }
    }
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
