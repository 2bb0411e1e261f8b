//! Batches whose whole content follows from a seed and their number, so that what is stored can be compared with what was sent.

use std::{ops::Range, sync::Arc};

use belfry_common::model::{
    Batch, Kind, Layout, Metric, Raw, Reason, Resolution, Sequence, SeriesDefinition, Tick, Timestamp,
};

/// Devices come and go: after this many batches the layout is another one.
const LAYOUT_LIFE: u64 = 37;
const DEVICES: [usize; 3] = [3, 5, 2];

/// Makes batches.
#[derive(Debug, Clone)]
pub struct Samples {
    seed: u64,
    start: Timestamp,
    step_ms: i64,
    load: Arc<Layout>,
    disk: [Arc<Layout>; 3],
}

impl Samples {
    /// Batches that are `step_ms` apart; number 1 is at `start`.
    #[must_use]
    pub fn new(seed: u64, start: Timestamp, step_ms: i64) -> Self {
        let load = layout(1, "load", &gauge("node_load1"), 0..1);
        let disk = DEVICES.map(|devices| layout(2, "disk", &counter("node_disk_reads_completed_total"), 0..devices));
        Self { seed, start, step_ms, load, disk }
    }

    /// The batch with this number.
    #[must_use]
    pub fn batch(&self, sequence: Sequence) -> Batch {
        let mut rng = fastrand::Rng::with_seed(self.seed ^ sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let time = self.start.plus_millis(sequence as i64 * self.step_ms);
        let disk = &self.disk[(sequence / LAYOUT_LIFE % 3) as usize];
        let load = vec![float(&mut rng)];
        let reads = (0..disk.series.len()).map(|device| match rng.u8(..) {
            0..4 => Raw::missing(Reason::ALL[rng.usize(..Reason::ALL.len())]),
            _ => Raw::integer((sequence * (1 + device as u64)) as i64 + rng.i64(0..3)),
        });
        let reads = reads.collect();
        let tick = |layout: &Arc<Layout>, values| Tick { layout: Arc::clone(layout), time, values };
        Batch { ticks: vec![tick(&self.load, load), tick(disk, reads)] }
    }
}

/// Any float at all, most often a usual one.
fn float(rng: &mut fastrand::Rng) -> Raw {
    Raw::float(match rng.u8(..) {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => f64::NEG_INFINITY,
        3 => -0.0,
        4 => f64::from_bits(rng.u64(..)),
        _ => rng.f64() * 8.0,
    })
}

/// A batch of one tick of one metric with these devices, all of this value.
#[must_use]
pub fn batch_of(group: u16, metric: &str, devices: Range<usize>, time: Timestamp, value: f64) -> Batch {
    let layout = layout(group, "test", &gauge(metric), devices);
    let values = vec![Raw::float(value); layout.series.len()];
    Batch { ticks: vec![Tick { layout, time, values }] }
}

/// A layout of one series per device.
#[must_use]
pub fn layout(group: u16, sampler: &str, metric: &Arc<Metric>, devices: Range<usize>) -> Arc<Layout> {
    let series = devices.map(|device| {
        let label_values = Box::new([format!("d{device}").into()]);
        Arc::new(SeriesDefinition { metric: Arc::clone(metric), label_values })
    });
    Arc::new(Layout { group, sampler: sampler.into(), interval_ms: 1000, series: series.collect() })
}

fn gauge(name: &str) -> Arc<Metric> {
    Arc::new(Metric::new(name, Kind::Gauge, Resolution::Float, &["device"], "A test's reading."))
}

fn counter(name: &str) -> Arc<Metric> {
    Arc::new(Metric::new(name, Kind::Counter, Resolution::ONE, &["device"], "A test's count."))
}
