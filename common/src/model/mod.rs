//! The words that both sides share: metric, series, reading, tick, batch.
//!
//! A *tick* is one sampling instant of one sampler group: a time and one value per series of the group.
//! A *batch* is the ticks that one instant produced, numbered within the agent's *epoch*.
//!
//! Pure data: no I/O, no clock. How it travels is in [`crate::wire`], how it is kept in [`crate::journal`].

mod metric;
mod name;
mod reading;
mod series;
mod tick;

pub use metric::{Kind, Metric, Resolution};
pub use name::{NameError, NodeName, check_label_name, check_label_value, check_metric_name};
pub use reading::{Raw, Reason};
pub use series::{Identity, Layout, SeriesDefinition};
pub use tick::{Batch, BatchKey, Epoch, Gap, GapReason, Sequence, Tick, Timestamp};
