//! The fleet at a glance: one line a node, one block per GPU, what is wrong first.

use std::{collections::HashMap, iter};

use super::{
    Look,
    alert::StandingAlert,
    style::Style,
    table::{Cell, Column, Fit, Span, Table},
    units::{age_of, bytes_of, celsius, clock, count, decimal, percent, rates},
};
use crate::api::{GpuStatus, NodeStatus, StatusDocument};

/// From which share on a memory or file system deserves attention, and help.
pub(super) const FULL: (f64, f64) = (0.9, 0.97);
/// Data-centre GPUs slow down from about 85 to 90 °C on.
pub(super) const HOT_CELSIUS: (f64, f64) = (80.0, 88.0);

const COLUMNS: &[Column] = &[
    Column::left("NODE", Fit::Name(32)),
    Column::left("STATE", Fit::Always),
    Column::right("CPU", Fit::Droppable),
    Column::right("MEM", Fit::Droppable),
    Column::left("GPUS", Fit::Droppable),
    Column::right("UTIL", Fit::Droppable),
    Column::right("GPU MEM", Fit::Droppable),
    Column::right("TEMP", Fit::Droppable),
    Column::right("POWER", Fit::Droppable),
    Column::right("NET ↓/↑", Fit::Droppable),
    Column::left("DISK", Fit::Droppable),
    Column::left("ALERTS", Fit::Flexible(20)),
];

/// Alerts about no single node that are shown above the table.
const FLEET_ALERTS_MAX: usize = 5;

/// The whole view: headline, alerts of the fleet as a whole, table.
pub(crate) fn view(document: &StatusDocument, alerts: &[StandingAlert], look: &Look) -> String {
    let mut out = headline(document, alerts, look);
    let firing_everywhere = alerts.iter().filter(|alert| alert.is_firing() && alert.node().is_none());
    for alert in firing_everywhere.take(FLEET_ALERTS_MAX) {
        let cell = Cell::new(&format!("{}: {}", alert.rule, alert.words()), alert.style());
        out.push_str(&cell.paint(look.width.unwrap_or(usize::MAX), look.is_colored));
        out.push('\n');
    }
    out.push('\n');
    if document.nodes.is_empty() {
        out.push_str("No node has joined yet. `belfry token create` makes the line to run on one.\n");
        return out;
    }
    let mut by_node: HashMap<&str, Vec<&StandingAlert>> = HashMap::new();
    for alert in alerts {
        if let Some(node) = alert.node() {
            by_node.entry(node).or_default().push(alert);
        }
    }
    by_node.values_mut().for_each(|alerts| alerts.sort_by_cached_key(|alert| alert.order()));
    let mut nodes: Vec<&NodeStatus> = document.nodes.iter().collect();
    nodes.sort_by_key(|node| (rank(node), &node.name));
    let rows = nodes.into_iter().map(|node| {
        let alerts = by_node.get(node.name.as_str()).map_or(&[][..], Vec::as_slice);
        row(node, alerts, look)
    });
    out.push_str(&Table { columns: COLUMNS, rows: rows.collect() }.render(look));
    out
}

/// What is wrong comes first.
fn rank(node: &NodeStatus) -> u8 {
    match node.state.as_str() {
        "down" => 0,
        "stale" => 1,
        _ if node.alerts.firing > 0 || node.gpus.iter().any(|gpu| gpu.state == "failed") => 2,
        "up" => 3,
        // A state of a newer collector: it is not "up", so it is shown early.
        _ => 1,
    }
}

fn row(node: &NodeStatus, alerts: &[&StandingAlert], look: &Look) -> Vec<Cell> {
    let gpus = Gpus::of(node);
    let has_gpus = !node.gpus.is_empty();
    // What is not up has only old values, which would be taken for present ones.
    let is_up = node.state == "up";
    let known = |text: Option<String>| Cell::known(text.filter(|_| is_up));
    let of_gpus = |text: Option<String>| if has_gpus { known(text) } else { Cell::default() };
    let memory = node.memory.used_bytes.zip(node.memory.total_bytes).filter(|_| is_up);
    let network = node.network.receive_bytes_per_second.zip(node.network.transmit_bytes_per_second);
    let temperature = gpus.temperature_max.filter(|_| is_up);
    vec![
        Cell::plain(&node.name),
        Cell::new(&state(node, look), state_style(&node.state)),
        known(node.cpu.utilization_ratio.map(percent)),
        memory.map_or_else(
            || known(None),
            |(used, total)| Cell::new(&memory_text(used, total), threshold(used / total, FULL)),
        ),
        glyphs(node),
        of_gpus(gpus.utilization.map(percent)),
        of_gpus(gpus.memory.map(|(used, total)| bytes_of(used, total))),
        temperature.map_or_else(|| of_gpus(None), |value| Cell::new(&celsius(value), threshold(value, HOT_CELSIUS))),
        of_gpus(gpus.power_watts.map(|watts| decimal(watts, "W"))),
        known(network.map(|(receive, transmit)| rates(receive, transmit))),
        disk(node, is_up),
        alerts_cell(node, alerts),
    ]
}

