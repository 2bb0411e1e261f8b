//! `absent` and `absent_over_time`: a series where there is none.

use std::collections::BTreeMap;

use crate::eval::{Block, EvalError, is_absent};
use crate::functions::{Arguments, as_range, as_vector};
use crate::labels::METRIC_NAME;
use crate::plan::{Expr, RangeKind, VectorKind};
use crate::{Labels, MatchOp, Matcher, STALE_NAN};

/// 1 at the steps at which the vector is empty.
pub(super) fn absent(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    let block = arguments.vector(0)?;
    Ok(complement(&block, &labels_of(arguments.expr(0)?)))
}

/// 1 at the steps at which no series has a sample in the range.
pub(super) fn absent_over_time(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    let block = arguments.windows(0, |_, _| Some(1.0))?;
    Ok(complement(&block, &labels_of(arguments.expr(0)?)))
}

fn complement(block: &Block, labels: &Labels) -> Block {
    let mut missing = vec![1.0; block.steps()];
    for values in block.values() {
        for (missing, &value) in missing.iter_mut().zip(values) {
            if !is_absent(value) {
                *missing = STALE_NAN;
            }
        }
    }
    let mut result = Block::new(block.steps());
    result.push_if_present(labels, false, missing.into_iter());
    result
}

/// The labels that the missing series would certainly have: those that a selector pins to one value.
fn labels_of(expr: &Expr) -> Labels {
    let matchers: &[Matcher] =
        match (as_vector(expr).map(|vector| &vector.kind), as_range(expr).map(|range| &range.kind)) {
            (Some(VectorKind::Select(select)), _) => &select.matchers,
            (_, Some(RangeKind::Select { matchers, .. })) => matchers,
            _ => return Labels::empty(),
        };
    let mut pinned: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for matcher in matchers.iter().filter(|matcher| matcher.name() != METRIC_NAME) {
        let value = (matcher.op() == MatchOp::Equal).then(|| matcher.value());
        pinned.entry(matcher.name()).and_modify(|pinned| *pinned = None).or_insert(value);
    }
    Labels::from_pairs(pinned.into_iter().filter_map(|(name, value)| Some((name, value?))))
}
