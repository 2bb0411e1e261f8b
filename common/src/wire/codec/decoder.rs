//! Bodies to batches. Everything here comes from outside and is checked before it is used.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    CodecError, FLAG_DEFINITIONS, FLAG_NUMBERS, FLAG_RESET, Group, LayoutPool, REASON_BITS, bits::BitReader,
    predictor::Predictor,
};
use crate::{
    limits,
    model::{Batch, Layout, Metric, Raw, Reason, SeriesDefinition, Tick, Timestamp, check_label_value},
    wire::message::{self, Definitions, LayoutDefinition, SeriesRun},
};

/// The layout with a number, if there is one.
type Layouts<'a> = dyn Fn(u32) -> Option<Arc<Layout>> + 'a;

/// Reads the bodies of one [`super::Encoder`], in order, from a reset on.
#[derive(Debug, Default)]
pub struct Decoder {
    metrics: Vec<Arc<Metric>>,
    groups: BTreeMap<u16, Group>,
    /// Whether the context is whole: set by a reset, cleared by an error.
    is_ready: bool,
    /// Where layouts that others have, too, are.
    pool: Arc<LayoutPool>,
}

impl Decoder {
    /// A decoder that waits for a body with a reset.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`Self::new`]; layouts are shared with the other decoders of the pool.
    #[must_use]
    pub fn sharing(pool: Arc<LayoutPool>) -> Self {
        Self { pool, ..Self::default() }
    }

    /// Reads one body.
    ///
    /// # Errors
    /// [`CodecError`] when it is malformed, over a limit, or not the next of its context. The context is lost then:
    /// every body is refused until one resets it.
    pub fn decode(&mut self, body: &[u8]) -> Result<Batch, CodecError> {
        self.decode_with(body, None)
    }

