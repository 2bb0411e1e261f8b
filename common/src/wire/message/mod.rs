//! The messages that frames hold, and the one place where they are serialised.
//!
//! bincode's standard configuration, always with a limit: without one a message of nine bytes can ask
//! for more memory than there is. Types here are what travels, with nothing checked; the rest of the
//! program sees them parsed into [`crate::model`].

mod gpu;

use bincode::{BorrowDecode, Decode, Encode};

pub use gpu::{
    GpuEvent, GpuHolders, GpuIdentity, GpuProcess, GpuReadings, GpuReady, GpuRequest, Inventory, InventoryJob,
    InventoryProcess,
};

use super::codec::CodecError;
use crate::{
    limits,
    model::{self, Epoch, Gap, GapReason, Kind, Resolution, Sequence, check_label_name, check_metric_name},
};

/// The bytes are not this message.
#[derive(Debug, thiserror::Error)]
#[error("malformed {message} message")]
pub struct MessageError {
    message: &'static str,
}

/// Any type of this module: what a frame can hold.
pub trait Message: Encode {}
impl<T: Encode> Message for T {}

/// A message read from bytes, from which it may borrow.
pub trait Decoded<'a>: BorrowDecode<'a, ()> {}
impl<'a, T: BorrowDecode<'a, ()>> Decoded<'a> for T {}

/// Serialises a message.
pub fn encode(message: &impl Message) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(message, &mut out);
    out
}

/// Serialises a message behind what is in `out`.
pub(crate) fn encode_into(message: &impl Message, out: &mut Vec<u8>) {
    let written = bincode::encode_into_std_write(message, out, bincode::config::standard());
    debug_assert!(written.is_ok(), "plain data into a vector: {written:?}");
}

/// Reads a message; the whole of `bytes` must be it.
///
/// # Errors
/// [`MessageError`] when it is anything else or asks for more than a frame may hold.
pub fn decode<'a, T: Decoded<'a>>(bytes: &'a [u8]) -> Result<T, MessageError> {
    let config = bincode::config::standard().with_limit::<{ limits::FRAME_UNPACKED_BYTES_MAX }>();
    let error = || MessageError { message: short_name::<T>() };
    let (message, read) = bincode::borrow_decode_from_slice(bytes, config).map_err(|_| error())?;
    if read == bytes.len() { Ok(message) } else { Err(error()) }
}

fn short_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    name.rsplit("::").next().unwrap_or(name)
}

/// Opens the live stream of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// The oldest protocol version that the agent speaks.
    pub protocol_min: u16,
    /// The newest protocol version that the agent speaks.
    pub protocol_max: u16,
    /// The agent's release, for people.
    pub agent_version: String,
    /// The life of its spool.
    pub epoch: u64,
    /// The number that its next batch will have: above all that it has ever sent in this epoch.
    pub next_sequence: u64,
    /// The agent's clock, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Shortest sampling interval, in milliseconds: without a tick for three of these the node is stale.
    pub interval_ms: u32,
}

/// The collector accepts an agent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// The protocol version that both will speak.
    pub protocol: u16,
    /// The collector's release, for people.
    pub collector_version: String,
    /// The collector's clock, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// What it has of this epoch, so that nothing of it is sent again.
    pub durable: Vec<Run>,
    /// How many batches of backlog may come at first.
    pub backlog_credit: u32,
}

/// A run of sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Run {
    /// Its first number.
    pub first: Sequence,
    /// How many follow the first.
    pub more: u64,
}

impl Run {
    /// The run from `first` through `last`.
    #[must_use]
    pub fn new(first: Sequence, last: Sequence) -> Self {
        Self { first, more: last.saturating_sub(first) }
    }

    /// Its last number.
    #[must_use]
    pub fn last(self) -> Sequence {
        self.first.saturating_add(self.more)
    }
}

/// A batch as it travels and as it is kept: its number and its body in the codec's bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub struct SealedBatch<'a> {
    /// Its number.
    pub sequence: Sequence,
    /// See [`super::codec`].
    pub body: &'a [u8],
}

/// Batches in ascending order of their numbers, one context after the other.
#[derive(Debug, Clone, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Batches<'a> {
    /// One when live, many when backlog.
    pub batches: Vec<SealedBatch<'a>>,
}

/// The collector has these on disk.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ack {
    /// Ascending runs.
    pub runs: Vec<Run>,
}

/// The collector has room for more backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Credit {
    /// Batches, on top of what was granted before.
    pub batches: u32,
}

/// Numbers that no batch will ever fill.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Gaps {
    /// Ascending.
    pub gaps: Vec<GapRun>,
}

/// One of [`Gaps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct GapRun {
    /// The numbers.
    pub run: Run,
    /// [`GapReason::code`].
    pub reason: u8,
}

impl From<Gap> for GapRun {
    fn from(gap: Gap) -> Self {
        Self { run: Run::new(gap.first, gap.last), reason: gap.reason.code() }
    }
}

impl GapRun {
    /// The gap; one with a reason of a later version counts as damaged.
    #[must_use]
    pub fn parse(self) -> Gap {
        let reason = GapReason::from_code(self.reason).unwrap_or(GapReason::Damaged);
        Gap { first: self.run.first, last: self.run.last(), reason }
    }
}

/// The collector will never take this batch; the agent sets it aside and goes on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Refused {
    /// Its number.
    pub sequence: Sequence,
    /// Why, for the agent's log.
    pub reason: String,
}

