//! Standard output, and the forms that commands print in.

use std::{
    io::{self, IsTerminal as _, StdoutLock, Write as _},
    time::{Duration, UNIX_EPOCH},
};

use belfry_common::model::Timestamp;
use clap::ColorChoice;

/// What commands print in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One JSON document
    Json,
    /// One JSON object a line
    Jsonl,
    /// Comma-separated values with a header
    Csv,
}

/// How this run prints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) format: Format,
    pub(super) has_colour: bool,
}

impl Output {
    /// What the command line asks for.
    pub(super) fn new(format: Format, colour: ColorChoice) -> Self {
        let has_colour = match colour {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        };
        Self { format, has_colour }
    }
}

/// Standard output, for as long as a command prints.
pub(super) fn output() -> StdoutLock<'static> {
    io::stdout().lock()
}

/// What a command has done: in words, or as one object with these columns.
pub(super) fn print_one(output: Output, words: &str, object: &serde_json::Value, columns: &[&str]) -> io::Result<()> {
    let mut out = self::output();
    match output.format {
        Format::Table => writeln!(out, "{words}"),
        Format::Json => writeln!(out, "{object:#}"),
        Format::Jsonl => writeln!(out, "{object}"),
        Format::Csv => writeln!(out, "{}\n{}", columns.join(","), csv_line(object, columns)),
    }
}

/// A time as documents have it, to the millisecond.
pub(super) fn rfc3339(time: Timestamp) -> String {
    let since = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(0));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

/// A JSON object as a line of these columns; what is absent or null is empty.
pub(super) fn csv_line(object: &serde_json::Value, columns: &[&str]) -> String {
    let field = |name: &&str| match object.get(name) {
        None | Some(serde_json::Value::Null) => String::new(),
        Some(serde_json::Value::String(text)) => csv_field(text),
        Some(other) => csv_field(&other.to_string()),
    };
    columns.iter().map(field).collect::<Vec<_>>().join(",")
}

/// A field of a line of comma-separated values (RFC 4180).
fn csv_field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fields_that_need_it_are_quoted() {
        assert_eq!(csv_field("node_load1"), "node_load1");
        assert_eq!(csv_field(r#"{"a":"1"}"#), r#""{""a"":""1""}""#);
        assert_eq!(csv_field("a\nb"), "\"a\nb\"");
    }
}
