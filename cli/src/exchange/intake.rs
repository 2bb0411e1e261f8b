//! What files say of series and samples, whatever their format.

use std::{collections::HashMap, io, path::Path, sync::Arc};

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

/// Bytes of texts that are remembered of a file, with some for each to find it again: four million series of 200 bytes.
const KNOWN_BYTES_MAX: usize = 1 << 30;
const BYTES_PER_KNOWN: usize = 64;

/// The numbers of a file's series by what the file calls them; a file in which there is no end of them is refused.
#[derive(Debug)]
pub(super) struct KnownSeries {
    numbers: HashMap<Box<[u8]>, Option<u32>>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for KnownSeries {
    fn default() -> Self {
        Self { numbers: HashMap::new(), bytes: 0, bytes_max: KNOWN_BYTES_MAX }
    }
}

impl KnownSeries {
    /// The number of a series, if it has come before; none in it if it is not wanted.
    pub(super) fn get(&self, text: &[u8]) -> Option<Option<u32>> {
        self.numbers.get(text).copied()
    }

    /// Remembers a series.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn insert(&mut self, text: &[u8], number: Option<u32>) -> Result<(), String> {
        self.bytes += text.len() + BYTES_PER_KNOWN;
        if self.bytes > self.bytes_max {
            return Err(format!(
                "the labels of its series take more than {} MiB: import a part of the metrics at a time",
                self.bytes_max >> 20
            ));
        }
        self.numbers.insert(text.into(), number);
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_series_are_remembered_up_to_a_limit() {
        let mut known = KnownSeries { bytes_max: 2 * (BYTES_PER_KNOWN + 1), ..KnownSeries::default() };
        assert_eq!(known.insert(b"a", Some(7)), Ok(()));
        assert_eq!(known.insert(b"b", None), Ok(()));
        assert_eq!((known.get(b"a"), known.get(b"b"), known.get(b"c")), (Some(Some(7)), Some(None), None));
        assert!(known.insert(b"c", Some(8)).unwrap_err().contains("a part of the metrics"));
    }
}
