//! Writing Parquet, one group of rows after the other.

use std::sync::Arc;

use belfry_common::model::Metric;
use belfry_promql::{Labels, METRIC_NAME};
use belfry_store::{Sample, Tier};
use parquet::{
    basic::{Compression, Encoding},
    data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::types::ColumnPath,
};

use super::{Description, METRICS, schema};
use crate::exchange::{LAST, Sink, SinkError, Target, Written, reason_word};

/// Rows that are in memory, and in one group of the file: readers work on groups side by side, and skip those of other times or metrics.
const ROWS_PER_GROUP: usize = 256 * 1024;
/// Labels that are handed on at once.
const LABELS_AT_ONCE: usize = 16 * 1024;

/// Writes a Parquet file.
pub(in crate::exchange) struct Writer {
    file: SerializedFileWriter<Target>,
    /// Of each metric that has come, each once.
    descriptions: Vec<Description>,
    group: Group,
    written: Written,
}

/// Rows that are not written yet.
#[derive(Default)]
struct Group {
    /// Series with how many rows of them there are; the last is the one that is open.
    runs: Vec<(Series, usize)>,
    times: Vec<i64>,
    columns: Vec<Vec<Option<f64>>>,
    reasons: Vec<Option<&'static str>>,
}

#[derive(Clone)]
struct Series {
    metric: ByteArray,
    labels: Arc<[(ByteArray, ByteArray)]>,
}

