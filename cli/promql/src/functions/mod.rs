//! Functions and aggregations: one file per family, one list of all.
//!
//! To add a function, write its body in the file of its family and its line in [`FUNCTIONS`].

mod absent;
mod aggregation;
mod call;
mod date;
mod histogram;
mod info;
mod label;
mod math;
mod over_time;
mod rate;
mod regression;
mod scalars;
mod sorting;
mod statistics;

use std::fmt;

pub(crate) use aggregation::Aggregation;
pub(crate) use call::{Arguments, Falls, Window};
pub(crate) use statistics::{KahanSum, Mean, Moments, quantile, quantile_message, sort_nan_first};

use crate::eval::{Block, EvalError};
use crate::plan::{Expr, RangeExpr, VectorExpr};
use crate::{PlanError, Span, Summary, ValueType};

use ValueType::{Matrix, Scalar, String as Text, Vector};

/// Every function of the language that this engine evaluates, in alphabetical order.
static FUNCTIONS: &[Function] = &[
    map("abs", f64::abs),
    vector("absent", &[Vector], absent::absent).never_separable().clock(),
    vector("absent_over_time", &[Matrix], absent::absent_over_time).never_separable().clock().ends_only(),
    map("acos", f64::acos),
    map("acosh", f64::acosh),
    map("asin", f64::asin),
    map("asinh", f64::asinh),
    map("atan", f64::atan),
    map("atanh", f64::atanh),
    window("avg_over_time", &[Matrix], over_time::avg)
        .of_summaries(&[(Summary::Sum, over_time::sum), (Summary::Count, over_time::sum)]),
    map("ceil", f64::ceil),
    window("changes", &[Matrix], over_time::changes),
    vector("clamp", &[Vector, Scalar, Scalar], math::clamp),
    vector("clamp_max", &[Vector, Scalar], math::clamp_max),
    vector("clamp_min", &[Vector, Scalar], math::clamp_min),
    map("cos", f64::cos),
    map("cosh", f64::cosh),
    window("count_over_time", &[Matrix], over_time::count)
        .ends_only()
        .of_summaries(&[(Summary::Count, over_time::sum)]),
    vector("day_of_month", &[Vector], date::day_of_month).optional(1),
    vector("day_of_week", &[Vector], date::day_of_week).optional(1),
    vector("day_of_year", &[Vector], date::day_of_year).optional(1),
    vector("days_in_month", &[Vector], date::days_in_month).optional(1),
    map("deg", f64::to_degrees),
    window("delta", &[Matrix], rate::delta).ends_only(),
    window("deriv", &[Matrix], regression::deriv),
    vector("double_exponential_smoothing", &[Matrix, Scalar, Scalar], regression::smoothing).clock(),
    scalar("end", &[], scalars::end).reads_time(),
    map("exp", f64::exp),
    window("first_over_time", &[Matrix], over_time::first).keeps_name().ends_only(),
    map("floor", f64::floor),
    vector("histogram_avg", &[Vector], histogram::of_native),
    vector("histogram_count", &[Vector], histogram::of_native),
    vector("histogram_fraction", &[Scalar, Scalar, Vector], histogram::fraction).unless_label("le"),
    vector("histogram_quantile", &[Scalar, Vector], histogram::quantile).unless_label("le"),
    vector("histogram_quantiles", &[Vector, Text, Scalar, Scalar], histogram::quantiles).variadic().never_separable(),
    vector("histogram_stddev", &[Vector], histogram::of_native),
    vector("histogram_stdvar", &[Vector], histogram::of_native),
    vector("histogram_sum", &[Vector], histogram::of_native),
    vector("hour", &[Vector], date::hour).optional(1),
    window("idelta", &[Matrix], rate::idelta).ends_only(),
    vector("increase", &[Matrix], rate::increase).clock().ends_only(),
    vector("info", &[Vector, Vector], info::info).optional(1).only_by(&["instance", "job"]),
    window("irate", &[Matrix], rate::irate).ends_only(),
    vector("label_join", &[Vector, Text, Text, Text], label::join).variadic().writes_label(1),
    vector("label_replace", &[Vector, Text, Text, Text, Text], label::replace).writes_label(1).pattern(4),
    window("last_over_time", &[Matrix], over_time::last).keeps_name().ends_only(),
    map("ln", f64::ln),
    map("log10", f64::log10),
    map("log2", f64::log2),
    window("mad_over_time", &[Matrix], over_time::mad),
    scalar("max_of", &[Scalar, Scalar], scalars::max_of),
    window("max_over_time", &[Matrix], over_time::max).of_summaries(&[(Summary::Greatest, over_time::max)]),
    scalar("min_of", &[Scalar, Scalar], scalars::min_of),
    window("min_over_time", &[Matrix], over_time::min).of_summaries(&[(Summary::Least, over_time::min)]),
    vector("minute", &[Vector], date::minute).optional(1),
    vector("month", &[Vector], date::month).optional(1),
    scalar("pi", &[], scalars::pi),
    vector("predict_linear", &[Matrix, Scalar], regression::predict_linear).reads_time(),
    window("present_over_time", &[Matrix], over_time::present).ends_only(),
    vector("quantile_over_time", &[Scalar, Matrix], over_time::quantile_over_time).clock(),
    map("rad", f64::to_radians),
    scalar("range", &[], scalars::range).reads_time(),
    vector("rate", &[Matrix], rate::rate).clock().ends_only(),
    window("resets", &[Matrix], over_time::resets),
    vector("round", &[Vector, Scalar], math::round).optional(1),
    scalar("scalar", &[Vector], scalars::scalar),
    map("sgn", math::sgn),
    map("sin", f64::sin),
    map("sinh", f64::sinh),
    vector("sort", &[Vector], sorting::sort).never_separable(),
    vector("sort_by_label", &[Vector, Text], sorting::by_label).variadic().never_separable(),
    vector("sort_by_label_desc", &[Vector, Text], sorting::by_label_desc).variadic().never_separable(),
    vector("sort_desc", &[Vector], sorting::sort_desc).never_separable(),
    map("sqrt", f64::sqrt),
    scalar("start", &[], scalars::start).reads_time(),
    window("stddev_over_time", &[Matrix], over_time::stddev),
    window("stdvar_over_time", &[Matrix], over_time::stdvar),
    scalar("step", &[], scalars::step),
    window("sum_over_time", &[Matrix], over_time::sum).of_summaries(&[(Summary::Sum, over_time::sum)]),
    map("tan", f64::tan),
    map("tanh", f64::tanh),
    scalar("time", &[], scalars::time).reads_time(),
    vector("timestamp", &[Vector], date::timestamp).reads_time(),
    window("ts_of_first_over_time", &[Matrix], over_time::first_time).ends_only(),
    window("ts_of_last_over_time", &[Matrix], over_time::last_time).ends_only(),
    window("ts_of_max_over_time", &[Matrix], over_time::max_time),
    window("ts_of_min_over_time", &[Matrix], over_time::min_time),
    vector("vector", &[Scalar], scalars::vector).never_separable(),
    vector("year", &[Vector], date::year).optional(1),
];

