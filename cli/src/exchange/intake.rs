//! What files say of series and samples, whatever their format.

use std::{io, path::Path, sync::Arc};

use belfry_common::{
    limits,
    model::{Kind, Metric, Timestamp, check_label_name, check_label_value, check_metric_name},
};
use thiserror::Error;

/// Takes in what a file has.
pub(crate) trait Intake {
    /// Notes a series, which has been checked, and gives the number of its samples; none if they are not wanted.
    ///
    /// # Errors
    /// Why the file cannot be taken in.
    fn series(&mut self, series: &SeriesText) -> anyhow::Result<Option<u32>>;

    /// Takes in a sample of it.
    ///
    /// # Errors
    /// As [`Self::series`].
    fn sample(&mut self, series: u32, sample: belfry_store::Sample) -> anyhow::Result<()>;
}

/// A series as a file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeriesText {
    pub(crate) metric: String,
    /// Without empty ones, sorted by name, each name once.
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) kind: Kind,
    pub(crate) help: String,
    /// How the metric was declared, if the file knows; the newest last.
    pub(crate) declared: Vec<Arc<Metric>>,
}

/// A file that cannot be taken in, with what to do about it.
#[derive(Debug, Error)]
pub(crate) enum FileError {
    /// The system does not give it.
    #[error("failed to read it")]
    Read(#[from] io::Error),
    /// A line of text is not as it should be.
    #[error("line {line}: {what}")]
    Line {
        /// Which, from 1.
        line: u64,
        /// What is wrong, and what to do.
        what: String,
    },
    /// Something else is not as it should be.
    #[error("{0}")]
    Content(String),
}

impl SeriesText {
    /// Puts labels in order and checks all that the store bounds.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn new(metric: &str, mut labels: Vec<(String, String)>, kind: Kind, help: &str) -> Result<Self, String> {
        check_metric_name(metric).map_err(|error| error.to_string())?;
        if labels.len() > limits::LABELS_PER_METRIC_MAX {
            return Err(format!("{} labels are more than {}", labels.len(), limits::LABELS_PER_METRIC_MAX));
        }
        for (name, value) in &labels {
            check_label_name(name).map_err(|error| error.to_string())?;
            check_label_value(value).map_err(|error| format!("label `{name}`: {error}"))?;
        }
        labels.sort_unstable();
        if let Some([(name, _), _]) = labels.array_windows().find(|[(a, _), (b, _)]| a == b) {
            return Err(format!("label `{name}` stands there twice"));
        }
        labels.retain(|(_, value)| !value.is_empty());
        let end = help.floor_char_boundary(limits::HELP_BYTES_MAX);
        let help = help.get(..end).unwrap_or_default().to_owned();
        Ok(Self { metric: metric.to_owned(), labels, kind, help, declared: Vec::new() })
    }

    /// For messages: `name{label="value"}`.
    pub(crate) fn text(&self) -> String {
        let labels: Vec<String> = self.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        format!("{}{{{}}}", self.metric, labels.join(","))
    }
}

/// The time of so many seconds since 1970, to the millisecond.
pub(super) fn time_of(seconds: f64) -> Option<Timestamp> {
    let millis = (seconds * 1000.0).round();
    // The year 5138: beyond that it was milliseconds.
    (millis.abs() < 1e14).then(|| Timestamp::from_millis(millis as i64))
}

/// Reads a file in this format, and says how many bytes were read as it goes.
pub(crate) fn read(
    format: super::Format,
    path: &Path,
    intake: &mut dyn Intake,
    progress: &dyn Fn(u64),
) -> anyhow::Result<()> {
    match format {
        super::Format::OpenMetrics => {
            let file = io::BufReader::with_capacity(256 * 1024, std::fs::File::open(path)?);
            super::open_metrics::read(file, intake, progress)
        }
        super::Format::Parquet => super::parquet_file::read(path, intake, progress),
        super::Format::Csv => Err(FileError::Content(
            "CSV is for people and spreadsheets, and cannot be imported: export as Parquet or OpenMetrics".to_owned(),
        )
        .into()),
    }
}
