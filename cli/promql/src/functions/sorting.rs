//! Sorting of instant results. Over a range the order of series means nothing, and nothing is sorted.

use std::cmp::Ordering;

use crate::Labels;
use crate::eval::{Block, EvalError};
use crate::functions::Arguments;

/// By value, NaN last.
pub(super) fn sort(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    by_value(arguments, f64::total_cmp)
}

/// By value descending, NaN last.
pub(super) fn sort_desc(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    by_value(arguments, |a, b| b.total_cmp(a))
}

/// By the values of labels, digits in them taken as numbers.
pub(super) fn by_label(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    by_labels(arguments, |ordering| ordering)
}

/// By the values of labels descending, digits in them taken as numbers.
pub(super) fn by_label_desc(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    by_labels(arguments, Ordering::reverse)
}

fn by_value(arguments: &mut Arguments<'_, '_>, compare: impl Fn(&f64, &f64) -> Ordering) -> Result<Block, EvalError> {
    let block = arguments.vector(0)?;
    Ok(sorted(block, |_, (_, a), (_, b)| match (a.is_nan(), b.is_nan()) {
        (false, false) => compare(a, b),
        (a_nan, b_nan) => a_nan.cmp(&b_nan),
    }))
}

fn by_labels(arguments: &mut Arguments<'_, '_>, direction: impl Fn(Ordering) -> Ordering) -> Result<Block, EvalError> {
    let block = arguments.vector(0)?;
    let names = (1..arguments.len()).map(|at| arguments.text(at)).collect::<Result<Vec<_>, _>>()?;
    Ok(sorted(block, |labels, (a, _), (b, _)| {
        let (Some(a), Some(b)) = (labels.get(*a), labels.get(*b)) else { return Ordering::Equal };
        let by_names = names.iter().map(|name| natural(a.value(name), b.value(name)));
        direction(by_names.fold(Ordering::Equal, Ordering::then).then_with(|| a.cmp(b)))
    }))
}

fn sorted(block: Block, compare: impl Fn(&[Labels], &(usize, f64), &(usize, f64)) -> Ordering) -> Block {
    if block.steps() != 1 {
        return block;
    }
    let labels: Vec<Labels> = block.rows().iter().map(|row| row.labels.clone()).collect();
    let mut order: Vec<(usize, f64)> =
        block.values().map(|values| values.first().copied().unwrap_or(f64::NAN)).enumerate().collect();
    order.sort_by(|a, b| compare(&labels, a, b));
    let order: Vec<usize> = order.into_iter().map(|(row, _)| row).collect();
    block.reordered(&order)
}

/// Compares texts piece by piece, runs of digits as numbers: `gpu9` before `gpu10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    while !a.is_empty() && !b.is_empty() {
        let (piece_a, piece_b);
        (piece_a, a) = split_piece(a);
        (piece_b, b) = split_piece(b);
        let ordering = match (digits(piece_a), digits(piece_b)) {
            (Some(a), Some(b)) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
            _ => piece_a.cmp(piece_b),
        };
        if ordering.is_ne() {
            return ordering;
        }
    }
    a.len().cmp(&b.len())
}

/// A number of any length, without the zeros before it.
fn digits(piece: &str) -> Option<&str> {
    piece.starts_with(|c: char| c.is_ascii_digit()).then(|| piece.trim_start_matches('0'))
}

fn split_piece(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_compare_as_numbers() {
        for (a, b) in [("gpu9", "gpu10"), ("a", "b"), ("a", "a1"), ("1.2.9", "1.2.10"), ("", "a"), ("a2b", "a10a")] {
            assert_eq!(natural(a, b), Ordering::Less, "{a} {b}");
            assert_eq!(natural(b, a), Ordering::Greater, "{b} {a}");
        }
        assert_eq!(natural("gpu1", "gpu1"), Ordering::Equal);
        let ascending = ["5", "10", "1000000000000000000000000", "1000000000000000000000001"];
        assert!(ascending.is_sorted_by(|a, b| natural(a, b) == Ordering::Less));
    }
}
