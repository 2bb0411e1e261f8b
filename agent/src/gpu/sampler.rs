//! The samplers of GPUs, as the agent schedules them: what a worker read becomes readings, and its silence too.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use belfry_common::{
    clock,
    model::{Layout, Metric, Raw, Reason, SeriesDefinition},
};

use super::{
    driver::{DriverState, Maker, Set},
    expected::Expected,
    presence,
    supervisor::Supervisor,
    usage::{Table, Usage},
};
use crate::{
    readings::Readings,
    samplers::{
        LaneName, MINUTE, Roots, SECOND, SampleError, Sampler, TEN_SECONDS,
        declare::{gauge, info},
    },
};

/// A GPU does not come often, nor does a driver: whether there is one is looked for after this again.
const LOOK_AGAIN: Duration = MINUTE;

/// What the samplers of one maker share: its worker, if there is a GPU for it.
pub(crate) struct Gpus {
    supervisor: Supervisor,
    roots: Roots,
    /// Somebody said where the library is, so there is one.
    is_certain: bool,
    looked: Option<Instant>,
    is_present: bool,
    /// There is one, and nothing to ask.
    is_given_away: bool,
    usage: Usage,
    expected: Expected,
    /// The worker's find that was counted last.
    counted: Option<u64>,
}

impl Gpus {
    pub(crate) fn new(
        supervisor: Supervisor,
        roots: &Roots,
        is_certain: bool,
        table: &Arc<Table>,
        expected: Expected,
    ) -> Arc<Mutex<Self>> {
        let usage = Usage::new(supervisor.maker(), roots, Arc::clone(table));
        Arc::new(Mutex::new(Self {
            supervisor,
            roots: roots.clone(),
            is_certain,
            looked: None,
            is_present: is_certain,
            is_given_away: false,
            usage,
            expected,
            counted: None,
        }))
    }

    /// Counts the GPUs that a worker has just found, if it touches all of them.
    fn count_found(&mut self) {
        let found = self.supervisor.found();
        if self.supervisor.state() == DriverState::Ok && self.counted != Some(found) {
            self.counted = Some(found);
            self.expected.found(self.supervisor.gpus().len() as u32, clock::now());
        }
    }

    /// How many there are, and how many there were, while no GPU can be found any more; `None` if there never was one, or if it
    /// was given to a virtual machine.
    fn count_none(&mut self) -> Option<(usize, u32)> {
        self.counted = None;
        if self.is_given_away {
            return None;
        }
        self.expected.found(0, clock::now());
        Some((0, self.expected.count())).filter(|(_, expected)| *expected > 0)
    }

    /// As [`Self::count_none`], of what the worker found last.
    fn counts(&self) -> Option<(usize, u32)> {
        self.counted.map(|_| (self.supervisor.gpus().len(), self.expected.count()))
    }

    /// Whether there is anything to ask. What is taken out in a pause is taken out on purpose; where there never was a GPU there is no
    /// pause either.
    fn are_there(&mut self) -> bool {
        self.is_present() || (self.expected.count() > 0 && self.supervisor.is_paused())
    }

    fn is_present(&mut self) -> bool {
        if !self.is_certain && self.looked.is_none_or(|looked| looked.elapsed() > LOOK_AGAIN) {
            self.looked = Some(clock::monotonic());
            self.is_present = presence::is_present(self.supervisor.maker(), &self.roots);
            self.is_given_away = !self.is_present && presence::is_on_bus(self.supervisor.maker(), &self.roots);
        }
        self.is_present
    }
}

/// One set of readings of one maker's GPUs.
pub(crate) struct GpuSampler {
    maker: Maker,
    set: Set,
    gpus: Arc<Mutex<Gpus>>,
    metrics: DriverMetrics,
    /// The series that there were: what is missing while there is no answer.
    known: Vec<Arc<SeriesDefinition>>,
}

struct DriverMetrics {
    state: Arc<Metric>,
    responsive: Arc<Metric>,
    stuck_call: Arc<Metric>,
    devices: Arc<Metric>,
    devices_expected: Arc<Metric>,
}

impl GpuSampler {
    pub(crate) fn new(maker: Maker, set: Set, gpus: Arc<Mutex<Gpus>>) -> Self {
        let metrics = DriverMetrics {
            state: gauge("gpu_driver_state", &["driver", "state"], "How the GPUs' driver stands."),
            responsive: gauge("gpu_driver_responsive", &["driver"], "0 while a call to the driver does not come back."),
            stuck_call: info(
                "gpu_driver_stuck_call_info",
                &["driver", "call", "gpu"],
                "The call to the driver that does not come back.",
            ),
            devices: gauge("gpu_devices", &["driver"], "GPUs that the driver has."),
            devices_expected: gauge("gpu_devices_expected", &["driver"], "GPUs that it had."),
        };
        Self { maker, set, gpus, metrics, known: Vec::new() }
    }

