//! One GPU, or one MIG device of it, at one moment: its readings, overridden by the scenario or its kind's own.
//!
//! Pure: the scenario and the moment come in, numbers or the error of what the card lacks come out.

mod health;
mod identity;
mod links;

pub(crate) use health::{Counter, Errors};
pub(crate) use identity::{PciAddress, find_by_bus_id, find_by_uuid};

use crate::{
    clock::Moment,
    codes::Code,
    handle::Handle,
    kinds::{Instance, Mig, Model},
    readings::Reading,
    scenario::{Gpu, Process, ProcessKind, Scenario},
};

/// Memory in use when no process is there: the driver's own.
const MEMORY_USED_IDLE: u64 = 1 << 20;
const INSTANCE_USED_IDLE: u64 = 12 << 20;
/// A MIG device's part of the card's BAR1, as an A100 shows it.
const INSTANCE_BAR1_DIVISOR: u64 = 4;

/// What a handle stands for.
#[derive(Debug)]
pub(crate) struct Card<'a> {
    pub(crate) handle: Handle,
    pub(crate) gpu: &'a Gpu,
    pub(crate) model: &'static Model,
    /// Set if the handle is a MIG device's.
    pub(crate) instance: Option<&'static Instance>,
    pub(crate) scenario: &'a Scenario,
    pub(crate) moment: Moment,
}

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    pub(crate) reserved: u64,
    pub(crate) used: u64,
    pub(crate) free: u64,
}

impl<'a> Card<'a> {
    /// Fails with `InvalidArgument` if the scenario has no such device (any more).
    pub(crate) fn new(scenario: &'a Scenario, handle: Handle, moment: Moment) -> Result<Self, Code> {
        let gpu = scenario.gpus.get(handle.gpu).ok_or(Code::InvalidArgument)?;
        let model = gpu.kind.model();
        let instance = match handle.mig {
            None => None,
            Some(mig) => Some(instances(model).get(mig).ok_or(Code::InvalidArgument)?),
        };
        Ok(Self { handle, gpu, model, instance, scenario, moment })
    }

    /// The MIG devices of the card, none if it is not split.
    pub(crate) fn instances(&self) -> &'static [Instance] {
        instances(self.model)
    }

    pub(crate) fn reading(&self, reading: Reading) -> Result<f64, Code> {
        if let Some(value) = self.overridden(reading) {
            return Ok(value);
        }
        self.model.reading(reading, self.moment.since_boot).ok_or(Code::NotSupported)
    }

    fn overridden(&self, reading: Reading) -> Option<f64> {
        let seconds = if reading.accumulates() { self.moment.since_start } else { self.moment.since_load };
        self.gpu.values.get(&reading).map(|curve| curve.at(seconds))
    }

    /// Of what the scenario does not override, what the card makes of another reading.
    fn derived(&self, reading: Reading, derive: impl FnOnce() -> Result<f64, Code>) -> Result<f64, Code> {
        match self.overridden(reading) {
            Some(value) => Ok(value),
            None => self.reading(reading).and_then(|_| derive()),
        }
    }

    pub(crate) fn u32(&self, reading: Reading) -> Result<u32, Code> {
        self.reading(reading).map(as_u32)
    }

    pub(crate) fn u64(&self, reading: Reading) -> Result<u64, Code> {
        self.reading(reading).map(as_u64)
    }

    /// mW over the last second.
    pub(crate) fn power_average(&self) -> Result<u32, Code> {
        self.derived(Reading::PowerAverage, || self.reading(Reading::PowerInstant)).map(as_u32)
    }

    /// mW, as `nvmlDeviceGetPowerUsage` has it: the average where the card keeps one.
    pub(crate) fn power_usage(&self) -> Result<u32, Code> {
        self.power_average().or_else(|_| self.u32(Reading::PowerInstant))
    }

    /// °C left until the card slows down.
    pub(crate) fn temperature_margin(&self) -> Result<i32, Code> {
        let margin = self.derived(Reading::TemperatureMargin, || {
            let limit = self.model.thresholds.gpu_max.ok_or(Code::NotSupported)?;
            Ok(f64::from(limit) - self.reading(Reading::Temperature)?)
        })?;
        Ok(margin as i32)
    }

    pub(crate) fn memory(&self) -> Result<Memory, Code> {
        if let Some(instance) = self.instance {
            let processes = self.gpu.process_memory_bytes(|process| self.runs(process));
            return Ok(Memory::new(instance.memory_bytes, 0, INSTANCE_USED_IDLE + processes));
        }
        let used = match self.overridden(Reading::MemoryUsed) {
            Some(used) => as_u64(used),
            None => MEMORY_USED_IDLE + self.gpu.process_memory_bytes(|_| true),
        };
        Ok(Memory::new(self.model.memory_bytes, self.u64(Reading::MemoryReserved)?, used))
    }

    /// The part of the card's memory that the bus shows.
    pub(crate) fn bar1(&self) -> Result<Memory, Code> {
        let total = self.model.bar1_bytes;
        if self.instance.is_some() {
            return Ok(Memory::new(total / INSTANCE_BAR1_DIVISOR, 0, 0));
        }
        Ok(Memory::new(total, 0, self.u64(Reading::Bar1Used)?))
    }

    pub(crate) fn processes(&self, kind: ProcessKind) -> impl Iterator<Item = &'a Process> {
        self.gpu.processes.iter().filter(move |process| process.kind == kind && self.runs(process))
    }

    /// Whether a process is one of this device: of a card all are, of a MIG device its own.
    fn runs(&self, process: &Process) -> bool {
        self.instance.is_none_or(|instance| instance.has(process.gpu_instance, process.compute_instance))
    }
}

