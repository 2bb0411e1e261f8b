//! One GPU or MIG instance: its calls, one method each.

use std::rc::Rc;

use belfry_common::model::Reason;
use nvml_wrapper::{
    enum_wrappers::device::{PerformanceState, RetirementCause, TemperatureSensor},
    error::{NvmlError, nvml_sym, nvml_try},
};
use nvml_wrapper_sys::bindings::{self, NvmlLib, nvmlDevice_t, nvmlReturn_t};

use super::{
    super::super::board::Board,
    reason,
    terms::{Clock, ClockEvents, EccScope, EccType, Location, Memory, Threshold},
};

/// A GPU, or a MIG instance of one.
pub(in super::super) struct Device {
    index: u32,
    device: Handle,
    board: Rc<Board>,
}

/// NVML's own handle.
pub(in super::super) type Handle = nvml_wrapper::Device<'static>;

impl Device {
    pub(super) fn new(index: u32, device: Handle, board: Rc<Board>) -> Self {
        Self { index, device, board }
    }

    pub(in super::super) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.device
    }

    pub(super) fn board(&self) -> &Rc<Board> {
        &self.board
    }

    pub(super) fn call<T>(&self, name: &str, call: impl FnOnce(&Handle) -> Result<T, NvmlError>) -> Result<T, Reason> {
        self.board.note(name, Some(self.index));
        call(&self.device).map_err(|error| reason(&error))
    }

    /// A call that the bindings have only as it is in C: `call` gets NVML's functions and the device's handle.
    pub(super) fn raw(
        &self,
        name: &str,
        call: impl FnOnce(&NvmlLib, nvmlDevice_t) -> Result<nvmlReturn_t, NvmlError>,
    ) -> Result<(), Reason> {
        self.call(name, |device| {
            #[expect(unsafe_code, reason = "NVML's handle is what its C functions take")]
            // SAFETY: the handle is of this library, which is never unloaded.
            let handle = unsafe { device.handle() };
            nvml_try(call(device.nvml().lib(), handle)?)
        })
    }

    pub(in super::super) fn name(&self) -> Result<String, Reason> {
        self.call("nvmlDeviceGetName", Handle::name)
    }

    pub(in super::super) fn uuid(&self) -> Result<String, Reason> {
        self.call("nvmlDeviceGetUUID", Handle::uuid)
    }

    pub(in super::super) fn serial(&self) -> Result<String, Reason> {
        self.call("nvmlDeviceGetSerial", Handle::serial)
    }

    pub(in super::super) fn vbios_version(&self) -> Result<String, Reason> {
        self.call("nvmlDeviceGetVbiosVersion", Handle::vbios_version)
    }

    pub(in super::super) fn board_part_number(&self) -> Result<String, Reason> {
        self.call("nvmlDeviceGetBoardPartNumber", Handle::board_part_number)
    }

    pub(in super::super) fn minor_number(&self) -> Result<u32, Reason> {
        self.call("nvmlDeviceGetMinorNumber", Handle::minor_number)
    }

    /// As `9.0`.
    pub(in super::super) fn compute_capability(&self) -> Result<String, Reason> {
        let capability = self.call("nvmlDeviceGetCudaComputeCapability", Handle::cuda_compute_capability)?;
        Ok(format!("{}.{}", capability.major, capability.minor))
    }

    /// Where it sits, in the form of sysfs: `0000:3b:00.0`.
    pub(in super::super) fn pci_address(&self) -> Result<String, Reason> {
        let pci = self.call("nvmlDeviceGetPciInfo_v3", Handle::pci_info)?;
        Ok(format!("{:04x}:{:02x}:{:02x}.0", pci.domain, pci.bus, pci.device))
    }

    /// Shares of the last sampling period, in percent: of the time in which a kernel ran, and in which memory was moved.
    pub(in super::super) fn utilization(&self) -> Result<(u32, u32), Reason> {
        let rates = self.call("nvmlDeviceGetUtilizationRates", Handle::utilization_rates)?;
        Ok((rates.gpu, rates.memory))
    }

    pub(in super::super) fn encoder_utilization(&self) -> Result<u32, Reason> {
        Ok(self.call("nvmlDeviceGetEncoderUtilization", Handle::encoder_utilization)?.utilization)
    }

    pub(in super::super) fn decoder_utilization(&self) -> Result<u32, Reason> {
        Ok(self.call("nvmlDeviceGetDecoderUtilization", Handle::decoder_utilization)?.utilization)
    }

    #[expect(unsafe_code, reason = "the bindings have it only as it is in C")]
    pub(in super::super) fn jpeg_utilization(&self) -> Result<u32, Reason> {
        let (mut percent, mut period_us) = (0, 0);
        self.raw("nvmlDeviceGetJpgUtilization", |nvml, device| {
            let call = nvml_sym(nvml.nvmlDeviceGetJpgUtilization.as_ref())?;
            // SAFETY: both outputs are of the type that it writes.
            Ok(unsafe { call(device, &raw mut percent, &raw mut period_us) })
        })?;
        Ok(percent)
    }

    #[expect(unsafe_code, reason = "the bindings have it only as it is in C")]
    pub(in super::super) fn ofa_utilization(&self) -> Result<u32, Reason> {
        let (mut percent, mut period_us) = (0, 0);
        self.raw("nvmlDeviceGetOfaUtilization", |nvml, device| {
            let call = nvml_sym(nvml.nvmlDeviceGetOfaUtilization.as_ref())?;
            // SAFETY: both outputs are of the type that it writes.
            Ok(unsafe { call(device, &raw mut percent, &raw mut period_us) })
        })?;
        Ok(percent)
    }

    pub(in super::super) fn memory(&self) -> Result<Memory, Reason> {
        match self.call("nvmlDeviceGetMemoryInfo_v2", Handle::memory_info) {
            Ok(info) => {
                Ok(Memory { total: info.total, used: info.used, free: info.free, reserved: Some(info.reserved) })
            }
            Err(Reason::Unsupported) => self.memory_v1(),
            Err(reason) => Err(reason),
        }
    }

    #[expect(unsafe_code, reason = "the bindings have the old form only as it is in C")]
    fn memory_v1(&self) -> Result<Memory, Reason> {
        let mut info = bindings::nvmlMemory_t { total: 0, free: 0, used: 0 };
        self.raw("nvmlDeviceGetMemoryInfo", |nvml, device| {
            let call = nvml_sym(nvml.nvmlDeviceGetMemoryInfo.as_ref())?;
            // SAFETY: the output is the structure that it fills.
            Ok(unsafe { call(device, &raw mut info) })
        })?;
        Ok(Memory { total: info.total, used: info.used, free: info.free, reserved: None })
    }

    /// Of the window through which the host reaches the GPU's memory: used and total bytes.
    pub(in super::super) fn bar1_memory(&self) -> Result<(u64, u64), Reason> {
        let info = self.call("nvmlDeviceGetBAR1MemoryInfo", Handle::bar1_memory_info)?;
        Ok((info.used, info.total))
    }

    /// °C
    pub(in super::super) fn temperature(&self) -> Result<u32, Reason> {
        self.call("nvmlDeviceGetTemperature", |device| device.temperature(TemperatureSensor::Gpu))
    }

    /// °C
    pub(in super::super) fn temperature_threshold(&self, threshold: Threshold) -> Result<u32, Reason> {
        self.call("nvmlDeviceGetTemperatureThreshold", |device| device.temperature_threshold(threshold.into()))
    }

    /// How far the GPU is from its slowdown, in °C; negative beyond it.
    #[expect(unsafe_code, reason = "the bindings have it only as it is in C")]
    pub(in super::super) fn temperature_margin(&self) -> Result<i32, Reason> {
        let version = struct_version::<bindings::nvmlMarginTemperature_v1_t>(1);
        let mut margin = bindings::nvmlMarginTemperature_v1_t { version, marginTemperature: 0 };
        self.raw("nvmlDeviceGetMarginTemperature", |nvml, device| {
            let call = nvml_sym(nvml.nvmlDeviceGetMarginTemperature.as_ref())?;
            // SAFETY: the output is the structure whose version and size it says.
            Ok(unsafe { call(device, &raw mut margin) })
        })?;
        Ok(margin.marginTemperature)
    }

    /// mW; an average of a second on most cards since Ampere.
    pub(in super::super) fn power(&self) -> Result<u32, Reason> {
        self.call("nvmlDeviceGetPowerUsage", Handle::power_usage)
    }

    /// mW; what is in force, whoever set it.
    pub(in super::super) fn power_limit_enforced(&self) -> Result<u32, Reason> {
        self.call("nvmlDeviceGetEnforcedPowerLimit", Handle::enforced_power_limit)
    }

    /// mW
    pub(in super::super) fn power_limit_default(&self) -> Result<u32, Reason> {
        self.call("nvmlDeviceGetPowerManagementDefaultLimit", Handle::power_management_limit_default)
    }

    /// mW; the least and the most that can be set.
    pub(in super::super) fn power_limits(&self) -> Result<(u32, u32), Reason> {
        let limits =
            self.call("nvmlDeviceGetPowerManagementLimitConstraints", Handle::power_management_limit_constraints)?;
        Ok((limits.min_limit, limits.max_limit))
    }

    /// mJ since the driver was loaded.
    pub(in super::super) fn energy(&self) -> Result<u64, Reason> {
        self.call("nvmlDeviceGetTotalEnergyConsumption", Handle::total_energy_consumption)
    }

    /// MHz
    pub(in super::super) fn clock(&self, clock: Clock) -> Result<u32, Reason> {
        self.call("nvmlDeviceGetClockInfo", |device| device.clock_info(clock.into()))
    }

    /// MHz
    pub(in super::super) fn clock_max(&self, clock: Clock) -> Result<u32, Reason> {
        self.call("nvmlDeviceGetMaxClockInfo", |device| device.max_clock_info(clock.into()))
    }

    pub(in super::super) fn clock_events(&self) -> Result<ClockEvents, Reason> {
        let reasons = self.call("nvmlDeviceGetCurrentClocksThrottleReasons", Handle::current_throttle_reasons)?;
        Ok(ClockEvents(reasons.bits()))
    }

    /// 0, the fastest, to 15.
    pub(in super::super) fn performance_state(&self) -> Result<u32, Reason> {
        match self.call("nvmlDeviceGetPerformanceState", Handle::performance_state)? {
            PerformanceState::Unknown => Err(Reason::Unsupported),
            state => Ok(state.as_c()),
        }
    }

    pub(in super::super) fn fan_count(&self) -> Result<u32, Reason> {
        self.call("nvmlDeviceGetNumFans", Handle::num_fans)
    }

    /// Percent of the most; above 100 on some cards.
    pub(in super::super) fn fan_speed(&self, fan: u32) -> Result<u32, Reason> {
        self.call("nvmlDeviceGetFanSpeed_v2", |device| device.fan_speed(fan))
    }

    pub(in super::super) fn pcie_generation(&self) -> Result<u32, Reason> {
        self.call("nvmlDeviceGetCurrPcieLinkGeneration", Handle::current_pcie_link_gen)
    }

    /// What GPU and slot can do together.
    pub(in super::super) fn pcie_generation_max(&self) -> Result<u32, Reason> {
        self.call("nvmlDeviceGetMaxPcieLinkGeneration", Handle::max_pcie_link_gen)
    }

    /// Lanes.
    pub(in super::super) fn pcie_width(&self) -> Result<u32, Reason> {
        self.call("nvmlDeviceGetCurrPcieLinkWidth", Handle::current_pcie_link_width)
    }

    pub(in super::super) fn pcie_width_max(&self) -> Result<u32, Reason> {
        self.call("nvmlDeviceGetMaxPcieLinkWidth", Handle::max_pcie_link_width)
    }

    pub(in super::super) fn pcie_replays(&self) -> Result<u32, Reason> {
        self.call("nvmlDeviceGetPcieReplayCounter", Handle::pcie_replay_counter)
    }

    pub(in super::super) fn link_is_active(&self, link: u32) -> Result<bool, Reason> {
        self.call("nvmlDeviceGetNvLinkState", |device| device.link_wrapper_for(link).is_active())
    }

    pub(in super::super) fn ecc_enabled(&self) -> Result<bool, Reason> {
        Ok(self.call("nvmlDeviceGetEccMode", Handle::is_ecc_enabled)?.currently_enabled)
    }

    pub(in super::super) fn ecc_errors(
        &self,
        kind: EccType,
        scope: EccScope,
        location: Location,
    ) -> Result<u64, Reason> {
        self.call("nvmlDeviceGetMemoryErrorCounter", |device| {
            device.memory_error_counter(kind.into(), scope.into(), location.into())
        })
    }

    pub(in super::super) fn retired_pages(&self, is_double_bit: bool) -> Result<usize, Reason> {
        let cause = if is_double_bit {
            RetirementCause::DoubleBitEccError
        } else {
            RetirementCause::MultipleSingleBitEccErrors
        };
        Ok(self.call("nvmlDeviceGetRetiredPages_v2", |device| device.retired_pages(cause))?.len())
    }

    pub(in super::super) fn retired_pages_pending(&self) -> Result<bool, Reason> {
        self.call("nvmlDeviceGetRetiredPagesPendingStatus", Handle::are_pages_pending_retired)
    }

    pub(in super::super) fn persistence_mode(&self) -> Result<bool, Reason> {
        self.call("nvmlDeviceGetPersistenceMode", Handle::is_in_persistent_mode)
    }

    /// NVML's number: 0 default, 2 prohibited, 3 exclusive process.
    pub(in super::super) fn compute_mode(&self) -> Result<u32, Reason> {
        Ok(self.call("nvmlDeviceGetComputeMode", Handle::compute_mode)?.as_c())
    }

    pub(in super::super) fn mig_enabled(&self) -> Result<bool, Reason> {
        Ok(self.call("nvmlDeviceGetMigMode", Handle::mig_mode)?.current == 1)
    }
}

/// How NVML wants the version of a structure said: its size, and the version in the highest byte.
pub(super) fn struct_version<T>(version: u32) -> u32 {
    size_of::<T>() as u32 | version << 24
}
