//! Every bound of the engine, with its reason.

use std::fmt;

/// Longest expression accepted, in bytes: generated expressions with long alternations stay well below it.
pub const EXPRESSION_BYTES_MAX: usize = 64 * 1024;

/// Deepest nesting of brackets and unary operators: each level costs stack in the parser and the evaluator.
pub const NESTING_DEPTH_MAX: usize = 64;

/// Most operators in one expression: a chain of them is as deep a tree as it is long.
pub const OPERATORS_MAX: usize = 1_000;

/// Largest compiled regular expression, in bytes; what people write needs a hundredth of it.
pub const REGEX_BYTES_MAX: usize = 1 << 20;

/// Most regular expressions in one expression.
pub const REGEXES_MAX: usize = 100;

/// Longest label value that `label_replace` and `label_join` may make, in bytes: nested calls could otherwise double
/// a value until memory ends.
pub const LABEL_BYTES_MAX: usize = 64 * 1024;

/// Longest duration and largest timestamp accepted, in milliseconds (about 3,000 years): sums of a few of them
/// cannot overflow.
pub const TIME_MS_MAX: i64 = 100_000_000_000_000;

/// Most remarks on one result: who has more of them has one mistake in many series.
pub const ANNOTATIONS_MAX: usize = 100;

/// What one query may cost.
///
/// `cancelled` is asked often while a query runs (at least once per series and operator); the query ends with
/// [`EvalError::Cancelled`](crate::EvalError::Cancelled) when it says so. That is how a caller imposes a
/// deadline: the engine itself reads no clock.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Most samples held at any one time. Those of a series that is read for one selector alone pass by, a few series
    /// at a time, and do not count.
    pub samples_max: usize,
    /// Most series read from the store.
    pub series_max: usize,
    /// Most steps of a range query.
    pub steps_max: usize,
    /// Most values looked at: samples that are read, one value per series and step of each operator, and all samples
    /// of every window that a function walks. What the windows of subqueries alone would take is worked out before anything is read.
    pub scanned_max: u64,
    /// Most bytes of samples, of intermediate results, and of labels that functions make, that are held at any one
    /// time. Vectors grow by doubling, so that up to twice as much memory may be in use.
    pub bytes_max: usize,
    /// Whether the query should stop.
    pub cancelled: Option<&'a (dyn Fn() -> bool + Sync)>,
}

impl Default for Limits<'_> {
    /// Prometheus' defaults where it has them: 50 million samples, and 11,000 steps after the first. A billion
    /// values are looked at in one to four seconds.
    fn default() -> Self {
        Self {
            samples_max: 50_000_000,
            series_max: 1_000_000,
            steps_max: 11_001,
            scanned_max: 1_000_000_000,
            bytes_max: 512 << 20,
            cancelled: None,
        }
    }
}

impl fmt::Debug for Limits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("samples_max", &self.samples_max)
            .field("series_max", &self.series_max)
            .field("steps_max", &self.steps_max)
            .field("scanned_max", &self.scanned_max)
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}
