//! Reading Parquet that `belfry store export` wrote: these columns and no others.
//!
//! A row is put together from all columns; some thousand rows of them are in memory at once, besides the pages that they are in.

use std::{collections::HashMap, fs::File, path::Path, sync::Arc};

use belfry_common::model::{Kind, Metric, Reason, Timestamp};
use belfry_store::{Sample, Tier};
use parquet::{
    column::reader::{ColumnReaderImpl, get_typed_column_reader},
    data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type},
    errors::ParquetError,
    file::{
        metadata::ColumnChunkMetaData,
        reader::{FileReader as _, RowGroupReader, SerializedFileReader},
    },
};

use super::{Description, METRICS, schema};
use crate::exchange::{
    ENDED,
    intake::{FileError, Intake, KnownSeries, SeriesText},
};

/// Rows that are put together at once.
const ROWS_AT_ONCE: usize = 4096;
/// Bytes of one column of one group of rows, unpacked. Ours have a few million.
const COLUMN_BYTES_MAX: i64 = 1 << 30;
/// What is said of the metrics: some hundred bytes each.
const DESCRIPTIONS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Reads a file to its end.
///
/// # Errors
/// [`FileError`], or what the intake says.
pub(in crate::exchange) fn read(path: &Path, intake: &mut dyn Intake, progress: &dyn Fn(u64)) -> anyhow::Result<()> {
    let file = SerializedFileReader::new(File::open(path)?).map_err(unreadable)?;
    check_schema(&file)?;
    let declared = declared(&file)?;
    let mut rows = Rows { intake, declared, known: KnownSeries::default(), last: None };
    let mut bytes = 0;
    for number in 0..file.num_row_groups() {
        let group = file.get_row_group(number).map_err(unreadable)?;
        let columns = group.metadata().columns();
        if !columns.iter().all(is_plausible) {
            return Err(
                FileError::Content(format!("group {number} of its rows is damaged, or larger than 1 GiB")).into()
            );
        }
        let (at, part) = (bytes, group.metadata().compressed_size().try_into().unwrap_or(0_u64));
        let all = group.metadata().num_rows().max(1) as u64;
        rows.group(&*group, &|done| progress(at + part * done.min(all) / all))?;
        bytes += part;
        progress(bytes);
    }
    Ok(())
}

fn unreadable(error: ParquetError) -> anyhow::Error {
    anyhow::Error::new(error).context("it cannot be read as Parquet")
}

/// Whether a column is where it can be, and not larger than is read: the library takes that for granted.
fn is_plausible(column: &ColumnChunkMetaData) -> bool {
    let offsets = [Some(column.data_page_offset()), column.dictionary_page_offset()];
    let sizes = [column.compressed_size(), column.uncompressed_size()];
    offsets.into_iter().flatten().all(|offset| offset >= 0)
        && sizes.into_iter().all(|size| (0..=COLUMN_BYTES_MAX).contains(&size))
}

fn check_schema(file: &SerializedFileReader<File>) -> anyhow::Result<()> {
    let found = file.metadata().file_metadata().schema();
    let is_of = |tier| schema(tier).is_ok_and(|known| known.get_fields() == found.get_fields());
    if is_of(Tier::Raw) {
        return Ok(());
    }
    let what = if is_of(Tier::Minute) {
        "it has rows of minutes or hours, and only samples can be imported: export them without --tier".to_owned()
    } else {
        let names: Vec<&str> = found.get_fields().iter().take(20).map(|field| field.name()).collect();
        format!(
            "its columns are {names:?}, and only files can be imported that `belfry store export` wrote, with time, metric, labels, value and \
             reason; what is from elsewhere is imported as OpenMetrics"
        )
    };
    Err(FileError::Content(what).into())
}

/// What the file says of its metrics; nothing if it has gone through another program.
fn declared(file: &SerializedFileReader<File>) -> anyhow::Result<HashMap<String, Vec<Arc<Metric>>>> {
    let pairs = file.metadata().file_metadata().key_value_metadata();
    let text = pairs.into_iter().flatten().find(|pair| pair.key == METRICS).and_then(|pair| pair.value.as_deref());
    let text = text.unwrap_or("[]");
    let wrong = |what: String| FileError::Content(format!("what it says under `{METRICS}` cannot be used: {what}"));
    if text.len() > DESCRIPTIONS_BYTES_MAX {
        return Err(wrong("it is larger than 64 MiB".to_owned()).into());
    }
    let list: Vec<Description> = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let mut declared: HashMap<String, Vec<Arc<Metric>>> = HashMap::new();
    for description in list {
        let metric = description.metric().map_err(wrong)?;
        declared.entry(description.name).or_default().push(Arc::new(metric));
    }
    Ok(declared)
}

struct Rows<'a> {
    intake: &'a mut dyn Intake,
    declared: HashMap<String, Vec<Arc<Metric>>>,
    /// By all of its texts, each with its length.
    known: KnownSeries,
    /// The series of the row before: mostly that of the next, too.
    last: Option<(Texts, Option<u32>)>,
}

/// A series as the file has it: metric, names and values.
type Texts = (ByteArray, Vec<(ByteArray, ByteArray)>);