    /// As [`Self::decode`], for bodies that name layouts by numbers: `layouts` knows them.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_by_number(&mut self, body: &[u8], layouts: &Layouts<'_>) -> Result<Batch, CodecError> {
        self.decode_with(body, Some(layouts))
    }

    /// Reads a layout that [`super::write_layout`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] when it is malformed or over a limit.
    pub fn layout(pool: &Arc<LayoutPool>, bytes: &[u8]) -> Result<Arc<Layout>, CodecError> {
        let mut decoder = Self::sharing(Arc::clone(pool));
        decoder.learn(message::decode(bytes).map_err(|_| CodecError::Definitions)?)?;
        match (decoder.groups.pop_first(), decoder.groups.is_empty()) {
            (Some((_, group)), true) => Ok(group.layout),
            _ => Err(CodecError::Definitions),
        }
    }

    fn decode_with(&mut self, body: &[u8], layouts: Option<&Layouts<'_>>) -> Result<Batch, CodecError> {
        let result = self.decode_unguarded(body, layouts);
        if result.is_err() {
            *self = Self::sharing(Arc::clone(&self.pool));
        }
        result
    }

    fn decode_unguarded(&mut self, body: &[u8], layouts: Option<&Layouts<'_>>) -> Result<Batch, CodecError> {
        let (&flags, mut rest) = body.split_first().ok_or(CodecError::Truncated)?;
        let known = FLAG_RESET | FLAG_DEFINITIONS | if layouts.is_some() { FLAG_NUMBERS } else { 0 };
        if flags & !known != 0 {
            return Err(CodecError::Unknown);
        }
        if flags & FLAG_RESET != 0 {
            *self = Self { is_ready: true, ..Self::sharing(Arc::clone(&self.pool)) };
        }
        if !self.is_ready {
            return Err(CodecError::NoContext);
        }
        if flags & FLAG_DEFINITIONS != 0 {
            let (length, after) = rest.split_first_chunk::<4>().ok_or(CodecError::Truncated)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (bytes, after) = after.split_at_checked(length).ok_or(CodecError::Truncated)?;
            self.learn(message::decode(bytes).map_err(|_| CodecError::Definitions)?)?;
            rest = after;
        }
        if let Some(layouts) = layouts.filter(|_| flags & FLAG_NUMBERS != 0) {
            rest = self.look_up(rest, layouts)?;
        }
        let mut bits = BitReader::new(rest);
        let mut ticks = Vec::new();
        for group in self.groups.values_mut() {
            if bits.read_flag()? {
                ticks.push(group.decode(&mut bits)?);
            }
        }
        if bits.is_at_end() { Ok(Batch { ticks }) } else { Err(CodecError::Unknown) }
    }

    fn learn(&mut self, definitions: Definitions) -> Result<(), CodecError> {
        within(self.metrics.len() + definitions.metrics.len(), limits::METRICS_PER_CONTEXT_MAX, "metrics")?;
        for metric in definitions.metrics {
            self.metrics.push(self.pool.metric(metric.parse()?));
        }
        let mut defined = BTreeSet::new();
        for layout in definitions.layouts {
            let number = layout.group;
            // Each can repeat a whole layout in a few bytes: many for one group would be much work out of little.
            if !defined.insert(number) {
                return Err(CodecError::Definitions);
            }
            within(layout.sampler.len(), limits::METRIC_NAME_BYTES_MAX, "bytes of a sampler's name")?;
            let group = self.relayout(layout)?;
            self.groups.insert(number, group);
            self.check_limits()?;
        }
        Ok(())
    }

    /// Takes in layouts by their numbers; gives what follows these.
    fn look_up<'a>(&mut self, bytes: &'a [u8], layouts: &Layouts<'_>) -> Result<&'a [u8], CodecError> {
        let (count, mut rest) = bytes.split_first_chunk::<2>().ok_or(CodecError::Truncated)?;
        let mut defined = BTreeSet::new();
        for _ in 0..u16::from_le_bytes(*count) {
            let (number, after) = rest.split_first_chunk::<4>().ok_or(CodecError::Truncated)?;
            let layout = layouts(u32::from_le_bytes(*number)).ok_or(CodecError::Reference)?;
            if !defined.insert(layout.group) {
                return Err(CodecError::Definitions);
            }
            let number = layout.group;
            let (group, _) = Group::after(self.groups.get(&number), layout);
            self.groups.insert(number, group);
            self.check_limits()?;
            rest = after;
        }
        Ok(rest)
    }

    fn check_limits(&self) -> Result<(), CodecError> {
        within(self.groups.len(), limits::GROUPS_PER_NODE_MAX, "sampler groups")?;
        let series = self.groups.values().map(|group| group.predictors.len()).sum();
        within(series, limits::SERIES_PER_NODE_WIRE_MAX, "series")?;
        let label_bytes = self.groups.values().map(|group| group.label_bytes).sum();
        within(label_bytes, limits::LABEL_BYTES_PER_NODE_WIRE_MAX, "bytes of label values")
    }

    fn relayout(&self, definition: LayoutDefinition) -> Result<Group, CodecError> {
        let known = self.groups.get(&definition.group);
        let mut series = Vec::new();
        let mut predictors = Vec::new();
        for run in definition.series {
            match run {
                SeriesRun::Kept { first, count } => {
                    let known = known.ok_or(CodecError::Reference)?;
                    let (first, count) = (first as usize, count as usize);
                    let range = first..first.checked_add(count).ok_or(CodecError::Reference)?;
                    series.extend_from_slice(known.layout.series.get(range.clone()).ok_or(CodecError::Reference)?);
                    predictors.extend_from_slice(known.predictors.get(range).ok_or(CodecError::Reference)?);
                }
                SeriesRun::New { metric, label_values } => {
                    let new = self.series(metric, label_values)?;
                    predictors.push(Predictor::new(new.metric.resolution));
                    series.push(self.pool.series(new));
                }
            }
            within(series.len(), limits::SERIES_PER_NODE_WIRE_MAX, "series")?;
        }
        // They stay for as long as the connection.
        predictors.shrink_to_fit();
        let layout = Layout {
            group: definition.group,
            sampler: definition.sampler.into(),
            interval_ms: definition.interval_ms,
            series: series.into(),
        };
        let clock = known.map_or_else(Predictor::of_times, |group| group.clock);
        Ok(Group { label_bytes: super::label_bytes(&layout), layout: self.pool.layout(layout), clock, predictors })
    }

    fn series(&self, metric: u32, label_values: Vec<String>) -> Result<SeriesDefinition, CodecError> {
        let metric = self.metrics.get(metric as usize).ok_or(CodecError::Reference)?;
        if label_values.len() != metric.label_names.len() {
            return Err(CodecError::Reference);
        }
        for value in &label_values {
            check_label_value(value).map_err(CodecError::Name)?;
        }
        let label_values = label_values.into_iter().map(String::into_boxed_str).collect();
        Ok(SeriesDefinition { metric: Arc::clone(metric), label_values })
    }
}

impl Group {
    fn decode(&mut self, bits: &mut BitReader<'_>) -> Result<Tick, CodecError> {
        let time = Timestamp::from_millis(self.clock.decode(bits)?);
        self.decode_reasons(bits)?;
        let mut values = Vec::with_capacity(self.predictors.len());
        for predictor in &mut self.predictors {
            values.push(if predictor.reason == 0 {
                Raw::from_bits(predictor.decode(bits)?)
            } else {
                Raw::missing(Reason::from_code(predictor.reason).unwrap_or(Reason::Error))
            });
        }
        Ok(Tick { layout: Arc::clone(&self.layout), time, values })
    }

    fn decode_reasons(&mut self, bits: &mut BitReader<'_>) -> Result<(), CodecError> {
        if !bits.read_flag()? {
            return Ok(());
        }
        let changes = super::predictor::read_sized(bits)?;
        let mut next = 0_usize;
        for _ in 0..changes {
            let distance = super::predictor::read_sized(bits)?;
            let reason = bits.read(REASON_BITS)? as u8;
            let place = usize::try_from(distance).ok().and_then(|distance| next.checked_add(distance));
            let predictor = place.and_then(|place| self.predictors.get_mut(place)).ok_or(CodecError::Reference)?;
            predictor.reason = reason;
            next = place.unwrap_or(next).saturating_add(1);
        }
        Ok(())
    }
}

fn within(count: usize, limit: usize, what: &'static str) -> Result<(), CodecError> {
    if count <= limit { Ok(()) } else { Err(CodecError::Limit { what, limit }) }
}
