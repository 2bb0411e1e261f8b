//! Rules: Prometheus' rule files, from text to what can be evaluated.
//!
//! `file` turns one file (`yaml` → checked groups, `template`, `lint`) into rules or into every problem it has;
//! `set` joins files, all or none, and knows which rule reads which metric; `evaluate` takes one rule over a
//! [`SeriesReader`](belfry_promql::SeriesReader) to rows. What becomes of rows over time is told in
//! [`alerts`](crate::alerts).
//!
//! Pure but for `load`, which reads files. Absent: clocks, channels, the store, and any state between two evaluations.

mod checker;
pub(crate) mod duration;
mod evaluate;
mod file;
pub(crate) mod limits;
mod lint;
mod load;
mod pack;
mod position;
mod problem;
mod reader;
mod rule;
mod set;
mod suite;
mod template;
mod yaml;

pub(crate) use evaluate::{Row, RuleError, evaluate, record, series_labels};
pub(crate) use load::{ReadError, read};
pub(crate) use pack::sources as pack;
pub(crate) use position::Position;
pub(crate) use problem::{LoadError, Problem, Severity};
pub(crate) use reader::{AsItWas, OnNodes, Recorded, WithRecorded, is_up};
pub(crate) use rule::{AlertRule, Group, INSTANCE, NoData, Reads, RecordRule, Rule, RuleKey, RuleKind};
pub(crate) use set::{Checked, RuleId, RuleSet, Source};
pub(crate) use suite::{AlertCheck, ExpectedAlert, ExpressionCheck, Suite, Test};
pub(crate) use template::{Subject, Template};

#[cfg(test)]
mod tests;