impl Memory {
    fn new(total: u64, reserved: u64, used: u64) -> Self {
        Self { total, reserved, used, free: total.saturating_sub(reserved).saturating_sub(used) }
    }
}

fn instances(model: &Model) -> &'static [Instance] {
    match model.mig {
        Mig::On(instances) => instances,
        Mig::Off | Mig::Unable => &[],
    }
}

/// The bits that NVML would give: a negative number wraps.
fn as_u32(value: f64) -> u32 {
    value as i64 as u32
}

fn as_u64(value: f64) -> u64 {
    if value < 0.0 { value as i64 as u64 } else { value as u64 }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn moment(since_load: f64, since_start: f64) -> Moment {
        Moment { since_load, since_start, since_boot: 1000.0 + since_start, unix_us: 0 }
    }

    /// What one GPU of a scenario reads.
    fn read(scenario: &Scenario, moment: Moment, reading: Reading) -> Result<f64, Code> {
        Card::new(scenario, Handle { gpu: 0, mig: None }, moment)?.reading(reading)
    }

    #[test]
    fn counters_keep_growing_over_a_reload_and_gauges_start_again() {
        let before = Scenario::from_str("[[gpu]]\nkind = \"h100\"").unwrap();
        let after = Scenario::from_str(
            "[[gpu]]\nkind = \"h100\"\n[gpu.values]\ntemperature = { from = 40, per_second = 1 }\n\
             nvlink_receive_bytes = { from = 0, per_second = 1e12 }",
        )
        .unwrap();
        let (last, first) = (moment(60.0, 60.0), moment(0.0, 60.5));
        for counter in [Reading::Energy, Reading::PcieReceiveBytes, Reading::ClockEventPowerCapTime] {
            let (last, first) = (read(&before, last, counter), read(&after, first, counter));
            assert!(last.unwrap() < first.unwrap(), "{counter:?}");
        }
        assert_eq!(read(&after, first, Reading::NvlinkReceiveBytes), Ok(60.5e12));
        assert_eq!(read(&after, first, Reading::Temperature), Ok(40.0));
        assert_eq!(read(&after, moment(2.0, 62.5), Reading::Temperature), Ok(42.0));
    }

    #[test]
    fn an_override_gives_a_card_what_it_lacks() {
        let bare = Scenario::from_str("[[gpu]]\nkind = \"t4\"").unwrap();
        assert_eq!(read(&bare, moment(0.0, 0.0), Reading::MemoryTemperature), Err(Code::NotSupported));
        let given = Scenario::from_str("[[gpu]]\nkind = \"t4\"\nvalues = { memory_temperature = 70 }").unwrap();
        assert_eq!(read(&given, moment(0.0, 0.0), Reading::MemoryTemperature), Ok(70.0));
    }

    #[test]
    fn what_follows_from_another_reading_follows_its_override() {
        let text = |kind: &str| {
            let values = "temperature = 80\npower_instant = 12345";
            Scenario::from_str(&format!("[[gpu]]\nkind = \"{kind}\"\n[gpu.values]\n{values}")).unwrap()
        };
        let (hopper, ampere) = (text("h100"), text("a100"));
        let card = |scenario| Card::new(scenario, Handle { gpu: 0, mig: None }, moment(0.0, 0.0)).unwrap();
        assert_eq!(card(&hopper).power_average(), Ok(12_345));
        assert_eq!(card(&hopper).temperature_margin(), Ok(7));
        assert_eq!(card(&ampere).power_average(), Err(Code::NotSupported));
        assert_eq!(card(&ampere).power_usage(), Ok(12_345));
        assert_eq!(card(&ampere).temperature_margin(), Err(Code::NotSupported));
    }

    #[test]
    fn memory_is_what_processes_use_on_the_card_and_on_each_instance() {
        let text = "[[gpu]]\nkind = \"h100_mig\"\n\
            process = [{ pid = 1, memory = 1000, gpu_instance = 1 }, { pid = 2, memory = 20, gpu_instance = 7 }]";
        let scenario = Scenario::from_str(text).unwrap();
        let used = |mig| {
            let card = Card::new(&scenario, Handle { gpu: 0, mig }, moment(0.0, 0.0)).unwrap();
            let memory = card.memory().unwrap();
            assert_eq!(memory.total, memory.free + memory.reserved + memory.used);
            (memory.used, card.processes(ProcessKind::Compute).count())
        };
        assert_eq!(used(None), (MEMORY_USED_IDLE + 1020, 2));
        assert_eq!(
            [Some(0), Some(1), Some(2)].map(used),
            [(INSTANCE_USED_IDLE + 1000, 1), (INSTANCE_USED_IDLE + 20, 1), (INSTANCE_USED_IDLE, 0)]
        );
        assert_eq!(
            Card::new(&scenario, Handle { gpu: 0, mig: Some(3) }, moment(0.0, 0.0)).err(),
            Some(Code::InvalidArgument)
        );
    }

    #[test]
    fn numbers_keep_their_bits() {
        assert_eq!((as_u32(-5.0), as_u32(4_294_967_295.0)), (u32::MAX - 4, u32::MAX));
        assert_eq!((as_u64(-1.0), as_u64(9e18)), (u64::MAX, 9_000_000_000_000_000_000));
    }
}
