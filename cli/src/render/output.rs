//! Standard output: the only file that names it.
//!
//! Lines are written and flushed whole. A reader that has gone away is not an error but the end; streams learn of it at once and not
//! with the next line, which may never come.

use std::{
    future::pending,
    io::{self, ErrorKind, IsTerminal as _, Write},
    os::fd::AsFd as _,
};

use belfry_common::clock;
use thiserror::Error;
use tokio::{io::Interest, net::unix::pipe::Sender};

use super::{Look, style};

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One JSON document
    Json,
    /// One JSON object a line
    Jsonl,
    /// Comma-separated values, with a line of names
    Csv,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// Output that went nowhere.
#[derive(Debug, Error)]
pub(crate) enum OutputError {
    /// Whoever read it has seen enough.
    #[error("standard output is closed")]
    Closed,
    /// A full disk, for one.
    #[error("failed to write to standard output")]
    Failed(#[source] io::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe { Self::Closed } else { Self::Failed(error) }
    }
}

/// Standard output and how to write to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) format: Format,
    is_colored: bool,
}

impl Output {
    pub(crate) fn new(format: Format, color: Color) -> Self {
        Self { format, is_colored: style::is_wanted(color, is_terminal()) }
    }

    /// How a view is to look now: a terminal can change its size.
    pub(crate) fn look(&self) -> Look {
        Look { width: width(), is_colored: self.is_colored, now: clock::now() }
    }

    /// Prints text that ends its last line.
    pub(crate) fn print(&self, text: &str) -> Result<(), OutputError> {
        print(text)
    }

    /// Prints without holding up the connection while a slow reader reads.
    pub(crate) async fn send(&self, text: String) -> Result<(), OutputError> {
        match tokio::task::spawn_blocking(move || print(&text)).await {
            Ok(result) => result,
            Err(error) => Err(OutputError::Failed(io::Error::other(error))),
        }
    }

    /// Ready when the reader of a pipe has gone away; never for other kinds of output.
    pub(crate) async fn closed(&self) {
        // Unchecked, because the check would make the pipe non-blocking for everyone who shares it. A file cannot be watched, and
        // does not go away.
        let pipe = io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd_unchecked);
        let Ok(pipe) = pipe else { return pending().await };
        if pipe.ready(Interest::ERROR).await.is_err() {
            pending::<()>().await;
        }
    }
}

/// Writes to the terminal's screen directly, see [`super::screen`].
impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().lock().flush()
    }
}

/// Whether a person watches.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// The terminal's columns. A pipe has no limit unless the caller sets one.
fn width() -> Option<usize> {
    let set = || std::env::var("COLUMNS").ok()?.parse().ok().filter(|&columns| columns > 0);
    let asked =
        || crossterm::terminal::size().ok().map(|(columns, _)| usize::from(columns)).filter(|&columns| columns > 0);
    if is_terminal() { asked().or_else(set) } else { set() }
}

/// Prints text that ends its last line.
pub(crate) fn print(text: &str) -> Result<(), OutputError> {
    let mut handle = io::stdout().lock();
    handle.write_all(text.as_bytes())?;
    Ok(handle.flush()?)
}
