//! What is not acknowledged yet, on disk: survives outages, crashes and power cuts, within a cap in bytes.
//!
//! One journal holds everything: batches, what was acknowledged, gaps. Opening it scans it; there is no second file whose
//! word could differ. When it is full the oldest segment goes, and what it held unacknowledged becomes a gap that
//! the collector is told of.
//!
//! Sequence numbers are given out below a *ceiling* that is on disk, and every run begins above the last one's: after a
//! power cut that cost the last seconds, numbers that the collector has seen are never used for other data. So many are set
//! aside that a disk which cannot be written for weeks does not use them up.
//!
//! Blocking; the [`worker`] gives it a thread. Sends nothing, reads no clock.

mod backlog;
mod record;
mod scan;
pub(crate) mod worker;

use std::{collections::VecDeque, path::Path};

use belfry_common::{
    journal::{Journal, JournalError, Options, ReadError},
    model::{Batch, Epoch, Gap, GapReason, Sequence, Timestamp},
    sequences::SequenceSet,
    wire::{codec::Encoder, message::Run},
};
use thiserror::Error;

pub(crate) use backlog::{Cursor, Spooled};
use scan::{Scan, push_gap};

/// Small: the oldest is deleted as a whole, and each is one codec context.
const SEGMENT_BYTES: u32 = 1024 * 1024;
/// Numbers set aside at a time: half a year at one batch a second. What a run leaves unused is one gap.
const CEILING_STEP: u64 = 1 << 24;

/// A spool that cannot be used.
#[derive(Debug, Error)]
pub(crate) enum SpoolError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("failed to read the spool")]
    Read(#[from] ReadError),
    #[error("batch contradicts itself")]
    Encode(#[from] belfry_common::wire::codec::EncodeError),
    #[error("failed to draw a random epoch")]
    Random,
}

/// One segment's batches.
#[derive(Debug, Clone, Copy)]
struct Span {
    segment: u64,
    first: Sequence,
    last: Sequence,
    /// Of its first batch.
    time: Timestamp,
}

/// Batches on disk until they are acknowledged.
#[derive(Debug)]
pub(crate) struct Spool {
    journal: Journal,
    encoder: Encoder,
    epoch: Epoch,
    ceiling: Sequence,
    acked: SequenceSet,
    /// Acknowledged since the last record that says so.
    acked_news: Vec<(Sequence, Sequence)>,
    /// Declared and not acknowledged.
    gaps: Vec<Gap>,
    spans: VecDeque<Span>,
    bytes_max: u64,
    waiting: u64,
    given_up: u64,
    is_synced: bool,
    buffer: Vec<u8>,
}

/// What opening found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) epoch: Epoch,
    /// The first number that may be used.
    pub(crate) next: Sequence,
    /// The last one, until it is raised.
    pub(crate) ceiling: Sequence,
}

/// What a welcome taught.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reconciled {
    /// Batches that are acknowledged by it.
    pub(crate) news: u64,
    /// Batches that are backlog again.
    pub(crate) again: u64,
    /// Numbers that are a gap now, whether there ever was something behind them or not.
    pub(crate) gone: u64,
}

impl Spool {
    /// Opens the spool of a directory, creating it if need be.
    pub(crate) fn open(directory: &Path, bytes_max: u64) -> Result<(Self, Opened), SpoolError> {
        let options = Options { segment_bytes: SEGMENT_BYTES, buffer_bytes: 64 * 1024, preallocate: false };
        let (journal, recovery) = Journal::open(directory, options)?;
        if !recovery.is_clean() {
            tracing::warn!(torn = ?recovery.torn, damages = ?recovery.damages, "spool was damaged: what can be read is kept");
        }
        let mut scan = Scan::default();
        scan.run(&journal)?;
        let epoch = match scan.epoch {
            Some(epoch) => epoch,
            None => random_epoch()?,
        };
        let mut spool = Self {
            journal,
            encoder: Encoder::new(),
            epoch,
            ceiling: scan.ceiling,
            acked: scan.acked,
            acked_news: Vec::new(),
            gaps: scan.gaps,
            spans: scan.spans,
            bytes_max,
            waiting: 0,
            given_up: 0,
            is_synced: true,
            buffer: Vec::new(),
        };
        spool.declare_lost(&scan.present, scan.last)?;
        let next = spool.ceiling + 1;
        if !spool.journal.segment_is_empty() {
            // No segment spans the numbers that the last run has left unused.
            spool.journal.roll()?;
        }
        spool.write_ceiling(spool.ceiling + CEILING_STEP)?;
        spool.waiting = count(&scan.present, |number| !spool.is_settled(number));
        spool.journal.sync()?;
        let ceiling = spool.ceiling;
        Ok((spool, Opened { epoch, next, ceiling }))
    }

