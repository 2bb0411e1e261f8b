//! Turns answers into what people and scripts read.
//!
//! Everything but `output` and `screen` is pure: documents, a width and a time in, text out. All text from outside is escaped where
//! it becomes a [`Span`](table::Span), so that no view can forget to. Absent: asking the collector, and what commands exist.

pub(crate) mod alert;
pub(crate) mod chart;
pub(crate) mod check;
pub(crate) mod event;
pub(crate) mod explain;
pub(crate) mod fleet;
pub(crate) mod jobs;
pub(crate) mod listing;
pub(crate) mod machine;
pub(crate) mod node;
pub(crate) mod output;
mod plot;
pub(crate) mod query;
pub(crate) mod sample;
pub(crate) mod screen;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod units;

use belfry_common::model::Timestamp;

/// How a view is to look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Columns of the terminal; nothing limits a pipe.
    pub(crate) width: Option<usize>,
    pub(crate) is_colored: bool,
    /// What ages are counted from.
    pub(crate) now: Timestamp,
}

#[cfg(test)]
mod tests;
