//! GPUs: read in a process of their own, because their drivers hang and crash, and nothing else may.
//!
//! ```text
//!  agent                                                       worker
//!  sampler ─▶ supervisor ─▶ process ══socket══ protocol ══▶ worker ─▶ driver: nvml, amdgpu
//!                              ◀── board: the call that it is in ──┘
//! ```
//! The agent knows no maker's library, the worker no schedule and no limits of time. Each maker has a worker, samplers and a state
//! of its own; a further maker is one more [`driver`].

mod amdgpu;
mod board;
mod devices;
mod driver;
mod expected;
mod jobs;
mod metrics;
mod nvml;
mod offers;
mod pause;
mod presence;
mod process;
mod protocol;
mod sampler;
mod series;
mod supervisor;
mod usage;
pub(crate) mod worker;
mod xid;

use std::sync::{Arc, Mutex};

use belfry_common::wire::message::Inventory;
use tokio::sync::watch;

use crate::{
    config::{NVML, Settings},
    samplers::Sampler,
    urgent::Urgent,
};
use driver::Set;
pub(crate) use driver::{DriverState, Maker};
use expected::Expected;
pub(crate) use pause::Pause;
use sampler::{GpuSampler, Gpus};
use supervisor::{Supervisor, WorkerSettings};
use usage::Table;
use xid::{XidSampler, Xids};

/// The samplers of all makers' GPUs.
pub(crate) fn samplers(
    settings: &Settings,
    urgent: &Arc<Urgent>,
    inventory: &watch::Sender<Inventory>,
) -> Vec<Box<dyn Sampler>> {
    let table = Table::new(inventory.clone());
    let xids = Xids::new(urgent);
    let mut all = of_maker(nvidia(settings, &xids), settings, &table);
    all.push(Box::new(XidSampler::new(xids, &settings.roots, settings.gpu.kernel_log.clone())));
    // New ones come last: the place is the group's number.
    all.extend(of_maker(worker(Maker::Amd, settings), settings, &table));
    all
}

/// NVIDIA's errors are known by their XIDs.
fn nvidia(settings: &Settings, xids: &Arc<Xids>) -> WorkerSettings {
    let (reported, identified) = (Arc::clone(xids), Arc::clone(xids));
    WorkerSettings {
        on_event: Arc::new(move |event| reported.reported(&event)),
        on_gpus: Arc::new(move |gpus| identified.identify(gpus)),
        ..worker(Maker::Nvidia, settings)
    }
}

fn worker(maker: Maker, settings: &Settings) -> WorkerSettings {
    WorkerSettings {
        maker,
        sys: settings.roots.sys.clone(),
        library: settings.gpu.library.clone(),
        pause: Pause::new(&settings.state_directory),
        on_event: Arc::new(|_| ()),
        on_gpus: Arc::new(|_| ()),
    }
}

fn of_maker(worker: WorkerSettings, settings: &Settings, table: &Arc<Table>) -> Vec<Box<dyn Sampler>> {
    let maker = worker.maker;
    let is_certain = maker == Maker::Nvidia && worker.library.as_os_str() != NVML;
    let expected = Expected::load(settings.state_directory.join(format!("gpus.{}", maker.as_str())));
    let gpus: Arc<Mutex<Gpus>> = Gpus::new(Supervisor::new(worker), &settings.roots, is_certain, table, expected);
    let sampler = |set| Box::new(GpuSampler::new(maker, set, Arc::clone(&gpus))) as Box<dyn Sampler>;
    Set::ALL.map(sampler).into()
}
