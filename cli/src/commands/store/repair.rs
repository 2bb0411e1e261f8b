//! `belfry store repair`: what is damaged goes aside, so that a collector starts on the rest, with a word on what is lost.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use anyhow::Context as _;
use belfry_common::{
    error_chain::ErrorChain,
    journal::{Damage, DamageKind, Evidence, Position, Torn, segment_name},
    model::Timestamp,
};
use belfry_store::{BlockError, Keys, LostBlock, RepairError, RepairProgress, Repaired, repair};
use serde::{Deserialize, Serialize};

use super::{print, progress, second};
use crate::{
    api,
    exit::note,
    render::{
        Look,
        listing::Listed,
        machine::field,
        output::{Format, Output},
        style::Style,
        table::{Cell, Column, Fit, Table},
        units::{bytes, count},
    },
};

/// Repairs until it is done or told to stop; whether all that is damaged could be moved aside.
pub(super) fn run((data, keys): (&Path, &Keys), output: Output, stop: &AtomicBool) -> anyhow::Result<bool> {
    let bar = progress(0, "checking");
    let done = |read: usize| {
        bar.inc(read as u64);
        if stop.load(Relaxed) { Err(BlockError::Stopped) } else { Ok(()) }
    };
    let repaired = repair(data, keys, RepairProgress { found: &|bytes| bar.inc_length(bytes), done: &done });
    bar.finish_and_clear();
    let repaired = repaired.map_err(|error| match error {
        RepairError::Block(BlockError::Stopped) => anyhow::anyhow!("interrupted"),
        error => error.into(),
    });
    let repaired = repaired.context("the store is not repaired")?;
    let rows = rows(&repaired);
    if rows.is_empty() && output.format == Format::Table {
        let bytes_all: u64 = repaired.blocks.iter().map(|block| block.bytes).sum();
        let blocks = count(repaired.blocks.len(), "block");
        output.print(&format!("{blocks}, {}, and the journal: nothing to mend\n", bytes(bytes_all as f64)))?;
    } else {
        print(&rows, &output)?;
    }
    if !repaired.lost.is_empty() {
        note("a backup may have these blocks: put their files back into `blocks/`, and repair again");
    }
    Ok(!repaired.journal.damages.iter().any(|damage| damage.evidence == Evidence::InPlace))
}

/// What was found, and what was done about it.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    /// `block` or `journal`.
    what: String,
    file: String,
    found: String,
    done: String,
    tier: Option<String>,
    first: Option<String>,
    last: Option<String>,
    series: Option<u64>,
    samples: Option<u64>,
    bytes: Option<u64>,
    /// Tiers that have something of every hour of it.
    covered_by: Vec<String>,
}

impl Row {
    fn new(what: &str, file: String, found: &str, done: &str) -> Self {
        Self {
            what: what.to_owned(),
            file,
            found: found.to_owned(),
            done: done.to_owned(),
            tier: None,
            first: None,
            last: None,
            series: None,
            samples: None,
            bytes: None,
            covered_by: Vec::new(),
        }
    }
}

fn rows(repaired: &Repaired) -> Vec<Row> {
    let mut rows: Vec<Row> = repaired.lost.iter().map(of_lost).collect();
    let removed = |name: &String, found| Row::new("block", name.clone(), found, "removed");
    rows.extend(repaired.unfinished.iter().map(|name| removed(name, "it was never finished")));
    rows.extend(repaired.replaced.iter().map(|name| removed(name, "another block has all that is in it")));
    rows.extend(repaired.journal.damages.iter().map(of_damage));
    rows.extend(repaired.journal.torn.map(of_torn));
    rows
}

fn of_lost(lost: &LostBlock) -> Row {
    let found = ErrorChain(&lost.why).to_string();
    let row = Row::new("block", lost.name.clone(), &found, "moved to blocks/quarantine");
    let row = Row { bytes: Some(lost.bytes), ..row };
    let Some(summary) = &lost.summary else { return row };
    let time = |ms| Some(api::time(Timestamp::from_millis(ms)));
    Row {
        tier: Some(summary.tier.as_str().to_owned()),
        first: time(summary.first_ms),
        last: time(summary.last_ms),
        series: Some(summary.series),
        samples: Some(summary.readings),
        covered_by: lost.covered_by.iter().map(|tier| tier.as_str().to_owned()).collect(),
        ..row
    }
}

fn of_torn(Torn { position, bytes }: Torn) -> Row {
    let found = match position.offset {
        0 => "its creation was interrupted".to_owned(),
        offset => format!("a write of {bytes} bytes at {offset} was interrupted"),
    };
    let done = if position.offset == 0 { "completed" } else { "cut off" };
    Row::new("journal", segment_name(position.segment), &found, done)
}

fn of_damage(Damage { position: Position { segment, offset }, kind, evidence }: &Damage) -> Row {
    let found = match kind {
        DamageKind::Header => "it does not begin as one: nothing of it can be read".to_owned(),
        DamageKind::Record => format!("what comes from {offset} on is damaged"),
        DamageKind::Hole => {
            format!("from {offset} on something is missing: a loss of power, or damage to what was written last")
        }
        DamageKind::Shortened => format!("it ends at {offset}, and was longer"),
        DamageKind::Unreadable => format!("the disk does not give what comes from {offset} on"),
        DamageKind::Missing { through } => format!("the segments from this one to {through:016x} are missing"),
    };
    let done = match evidence {
        Evidence::Quarantined(name) => format!("kept as journal/quarantine/{name}; what is before is served"),
        Evidence::InPlace => "left where it is: it could not be moved; what is before is served".to_owned(),
        Evidence::Nothing => "nothing: there is nothing left of it".to_owned(),
    };
    Row::new("journal", segment_name(*segment), &found, &done)
}

const COLUMNS: &[Column] = &[
    Column::left("FILE", Fit::Always),
    Column::left("FOUND", Fit::Flexible(30)),
    Column::left("DONE", Fit::Flexible(20)),
    Column::left("TIER", Fit::Droppable),
    Column::left("FROM", Fit::Droppable),
    Column::left("TO", Fit::Droppable),
    Column::right("SERIES", Fit::Droppable),
    Column::right("SAMPLES", Fit::Droppable),
    Column::left("COVERED BY", Fit::Droppable),
];

impl Listed for Row {
    const CSV_NAMES: &'static [&'static str] =
        &["what", "file", "found", "done", "tier", "first", "last", "series", "samples", "bytes", "covered_by"];

    fn csv_row(&self) -> Vec<String> {
        let [tier, first, last] = [&self.tier, &self.first, &self.last].map(|text| field(text.as_deref()));
        let [series, samples, bytes] = [self.series, self.samples, self.bytes].map(field);
        let [what, file, found, done] = [&self.what, &self.file, &self.found, &self.done].map(String::clone);
        vec![what, file, found, done, tier, first, last, series, samples, bytes, self.covered_by.join(" ")]
    }

    fn table(list: &[Self], look: &Look) -> String {
        let rows = list.iter().map(|row| {
            let number = |number: Option<u64>| Cell::known(number.map(|number| number.to_string()));
            let time = |time: &Option<String>| Cell::known(time.as_deref().map(second));
            vec![
                Cell::plain(&row.file),
                Cell::new(&row.found, Style::Bad),
                Cell::plain(&row.done),
                Cell::known(row.tier.clone()),
                time(&row.first),
                time(&row.last),
                number(row.series),
                number(row.samples),
                Cell::known(Some(row.covered_by.join(" ")).filter(|tiers| !tiers.is_empty())),
            ]
        });
        Table { columns: COLUMNS, rows: rows.collect() }.render(look)
    }
}
