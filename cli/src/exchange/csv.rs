//! CSV: a line of names, and a row for each sample.
//!
//! ```text
//! time,metric,labels,value,reason
//! 2026-11-23T14:03:27.000Z,gpu_power_watts,"{""gpu"":""3"",""instance"":""gpu-01""}",350.5,
//! 2026-11-23T14:03:28.000Z,gpu_power_watts,"{""gpu"":""3"",""instance"":""gpu-01""}",,lost
//! ```
//! As `belfry tail -o csv` has it. Rows of minutes and hours have `min,max,sum,count,last` in the place of `value`.

use std::io::Write as _;

use belfry_common::model::Metric;
use belfry_promql::{Labels, METRIC_NAME};
use belfry_store::{Sample, Tier};

use super::{LAST, ROW_COLUMNS, Sink, SinkError, Target, Written, put_number, reason_word};
use crate::{
    api,
    render::machine::{self, csv_row},
};

/// Writes CSV.
pub(super) struct Csv {
    target: Target,
    /// Of the series: metric and labels, ready to be written.
    series: Vec<u8>,
    line: Vec<u8>,
    written: Written,
}

impl Csv {
    pub(super) fn begin(mut target: Target, tier: Tier) -> Result<Self, SinkError> {
        let values = if tier == Tier::Raw { "value".to_owned() } else { ROW_COLUMNS.join(",") };
        writeln!(target, "time,metric,labels,{values},reason")?;
        Ok(Self { target, series: Vec::new(), line: Vec::new(), written: Written::default() })
    }
}

impl Sink for Csv {
    fn series(&mut self, metric: &Metric, labels: &Labels) -> Result<(), SinkError> {
        let labels: serde_json::Map<_, _> = labels
            .iter()
            .filter(|(name, _)| *name != METRIC_NAME)
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        let json = machine::json(&serde_json::Value::Object(labels).to_string());
        let row = csv_row(&[metric.name.to_string(), json.trim_end().to_owned()]);
        self.series = row.map_err(std::io::Error::other)?.trim_end().as_bytes().to_vec();
        Ok(())
    }

    fn samples(&mut self, columns: &[Vec<Sample>]) -> Result<(), SinkError> {
        let Some(last) = columns.get(LAST).or(columns.first()) else { return Ok(()) };
        for (place, sample) in last.iter().enumerate() {
            let line = &mut self.line;
            line.clear();
            line.extend_from_slice(api::time(sample.time).as_bytes());
            line.push(b',');
            line.extend_from_slice(&self.series);
            for column in columns {
                line.push(b',');
                if let Some(Sample { value: Ok(value), .. }) = column.get(place) {
                    put_number(*value, line)?;
                }
            }
            line.push(b',');
            // Of a sum that no number holds, too.
            let missing = columns.iter().rev().find_map(|column| column.get(place)?.value.err());
            line.extend_from_slice(missing.map_or("", reason_word).as_bytes());
            line.push(b'\n');
            self.target.write_all(line)?;
        }
        self.written.samples += last.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(Target, Written), SinkError> {
        Ok((self.target, self.written))
    }
}
