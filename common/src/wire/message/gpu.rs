//! What an agent and its GPU worker say to each other, over a socket between the two and never on the network; and what
//! the agent tells the collector of who uses its GPUs.

use bincode::{BorrowDecode, Decode, Encode};

/// Agent: read these now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct GpuRequest {
    /// Numbers requests; the answer carries it.
    pub sequence: u64,
    /// Which readings, by the worker's own numbers.
    pub set: u8,
    /// The time that the tick shall carry, in milliseconds since the Unix epoch.
    pub time_ms: i64,
}

/// Worker, once at its start: whether there is a driver, and the GPUs that it knows.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GpuReady {
    /// The driver's state, by the worker's own numbers. Unless all is well the worker ends after this.
    pub state: u8,
    /// The error in words, for people; empty when all is well.
    pub detail: String,
    /// In the order of their indices.
    pub gpus: Vec<GpuIdentity>,
}

/// Names one GPU in every way in which others name it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GpuIdentity {
    /// The driver's index.
    pub index: u32,
    /// The driver's unique name.
    pub uuid: String,
    /// `0000:3b:00.0`, lower case, as sysfs writes it.
    pub pci_bus_id: String,
}

/// Worker: the answer to one request.
#[derive(Debug, Clone, PartialEq, Eq, Encode, BorrowDecode)]
pub struct GpuReadings<'a> {
    /// The request's number.
    pub sequence: u64,
    /// A batch in the codec's bits (see [`crate::wire::codec`]), in one context for the worker's life.
    pub body: &'a [u8],
    /// Who uses the GPUs, if that was asked for: of those that say it.
    pub holders: Option<Vec<GpuHolders>>,
}

/// The processes that hold a GPU. One that does not say it is not there at all.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GpuHolders {
    /// The GPU's index.
    pub gpu: u32,
    /// All of them.
    pub processes: Vec<GpuProcess>,
}

/// A process that holds a GPU, as the driver sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GpuProcess {
    /// The GPU's index.
    pub gpu: u32,
    /// The process, in the host's numbers.
    pub pid: u32,
    /// Memory that it holds; none where the driver does not say.
    pub memory_bytes: Option<u64>,
    /// Share of the time in which one of its kernels ran, in percent; none where the driver does not say.
    pub sm_percent: Option<u8>,
    /// Share of the encoders' time, in percent.
    pub encoder_percent: Option<u8>,
    /// Share of the decoders' time, in percent.
    pub decoder_percent: Option<u8>,
    /// The MIG instance that it runs in.
    pub gpu_instance: Option<u32>,
    /// The compute instance within it.
    pub compute_instance: Option<u32>,
}

/// Worker, unasked: the driver reported an error of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GpuEvent {
    /// When it came, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The GPU's index.
    pub gpu: u32,
    /// NVIDIA's number of the error.
    pub xid: u32,
}

/// Agent, to the collector: who uses the GPUs now. Not stored; each replaces the one before. Since protocol version 2.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Inventory {
    /// When it was taken, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Unique names of the GPUs that told who holds them: of others it is not known. At most
    /// [`crate::limits::INVENTORY_GPUS_MAX`].
    pub gpus: Vec<String>,
    /// At most [`crate::limits::INVENTORY_PROCESSES_MAX`], those that hold most memory first.
    pub processes: Vec<InventoryProcess>,
    /// Processes beyond those.
    pub left_out: u32,
}

/// A process that holds a GPU, as the node knows it. Text that is not known is empty.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct InventoryProcess {
    /// What the driver says.
    pub holds: GpuProcess,
    /// The GPU's unique name.
    pub uuid: String,
    /// Its user's name, or number.
    pub user: String,
    /// Its program, in short.
    pub command: String,
    /// What it is run for.
    pub job: Option<InventoryJob>,
}

/// The job behind a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct InventoryJob {
    /// Names of labels and their values, none of which is empty: kind and id first.
    pub labels: Vec<(String, String)>,
}
