//! What the collector counts of itself: the same for its own series and for `/metrics`.

use std::sync::atomic::Ordering::Relaxed;

use belfry_common::{
    clock,
    model::{Kind, Raw, Reason, Resolution},
};

use crate::{
    fleet::{OwnCount, Standing, standing},
    queries::QueryStatistics,
    services::Services,
    state::Health,
};

/// The counts as they are now, always the same ones in the same order.
pub(crate) fn own_counts(services: &Services) -> Vec<OwnCount> {
    let mut counts = of_fleet(services);
    counts.extend(of_store(services));
    counts.extend(of_alerting(services));
    counts.extend(of_queries(services));
    counts.extend(of_process());
    counts
}

fn gauge(name: &'static str, help: &'static str, value: i64) -> OwnCount {
    (name, Kind::Gauge, Resolution::ONE, help, Raw::integer(value))
}

fn amount(name: &'static str, help: &'static str, value: u64) -> OwnCount {
    (name, Kind::Gauge, Resolution::ONE, help, Raw::unsigned(value))
}

fn count(name: &'static str, help: &'static str, value: u64) -> OwnCount {
    (name, Kind::Counter, Resolution::ONE, help, Raw::unsigned(value))
}

fn micros(name: &'static str, help: &'static str, value: u64) -> OwnCount {
    (name, Kind::Counter, Resolution::MICRO, help, Raw::unsigned(value))
}

fn of_fleet(services: &Services) -> Vec<OwnCount> {
    let now = clock::now();
    let (mut up, mut stale, mut down) = (0, 0, 0);
    for node in services.fleet.nodes() {
        match standing(&node.facts, now).0 {
            Standing::Up => up += 1,
            Standing::Stale => stale += 1,
            Standing::Down => down += 1,
        }
    }
    let connections = &services.connections;
    vec![
        gauge("belfry_collector_nodes_up", "Nodes whose ticks arrive.", up),
        gauge("belfry_collector_nodes_stale", "Nodes that are silent.", stale),
        gauge("belfry_collector_nodes_down", "Nodes that are gone.", down),
        amount("belfry_collector_connections", "Open connections of members.", connections.open_now()),
        count("belfry_collector_connections_refused_total", "Attempts turned away at the door.", connections.refused()),
        count("belfry_collector_handshakes_failed_total", "Handshakes that failed.", connections.failed()),
        count("belfry_collector_requests_denied_total", "Requests beyond the peer's role.", connections.denied()),
    ]
}

fn of_store(services: &Services) -> Vec<OwnCount> {
    let (head, writer) = (services.head.statistics(), &services.writer.statistics);
    let is_database_good = matches!(&*services.state.health().borrow(), Health::Good);
    let is_writable = !writer.is_full.load(Relaxed);
    let blocks = services.reader.statistics();
    let (block_count, block_bytes) = blocks.tiers.iter().fold((0, 0), |sum, tier| (sum.0 + tier.0, sum.1 + tier.1));
    vec![
        count("belfry_collector_batches_total", "Batches made durable.", writer.batches.load(Relaxed)),
        count("belfry_collector_batches_duplicate_total", "Batches that came again.", writer.duplicates.load(Relaxed)),
        count(
            "belfry_collector_batches_refused_total",
            "Batches that will never be taken, with the reason in the log.",
            writer.refused.load(Relaxed),
        ),
        count(
            "belfry_collector_batches_lost_total",
            "Batches that nodes have reported as lost.",
            writer.gap_batches.load(Relaxed),
        ),
        count("belfry_collector_samples_total", "Readings made durable.", writer.readings.load(Relaxed)),
        count("belfry_collector_commits_total", "Commits of the journal.", writer.commits.load(Relaxed)),
        micros("belfry_collector_commit_seconds_total", "Time that commits took.", writer.commit_micros.load(Relaxed)),
        amount("belfry_collector_journal_bytes", "Bytes of the journal on disk.", writer.journal_bytes.load(Relaxed)),
        amount("belfry_collector_journal_segments", "Segments of the journal.", writer.journal_segments.load(Relaxed)),
        gauge("belfry_collector_store_writable", "Whether the store can be written.", i64::from(is_writable)),
        gauge(
            "belfry_collector_database_writable",
            "Whether the database can be written.",
            i64::from(is_database_good),
        ),
        amount("belfry_collector_blocks", "Blocks of samples on disk.", block_count),
        amount("belfry_collector_blocks_bytes", "Bytes of blocks on disk.", block_bytes),
        amount(
            "belfry_collector_blocks_quarantined",
            "Blocks that were moved aside because of damage.",
            blocks.quarantined,
        ),
        amount("belfry_collector_head_series", "Series in memory.", head.series as u64),
        amount("belfry_collector_head_bytes", "Bytes of samples in memory.", head.bytes as u64),
        count(
            "belfry_collector_head_ticks_evicted_total",
            "Ticks that left memory before their time.",
            head.ticks_evicted,
        ),
    ]
}

