//! Parquet: the only place that names its crate.
//!
//! ```text
//! time    TIMESTAMP(ms, UTC)         the beginning, for rows
//! metric  STRING
//! labels  MAP<STRING, STRING>
//! value   DOUBLE, may be null        for rows: min, max, sum, count, last
//! reason  STRING, may be null        why there is no value
//! ```
//! Beside that the file says of each metric what a program cannot see from its samples: under the key `belfry:metrics` a JSON list of objects
//! with `name`, `labels` in their order, `kind`, `digits` (of the decimal resolution; null for floats) and `help`.

mod read;
mod write;

use std::sync::Arc;

use belfry_common::{
    limits,
    model::{Kind, Metric, Resolution, check_label_name, check_metric_name},
};
use belfry_store::Tier;
use parquet::{
    errors::ParquetError,
    schema::{parser::parse_message_type, types::TypePtr},
};
use serde::{Deserialize, Serialize};

pub(super) use read::read;
pub(super) use write::Writer;

use super::{ROW_COLUMNS, SinkError};

/// How files are called.
pub(super) const EXTENSION: &str = "parquet";

/// The key of what is said of the metrics.
const METRICS: &str = "belfry:metrics";

impl From<ParquetError> for SinkError {
    fn from(error: ParquetError) -> Self {
        Self::Encode(Box::new(error))
    }
}

/// The columns of a file.
fn schema(tier: Tier) -> Result<TypePtr, ParquetError> {
    let values: &[&str] = if tier == Tier::Raw { &["value"] } else { &ROW_COLUMNS };
    let values: String = values.iter().map(|name| format!("OPTIONAL DOUBLE {name};\n")).collect();
    let message = format!(
        "message belfry {{
            REQUIRED INT64 time (TIMESTAMP(MILLIS,true));
            REQUIRED BYTE_ARRAY metric (STRING);
            REQUIRED GROUP labels (MAP) {{
                REPEATED GROUP key_value {{
                    REQUIRED BYTE_ARRAY key (STRING);
                    REQUIRED BYTE_ARRAY value (STRING);
                }}
            }}
            {values}
            OPTIONAL BYTE_ARRAY reason (STRING);
        }}"
    );
    parse_message_type(&message).map(Arc::new)
}

/// What a file says of a metric.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Description {
    name: String,
    labels: Vec<String>,
    kind: KindWord,
    digits: Option<u8>,
    help: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindWord {
    Counter,
    Gauge,
    Info,
}

impl Description {
    fn of(metric: &Metric) -> Self {
        Self {
            name: metric.name.to_string(),
            labels: metric.label_names.iter().map(ToString::to_string).collect(),
            kind: match metric.kind {
                Kind::Counter => KindWord::Counter,
                Kind::Gauge => KindWord::Gauge,
                Kind::Info => KindWord::Info,
            },
            digits: match metric.resolution {
                Resolution::Decimal(digits) => Some(digits),
                Resolution::Float => None,
            },
            help: metric.help.to_string(),
        }
    }

    /// The metric, checked as one that a node declares.
    fn metric(&self) -> Result<Metric, String> {
        let kind = match self.kind {
            KindWord::Counter => Kind::Counter,
            KindWord::Gauge => Kind::Gauge,
            KindWord::Info => Kind::Info,
        };
        let resolution = match self.digits {
            Some(digits) if digits > Resolution::DIGITS_MAX => return Err(format!("{digits} digits are too many")),
            Some(digits) => Resolution::Decimal(digits),
            None => Resolution::Float,
        };
        if self.labels.len() > limits::LABELS_PER_METRIC_MAX || self.help.len() > limits::HELP_BYTES_MAX {
            return Err("a metric has too many labels, or too long a help".to_owned());
        }
        check_metric_name(&self.name).map_err(|error| error.to_string())?;
        self.labels.iter().try_for_each(|name| check_label_name(name)).map_err(|error| error.to_string())?;
        let labels: Vec<&str> = self.labels.iter().map(String::as_str).collect();
        Ok(Metric::new(&self.name, kind, resolution, &labels, &self.help))
    }
}
