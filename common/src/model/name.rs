//! Which names are accepted from outside.

use std::{fmt, str::FromStr, sync::Arc};

use thiserror::Error;

use crate::limits;

/// A name that was refused, and why.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// A node's name is empty, too long or has characters outside the set.
    #[error(
        "node name {0:?} is not valid: it must start with a letter or digit, continue with letters, digits, `.`, `_` or `-`, and have at most {max} characters",
        max = limits::NODE_NAME_BYTES_MAX
    )]
    Node(String),
    /// A metric's name is not Prometheus'.
    #[error("metric name {0:?} is not valid: it must match [a-zA-Z_:][a-zA-Z0-9_:]* and have at most {max} characters", max = limits::METRIC_NAME_BYTES_MAX)]
    Metric(String),
    /// A label's name is not Prometheus'.
    #[error("label name {0:?} is not valid: it must match [a-zA-Z_][a-zA-Z0-9_]*, not start with `__`, and have at most {max} characters", max = limits::LABEL_NAME_BYTES_MAX)]
    Label(String),
    /// A label's value is too long.
    #[error("label value of {length} bytes is longer than {max}", max = limits::LABEL_VALUE_BYTES_MAX)]
    LabelValue {
        /// Its length in bytes.
        length: usize,
    },
}

/// The name of a node or user in certificates, labels and output: `[A-Za-z0-9][A-Za-z0-9._-]{0,252}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Turns any host name into a valid node name by replacing what is not allowed with `-`.
    #[must_use]
    pub fn from_host_name(host: &str) -> Self {
        let mut name: String = host
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
            .take(limits::NODE_NAME_BYTES_MAX)
            .collect();
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            name.insert_str(0, "node");
            name.truncate(limits::NODE_NAME_BYTES_MAX);
        }
        Self(name.into())
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if first && rest && text.len() <= limits::NODE_NAME_BYTES_MAX {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Node(excerpt(text)))
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Accepts Prometheus' classic metric names.
///
/// # Errors
/// [`NameError::Metric`] for anything else.
pub fn check_metric_name(name: &str) -> Result<(), NameError> {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | ':'));
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'));
    if first && rest && name.len() <= limits::METRIC_NAME_BYTES_MAX {
        Ok(())
    } else {
        Err(NameError::Metric(excerpt(name)))
    }
}

/// Accepts Prometheus' classic label names that are not reserved.
///
/// # Errors
/// [`NameError::Label`] for anything else.
pub fn check_label_name(name: &str) -> Result<(), NameError> {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !name.starts_with("__");
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if first && rest && name.len() <= limits::LABEL_NAME_BYTES_MAX {
        Ok(())
    } else {
        Err(NameError::Label(excerpt(name)))
    }
}

/// Accepts any text up to its limit: a device may be called anything. Output for people escapes it.
///
/// # Errors
/// [`NameError::LabelValue`] when it is too long.
pub fn check_label_value(value: &str) -> Result<(), NameError> {
    if value.len() <= limits::LABEL_VALUE_BYTES_MAX {
        Ok(())
    } else {
        Err(NameError::LabelValue { length: value.len() })
    }
}

/// Enough of a refused name to recognise it.
fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_cannot_leave_their_directory_or_the_line() {
        for bad in ["", ".", "..", "../../x", "a/b", "-o", "a b", "a\u{1b}[31m", "a\u{202e}b", "ä", &"a".repeat(254)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
        for good in ["gpu-01", "a", "0.rack_3-x", &"a".repeat(253)] {
            assert!(good.parse::<NodeName>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn any_host_name_becomes_a_valid_node_name() {
        for host in ["", "gpu-01", "-x", "wörk station", "..", &"ü".repeat(400)] {
            let name = NodeName::from_host_name(host);
            assert!(name.as_str().parse::<NodeName>().is_ok(), "{host:?} became {name:?}");
        }
    }

    #[test]
    fn metric_and_label_names_are_prometheus_own() {
        assert!(check_metric_name("node:cpu_seconds_total").is_ok());
        assert!(check_metric_name("0x").is_err());
        assert!(check_metric_name("a\nb").is_err());
        assert!(check_label_name("mode").is_ok());
        assert!(check_label_name("__name__").is_err());
        assert!(check_label_name("a-b").is_err());
    }
}
