//! `label_replace` and `label_join`: labels made of labels.

use crate::eval::{Block, EvalError};
use crate::functions::Arguments;
use crate::labels::METRIC_NAME;
use crate::limits::LABEL_BYTES_MAX;

/// Longest text that is put together before its length is checked against that of a label.
const EXPANSION_BYTES_MAX: usize = 64 * LABEL_BYTES_MAX;

/// Sets a label to a text with parts of another label's value, where that matches a regular expression.
pub(super) fn replace(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    let target = label_name(arguments.text(1)?)?;
    let replacement = arguments.text(2)?;
    let source = arguments.text(3)?;
    let pattern = arguments.pattern()?;
    let references = replacement.matches('$').count();
    let mut block = arguments.vector(0)?;
    for row in block.rows_mut() {
        let text = row.labels.value(source);
        arguments.scan(text.len())?;
        let Some(captures) = pattern.captures(text) else { continue };
        if references.saturating_mul(text.len()) > EXPANSION_BYTES_MAX {
            return Err(EvalError::LabelTooLong(target.to_owned()));
        }
        let mut value = String::new();
        captures.expand(replacement, &mut value);
        row.labels = row.labels.with(target, bounded(target, &value)?);
        arguments.keep_labels(&row.labels)?;
        row.drop_name &= target != METRIC_NAME;
    }
    block.merged()
}

/// Sets a label to the values of others, joined by a separator.
pub(super) fn join(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    let target = label_name(arguments.text(1)?)?;
    let separator = arguments.text(2)?;
    let sources =
        (3..arguments.len()).map(|at| arguments.text(at).and_then(label_name)).collect::<Result<Vec<_>, _>>()?;
    let mut block = arguments.vector(0)?;
    for row in block.rows_mut() {
        let values: Vec<&str> = sources.iter().map(|source| row.labels.value(source)).collect();
        let length = values.iter().map(|value| value.len() + separator.len()).sum::<usize>();
        if length > EXPANSION_BYTES_MAX {
            return Err(EvalError::LabelTooLong(target.to_owned()));
        }
        let value = values.join(separator);
        row.labels = row.labels.with(target, bounded(target, &value)?);
        arguments.keep_labels(&row.labels)?;
        row.drop_name &= target != METRIC_NAME;
    }
    block.merged()
}

fn label_name(name: &str) -> Result<&str, EvalError> {
    if name.is_empty() { Err(EvalError::LabelName(name.to_owned())) } else { Ok(name) }
}

fn bounded<'v>(label: &str, value: &'v str) -> Result<&'v str, EvalError> {
    if value.len() > LABEL_BYTES_MAX { Err(EvalError::LabelTooLong(label.to_owned())) } else { Ok(value) }
}
