//! Every cap and default of the alert engine, with its reason.

/// Most alerts that stand at once, over all rules: every node of 5,000 with twenty alerts.
pub(crate) const ALERTS_MAX: usize = 100_000;

/// How often rules are evaluated over everything where the group does not say, if time alone can change their result.
pub(crate) const INTERVAL_MS: i64 = 15_000;

/// How often the other rules are evaluated over everything. Ticks drive these; what remains is a series that stops
/// without a word, which the lookback of five minutes ends.
pub(crate) const IDLE_INTERVAL_MS: i64 = 300_000;

/// Least time between two evaluations of a rule over everything that ticks ask for: 5,000 nodes tick each second.
pub(crate) const COALESCE_MS: i64 = 250;

/// How long an alert stands whose series ended on a node that is up. Long enough for somebody to have looked at it,
/// short enough that the series of past jobs do not pile up.
pub(crate) const NO_DATA_KEEP_MS: i64 = 24 * 3_600_000;

/// When a deadline that could not be dealt with is tried again.
pub(super) const RETRY_MS: i64 = 1_000;

/// Most moments that one evaluation looks back to, see `no_data`. Alerts beyond keep their state until the next.
pub(super) const MOMENTS_MAX: usize = 16;

/// Most nodes that an evaluation is restricted to; with more it goes over everything.
pub(super) const SCOPE_NODES_MAX: usize = 64;

/// Most remarks of the query engine kept with a rule.
pub(super) const REMARKS_MAX: usize = 8;

/// What the labels of one alert may come to in JSON. An event, with its annotations, has to fit the event log's 64 KiB.
pub(super) const LABELS_JSON_BYTES_MAX: usize = 24 * 1024;

/// What the annotations of one alert may come to in JSON. The one that crosses it is cut, and those behind are empty.
pub(super) const ANNOTATIONS_JSON_BYTES_MAX: usize = 28 * 1024;