fn of_queries(services: &Services) -> Vec<OwnCount> {
    let QueryStatistics { done, stopped, micros: took } = &*services.queries.statistics;
    vec![
        count("belfry_collector_queries_total", "Queries that were answered.", done.load(Relaxed)),
        count(
            "belfry_collector_queries_stopped_total",
            "Queries that ended because their time was over, or nobody waited for them any more.",
            stopped.load(Relaxed),
        ),
        micros("belfry_collector_query_seconds_total", "Time in which queries ran.", took.load(Relaxed)),
    ]
}

fn of_alerting(services: &Services) -> Vec<OwnCount> {
    let alerting = &services.alerting.statistics;
    let lag = Raw::unsigned(alerting.lag_ms.load(Relaxed));
    let lag_help = "From the time of a tick to the end of its evaluation.";
    vec![
        count("belfry_collector_evaluations_total", "Ticks evaluated by rules.", alerting.evaluations.load(Relaxed)),
        micros(
            "belfry_collector_evaluation_seconds_total",
            "Time that evaluation took.",
            alerting.evaluation_micros.load(Relaxed),
        ),
        count(
            "belfry_collector_evaluations_skipped_total",
            "Batches that evaluation had no time for.",
            alerting.arrivals_lost.load(Relaxed),
        ),
        ("belfry_collector_evaluation_lag_seconds", Kind::Gauge, Resolution::MILLI, lag_help, lag),
        gauge(
            "belfry_collector_rules_last_reload_successful",
            "Whether the rules were accepted when they were read last.",
            i64::from(alerting.rules_refused().is_none()),
        ),
        count("belfry_collector_alert_events_total", "Events of alerts.", alerting.events.load(Relaxed)),
    ]
}

/// Processor time in seconds and resident bytes, as far as they are known.
pub(crate) fn cost() -> (Option<f64>, Option<f64>) {
    let (cpu, memory) = process_cost();
    (cpu.value(Resolution::CENTI).ok(), memory.value(Resolution::ONE).ok())
}

fn of_process() -> Vec<OwnCount> {
    let (cpu, memory) = process_cost();
    let (cpu_help, memory_help) = ("Processor time of the collector.", "Resident memory of the collector.");
    vec![
        ("belfry_collector_process_cpu_seconds_total", Kind::Counter, Resolution::CENTI, cpu_help, cpu),
        ("belfry_collector_process_resident_memory_bytes", Kind::Gauge, Resolution::ONE, memory_help, memory),
    ]
}

/// Processor time in hundredths of a second and resident bytes; missing where there is no `/proc`.
fn process_cost() -> (Raw, Raw) {
    let unsupported = Raw::missing(Reason::Unsupported);
    let time = std::fs::read_to_string("/proc/self/stat").ok().and_then(|text| {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_whitespace().skip(11);
        let (user, system): (i64, i64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Raw::integer(user.saturating_add(system)))
    });
    let memory = std::fs::read_to_string("/proc/self/statm").ok().and_then(|text| {
        let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
        Some(Raw::unsigned(pages.saturating_mul(rustix::param::page_size() as u64)))
    });
    (time.unwrap_or(unsupported), memory.unwrap_or(unsupported))
}