/// Functions that the language has and this engine does not.
pub(crate) static PLANNED: &[&str] = &["integral", "start_timestamp"];

/// The function of a name.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    let at = FUNCTIONS.binary_search_by(|function| function.name.cmp(name)).ok()?;
    FUNCTIONS.get(at)
}

/// The names of all functions and aggregations that this engine evaluates, for whoever helps to type them.
pub fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|function| function.name).chain(aggregation::NAMES.iter().map(|(name, _)| *name))
}

/// Whether a name, in lower case, is that of an aggregation.
pub(crate) fn is_aggregation(name: &str) -> bool {
    Aggregation::named(name).is_some()
}

/// A function: its signature, what a planner must know of it, and its body.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    params: &'static [ValueType],
    /// How many of the parameters may be missing.
    optional: usize,
    /// Whether the last parameter may be given any number of times, never included.
    variadic: bool,
    /// Whether the result is another at another time even if the arguments are the same.
    reads_time: bool,
    /// Whether time alone can change the result; see [`Plan::depends_on_clock`](crate::Plan::depends_on_clock).
    clock: bool,
    /// Whether the result keeps the metric's name.
    pub(crate) keeps_name: bool,
    /// Whether a function of windows walks them, and does not only look at their ends.
    pub(crate) scans: bool,
    /// How it is worked out of samples that stand for several: of two such, the quotient.
    pub(crate) of_summaries: &'static [OfSummary],
    pub(crate) separability: Separability,
    /// The argument that is a regular expression, compiled when planning.
    pub(crate) pattern: Option<usize>,
    pub(crate) body: Body,
}

/// Whether a function treats series apart from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Separability {
    /// Each series for itself.
    EachSeries,
    /// Series that differ in any label but this for themselves.
    UnlessLabel(&'static str),
    /// Series that differ in one of these labels for themselves.
    OnlyLabels(&'static [&'static str]),
    /// Each series for itself, but the label named by this argument is written.
    UnlessArgument(usize),
    /// All series together.
    Never,
}