fn memory_text(used: f64, total: f64) -> String {
    format!("{} {:>3}", bytes_of(used, total), percent(used / total))
}

fn disk(node: &NodeStatus, is_up: bool) -> Cell {
    let Some(ratio) = node.disk.used_ratio_max.filter(|_| is_up) else { return Cell::known(None) };
    let style = threshold(ratio, FULL);
    let mountpoint = node.disk.mountpoint.as_deref().filter(|_| style != Style::Plain);
    let text = mountpoint.map_or_else(|| percent(ratio), |mountpoint| format!("{} {mountpoint}", percent(ratio)));
    Cell::new(&text, style)
}

pub(super) fn threshold(value: f64, (warning, bad): (f64, f64)) -> Style {
    Style::by_threshold(value, warning, bad)
}

/// `up`, `stale 8s`, `down 3h`
pub(super) fn state(node: &NodeStatus, look: &Look) -> String {
    let is_silent = matches!(node.state.as_str(), "stale" | "down");
    let silence = node.last_seen.as_deref().filter(|_| is_silent).and_then(|time| age_of(time, look.now));
    silence.map_or_else(|| node.state.clone(), |silence| format!("{} {silence}", node.state))
}

pub(crate) fn state_style(state: &str) -> Style {
    match state {
        "up" => Style::Good,
        "down" => Style::Bad,
        _ => Style::Warning,
    }
}

/// One block per GPU, as high as it is busy; `!` is degraded, `✗` has failed, of `?` nothing is known.
pub(super) fn glyphs(node: &NodeStatus) -> Cell {
    let is_up = node.state == "up";
    let glyph = |gpu: &GpuStatus| match (gpu.state.as_str(), gpu.utilization_ratio) {
        _ if !is_up => Span::new("?", Style::Dim),
        ("failed", _) => Span::new("✗", Style::Bad),
        ("ok", Some(ratio)) => Span::new(block(ratio), Style::Plain),
        ("degraded", _) => Span::new("!", Style::Warning),
        _ => Span::new("?", Style::Warning),
    };
    node.gpus.iter().map(glyph).collect()
}

fn block(ratio: f64) -> &'static str {
    match ratio * 7.0 {
        level if level < 1.0 => "▁",
        level if level < 2.0 => "▂",
        level if level < 3.0 => "▃",
        level if level < 4.0 => "▄",
        level if level < 5.0 => "▅",
        level if level < 6.0 => "▆",
        _ => "▇",
    }
}

/// What is wrong with the node, in the words of its most urgent alert.
fn alerts_cell(node: &NodeStatus, alerts: &[&StandingAlert]) -> Cell {
    let words = |alert: &StandingAlert| alert.words_beside_node().to_owned();
    let mut firing: Vec<_> = alerts.iter().filter(|alert| alert.is_firing()).collect();
    // What fired last is about why it is not up; what fired before is about what it was.
    if node.state != "up" {
        firing.sort_by(|a, b| b.fired_at.cmp(&a.fired_at));
    }
    match firing.split_first() {
        Some((first, [])) => Cell::new(&words(first), first.style()),
        Some((first, more)) => Cell::new(&format!("{} (+{})", words(first), more.len()), first.style()),
        None if node.state != "up" => Cell::new(why(node), Style::Dim),
        None => alerts
            .first()
            .map_or_else(Cell::default, |pending| Cell::new(&format!("pending: {}", words(pending)), Style::Dim)),
    }
}

/// Why a node is not up, in words.
pub(super) fn why(node: &NodeStatus) -> &str {
    match node.reason.as_deref() {
        Some("awaited") => "not yet back",
        Some("never_seen") => "joined, never seen",
        Some("stopped") => "agent stopped",
        Some(reason) => reason,
        None => "",
    }
}

/// `3 nodes up, 1 stale · 32 GPUs: 31 ok, 1 failed · 2 alerts firing`, and the time at the right. Where there is no room for all of
/// it, it goes on in the next line.
fn headline(document: &StatusDocument, alerts: &[StandingAlert], look: &Look) -> String {
    let width = look.width.unwrap_or(usize::MAX);
    let beside_time = width.saturating_sub(clock(&document.time).len() + 2);
    let mut lines: Vec<Cell> = Vec::new();
    for part in Tally::of(document, alerts).parts() {
        let room = if lines.len() == 1 { beside_time } else { width };
        let separator = Cell::plain(" · ");
        match lines.last_mut().filter(|line| line.width() + separator.width() + part.width() <= room) {
            Some(line) => {
                line.append(separator);
                line.append(part);
            }
            None => lines.push(part),
        }
    }
    let mut lines = lines.iter();
    let first = lines.next().map_or_else(String::new, |line| with_time(line, &document.time, look));
    lines.fold(first, |text, line| text + &line.paint(width, look.is_colored) + "\n")
}

