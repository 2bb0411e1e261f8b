//! A process, and the two files of `/proc` that say which one it is.
//!
//! Pure.

use super::{super::devices::GpuName, job::Job};

/// What is known of a pid. What could not be read is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Clock ticks between the machine's start and the process's: with the pid, this names a process for good.
    pub(crate) started_ticks: Option<u64>,
    /// The user who started it, as the agent's user namespace numbers them.
    pub(crate) uid: Option<u32>,
    /// That user's name, or else the number.
    pub(crate) user: Option<String>,
    /// What it runs, never with its arguments: `python train.py`.
    pub(crate) command: Option<String>,
    /// `None` too for what people run in sessions of their own.
    pub(crate) job: Option<Job>,
    /// The GPUs that it says its job was given.
    pub(super) gpus: Vec<GpuName>,
}

impl Process {
    /// A process of which nothing has been read.
    pub(super) fn new(pid: u32) -> Self {
        Self { pid, started_ticks: None, uid: None, user: None, command: None, job: None, gpus: Vec::new() }
    }
}

/// What `/proc/PID/stat` says: enough to tell whether this is still the process that it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    /// The name that the kernel keeps, of up to 15 bytes.
    pub(super) comm: Vec<u8>,
    /// It waits in the kernel and cannot be interrupted. To read its memory may wait as well, and without end.
    pub(super) is_stuck: bool,
    pub(super) started_ticks: u64,
}

impl Stat {
    /// Reads `PID (COMM) STATE …`. A process may call itself `x) R`: the last parenthesis counts.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let open = bytes.iter().position(|b| *b == b'(')?;
        let close = bytes.iter().rposition(|b| *b == b')')?;
        let mut fields = str::from_utf8(bytes.get(close + 1..)?).ok()?.split_ascii_whitespace();
        let state = fields.next()?;
        // The state is field 3 of proc(5), the start is field 22.
        let started_ticks = fields.nth(18)?.parse().ok()?;
        Some(Self { comm: bytes.get(open + 1..close)?.to_vec(), is_stuck: state == "D", started_ticks })
    }

    /// Whether what was read of the process at this time still holds. One that runs another program now, or gave
    /// itself another name, is the same process but has another command; of one that was stuck not all was read.
    pub(super) fn holds(&self, now: &Self) -> bool {
        let is_same = self.started_ticks == now.started_ticks && self.comm == now.comm;
        is_same && (!self.is_stuck || now.is_stuck)
    }
}

/// The real uid in `/proc/PID/status`.
pub(super) fn uid_of(status: &str) -> Option<u32> {
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    uids.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(stat: &str, expected: &Expect) {
        let shown = Stat::parse(stat.as_bytes()).map(|stat| {
            let comm = String::from_utf8_lossy(&stat.comm).into_owned();
            format!("{comm:?} {} {}", stat.started_ticks, if stat.is_stuck { "stuck" } else { "" })
        });
        expected.assert_eq(shown.unwrap_or("-".into()).trim());
    }

    #[test]
    fn stat_has_its_start_after_19_fields() {
        let fields = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18";
        check(&format!("7 (python) S {fields} 8150 0 0\n"), &expect![[r#""python" 8150"#]]);
        check(&format!("7 (a) R (b) D {fields} 8150"), &expect![[r#""a) R (b" 8150 stuck"#]]);
        check(&format!("7 () Z {fields} 18446744073709551615"), &expect![[r#""" 18446744073709551615"#]]);
        check(&format!("7 (python) S {fields}"), &expect!["-"]);
        check(&format!("7 (python) S {fields} -1"), &expect!["-"]);
        check(")7 (", &expect!["-"]);
        check("", &expect!["-"]);
    }

    #[test]
    fn the_first_uid_is_the_real_one() {
        assert_eq!(uid_of("Name:\tx\nUid:\t1000\t0\t0\t0\nGid:\t5\t5\t5\t5\n"), Some(1000));
        for odd in ["", "Uid:", "Uid:\tx", "Name:\tUid:\t5", "Uid:\t4294967296\t0"] {
            assert_eq!(uid_of(odd), None, "{odd:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, text in "[()a-zU0-9 \n:]{0,80}") {
            let _ = (Stat::parse(&bytes), Stat::parse(text.as_bytes()), uid_of(&text));
        }
    }
}
