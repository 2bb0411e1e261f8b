//! Connection tracking of netfilter.
//!
//! A machine on which it is not loaded has no such series, and gets them when it is.

use std::{sync::Arc, time::Duration};

use belfry_common::model::{Metric, Reason};

use super::{Roots, SECOND, SampleError, Sampler, Source, declare, number};
use crate::readings::Readings;

/// Columns of `/proc/net/stat/nf_conntrack`, which has a line for each CPU.
const STATISTICS: [(&str, &str); 8] = [
    ("found", "Number of searched entries which were successful."),
    ("invalid", "Number of packets seen which can not be tracked."),
    ("ignore", "Number of packets seen which are already connected to a conntrack entry."),
    ("insert", "Number of entries inserted into the list."),
    ("insert_failed", "Number of entries for which list insertion was attempted but failed."),
    ("drop", "Number of packets dropped due to conntrack failure."),
    ("early_drop", "Number of dropped conntrack entries to make room for new ones, if maximum table size was reached."),
    ("search_restart", "Number of conntrack table lookups which had to be restarted due to hashtable resizes."),
];

#[derive(Debug)]
pub(crate) struct Conntrack {
    levels: [(Source, Arc<Metric>); 2],
    statistics_source: Source,
    statistics: [(&'static str, Arc<Metric>); STATISTICS.len()],
}

impl Conntrack {
    pub(crate) fn new(roots: &Roots) -> Self {
        let directory = roots.proc.join("sys/net/netfilter");
        let level = |file, name, help| (Source::new(directory.join(file)), declare::gauge(name, &[], help));
        Self {
            levels: [
                level(
                    "nf_conntrack_count",
                    "node_nf_conntrack_entries",
                    "Number of currently allocated flow entries for connection tracking.",
                ),
                level(
                    "nf_conntrack_max",
                    "node_nf_conntrack_entries_limit",
                    "Maximum size of connection tracking table.",
                ),
            ],
            statistics_source: Source::new(roots.proc.join("net/stat/nf_conntrack")),
            statistics: STATISTICS
                .map(|(name, help)| (name, declare::counter(&format!("node_nf_conntrack_stat_{name}"), &[], help))),
        }
    }
}

impl Sampler for Conntrack {
    fn name(&self) -> &'static str {
        "conntrack"
    }

    fn interval(&self) -> Duration {
        SECOND
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        for (source, metric) in &mut self.levels {
            if let Some(text) = source.read_if_offered()? {
                number::put(readings, metric, &[], number::unsigned(text.trim()));
            }
        }
        let Some(text) = self.statistics_source.read_if_offered()? else { return Ok(()) };
        let Some((header, lines)) = text.split_once('\n') else { return Ok(()) };
        for (name, metric) in &self.statistics {
            if let Some(column) = header.split_ascii_whitespace().position(|word| word == *name) {
                number::put(readings, metric, &[], sum(lines, column));
            }
        }
        Ok(())
    }
}

/// The sum over all CPUs of a column of hexadecimal numbers.
fn sum(lines: &str, column: usize) -> Result<i64, Reason> {
    lines.lines().try_fold(0_i64, |sum, line| {
        let word = line.split_ascii_whitespace().nth(column).ok_or(Reason::Error)?;
        let count = i64::from_str_radix(word, 16).map_err(|_| Reason::Error)?;
        sum.checked_add(count).ok_or(Reason::OutOfRange)
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    #[test]
    fn statistics_are_summed_over_the_cpus() {
        let fixture = Fixture::new()
            .proc("sys/net/netfilter/nf_conntrack_count", "123\n")
            .proc("sys/net/netfilter/nf_conntrack_max", "65536\n")
            .proc(
                "net/stat/nf_conntrack",
                "entries  clashres found new invalid ignore insert insert_failed drop early_drop icmp_error  search_restart
00000021  00000000 00000001 00000000 00000003 0000588a 00000000 00000000 00000000 00000000 00000000  00000000
00000021  00000000 00000002 00000000 00000002 000056a4 00000000 00000000 0000000z 00000000 00000000  00000002
",
            );
        expect![[r#"
            node_nf_conntrack_entries 123
            node_nf_conntrack_entries_limit 65536
            node_nf_conntrack_stat_found 3
            node_nf_conntrack_stat_invalid 5
            node_nf_conntrack_stat_ignore 44846
            node_nf_conntrack_stat_insert 0
            node_nf_conntrack_stat_insert_failed 0
            node_nf_conntrack_stat_drop missing (error)
            node_nf_conntrack_stat_early_drop 0
            node_nf_conntrack_stat_search_restart 2
        "#]]
        .assert_eq(&fixture.print(&mut Conntrack::new(&fixture.roots())));
    }

    #[test]
    fn a_machine_without_it_has_no_series() {
        let fixture = Fixture::new();
        assert_eq!(fixture.print(&mut Conntrack::new(&fixture.roots())), "");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".*|found drop\n([0-9a-f -]{0,40}\n){0,3}") {
            let fixture = Fixture::new()
                .proc("sys/net/netfilter/nf_conntrack_count", &text)
                .proc("net/stat/nf_conntrack", &text);
            let _ = fixture.try_print(&mut Conntrack::new(&fixture.roots()));
        }
    }
}
