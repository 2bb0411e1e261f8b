//! OpenMetrics text, the exposition that Prometheus reads and writes, with a time for each sample.
//!
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>

mod read;
mod write;

pub(super) use read::read;
pub(super) use write::Writer;
