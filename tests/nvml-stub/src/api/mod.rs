//! The exported functions, under NVML's names and with its C types, one file a subject.
//!
//! Each says what it gives; the way there is `dispatch`'s.

mod clocks;
mod events;
mod fabric;
mod fields;
mod gpm;
mod identity;
mod memory_errors;
mod mig;
mod nvlink;
mod pcie;
mod power;
mod processes;
mod settings;
mod system;
mod temperature;
mod utilization;

#[cfg(test)]
mod tests {
    use nvml_wrapper_sys::bindings::NvmlLib;

    use super::*;

    /// Exported functions have the types that callers load them with: else this does not compile.
    #[test]
    fn exported_functions_have_nvmls_types() {
        let _: [fn(&mut NvmlLib); 3] = [agree_on_cards, agree_on_readings, agree_on_the_rest];
    }

    fn agree_on_cards(lib: &mut NvmlLib) {
        lib.nvmlDeviceGetHandleByIndex_v2 = Ok(identity::nvmlDeviceGetHandleByIndex_v2);
        lib.nvmlDeviceGetHandleByUUID = Ok(identity::nvmlDeviceGetHandleByUUID);
        lib.nvmlDeviceGetHandleByPciBusId_v2 = Ok(identity::nvmlDeviceGetHandleByPciBusId_v2);
        lib.nvmlDeviceGetIndex = Ok(identity::nvmlDeviceGetIndex);
        lib.nvmlDeviceGetName = Ok(identity::nvmlDeviceGetName);
        lib.nvmlDeviceGetUUID = Ok(identity::nvmlDeviceGetUUID);
        lib.nvmlDeviceGetSerial = Ok(identity::nvmlDeviceGetSerial);
        lib.nvmlDeviceGetPciInfo_v3 = Ok(identity::nvmlDeviceGetPciInfo_v3);
        lib.nvmlDeviceGetMinorNumber = Ok(identity::nvmlDeviceGetMinorNumber);
        lib.nvmlDeviceGetVbiosVersion = Ok(identity::nvmlDeviceGetVbiosVersion);
        lib.nvmlDeviceGetBoardPartNumber = Ok(identity::nvmlDeviceGetBoardPartNumber);
        lib.nvmlDeviceGetInforomImageVersion = Ok(identity::nvmlDeviceGetInforomImageVersion);
        lib.nvmlDeviceGetGspFirmwareVersion = Ok(identity::nvmlDeviceGetGspFirmwareVersion);
        lib.nvmlDeviceGetCudaComputeCapability = Ok(identity::nvmlDeviceGetCudaComputeCapability);
        lib.nvmlDeviceGetArchitecture = Ok(identity::nvmlDeviceGetArchitecture);
        lib.nvmlDeviceGetBrand = Ok(identity::nvmlDeviceGetBrand);
        lib.nvmlDeviceGetMigMode = Ok(mig::nvmlDeviceGetMigMode);
        lib.nvmlDeviceGetMaxMigDeviceCount = Ok(mig::nvmlDeviceGetMaxMigDeviceCount);
        lib.nvmlDeviceGetMigDeviceHandleByIndex = Ok(mig::nvmlDeviceGetMigDeviceHandleByIndex);
        lib.nvmlDeviceIsMigDeviceHandle = Ok(mig::nvmlDeviceIsMigDeviceHandle);
        lib.nvmlDeviceGetDeviceHandleFromMigDeviceHandle = Ok(mig::nvmlDeviceGetDeviceHandleFromMigDeviceHandle);
        lib.nvmlDeviceGetGpuInstanceId = Ok(mig::nvmlDeviceGetGpuInstanceId);
        lib.nvmlDeviceGetComputeInstanceId = Ok(mig::nvmlDeviceGetComputeInstanceId);
        lib.nvmlDeviceGetAttributes_v2 = Ok(mig::nvmlDeviceGetAttributes_v2);
        lib.nvmlDeviceGetComputeRunningProcesses_v3 = Ok(processes::nvmlDeviceGetComputeRunningProcesses_v3);
        lib.nvmlDeviceGetGraphicsRunningProcesses_v3 = Ok(processes::nvmlDeviceGetGraphicsRunningProcesses_v3);
        lib.nvmlDeviceGetMPSComputeRunningProcesses_v3 = Ok(processes::nvmlDeviceGetMPSComputeRunningProcesses_v3);
        lib.nvmlDeviceGetProcessUtilization = Ok(processes::nvmlDeviceGetProcessUtilization);
        lib.nvmlDeviceGetPersistenceMode = Ok(settings::nvmlDeviceGetPersistenceMode);
        lib.nvmlDeviceGetComputeMode = Ok(settings::nvmlDeviceGetComputeMode);
        lib.nvmlDeviceSetPersistenceMode = Ok(settings::nvmlDeviceSetPersistenceMode);
        lib.nvmlDeviceSetMigMode = Ok(settings::nvmlDeviceSetMigMode);
        lib.nvmlInit_v2 = Ok(system::nvmlInit_v2);
        lib.nvmlInitWithFlags = Ok(system::nvmlInitWithFlags);
        lib.nvmlShutdown = Ok(system::nvmlShutdown);
        lib.nvmlErrorString = Ok(system::nvmlErrorString);
        lib.nvmlSystemGetDriverVersion = Ok(system::nvmlSystemGetDriverVersion);
        lib.nvmlSystemGetNVMLVersion = Ok(system::nvmlSystemGetNVMLVersion);
        lib.nvmlSystemGetCudaDriverVersion_v2 = Ok(system::nvmlSystemGetCudaDriverVersion_v2);
        lib.nvmlDeviceGetCount_v2 = Ok(system::nvmlDeviceGetCount_v2);
    }

