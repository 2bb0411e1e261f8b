//! The records of the collector's journal.
//!
//! ```text
//! record   = kind u8, then by kind (integers little-endian):
//! 1 snapshot  time i64 ms · for each (node, epoch): node u32, epoch u64, runs u32, [ first u64, last u64 ]
//!             (several of them if one record has no room for all)
//! 2 batch     node u32, epoch u64, sequence u64, received i64 ms, body to the end (see the codec)
//! 3 gap       node u32, epoch u64, first u64, last u64, reason u8
//! 4 layout    number u32, body to the end (see the codec)
//! 5 newest    node u32, since i64 ms, body to the end: the newest tick of one group as of the segment's beginning
//!             (of a node every group that had a tick after `since`)
//! 6 begun     nothing: all that a segment begins with stands before this
//! ```
//! In a store that is encrypted a segment begins with one that says so, and each of these is in another one: see [`crate::sealing`].
//!
//! Every segment begins with a snapshot of what is stored, so that deleting older segments loses no knowledge of
//! duplicates, and with what is newest of each group, so that a start knows it without reading on before; batches of one node in one
//! segment are one codec context, the first a reset. A layout stands before the first batch that names it, once for all nodes that have
//! it; a number can be given again, as after a restart. A reader refuses kinds that it does not know.

use std::sync::Arc;

use belfry_common::{
    model::{Batch, BatchKey, Epoch, Gap, GapReason, Layout, Timestamp},
    sequences::SequenceSet,
    wire::codec::{self, CodecError, Decoder, LayoutPool},
};
use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::NodeId;

const SNAPSHOT: u8 = 1;
const BATCH: u8 = 2;
const GAP: u8 = 3;
const LAYOUT: u8 = 4;
const NEWEST: u8 = 5;
const BEGUN: u8 = 6;

/// A record that passed its checksum and is still not one of these.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("journal has a record that this version does not know")]
pub(crate) struct RecordError;

/// A record as it is read.
#[derive(Debug, PartialEq)]
pub(crate) enum Record<'a> {
    Snapshot { time: Timestamp, stored: Vec<(NodeId, Epoch, SequenceSet)> },
    Batch { node: NodeId, key: BatchKey, received: Timestamp, body: &'a [u8] },
    Gap { node: NodeId, epoch: Epoch, gap: Gap },
    Layout { number: u32, body: &'a [u8] },
    Newest { node: NodeId, since: Timestamp, body: &'a [u8] },
    Begun,
}

/// Writes what is stored into as many snapshot records as it takes.
pub(crate) struct SnapshotWriter {
    time: Timestamp,
    record: Vec<u8>,
}

/// Far below what a record may have; a set with all the runs that it may have fits in besides.
const SNAPSHOT_BYTES: usize = 1024 * 1024;

impl SnapshotWriter {
    pub(crate) fn new(time: Timestamp) -> Self {
        let mut record = vec![SNAPSHOT];
        record.extend_from_slice(&time.as_millis().to_le_bytes());
        Self { time, record }
    }

    /// Adds a set; returns the record that is full by it.
    #[must_use]
    pub(crate) fn add(&mut self, node: NodeId, epoch: Epoch, set: &SequenceSet) -> Option<Vec<u8>> {
        let out = &mut self.record;
        out.extend_from_slice(&node.0.to_le_bytes());
        out.extend_from_slice(&epoch.0.to_le_bytes());
        out.extend_from_slice(&(set.runs().count() as u32).to_le_bytes());
        for (first, last) in set.runs() {
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&last.to_le_bytes());
        }
        let is_full = out.len() >= SNAPSHOT_BYTES;
        is_full.then(|| std::mem::replace(self, Self::new(self.time)).record)
    }

    /// The last record.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.record
    }
}

/// Writes all of a batch record but its body, which the codec appends.
pub(crate) fn write_batch_head(node: NodeId, key: BatchKey, received: Timestamp, out: &mut Vec<u8>) {
    out.push(BATCH);
    out.extend_from_slice(&node.0.to_le_bytes());
    out.extend_from_slice(&key.epoch.0.to_le_bytes());
    out.extend_from_slice(&key.sequence.to_le_bytes());
    out.extend_from_slice(&received.as_millis().to_le_bytes());
}

/// Writes a record of a layout.
pub(crate) fn write_layout(number: u32, layout: &Arc<Layout>, out: &mut Vec<u8>) {
    out.push(LAYOUT);
    out.extend_from_slice(&number.to_le_bytes());
    codec::write_layout(layout, out);
}

