//! How the program ends. The codes are a contract with scripts; nothing but `main` ends the process.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use crate::{
    client::ClientError,
    render::{output::OutputError, text},
};

/// It did not work.
pub(crate) const FAILED: u8 = 1;
/// It was asked for wrongly; clap ends with the same.
pub(crate) const USAGE: u8 = 2;

/// Words of the command line that make no sense together, beyond what clap can see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// What the process ends with; an error is shown first.
pub(crate) fn code(result: anyhow::Result<ExitCode>) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    if is_closed_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    // The only thing left to do with a broken standard error is nothing.
    drop(print_error(&error));
    ExitCode::from(if is_usage(&error) { USAGE } else { FAILED })
}

/// Whether whoever read the output has seen enough.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(OutputError::Closed)))
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<UsageError>() || cause.downcast_ref::<ClientError>().is_some_and(ClientError::is_invalid_request)
    })
}

/// The lines of an error: what failed, and below it why. Part of it can be another machine's words, so it is escaped.
fn print_error(error: &anyhow::Error) -> io::Result<()> {
    io::stderr().lock().write_all(lines(error).as_bytes())
}

fn lines(error: &anyhow::Error) -> String {
    let causes = error.chain().map(ToString::to_string);
    let mut lines: Vec<String> = causes.flat_map(|cause| cause.lines().map(text::escape).collect::<Vec<_>>()).collect();
    // A wrapper that shows its source as itself would say it twice.
    lines.dedup();
    format!("belfry: {}\n", lines.join("\n  "))
}

/// Says something beside the output: on standard error, on one line. A broken standard error is nothing to stop for.
pub(crate) fn note(message: &str) {
    drop(writeln!(io::stderr().lock(), "belfry: {}", text::escape(message)));
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};
    use expect_test::expect;

    use super::*;

    #[test]
    fn an_error_says_what_failed_and_why_and_cannot_act_on_a_terminal() {
        let error = anyhow!("no node is called \"\u{1b}[2Jx\"").context("failed to ask the collector");
        expect![[r#"
            belfry: failed to ask the collector
              no node is called "\u{1b}[2Jx"
        "#]]
        .assert_eq(&lines(&error));
    }

    #[test]
    fn a_closed_pipe_ends_quietly_and_other_output_errors_do_not() {
        let closed = Err::<(), _>(OutputError::Closed).context("printing").unwrap_err();
        assert!(is_closed_pipe(&closed));
        let other = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(!is_closed_pipe(&other), "another pipe than standard output");
    }

    #[test]
    fn wrong_words_are_told_from_what_went_wrong() {
        assert!(is_usage(&UsageError("--watch needs a terminal".into()).into()));
        assert!(!is_usage(&anyhow!("the collector is gone")));
    }
}
