//! Reads a TOML configuration so that a mistake is found at once: with its line and the key that was probably meant.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use thiserror::Error;
use toml::de::DeTable;

/// A configuration is written by hand; nobody writes a megabyte.
const BYTES_MAX: u64 = 1024 * 1024;

/// A configuration that is refused. Nothing was changed by trying.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to read configuration `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is far too large to be one.
    #[error("configuration `{path}` is larger than {BYTES_MAX} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// The text is not TOML, or says something that cannot be.
    #[error("{path}:{line}: {message}{hint}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
        /// What was probably meant; may be empty.
        hint: String,
    },
}

/// Where a configuration came from: for refusing what is well-formed and still cannot be.
#[derive(Debug, Clone)]
pub struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    /// The error for a value: its key is given by the names of the tables that it is in, and its own.
    ///
    /// A message that begins with "unknown" and names what there is in back-quotes gets a hint at what was meant.
    #[must_use]
    pub fn refuse(&self, key: &[&str], message: &str) -> ConfigError {
        let start = place(&self.text, key).unwrap_or(0);
        content_error(&self.path, &self.text, start, message)
    }
}

/// Where a key stands, or the innermost of its tables that is there.
fn place(text: &str, key: &[&str]) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let (mut table, mut found) = (document.get_ref(), None);
    for name in key {
        let Some((known, value)) = table.iter().find(|(known, _)| known.get_ref() == name) else { break };
        found = Some(known.span().start);
        let Some(inner) = value.get_ref().as_table() else { break };
        table = inner;
    }
    found
}

/// Reads a configuration file.
///
/// # Errors
/// [`ConfigError`] with file and line.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<(T, Document), ConfigError> {
    parse(path, text(path)?)
}

/// The text of a configuration file.
///
/// # Errors
/// [`ConfigError`] when it cannot be read or is too large.
pub fn text(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Read { path: path.to_path_buf(), source };
    if fs::metadata(path).map_err(unreadable)?.len() > BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.to_path_buf() });
    }
    fs::read_to_string(path).map_err(unreadable)
}

/// Parses the text of a configuration file.
///
/// # Errors
/// [`ConfigError::Content`] with `path` and the line.
pub fn parse<T: DeserializeOwned>(path: &Path, text: impl Into<String>) -> Result<(T, Document), ConfigError> {
    let text = text.into();
    match toml::from_str(&text) {
        Ok(file) => Ok((file, Document { path: path.to_path_buf(), text })),
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            Err(content_error(path, &text, start, &error.message().trim().replace('\n', " ")))
        }
    }
}

fn content_error(path: &Path, text: &str, start: usize, message: &str) -> ConfigError {
    let before = text.get(..start.min(text.len())).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let hint = nearest(message).map_or_else(String::new, |key| format!("; did you mean `{key}`?"));
    ConfigError::Content { path: path.to_path_buf(), line, message: message.to_string(), hint }
}

/// serde lists the keys that it knows in back-quotes, behind the one that it does not.
fn nearest(message: &str) -> Option<&str> {
    let mut quoted = message.strip_prefix("unknown ")?.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    let best = quoted.max_by(|a, b| strsim::jaro_winkler(unknown, a).total_cmp(&strsim::jaro_winkler(unknown, b)))?;
    (strsim::jaro_winkler(unknown, best) > 0.7).then_some(best)
}

/// A duration as people write it: `1s`, `250ms`, `10m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = humantime::parse_duration(&text);
        parsed
            .map(Self)
            .map_err(|_| serde::de::Error::custom(format!("{text:?} is not a duration such as \"1s\" or \"10m\"")))
    }
}

/// A number of bytes as people write it: `256MiB`, `8GiB`, `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// Not a number of bytes.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not a size such as \"256MiB\" or \"8GiB\"")]
pub struct ByteSizeError(String);

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let factor = match unit.trim() {
            "" | "B" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            "TiB" => Some(1_u64 << 40),
            _ => None,
        };
        let bytes = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        bytes.map(Self).ok_or_else(|| ByteSizeError(text.chars().take(40).collect()))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        interval: Span,
        size: ByteSize,
        inner: Inner,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "its name is what counts")]
        collector: Option<String>,
    }

    impl Default for Sample {
        fn default() -> Self {
            Self { interval: Span(Duration::from_secs(1)), size: ByteSize(0), inner: Inner::default() }
        }
    }

    fn check(text: &str, expected: &Expect) {
        let shown = match parse::<Sample>(Path::new("belfry.toml"), text) {
            Ok((sample, _)) => format!("{:?} {:?}", sample.interval.0, sample.size.0),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        check("", &expect!["1s 0"]);
        check("interval = \"250ms\"\nsize = \"2MiB\"", &expect!["250ms 2097152"]);
        check(
            "# one\nintervall = \"1s\"",
            &expect![
                "belfry.toml:2: unknown field `intervall`, expected one of `interval`, `size`, `inner`; did you mean `interval`?"
            ],
        );
        check(
            "\n[inner]\ncolector = \"x\"",
            &expect!["belfry.toml:3: unknown field `colector`, expected `collector`; did you mean `collector`?"],
        );
        check(
            "interval = \"1 fortnight\"",
            &expect![[r#"belfry.toml:1: "1 fortnight" is not a duration such as "1s" or "10m""#]],
        );
        check(
            "size = \"12 parsecs\"",
            &expect![[r#"belfry.toml:1: "12 parsecs" is not a size such as "256MiB" or "8GiB""#]],
        );
        check("interval = ", &expect!["belfry.toml:1: string values must be quoted, expected literal string"]);
        check(
            "zebra = 1",
            &expect!["belfry.toml:1: unknown field `zebra`, expected one of `interval`, `size`, `inner`"],
        );
    }
}
