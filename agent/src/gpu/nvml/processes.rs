//! Who uses the GPUs, and how much.

use std::collections::HashMap;

use belfry_common::wire::message::{GpuHolders, GpuProcess};

use super::{
    gpu::{Asked, Gpu},
    library::{Busy, Holder, NO_INSTANCE},
};

/// Processes of one GPU; more are not told apart.
const PROCESSES_MAX: usize = 512;

/// What was read of processes before.
#[derive(Debug, Default)]
pub(super) struct Processes {
    /// By GPU: the newest sample of utilisation, by the driver's clock.
    seen_us: HashMap<u32, u64>,
}

impl Processes {
    /// The processes of all GPUs that say them, each once for each GPU and instance.
    pub(super) fn read(&mut self, gpus: &mut [Gpu]) -> Vec<GpuHolders> {
        gpus.iter_mut().filter_map(|gpu| self.of(gpu)).collect()
    }

    fn of(&mut self, gpu: &mut Gpu) -> Option<GpuHolders> {
        let holders = gpu.ask(Asked::Call("processes"), |device| device.holders())?.ok()?;
        let busy = self.busy(gpu);
        let mut processes: Vec<GpuProcess> = Vec::new();
        for Holder { pid, memory, gpu_instance, compute_instance } in holders.into_iter().take(PROCESSES_MAX) {
            let is_same = |known: &&mut GpuProcess| known.pid == pid && known.gpu_instance == gpu_instance;
            if let Some(known) = processes.iter_mut().find(is_same) {
                // It computes and draws: the driver says its memory both times.
                known.memory_bytes = known.memory_bytes.max(memory);
                continue;
            }
            let instance = |id: Option<u32>| id.filter(|id| *id != NO_INSTANCE);
            // Of a process that ran nothing there is no sample.
            let share =
                |share: fn(&Share) -> Option<u8>| busy.as_ref().and_then(|busy| busy.get(&pid).map_or(Some(0), share));
            processes.push(GpuProcess {
                gpu: gpu.device.index(),
                pid,
                memory_bytes: memory,
                sm_percent: share(|share| share.sm),
                encoder_percent: share(|share| share.encoder),
                decoder_percent: share(|share| share.decoder),
                gpu_instance: instance(gpu_instance),
                compute_instance: instance(compute_instance),
            });
        }
        Some(GpuHolders { gpu: gpu.device.index(), processes })
    }

    /// How busy each process was since the last time; `None` where the driver does not say.
    fn busy(&mut self, gpu: &mut Gpu) -> Option<HashMap<u32, Share>> {
        let seen = self.seen_us.entry(gpu.device.index()).or_default();
        let samples = gpu.ask(Asked::Call("process_utilization"), |device| device.busy_since(*seen))?.ok()?;
        let mut shares: HashMap<u32, Share> = HashMap::new();
        for sample in samples {
            *seen = (*seen).max(sample.time_us);
            shares.entry(sample.pid).or_default().add(&sample);
        }
        Some(shares)
    }
}

/// The most that a process used in the samples since the last time. Sentinels of time-sliced GPUs are no shares.
#[derive(Debug, Default)]
struct Share {
    sm: Option<u8>,
    encoder: Option<u8>,
    decoder: Option<u8>,
}

impl Share {
    fn add(&mut self, sample: &Busy) {
        let percent = |percent: u32| u8::try_from(percent).ok().filter(|percent| *percent <= 100);
        self.sm = self.sm.max(percent(sample.sm));
        self.encoder = self.encoder.max(percent(sample.encoder));
        self.decoder = self.decoder.max(percent(sample.decoder));
    }
}
