//! Reads the journal at the start: what is stored, and what is in no block.
//!
//! A block that was made from the head says which segments of the journal were in blocks with it. Reading begins there. The segment begins
//! with what was newest of each group, so that what is newest is known without reading blocks; older samples are read from these when they
//! are asked for.
//!
//! One thread reads the journal and checks it, others decode it, each its share of the nodes.

use std::{
    collections::{HashMap, HashSet},
    mem,
    num::NonZero,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use belfry_common::{
    error_chain::ErrorChain,
    journal::{Journal, Position, ReadError},
    model::{Batch, BatchKey, Epoch, Gap, Timestamp},
    sequences::SequenceSet,
};
use rustc_hash::FxHashMap;
use tracing::{error, info};

use crate::{
    Head, HeadOptions, Keys, NodeId, StoreError, Summary,
    block::{Block, BlockError, Tier},
    head::Elsewhere,
    log::Stored,
    maintain::SILENCE_MS_MAX,
    record::{Context, Record},
    sealing::{Opener, UnsealError},
};

/// Threads that decode; the journal is not read faster than this many take it.
const THREADS_MAX: usize = 8;
/// Records on their way to a thread.
const QUEUE_MAX: usize = 1024;
/// Bytes of bodies that a thread gathers, to take in one node's after the other: a dozen batches each of a thousand nodes, so that what a
/// node has in memory is fetched once for all of them.
const GATHERED_BYTES: usize = 8 * 1024 * 1024;

/// What the journal told.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) stored: Stored,
    pub(crate) began: HashMap<u64, Timestamp>,
    /// Records that could not be understood.
    pub(crate) unreadable: u64,
}

/// Where to begin to read.
#[derive(Debug)]
pub(crate) struct Start {
    position: Option<Position>,
    /// The first segment of which something may be in no block; 0 if blocks tell nothing of this journal.
    pub(crate) stored_before: u64,
    began: HashMap<u64, Timestamp>,
    elsewhere: Elsewhere,
    /// Whether something was imported since the head was put into blocks: then no segment begins with what is newest of that.
    is_imported_since: bool,
}

/// Decides where to begin: what is in no block is read.
pub(crate) fn start(
    journal: &Journal,
    keys: &Keys,
    blocks: &[Arc<Block>],
    now: Timestamp,
) -> Result<Start, StoreError> {
    let mut began = HashMap::new();
    for segment in journal.segments() {
        began.extend(snapshot_time(journal, keys, segment.number)?.map(|time| (segment.number, time)));
    }
    // A journal that was lost begins anew, and comes to the numbers that older blocks tell of: these were written before such a
    // segment was begun.
    let told = |block: &&Arc<Block>| {
        let Summary { journal_segment, created_ms, .. } = block.summary();
        began.get(journal_segment).is_some_and(|began: &Timestamp| began.as_millis() <= *created_ms)
    };
    let stored_before = blocks.iter().filter(told).map(|block| block.summary().journal_segment).max().unwrap_or(0);
    let first = journal.segments().iter().map(|segment| segment.number).find(|number| began.contains_key(number));
    let segment = first.map(|first| first.max(stored_before));
    let position = segment.map(|segment| Position { segment, offset: 0 });
    let elsewhere = Elsewhere::in_blocks(blocks, now.plus_millis(-SILENCE_MS_MAX));
    let elsewhere = elsewhere.map_err(|error| StoreError::Blocks(error.into()))?;
    // Neither rows nor what is merged: these are made of others.
    let is_made = |block: &&Arc<Block>| block.summary().tier == Tier::Raw && block.summary().replaced.is_empty();
    let made = || blocks.iter().filter(is_made);
    let of_head = made().filter(told).map(|block| block.number()).max().unwrap_or(0);
    let is_imported_since = made().any(|block| block.number() > of_head);
    Ok(Start { position, stored_before, began, elsewhere, is_imported_since })
}

