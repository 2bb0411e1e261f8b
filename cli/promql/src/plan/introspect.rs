//! What a plan tells about itself, for those who decide when and over what to evaluate it.

use super::node::{
    Aggregate, At, Call, Cardinality, Expr, Matching, RangeExpr, RangeKind, ScalarExpr, ScalarKind, Select, VectorExpr,
    VectorKind,
};
use super::{Plan, PlanOptions};
use crate::Matcher;
use crate::functions::Separability;
use crate::labels::METRIC_NAME;

/// One selector of an expression and the time it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Which series.
    pub matchers: Vec<Matcher>,
    /// How far before the time of evaluation the samples that are needed may lie, in milliseconds: lookback or
    /// range, offsets and enclosing subqueries included. Negative where an offset points only at the future.
    pub before_ms: i64,
    /// How far after the time of evaluation samples may be needed: more than 0 only with a negative offset.
    pub after_ms: i64,
    /// Whether `@` pins the selector to a fixed time or to the start or end of the query; the two figures are then
    /// relative to that time.
    pub pinned: bool,
    /// Whether only the newest sample matters.
    pub last_only: bool,
}

impl Plan {
    /// The selectors of the expression, in the order of the text.
    #[must_use]
    pub fn selectors(&self) -> Vec<Selector> {
        let mut found = Vec::new();
        let walk = Walk { options: self.options, reach: Reach::default() };
        walk.expr(&self.root, &mut found);
        found
    }

    /// Whether the expression is a plain selector such as `up{job="x"}` and nothing more.
    #[must_use]
    pub fn is_instant_selector(&self) -> bool {
        matches!(&self.root, Expr::Vector(vector) if matches!(vector.kind, VectorKind::Select(_)))
    }

    /// Whether the expression can be evaluated for each value of a label separately, on the series that have that
    /// value, and the results put together.
    ///
    /// True only where it is certain. Selectors, functions of one series, arithmetic with numbers keep series
    /// apart; so do matching and aggregation that keep the label (`by (instance)`, `without (gpu)`, `on (instance)`,
    /// `ignoring (gpu)`). `absent`, `scalar`, `vector`, sorting, a ranking over all and whatever writes the label do
    /// not, and neither does an expression that selects nothing: each part would repeat it.
    #[must_use]
    pub fn is_separable_by(&self, label: &str) -> bool {
        match &self.root {
            Expr::Vector(vector) => label != METRIC_NAME && vector_separable(vector, label),
            Expr::Range(range) => label != METRIC_NAME && range_separable(range, label),
            Expr::Scalar(_) | Expr::Text(_) => false,
        }
    }

    /// Whether the result may change with time alone, while no selected series gets a new sample.
    ///
    /// False only for expressions made of plain instant selectors (without `offset` and `@`), numbers, arithmetic,
    /// comparison, set operations, aggregations and functions that look at values alone: these change when a sample
    /// (a stale marker is one) arrives. One change they do not tell of: a series that just stops, without a
    /// marker, leaves the result when the lookback is over. `absent`, `time`, `timestamp`, dates of the present,
    /// everything over a range or a subquery, `offset` and `@` depend on the clock.
    #[must_use]
    pub fn depends_on_clock(&self) -> bool {
        expr_clock(&self.root)
    }
}

/// The time that enclosing nodes add to what a selector needs.
#[derive(Debug, Clone, Copy, Default)]
struct Reach {
    before_ms: i64,
    after_ms: i64,
    pinned: bool,
    repeated: bool,
}

impl Reach {
    fn moved(self, offset_ms: i64, at: Option<At>) -> Self {
        let base = if at.is_some() { Self { pinned: true, repeated: self.repeated, ..Self::default() } } else { self };
        Self { before_ms: base.before_ms + offset_ms, after_ms: base.after_ms - offset_ms, ..base }
    }
}

#[derive(Clone, Copy)]
struct Walk {
    options: PlanOptions,
    reach: Reach,
}

