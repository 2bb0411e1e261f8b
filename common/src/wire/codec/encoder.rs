//! Batches to bodies.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::Arc,
};

use thiserror::Error;

use super::{FLAG_DEFINITIONS, FLAG_NUMBERS, FLAG_RESET, Group, REASON_BITS, bits::BitWriter};
use crate::{
    limits,
    model::{Batch, Layout, Metric, Raw, Reason, Tick, Timestamp},
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
        let (is_reset, definitions) = self.begin(|encoder| encoder.define(&ticks));
        out.push(flag(is_reset, FLAG_RESET) | flag(definitions.is_some(), FLAG_DEFINITIONS));
        if let Some(definitions) = definitions {
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            message::encode_into(&definitions, out);
            let length = (out.len() - start - 4) as u32;
            if let Some(field) = out.get_mut(start..start + 4) {
                field.copy_from_slice(&length.to_le_bytes());
            }
        }
        self.write_ticks(&ticks, out);
        Ok(is_reset)
    }

    /// As [`Self::encode`], for a reader that has the layouts: `number` gives theirs.
    ///
    /// # Errors
    /// As [`Self::encode`]. A number may have been asked for in vain.
    pub fn encode_by_number(
        &mut self,
        batch: &Batch,
        mut number: impl FnMut(&Arc<Layout>) -> u32,
        out: &mut Vec<u8>,
    ) -> Result<bool, EncodeError> {
        let ticks = by_group(batch)?;
        let (is_reset, news) = self.begin(|encoder| encoder.take_layouts(&ticks));
        out.push(flag(is_reset, FLAG_RESET) | flag(!news.is_empty(), FLAG_NUMBERS));
        if !news.is_empty() {
            out.extend_from_slice(&(news.len() as u16).to_le_bytes());
            news.iter().for_each(|layout| out.extend_from_slice(&number(layout).to_le_bytes()));
        }
        self.write_ticks(&ticks, out);
        Ok(is_reset)
    }

    fn write_ticks(&mut self, ticks: &BTreeMap<u16, &Tick>, out: &mut Vec<u8>) {
        let mut bits = BitWriter::new(out);
        for (number, group) in &mut self.groups {
            let tick = ticks.get(number);
            bits.write_flag(tick.is_some());
            if let Some(tick) = tick {
                group.encode(tick, &mut bits);
            }
        }
        bits.finish();
    }

    /// Brings the context up to a batch by `learn`; says whether it was reset for that. What many connections have left behind may be more
    /// than a decoder would take: then only this batch's groups go on.
    fn begin<T>(&mut self, learn: impl Fn(&mut Self) -> T) -> (bool, T) {
        let mut news = learn(self);
        if self.is_started && self.is_beyond_limits() {
            self.reset();
            news = learn(self);
        }
        (!mem::replace(&mut self.is_started, true), news)
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
        for layout in self.news(ticks) {
            let kept = self.take_layout(layout);
            let series = self.runs(layout, &kept, &mut definitions.metrics);
            let Layout { group, interval_ms, .. } = **layout;
            let sampler = layout.sampler.to_string();
            definitions.layouts.push(LayoutDefinition { group, sampler, interval_ms, series });
        }
        (!definitions.layouts.is_empty()).then_some(definitions)
    }

    /// Brings the context's layouts up to the ticks'; gives those that are new to it.
    fn take_layouts<'a>(&mut self, ticks: &BTreeMap<u16, &'a Tick>) -> Vec<&'a Arc<Layout>> {
        let news = self.news(ticks);
        for layout in &news {
            self.take_layout(layout);
        }
        news
    }

    /// Takes in a layout; says where each of its series stood in the group's before.
    fn take_layout(&mut self, layout: &Arc<Layout>) -> Vec<Option<usize>> {
        let (group, kept) = Group::after(self.groups.get(&layout.group), Arc::clone(layout));
        self.groups.insert(layout.group, group);
        kept
    }

    /// The ticks' layouts that the context does not have.
    fn news<'a>(&mut self, ticks: &BTreeMap<u16, &'a Tick>) -> Vec<&'a Arc<Layout>> {
        let is_new = |tick: &&&Tick| {
            let Some(group) = self.groups.get_mut(&tick.layout.group) else { return true };
            if !Arc::ptr_eq(&group.layout, &tick.layout) {
                if group.layout != tick.layout {
                    return true;
                }
                group.layout = Arc::clone(&tick.layout);
            }
            false
        };
        ticks.values().filter(is_new).map(|tick| &tick.layout).collect()
    }

    fn runs(&mut self, layout: &Layout, kept: &[Option<usize>], metrics: &mut Vec<MetricDefinition>) -> Vec<SeriesRun> {
        let mut runs = Vec::new();
        for (series, place) in layout.series.iter().zip(kept) {
            match *place {
                Some(place) => push_kept(&mut runs, place as u32),
                None => {
                    let metric = self.metric_number(&series.metric, metrics);
                    let label_values = series.label_values.iter().map(ToString::to_string).collect();
                    runs.push(SeriesRun::New { metric, label_values });
                }
            }
        }
        runs
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

/// Appends a layout, to be read by [`super::Decoder::layout`].
pub fn write_layout(layout: &Arc<Layout>, out: &mut Vec<u8>) {
    let tick = Tick { layout: Arc::clone(layout), time: Timestamp::default(), values: Vec::new() };
    if let Some(definitions) = Encoder::default().define(&BTreeMap::from([(layout.group, &tick)])) {
        message::encode_into(&definitions, out);
    }
}

fn flag(is_set: bool, flag: u8) -> u8 {
    if is_set { flag } else { 0 }
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
        let code = |raw: &Raw| raw.reason().map_or(0, Reason::code);
        let both = || values.iter().zip(&self.predictors).map(|(raw, predictor)| (code(raw), predictor.reason));
        let has_changed = both().any(|(now, before)| now != before);
        bits.write_flag(has_changed);
        if !has_changed {
            return;
        }
        let changes = both().enumerate().filter(|(_, (now, before))| now != before);
        let changes: Vec<(usize, u8)> = changes.map(|(place, (now, _))| (place, now)).collect();
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