impl Elsewhere {
    /// What blocks have, node by node for those of which they have something after the horizon.
    fn in_blocks(blocks: &[Arc<Block>], horizon: Timestamp) -> Result<Self, BlockError> {
        let newest = blocks.iter().map(|block| block.summary().last_ms).max();
        let mut elsewhere =
            Self::until(newest.map_or(Timestamp::from_millis(i64::MIN), Timestamp::from_millis).min(horizon));
        for block in blocks {
            let Summary { last_ms, .. } = block.summary();
            if *last_ms > horizon.as_millis() {
                for entry in &block.catalog()?.nodes {
                    elsewhere.note(entry.node, Timestamp::from_millis(entry.last_ms));
                }
            }
        }
        Ok(elsewhere)
    }
}

/// Reads back what a restarted collector must know: a head with what is in no block, and what was stored.
///
/// Segments before the start only tell when they began: the snapshot that it begins with has what else they knew.
pub(crate) fn replay(journal: &Journal, keys: &Keys, options: HeadOptions, start: Start) -> (Head, Replayed) {
    let Start { position, stored_before, began, elsewhere, is_imported_since } = start;
    let head = Head::beside(options, elsewhere);
    let mut replayed = Replayed { began, ..Replayed::default() };
    if let Some(position) = position {
        let beginning = Beginning {
            segment: position.segment,
            is_in_blocks: stored_before > 0,
            has_newest: stored_before > 0 && !is_imported_since && is_begun(journal, keys, position),
        };
        let batches = run((journal, keys), beginning, &head, &mut replayed);
        info!(batches, unreadable = replayed.unreadable, "journal replayed");
    }
    (head, replayed)
}

/// When a segment began, if it says so.
///
/// # Errors
/// It is encrypted, and nobody has the key: that is for the operator to mend, and no damage.
fn snapshot_time(journal: &Journal, keys: &Keys, segment: u64) -> Result<Option<Timestamp>, StoreError> {
    let Ok(mut reader) = journal.read(Position { segment, offset: 0 }) else { return Ok(None) };
    let mut opener = Opener::new(keys);
    while let Ok(Some(record)) = reader.next_record() {
        if record.position.segment != segment {
            return Ok(None);
        }
        match opener.open(record) {
            Ok(None) => {}
            Ok(Some(payload)) => {
                let Ok(Record::Snapshot { time, .. }) = Record::parse(payload) else { return Ok(None) };
                return Ok(Some(time));
            }
            Err(UnsealError::Key(key)) => return Err(StoreError::Key { segment, key }),
            Err(UnsealError::NotSealed) => return Ok(None),
        }
    }
    Ok(None)
}

/// Whether all that a segment begins with is there.
fn is_begun(journal: &Journal, keys: &Keys, position: Position) -> bool {
    let Ok(mut reader) = journal.read(position) else { return false };
    let mut opener = Opener::new(keys);
    while let Ok(Some(record)) = reader.next_record() {
        if record.position.segment != position.segment {
            return false;
        }
        match opener.open(record).map(|payload| payload.map(Record::parse)) {
            Ok(Some(Ok(Record::Begun))) => return true,
            Ok(None | Some(Ok(Record::Snapshot { .. } | Record::Layout { .. } | Record::Newest { .. }))) => {}
            _ => return false,
        }
    }
    false
}

/// What stands at the beginning of the segment with which a replay begins.
#[derive(Debug, Clone, Copy)]
struct Beginning {
    segment: u64,
    is_in_blocks: bool,
    /// Whether it has what is newest of all that is in blocks.
    has_newest: bool,
}

/// What a thread is given, in the order of the journal.
enum Work {
    OfAll(OfAll),
    OfNode(NodeId, OfNode),
}

enum OfAll {
    /// A segment begins.
    Snapshot {
        time: Timestamp,
    },
    Layout(u32, Arc<[u8]>),
}

