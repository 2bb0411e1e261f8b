//! Memory, from `/proc/meminfo`: every line under node_exporter's name for it.

use std::time::Duration;

use super::{Roots, SECOND, SampleError, Sampler, Source, declare, named_metrics::NamedMetrics, number};
use crate::readings::Readings;

#[derive(Debug)]
pub(crate) struct Memory {
    source: Source,
    metrics: NamedMetrics,
}

impl Memory {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self { source: Source::new(roots.proc.join("meminfo")), metrics: NamedMetrics::default() }
    }
}

impl Sampler for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn interval(&self) -> Duration {
        SECOND
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        let text = self.source.read()?;
        self.metrics.begin();
        let mut lines = 0;
        for line in text.lines() {
            let Some((name, rest)) = line.split_once(':') else { continue };
            let mut words = rest.split_ascii_whitespace();
            let Some(word) = words.next() else { continue };
            let (unit, factor) = if words.next() == Some("kB") { ("_bytes", 1024) } else { ("", 1) };
            let declare = || {
                let field = format!("{}{unit}", field_name(name));
                let help = format!("Memory information field {field}.");
                Some(declare::gauge(&format!("node_memory_{field}"), &[], &help))
            };
            let Some(metric) = self.metrics.metric(unit, name, declare) else { continue };
            number::put(readings, metric, &[], number::times(number::unsigned(word), factor));
            lines += 1;
        }
        if lines == 0 {
            return Err(self.source.format_error("no line has a name and a number"));
        }
        Ok(())
    }
}

/// `Active(anon)` is `Active_anon`.
fn field_name(name: &str) -> String {
    declare::name_part(&name.replace('(', "_").replace(')', ""))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    #[test]
    fn kilobytes_become_bytes_and_counts_stay() {
        let fixture = Fixture::new().proc(
            "meminfo",
            "MemTotal:       49368168 kB
MemFree:          500 kB
Active(anon):    2068484 kB
Inactive(file):  1 kB
NFS_Unstable:          0 kB
Committed_AS:    7 kB
HugePages_Total:       8
Hugepagesize:       2048 kB
DirectMap4k:       91328 kB
Odd-Name:  3 kB
Bad: x kB
Worse: -4 kB
no colon
Empty:
",
        );
        expect![[r#"
            node_memory_MemTotal_bytes 50553004032
            node_memory_MemFree_bytes 512000
            node_memory_Active_anon_bytes 2118127616
            node_memory_Inactive_file_bytes 1024
            node_memory_NFS_Unstable_bytes 0
            node_memory_Committed_AS_bytes 7168
            node_memory_HugePages_Total 8
            node_memory_Hugepagesize_bytes 2097152
            node_memory_DirectMap4k_bytes 93519872
            node_memory_Odd_Name_bytes 3072
            node_memory_Bad_bytes missing (error)
            node_memory_Worse_bytes missing (out_of_range)
        "#]]
        .assert_eq(&fixture.print(&mut Memory::new(&fixture.roots())));
    }

    #[test]
    fn an_empty_file_is_an_error() {
        let fixture = Fixture::new().proc("meminfo", "");
        assert!(fixture.try_print(&mut Memory::new(&fixture.roots())).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".*|([A-Za-z()]{1,9}: *[0-9x-]{0,30}( kB)?\n){0,9}") {
            let fixture = Fixture::new().proc("meminfo", &text);
            let _ = fixture.try_print(&mut Memory::new(&fixture.roots()));
        }
    }
}
