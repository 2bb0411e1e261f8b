//! Sockets by protocol, from `/proc/net/{sockstat,sockstat6}`.
//!
//! `mem` counts pages; as node_exporter does, it is said a second time in bytes.

use std::time::Duration;

use super::{Roots, SECOND, SampleError, Sampler, Source, declare, named_metrics::NamedMetrics, number};
use crate::readings::Readings;

#[derive(Debug)]
pub(crate) struct Sockstat {
    sources: [(Source, NamedMetrics); 2],
    page_bytes: i64,
}

impl Sockstat {
    pub(crate) fn new(roots: &Roots) -> Self {
        let source = |name| (Source::new(roots.proc.join("net").join(name)), NamedMetrics::default());
        Self {
            sources: [source("sockstat"), source("sockstat6")],
            page_bytes: i64::try_from(rustix::param::page_size()).unwrap_or(4096),
        }
    }
}

impl Sampler for Sockstat {
    fn name(&self) -> &'static str {
        "sockstat"
    }

    fn interval(&self) -> Duration {
        SECOND
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        for (source, metrics) in &mut self.sources {
            // Either may be missing: a kernel can be without IPv4 or IPv6.
            if let Some(text) = source.read_if_offered()? {
                put_text(readings, metrics, text, self.page_bytes);
            }
        }
        Ok(())
    }
}

/// Lines of `TCP: inuse 4 orphan 0`.
fn put_text(readings: &mut Readings, metrics: &mut NamedMetrics, text: &str, page_bytes: i64) {
    metrics.begin();
    for line in text.lines() {
        let Some((protocol, rest)) = line.split_once(':') else { continue };
        let mut words = rest.split_ascii_whitespace();
        while let (Some(name), Some(word)) = (words.next(), words.next()) {
            let count = number::unsigned(word);
            let declare = |name: &str, help: &str| {
                let full_name = format!("node_sockstat_{}_{}", declare::name_part(protocol), declare::name_part(name));
                Some(declare::gauge(&full_name, &[], help))
            };
            let in_state = || format!("Number of {protocol} sockets in state {name}.");
            if let Some(metric) = metrics.metric(protocol, name, || declare(name, &in_state())) {
                number::put(readings, metric, &[], count);
            }
            if name == "mem"
                && let Some(metric) = metrics.metric(protocol, "mem_bytes", || {
                    declare("mem_bytes", &format!("Memory of {protocol} sockets in bytes."))
                })
            {
                number::put(readings, metric, &[], number::times(count, page_bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    #[test]
    fn pages_are_also_bytes() {
        let fixture = Fixture::new()
            .proc(
                "net/sockstat",
                "sockets: used 229
TCP: inuse 4 orphan 0 tw 4 alloc 17 mem 1
UDP: inuse 0 mem -1
FRAG: inuse 0 memory 0
",
            )
            .proc("net/sockstat6", "TCP6: inuse 17\nFRAG6: inuse 0 memory\n");
        let mut sampler = Sockstat::new(&fixture.roots());
        sampler.page_bytes = 4096;
        expect![[r#"
            node_sockstat_sockets_used 229
            node_sockstat_TCP_inuse 4
            node_sockstat_TCP_orphan 0
            node_sockstat_TCP_tw 4
            node_sockstat_TCP_alloc 17
            node_sockstat_TCP_mem 1
            node_sockstat_TCP_mem_bytes 4096
            node_sockstat_UDP_inuse 0
            node_sockstat_UDP_mem missing (out_of_range)
            node_sockstat_UDP_mem_bytes missing (out_of_range)
            node_sockstat_FRAG_inuse 0
            node_sockstat_FRAG_memory 0
            node_sockstat_TCP6_inuse 17
            node_sockstat_FRAG6_inuse 0
        "#]]
        .assert_eq(&fixture.print(&mut sampler));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".*|((TCP|UDP):( mem [0-9x-]{0,22}){0,3}\n){0,6}") {
            let fixture = Fixture::new().proc("net/sockstat", &text).proc("net/sockstat6", &text);
            let _ = fixture.try_print(&mut Sockstat::new(&fixture.roots()));
        }
    }
}