enum OfNode {
    Stored(Epoch, SequenceSet),
    /// The newest tick of a group; and since when no group is missing, unless the head has it already.
    Newest(Box<[u8]>, Option<Timestamp>),
    Batch(BatchKey, Timestamp, Box<[u8]>),
    Gap(Epoch, Gap),
}

/// Reads from a position on; how many batches were new.
fn run((journal, keys): (&Journal, &Keys), beginning: Beginning, head: &Head, replayed: &mut Replayed) -> u64 {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
    thread::scope(|scope| {
        let mut queues = Vec::new();
        let mut shares = Vec::new();
        for _ in 0..threads {
            let (queue, inbox) = sync_channel(QUEUE_MAX);
            queues.push(queue);
            let share = move || Share::new(head, beginning).run(&inbox);
            let share = thread::Builder::new().name("replay".into()).spawn_scoped(scope, share);
            shares.push(share.expect("a process that cannot have a thread at its start cannot run"));
        }
        replayed.unreadable += deal(journal, Opener::new(keys), beginning.segment, &queues);
        drop(queues);
        let mut batches = 0;
        for share in shares {
            // Its panic is this thread's.
            let share = share.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            replayed.stored.extend(share.stored);
            replayed.unreadable += share.unreadable;
            batches += share.batches;
        }
        batches
    })
}

/// Gives every thread what it needs; how many records were unreadable.
fn deal(journal: &Journal, mut opener: Opener, segment: u64, queues: &[SyncSender<Work>]) -> u64 {
    let mut unreadable = 0;
    let mut damaged = |error: &dyn std::error::Error| {
        unreadable += 1;
        error!(error = %ErrorChain(error), "part of the journal cannot be read");
    };
    // A thread that is gone has panicked, which is found when it is joined.
    let one = |node: NodeId, work: OfNode| {
        let queue = queues.get(node.0 as usize % queues.len());
        drop(queue.map(|queue| queue.send(Work::OfNode(node, work))));
    };
    let mut reader = match journal.read(Position { segment, offset: 0 }) {
        Ok(reader) => reader,
        Err(error) => {
            damaged(&error);
            return unreadable;
        }
    };
    loop {
        let record = match reader.next_record() {
            Ok(Some(record)) => record,
            Ok(None) => return unreadable,
            Err(error @ ReadError::Damaged { .. }) => {
                damaged(&error);
                continue;
            }
            Err(error) => {
                damaged(&error);
                return unreadable;
            }
        };
        let in_segment = record.position.segment;
        let payload = match opener.open(record) {
            Ok(Some(payload)) => payload,
            Ok(None) => continue,
            Err(error) => {
                damaged(&error);
                continue;
            }
        };
        match Record::parse(payload) {
            Ok(Record::Snapshot { time, stored }) => {
                queues.iter().for_each(|queue| drop(queue.send(Work::OfAll(OfAll::Snapshot { time }))));
                stored.into_iter().for_each(|(node, epoch, set)| one(node, OfNode::Stored(epoch, set)));
            }
            Ok(Record::Layout { number, body }) => {
                let body: Arc<[u8]> = body.into();
                let layout = || Work::OfAll(OfAll::Layout(number, Arc::clone(&body)));
                queues.iter().for_each(|queue| drop(queue.send(layout())));
            }
            Ok(Record::Newest { node, since, body }) => {
                let news = Some(since).filter(|_| in_segment == segment);
                one(node, OfNode::Newest(body.into(), news));
            }
            Ok(Record::Batch { node, key, received, body }) => one(node, OfNode::Batch(key, received, body.into())),
            Ok(Record::Gap { node, epoch, gap }) => one(node, OfNode::Gap(epoch, gap)),
            Ok(Record::Begun) => {}
            Err(error) => damaged(&error),
        }
    }
}

