//! Where a faulty call's number goes: into the first thing that the call gives.

use nvml_wrapper_sys::bindings as nvml;

use crate::{handle::Handle, scenario::Number};

/// What a call gives.
pub(crate) trait Output {
    /// Replaces the first number of it, cut to that number's width.
    fn set_first(&mut self, number: Number);
}

impl Output for u32 {
    fn set_first(&mut self, number: Number) {
        *self = number.as_u32();
    }
}

impl Output for u64 {
    fn set_first(&mut self, number: Number) {
        *self = number.as_u64();
    }
}

impl Output for i32 {
    fn set_first(&mut self, number: Number) {
        *self = number.as_i32();
    }
}

impl Output for String {
    fn set_first(&mut self, number: Number) {
        *self = number.to_string();
    }
}

impl Output for nvml::nvmlDevice_t {
    /// A card's index, of a card that need not be there.
    fn set_first(&mut self, number: Number) {
        *self = Handle { gpu: usize::from(number.as_u32() as u16), mig: None }.encode();
    }
}

impl<T: Output, const N: usize> Output for [T; N] {
    fn set_first(&mut self, number: Number) {
        if let Some(first) = self.first_mut() {
            first.set_first(number);
        }
    }
}

impl Output for nvml::nvmlUtilization_t {
    fn set_first(&mut self, number: Number) {
        self.gpu.set_first(number);
    }
}

impl Output for nvml::nvmlMemory_t {
    fn set_first(&mut self, number: Number) {
        self.total.set_first(number);
    }
}

impl Output for nvml::nvmlMemory_v2_t {
    fn set_first(&mut self, number: Number) {
        self.total.set_first(number);
    }
}

impl Output for nvml::nvmlBAR1Memory_t {
    fn set_first(&mut self, number: Number) {
        self.bar1Total.set_first(number);
    }
}

impl Output for nvml::nvmlTemperature_t {
    fn set_first(&mut self, number: Number) {
        self.temperature.set_first(number);
    }
}

impl Output for nvml::nvmlMarginTemperature_t {
    fn set_first(&mut self, number: Number) {
        self.marginTemperature.set_first(number);
    }
}

impl Output for nvml::nvmlViolationTime_t {
    fn set_first(&mut self, number: Number) {
        self.referenceTime.set_first(number);
    }
}

impl Output for nvml::nvmlPciInfo_t {
    fn set_first(&mut self, number: Number) {
        self.domain.set_first(number);
    }
}

impl Output for nvml::nvmlEccSramErrorStatus_t {
    fn set_first(&mut self, number: Number) {
        self.aggregateUncParity.set_first(number);
    }
}

impl Output for nvml::nvmlRowRemapperHistogramValues_t {
    fn set_first(&mut self, number: Number) {
        self.max.set_first(number);
    }
}

impl Output for nvml::nvmlDeviceAttributes_t {
    fn set_first(&mut self, number: Number) {
        self.multiprocessorCount.set_first(number);
    }
}

impl Output for nvml::nvmlGpuFabricInfo_t {
    fn set_first(&mut self, number: Number) {
        self.state = number.as_u32() as u8;
    }
}

impl Output for nvml::nvmlGpuFabricInfo_v2_t {
    fn set_first(&mut self, number: Number) {
        self.state = number.as_u32() as u8;
    }
}

impl Output for nvml::nvmlGpuFabricInfo_v3_t {
    fn set_first(&mut self, number: Number) {
        self.state = number.as_u32() as u8;
    }
}

impl Output for nvml::nvmlGpmSupport_t {
    fn set_first(&mut self, number: Number) {
        self.isSupportedDevice.set_first(number);
    }
}

impl Output for nvml::nvmlGpmMetric_t {
    fn set_first(&mut self, number: Number) {
        self.value = number.as_f64();
    }
}