/// Opens the backlog stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Backlog {
    /// The epoch whose batches follow; the one of [`Hello`].
    pub epoch: u64,
}

/// A request for a certificate, with a token's identity ([`Kind::Join`](super::frame::Kind::Join)) or an identity to be renewed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CertificateRequest {
    /// The name that a newcomer asks for; a renewal keeps its own.
    pub name: String,
    /// PKCS #10, DER. Only its public key is used, and its signature checked.
    pub csr: Vec<u8>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Certified {
    /// The name that the certificate carries.
    pub name: String,
    /// The leaf, DER.
    pub certificate: Vec<u8>,
    /// The CA's certificates, DER: what the holder shall trust from now on.
    pub authorities: Vec<Vec<u8>>,
}

/// The agent stops on purpose: the node is down, not lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Goodbye;

/// What went wrong, in words for people and a code for programs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Failure {
    /// [`FailureCode::code`].
    pub code: u16,
    /// Says what is wrong, where, and what to do.
    pub message: String,
    /// How long to wait before the next try; 0 leaves it to the peer.
    pub retry_after_ms: u32,
}

/// How to react to a [`Failure`]. Codes that a build does not know mean: try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum FailureCode {
    /// Try again later.
    Retry = 1,
    /// No common version: an update is needed.
    Version = 2,
    /// The certificate, role or token does not allow this.
    Denied = 3,
    /// The request itself is wrong.
    Invalid = 4,
    /// The spool's epoch was replaced by a newer one: it is a copy or a restored backup.
    StaleEpoch = 5,
    /// What was asked for does not exist.
    NotFound = 6,
}

impl FailureCode {
    const ALL: [Self; 6] = [Self::Retry, Self::Version, Self::Denied, Self::Invalid, Self::StaleEpoch, Self::NotFound];

    /// The number that travels.
    #[must_use]
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The code with this number; unknown ones mean to try again.
    #[must_use]
    pub fn from_code(code: u16) -> Self {
        Self::ALL.into_iter().find(|known| known.code() == code).unwrap_or(Self::Retry)
    }
}

/// What a codec context learns.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Definitions {
    /// Numbered on from the context's last metric.
    pub metrics: Vec<MetricDefinition>,
    /// Each replaces its group's layout.
    pub layouts: Vec<LayoutDefinition>,
}

/// See [`model::Metric`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MetricDefinition {
    /// Its name.
    pub name: String,
    /// 0 counter, 1 gauge, 2 info.
    pub kind: u8,
    /// Decimal digits of its resolution; 255 for a float.
    pub digits: u8,
    /// Its label names.
    pub label_names: Vec<String>,
    /// One sentence.
    pub help: String,
}

const DIGITS_FLOAT: u8 = 255;

impl From<&model::Metric> for MetricDefinition {
    fn from(metric: &model::Metric) -> Self {
        Self {
            name: metric.name.to_string(),
            kind: match metric.kind {
                Kind::Counter => 0,
                Kind::Gauge => 1,
                Kind::Info => 2,
            },
            digits: match metric.resolution {
                Resolution::Decimal(digits) => digits,
                Resolution::Float => DIGITS_FLOAT,
            },
            label_names: metric.label_names.iter().map(ToString::to_string).collect(),
            help: metric.help.to_string(),
        }
    }
}

impl MetricDefinition {
    /// The metric, if everything about it is acceptable.
    pub(super) fn parse(self) -> Result<model::Metric, CodecError> {
        check_metric_name(&self.name).map_err(CodecError::Name)?;
        if self.label_names.len() > limits::LABELS_PER_METRIC_MAX {
            return Err(CodecError::Limit { what: "labels of a metric", limit: limits::LABELS_PER_METRIC_MAX });
        }
        for (place, name) in self.label_names.iter().enumerate() {
            check_label_name(name).map_err(CodecError::Name)?;
            if self.label_names.iter().take(place).any(|before| before == name) {
                return Err(CodecError::Definitions);
            }
        }
        if self.help.len() > limits::HELP_BYTES_MAX {
            return Err(CodecError::Limit { what: "bytes of help", limit: limits::HELP_BYTES_MAX });
        }
        let kind = match self.kind {
            0 => Kind::Counter,
            1 => Kind::Gauge,
            2 => Kind::Info,
            _ => return Err(CodecError::Definitions),
        };
        let resolution = match self.digits {
            DIGITS_FLOAT => Resolution::Float,
            digits if digits <= Resolution::DIGITS_MAX => Resolution::Decimal(digits),
            _ => return Err(CodecError::Definitions),
        };
        let label_names = self.label_names.into_iter().map(String::into_boxed_str).collect();
        Ok(model::Metric { name: self.name.into(), kind, resolution, label_names, help: self.help.into() })
    }
}

/// See [`model::Layout`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LayoutDefinition {
    /// The group's number.
    pub group: u16,
    /// The sampler's name.
    pub sampler: String,
    /// Time between two ticks, in milliseconds.
    pub interval_ms: u32,
    /// Its series in order.
    pub series: Vec<SeriesRun>,
}

/// Series of a layout: some that the layout before it had, or a new one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum SeriesRun {
    /// A run of places in the group's layout before this one.
    Kept {
        /// The first place.
        first: u32,
        /// How many.
        count: u32,
    },
    /// A series that was not there.
    New {
        /// The metric's number in the context.
        metric: u32,
        /// One value per label name.
        label_values: Vec<String>,
    },
}

impl Hello {
    /// The epoch as the model has it.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }
}
