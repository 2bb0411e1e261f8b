//! Load averages, from `/proc/loadavg`.

use std::{sync::Arc, time::Duration};

use belfry_common::model::{Kind, Metric, Resolution};

use super::{Roots, SECOND, SampleError, Sampler, Source};
use crate::readings::Readings;

#[derive(Debug)]
pub(crate) struct Load {
    source: Source,
    averages: [Arc<Metric>; 3],
}

impl Load {
    pub(crate) fn new(roots: &Roots) -> Self {
        let average = |name, help| Arc::new(Metric::new(name, Kind::Gauge, Resolution::CENTI, &[], help));
        Self {
            source: Source::new(roots.proc.join("loadavg")),
            averages: [
                average("node_load1", "1 minute load average."),
                average("node_load5", "5 minute load average."),
                average("node_load15", "15 minute load average."),
            ],
        }
    }
}

impl Sampler for Load {
    fn name(&self) -> &'static str {
        "load"
    }

    fn interval(&self) -> Duration {
        SECOND
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        let text = self.source.read()?;
        let mut averages = text.split_whitespace().map_while(|word| word.parse::<f64>().ok());
        for metric in &self.averages {
            let Some(average) = averages.next() else {
                return Err(self.source.format_error("three load averages were expected"));
            };
            readings.float(metric, &[], average);
        }
        Ok(())
    }
}
