//! The terminal that a service was started in: when it goes away, SIGHUP means that, and not that files are to be read again.

use std::io::{self, IsTerminal, Stdin};

/// Standard input as it was at the start.
#[derive(Debug)]
pub struct Terminal<F = Stdin> {
    input: F,
    was_terminal: bool,
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
        Self { was_terminal: input.is_terminal(), input }
    }

    /// Whether there was one and it is closed. Never of a service, nor of what `nohup` started: these have none.
    pub fn is_gone(&self) -> bool {
        self.was_terminal && !self.input.is_terminal()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    #[test]
    fn a_terminal_that_is_closed_is_gone_and_what_never_was_one_is_not() {
        let window = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&window).unwrap();
        unlockpt(&window).unwrap();
        let name = ptsname(&window, Vec::new()).unwrap();
        let options = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let input = rustix::fs::open(name, options, rustix::fs::Mode::empty()).unwrap();
        let terminal = Terminal::of(File::from(input));
        assert!(!terminal.is_gone());
        drop(window);
        assert!(terminal.is_gone());
        assert!(!Terminal::of(File::open("/dev/null").unwrap()).is_gone());
    }
}