impl Walk {
    fn expr(&self, expr: &Expr, found: &mut Vec<Selector>) {
        match expr {
            Expr::Scalar(scalar) => self.scalar(scalar, found),
            Expr::Vector(vector) => self.vector(vector, found),
            Expr::Range(range) => self.range(range, found),
            Expr::Text(_) => {}
        }
    }

    fn scalar(&self, scalar: &ScalarExpr, found: &mut Vec<Selector>) {
        let mut rest = Vec::new();
        let mut scalar = scalar;
        loop {
            match &scalar.kind {
                ScalarKind::Number(_) => break,
                ScalarKind::Negate(inner) => scalar = inner,
                ScalarKind::Binary { lhs, rhs, .. } => {
                    rest.push(rhs);
                    scalar = lhs;
                }
                ScalarKind::Call(call) => {
                    call.arguments.iter().for_each(|argument| self.expr(argument, found));
                    break;
                }
            }
        }
        rest.into_iter().rev().for_each(|operand| self.scalar(operand, found));
    }

    fn vector(&self, vector: &VectorExpr, found: &mut Vec<Selector>) {
        enum Operand<'a> {
            Scalar(&'a ScalarExpr),
            Vector(&'a VectorExpr),
        }
        let mut rest = Vec::new();
        let mut vector = vector;
        loop {
            match &vector.kind {
                VectorKind::Select(select) => break self.select(select, found),
                VectorKind::Negate(inner) => vector = inner,
                VectorKind::WithScalar { vector: inner, scalar, scalar_left, .. } => {
                    if *scalar_left {
                        self.scalar(scalar, found);
                    } else {
                        rest.push(Operand::Scalar(scalar));
                    }
                    vector = inner;
                }
                VectorKind::Binary { lhs, rhs, .. } | VectorKind::Set { lhs, rhs, .. } => {
                    rest.push(Operand::Vector(rhs));
                    vector = lhs;
                }
                VectorKind::Aggregate(aggregate) => {
                    aggregate.parameter.iter().for_each(|parameter| self.expr(parameter, found));
                    vector = &aggregate.inner;
                }
                VectorKind::Call(call) => {
                    break call.arguments.iter().for_each(|argument| self.expr(argument, found));
                }
            }
        }
        for operand in rest.into_iter().rev() {
            match operand {
                Operand::Scalar(scalar) => self.scalar(scalar, found),
                Operand::Vector(vector) => self.vector(vector, found),
            }
        }
    }

    fn select(&self, select: &Select, found: &mut Vec<Selector>) {
        let reach = self.reach.moved(select.offset_ms, select.at);
        found.push(Selector {
            matchers: select.matchers.to_vec(),
            before_ms: reach.before_ms + self.options.lookback_ms,
            after_ms: reach.after_ms,
            pinned: reach.pinned,
            last_only: !reach.repeated || select.at.is_some(),
        });
    }

    fn range(&self, range: &RangeExpr, found: &mut Vec<Selector>) {
        let mut reach = self.reach.moved(range.offset_ms, range.at);
        reach.before_ms += range.range_ms;
        match &range.kind {
            RangeKind::Select { matchers, .. } => found.push(Selector {
                matchers: matchers.to_vec(),
                before_ms: reach.before_ms,
                after_ms: reach.after_ms,
                pinned: reach.pinned,
                last_only: false,
            }),
            RangeKind::Subquery { inner, .. } => {
                Self { options: self.options, reach: Reach { repeated: true, ..reach } }.vector(inner, found);
            }
        }
    }
}

fn vector_separable(vector: &VectorExpr, label: &str) -> bool {
    let mut vector = vector;
    loop {
        vector = match &vector.kind {
            VectorKind::Select(_) => return true,
            VectorKind::Negate(inner) => inner,
            VectorKind::WithScalar { vector: inner, scalar, .. } => {
                if !scalar_selects_nothing(scalar) {
                    return false;
                }
                inner
            }
            VectorKind::Binary { matching, lhs, rhs, .. } => {
                if !matching_separable(matching, label) || !vector_separable(rhs, label) {
                    return false;
                }
                lhs
            }
            VectorKind::Set { on, lhs, rhs, .. } => {
                if !on.keeps(label) || !vector_separable(rhs, label) {
                    return false;
                }
                lhs
            }
            VectorKind::Aggregate(aggregate) => return aggregate_separable(aggregate, label),
            VectorKind::Call(call) => return call_separable(call, label),
        };
    }
}

fn matching_separable(matching: &Matching, label: &str) -> bool {
    let included = matching.include.iter().any(|name| **name == *label);
    let one_to_one = matching.cardinality == Cardinality::OneToOne;
    matching.on.keeps(label) && (one_to_one || !included)
}

fn aggregate_separable(aggregate: &Aggregate, label: &str) -> bool {
    let parameter_writes = match &aggregate.parameter {
        Some(Expr::Text(text)) => *text.text == *label,
        Some(Expr::Scalar(scalar)) => !scalar_selects_nothing(scalar),
        _ => false,
    };
    aggregate.group.keeps(label) && !parameter_writes && vector_separable(&aggregate.inner, label)
}

fn call_separable(call: &Call, label: &str) -> bool {
    let writes = |at: usize| match call.arguments.get(at) {
        Some(Expr::Text(text)) => *text.text == *label,
        _ => true,
    };
    let allowed = match call.function.separability {
        Separability::EachSeries => true,
        Separability::UnlessLabel(name) => name != label,
        Separability::OnlyLabels(names) => names.contains(&label),
        Separability::UnlessArgument(at) => !writes(at),
        Separability::Never => false,
    };
    let selects = call.arguments.iter().any(|argument| matches!(argument, Expr::Vector(_) | Expr::Range(_)));
    allowed
        && selects
        && call.arguments.iter().all(|argument| match argument {
            Expr::Scalar(scalar) => scalar_selects_nothing(scalar),
            Expr::Vector(vector) => vector_separable(vector, label),
            Expr::Range(range) => range_separable(range, label),
            Expr::Text(_) => true,
        })
}

fn range_separable(range: &RangeExpr, label: &str) -> bool {
    match &range.kind {
        RangeKind::Select { .. } => true,
        RangeKind::Subquery { inner, .. } => vector_separable(inner, label),
    }
}

/// Whether a scalar is made of numbers and time alone, and so is the same for every part.
fn scalar_selects_nothing(scalar: &ScalarExpr) -> bool {
    let mut scalar = scalar;
    loop {
        scalar = match &scalar.kind {
            ScalarKind::Number(_) => return true,
            ScalarKind::Negate(inner) => inner,
            ScalarKind::Binary { lhs, rhs, .. } => {
                if !scalar_selects_nothing(rhs) {
                    return false;
                }
                lhs
            }
            ScalarKind::Call(call) => {
                return call
                    .arguments
                    .iter()
                    .all(|argument| matches!(argument, Expr::Scalar(inner) if scalar_selects_nothing(inner)));
            }
        };
    }
}

fn expr_clock(expr: &Expr) -> bool {
    match expr {
        Expr::Scalar(scalar) => scalar_clock(scalar),
        Expr::Vector(vector) => vector_clock(vector),
        Expr::Range(_) => true,
        Expr::Text(_) => false,
    }
}

fn scalar_clock(scalar: &ScalarExpr) -> bool {
    let mut scalar = scalar;
    loop {
        scalar = match &scalar.kind {
            ScalarKind::Number(_) => return false,
            ScalarKind::Negate(inner) => inner,
            ScalarKind::Binary { lhs, rhs, .. } => {
                if scalar_clock(rhs) {
                    return true;
                }
                lhs
            }
            ScalarKind::Call(call) => return call_clock(call),
        };
    }
}

fn vector_clock(vector: &VectorExpr) -> bool {
    let mut vector = vector;
    loop {
        vector = match &vector.kind {
            VectorKind::Select(select) => return select.offset_ms != 0 || select.at.is_some(),
            VectorKind::Negate(inner) => inner,
            VectorKind::WithScalar { vector: inner, scalar, .. } => {
                if scalar_clock(scalar) {
                    return true;
                }
                inner
            }
            VectorKind::Binary { lhs, rhs, .. } | VectorKind::Set { lhs, rhs, .. } => {
                if vector_clock(rhs) {
                    return true;
                }
                lhs
            }
            VectorKind::Aggregate(aggregate) => {
                if aggregate.parameter.as_ref().is_some_and(expr_clock) {
                    return true;
                }
                &aggregate.inner
            }
            VectorKind::Call(call) => return call_clock(call),
        };
    }
}

fn call_clock(call: &Call) -> bool {
    call.function.depends_on_clock(&call.arguments) || call.arguments.iter().any(expr_clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(expression: &str) -> Plan {
        Plan::parse(expression).expect("a valid expression")
    }

    fn check_reach(expression: &str, expected: &[(i64, i64, bool, bool)]) {
        let selectors = plan(expression).selectors();
        let seen: Vec<_> =
            selectors.iter().map(|s| (s.before_ms / 1000, s.after_ms / 1000, s.pinned, s.last_only)).collect();
        assert_eq!(seen, expected, "{expression}");
    }

    #[test]
    fn reach_adds_up_lookback_range_offset_and_subquery() {
        check_reach("a", &[(300, 0, false, true)]);
        check_reach("a offset 1m", &[(360, -60, false, true)]);
        check_reach("a offset -1m", &[(240, 60, false, true)]);
        check_reach("rate(a[2m]) + b", &[(120, 0, false, false), (300, 0, false, true)]);
        check_reach("max_over_time(rate(a[1m])[10m:1m] offset 5m)", &[(960, -300, false, false)]);
        check_reach("max_over_time((a + b @ 7)[10m:])", &[(900, 0, false, false), (300, 0, true, true)]);
    }

    #[test]
    fn separable_expressions() {
        for expression in [
            "a",
            "-a * 2 > 1",
            "a / b",
            "a / on(instance, gpu) b",
            "a / ignoring(gpu) b",
            "a * on(instance) group_left(version) b",
            "sum by (instance, gpu) (rate(a[1m]))",
            "sum without (gpu) (a)",
            "topk by (instance) (1, a)",
            "a and on(instance) b unless c",
            "max_over_time(rate(a[1m])[10m:])",
            "label_replace(a, \"x\", \"$1\", \"y\", \"(.*)\")",
            "time() - a > 5",
        ] {
            assert!(plan(expression).is_separable_by("instance"), "{expression}");
        }
    }

    #[test]
    fn inseparable_expressions() {
        for expression in [
            "sum(a)",
            "sum by (gpu) (a)",
            "sum without (instance) (a)",
            "topk(3, a)",
            "a / on(gpu) b",
            "a / ignoring(instance) b",
            "a * on(gpu) group_left(instance) b",
            "absent(a)",
            "absent_over_time(a[5m])",
            "a > scalar(b)",
            "vector(1)",
            "a or vector(1)",
            "time()",
            "label_replace(a, \"instance\", \"$1\", \"y\", \"(.*)\")",
            "sort(a)",
        ] {
            assert!(!plan(expression).is_separable_by("instance"), "{expression}");
        }
        assert!(!plan("a").is_separable_by("__name__"));
    }

    #[test]
    fn what_depends_on_the_clock() {
        for expression in
            ["a", "a * 2 > b", "sum by (x) (a)", "clamp_max(a, 5) unless b", "topk(3, a)", "1 + 2", "abs(a)"]
        {
            assert!(!plan(expression).depends_on_clock(), "{expression}");
        }
        for expression in [
            "absent(a)",
            "absent_over_time(a[5m])",
            "time()",
            "a > time()",
            "timestamp(a)",
            "rate(a[1m])",
            "a offset 1m",
            "a @ 5",
            "a + max_over_time(b[1m:])",
            "hour()",
            "topk(scalar(a offset 1m), b)",
        ] {
            assert!(plan(expression).depends_on_clock(), "{expression}");
        }
    }
}