    fn agree_on_readings(lib: &mut NvmlLib) {
        lib.nvmlDeviceGetClockInfo = Ok(clocks::nvmlDeviceGetClockInfo);
        lib.nvmlDeviceGetMaxClockInfo = Ok(clocks::nvmlDeviceGetMaxClockInfo);
        lib.nvmlDeviceGetCurrentClocksThrottleReasons = Ok(clocks::nvmlDeviceGetCurrentClocksThrottleReasons);
        lib.nvmlDeviceGetCurrentClocksEventReasons = Ok(clocks::nvmlDeviceGetCurrentClocksEventReasons);
        lib.nvmlDeviceGetSupportedClocksThrottleReasons = Ok(clocks::nvmlDeviceGetSupportedClocksThrottleReasons);
        lib.nvmlDeviceGetViolationStatus = Ok(clocks::nvmlDeviceGetViolationStatus);
        lib.nvmlDeviceGetPerformanceState = Ok(clocks::nvmlDeviceGetPerformanceState);
        lib.nvmlDeviceGetCurrPcieLinkGeneration = Ok(pcie::nvmlDeviceGetCurrPcieLinkGeneration);
        lib.nvmlDeviceGetCurrPcieLinkWidth = Ok(pcie::nvmlDeviceGetCurrPcieLinkWidth);
        lib.nvmlDeviceGetMaxPcieLinkGeneration = Ok(pcie::nvmlDeviceGetMaxPcieLinkGeneration);
        lib.nvmlDeviceGetGpuMaxPcieLinkGeneration = Ok(pcie::nvmlDeviceGetGpuMaxPcieLinkGeneration);
        lib.nvmlDeviceGetMaxPcieLinkWidth = Ok(pcie::nvmlDeviceGetMaxPcieLinkWidth);
        lib.nvmlDeviceGetPcieReplayCounter = Ok(pcie::nvmlDeviceGetPcieReplayCounter);
        lib.nvmlDeviceGetPcieThroughput = Ok(pcie::nvmlDeviceGetPcieThroughput);
        lib.nvmlDeviceGetPowerUsage = Ok(power::nvmlDeviceGetPowerUsage);
        lib.nvmlDeviceGetEnforcedPowerLimit = Ok(power::nvmlDeviceGetEnforcedPowerLimit);
        lib.nvmlDeviceGetPowerManagementLimit = Ok(power::nvmlDeviceGetPowerManagementLimit);
        lib.nvmlDeviceGetPowerManagementLimitConstraints = Ok(power::nvmlDeviceGetPowerManagementLimitConstraints);
        lib.nvmlDeviceGetPowerManagementDefaultLimit = Ok(power::nvmlDeviceGetPowerManagementDefaultLimit);
        lib.nvmlDeviceGetTotalEnergyConsumption = Ok(power::nvmlDeviceGetTotalEnergyConsumption);
        lib.nvmlDeviceGetTemperature = Ok(temperature::nvmlDeviceGetTemperature);
        lib.nvmlDeviceGetTemperatureV = Ok(temperature::nvmlDeviceGetTemperatureV);
        lib.nvmlDeviceGetTemperatureThreshold = Ok(temperature::nvmlDeviceGetTemperatureThreshold);
        lib.nvmlDeviceGetMarginTemperature = Ok(temperature::nvmlDeviceGetMarginTemperature);
        lib.nvmlDeviceGetNumFans = Ok(temperature::nvmlDeviceGetNumFans);
        lib.nvmlDeviceGetFanSpeed_v2 = Ok(temperature::nvmlDeviceGetFanSpeed_v2);
        lib.nvmlDeviceGetUtilizationRates = Ok(utilization::nvmlDeviceGetUtilizationRates);
        lib.nvmlDeviceGetEncoderUtilization = Ok(utilization::nvmlDeviceGetEncoderUtilization);
        lib.nvmlDeviceGetDecoderUtilization = Ok(utilization::nvmlDeviceGetDecoderUtilization);
        lib.nvmlDeviceGetJpgUtilization = Ok(utilization::nvmlDeviceGetJpgUtilization);
        lib.nvmlDeviceGetOfaUtilization = Ok(utilization::nvmlDeviceGetOfaUtilization);
        lib.nvmlDeviceGetMemoryInfo = Ok(utilization::nvmlDeviceGetMemoryInfo);
        lib.nvmlDeviceGetMemoryInfo_v2 = Ok(utilization::nvmlDeviceGetMemoryInfo_v2);
        lib.nvmlDeviceGetBAR1MemoryInfo = Ok(utilization::nvmlDeviceGetBAR1MemoryInfo);
        lib.nvmlDeviceGetEccMode = Ok(memory_errors::nvmlDeviceGetEccMode);
        lib.nvmlDeviceGetTotalEccErrors = Ok(memory_errors::nvmlDeviceGetTotalEccErrors);
        lib.nvmlDeviceGetMemoryErrorCounter = Ok(memory_errors::nvmlDeviceGetMemoryErrorCounter);
        lib.nvmlDeviceGetSramEccErrorStatus = Ok(memory_errors::nvmlDeviceGetSramEccErrorStatus);
        lib.nvmlDeviceGetRetiredPages = Ok(memory_errors::nvmlDeviceGetRetiredPages);
        lib.nvmlDeviceGetRetiredPages_v2 = Ok(memory_errors::nvmlDeviceGetRetiredPages_v2);
        lib.nvmlDeviceGetRetiredPagesPendingStatus = Ok(memory_errors::nvmlDeviceGetRetiredPagesPendingStatus);
        lib.nvmlDeviceGetRemappedRows = Ok(memory_errors::nvmlDeviceGetRemappedRows);
        lib.nvmlDeviceGetRowRemapperHistogram = Ok(memory_errors::nvmlDeviceGetRowRemapperHistogram);
    }