/// What is asked of samples that stand for several, and what is made of a window of these.
pub(crate) type OfSummary = (Summary, fn(&Window<'_>) -> Option<f64>);

/// What a function does.
pub(crate) enum Body {
    /// One number from each number.
    Map(fn(f64) -> f64),
    /// One number from each window of samples.
    Window(fn(&Window<'_>) -> Option<f64>),
    /// One number per step.
    Scalar(fn(&mut Arguments<'_, '_>) -> Result<Vec<f64>, EvalError>),
    /// Anything else that yields a vector.
    Vector(fn(&mut Arguments<'_, '_>) -> Result<Block, EvalError>),
}

const fn function(name: &'static str, params: &'static [ValueType], clock: bool, body: Body) -> Function {
    Function {
        name,
        params,
        optional: 0,
        variadic: false,
        reads_time: false,
        clock,
        keeps_name: false,
        scans: true,
        of_summaries: &[],
        separability: Separability::EachSeries,
        pattern: None,
        body,
    }
}

const fn map(name: &'static str, body: fn(f64) -> f64) -> Function {
    function(name, &[Vector], false, Body::Map(body))
}

const fn window(name: &'static str, params: &'static [ValueType], body: fn(&Window<'_>) -> Option<f64>) -> Function {
    function(name, params, true, Body::Window(body))
}

const fn scalar(
    name: &'static str,
    params: &'static [ValueType],
    body: fn(&mut Arguments<'_, '_>) -> Result<Vec<f64>, EvalError>,
) -> Function {
    function(name, params, false, Body::Scalar(body))
}

const fn vector(
    name: &'static str,
    params: &'static [ValueType],
    body: fn(&mut Arguments<'_, '_>) -> Result<Block, EvalError>,
) -> Function {
    function(name, params, false, Body::Vector(body))
}

impl Function {
    const fn optional(self, optional: usize) -> Self {
        Self { optional, ..self }
    }

    const fn variadic(self) -> Self {
        Self { variadic: true, optional: 1, ..self }
    }

    const fn reads_time(self) -> Self {
        Self { reads_time: true, clock: true, ..self }
    }

    const fn clock(self) -> Self {
        Self { clock: true, ..self }
    }

    const fn keeps_name(self) -> Self {
        Self { keeps_name: true, ..self }
    }

    const fn ends_only(self) -> Self {
        Self { scans: false, ..self }
    }

    const fn of_summaries(self, of_summaries: &'static [OfSummary]) -> Self {
        Self { of_summaries, ..self }
    }

    const fn never_separable(self) -> Self {
        Self { separability: Separability::Never, ..self }
    }

    const fn unless_label(self, label: &'static str) -> Self {
        Self { separability: Separability::UnlessLabel(label), ..self }
    }

    const fn only_by(self, labels: &'static [&'static str]) -> Self {
        Self { separability: Separability::OnlyLabels(labels), ..self }
    }

    const fn writes_label(self, argument: usize) -> Self {
        Self { separability: Separability::UnlessArgument(argument), ..self }
    }

    const fn pattern(self, argument: usize) -> Self {
        Self { pattern: Some(argument), ..self }
    }

    /// The type of the result.
    pub(crate) fn returns(&self) -> ValueType {
        if matches!(self.body, Body::Scalar(_)) { Scalar } else { Vector }
    }

    /// Whether a call with these arguments has the same value at every step.
    pub(crate) fn is_constant(&self, arguments: &[Expr]) -> bool {
        !self.reads_now(arguments) && arguments.iter().all(Expr::is_constant)
    }

    /// Whether time alone can change the value of a call whose arguments do not change.
    pub(crate) fn depends_on_clock(&self, arguments: &[Expr]) -> bool {
        self.clock || self.reads_now(arguments)
    }

    /// Dates without an argument are those of the time of evaluation.
    fn reads_now(&self, arguments: &[Expr]) -> bool {
        self.reads_time || (arguments.is_empty() && !self.params.is_empty())
    }

    /// Checks number and types of arguments.
    pub(crate) fn check(&self, arguments: &[Expr], span: Span) -> Result<(), PlanError> {
        let required = self.params.len() - self.optional;
        let too_many = !self.variadic && arguments.len() > self.params.len();
        if arguments.len() < required || too_many {
            let message = format!(
                "wrong number of arguments in call to `{}`: expected {}, got {}",
                self.name,
                self.arity(),
                arguments.len()
            );
            return Err(PlanError::Argument { message, span });
        }
        for (at, argument) in arguments.iter().enumerate() {
            let Some(expected) = self.params.get(at).or(self.params.last()) else { continue };
            let found = argument.value_type();
            if found != *expected {
                let place = format!("call to `{}`", self.name);
                return Err(PlanError::Type { expected: *expected, found, place, span: argument.span() });
            }
        }
        Ok(())
    }

    fn arity(&self) -> String {
        let required = self.params.len() - self.optional;
        match (self.variadic, self.optional) {
            (true, _) => format!("at least {required}"),
            (false, 0) => required.to_string(),
            (false, _) => format!("{required} to {}", self.params.len()),
        }
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The vector of an expression, for functions that look at how their argument is written.
pub(crate) fn as_vector(expr: &Expr) -> Option<&VectorExpr> {
    match expr {
        Expr::Vector(vector) => Some(vector),
        _ => None,
    }
}

/// The range of an expression, for functions that look at how their argument is written.
pub(crate) fn as_range(expr: &Expr) -> Option<&RangeExpr> {
    match expr {
        Expr::Range(range) => Some(range),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_names_each_function_once() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        assert!(PLANNED.iter().all(|name| find(name).is_none()));
    }

    #[test]
    fn the_parser_knows_every_function() {
        for function in FUNCTIONS {
            let arguments: Vec<&str> = function
                .params
                .iter()
                .map(|param| match param {
                    Scalar => "1",
                    Vector => "a",
                    Matrix => "a[5m]",
                    Text => "\"x\"",
                })
                .collect();
            let expression = format!("{}({})", function.name, arguments.join(", "));
            let plan = crate::Plan::parse(&expression);
            assert!(plan.is_ok(), "{expression}: {plan:?}");
        }
    }
}
