//! Aggregations that keep some of the rows: the best, the first, or a share of them.

use super::aggregate::{Groups, present_at};
use super::{ABSENT, Block, EvalError, Evaluator};
use crate::Labels;
use crate::functions::Aggregation;

/// `topk` and `bottomk`: at one step also sorted, best first; over a range rows stay in their order.
pub(super) fn best(
    evaluator: &Evaluator<'_>,
    op: Aggregation,
    block: Block,
    groups: &Groups,
    parameter: &[f64],
) -> Result<Block, EvalError> {
    let better = |a: f64, b: f64| match (a.is_nan(), b.is_nan()) {
        (false, false) if op == Aggregation::Topk => b.total_cmp(&a),
        (false, false) => a.total_cmp(&b),
        (a_nan, b_nan) => a_nan.cmp(&b_nan),
    };
    let labels = |row: usize| block.rows().get(row).map(|row| &row.labels);
    let single = block.steps() == 1;
    let mut order = Vec::new();
    let chosen = choose(evaluator, &block, groups, parameter, |candidates, count| {
        // Adding zero makes both zeros equal; among equals labels decide, so that no order of reading matters.
        let compare = |(row_a, a): &(usize, f64), (row_b, b): &(usize, f64)| {
            better(*a + 0.0, *b + 0.0).then_with(|| labels(*row_a).cmp(&labels(*row_b))).then(row_a.cmp(row_b))
        };
        if count < candidates.len() {
            candidates.select_nth_unstable_by(count, compare);
            candidates.truncate(count);
        }
        candidates.sort_unstable_by(compare);
        if single {
            order.extend(candidates.iter().map(|(row, _)| *row));
        }
    })?;
    Ok(if single { block.reordered(&order) } else { masked(block, &chosen) })
}

/// `limitk`: the first rows of each group.
pub(super) fn first(
    evaluator: &Evaluator<'_>,
    block: Block,
    groups: &Groups,
    parameter: &[f64],
) -> Result<Block, EvalError> {
    let chosen = choose(evaluator, &block, groups, parameter, |candidates, count| candidates.truncate(count))?;
    Ok(masked(block, &chosen))
}

/// Lets `pick` thin out the candidates of each group at each step; true in the result for those left.
fn choose(
    evaluator: &Evaluator<'_>,
    block: &Block,
    groups: &Groups,
    parameter: &[f64],
    mut pick: impl FnMut(&mut Vec<(usize, f64)>, usize),
) -> Result<Vec<bool>, EvalError> {
    let steps = block.steps();
    let mut chosen = vec![false; steps.saturating_mul(block.rows().len())];
    let counts = parameter.iter().map(|&k| row_count(k)).collect::<Result<Vec<_>, _>>()?;
    let mut candidates = Vec::new();
    for group in &groups.list {
        for (step, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            evaluator.check_cancelled()?;
            candidates.clear();
            candidates.extend(present_at(block, group, step));
            pick(&mut candidates, count);
            for (row, _) in &candidates {
                if let Some(chosen) = chosen.get_mut(row * steps + step) {
                    *chosen = true;
                }
            }
        }
    }
    Ok(chosen)
}

/// How many rows a parameter asks for.
fn row_count(k: f64) -> Result<usize, EvalError> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if k.is_nan() {
        return Err(EvalError::Parameter("Parameter value is NaN"));
    }
    if !(-LIMIT..LIMIT).contains(&k) {
        return Err(EvalError::Parameter("Scalar value does not fit a whole number"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "negative counts mean none")]
    Ok(k.max(0.0) as usize)
}

fn masked(mut block: Block, chosen: &[bool]) -> Block {
    let steps = block.steps();
    for (values, chosen) in block.values_mut().zip(chosen.chunks_exact(steps)) {
        for (value, &chosen) in values.iter_mut().zip(chosen) {
            if !chosen {
                *value = ABSENT;
            }
        }
    }
    block.retain_present();
    block
}

/// `limit_ratio`: a share of the series, chosen by a hash of their labels, so that it is the same each time. A negative ratio chooses
/// exactly those that its complement leaves.
pub(super) fn share(mut block: Block, parameter: &[f64]) -> Result<Block, EvalError> {
    if parameter.iter().any(|ratio| ratio.is_nan()) {
        return Err(EvalError::Parameter("Ratio value is NaN"));
    }
    let places: Vec<f64> = block.rows().iter().map(|row| place(&row.labels)).collect();
    for (values, place) in block.values_mut().zip(places) {
        for (value, ratio) in values.iter_mut().zip(parameter.iter().map(|ratio| ratio.clamp(-1.0, 1.0))) {
            let chosen = if ratio >= 0.0 { place < ratio } else { place >= 1.0 + ratio };
            if !chosen {
                *value = ABSENT;
            }
        }
    }
    block.retain_present();
    Ok(block)
}

/// A number from 0 to below 1 that a set of labels always has: FNV-1a, its bits spread by a multiplicative mix.
fn place(labels: &Labels) -> f64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let bytes =
        labels.iter().flat_map(|(name, value)| [name.bytes(), "\u{ff}".bytes(), value.bytes(), "\u{ff}".bytes()]);
    for byte in bytes.flatten() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^= hash >> 33;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let place = (hash >> 11) as f64 / (1_u64 << 53) as f64;
    place
}
