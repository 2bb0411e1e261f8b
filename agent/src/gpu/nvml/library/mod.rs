//! NVML, the one place that names its bindings: in come calls in our own terms, out go values or the reason why there is none.
//!
//! Each call is noted on the worker's board before it is made. Nothing here changes a setting of a GPU: there is no call that
//! could, and the setters of the bindings are not to be used.

mod device;
mod events;
mod fabric;
mod fields;
mod gpm;
mod holders;
mod mig;
mod terms;

use std::{path::Path, rc::Rc};

use belfry_common::model::Reason;
use nvml_wrapper::{FieldIdScheme, Nvml, error::NvmlError};

pub(super) use device::Device;
pub(super) use events::Watch;
pub(super) use fabric::Fabric;
pub(super) use fields::{Field, FieldValue};
pub(super) use gpm::{Activity, Gpm};
pub(super) use holders::Busy;
pub(super) use mig::{Instance, NO_INSTANCE};
pub(super) use terms::{Clock, ClockEvents, EccScope, EccType, Holder, Location, Memory, Threshold};

use super::super::{
    board::Board,
    driver::{DriverState, Unusable},
};

const ARGUMENT_VERSION_MISMATCH: u32 = 25;
const DEPRECATED: u32 = 26;
const GPU_NOT_FOUND: u32 = 28;

/// NVML, opened.
pub(super) struct Library {
    nvml: &'static Nvml,
    board: Rc<Board>,
}

impl Library {
    /// Loads and initialises NVML.
    pub(super) fn open(path: &Path, board: Rc<Board>) -> Result<Self, Unusable> {
        board.note("nvmlInit_v2", None);
        let nvml = Nvml::builder().lib_path(path.as_os_str()).init().map_err(|error| unusable(&error))?;
        // Devices refer to it for as long as the process lives; it is shut down by the process' end, which closes every handle.
        Ok(Self { nvml: Box::leak(Box::new(nvml)), board })
    }

    pub(super) fn driver_version(&self) -> Result<String, Reason> {
        self.call("nvmlSystemGetDriverVersion", Nvml::sys_driver_version)
    }

    pub(super) fn nvml_version(&self) -> Result<String, Reason> {
        self.call("nvmlSystemGetNVMLVersion", Nvml::sys_nvml_version)
    }

    /// As `12.4`.
    pub(super) fn cuda_version(&self) -> Result<String, Reason> {
        let version = self.call("nvmlSystemGetCudaDriverVersion_v2", Nvml::sys_cuda_driver_version)?;
        let (major, minor) =
            (nvml_wrapper::cuda_driver_version_major(version), nvml_wrapper::cuda_driver_version_minor(version));
        Ok(format!("{major}.{minor}"))
    }

    pub(super) fn device_count(&self) -> Result<u32, Reason> {
        self.call("nvmlDeviceGetCount_v2", Nvml::device_count)
    }

    pub(super) fn device(&self, index: u32) -> Result<Device, Reason> {
        self.board.note("nvmlDeviceGetHandleByIndex_v2", Some(index));
        let device = self.nvml.device_by_index(index).map_err(|error| reason(&error))?;
        Ok(Device::new(index, device, Rc::clone(&self.board)))
    }

    fn call<T>(&self, name: &str, call: impl FnOnce(&Nvml) -> Result<T, NvmlError>) -> Result<T, Reason> {
        self.board.note(name, None);
        call(self.nvml).map_err(|error| reason(&error))
    }
}

/// Numbers of fields changed with driver 580.82.
fn is_renumbered(nvml: &Nvml) -> bool {
    nvml.field_id_scheme() == FieldIdScheme::V13Update1
}

/// What an error of NVML says about a reading.
fn reason(error: &NvmlError) -> Reason {
    match error {
        // Arguments here are constants: a driver that refuses one does not know it.
        NvmlError::NotSupported
        | NvmlError::FailedToLoadSymbol(_)
        | NvmlError::FunctionNotFound
        | NvmlError::InvalidArg
        | NvmlError::NotFound => Reason::Unsupported,
        NvmlError::NoPermission => Reason::Permission,
        NvmlError::Timeout => Reason::Timeout,
        NvmlError::GpuLost | NvmlError::ResetRequired => Reason::Lost,
        // Errors that the bindings have no name for come as their number.
        NvmlError::UnexpectedVariant(ARGUMENT_VERSION_MISMATCH | DEPRECATED) => Reason::Unsupported,
        NvmlError::UnexpectedVariant(GPU_NOT_FOUND) => Reason::Lost,
        NvmlError::UnexpectedVariant(_) | NvmlError::IncorrectBits(_) => Reason::OutOfRange,
        _ => Reason::Error,
    }
}

fn unusable(error: &NvmlError) -> Unusable {
    let state = match error {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => DriverState::NoLibrary,
        NvmlError::DriverNotLoaded => DriverState::NoDriver,
        NvmlError::NoPermission => DriverState::NoPermission,
        NvmlError::LibRmVersionMismatch => DriverState::VersionMismatch,
        _ => DriverState::Failed,
    };
    Unusable { state, detail: error.to_string() }
}
