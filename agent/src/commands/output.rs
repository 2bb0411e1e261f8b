//! Standard output, and the forms that commands print in.

use std::io::{self, IsTerminal as _, StdoutLock};

/// Standard output, for as long as a command prints.
pub(super) fn output() -> StdoutLock<'static> {
    io::stdout().lock()
}

/// Whether a person reads it.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// A field of a line of comma-separated values (RFC 4180).
pub(super) fn csv_field(text: &str) -> String {
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
