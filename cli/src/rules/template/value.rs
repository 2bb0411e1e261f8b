//! Values that templates compute with.

use std::borrow::Cow;
use std::cmp::Ordering;

use belfry_promql::Labels;

use super::format;

/// A value. Numbers of the data are floats; whole numbers come from the template's text.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    Integer(i64),
    Bool(bool),
    Labels(&'a Labels),
}

impl<'a> Value<'a> {
    pub(super) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    /// As Go prints it: `%v`.
    pub(super) fn shown(&self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => format::shortest(*number).into(),
            Self::Integer(number) => number.to_string().into(),
            Self::Bool(truth) => truth.to_string().into(),
            Self::Labels(labels) => {
                let pairs: Vec<_> = labels.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                format!("map[{}]", pairs.join(" ")).into()
            }
        }
    }

    /// Go's name of the type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Number(_) => "float64",
            Self::Integer(_) => "int",
            Self::Bool(_) => "bool",
            Self::Labels(_) => "map[string]string",
        }
    }

    /// What `if`, `and`, `or` and `not` take for true: anything but the empty and the zero.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Number(number) => *number != 0.0,
            Self::Integer(number) => *number != 0,
            Self::Bool(truth) => *truth,
            Self::Labels(labels) => !labels.is_empty(),
        }
    }

    /// The number this is or spells.
    pub(super) fn number(&self) -> Result<f64, String> {
        match self {
            Self::Number(number) => Ok(*number),
            #[expect(clippy::cast_precision_loss, reason = "as Go converts")]
            Self::Integer(number) => Ok(*number as f64),
            Self::Text(text) => text.parse().map_err(|_| format!("{text:?} is no number")),
            Self::Bool(_) | Self::Labels(_) => Err(format!("a {} is no number", self.type_name())),
        }
    }

    /// How two values compare; nothing for a NaN, an error for values of different kinds.
    pub(super) fn compare(&self, other: &Self) -> Result<Option<Ordering>, String> {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => Ok(Some(a.cmp(b))),
            (Self::Bool(a), Self::Bool(b)) => Ok(Some(a.cmp(b))),
            (Self::Integer(a), Self::Integer(b)) => Ok(Some(a.cmp(b))),
            (Self::Number(_) | Self::Integer(_), Self::Number(_) | Self::Integer(_)) => {
                Ok(self.number()?.partial_cmp(&other.number()?))
            }
            _ => Err(format!("cannot compare a {} with a {}", self.type_name(), other.type_name())),
        }
    }
}
