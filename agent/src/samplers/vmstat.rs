//! Paging, swapping and OOM kills, from `/proc/vmstat`.
//!
//! Of its 200 lines those that node_exporter takes by default: `oom_kill…`, `pgpg…`, `pswp…` and `pg…fault…`.
//! It calls them untyped; all of them only ever grow.

use std::time::Duration;

use super::{Roots, SECOND, SampleError, Sampler, Source, declare, named_metrics::NamedMetrics, number};
use crate::readings::Readings;

#[derive(Debug)]
pub(crate) struct Vmstat {
    source: Source,
    metrics: NamedMetrics,
}

impl Vmstat {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self { source: Source::new(roots.proc.join("vmstat")), metrics: NamedMetrics::default() }
    }
}

impl Sampler for Vmstat {
    fn name(&self) -> &'static str {
        "vmstat"
    }

    fn interval(&self) -> Duration {
        SECOND
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        let text = self.source.read()?;
        self.metrics.begin();
        for line in text.lines().filter(|line| is_wanted(line)) {
            let Some((name, count)) = line.split_once(' ') else { continue };
            let declare = || {
                let help = format!("/proc/vmstat information field {name}.");
                Some(declare::counter(&format!("node_vmstat_{}", declare::name_part(name)), &[], &help))
            };
            let Some(metric) = self.metrics.metric("", name, declare) else { continue };
            number::put(readings, metric, &[], number::unsigned(count.trim()));
        }
        Ok(())
    }
}

fn is_wanted(line: &str) -> bool {
    line.starts_with("oom_kill")
        || line.starts_with("pswp")
        || line.strip_prefix("pg").is_some_and(|rest| rest.starts_with("pg") || rest.contains("fault"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    #[test]
    fn the_fields_that_node_exporter_takes() {
        let fixture = Fixture::new().proc(
            "vmstat",
            "nr_free_pages 977769
pgpgin 7344136
pgpgout 1541180
pswpin 1476
pswpout 35045
pgalloc_dma 1
pgfault 2320168809
pgmajfault 507162
pgsteal_kswapd 5
thp_fault_alloc 142261
oom_kill 3
",
        );
        expect![[r#"
            node_vmstat_pgpgin 7344136
            node_vmstat_pgpgout 1541180
            node_vmstat_pswpin 1476
            node_vmstat_pswpout 35045
            node_vmstat_pgfault 2320168809
            node_vmstat_pgmajfault 507162
            node_vmstat_oom_kill 3
        "#]]
        .assert_eq(&fixture.print(&mut Vmstat::new(&fixture.roots())));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".*|(pgpg[a-z]{0,3} [0-9x-]{0,30}\n){0,9}") {
            let fixture = Fixture::new().proc("vmstat", &text);
            let _ = fixture.try_print(&mut Vmstat::new(&fixture.roots()));
        }
    }
}