/// A line with the time of the document at its right end.
pub(super) fn with_time(cell: &Cell, time: &str, look: &Look) -> String {
    let time = Cell::new(&clock(time), Style::Dim);
    let room = look.width.unwrap_or(0).saturating_sub(time.width());
    let words = cell.paint(look.width.map_or(usize::MAX, |_| room.saturating_sub(2)), look.is_colored);
    let gap = " ".repeat(room.saturating_sub(cell.width()).max(2));
    format!("{words}{gap}{}\n", time.paint(usize::MAX, look.is_colored))
}

/// The fleet in figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) up: usize,
    pub(crate) stale: usize,
    pub(crate) down: usize,
    pub(crate) gpus: usize,
    pub(crate) gpus_ok: usize,
    pub(crate) gpus_degraded: usize,
    pub(crate) gpus_failed: usize,
    pub(crate) firing: usize,
    pub(crate) pending: usize,
}

impl Tally {
    pub(crate) fn of(document: &StatusDocument, alerts: &[StandingAlert]) -> Self {
        let mut tally = Self::default();
        document.nodes.iter().for_each(|node| tally.add(node));
        tally.firing = alerts.iter().filter(|alert| alert.is_firing()).count();
        tally.pending = alerts.len() - tally.firing;
        tally
    }

    /// Counts a node. Of the GPUs of one that is not up nothing is known now.
    pub(crate) fn add(&mut self, node: &NodeStatus) {
        match node.state.as_str() {
            "up" => self.up += 1,
            "down" => self.down += 1,
            _ => self.stale += 1,
        }
        let known = |state: &str| node.gpus.iter().filter(|gpu| node.state == "up" && gpu.state == state).count();
        self.gpus += node.gpus.len();
        self.gpus_ok += known("ok");
        self.gpus_degraded += known("degraded");
        self.gpus_failed += known("failed");
    }

    /// GPUs of which nothing is known now.
    pub(crate) fn gpus_unknown(&self) -> usize {
        self.gpus - self.gpus_ok - self.gpus_degraded - self.gpus_failed
    }

    /// In words: what there is of nodes, GPUs and alerts.
    fn parts(&self) -> Vec<Cell> {
        let nodes = listed(&[
            (true, format!("{} up", count(self.up, "node")), Style::Plain),
            (self.stale > 0, format!("{} stale", self.stale), Style::Warning),
            (self.down > 0, format!("{} down", self.down), Style::Bad),
        ]);
        let unknown = self.gpus_unknown();
        let gpus = listed(&[
            (self.gpus > 0, format!("{}: {} ok", count(self.gpus, "GPU"), self.gpus_ok), Style::Plain),
            (self.gpus_degraded > 0, format!("{} degraded", self.gpus_degraded), Style::Warning),
            (self.gpus_failed > 0, format!("{} failed", self.gpus_failed), Style::Bad),
            (unknown > 0, format!("{unknown} unknown"), Style::Plain),
        ]);
        let firing = listed(&[(self.firing > 0, format!("{} firing", count(self.firing, "alert")), Style::Bad)]);
        let pending = listed(&[(self.pending > 0, format!("{} pending", self.pending), Style::Plain)]);
        [nodes, gpus, firing, pending].into_iter().filter(|part| part.width() > 0).collect()
    }
}

/// Those that there are, with commas between.
fn listed(all: &[(bool, String, Style)]) -> Cell {
    let shown = all.iter().filter(|(is_shown, ..)| *is_shown);
    let gaps = iter::once("").chain(iter::repeat(", "));
    shown
        .zip(gaps)
        .flat_map(|((_, text, style), gap)| [Span::new(gap, Style::Plain), Span::new(text, *style)])
        .collect()
}

/// A node's GPUs together. Each figure is over those that gave it; none is made up.
#[derive(Debug, Default)]
pub(crate) struct Gpus {
    /// The mean.
    pub(crate) utilization: Option<f64>,
    /// Used and total, of those that gave both.
    pub(crate) memory: Option<(f64, f64)>,
    pub(crate) temperature_max: Option<f64>,
    pub(crate) power_watts: Option<f64>,
}

impl Gpus {
    pub(crate) fn of(node: &NodeStatus) -> Self {
        let gpus = || node.gpus.iter();
        let utilizations: Vec<f64> = gpus().filter_map(|gpu| gpu.utilization_ratio).collect();
        let memory = gpus().filter_map(|gpu| gpu.memory_used_bytes.zip(gpu.memory_total_bytes));
        let sum = |values: Vec<f64>| (!values.is_empty()).then(|| values.iter().sum::<f64>());
        Self {
            utilization: sum(utilizations.clone()).map(|sum| sum / utilizations.len() as f64),
            memory: memory.reduce(|sum, gpu| (sum.0 + gpu.0, sum.1 + gpu.1)),
            temperature_max: gpus().filter_map(|gpu| gpu.temperature_celsius).reduce(f64::max),
            power_watts: sum(gpus().filter_map(|gpu| gpu.power_watts).collect()),
        }
    }
}
