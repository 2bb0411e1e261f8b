//! One GPU: what it is, what it can do, and how its readings become values that can be believed.

use std::{ops::RangeInclusive, sync::Arc};

use belfry_common::model::{Metric, Reason, Timestamp};

use super::{
    instances::Instances,
    library::{Clock, Device, Field, Gpm, Threshold},
    metrics::Metrics,
};
pub(super) use crate::gpu::series::{Series, within};
use crate::{gpu::offers::Offers, readings::Readings};

/// A GPU.
pub(super) struct Gpu {
    pub(super) device: Device,
    pub(super) index: String,
    pub(super) uuid: String,
    pub(super) pci_bus_id: String,
    pub(super) limits: Limits,
    /// The instances that it is split into, if it is.
    pub(super) instances: Option<Instances>,
    /// Whether its units can be told apart, and what they had done at the last tick.
    pub(super) gpm: Option<Gpm>,
    offers: Offers<Asked>,
}

/// One thing that a GPU can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    Call(&'static str),
    /// A call with an argument: a clock, a fan, a place.
    Of(&'static str, u32),
    /// A call to one of its instances.
    Instance(&'static str, u32),
    Field(Field),
}

/// The device's own bounds, which its readings have to keep.
#[derive(Debug, Default)]
pub(super) struct Limits {
    power_max_mw: Option<u32>,
    /// °C at which it shuts down.
    shutdown: Option<u32>,
    pub(super) pcie_generation: Option<u32>,
    pub(super) pcie_width: Option<u32>,
}

impl Limits {
    fn of(device: &Device) -> Self {
        Self {
            power_max_mw: device.power_limits().map(|(_, max)| max).or_else(|_| device.power_limit_default()).ok(),
            shutdown: device.temperature_threshold(Threshold::Shutdown).ok().filter(|celsius| *celsius < 200),
            pcie_generation: device.pcie_generation_max().ok(),
            pcie_width: device.pcie_width_max().ok(),
        }
    }

    /// mW. Peaks of milliseconds go beyond the limit, but not to its double.
    fn power(&self) -> RangeInclusive<u64> {
        0..=self.power_max_mw.map_or(3_000_000, |max| 2 * u64::from(max))
    }

    /// °C. It may be reached and overrun, but not by much, for then it shuts down.
    fn temperature(&self) -> RangeInclusive<i64> {
        -50..=self.shutdown.map_or(150, |shutdown| i64::from(shutdown) + 20)
    }
}

impl Gpu {
    /// Learns who the GPU is. One that is lost already has no name but its index.
    pub(super) fn open(device: Device) -> Self {
        Self {
            index: device.index().to_string(),
            uuid: device.uuid().unwrap_or_default(),
            pci_bus_id: device.pci_address().unwrap_or_default(),
            limits: Limits::of(&device),
            instances: None,
            gpm: matches!(device.has_gpm(), Ok(true)).then(Gpm::default),
            offers: Offers::default(),
            device,
        }
    }

    /// Whether it could say who it is.
    pub(super) fn has_name(&self) -> bool {
        !self.uuid.is_empty()
    }

    /// Begins a tick: whatever was lost gets another chance.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.offers.begin(now);
    }

    pub(super) fn is_lost(&self) -> bool {
        self.offers.is_lost()
    }

    pub(super) fn answers(&self) -> bool {
        self.offers.answers()
    }

    /// Asks its instances for everything again: they are not the ones that were asked before.
    pub(super) fn forget_instances(&mut self) {
        self.offers.forget(|asked| matches!(asked, Asked::Instance(..)));
    }

    pub(super) fn unsupported(&self) -> usize {
        self.offers.unsupported()
    }

    /// Whether this is to be asked for: not while the GPU is known not to offer it.
    pub(super) fn offers(&self, asked: Asked) -> bool {
        self.offers.offers(&asked)
    }

    /// Asks, unless it is known that there is no answer: then, and when that turns out now, there is no reading at all.
    /// Of a GPU that is lost nothing more is asked in this tick.
    pub(super) fn ask<T>(
        &mut self,
        asked: Asked,
        call: impl FnOnce(&Device) -> Result<T, Reason>,
    ) -> Option<Result<T, Reason>> {
        if !self.offers(asked) {
            return None;
        }
        if self.is_lost() {
            return Some(Err(Reason::Lost));
        }
        let answer = call(&self.device);
        self.note(asked, answer)
    }

    /// Remembers what an answer says of the GPU.
    pub(super) fn note<T>(&mut self, asked: Asked, answer: Result<T, Reason>) -> Option<Result<T, Reason>> {
        self.offers.note(&asked, answer)
    }

    /// °C
    pub(super) fn temperature(
        &self,
        out: &mut Readings,
        metrics: &Metrics,
        sensor: &str,
        celsius: Result<i64, Reason>,
    ) {
        let celsius = within(celsius, &self.limits.temperature());
        self.scaled(out, &metrics.power.temperature, &[sensor], celsius.map(|celsius| celsius as f64), 1.0);
    }

    /// mW
    pub(super) fn power(&self, out: &mut Readings, metric: &Arc<Metric>, milliwatts: Result<u64, Reason>) {
        self.count(out, metric, &[], within(milliwatts, &self.limits.power()));
    }
}

impl Series for Gpu {
    fn names(&self) -> [&str; 2] {
        [&self.index, &self.uuid]
    }
}

/// Words for the clocks.
pub(super) const CLOCKS: [(&str, Clock); 4] =
    [("graphics", Clock::Graphics), ("sm", Clock::Sm), ("memory", Clock::Memory), ("video", Clock::Video)];