    /// Everything up to the ceiling that is neither here, nor acknowledged, nor declared, is a gap.
    fn declare_lost(&mut self, present: &SequenceSet, last: Sequence) -> Result<(), SpoolError> {
        let mut known = present.clone();
        let gap_runs = self.gaps.iter().map(|gap| (gap.first, gap.last));
        for (first, end) in self.acked.runs().chain(gap_runs) {
            // More runs than a set can hold would only mean to declare too little here, and the collector to wait for it.
            if known.insert(first..=end).is_err() {
                return Ok(());
            }
        }
        let mut next = 1;
        let mut gaps = Vec::new();
        for (first, end) in known.runs().chain([(self.ceiling + 1, self.ceiling + 1)]) {
            if next < first {
                // Numbers behind the last batch were set aside and never used; others were lost with a segment.
                let middle = (last + 1).clamp(next, first);
                for (from, to, reason) in [(next, middle, GapReason::Damaged), (middle, first, GapReason::Unused)] {
                    if from < to {
                        gaps.push(Gap { first: from, last: to - 1, reason });
                    }
                }
            }
            next = end + 1;
        }
        for gap in gaps {
            self.add_gap(gap)?;
        }
        Ok(())
    }

    /// Accepts a batch, once and for all; an error means that it was not accepted. It survives the end of the process after the next
    /// [`Self::flush`], and a power cut after the next [`Self::sync`].
    pub(crate) fn append(&mut self, sequence: Sequence, time: Timestamp, batch: &Batch) -> Result<(), SpoolError> {
        if sequence + CEILING_STEP / 4 > self.ceiling {
            self.write_ceiling(sequence + CEILING_STEP)?;
        }
        self.write_acked()?;
        self.prepare(batch.readings() * 2 + 256)?;
        self.buffer.clear();
        record::write_batch_head(sequence, time, &mut self.buffer);
        self.encoder.encode(batch, &mut self.buffer)?;
        let position = match self.journal.append(&self.buffer) {
            Ok(position) => position,
            Err(error) => {
                // The encoder has moved on and the journal has not: the next body must stand alone.
                self.encoder.reset();
                return Err(error.into());
            }
        };
        self.waiting += 1;
        match self.spans.back_mut() {
            Some(span) if span.segment == position.segment => {
                span.first = span.first.min(sequence);
                span.last = span.last.max(sequence);
            }
            _ => self.spans.push_back(Span { segment: position.segment, first: sequence, last: sequence, time }),
        }
        self.is_synced = false;
        Ok(())
    }

    /// Writes what was accepted, and lets the oldest go that is beyond the cap.
    pub(crate) fn flush(&mut self) -> Result<(), SpoolError> {
        self.enforce_cap()?;
        Ok(self.journal.flush()?)
    }

    /// The collector has these.
    pub(crate) fn acknowledge(&mut self, runs: &[Run]) -> Result<u64, SpoolError> {
        let mut news = 0;
        for run in runs {
            let spans = self.spans.iter().map(|span| run.first.max(span.first)..=run.last().min(span.last));
            news += spans.flatten().filter(|&number| !self.is_settled(number)).count() as u64;
            if self.acked.insert(run.first..=run.last()).is_ok() {
                self.acked_news.push((run.first, run.last()));
            }
        }
        self.waiting = self.waiting.saturating_sub(news);
        self.gaps.retain(|gap| !self.acked.contains(gap.first) || !self.acked.contains(gap.last));
        self.drop_acknowledged()?;
        Ok(news)
    }

