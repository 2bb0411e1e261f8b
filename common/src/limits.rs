//! Every cap in one place, each with its reason.
//!
//! A length from outside is compared with its cap before anything is allocated for it.

use std::time::Duration;

/// DNS names have at most 253 characters, and node names usually are one.
pub const NODE_NAME_BYTES_MAX: usize = 253;

/// Longest of the field's own names is under 80; recorded rules make them longer.
pub const METRIC_NAME_BYTES_MAX: usize = 200;

/// Prometheus has no limit; nobody's label is longer than this.
pub const LABEL_NAME_BYTES_MAX: usize = 100;

/// Mount points and device paths: `PATH_MAX` is 4,096, but a label is not a file. Longer values are cut by the agent.
pub const LABEL_VALUE_BYTES_MAX: usize = 512;

/// Help is one sentence.
pub const HELP_BYTES_MAX: usize = 300;

/// Labels of one metric: node_exporter's most labelled series has 8, `gpu_info` about 12.
pub const LABELS_PER_METRIC_MAX: usize = 32;

/// Series of one node that the wire can carry at all. An 8-GPU node with per-link counters and 256 CPUs has about 6,000.
pub const SERIES_PER_NODE_WIRE_MAX: usize = 65_536;

/// Series of one node that the collector keeps unless configured otherwise; more are counted and left out.
pub const SERIES_PER_NODE_DEFAULT: usize = 20_000;

/// Bytes of the label values of one node's series that the wire can carry: 512 for each series that it can carry.
pub const LABEL_BYTES_PER_NODE_WIRE_MAX: usize = 32 * 1024 * 1024;

/// Bytes of the label values of one node's series that the collector keeps: 200 for each of 20,000 series. Most have under 30.
pub const LABEL_BYTES_PER_NODE_MAX: usize = 4 * 1024 * 1024;

/// Sampler groups of one agent: a sampler is a group, and there are under 40.
pub const GROUPS_PER_NODE_MAX: usize = 256;

/// Ticks in one batch: one of each group.
pub const TICKS_PER_BATCH_MAX: usize = GROUPS_PER_NODE_MAX;

/// Batches in one frame: a minute of backlog at one batch a second.
pub const BATCHES_PER_FRAME_MAX: usize = 64;

/// A frame's payload as it travels. A reset frame of 20,000 series is about 1 MB before compression.
pub const FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What a compressed payload may unpack to, checked on its declared size first.
pub const FRAME_UNPACKED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A control message (hello, request) is text for one node, never bulk.
pub const CONTROL_BYTES_MAX: usize = 64 * 1024;

/// Processes in one inventory: eight GPUs with the most clients that MPS allows are 384.
pub const INVENTORY_PROCESSES_MAX: usize = 512;

/// GPUs that one inventory names: no node has as many.
pub const INVENTORY_GPUS_MAX: usize = 256;

/// An inventory: 500 bytes for each of its processes.
pub const INVENTORY_BYTES_MAX: usize = 256 * 1024;

/// One record of a journal: a frame of either side with its envelope.
pub const RECORD_BYTES_MAX: usize = FRAME_UNPACKED_BYTES_MAX + 64 * 1024;

/// A reply to a client: the status of 5,000 nodes of 8 GPUs is about 20 MB; it travels in pieces of at most this size.
pub const REPLY_CHUNK_BYTES_MAX: usize = 1024 * 1024;

/// A tick further in the future than this is refused: the node's clock is wrong.
pub const FUTURE_MAX: Duration = Duration::from_secs(10 * 60);

/// Whatever a collector says, an agent tries again after this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(10 * 60);

/// Live batches under way without an acknowledgement. More than this means that the collector or the
/// path cannot keep up, and the spool takes over.
pub const LIVE_WINDOW_BATCHES: usize = 32;

/// Sequence runs that the collector remembers for one epoch. Gaps are declared, so that runs merge; a
/// peer that leaves more holes than this is refused.
pub const SEQUENCE_RUNS_MAX: usize = 4_096;

/// Metrics that one codec context can number: an agent has about 400.
pub const METRICS_PER_CONTEXT_MAX: usize = 8_192;
