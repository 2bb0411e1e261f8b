//! Batches to bodies.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use thiserror::Error;

use super::{FLAG_DEFINITIONS, FLAG_RESET, Group, REASON_BITS, bits::BitWriter, predictor::Predictor};
use crate::{
    limits,
    model::{Batch, Layout, Metric, Raw, Reason, SeriesDefinition, Tick},
    wire::message::{self, Definitions, LayoutDefinition, MetricDefinition, SeriesRun},
};

/// A batch that cannot be encoded: a mistake of the caller.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EncodeError {
    /// Two ticks of one group.
    #[error("batch has two ticks of group {0}")]
    GroupTwice(u16),
    /// A tick whose values don't match its layout.
    #[error("tick of group {group} has {values} values for {series} series")]
    Mismatch {
        /// The group's number.
        group: u16,
        /// Values in the tick.
        values: usize,
        /// Series in its layout.
        series: usize,
    },
}

/// Turns batches into bodies that its [`super::Decoder`] can read in the same order.
#[derive(Debug, Default)]
pub struct Encoder {
    metrics: HashMap<Arc<Metric>, u32>,
    groups: BTreeMap<u16, Group>,
    is_started: bool,
}

impl Encoder {
    /// An encoder whose first body resets the context.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the context: the next body starts a new one and can be read without what came before.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Appends the body of `batch` to `out`. Returns whether it starts a new context.
    ///
    /// # Errors
    /// [`EncodeError`] when the batch contradicts itself; `out` and the context are then as they were.
    pub fn encode(&mut self, batch: &Batch, out: &mut Vec<u8>) -> Result<bool, EncodeError> {
        let ticks = by_group(batch)?;
        let mut definitions = self.define(&ticks);
        if self.is_beyond_limits() && self.is_started {
            // What a decoder would refuse is what many connections have left behind: only this batch's groups go on.
            self.reset();
            definitions = self.define(&ticks);
        }
        let is_reset = !self.is_started;
        self.is_started = true;
        let mut flags = if is_reset { FLAG_RESET } else { 0 };
        if definitions.is_some() {
            flags |= FLAG_DEFINITIONS;
        }
        out.push(flags);
        if let Some(definitions) = definitions {
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            message::encode_into(&definitions, out);
            let length = (out.len() - start - 4) as u32;
            if let Some(field) = out.get_mut(start..start + 4) {
                field.copy_from_slice(&length.to_le_bytes());
            }
        }
        let mut bits = BitWriter::new(out);
        for (number, group) in &mut self.groups {
            let tick = ticks.get(number);
            bits.write_flag(tick.is_some());
            if let Some(tick) = tick {
                group.encode(tick, &mut bits);
            }
        }
        bits.finish();
        Ok(is_reset)
    }

    fn is_beyond_limits(&self) -> bool {
        let series: usize = self.groups.values().map(|group| group.predictors.len()).sum();
        let label_bytes: usize = self.groups.values().map(|group| group.label_bytes).sum();
        self.metrics.len() > limits::METRICS_PER_CONTEXT_MAX
            || self.groups.len() > limits::GROUPS_PER_NODE_MAX
            || series > limits::SERIES_PER_NODE_WIRE_MAX
            || label_bytes > limits::LABEL_BYTES_PER_NODE_WIRE_MAX
    }

    /// Brings the context's layouts up to the ticks'; says what the other side must learn, if anything.
    fn define(&mut self, ticks: &BTreeMap<u16, &Tick>) -> Option<Definitions> {
        let mut definitions = Definitions { metrics: Vec::new(), layouts: Vec::new() };
        for (&number, tick) in ticks {
            if let Some(group) = self.groups.get_mut(&number) {
                if Arc::ptr_eq(&group.layout, &tick.layout) {
                    continue;
                }
                if group.layout == tick.layout {
                    group.layout = Arc::clone(&tick.layout);
                    continue;
                }
            }
            let known = self.groups.remove(&number);
            let group = self.relayout(known, &tick.layout, &mut definitions);
            self.groups.insert(number, group);
        }
        (!definitions.layouts.is_empty()).then_some(definitions)
    }