/// One thread's share of the nodes.
struct Share<'a> {
    head: &'a Head,
    beginning: Beginning,
    context: Context,
    began: Timestamp,
    stored: Stored,
    unreadable: u64,
    batches: u64,
    /// Nodes whose context broke in the present segment: one error each is enough in the log.
    lost: HashSet<NodeId>,
    /// What is to be taken in, node by node in the order of the journal.
    gathered: FxHashMap<NodeId, Vec<OfNode>>,
    gathered_bytes: usize,
}

impl<'a> Share<'a> {
    fn new(head: &'a Head, beginning: Beginning) -> Self {
        let (context, began) = (Context::new(Arc::clone(head.pool())), Timestamp::default());
        let (stored, lost) = (Stored::new(), HashSet::new());
        let (gathered, gathered_bytes) = (FxHashMap::default(), 0);
        Self { head, beginning, context, began, stored, unreadable: 0, batches: 0, lost, gathered, gathered_bytes }
    }

    fn run(mut self, inbox: &Receiver<Work>) -> Self {
        for work in inbox {
            match work {
                Work::OfNode(node, work) => self.gather(node, work),
                Work::OfAll(work) => self.take_for_all(work),
            }
        }
        self.take_gathered();
        self
    }

    fn gather(&mut self, node: NodeId, work: OfNode) {
        self.gathered_bytes += match &work {
            OfNode::Newest(body, _) | OfNode::Batch(_, _, body) => body.len(),
            OfNode::Stored(..) | OfNode::Gap(..) => 0,
        };
        self.gathered.entry(node).or_default().push(work);
        if self.gathered_bytes >= GATHERED_BYTES {
            self.take_gathered();
        }
    }

    fn take_gathered(&mut self) {
        self.gathered_bytes = 0;
        let mut gathered = mem::take(&mut self.gathered);
        for (&node, work) in &mut gathered {
            work.drain(..).for_each(|work| self.take(node, work));
        }
        // Its memory stays.
        self.gathered = gathered;
    }

    fn take_for_all(&mut self, work: OfAll) {
        match work {
            OfAll::Snapshot { time } => {
                self.take_gathered();
                self.began = time;
                self.context.clear();
                self.lost.clear();
            }
            OfAll::Layout(number, body) => {
                if self.context.knows(number) {
                    self.take_gathered();
                }
                if let Err(error) = self.context.learn(number, &body) {
                    self.unreadable += 1;
                    error!(error = %ErrorChain(&error), "part of the journal cannot be read");
                }
            }
        }
    }

    fn take(&mut self, node: NodeId, work: OfNode) {
        match work {
            OfNode::Stored(epoch, set) => drop(self.stored.insert((node, epoch), set)),
            OfNode::Newest(body, news) => {
                let Some((batch, since)) = self.decode(node, &body).zip(news) else { return };
                match self.beginning.is_in_blocks {
                    true => self.head.apply_stored(node, &batch, self.began),
                    false => self.head.apply(node, &batch, self.began),
                }
                if self.beginning.has_newest {
                    self.head.note_newest_since(node, since);
                }
            }
            OfNode::Batch(key, received, body) => {
                let Some(batch) = self.decode(node, &body) else { return };
                let set = self.stored.entry((node, key.epoch)).or_default();
                if !set.contains(key.sequence) && set.insert(key.sequence..=key.sequence).is_ok() {
                    self.head.apply(node, &batch, received);
                    self.batches += 1;
                }
            }
            OfNode::Gap(epoch, gap) => {
                let set = self.stored.entry((node, epoch)).or_default();
                self.unreadable += u64::from(set.insert(gap.first..=gap.last).is_err());
            }
        }
    }

    fn decode(&mut self, node: NodeId, body: &[u8]) -> Option<Batch> {
        match self.context.decode(node, body) {
            Ok(batch) => Some(batch),
            Err(error) => {
                if self.lost.insert(node) {
                    error!(%node, error = %ErrorChain(&error), "batches in the journal cannot be read");
                }
                self.unreadable += 1;
                None
            }
        }
    }
}
