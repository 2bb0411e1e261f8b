//! The records of the spool.
//!
//! ```text
//! record  = kind u8, then by kind (integers little-endian):
//! 1 start    epoch u64, ceiling u64, runs u32, [ first u64, last u64 ] acknowledged, gaps: [ first u64, last u64, reason u8 ]
//! 2 batch    sequence u64, time i64 ms, body to the end (see the codec)
//! 3 acked    [ first u64, last u64 ]
//! 4 ceiling  u64: no number above this has been given to a batch
//! 5 gap      first u64, last u64, reason u8
//! ```
//! Every segment begins with a start, so that older ones can be deleted; its batches are one codec context.

use belfry_common::{
    model::{Epoch, Gap, GapReason, Sequence, Timestamp},
    sequences::SequenceSet,
};
use thiserror::Error;

const START: u8 = 1;
const BATCH: u8 = 2;
const ACKED: u8 = 3;
const CEILING: u8 = 4;
const GAP: u8 = 5;

/// A record that passed its checksum and is still not one of these.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("spool has a record that this version does not know")]
pub(super) struct RecordError;

#[derive(Debug, PartialEq)]
pub(super) enum Record<'a> {
    Start { epoch: Epoch, ceiling: Sequence, acked: SequenceSet, gaps: Vec<Gap> },
    Batch { sequence: Sequence, time: Timestamp, body: &'a [u8] },
    Acked(Vec<(Sequence, Sequence)>),
    Ceiling(Sequence),
    Gap(Gap),
}

pub(super) fn write_start(epoch: Epoch, ceiling: Sequence, acked: &SequenceSet, gaps: &[Gap], out: &mut Vec<u8>) {
    out.push(START);
    put(out, epoch.0);
    put(out, ceiling);
    out.extend_from_slice(&(acked.runs().count() as u32).to_le_bytes());
    for (first, last) in acked.runs() {
        put(out, first);
        put(out, last);
    }
    for gap in gaps {
        put_gap(out, *gap);
    }
}

/// Writes all of a batch record but its body, which the codec appends.
pub(super) fn write_batch_head(sequence: Sequence, time: Timestamp, out: &mut Vec<u8>) {
    out.push(BATCH);
    put(out, sequence);
    out.extend_from_slice(&time.as_millis().to_le_bytes());
}

pub(super) fn write_acked(runs: &[(Sequence, Sequence)], out: &mut Vec<u8>) {
    out.push(ACKED);
    for &(first, last) in runs {
        put(out, first);
        put(out, last);
    }
}

pub(super) fn write_ceiling(ceiling: Sequence, out: &mut Vec<u8>) {
    out.push(CEILING);
    put(out, ceiling);
}

pub(super) fn write_gap(gap: Gap, out: &mut Vec<u8>) {
    out.push(GAP);
    put_gap(out, gap);
}

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_gap(out: &mut Vec<u8>, gap: Gap) {
    put(out, gap.first);
    put(out, gap.last);
    out.push(gap.reason.code());
}

impl<'a> Record<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let mut fields = Fields(bytes);
        let record = match fields.take().map(|[kind]: [u8; 1]| kind)? {
            START => {
                let (epoch, ceiling) = (Epoch(fields.number()?), fields.number()?);
                let mut acked = SequenceSet::default();
                for _ in 0..u32::from_le_bytes(fields.take()?) {
                    acked.insert(fields.number()?..=fields.number()?).map_err(|_| RecordError)?;
                }
                let mut gaps = Vec::new();
                while !fields.0.is_empty() {
                    gaps.push(fields.gap()?);
                }
                Self::Start { epoch, ceiling, acked, gaps }
            }
            BATCH => {
                let sequence = fields.number()?;
                let time = Timestamp::from_millis(i64::from_le_bytes(fields.take()?));
                Self::Batch { sequence, time, body: std::mem::take(&mut fields.0) }
            }
            ACKED => {
                let mut runs = Vec::new();
                while !fields.0.is_empty() {
                    runs.push((fields.number()?, fields.number()?));
                }
                Self::Acked(runs)
            }
            CEILING => Self::Ceiling(fields.number()?),
            GAP => Self::Gap(fields.gap()?),
            _ => return Err(RecordError),
        };
        if fields.0.is_empty() { Ok(record) } else { Err(RecordError) }
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(RecordError)?;
        self.0 = rest;
        Ok(*head)
    }

    fn number(&mut self) -> Result<u64, RecordError> {
        self.take().map(u64::from_le_bytes)
    }

    fn gap(&mut self) -> Result<Gap, RecordError> {
        let (first, last) = (self.number()?, self.number()?);
        let [reason] = self.take()?;
        Ok(Gap { first, last, reason: GapReason::from_code(reason).ok_or(RecordError)? })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    const GAP_3_4: Gap = Gap { first: 3, last: 4, reason: GapReason::SpoolFull };

    fn records() -> [Vec<u8>; 5] {
        let mut acked = SequenceSet::default();
        acked.insert(1..=7).unwrap();
        let mut records = [const { Vec::new() }; 5];
        write_start(Epoch(0x0102_0304_0506_0708), 1024, &acked, &[GAP_3_4], &mut records[0]);
        write_batch_head(9, Timestamp::from_millis(-1), &mut records[1]);
        records[1].extend_from_slice(b"body");
        write_acked(&[(8, 8)], &mut records[2]);
        write_ceiling(2048, &mut records[3]);
        write_gap(GAP_3_4, &mut records[4]);
        records
    }

    #[test]
    fn golden() {
        let hex = records().map(|record| record.iter().map(|b| format!("{b:02x}")).collect::<String>());
        expect![[r#"
            010807060504030201000400000000000001000000010000000000000007000000000000000300000000000000040000000000000001
            020900000000000000ffffffffffffffff626f6479
            0308000000000000000800000000000000
            040008000000000000
            050300000000000000040000000000000001"#]]
        .assert_eq(&hex.join("\n"));
    }

    #[test]
    fn records_come_back() {
        let records = records();
        let Ok(Record::Start { epoch, ceiling, acked, gaps }) = Record::parse(&records[0]) else { panic!("no start") };
        assert_eq!((epoch, ceiling, gaps), (Epoch(0x0102_0304_0506_0708), 1024, vec![GAP_3_4]));
        assert_eq!(acked.runs().collect::<Vec<_>>(), [(1, 7)]);
        let batch = Record::Batch { sequence: 9, time: Timestamp::from_millis(-1), body: b"body" };
        assert_eq!(Record::parse(&records[1]), Ok(batch));
        assert_eq!(Record::parse(&records[2]), Ok(Record::Acked(vec![(8, 8)])));
        assert_eq!(Record::parse(&records[3]), Ok(Record::Ceiling(2048)));
        assert_eq!(Record::parse(&records[4]), Ok(Record::Gap(GAP_3_4)));
    }

    #[test]
    fn a_record_cut_short_is_refused() {
        for record in &records()[3..] {
            for end in 0..record.len() {
                assert_eq!(Record::parse(&record[..end]), Err(RecordError));
            }
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = Record::parse(&bytes);
        }
    }
}
