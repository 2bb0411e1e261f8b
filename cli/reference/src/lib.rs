//! The reference data set: 500 series of a GPU node at one sample a second, the same bits on every machine and in every language.
//!
//! Compression, ingest and queries are measured on it, here and with other programs. Values are made from integers only, see
//! [`Values`]; the sum of a node's values is checked by a test. Series `j` of node `n` (both from 0) has the seed `500 n + j + 1`.
//!
//! Pure: no I/O, no clock.
#![warn(missing_docs)]

mod catalogue;
mod random;
mod values;

pub use catalogue::{SERIES_PER_NODE, Series, catalogue};
pub use random::Random;
pub use values::{Shape, Values};

/// The values of one series of one node, from its first second on.
///
/// `place` is the series' place in the [`catalogue`].
#[must_use]
pub fn values(shape: Shape, node: u64, place: usize) -> Values {
    Values::new(shape, SERIES_PER_NODE as u64 * node + place as u64 + 1)
}

/// The labels of a series of one node, as other programs are given them: its own, its GPU's, and the cluster's.
#[must_use]
pub fn labels(series: &Series, node: u64) -> Vec<(&'static str, String)> {
    let mut labels = series.labels.clone();
    let gpu = series.labels.iter().find(|(name, _)| *name == "gpu").and_then(|(_, gpu)| gpu.parse::<u64>().ok());
    labels.push(("cluster", "bench".into()));
    labels.extend(gpu.map(|gpu| {
        let hash = node.wrapping_mul(2_654_435_761) & 0xFFFF_FFFF;
        ("uuid", format!("GPU-{hash:08x}-{node:04x}-{gpu:04x}"))
    }));
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of the 500 series of node 0, one hour each, as little-endian 64-bit floats, series by series.
    const NODE_0_HOUR: &str = "1d833818ad6df17eb79902819ccd3b468eba28c393a4eb789249823a9fb7ee94";

    #[test]
    fn the_first_hour_of_the_first_node_has_the_sum_that_it_has_everywhere() {
        let mut sum = ring::digest::Context::new(&ring::digest::SHA256);
        for (place, series) in catalogue().iter().enumerate() {
            let bytes: Vec<u8> = values(series.shape, 0, place)
                .take(3600)
                .flat_map(|count| (count as f64 / series.shape.divisor()).to_le_bytes())
                .collect();
            sum.update(&bytes);
        }
        let hex: String = sum.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, NODE_0_HOUR);
    }
}