    fn agree_on_the_rest(lib: &mut NvmlLib) {
        lib.nvmlEventSetCreate = Ok(events::nvmlEventSetCreate);
        lib.nvmlEventSetFree = Ok(events::nvmlEventSetFree);
        lib.nvmlDeviceGetSupportedEventTypes = Ok(events::nvmlDeviceGetSupportedEventTypes);
        lib.nvmlDeviceRegisterEvents = Ok(events::nvmlDeviceRegisterEvents);
        lib.nvmlEventSetWait_v2 = Ok(events::nvmlEventSetWait_v2);
        lib.nvmlDeviceGetGpuFabricInfo = Ok(fabric::nvmlDeviceGetGpuFabricInfo);
        lib.nvmlDeviceGetGpuFabricInfoV = Ok(fabric::nvmlDeviceGetGpuFabricInfoV);
        lib.nvmlDeviceGetFieldValues = Ok(fields::nvmlDeviceGetFieldValues);
        lib.nvmlGpmQueryDeviceSupport = Ok(gpm::nvmlGpmQueryDeviceSupport);
        lib.nvmlGpmSampleAlloc = Ok(gpm::nvmlGpmSampleAlloc);
        lib.nvmlGpmSampleFree = Ok(gpm::nvmlGpmSampleFree);
        lib.nvmlGpmSampleGet = Ok(gpm::nvmlGpmSampleGet);
        lib.nvmlGpmMigSampleGet = Ok(gpm::nvmlGpmMigSampleGet);
        lib.nvmlGpmMetricsGet = Ok(gpm::nvmlGpmMetricsGet);
        lib.nvmlDeviceGetNvLinkState = Ok(nvlink::nvmlDeviceGetNvLinkState);
        lib.nvmlDeviceGetNvLinkVersion = Ok(nvlink::nvmlDeviceGetNvLinkVersion);
        lib.nvmlDeviceGetNvLinkErrorCounter = Ok(nvlink::nvmlDeviceGetNvLinkErrorCounter);
        lib.nvmlDeviceGetNvLinkRemotePciInfo_v2 = Ok(nvlink::nvmlDeviceGetNvLinkRemotePciInfo_v2);
    }
}
