//! GPUs: read in a process of their own, because their drivers hang and crash, and nothing else may.
//!
//! ```text
//!  agent                                                       worker
//!  sampler ─▶ supervisor ─▶ process ══socket══ protocol ══▶ worker ─▶ driver: nvml
//!                              ◀── board: the call that it is in ──┘
//! ```
//! The agent knows no maker's library, the worker no schedule and no limits of time. A further maker is one more [`driver`].

mod board;
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

use std::sync::Arc;

use belfry_common::wire::message::Inventory;
use tokio::sync::watch;

use crate::{
    config::{NVML, Settings},
    samplers::Sampler,
    urgent::Urgent,
};
pub(crate) use driver::DriverState;
use driver::{Maker, Set};
use expected::Expected;
pub(crate) use pause::Pause;
use sampler::{GpuSampler, Gpus};
use supervisor::{Supervisor, WorkerSettings};
use xid::{XidSampler, Xids};

/// The samplers of all makers' GPUs.
pub(crate) fn samplers(
    settings: &Settings,
    urgent: &Arc<Urgent>,
    inventory: &watch::Sender<Inventory>,
) -> Vec<Box<dyn Sampler>> {
    let mut all: Vec<Box<dyn Sampler>> = Vec::new();
    let xids = Xids::new(urgent);
    for maker in Maker::ALL {
        let library = settings.gpu.library.clone();
        let is_certain = library.as_os_str() != NVML;
        let worker = WorkerSettings {
            maker,
            library,
            pause: Pause::new(&settings.state_directory),
            on_event: Arc::new({
                let xids = Arc::clone(&xids);
                move |event| xids.reported(&event)
            }),
            on_gpus: Arc::new({
                let xids = Arc::clone(&xids);
                move |gpus| xids.identify(gpus)
            }),
        };
        let file = settings.state_directory.join(format!("gpus.{}", maker.as_str()));
        let expected = Expected::load(file);
        let gpus = Gpus::new(Supervisor::new(worker), &settings.roots, is_certain, inventory.clone(), expected);
        for set in Set::ALL {
            all.push(Box::new(GpuSampler::new(set, Arc::clone(&gpus))));
        }
    }
    all.push(Box::new(XidSampler::new(xids, &settings.roots, settings.gpu.kernel_log.clone())));
    all
}
