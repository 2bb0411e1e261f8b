//! Merges blocks into fewer and better ones, and makes coarser ones of them.
//!
//! `plan` decides what is due, `merge` does it; `rows` says what a coarser sample is.

mod merge;
mod plan;
mod rows;
mod source;

pub use plan::CompactOptions;

pub(crate) use merge::{CHUNK_TICKS_MAX, run};
pub(crate) use plan::{next, next_with_other_key};
#[cfg(test)]
pub(crate) use rows::Rows;
pub(crate) use rows::row_ms;