/// Writes all of a record of what is newest but its body, which the codec appends.
pub(crate) fn write_newest_head(node: NodeId, since: Timestamp, out: &mut Vec<u8>) {
    out.push(NEWEST);
    out.extend_from_slice(&node.0.to_le_bytes());
    out.extend_from_slice(&since.as_millis().to_le_bytes());
}

/// The record behind all that a segment begins with.
pub(crate) fn begun() -> Vec<u8> {
    vec![BEGUN]
}

pub(crate) fn write_gap(node: NodeId, epoch: Epoch, gap: Gap, out: &mut Vec<u8>) {
    out.push(GAP);
    out.extend_from_slice(&node.0.to_le_bytes());
    out.extend_from_slice(&epoch.0.to_le_bytes());
    out.extend_from_slice(&gap.first.to_le_bytes());
    out.extend_from_slice(&gap.last.to_le_bytes());
    out.push(gap.reason.code());
}

impl<'a> Record<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let mut fields = Fields(bytes);
        match fields.u8()? {
            SNAPSHOT => fields.snapshot(),
            BATCH => Ok(Self::Batch {
                node: NodeId(fields.u32()?),
                key: BatchKey { epoch: Epoch(fields.u64()?), sequence: fields.u64()? },
                received: fields.time()?,
                body: fields.0,
            }),
            GAP => {
                let (node, epoch) = (NodeId(fields.u32()?), Epoch(fields.u64()?));
                let (first, last) = (fields.u64()?, fields.u64()?);
                let reason = GapReason::from_code(fields.u8()?).ok_or(RecordError)?;
                if fields.0.is_empty() {
                    Ok(Self::Gap { node, epoch, gap: Gap { first, last, reason } })
                } else {
                    Err(RecordError)
                }
            }
            LAYOUT => Ok(Self::Layout { number: fields.u32()?, body: fields.0 }),
            NEWEST => Ok(Self::Newest { node: NodeId(fields.u32()?), since: fields.time()?, body: fields.0 }),
            BEGUN if fields.0.is_empty() => Ok(Self::Begun),
            _ => Err(RecordError),
        }
    }
}

/// What batches of a segment need to be understood: the contexts of nodes, and layouts.
#[derive(Debug)]
pub(crate) struct Context {
    pool: Arc<LayoutPool>,
    layouts: FxHashMap<u32, Arc<Layout>>,
    decoders: FxHashMap<NodeId, Decoder>,
}

impl Context {
    /// The context at the beginning of a segment; layouts are to be shared with all that are in the pool.
    pub(crate) fn new(pool: Arc<LayoutPool>) -> Self {
        Self { pool, layouts: FxHashMap::default(), decoders: FxHashMap::default() }
    }

    /// Begins a segment: each begins with snapshots.
    pub(crate) fn clear(&mut self) {
        self.layouts.clear();
        self.decoders.clear();
    }

    /// Whether a layout has this number already.
    pub(crate) fn knows(&self, number: u32) -> bool {
        self.layouts.contains_key(&number)
    }

    /// Takes in the body of a layout.
    ///
    /// # Errors
    /// [`CodecError`] when it is malformed; batches that name it cannot be read.
    pub(crate) fn learn(&mut self, number: u32, body: &[u8]) -> Result<(), CodecError> {
        self.layouts.remove(&number);
        self.layouts.insert(number, Decoder::layout(&self.pool, body)?);
        Ok(())
    }

    /// Reads the body of a node's next batch.
    ///
    /// # Errors
    /// [`CodecError`] when it is malformed or not the next of its context.
    pub(crate) fn decode(&mut self, node: NodeId, body: &[u8]) -> Result<Batch, CodecError> {
        let decoder = self.decoders.entry(node).or_insert_with(|| Decoder::sharing(Arc::clone(&self.pool)));
        decoder.decode_by_number(body, &|number| self.layouts.get(&number).cloned())
    }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(RecordError)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, RecordError> {
        self.take().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, RecordError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, RecordError> {
        self.take().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Result<Timestamp, RecordError> {
        self.take().map(|bytes| Timestamp::from_millis(i64::from_le_bytes(bytes)))
    }

    fn snapshot(&mut self) -> Result<Record<'a>, RecordError> {
        let time = self.time()?;
        let mut stored = Vec::new();
        while !self.0.is_empty() {
            let (node, epoch) = (NodeId(self.u32()?), Epoch(self.u64()?));
            let mut set = SequenceSet::default();
            for _ in 0..self.u32()? {
                set.insert(self.u64()?..=self.u64()?).map_err(|_| RecordError)?;
            }
            stored.push((node, epoch, set));
        }
        Ok(Record::Snapshot { time, stored })
    }
}

#[cfg(test)]
mod tests {
    use belfry_common::model::Tick;
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    const KEY: BatchKey = BatchKey { epoch: Epoch(0x0102_0304_0506_0708), sequence: 9 };