impl Rows<'_> {
    fn group(&mut self, group: &dyn RowGroupReader, progress: &dyn Fn(u64)) -> anyhow::Result<()> {
        let mut times = Column::<Int64Type>::open(group, 0)?;
        let mut metrics = Column::<ByteArrayType>::open(group, 1)?;
        let mut names = Column::<ByteArrayType>::open(group, 2)?;
        let mut texts = Column::<ByteArrayType>::open(group, 3)?;
        let mut values = Column::<DoubleType>::open(group, 4)?;
        let mut reasons = Column::<ByteArrayType>::open(group, 5)?;
        let mut done = 0;
        loop {
            let rows = times.read()?;
            let others = [metrics.read()?, names.read()?, texts.read()?, values.read()?, reasons.read()?];
            if others.iter().any(|read| *read != rows) {
                return Err(FileError::Content("its columns are of different lengths".to_owned()).into());
            }
            if rows == 0 {
                return Ok(());
            }
            let labels = names.lists().zip(texts.lists());
            let values = values.options().zip(reasons.options());
            let rows_of = times.values.iter().zip(&metrics.values).zip(labels).zip(values);
            for (((time, metric), (names, texts)), (value, reason)) in rows_of {
                if names.len() != texts.len() {
                    return Err(FileError::Content("a label has no value".to_owned()).into());
                }
                let labels = names.iter().zip(texts);
                let Some(series) = self.series(metric, labels)? else { continue };
                let value = match (value, reason) {
                    (Some(value), _) => Ok(*value),
                    (None, reason) => Err(reason_of(reason)),
                };
                self.intake.sample(series, Sample { time: Timestamp::from_millis(*time), value })?;
            }
            done += rows as u64;
            progress(done);
        }
    }

    fn series<'b>(
        &mut self,
        metric: &ByteArray,
        labels: impl Iterator<Item = (&'b ByteArray, &'b ByteArray)> + Clone,
    ) -> anyhow::Result<Option<u32>> {
        let is_last = |((known, of_known), _): &&(Texts, _)| {
            let mut labels = labels.clone();
            let is_same = of_known.iter().all(|(name, value)| labels.next() == Some((name, value)));
            known == metric && is_same && labels.next().is_none()
        };
        if let Some((_, number)) = self.last.as_ref().filter(is_last) {
            return Ok(*number);
        }
        let texts: Texts = (metric.clone(), labels.map(|(name, value)| (name.clone(), value.clone())).collect());
        let key = key(&texts);
        let number = match self.known.get(&key) {
            Some(number) => number,
            None => {
                let series = self.text(&texts).map_err(FileError::Content)?;
                let number = self.intake.series(&series)?;
                self.known.insert(&key, number).map_err(FileError::Content)?;
                number
            }
        };
        self.last = Some((texts, number));
        Ok(number)
    }

    fn text(&self, (metric, labels): &Texts) -> Result<SeriesText, String> {
        let text = |bytes: &ByteArray| {
            let text = std::str::from_utf8(bytes.data()).map(str::to_owned);
            text.map_err(|_| "a name or a label is not UTF-8".to_owned())
        };
        let metric = text(metric)?;
        let labels: Vec<(String, String)> =
            labels.iter().map(|(name, value)| Ok((text(name)?, text(value)?))).collect::<Result<_, String>>()?;
        let declared = self.declared.get(&metric).cloned().unwrap_or_default();
        let newest = declared.last();
        let (kind, help) = newest.map_or((Kind::Gauge, ""), |newest| (newest.kind, &*newest.help));
        let series = SeriesText::new(&metric, labels, kind, help).map_err(|what| format!("{metric:?}: {what}"))?;
        Ok(SeriesText { declared, ..series })
    }
}

fn key((metric, labels): &Texts) -> Vec<u8> {
    let mut key = Vec::new();
    for text in [metric].into_iter().chain(labels.iter().flat_map(|(name, value)| [name, value])) {
        key.extend_from_slice(&text.len().to_le_bytes());
        key.extend_from_slice(text.data());
    }
    key
}

fn reason_of(word: Option<&ByteArray>) -> Option<Reason> {
    let word = word.map_or(&b""[..], ByteArray::data);
    if word == ENDED.as_bytes() {
        return None;
    }
    Some(Reason::ALL.into_iter().find(|reason| reason.as_str().as_bytes() == word).unwrap_or(Reason::Error))
}

/// Some rows of one column.
struct Column<T: DataType> {
    reader: ColumnReaderImpl<T>,
    values: Vec<T::T>,
    /// Whether there is a value.
    defined: Vec<i16>,
    /// Whether a value belongs to the row of the one before.
    repeated: Vec<i16>,
}

impl<T: DataType> Column<T> {
    fn open(group: &dyn RowGroupReader, number: usize) -> anyhow::Result<Self> {
        let reader = group.get_column_reader(number).map_err(unreadable)?;
        Ok(Self {
            reader: get_typed_column_reader(reader),
            values: Vec::new(),
            defined: Vec::new(),
            repeated: Vec::new(),
        })
    }

    /// Reads the next rows, and says how many.
    fn read(&mut self) -> anyhow::Result<usize> {
        let Self { reader, values, defined, repeated } = self;
        values.clear();
        defined.clear();
        repeated.clear();
        let read = reader.read_records(ROWS_AT_ONCE, Some(defined), Some(repeated), values);
        read.map(|(rows, ..)| rows).map_err(unreadable)
    }

    /// The value of each row, if it has one.
    fn options(&self) -> impl Iterator<Item = Option<&T::T>> {
        let mut values = self.values.iter();
        self.defined.iter().map(move |defined| if *defined > 0 { values.next() } else { None })
    }

    /// The values of each row.
    fn lists(&self) -> impl Iterator<Item = &[T::T]> {
        let (mut level, mut value) = (0, 0);
        std::iter::from_fn(move || {
            let from = value;
            value += usize::from(*self.defined.get(level)? > 0);
            level += 1;
            while self.repeated.get(level).is_some_and(|repeated| *repeated > 0) {
                value += usize::from(self.defined.get(level).is_some_and(|defined| *defined > 0));
                level += 1;
            }
            Some(self.values.get(from..value).unwrap_or_default())
        })
    }
}
