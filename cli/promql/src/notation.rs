//! Series as Prometheus writes them in tests: `up{job="node"}` and `1 2+3x4 _ stale`.
//!
//! Source: "Series" of Prometheus' documentation on unit testing of rules, and the format of its promqltest scripts.

use crate::plan::{Expr, Plan, PlanError, VectorKind};
use crate::{Labels, MatchOp, STALE_NAN};

/// Most samples that one text may stand for.
const SAMPLES_MAX: usize = 10_000_000;

/// Why a text is no series.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotationError {
    /// The text is no selector.
    #[error(transparent)]
    Selector(#[from] PlanError),
    /// The text selects more than one series.
    #[error("labels must be given as `name=\"value\"`, and nothing may follow them")]
    NotLabels,
    /// A word of a list of values is neither a number nor anything else that may stand there.
    #[error("malformed value `{word}`")]
    Value {
        /// The word.
        word: String,
        /// Its place in the text, in bytes.
        offset: usize,
    },
    /// The values are native histograms, which this engine does not have.
    #[error("native histograms are not supported")]
    NativeHistogram {
        /// Where the first begins, in bytes.
        offset: usize,
    },
    /// The text stands for too many samples.
    #[error("more than {SAMPLES_MAX} values")]
    TooMany,
}

impl NotationError {
    /// Where in the text the error is, in bytes.
    #[must_use]
    pub fn offset(&self) -> usize {
        match self {
            Self::Selector(error) => error.span().map_or(0, |span| span.start),
            Self::Value { offset, .. } | Self::NativeHistogram { offset } => *offset,
            Self::NotLabels | Self::TooMany => 0,
        }
    }
}

/// The labels that a text such as `up{job="node"}` or `{__name__="up"}` names; `{}` names none.
///
/// # Errors
/// The text is no selector, or its matchers leave open which series is meant.
pub fn labels(text: &str) -> Result<Labels, NotationError> {
    let is_empty = text
        .trim()
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|inner| inner.trim().is_empty());
    if is_empty {
        return Ok(Labels::empty());
    }
    let plan = Plan::parse(text)?;
    let Expr::Vector(vector) = &plan.root else { return Err(NotationError::NotLabels) };
    match &vector.kind {
        VectorKind::Select(select) if select.offset_ms == 0 && select.at.is_none() => {
            let matchers = select.matchers.iter();
            let pairs: Option<Vec<_>> = matchers
                .map(|matcher| (matcher.op() == MatchOp::Equal).then(|| (matcher.name(), matcher.value())))
                .collect();
            Ok(Labels::from_pairs(pairs.ok_or(NotationError::NotLabels)?))
        }
        _ => Err(NotationError::NotLabels),
    }
}

/// The values that a text stands for, one per interval; nothing where there is no sample.
///
/// A word is a number, `_` for no sample, or `stale` for a stale marker. `2x3` is 2 and three more of it, `2+1x3` and `2-1x3` add
/// or subtract each time, `_x3` leaves out three.
///
/// # Errors
/// A word is none of these, or there are more than ten million values.
pub fn values(text: &str) -> Result<Vec<Option<f64>>, NotationError> {
    if let Some(offset) = text.find("{{") {
        return Err(NotationError::NativeHistogram { offset });
    }
    let mut values = Vec::new();
    let mut at = 0;
    for word in text.split_whitespace() {
        let offset = at + text.get(at..).and_then(|rest| rest.find(word)).unwrap_or_default();
        at = offset + word.len();
        let malformed = || NotationError::Value { word: word.to_owned(), offset };
        let Repeated { first, step, more } = repeated(word).ok_or_else(malformed)?;
        if more.saturating_add(values.len()) > SAMPLES_MAX {
            return Err(NotationError::TooMany);
        }
        match first {
            Some(mut value) => {
                for _ in 0..=more {
                    values.push(Some(value));
                    value += step;
                }
            }
            None => values.extend(std::iter::repeat_n(None, more)),
        }
    }
    Ok(values)
}

/// A value and how often another follows; of what is left out how often.
struct Repeated {
    first: Option<f64>,
    step: f64,
    more: usize,
}

fn repeated(word: &str) -> Option<Repeated> {
    let (base, more) = match word.rsplit_once('x') {
        Some((base, more)) => (base, Some(more.parse().ok()?)),
        None => (word, None),
    };
    match base {
        "_" => return Some(Repeated { first: None, step: 0.0, more: more.unwrap_or(1) }),
        "stale" => return Some(Repeated { first: Some(STALE_NAN), step: 0.0, more: more.unwrap_or(0) }),
        _ => {}
    }
    let is_sign = |&(at, c): &(usize, char)| {
        let exponent = base.get(..at).is_some_and(|before| before.ends_with(['e', 'E']));
        matches!(c, '+' | '-') && !exponent
    };
    let sign = base.char_indices().skip(1).find(is_sign).filter(|_| more.is_some());
    let (first, step) = match sign {
        Some((at, _)) => (number(base.get(..at)?)?, number(base.get(at..)?)?),
        None => (number(base)?, 0.0),
    };
    Some(Repeated { first: Some(first), step, more: more.unwrap_or(0) })
}

fn number(text: &str) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    match lower.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok().map(f64::from),
        None => lower.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_out() {
        let check =
            |text: &str, expected: &[Option<f64>]| assert_eq!(values(text).expect("values"), expected, "{text}");
        let some = |values: &[f64]| -> Vec<Option<f64>> { values.iter().copied().map(Some).collect() };
        check("1 -2 +Inf 1e3", &some(&[1.0, -2.0, f64::INFINITY, 1_000.0]));
        check("1x2 0+10x3", &some(&[1.0, 1.0, 1.0, 0.0, 10.0, 20.0, 30.0]));
        check("5-2x2 -3-1e1x1", &some(&[5.0, 3.0, 1.0, -3.0, -13.0]));
        check("_ 1 _x2", &[None, Some(1.0), None, None]);
        check("", &[]);
        let stale = values("1 stale").expect("values");
        assert!(stale[1].is_some_and(crate::is_stale));
    }

    #[test]
    fn malformed_values_are_refused_with_their_place() {
        let place = |text: &str| values(text).expect_err("no values").offset();
        assert_eq!((place("1 2 zwei 3"), place("1  1+x3"), place("1x-1")), (4, 3, 0));
        assert!(matches!(values("{{count:1}}"), Err(NotationError::NativeHistogram { offset: 0 })));
        assert!(matches!(values("1x10 1x99999999999"), Err(NotationError::TooMany)));
    }

    #[test]
    fn labels_are_those_of_one_series() {
        let found = labels(r#"up{job="a \"b\"", instance=~"x"}"#);
        assert!(matches!(found, Err(NotationError::NotLabels)));
        let found = labels(r#"up{job="a \"b\"", instance='x'}"#).expect("labels");
        assert_eq!(found, Labels::from_pairs([("__name__", "up"), ("instance", "x"), ("job", "a \"b\"")]));
        assert_eq!(labels(" { } ").expect("labels"), Labels::empty());
        assert!(matches!(labels("up offset 5m"), Err(NotationError::NotLabels)));
        assert!(matches!(labels("up + up"), Err(NotationError::NotLabels)));
        assert_eq!(labels("{ x").expect_err("no labels").offset(), 0);
    }
}
