//! A PromQL engine over any store of series.
//!
//! Text becomes a [`Plan`], and a plan is evaluated at one instant or over a range against whatever implements
//! [`SeriesReader`]. What the engine does not support is refused when planning, with its position; a plan that
//! exists can be evaluated.
//!
//! ```
//! use belfry_promql::{evaluate_instant, Labels, Limits, Plan, Sample, Series, Value};
//!
//! let store = vec![Series {
//!     labels: Labels::from_pairs([("__name__", "gpu_power_watts"), ("gpu", "3")]),
//!     samples: vec![Sample { time_ms: 1_000, value: 350.0 }],
//! }];
//! let plan = Plan::parse("gpu_power_watts > 300")?;
//! let output = evaluate_instant(&plan, &store, 2_000, &Limits::default())?;
//! let Value::Vector(rows) = output.value else { unreachable!("the type of the expression") };
//! assert_eq!(rows[0].1.value, 350.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The way through the crate: `plan` (text → checked tree) → `eval` (tree → columns of values, one row per series
//! and one column per step) with `functions` (one file per family, one list of all) beside it.
//!
//! Pure: no clock, no I/O, no threads, no store. Everything is bounded, see [`limits`]. Semantics are those of
//! Prometheus 3: five minutes of lookback, stale markers, extrapolation of `rate` and its kin, delayed removal of
//! metric names, annotations. Native histograms are absent: every sample is a number.
#![warn(missing_docs)]

mod annotation;
mod eval;
mod functions;
mod hash;
mod labels;
pub mod limits;
mod matcher;
pub mod notation;
mod pattern;
mod plan;
mod reader;
mod sample;
mod span;
mod value;

pub use annotation::{Annotation, Level};
pub use eval::{EvalError, evaluate_instant, evaluate_range};
pub use functions::names as function_names;
pub use labels::{Labels, METRIC_NAME};
pub use limits::Limits;
pub use matcher::{MatchOp, Matcher};
pub use pattern::PatternError;
pub use plan::{Plan, PlanError, PlanOptions, Selector, prettified};
pub use reader::{Needed, ReadError, ReadRequest, Reduce, SeriesReader, Summary};
pub use sample::{STALE_NAN, STALE_NAN_BITS, Sample, Samples, Series, is_stale};
pub use span::Span;
pub use value::{Output, Value, ValueType};
