//! A durable store of time series: batches go into a journal, from there into a head in memory, and from there into blocks.
//!
//! What is acknowledged is in the journal, on disk. The head holds the newest value of every series and the last minutes; every two minutes
//! what is new in it is written into blocks, immutable files whose format is in `FORMAT.md`, and the journal is cut. Blocks are merged into
//! fewer and smaller ones, rows of minutes and hours are made of them, and what is too old goes.
//!
//! Knows no network, no rules and no query language. One thread owns the [`Store`], one runs its [`Maintainer`], any number use a
//! [`Reader`].
#![warn(missing_docs)]

mod alone;
mod backup;
mod block;
mod columns;
mod compact;
mod files;
mod flush;
mod head;
mod history;
mod import;
mod keys;
mod log;
mod maintain;
mod partition;
mod pick;
mod reading;
mod record;
mod repair;
mod replay;
mod retention;
mod rows_of;
mod scan;
mod scratch;
mod sealing;
mod selection;
mod shelf;
mod store;

pub use alone::RowsAlone;
pub use backup::{
    BackupError, BackupProgress, Checksum, Copied, Known, Step, StoreCopy, StoreFile, back_up, check_file, copy_file,
    open_file,
};
pub use block::{BlockError, Summary, Tier};
pub use columns::{Columns, Samples, is_missing};
pub use compact::CompactOptions;
pub use files::{StoreFiles, Use};
pub use head::{Head, HeadOptions, HeadStatistics, Selected};
pub use history::LogRecord;
pub use import::{ImportError, ImportProgress, Imported, Importer};
pub use keys::{KeyNumber, Keys, KeysError};
pub use maintain::{MaintainOptions, Maintainer};
pub use pick::Pick;
pub use reading::{BlockStatistics, ReadError, ReadLimits, Reader, Reduce, Visitor};
pub use repair::{LostBlock, RepairError, RepairProgress, Repaired, repair};
pub use retention::{RetentionOptions, TierRetention};
pub use scan::{ColumnVisitor, Scan};
pub use selection::{Aggregate, Condition, Grain, Sample, Selection, TimeRange};
pub use shelf::{ShelfError, ShelfRecovery};
pub use store::{Added, Entry, LogStatistics, Store, StoreError, StoreOptions, StoreRecovery, Writes};

/// The number under which the collector knows a node; it never changes and is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The collector itself, for series that it makes.
    pub const COLLECTOR: Self = Self(0);
}

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
