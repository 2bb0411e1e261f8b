//! NVIDIA's GPUs, through NVML.
//!
//! Lives in the worker process. [`library`] is the only place that names NVML; the rest turns what it says into readings,
//! each checked against what is possible: the field's published defects (0xFFFFFFFF percent, 9e18 °C, three times the power
//! that a card can draw) are `out_of_range` here and never values.

mod activity;
mod condition;
mod facts;
mod gpu;
mod instances;
mod library;
mod links;
mod metrics;
mod processes;

use std::{path::Path, rc::Rc};

use belfry_common::{
    model::Timestamp,
    wire::message::{GpuHolders, GpuIdentity},
};

use self::{
    facts::Versions,
    gpu::Gpu,
    library::{Library, Watch},
    metrics::Metrics,
    processes::Processes,
};
use super::{
    board::Board,
    driver::{Driver, DriverState, Events, Set, Unusable},
};
use crate::readings::Readings;

/// NVIDIA's driver and the GPUs that it has.
pub(super) struct Nvidia {
    library: Library,
    metrics: Metrics,
    versions: Versions,
    /// Indices of the GPUs to read.
    wanted: Vec<u32>,
    /// Those of them that there are, by index.
    gpus: Vec<Gpu>,
    processes: Processes,
    /// Whose errors are reported, if any are.
    watch: Option<Watch>,
}

impl Nvidia {
    /// Opens the library and every GPU but those `without`.
    pub(super) fn open(library: &Path, without: &[u32], board: Rc<Board>) -> Result<Self, Unusable> {
        let library = Library::open(library, board)?;
        let failed = |state, detail: &str| Unusable { state, detail: detail.to_owned() };
        let count = library
            .device_count()
            .map_err(|reason| failed(DriverState::Failed, &format!("GPUs cannot be counted: {}", reason.as_str())))?;
        if count == 0 {
            return Err(failed(DriverState::NoDevices, "the driver is loaded and finds no GPU"));
        }
        let wanted = (0..count).filter(|index| !without.contains(index)).collect();
        let versions = Versions::of(&library);
        let (metrics, processes) = (Metrics::new(), Processes::default());
        let mut nvidia = Self { library, metrics, versions, wanted, gpus: Vec::new(), processes, watch: None };
        nvidia.find();
        Ok(nvidia)
    }

    /// Opens the GPUs that could not be opened before: one that is lost has no handle, or no name.
    fn find(&mut self) {
        for &index in &self.wanted {
            let place = self.gpus.binary_search_by_key(&index, |gpu| gpu.device.index());
            if place.is_ok_and(|place| self.gpus.get(place).is_some_and(Gpu::has_name)) {
                continue;
            }
            let Ok(device) = self.library.device(index) else { continue };
            let mut gpu = Gpu::open(device);
            instances::discover(&mut gpu);
            match place {
                Ok(place) => {
                    if let Some(known) = self.gpus.get_mut(place).filter(|_| gpu.has_name()) {
                        *known = gpu;
                    }
                }
                Err(place) => self.gpus.insert(place, gpu),
            }
        }
    }
}

impl Driver for Nvidia {
    fn gpus(&self) -> Vec<GpuIdentity> {
        let identity = |gpu: &Gpu| GpuIdentity {
            index: gpu.device.index(),
            uuid: gpu.uuid.clone(),
            pci_bus_id: gpu.pci_bus_id.clone(),
        };
        self.gpus.iter().map(identity).collect()
    }

    fn sample(&mut self, set: Set, time: Timestamp, readings: &mut Readings) {
        match set {
            Set::Activity => {
                if let Some(watch) = &mut self.watch {
                    watch.tend(&self.library);
                }
            }
            Set::Condition => self.find(),
            Set::Facts => self.versions.read(&self.metrics, readings),
        }
        for gpu in &mut self.gpus {
            gpu.begin(time);
            match set {
                Set::Activity => activity::read(gpu, &self.metrics, readings),
                Set::Condition => condition::read(gpu, &self.metrics, readings),
                Set::Facts => facts::read(gpu, &self.versions, &self.metrics, readings),
            }
        }
    }

    fn holders(&mut self) -> Vec<GpuHolders> {
        self.processes.read(&mut self.gpus)
    }

    fn events(&mut self) -> Option<Box<dyn Events>> {
        let (watch, events) = Watch::begin(&self.library, &self.wanted)?;
        self.watch = Some(watch);
        Some(Box::new(events))
    }
}