    fn driver(metrics: &DriverMetrics, gpus: &Gpus, readings: &mut Readings) {
        let supervisor = &gpus.supervisor;
        let driver = supervisor.maker().as_str();
        for state in DriverState::ALL {
            let is_so = supervisor.state() == state;
            readings.integer(&metrics.state, &[driver, state.as_str()], i64::from(is_so));
        }
        let stuck = supervisor.stuck();
        readings.integer(&metrics.responsive, &[driver], i64::from(stuck.is_none()));
        if let Some(stuck) = stuck {
            let gpu = stuck.gpu.map(|gpu| gpu.to_string()).unwrap_or_default();
            readings.integer(&metrics.stuck_call, &[driver, &stuck.call, &gpu], 1);
        }
        Self::say_counts(metrics, supervisor.maker(), gpus.counts(), readings);
    }

    fn say_counts(metrics: &DriverMetrics, maker: Maker, counts: Option<(usize, u32)>, readings: &mut Readings) {
        let Some((devices, expected)) = counts else { return };
        readings.integer(&metrics.devices, &[maker.as_str()], devices as i64);
        readings.integer(&metrics.devices_expected, &[maker.as_str()], expected.into());
    }
}

impl Sampler for GpuSampler {
    fn name(&self) -> &'static str {
        match (self.maker, self.set) {
            (Maker::Nvidia, Set::Activity) => "gpu",
            (Maker::Nvidia, Set::Condition) => "gpu_condition",
            (Maker::Nvidia, Set::Facts) => "gpu_info",
            (Maker::Amd, Set::Activity) => "gpu_amd",
            (Maker::Amd, Set::Condition) => "gpu_amd_condition",
            (Maker::Amd, Set::Facts) => "gpu_amd_info",
        }
    }

    fn interval(&self) -> Duration {
        match self.set {
            Set::Activity => SECOND,
            Set::Condition => TEN_SECONDS,
            Set::Facts => MINUTE,
        }
    }

    fn lane(&self) -> LaneName {
        LaneName::Gpu
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        let shared = Arc::clone(&self.gpus);
        let mut gpus = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if !gpus.are_there() {
            gpus.supervisor.stop();
            self.known.clear();
            if self.set == Set::Activity {
                Self::say_counts(&self.metrics, self.maker, gpus.count_none(), readings);
            }
            return Ok(());
        }
        let answer = gpus.supervisor.read(self.set);
        gpus.count_found();
        if self.set == Set::Activity {
            Self::driver(&self.metrics, &gpus, readings);
        }
        match answer {
            Ok(answer) => {
                let tick = answer.tick.iter();
                for (series, raw) in tick.flat_map(|tick| tick.layout.series.iter().zip(&tick.values)) {
                    readings.copy(series, *raw);
                }
                self.remember(answer.tick.as_ref().map(|tick| &tick.layout), gpus.supervisor.without(), readings);
                let Gpus { supervisor, usage, .. } = &mut *gpus;
                if let Some(tick) = answer.tick.filter(|_| self.set == Set::Facts) {
                    usage.learn(&tick.layout, supervisor.gpus());
                }
                if let Some(holders) = answer.holders {
                    usage.take(holders, supervisor.gpus(), clock::monotonic(), readings);
                }
            }
            // Where there is nothing to be had on purpose nothing is missing.
            Err(_) if gpus.supervisor.state() == DriverState::Paused => self.known.clear(),
            Err(reason) => self.miss(reason, readings),
        }
        Ok(())
    }
}

impl GpuSampler {
    /// Keeps the series of an answer, and those of GPUs that were left out of it: these are missing.
    fn remember(&mut self, layout: Option<&Arc<Layout>>, without: &[u32], readings: &mut Readings) {
        let is_left_out = |series: &Arc<SeriesDefinition>| {
            let gpu = series.metric.label_names.iter().position(|name| &**name == "gpu");
            let gpu = gpu.and_then(|place| series.label_values.get(place)?.parse().ok());
            gpu.is_some_and(|gpu: u32| without.contains(&gpu))
        };
        self.known.retain(|series| !without.is_empty() && is_left_out(series));
        self.miss(Reason::Timeout, readings);
        self.known.extend(layout.into_iter().flat_map(|layout| layout.series.iter().cloned()));
    }

    fn miss(&self, reason: Reason, readings: &mut Readings) {
        for series in &self.known {
            readings.copy(series, Raw::missing(reason));
        }
    }
}
