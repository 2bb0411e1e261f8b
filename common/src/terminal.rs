//! The terminal that a service was started in: when it goes away, SIGHUP means that, and not that files are to be read again.

use std::{
    convert::Infallible,
    io::{self, IsTerminal, Stdin},
    time::{Duration, Instant},
};

use crate::clock;

/// Between two looks whether it is there.
const LOOK: Duration = Duration::from_secs(1);
/// A shell passes the signal on when its terminal closes: what comes later is somebody's who wants a reload.
const SOON: Duration = Duration::from_secs(3);

/// Standard input as it was at the start.
#[derive(Debug)]
pub struct Terminal<F = Stdin> {
    input: F,
    /// When it was there last; `None` if it never was.
    seen: Option<Instant>,
}

impl Terminal {
    /// Looks whether there is one.
    #[must_use]
    pub fn at_start() -> Self {
        Self::of(io::stdin())
    }
}

impl<F: IsTerminal> Terminal<F> {
    fn of(input: F) -> Self {
        let mut terminal = Self { input, seen: None };
        terminal.look();
        terminal
    }

    fn look(&mut self) -> bool {
        let is_there = self.input.is_terminal();
        if is_there {
            self.seen = Some(clock::monotonic());
        }
        is_there
    }

    /// Watches it, for [`Self::has_just_closed`]. Never ready. Cancel-safe.
    pub async fn watch(&mut self) -> Infallible {
        while self.look() {
            tokio::time::sleep(LOOK).await;
        }
        std::future::pending().await
    }

    /// Whether it was closed just now: never of a service, nor of what `nohup` started, which have none.
    pub fn has_just_closed(&self) -> bool {
        !self.input.is_terminal() && self.seen.is_some_and(|seen| seen.elapsed() < SOON)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    #[tokio::test]
    async fn a_terminal_that_is_closed_is_gone_and_what_never_was_one_is_not() {
        let window = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&window).unwrap();
        unlockpt(&window).unwrap();
        let name = ptsname(&window, Vec::new()).unwrap();
        let options = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let input = rustix::fs::open(name, options, rustix::fs::Mode::empty()).unwrap();
        let mut terminal = Terminal::of(File::from(input));
        assert!(!terminal.has_just_closed());
        drop(window);
        assert!(terminal.has_just_closed());
        terminal.seen = terminal.seen.and_then(|seen| seen.checked_sub(SOON));
        assert!(!terminal.has_just_closed(), "long ago");
        assert!(!Terminal::of(File::open("/dev/null").unwrap()).has_just_closed());
    }
}
