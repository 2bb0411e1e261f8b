//! XIDs in the kernel's log, `/dev/kmsg`.
//!
//! Format of a record: kernel documentation, `Documentation/ABI/testing/dev-kmsg`: priority and facility, number, microseconds
//! of the monotonic clock and flags, separated by commas; then a semicolon and the text. The driver's text is
//! `NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python, …`, with ` GPU-I:05` behind the place of an error in an instance.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    thread,
    time::Duration,
};

use belfry_common::{clock, model::Timestamp};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::OFlags,
    time::{ClockId, clock_gettime},
};

/// The kernel's own limit of a record is 8 KiB with its continuation lines.
const RECORD_BYTES_MAX: usize = 8192 + 256;
/// Between two looks whether anybody still wants to know.
const LOOK: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// Before a log that has ended, or cannot be read for now, is read again.
const PAUSE: Duration = Duration::from_millis(200);
/// Facility of the kernel; who writes into the log from outside has another.
const FACILITY_KERNEL: u64 = 0;
/// Names of processes have 15 characters.
const PROCESS_CHARS_MAX: usize = 32;

/// An XID that stands in the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Logged {
    pub(super) time: Timestamp,
    /// `0000:3b:00`
    pub(super) place: String,
    pub(super) xid: u32,
    /// Name of the process that the driver blames, if it names one.
    pub(super) process: String,
}

/// Reads the log from its beginning, on a thread of its own, and goes on until `take` returns false.
pub(super) fn follow<S: Wanted + Send + 'static>(
    path: &Path,
    to: S,
    take: impl Fn(&S, Logged) -> bool + Send + 'static,
) -> io::Result<()> {
    let mut log = File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, 0.into())?);
    let boot = boot_time();
    thread::Builder::new().name("kernel-log".into()).stack_size(128 * 1024).spawn(move || {
        let mut record = vec![0; RECORD_BYTES_MAX];
        // The log's clock and ours part by seconds a day: what comes while we listen has come now.
        let mut is_live = false;
        while to.is_wanted() {
            let length = match log.read(&mut record) {
                Ok(0) => {
                    thread::sleep(PAUSE);
                    continue;
                }
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    is_live = true;
                    // Whether there is something or the time is over, the next read tells.
                    let _ = rustix::event::poll(&mut [PollFd::new(&log, PollFlags::IN)], Some(&LOOK));
                    continue;
                }
                // Overwritten before it was read: the next read goes on with what there is.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => continue,
                Err(_) => {
                    thread::sleep(PAUSE);
                    continue;
                }
            };
            let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
            for line in text.lines() {
                let Some(mut logged) = parse(line, boot) else { continue };
                if is_live {
                    logged.time = clock::now();
                }
                if !take(&to, logged) {
                    return;
                }
            }
        }
    })?;
    Ok(())
}

/// Whether somebody still listens.
pub(super) trait Wanted {
    fn is_wanted(&self) -> bool;
}

impl<T> Wanted for std::sync::Weak<T> {
    fn is_wanted(&self) -> bool {
        self.strong_count() > 0
    }
}

/// When the monotonic clock was zero.
fn boot_time() -> Timestamp {
    let since = clock_gettime(ClockId::Monotonic);
    clock::now().plus_millis(-(since.tv_sec * 1000 + since.tv_nsec / 1_000_000))
}

/// Reads one line of the log. What processes write there, and all that is no XID, is none.
fn parse(line: &str, boot: Timestamp) -> Option<Logged> {
    let (head, text) = line.split_once(';')?;
    let mut head = head.split(',');
    let priority: u64 = head.next()?.parse().ok()?;
    let micros: i64 = head.nth(1)?.parse().ok()?;
    if priority >> 3 != FACILITY_KERNEL {
        return None;
    }
    let (place, rest) = text.strip_prefix("NVRM: Xid (")?.split_once("): ")?;
    let place = place.strip_prefix("PCI:").unwrap_or(place);
    let place = place.split_once(' ').map_or(place, |(place, _)| place);
    if !is_place(place) {
        return None;
    }
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let xid = rest.get(..digits)?.parse().ok()?;
    let process = rest.split_once("name=").map_or("", |(_, name)| name.split(',').next().unwrap_or_default());
    let process = process.chars().filter(|c| !c.is_control()).take(PROCESS_CHARS_MAX).collect();
    let place = place.split_once('.').map_or(place, |(slot, _)| slot).to_ascii_lowercase();
    Some(Logged { time: boot.plus_millis(micros / 1000), place, xid, process })
}

/// `0000:3b:00`, with a function or without.
fn is_place(place: &str) -> bool {
    (10..=16).contains(&place.len()) && place.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn check(line: &str, expected: &Expect) {
        let shown = match parse(line, Timestamp::from_millis(1_000_000)) {
            Some(Logged { time, place, xid, process }) => format!("{} {place} {xid} {process:?}", time.as_millis()),
            None => "none".into(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn every_form_of_the_driver_is_read_and_nothing_else() {
        check(
            "3,1057,5140900,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=2411, name=python3, GPU has fallen off the bus.",
            &expect![[r#"1005140 0000:3b:00 79 "python3""#]],
        );
        check(
            "4,1,2000,-;NVRM: Xid (PCI:0000:01:00 GPU-I:05): 94, Contained",
            &expect![[r#"1000002 0000:01:00 94 """#]],
        );
        check("4,1,2000,-;NVRM: Xid (0000:AF:00.0): 31, Ch 1", &expect![[r#"1000002 0000:af:00 31 """#]]);
        check("4,1,0,c,caller=T9;NVRM: Xid (PCI:0009:01:00): 154", &expect![[r#"1000000 0009:01:00 154 """#]]);
        // Facility 1: a process wrote it.
        check("12,1,2000,-;NVRM: Xid (PCI:0000:3b:00): 79, x", &expect!["none"]);
        check("3,1,2000,-;x NVRM: Xid (PCI:0000:3b:00): 79, x", &expect!["none"]);
        check("3,1,2000,-;NVRM: Xid (PCI:../../../etc): 79, x", &expect!["none"]);
        check("3,1,2000,-;NVRM: Xid (PCI:0000:3b:00): , x", &expect!["none"]);
        check("3,1,2000,-;NVRM: Xid (PCI:0000:3b:00): 99999999999, x", &expect!["none"]);
        check(" SUBSYSTEM=pci", &expect!["none"]);
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_a_panic(line in ".*", tail in "\\PC*") {
            parse(&line, Timestamp::default());
            parse(&format!("3,1,2000,-;NVRM: Xid (PCI:0000:3b:00): 79{tail}"), Timestamp::default());
        }
    }
}
