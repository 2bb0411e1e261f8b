//! Samples in the formats of other programs: what goes out by `belfry store export`, and comes in by `belfry store import`.
//!
//! A [`Sink`] is told one series after the other, each in stretches of time, and writes as it is told; an [`Intake`] is told what a file has, as
//! it is read. Nothing is gathered here. Absent: which series these are, and what becomes of them in the store.

mod csv;
mod intake;
mod open_metrics;
mod parquet_file;
mod target;

use std::io;

use belfry_common::model::{Metric, Reason};
use belfry_promql::Labels;
use belfry_store::{Sample, Tier};
use thiserror::Error;

pub(crate) use intake::{Intake, SeriesText, read};
pub(crate) use target::Target;

/// A format of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns, for DuckDB, pandas and their like
    Parquet,
    /// A row for each sample, its labels as JSON
    Csv,
    /// The text that Prometheus reads and writes
    #[value(name = "openmetrics")]
    OpenMetrics,
}

impl Format {
    /// The format that a file of this name has by custom.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            parquet_file::EXTENSION => Some(Self::Parquet),
            "csv" => Some(Self::Csv),
            "om" | "openmetrics" | "prom" | "txt" => Some(Self::OpenMetrics),
            _ => None,
        }
    }

    /// Whether it has room for the columns of a row.
    pub(crate) fn has_rows(self) -> bool {
        self != Self::OpenMetrics
    }
}

/// What could not be written.
#[derive(Debug, Error)]
pub(crate) enum SinkError {
    /// By the system.
    #[error("failed to write")]
    Write(#[from] io::Error),
    /// By the library of the format.
    #[error("failed to write")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What became of samples in a format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Samples or rows.
    pub(crate) samples: u64,
    /// Readings that are not in it, because the format has no word for what is missing.
    pub(crate) left_out: u64,
}

/// Takes in series, each once, and writes them.
pub(crate) trait Sink {
    /// Begins a series. Those of one metric follow each other.
    fn series(&mut self, metric: &Metric, labels: &Labels) -> Result<(), SinkError>;

    /// Writes samples of it, or rows, column by column. Times ascend from call to call.
    fn samples(&mut self, columns: &[Vec<Sample>]) -> Result<(), SinkError>;

    /// Writes what comes last, and gives the target back.
    fn finish(self: Box<Self>) -> Result<(Target, Written), SinkError>;
}

/// The sink of a format.
pub(crate) fn sink(format: Format, tier: Tier, target: Target) -> Result<Box<dyn Sink>, SinkError> {
    Ok(match format {
        Format::Parquet => Box::new(parquet_file::Writer::begin(target, tier)?),
        Format::Csv => Box::new(csv::Csv::begin(target, tier)?),
        Format::OpenMetrics => Box::new(open_metrics::Writer::new(target)),
    })
}

/// The columns of rows, in the order of [`belfry_store::Aggregate::ALL`].
const ROW_COLUMNS: [&str; 5] = ["min", "max", "sum", "count", "last"];
/// Where the last value stands: it says why a row has none.
const LAST: usize = 4;

/// The word for what is instead of a value.
fn reason_word(reason: Option<Reason>) -> &'static str {
    reason.map_or(ENDED, Reason::as_str)
}

/// The series ended: its group was sampled without it.
const ENDED: &str = "ended";

/// Appends a number so that it is read back as it was: as few digits as that takes.
fn put_number(value: f64, out: &mut Vec<u8>) -> io::Result<()> {
    use io::Write as _;
    // Beyond that plain digits are hundreds.
    if value == 0.0 || (1e-6..1e17).contains(&value.abs()) {
        write!(out, "{value}")
    } else if value.is_finite() {
        write!(out, "{value:e}")
    } else if value.is_nan() {
        out.write_all(b"NaN")
    } else {
        out.write_all(if value > 0.0 { b"+Inf" } else { b"-Inf" })
    }
}

#[cfg(test)]
mod tests;
