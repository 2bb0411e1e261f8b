//! XIDs: the errors that NVIDIA's driver reports, from NVML and from the kernel's log.
//!
//! Neither source is enough. NVML is silent when it hangs, and forgets what came before it was asked; the log may not be
//! readable, and is overwritten. Both say the same error in the same seconds, so they are merged: each error counts once.

mod kernel_log;
mod merge;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use belfry_common::{
    clock,
    model::{Kind, Metric, Resolution, Timestamp},
    wire::message::{GpuEvent, GpuIdentity},
};
use tracing::{info, warn};

use self::merge::{Merged, Source};
use crate::{
    readings::Readings,
    samplers::{
        Roots, SampleError, Sampler, TEN_SECONDS,
        declare::{counter, gauge, metric},
    },
    urgent::Urgent,
};

/// What is older when it is read is history.
const NEWS_MS: i64 = 60_000;

/// The sampler's name.
const NAME: &str = "gpu_xid";

/// Every XID since the start, or since the beginning of the kernel's log.
pub(crate) struct Xids {
    state: Mutex<State>,
    urgent: Arc<Urgent>,
}

#[derive(Debug, Default)]
struct State {
    merged: Merged,
    gpus: Vec<GpuIdentity>,
    is_log_readable: bool,
}

impl Xids {
    pub(super) fn new(urgent: &Arc<Urgent>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), urgent: Arc::clone(urgent) })
    }

    /// The GPUs that there are now. Those that were known before and are no more keep their names: an error may be the reason.
    pub(super) fn identify(&self, gpus: &[GpuIdentity]) {
        let mut state = self.lock();
        // One that is lost when it is found has no names yet.
        let named = gpus.iter().filter(|gpu| !gpu.pci_bus_id.is_empty());
        for gpu in named.clone() {
            state.gpus.retain(|known| known.pci_bus_id != gpu.pci_bus_id && known.uuid != gpu.uuid);
        }
        // Where one that is gone had the index of one that is there, that is found first.
        state.gpus.splice(0..0, named.cloned());
        state.gpus.sort_by_key(|gpu| gpu.index);
    }

    /// NVML reports an error.
    pub(super) fn reported(&self, event: &GpuEvent) {
        let mut state = self.lock();
        let gpu = state.gpus.iter().find(|gpu| gpu.index == event.gpu);
        let place = gpu.map_or_else(|| format!("gpu {}", event.gpu), |gpu| slot(&gpu.pci_bus_id).to_owned());
        warn!(xid = event.xid, gpu = event.gpu, "XID reported by NVML");
        state.merged.add(Source::Nvml, &place, event.xid, Timestamp::from_millis(event.time_ms));
        drop(state);
        self.urgent.raise(NAME);
    }

    fn logged(&self, xid: &kernel_log::Logged) {
        let kernel_log::Logged { time, place, xid, process } = xid;
        self.lock().merged.add(Source::KernelLog, place, *xid, *time);
        // What stood in the log before this agent came is no news.
        if clock::now().millis_since(*time) < NEWS_MS {
            warn!(xid, place, process, "XID in the kernel's log");
            self.urgent.raise(NAME);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Slot of a GPU without its function: `0000:3b:00`, as the driver's messages have it.
fn slot(pci_bus_id: &str) -> &str {
    pci_bus_id.split_once('.').map_or(pci_bus_id, |(slot, _)| slot)
}

/// Says the XIDs as series.
pub(crate) struct XidSampler {
    xids: Arc<Xids>,
    log: PathBuf,
    /// Where the driver has its files while it is loaded.
    driver: PathBuf,
    is_following: bool,
    metrics: Metrics,
}

struct Metrics {
    errors: Arc<Metric>,
    reports: Arc<Metric>,
    last_time: Arc<Metric>,
    last_code: Arc<Metric>,
    log_readable: Arc<Metric>,
}

impl XidSampler {
    pub(super) fn new(xids: Arc<Xids>, roots: &Roots, log: PathBuf) -> Self {
        let gpu = ["gpu", "uuid", "pci_bus_id"];
        let labels = |more: &[&'static str]| [&gpu, more].concat();
        let metrics = Metrics {
            errors: counter(
                "gpu_xid_errors_total",
                &labels(&["xid"]),
                "Errors that the driver reported, by its number.",
            ),
            reports: counter(
                "gpu_xid_reports_total",
                &labels(&["xid", "source"]),
                "The same errors as each source told them.",
            ),
            last_time: metric(
                "gpu_xid_last_timestamp_seconds",
                Kind::Gauge,
                Resolution::MILLI,
                &labels(&["xid"]),
                "When the error was reported last.",
            ),
            last_code: gauge("gpu_xid_last_code", &gpu, "The last error's number; 0 if there was none."),
            log_readable: gauge("gpu_kernel_log_readable", &[], "Whether errors can be read from the kernel's log."),
        };
        Self { xids, log, driver: roots.proc.join("driver/nvidia"), is_following: false, metrics }
    }

    fn follow(&mut self) {
        self.is_following = true;
        let followed = kernel_log::follow(&self.log, Arc::downgrade(&self.xids), |xids: &Weak<Xids>, logged| {
            xids.upgrade().map(|xids| xids.logged(&logged)).is_some()
        });
        if let Err(error) = &followed {
            let log = self.log.display();
            info!(%log, %error, "kernel log cannot be read: XIDs come from NVML alone");
        }
        self.xids.lock().is_log_readable = followed.is_ok();
    }
}

impl Sampler for XidSampler {
    fn name(&self) -> &'static str {
        NAME
    }

    fn interval(&self) -> Duration {
        TEN_SECONDS
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        if self.xids.lock().gpus.is_empty() && !self.driver.exists() {
            return Ok(());
        }
        if !self.is_following {
            self.follow();
        }
        let state = self.xids.lock();
        let metrics = &self.metrics;
        readings.integer(&metrics.log_readable, &[], i64::from(state.is_log_readable));
        for gpu in &state.gpus {
            let last = state.merged.last_of(slot(&gpu.pci_bus_id)).unwrap_or(0);
            readings.integer(&metrics.last_code, &[&gpu.index.to_string(), &gpu.uuid, &gpu.pci_bus_id], last.into());
        }
        for (place, xid, errors) in state.merged.iter() {
            let gpu = state.gpus.iter().find(|gpu| slot(&gpu.pci_bus_id) == place);
            let index = gpu.map(|gpu| gpu.index.to_string()).unwrap_or_default();
            let (uuid, address) = gpu.map_or(("", place), |gpu| (&gpu.uuid, &gpu.pci_bus_id));
            let xid = xid.to_string();
            readings.unsigned(&metrics.errors, &[&index, uuid, address, &xid], errors.count);
            readings.integer(&metrics.last_time, &[&index, uuid, address, &xid], errors.last.as_millis());
            for source in Source::ALL {
                let labels = [&*index, uuid, address, &xid, source.as_str()];
                readings.unsigned(&metrics.reports, &labels, errors.reports(source));
            }
        }
        Ok(())
    }
}
