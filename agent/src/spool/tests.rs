use std::sync::Arc;

use belfry_common::model::{Kind, Layout, Metric, Raw, Resolution, SeriesDefinition, Tick};
use proptest::prelude::*;

use super::*;

const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A batch of noise, so that a segment fills quickly.
fn batch(sequence: Sequence) -> Batch {
    let metric = Arc::new(Metric::new("noise", Kind::Gauge, Resolution::ONE, &["n"], ""));
    let series = (0..50).map(|n| {
        Arc::new(SeriesDefinition { metric: Arc::clone(&metric), label_values: Box::new([n.to_string().into()]) })
    });
    let layout = Arc::new(Layout { group: 1, sampler: "s".into(), interval_ms: 1000, series: series.collect() });
    let mut random = sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let values = (0..50).map(|_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        Raw::integer((random >> 8).cast_signed())
    });
    Batch { ticks: vec![Tick { layout, time: time(sequence), values: values.collect() }] }
}

fn time(sequence: Sequence) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + sequence as i64 * 1000)
}

fn append(spool: &mut Spool, sequences: std::ops::RangeInclusive<Sequence>) {
    for sequence in sequences {
        spool.append(sequence, time(sequence), &batch(sequence)).unwrap();
        spool.flush().unwrap();
    }
}

fn backlog(spool: &Spool) -> Vec<Sequence> {
    let mut cursor = spool.cursor().unwrap();
    let mut all = Vec::new();
    loop {
        let some = spool.backlog(&mut cursor, &SequenceSet::default(), 7).unwrap();
        if some.is_empty() {
            return all;
        }
        for spooled in some {
            assert_eq!(spooled.batch, batch(spooled.sequence), "the very batch that was appended");
            all.push(spooled.sequence);
        }
    }
}

fn gaps(spool: &Spool) -> Vec<(Sequence, Sequence, &'static str)> {
    spool.gaps().iter().map(|gap| (gap.first, gap.last, gap.reason.as_str())).collect()
}

#[test]
fn what_is_not_acknowledged_is_there_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, opened) = Spool::open(directory.path(), BYTES_MAX).unwrap();
    assert_eq!(opened.next, 1);
    append(&mut spool, 1..=20);
    spool.acknowledge(&[Run::new(1, 5), Run::new(8, 8)]).unwrap();
    assert_eq!(spool.waiting(), 14);
    append(&mut spool, 21..=21);
    drop(spool);

    let (mut spool, again) = Spool::open(directory.path(), BYTES_MAX).unwrap();
    assert_eq!(again.epoch, opened.epoch);
    assert_eq!(backlog(&spool), [6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]);
    assert_eq!(spool.waiting(), 15);
    assert_eq!(again.next, CEILING_STEP + 1, "numbers that may have been used are never used again");
    assert_eq!(gaps(&spool), [(22, CEILING_STEP, "unused")]);
    append(&mut spool, again.next..=again.next);
    assert_eq!(backlog(&spool).last(), Some(&again.next));
    spool.acknowledge(&[Run::new(6, again.next)]).unwrap();
    assert_eq!((backlog(&spool), gaps(&spool), spool.waiting()), (vec![], vec![], 0));
}

#[test]
fn segments_go_when_all_in_them_is_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(directory.path(), BYTES_MAX).unwrap();
    append(&mut spool, 1..=10_000);
    assert!(spool.bytes() > 3 * u64::from(SEGMENT_BYTES));
    assert_eq!(spool.oldest(), Some(time(1)));
    spool.acknowledge(&[Run::new(1, 10_000)]).unwrap();
    assert!(spool.bytes() <= 2 * u64::from(SEGMENT_BYTES), "{}", spool.bytes());
    assert_eq!(spool.oldest(), None);
}

#[test]
fn what_a_collector_has_lost_is_sent_again_as_far_as_it_is_here() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(directory.path(), BYTES_MAX).unwrap();
    append(&mut spool, 1..=10_000);
    spool.acknowledge(&[Run::new(1, 9_990)]).unwrap();
    let news = Reconciled { news: 2, ..Reconciled::default() };
    assert_eq!(spool.reconcile(&[Run::new(1, 9_992)]).unwrap(), news);
    assert_eq!((backlog(&spool).first(), spool.waiting()), (Some(&9_993), 8));

    let outcome = spool.reconcile(&[Run::new(1, 100), Run::new(9_000, 9_001)]).unwrap();
    let waiting = backlog(&spool);
    let first = waiting[0];
    assert!(first > 101 && first < 9_000, "some segments had gone: {first}");
    let expected: Vec<Sequence> = (first..9_000).chain(9_002..=10_000).collect();
    assert_eq!((waiting, spool.waiting()), (expected.clone(), expected.len() as u64));
    assert_eq!(outcome, Reconciled { news: 0, again: expected.len() as u64 - 8, gone: first - 101 });
    assert_eq!(spool.reconcile(&[Run::new(1, 100), Run::new(9_000, 9_001)]).unwrap(), Reconciled::default());
    assert_eq!(gaps(&spool), [(101, first - 1, "collector_lost")]);
    append(&mut spool, 10_001..=10_001);
    drop(spool);

    let (mut spool, opened) = Spool::open(directory.path(), BYTES_MAX).unwrap();
    assert_eq!(backlog(&spool), [expected.as_slice(), &[10_001]].concat(), "also after a crash");
    assert_eq!(gaps(&spool)[0], (101, first - 1, "collector_lost"));
    spool.acknowledge(&[Run::new(1, opened.next - 1)]).unwrap();
    assert_eq!((backlog(&spool), gaps(&spool), spool.waiting()), (vec![], vec![], 0));
}