    /// The collector says all that it has. What was acknowledged once and is not among it, since the collector was restored from a backup or
    /// is another one, is backlog again where it is still here, and a gap where it is not.
    pub(crate) fn reconcile(&mut self, durable: &[Run]) -> Result<Reconciled, SpoolError> {
        let mut known = SequenceSet::default();
        // More runs than a set can hold: not from a collector that is one of ours.
        let is_set = durable.iter().all(|run| known.insert(run.first..=run.last()).is_ok());
        let forgotten = self.acked.runs_without(&known);
        if !is_set || forgotten.is_empty() {
            return Ok(Reconciled { news: self.acknowledge(durable)?, ..Reconciled::default() });
        }
        self.journal.flush()?;
        let mut scan = Scan::default();
        scan.run(&self.journal)?;
        let present = &scan.present;
        let mut lost = SequenceSet::default();
        for (first, last) in forgotten {
            lost.insert(first..=last).unwrap_or_default();
        }
        let lost = lost.runs_without(present);
        // The segments that there are say otherwise: what the next one begins with counts. Whatever fails before it is there changes nothing, and
        // whatever fails after it is told with it.
        self.journal.roll()?;
        let outcome = Reconciled {
            news: count(present, |number| known.contains(number) && !self.acked.contains(number)),
            again: count(present, |number| !known.contains(number) && self.acked.contains(number)),
            gone: lost.iter().map(|(first, last)| last - first + 1).sum(),
        };
        self.acked = known;
        for (first, last) in lost {
            push_gap(&mut self.gaps, Gap { first, last, reason: GapReason::CollectorLost });
        }
        self.gaps.retain(|gap| !self.acked.contains(gap.first) || !self.acked.contains(gap.last));
        self.waiting = count(present, |number| !self.is_settled(number));
        self.is_synced = false;
        self.prepare(64)?;
        self.drop_acknowledged()?;
        Ok(outcome)
    }

    /// The collector will never take this batch.
    pub(crate) fn refuse(&mut self, sequence: Sequence) -> Result<(), SpoolError> {
        if self.is_waiting(sequence) {
            self.waiting = self.waiting.saturating_sub(1);
        }
        self.add_gap(Gap { first: sequence, last: sequence, reason: GapReason::Refused })
    }

    /// Numbers without data of which the collector does not know yet.
    pub(crate) fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Makes everything so far survive a power cut.
    pub(crate) fn sync(&mut self) -> Result<(), SpoolError> {
        if !self.is_synced || !self.acked_news.is_empty() {
            self.write_acked()?;
            self.journal.sync()?;
            self.is_synced = true;
        }
        Ok(())
    }

    /// The last number that may be used; on disk.
    pub(crate) fn ceiling(&self) -> Sequence {
        self.ceiling
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.journal.bytes()
    }

