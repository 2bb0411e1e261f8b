//! What the journal of a spool tells when it is opened: there is no other file to ask.

use std::collections::VecDeque;

use belfry_common::{
    journal::{Journal, Position, ReadError},
    limits,
    model::{Epoch, Gap, Sequence},
    sequences::SequenceSet,
};

use super::{Span, SpoolError, record::Record};

/// What a spool found on disk tells.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) epoch: Option<Epoch>,
    pub(super) ceiling: Sequence,
    pub(super) acked: SequenceSet,
    pub(super) gaps: Vec<Gap>,
    pub(super) present: SequenceSet,
    pub(super) last: Sequence,
    pub(super) spans: VecDeque<Span>,
}

impl Scan {
    pub(super) fn run(&mut self, journal: &Journal) -> Result<(), SpoolError> {
        let Some(first) = journal.segments().first().map(|segment| segment.number) else { return Ok(()) };
        let mut reader = journal.read(Position { segment: first, offset: 0 })?;
        loop {
            match reader.next_record() {
                Ok(Some(record)) => self.take(record.position.segment, record.payload),
                Ok(None) => return Ok(()),
                // The reader goes on behind it; what is lost is declared.
                Err(ReadError::Damaged { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self, segment: u64, payload: &[u8]) {
        let Ok(record) = Record::parse(payload) else { return };
        match record {
            Record::Start { epoch, ceiling, acked, gaps } => {
                self.epoch = Some(epoch);
                self.ceiling = self.ceiling.max(ceiling);
                self.acked = acked;
                self.gaps = gaps;
            }
            Record::Batch { sequence, time, .. } => {
                self.last = self.last.max(sequence);
                self.ceiling = self.ceiling.max(sequence);
                if self.present.insert(sequence..=sequence).is_err() {
                    return;
                }
                match self.spans.back_mut() {
                    Some(span) if span.segment == segment => {
                        span.first = span.first.min(sequence);
                        span.last = span.last.max(sequence);
                    }
                    _ => self.spans.push_back(Span { segment, first: sequence, last: sequence, time }),
                }
            }
            Record::Acked(runs) => {
                for (first, last) in runs {
                    if self.acked.insert(first..=last).is_err() {
                        return;
                    }
                }
                self.gaps.retain(|gap| !self.acked.contains(gap.first) || !self.acked.contains(gap.last));
            }
            Record::Ceiling(ceiling) => self.ceiling = self.ceiling.max(ceiling),
            Record::Gap(gap) => push_gap(&mut self.gaps, gap),
        }
    }
}

/// Adds a gap, to the one that it continues if it can. Beyond what the collector would remember it is left out.
pub(super) fn push_gap(gaps: &mut Vec<Gap>, gap: Gap) {
    if let Some(last) = gaps.last_mut()
        && last.reason == gap.reason
        && last.last + 1 == gap.first
    {
        last.last = gap.last;
    } else if gaps.len() < limits::SEQUENCE_RUNS_MAX {
        gaps.push(gap);
    }
}