    fn snapshot() -> Vec<u8> {
        let mut set = SequenceSet::default();
        set.insert(1..=7).unwrap();
        set.insert(9..=9).unwrap();
        let mut out = Vec::new();
        let mut writer = SnapshotWriter::new(Timestamp::from_millis(1000));
        assert_eq!(writer.add(NodeId(5), KEY.epoch, &set), None);
        out.extend(writer.finish());
        out
    }

    fn batch() -> Vec<u8> {
        let mut out = Vec::new();
        write_batch_head(NodeId(5), KEY, Timestamp::from_millis(-1), &mut out);
        out.extend_from_slice(b"body");
        out
    }

    fn gap() -> Vec<u8> {
        let mut out = Vec::new();
        let gap = Gap { first: 3, last: 4, reason: GapReason::SpoolFull };
        write_gap(NodeId(5), KEY.epoch, gap, &mut out);
        out
    }

    #[test]
    fn golden() {
        let hex =
            [snapshot(), batch(), gap()].map(|record| record.iter().map(|b| format!("{b:02x}")).collect::<String>());
        expect![[r#"
            01e803000000000000050000000807060504030201020000000100000000000000070000000000000009000000000000000900000000000000
            020500000008070605040302010900000000000000ffffffffffffffff626f6479
            030500000008070605040302010300000000000000040000000000000001"#]].assert_eq(&hex.join("\n"));
    }

    #[test]
    fn records_come_back() {
        let Ok(Record::Snapshot { time, stored }) = Record::parse(&snapshot()) else { panic!("no snapshot") };
        assert_eq!(time, Timestamp::from_millis(1000));
        assert_eq!(stored[0].2.runs().collect::<Vec<_>>(), [(1, 7), (9, 9)]);
        let parsed = Record::Batch { node: NodeId(5), key: KEY, received: Timestamp::from_millis(-1), body: b"body" };
        assert_eq!(Record::parse(&batch()), Ok(parsed));
        let gap_parsed = Gap { first: 3, last: 4, reason: GapReason::SpoolFull };
        assert_eq!(Record::parse(&gap()), Ok(Record::Gap { node: NodeId(5), epoch: KEY.epoch, gap: gap_parsed }));
    }

    #[test]
    fn a_record_cut_short_is_refused() {
        for end in 0..gap().len() {
            assert_eq!(Record::parse(&gap()[..end]), Err(RecordError));
        }
        for end in 0..29 {
            assert_eq!(Record::parse(&batch()[..end]), Err(RecordError));
        }
    }

    #[test]
    fn a_layout_is_known_by_its_number_until_another_has_that() {
        let layout = |group| Arc::new(Layout { group, sampler: "s".into(), interval_ms: 1000, series: Box::default() });
        let learn = |context: &mut Context, layout: &Arc<Layout>| {
            let mut record = Vec::new();
            write_layout(7, layout, &mut record);
            let Ok(Record::Layout { number, body }) = Record::parse(&record) else { panic!("no layout") };
            context.learn(number, body).unwrap();
        };
        let decode = |context: &mut Context, layout: &Arc<Layout>| {
            let tick = Tick { layout: Arc::clone(layout), time: Timestamp::from_millis(1), values: Vec::new() };
            let (batch, mut body) = (Batch { ticks: vec![tick] }, Vec::new());
            codec::Encoder::new().encode_by_number(&batch, |_| 7, &mut body).unwrap();
            context.decode(NodeId(1), &body).map(|read| assert_eq!(read, batch))
        };
        let mut context = Context::new(Arc::default());
        assert_eq!(decode(&mut context, &layout(1)), Err(CodecError::Reference));
        for group in [1, 2] {
            learn(&mut context, &layout(group));
            assert_eq!(decode(&mut context, &layout(group)), Ok(()));
        }
        assert_eq!(context.learn(7, b"?"), Err(CodecError::Definitions));
        assert_eq!(decode(&mut context, &layout(2)), Err(CodecError::Reference));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = Record::parse(&bytes);
        }
    }
}
