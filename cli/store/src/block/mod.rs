//! Immutable files of samples. `FORMAT.md` beside the crate's manifest has the format; each file here has its part of it.
//!
//! [`BlockWriter`] writes one from its first byte to its last, [`Block`] reads it. Which blocks there are is not known here.

mod axis;
mod bytes;
mod cache;
mod catalog;
mod column;
mod file;
mod find;
mod index;
mod pco;
mod reader;
mod strings;
mod writer;

#[cfg(test)]
mod tests;

pub use file::{BlockError, Tier};
pub use reader::Summary;

pub(crate) use axis::Axes;
pub(crate) use bytes::Malformed;
pub(crate) use cache::Cache;
pub(crate) use catalog::{Catalog, metric_order};
pub(crate) use column::{ENDED, Piece, Scratch, encode as encode_column, encode_pieces};
pub(crate) use file::column_resolution;
pub(crate) use find::{FoundMetric, FoundSeries};
pub(crate) use index::MetricIndex;
pub(crate) use reader::{Block, PageReader, read_exact_at};
pub(crate) use strings::Strings;
pub(crate) use writer::{BlockWriter, Origin, Pace};
