//! Traffic of network devices, from `/proc/net/dev`.
//!
//! node_exporter asks through netlink and then adds the kernel's detailed errors up to the sums that this file
//! shows; the sums are the same. What the file does not have (`nohandler`) and everything that is no traffic
//! is in [`super::network_class`].

use std::{sync::Arc, time::Duration};

use belfry_common::model::Metric;

use super::{Roots, SECOND, SampleError, Sampler, Source, cap::Cap, declare, number};
use crate::readings::Readings;

/// The columns in the order of the file.
const COLUMNS: [&str; 16] = [
    "receive_bytes",
    "receive_packets",
    "receive_errs",
    "receive_drop",
    "receive_fifo",
    "receive_frame",
    "receive_compressed",
    "receive_multicast",
    "transmit_bytes",
    "transmit_packets",
    "transmit_errs",
    "transmit_drop",
    "transmit_fifo",
    "transmit_colls",
    "transmit_carrier",
    "transmit_compressed",
];

#[derive(Debug)]
pub(crate) struct Network {
    source: Source,
    columns: [Arc<Metric>; COLUMNS.len()],
    cap: Cap,
}

impl Network {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self {
            source: Source::new(roots.proc.join("net/dev")),
            columns: COLUMNS.map(counter),
            cap: Cap::new("network"),
        }
    }
}

pub(super) fn counter(column: &str) -> Arc<Metric> {
    let name = format!("node_network_{column}_total");
    declare::counter(&name, &["device"], &format!("Network device statistic {column}."))
}

impl Sampler for Network {
    fn name(&self) -> &'static str {
        "network"
    }

    fn interval(&self) -> Duration {
        SECOND
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        let text = self.source.read()?;
        let mut devices = 0;
        for line in text.lines().skip(2) {
            let Some((device, counts)) = line.rsplit_once(':') else { continue };
            if !self.cap.allows(devices) {
                break;
            }
            devices += 1;
            let device = device.trim_start();
            for (metric, word) in self.columns.iter().zip(counts.split_ascii_whitespace()) {
                number::put(readings, metric, &[device], number::unsigned(word));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    const HEADER: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
";

    #[test]
    fn every_column_of_every_device() {
        let text = format!(
            "{HEADER}    lo:   62918      62    1    2    3     4          5         6    62919      63    7    8    9    10      11         12
wörk:1: 18446744073709551615 x
"
        );
        let fixture = Fixture::new().proc("net/dev", &text);
        expect![[r#"
            node_network_receive_bytes_total{device="lo"} 62918
            node_network_receive_packets_total{device="lo"} 62
            node_network_receive_errs_total{device="lo"} 1
            node_network_receive_drop_total{device="lo"} 2
            node_network_receive_fifo_total{device="lo"} 3
            node_network_receive_frame_total{device="lo"} 4
            node_network_receive_compressed_total{device="lo"} 5
            node_network_receive_multicast_total{device="lo"} 6
            node_network_transmit_bytes_total{device="lo"} 62919
            node_network_transmit_packets_total{device="lo"} 63
            node_network_transmit_errs_total{device="lo"} 7
            node_network_transmit_drop_total{device="lo"} 8
            node_network_transmit_fifo_total{device="lo"} 9
            node_network_transmit_colls_total{device="lo"} 10
            node_network_transmit_carrier_total{device="lo"} 11
            node_network_transmit_compressed_total{device="lo"} 12
            node_network_receive_bytes_total{device="wörk:1"} missing (out_of_range)
            node_network_receive_packets_total{device="wörk:1"} missing (error)
        "#]]
        .assert_eq(&fixture.print(&mut Network::new(&fixture.roots())));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".*|([a-z:]{0,5}:[0-9 x-]{0,60}\n){0,4}") {
            let fixture = Fixture::new().proc("net/dev", &format!("{HEADER}{text}"));
            let _ = fixture.try_print(&mut Network::new(&fixture.roots()));
        }
    }
}
