//! Ticks as bits: columns of deltas against what both ends already know.
//!
//! An [`Encoder`] and a [`Decoder`] share a *context*: the metrics and layouts defined so far and, for each
//! series, a model of its past. A tick resembles the one before it, so a batch is mostly single bits. The
//! first batch of a context resets it and carries its definitions, so that whoever has the batches from there on
//! can read them: a connection, a segment of the spool and a segment of the collector's log are each one context.
//!
//! # Format of a body (version 1)
//!
//! ```text
//! body        = flags u8, [ length u32 LE, definitions ], [ numbers ], bits
//! flags       = 1: forget the context first · 2: definitions follow · 4: numbers of layouts follow · others: refused
//! definitions = bincode (standard configuration) of `wire::message::Definitions`:
//!               metrics numbered on from the context's last, then whole layouts; a layout's
//!               series are runs kept from the group's layout before it, or new ones; no group twice
//! numbers     = count u16 LE, then u32 LE each: layouts that the reader has already, see below; no group twice
//! bits        = for each group of the context, by number: present 1, and if so
//!                 time      Rice-coded milliseconds since the group's last tick, foretold as the one before
//!                 1, and if set: number of series whose reason changed (sized), then for each its
//!                           distance from the one before (sized) and its new reason (4 bits, 0 = has values)
//!                 values    of every series without a reason, in the layout's order: an integer's Rice code or
//!                           a float's differing bits
//! ```
//! "Sized" is six bits for the number of significant bits less one, then these, or all 64 if they are more than 56. Bits fill bytes from the lowest on; the
//! last byte is filled with zeros. Anything left over is refused. See `predictor.rs` for the two codes.
//!
//! Where many contexts stand in one place, as those of all nodes do in a segment of the log, layouts are written once beside the bodies
//! ([`write_layout`]), and bodies name them by number. A connection knows no numbers: a body that comes with some is refused.
//!
//! A reader that meets an unknown flag refuses the body; a change of format comes with a new frame version.
//!
//! Pure: no I/O, no clock. After an error a decoder serves nothing until a body resets it.

mod bits;
pub mod column;
mod decoder;
mod encoder;
mod pool;
mod predictor;

use std::{collections::HashMap, sync::Arc};

use thiserror::Error;

pub use decoder::Decoder;
pub use encoder::{EncodeError, Encoder, write_layout};
pub use pool::LayoutPool;

use crate::model::{Layout, NameError, SeriesDefinition};
use predictor::Predictor;

const FLAG_RESET: u8 = 1;
const FLAG_DEFINITIONS: u8 = 2;
const FLAG_NUMBERS: u8 = 4;
const REASON_BITS: u32 = 4;

/// A body that cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CodecError {
    /// The body ends before its content does.
    #[error("batch is cut short")]
    Truncated,
    /// The body goes on after its content, or sets a flag of another version.
    #[error("batch has a part that this version does not know")]
    Unknown,
    /// A body that continues a context came to a decoder that has none.
    #[error("batch continues a stream whose beginning is missing")]
    NoContext,
    /// The definitions are not well-formed.
    #[error("batch has malformed definitions")]
    Definitions,
    /// A definition refers to a metric or series that was never defined, or counts wrongly.
    #[error("batch refers to a series or metric that it does not define")]
    Reference,
    /// More than [`crate::limits`] allows.
    #[error("batch exceeds the limit of {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
    /// A name is not acceptable.
    #[error("batch defines a series with an unacceptable name")]
    Name(#[source] NameError),
}

/// A group of the context: its layout and what is remembered of each series.
#[derive(Debug)]
struct Group {
    layout: Arc<Layout>,
    /// Bytes of its label values.
    label_bytes: usize,
    clock: Predictor,
    predictors: Vec<Predictor>,
}

impl Group {
    /// A group at its first tick: the step from the zero of time to now teaches the clock nothing.
    fn new(layout: Arc<Layout>) -> Self {
        let predictors = layout.series.iter().map(|series| Predictor::new(series.metric.resolution)).collect();
        Self { label_bytes: label_bytes(&layout), layout, clock: Predictor::of_times(), predictors }
    }

    /// The group with another layout than before, and where each series stood in that: what is remembered of it stays.
    fn after(before: Option<&Self>, layout: Arc<Layout>) -> (Self, Vec<Option<usize>>) {
        let Some(before) = before else {
            let kept = vec![None; layout.series.len()];
            return (Self::new(layout), kept);
        };
        let places: HashMap<&SeriesDefinition, usize> =
            before.layout.series.iter().enumerate().map(|(place, series)| (&**series, place)).collect();
        let kept: Vec<Option<usize>> = layout.series.iter().map(|series| places.get(&**series).copied()).collect();
        let predictor = |(series, place): (&Arc<SeriesDefinition>, &Option<usize>)| {
            let known = place.and_then(|place| before.predictors.get(place)).copied();
            known.unwrap_or_else(|| Predictor::new(series.metric.resolution))
        };
        let predictors = layout.series.iter().zip(&kept).map(predictor).collect();
        (Self { label_bytes: label_bytes(&layout), layout, clock: before.clock, predictors }, kept)
    }
}

fn label_bytes(layout: &Layout) -> usize {
    layout.series.iter().flat_map(|series| &series.label_values).map(|value| value.len()).sum()
}

#[cfg(test)]
mod tests;