#[test]
fn a_full_spool_gives_up_its_oldest_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(directory.path(), 3 * u64::from(SEGMENT_BYTES)).unwrap();
    append(&mut spool, 1..=20_000);
    assert!(spool.bytes() <= 4 * u64::from(SEGMENT_BYTES));
    let kept = backlog(&spool);
    assert_eq!(kept.last(), Some(&20_000));
    let first = kept[0];
    assert!(first > 1 && kept.len() as u64 == 20_000 - first + 1);
    assert_eq!(gaps(&spool), [(1, first - 1, "spool_full")]);
    assert_eq!(spool.waiting(), kept.len() as u64);
    drop(spool);
    let (spool, _) = Spool::open(directory.path(), BYTES_MAX).unwrap();
    assert_eq!(gaps(&spool)[0], (1, first - 1, "spool_full"), "the gap itself survives");
}

#[test]
fn a_refused_batch_becomes_a_gap_and_is_not_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(directory.path(), BYTES_MAX).unwrap();
    append(&mut spool, 1..=3);
    spool.refuse(2).unwrap();
    assert_eq!(backlog(&spool), [1, 3]);
    assert_eq!(gaps(&spool), [(2, 2, "refused")]);
    assert_eq!(spool.waiting(), 2);
}

#[test]
fn a_damaged_segment_costs_itself_and_is_declared() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(directory.path(), BYTES_MAX).unwrap();
    append(&mut spool, 1..=10_000);
    let victim = spool.spans[1];
    drop(spool);
    let path = directory.path().join(format!("{:016x}.journal", victim.segment));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let (spool, _) = Spool::open(directory.path(), BYTES_MAX).unwrap();
    let kept = backlog(&spool);
    let lost = gaps(&spool);
    assert_eq!(lost[0].2, "damaged");
    assert!(lost[0].0 >= victim.first && lost[0].1 == victim.last, "{lost:?} of {victim:?}");
    assert_eq!(kept.len() as u64, 10_000 - (lost[0].1 - lost[0].0 + 1));
}

#[test]
fn a_wiped_spool_is_another_epoch() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, first) = Spool::open(one.path(), BYTES_MAX).unwrap();
    let (_, second) = Spool::open(two.path(), BYTES_MAX).unwrap();
    assert_ne!(first.epoch, second.epoch);
}

#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    Acknowledge(u64, u64),
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..30_u64).prop_map(Step::Append),
        4 => (0..60_u64, 0..20_u64).prop_map(|(back, more)| Step::Acknowledge(back, more)),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn nothing_unacknowledged_is_lost_and_nothing_acknowledged_comes_again(steps in proptest::collection::vec(any_step(), 1..30)) {
        let directory = tempfile::tempdir().unwrap();
        let (mut spool, opened) = Spool::open(directory.path(), BYTES_MAX).unwrap();
        let mut next = opened.next;
        let mut waiting = std::collections::BTreeSet::new();
        for step in steps {
            match step {
                Step::Append(count) => {
                    append(&mut spool, next..=next + count - 1);
                    waiting.extend(next..next + count);
                    next += count;
                }
                Step::Acknowledge(back, more) => {
                    let first = next.saturating_sub(back).max(1);
                    let last = (first + more).min(next - 1);
                    if first <= last {
                        spool.acknowledge(&[Run::new(first, last)]).unwrap();
                        waiting.retain(|number| *number < first || *number > last);
                    }
                }
                Step::Reopen => {
                    // Acknowledgements are written with the next batch: a crash may only make more come again.
                    spool.sync().unwrap();
                    drop(spool);
                    let (again, opened) = Spool::open(directory.path(), BYTES_MAX).unwrap();
                    spool = again;
                    prop_assert!(opened.next >= next);
                    next = opened.next;
                }
            }
            let expected: Vec<_> = waiting.iter().copied().collect();
            prop_assert_eq!(backlog(&spool), expected);
            prop_assert_eq!(spool.waiting(), waiting.len() as u64);
        }
    }
}