impl Writer {
    pub(in crate::exchange) fn begin(target: Target, tier: Tier) -> Result<Self, SinkError> {
        let properties = WriterProperties::builder()
            .set_created_by(concat!("belfry ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_column_dictionary_enabled(ColumnPath::from("time"), false)
            .set_column_encoding(ColumnPath::from("time"), Encoding::DELTA_BINARY_PACKED)
            .build();
        let file = SerializedFileWriter::new(target, schema(tier)?, Arc::new(properties))?;
        let columns = if tier == Tier::Raw { 1 } else { LAST + 1 };
        let group = Group { columns: vec![Vec::new(); columns], ..Group::default() };
        Ok(Self { file, descriptions: Vec::new(), group, written: Written::default() })
    }

    fn describe(&mut self, metric: &Metric) {
        let description = Description::of(metric);
        // Metrics come one after the other, and have few definitions each.
        let mut known = self.descriptions.iter().rev().take_while(|known| known.name == description.name);
        if !known.any(|known| *known == description) {
            self.descriptions.push(description);
        }
    }
}

impl Sink for Writer {
    fn series(&mut self, metric: &Metric, labels: &Labels) -> Result<(), SinkError> {
        self.describe(metric);
        let labels = labels.iter().filter(|(name, _)| *name != METRIC_NAME);
        let labels = labels.map(|(name, value)| (ByteArray::from(name), ByteArray::from(value))).collect();
        self.group.runs.push((Series { metric: ByteArray::from(&*metric.name), labels }, 0));
        Ok(())
    }

    fn samples(&mut self, columns: &[Vec<Sample>]) -> Result<(), SinkError> {
        let Some(last) = columns.get(LAST).or(columns.first()) else { return Ok(()) };
        for (place, sample) in last.iter().enumerate() {
            let group = &mut self.group;
            group.times.push(sample.time.as_millis());
            let mut missing = None;
            for (values, column) in group.columns.iter_mut().zip(columns) {
                let value = column.get(place).map_or(Err(None), |sample| sample.value);
                values.push(value.ok());
                // Of a sum that no number holds, too.
                missing = value.err().or(missing);
            }
            group.reasons.push(missing.map(reason_word));
            if let Some((_, rows)) = group.runs.last_mut() {
                *rows += 1;
            }
            if group.times.len() >= ROWS_PER_GROUP {
                group.write(&mut self.file)?;
            }
        }
        self.written.samples += last.len() as u64;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(Target, Written), SinkError> {
        if !self.group.times.is_empty() {
            self.group.write(&mut self.file)?;
        }
        let descriptions = serde_json::to_string(&self.descriptions).map_err(std::io::Error::other)?;
        self.file.append_key_value_metadata(KeyValue::new(METRICS.to_owned(), descriptions));
        Ok((self.file.into_inner()?, self.written))
    }
}

type RowGroup<'a> = SerializedRowGroupWriter<'a, Target>;

impl Group {
    /// Writes what there is, column by column, and begins anew with the series that is open.
    fn write(&mut self, file: &mut SerializedFileWriter<Target>) -> Result<(), ParquetError> {
        let mut out = file.next_row_group()?;
        column::<Int64Type>(&mut out, |put| put(&self.times, &[], &[]))?;
        self.write_metrics(&mut out)?;
        self.write_labels(&mut out, |(name, _)| name)?;
        self.write_labels(&mut out, |(_, value)| value)?;
        for values in &self.columns {
            let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
            let values: Vec<f64> = values.iter().copied().flatten().collect();
            column::<DoubleType>(&mut out, |put| put(&values, &levels, &[]))?;
        }
        let levels: Vec<i16> = self.reasons.iter().map(|reason| i16::from(reason.is_some())).collect();
        let reasons: Vec<ByteArray> = self.reasons.iter().flatten().map(|reason| ByteArray::from(*reason)).collect();
        column::<ByteArrayType>(&mut out, |put| put(&reasons, &levels, &[]))?;
        out.close()?;
        self.times.clear();
        self.columns.iter_mut().for_each(Vec::clear);
        self.reasons.clear();
        self.runs.drain(..self.runs.len().saturating_sub(1));
        self.runs.iter_mut().for_each(|(_, rows)| *rows = 0);
        Ok(())
    }

    fn write_metrics(&self, out: &mut RowGroup<'_>) -> Result<(), ParquetError> {
        let mut metrics = Vec::with_capacity(self.times.len());
        for (series, rows) in &self.runs {
            metrics.extend(std::iter::repeat_n(&series.metric, *rows).cloned());
        }
        column::<ByteArrayType>(out, |put| put(&metrics, &[], &[]))
    }

    /// Names or values: a row's first label begins its map, and a row without labels has an empty one.
    fn write_labels(
        &self,
        out: &mut RowGroup<'_>,
        part: impl Fn(&(ByteArray, ByteArray)) -> &ByteArray,
    ) -> Result<(), ParquetError> {
        column::<ByteArrayType>(out, |put| {
            let (mut texts, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
            for (series, rows) in &self.runs {
                for _ in 0..*rows {
                    texts.extend(series.labels.iter().map(&part).cloned());
                    let levels = series.labels.len().max(1);
                    defined.extend(std::iter::repeat_n(i16::from(!series.labels.is_empty()), levels));
                    repeated.extend((0..levels).map(|place| i16::from(place > 0)));
                    if repeated.len() >= LABELS_AT_ONCE {
                        put(&texts, &defined, &repeated)?;
                        texts.clear();
                        defined.clear();
                        repeated.clear();
                    }
                }
            }
            put(&texts, &defined, &repeated)
        })
    }
}

/// Appends values with their definition and repetition levels; none where a column has none.
type Put<'a, T> = &'a mut dyn FnMut(&[T], &[i16], &[i16]) -> Result<(), ParquetError>;

/// Writes the next column of a group.
fn column<T: DataType>(
    group: &mut RowGroup<'_>,
    write: impl FnOnce(Put<'_, T::T>) -> Result<(), ParquetError>,
) -> Result<(), ParquetError> {
    let column = group.next_column()?;
    let mut column = column.ok_or_else(|| ParquetError::General("the schema has fewer columns".to_owned()))?;
    let typed = column.typed::<T>();
    write(&mut |values, defined, repeated| {
        if values.is_empty() && defined.is_empty() {
            return Ok(());
        }
        let [defined, repeated] = [defined, repeated].map(|levels| Some(levels).filter(|levels| !levels.is_empty()));
        typed.write_batch(values, defined, repeated).map(|_| ())
    })?;
    column.close()
}
