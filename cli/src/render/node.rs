//! One node in full: how it is, its GPUs with what runs on them, and what is wrong.

use super::{
    Look,
    alert::{self, StandingAlert},
    fleet::{FULL, Gpus, HOT_CELSIUS, glyphs, state, state_style, threshold, why, with_time},
    style::Style,
    table::{Cell, Column, Fit, Span, Table},
    text::{escape, width as width_of, wrap},
    units::{MISSING, age_of, bytes, bytes_of, celsius, count, decimal, percent},
};
use crate::api::{GpuStatus, NodeStatus, StatusDocument};

const FACTS: &[Column] = &[Column::left("", Fit::Always), Column::left("", Fit::Flexible(20))];

const GPU_COLUMNS: &[Column] = &[
    Column::left("GPU", Fit::Always),
    Column::left("STATE", Fit::Always),
    Column::right("UTIL", Fit::Always),
    Column::right("MEMORY", Fit::Always),
    Column::right("TEMP", Fit::Always),
    Column::right("POWER", Fit::Always),
    Column::left("MODEL", Fit::Droppable),
    Column::left("UUID", Fit::Droppable),
];

const FILESYSTEM_COLUMNS: &[Column] = &[
    Column::left("DISK", Fit::Flexible(12)),
    Column::right("USED", Fit::Always),
    Column::right("AVAILABLE", Fit::Always),
    Column::right("SIZE", Fit::Always),
];

const PROCESS_COLUMNS: &[Column] = &[
    Column::left("GPU", Fit::Always),
    Column::right("PID", Fit::Always),
    Column::left("USER", Fit::Flexible(8)),
    Column::left("JOB", Fit::Flexible(8)),
    Column::right("UTIL", Fit::Always),
    Column::right("MEMORY", Fit::Always),
    Column::left("COMMAND", Fit::Flexible(16)),
];

/// The whole view of the first node of the document.
pub(crate) fn view(document: &StatusDocument, alerts: &[StandingAlert], look: &Look) -> String {
    let Some(node) = document.nodes.first() else { return String::new() };
    let mut head: Cell = [Span::new(&node.name, Style::Bold), Span::new("  ", Style::Plain)].into_iter().collect();
    head.push(Span::new(&state(node, look), state_style(&node.state)));
    if !why(node).is_empty() {
        head.push(Span::new(&format!(": {}", why(node)), Style::Plain));
    }
    let mut out = with_time(&head, &document.time, look);
    if node.state != "up" {
        out.push_str(&Style::Dim.paint("What follows is the last that it said.\n", look.is_colored));
    }
    out.push('\n');
    out.push_str(&facts(node, look));
    if !node.gpus.is_empty() {
        out.push('\n');
        out.push_str(&gpus(node, look));
    }
    if node.filesystems.len() > 1 {
        out.push('\n');
        out.push_str(&filesystems(node, look));
    }
    let processes = processes(node, look);
    if !processes.is_empty() {
        out.push('\n');
        out.push_str(&processes);
    }
    let own: Vec<StandingAlert> = alerts.iter().filter(|alert| alert.node() == Some(&node.name)).cloned().collect();
    if !own.is_empty() {
        out.push('\n');
        out.push_str(&alert::table(&own, look));
    }
    out
}

fn facts(node: &NodeStatus, look: &Look) -> String {
    let ago = |time: &Option<String>| time.as_deref().and_then(|time| age_of(time, look.now));
    let mut rows = vec![("CPU", cpu(node)), ("Memory", memory(node)), ("Disk", disk(node)), ("Network", network(node))];
    if !node.gpus.is_empty() {
        rows.push(("GPUs", gpus_together(node)));
    }
    rows.push(("Agent", agent(node)));
    rows.push(("Up for", Cell::known(ago(&node.boot_time))));
    rows.push(("Last seen", Cell::known(ago(&node.last_seen).map(|age| format!("{age} ago")))));
    let rows = rows.into_iter().map(|(title, value)| vec![Cell::new(title, Style::Bold), value]);
    let table = Table { columns: FACTS, rows: rows.collect() }.render(look);
    // The titles are on the left here, so that the line above them is empty.
    table.split_once('\n').map_or_else(String::new, |(_, rows)| rows.to_string())
}

fn cpu(node: &NodeStatus) -> Cell {
    let cores = node.cpu.cores.map(|cores| format!(" of {}", count(cores as usize, "core")));
    let busy = node.cpu.utilization_ratio.map(|ratio| format!("{}{}", percent(ratio), cores.unwrap_or_default()));
    let load = node.cpu.load1.map(|load| format!(", load {load:.2}"));
    Cell::known(busy.map(|busy| busy + &load.unwrap_or_default()))
}

fn memory(node: &NodeStatus) -> Cell {
    let Some((used, total)) = node.memory.used_bytes.zip(node.memory.total_bytes) else { return Cell::known(None) };
    Cell::new(&format!("{}, {}", percent(used / total), bytes_of(used, total)), threshold(used / total, FULL))
}

fn disk(node: &NodeStatus) -> Cell {
    let Some(ratio) = node.disk.used_ratio_max else { return Cell::known(None) };
    let mountpoint = node.disk.mountpoint.as_deref().unwrap_or(MISSING);
    Cell::new(&format!("{} of {mountpoint}, the fullest", percent(ratio)), threshold(ratio, FULL))
}