    fn relayout(&mut self, known: Option<Group>, layout: &Arc<Layout>, definitions: &mut Definitions) -> Group {
        let known =
            known.unwrap_or_else(|| Group::new(Arc::new(Layout { series: Box::default(), ..(**layout).clone() })));
        let places: HashMap<&SeriesDefinition, usize> =
            known.layout.series.iter().enumerate().map(|(place, series)| (&**series, place)).collect();
        let mut runs = Vec::new();
        let mut predictors = Vec::with_capacity(layout.series.len());
        for series in &layout.series {
            let kept = places.get(&**series).and_then(|&place| Some((place, known.predictors.get(place)?)));
            if let Some((place, predictor)) = kept {
                predictors.push(*predictor);
                push_kept(&mut runs, place as u32);
            } else {
                predictors.push(Predictor::new(series.metric.resolution));
                let metric = self.metric_number(&series.metric, &mut definitions.metrics);
                let label_values = series.label_values.iter().map(ToString::to_string).collect();
                runs.push(SeriesRun::New { metric, label_values });
            }
        }
        definitions.layouts.push(LayoutDefinition {
            group: layout.group,
            sampler: layout.sampler.to_string(),
            interval_ms: layout.interval_ms,
            series: runs,
        });
        let label_bytes = super::label_bytes(layout);
        Group { label_bytes, layout: Arc::clone(layout), clock: known.clock, predictors }
    }

    fn metric_number(&mut self, metric: &Arc<Metric>, new: &mut Vec<MetricDefinition>) -> u32 {
        if let Some(&number) = self.metrics.get(metric) {
            return number;
        }
        let number = self.metrics.len() as u32;
        self.metrics.insert(Arc::clone(metric), number);
        new.push(MetricDefinition::from(&**metric));
        number
    }
}

impl Group {
    fn encode(&mut self, tick: &Tick, bits: &mut BitWriter<'_>) {
        self.clock.encode(tick.time.as_millis(), bits);
        self.encode_reasons(&tick.values, bits);
        for (raw, predictor) in tick.values.iter().zip(&mut self.predictors) {
            if predictor.reason == 0 {
                predictor.encode(raw.bits(), bits);
            }
        }
    }

    fn encode_reasons(&mut self, values: &[Raw], bits: &mut BitWriter<'_>) {
        let changes: Vec<(usize, u8)> = values
            .iter()
            .zip(&self.predictors)
            .enumerate()
            .map(|(place, (raw, predictor))| (place, raw.reason().map_or(0, Reason::code), predictor.reason))
            .filter(|(_, now, before)| now != before)
            .map(|(place, now, _)| (place, now))
            .collect();
        bits.write_flag(!changes.is_empty());
        if changes.is_empty() {
            return;
        }
        super::predictor::write_sized(changes.len() as u64, bits);
        let mut next = 0;
        for (place, reason) in changes {
            super::predictor::write_sized((place - next) as u64, bits);
            bits.write(u64::from(reason), REASON_BITS);
            next = place + 1;
            if let Some(predictor) = self.predictors.get_mut(place) {
                predictor.reason = reason;
            }
        }
    }
}

fn by_group(batch: &Batch) -> Result<BTreeMap<u16, &Tick>, EncodeError> {
    let mut ticks = BTreeMap::new();
    for tick in &batch.ticks {
        let group = tick.layout.group;
        if tick.values.len() != tick.layout.series.len() {
            let (values, series) = (tick.values.len(), tick.layout.series.len());
            return Err(EncodeError::Mismatch { group, values, series });
        }
        if ticks.insert(group, tick).is_some() {
            return Err(EncodeError::GroupTwice(group));
        }
    }
    Ok(ticks)
}

/// Adds a place of the old layout to the run that it continues, or begins a run.
fn push_kept(runs: &mut Vec<SeriesRun>, place: u32) {
    if let Some(SeriesRun::Kept { first, count }) = runs.last_mut()
        && *first + *count == place
    {
        *count += 1;
        return;
    }
    runs.push(SeriesRun::Kept { first: place, count: 1 });
}