    /// Batches that are not acknowledged.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Batches that were given up for room since this was last asked.
    pub(crate) fn take_given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }

    /// About when the oldest batch was made that is not acknowledged.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        (self.waiting > 0).then(|| self.spans.front().map(|span| span.time)).flatten()
    }

    /// Deletes the oldest segment to make room for others on a full disk. False if there is none to spare. What it held
    /// unacknowledged is declared, and counted in [`Self::take_given_up`].
    pub(crate) fn give_up_oldest(&mut self) -> Result<bool, SpoolError> {
        let Some(removed) = self.journal.remove_oldest()? else { return Ok(false) };
        while self.spans.front().is_some_and(|span| span.segment <= removed.number) {
            let Some(span) = self.spans.pop_front() else { break };
            self.declare_given_up(span)?;
        }
        Ok(true)
    }

    fn is_waiting(&self, sequence: Sequence) -> bool {
        self.spans.iter().any(|span| span.first <= sequence && sequence <= span.last) && !self.is_settled(sequence)
    }

    fn declare_given_up(&mut self, span: Span) -> Result<(), SpoolError> {
        let mut run: Option<(Sequence, Sequence)> = None;
        let mut lost = Vec::new();
        for number in span.first..=span.last {
            if self.acked.contains(number) {
                lost.extend(run.take());
            } else {
                let (first, _) = run.unwrap_or((number, number));
                run = Some((first, number));
            }
        }
        lost.extend(run);
        for (first, last) in lost {
            self.waiting = self.waiting.saturating_sub(last - first + 1);
            self.given_up += last - first + 1;
            self.add_gap(Gap { first, last, reason: GapReason::SpoolFull })?;
        }
        Ok(())
    }

    fn enforce_cap(&mut self) -> Result<(), SpoolError> {
        while self.journal.bytes() > self.bytes_max {
            if !self.give_up_oldest()? {
                break;
            }
        }
        Ok(())
    }

    /// Deletes segments from the oldest on as long as all that they hold is acknowledged.
    fn drop_acknowledged(&mut self) -> Result<(), SpoolError> {
        let active = self.journal.end().segment;
        while let Some(oldest) = self.journal.segments().first().map(|segment| segment.number) {
            if oldest == active {
                break;
            }
            let span = self.spans.front().filter(|span| span.segment == oldest);
            if !span.is_none_or(|span| (span.first..=span.last).all(|number| self.is_settled(number))) {
                break;
            }
            let is_span = span.is_some();
            if self.journal.remove_oldest()?.is_none() {
                break;
            }
            if is_span {
                self.spans.pop_front();
            }
        }
        Ok(())
    }

    fn is_settled(&self, sequence: Sequence) -> bool {
        self.acked.contains(sequence) || self.gaps.iter().any(|gap| gap.first <= sequence && sequence <= gap.last)
    }

    fn add_gap(&mut self, gap: Gap) -> Result<(), SpoolError> {
        self.prepare(64)?;
        self.buffer.clear();
        record::write_gap(gap, &mut self.buffer);
        self.journal.append(&self.buffer)?;
        self.is_synced = false;
        push_gap(&mut self.gaps, gap);
        Ok(())
    }

    /// Raises the ceiling once that is on disk.
    fn write_ceiling(&mut self, ceiling: Sequence) -> Result<(), SpoolError> {
        self.prepare(64)?;
        self.buffer.clear();
        record::write_ceiling(ceiling, &mut self.buffer);
        self.journal.append(&self.buffer)?;
        self.journal.sync()?;
        self.ceiling = ceiling;
        Ok(())
    }

    fn write_acked(&mut self) -> Result<(), SpoolError> {
        if self.acked_news.is_empty() {
            return Ok(());
        }
        self.prepare(64 + self.acked_news.len() * 16)?;
        self.buffer.clear();
        record::write_acked(&self.acked_news, &mut self.buffer);
        self.journal.append(&self.buffer)?;
        self.acked_news.clear();
        Ok(())
    }

    /// Begins a segment if need be, so that it can be read by itself.
    fn prepare(&mut self, bytes: usize) -> Result<(), SpoolError> {
        if self.journal.wants_roll(bytes) {
            self.journal.roll()?;
        }
        if self.journal.segment_is_empty() {
            self.encoder.reset();
            self.buffer.clear();
            record::write_start(self.epoch, self.ceiling, &self.acked, &self.gaps, &mut self.buffer);
            self.journal.append(&self.buffer)?;
            self.acked_news.clear();
        }
        Ok(())
    }
}

fn count(numbers: &SequenceSet, is_counted: impl Fn(Sequence) -> bool) -> u64 {
    numbers.runs().map(|(first, last)| (first..=last).filter(|&number| is_counted(number)).count() as u64).sum()
}

fn random_epoch() -> Result<Epoch, SpoolError> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(|_| SpoolError::Random)?;
    Ok(Epoch(u64::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests;