fn filesystems(node: &NodeStatus, look: &Look) -> String {
    let rows = node.filesystems.iter().map(|filesystem| {
        vec![
            Cell::plain(&filesystem.mountpoint),
            Cell::new(&percent(filesystem.used_ratio), threshold(filesystem.used_ratio, FULL)),
            Cell::plain(&bytes(filesystem.available_bytes)),
            Cell::plain(&bytes(filesystem.size_bytes)),
        ]
    });
    Table { columns: FILESYSTEM_COLUMNS, rows: rows.collect() }.render(look)
}

fn network(node: &NodeStatus) -> Cell {
    let rates = node.network.receive_bytes_per_second.zip(node.network.transmit_bytes_per_second);
    Cell::known(
        rates.map(|(receive, transmit)| format!("↓ {}  ↑ {}", decimal(receive, "B/s"), decimal(transmit, "B/s"))),
    )
}

fn gpus_together(node: &NodeStatus) -> Cell {
    let gpus = Gpus::of(node);
    let mut cell = glyphs(node);
    let mut push = |text: Option<String>| {
        if let Some(text) = text {
            cell.push(Span::new(&format!("  {text}"), Style::Plain));
        }
    };
    push(gpus.utilization.map(percent));
    push(gpus.memory.map(|(used, total)| bytes_of(used, total)));
    push(gpus.temperature_max.map(|hottest| format!("{} the hottest", celsius(hottest))));
    push(gpus.power_watts.map(|watts| decimal(watts, "W")));
    cell
}

fn agent(node: &NodeStatus) -> Cell {
    let own = env!("CARGO_PKG_VERSION");
    match node.agent_version.as_deref() {
        Some(version) if version.split(' ').next() != Some(own) => Cell::plain(&format!("{version} (this is {own})")),
        version => Cell::known(version.map(str::to_string)),
    }
}

fn gpus(node: &NodeStatus, look: &Look) -> String {
    let state = |gpu: &GpuStatus| match gpu.state.as_str() {
        "failed" => Cell::new("✗ failed", gpu_style(gpu)),
        "degraded" => Cell::new("! degraded", gpu_style(gpu)),
        other => Cell::new(other, gpu_style(gpu)),
    };
    let rows = node.gpus.iter().map(|gpu| {
        let memory = gpu.memory_used_bytes.zip(gpu.memory_total_bytes);
        let temperature = |value| Cell::new(&celsius(value), threshold(value, HOT_CELSIUS));
        vec![
            Cell::plain(&gpu.index),
            state(gpu),
            Cell::known(gpu.utilization_ratio.map(percent)),
            Cell::known(memory.map(|(used, total)| bytes_of(used, total))),
            gpu.temperature_celsius.map_or_else(|| Cell::known(None), temperature),
            Cell::known(gpu.power_watts.map(|watts| decimal(watts, "W"))),
            Cell::plain(gpu.model.as_deref().unwrap_or_default()),
            Cell::new(&gpu.uuid, Style::Dim),
        ]
    });
    Table { columns: GPU_COLUMNS, rows: rows.collect() }.render(look) + &causes(node, look)
}

/// Why GPUs are not ok: neighbours of which the same is said share a line.
fn causes(node: &NodeStatus, look: &Look) -> String {
    let index = |gpu: &GpuStatus| gpu.index.parse::<u32>().ok();
    let are_neighbours = |a: &GpuStatus, b: &GpuStatus| {
        index(a).and_then(|a| a.checked_add(1)).is_some_and(|next| index(b) == Some(next))
    };
    let alike = node.gpus.chunk_by(|a, b| are_neighbours(a, b) && (&a.state, &a.causes) == (&b.state, &b.causes));
    let mut out = String::new();
    for gpus in alike {
        let (Some(first), Some(last)) = (gpus.first(), gpus.last()) else { continue };
        if first.causes.is_empty() {
            continue;
        }
        let names = escape(&match gpus.len() {
            1 => format!("GPU {}: ", first.index),
            _ => format!("GPUs {} to {}: ", first.index, last.index),
        });
        let style = gpu_style(first);
        let room = look.width.map_or(usize::MAX, |width| width.saturating_sub(width_of(&names)));
        let lines = wrap(&first.causes.join("; "), room);
        for (line, text) in lines.iter().enumerate() {
            let before = if line == 0 { names.clone() } else { " ".repeat(width_of(&names)) };
            out.push_str(&format!("{before}{}\n", style.paint(&escape(text), look.is_colored)));
        }
    }
    out
}

fn gpu_style(gpu: &GpuStatus) -> Style {
    match gpu.state.as_str() {
        "ok" => Style::Good,
        "failed" => Style::Bad,
        _ => Style::Warning,
    }
}

/// What runs on the GPUs; empty if nothing does.
fn processes(node: &NodeStatus, look: &Look) -> String {
    let rows = node.gpus.iter().flat_map(|gpu| {
        gpu.processes.iter().map(|process| {
            vec![
                Cell::plain(&gpu.index),
                Cell::plain(&process.pid.to_string()),
                Cell::plain(&process.user),
                Cell::plain(process.job.as_deref().unwrap_or_default()),
                Cell::known(process.utilization_ratio.map(percent)),
                Cell::known(process.memory_bytes.map(bytes)),
                Cell::plain(&process.command),
            ]
        })
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() { String::new() } else { Table { columns: PROCESS_COLUMNS, rows }.render(look) }
}
