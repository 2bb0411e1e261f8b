//! Decides which blocks to merge next, and which are too old.
//!
//! Pure: it sees what is known of blocks and the time.

use std::collections::{BTreeMap, BTreeSet};

use belfry_common::model::Timestamp;

use crate::{
    KeyNumber,
    block::{Summary, Tier},
    partition::Span,
};

/// When blocks are merged.
#[derive(Debug, Clone, Copy)]
pub struct CompactOptions {
    /// Milliseconds after the end of an hour for which its last samples are waited for.
    pub grace_ms: i64,
    /// Milliseconds without anything new after which late samples are merged into what is there.
    pub quiet_ms: i64,
    /// Fresh blocks of an hour that goes on, at least one, from which on they are merged: what is read most is packed, and in few pieces.
    pub fresh_max: usize,
    /// Blocks of one span that are too many: they are merged although more may come.
    pub blocks_max: usize,
    /// Blocks are merged into one of a longer span as long as that has no more bytes than this.
    pub block_bytes_max: u64,
}

impl Default for CompactOptions {
    fn default() -> Self {
        Self {
            grace_ms: 5 * 60_000,
            quiet_ms: 10 * 60_000,
            fresh_max: 6,
            blocks_max: 32,
            block_bytes_max: 512 * 1024 * 1024,
        }
    }
}

/// Blocks to be merged into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) tier: Tier,
    /// Their numbers, ascending.
    pub(crate) sources: Vec<u64>,
    /// Nothing more is expected: samples are packed for good, and coarser tiers are made of raw ones.
    pub(crate) is_final: bool,
}

/// The next merge that is due, if there is one: what is newest first, since that is what is asked for most.
pub(crate) fn next(blocks: &[&Summary], options: &CompactOptions, now: Timestamp) -> Option<Job> {
    let spans = by_span(blocks);
    let of_one_span =
        spans.iter().rev().find_map(|((tier, span), blocks)| merge_span(*tier, *span, blocks, options, now));
    of_one_span.or_else(|| Tier::ALL.into_iter().find_map(|tier| merge_longer(&spans, tier, options, now)))
}

/// A block that is encrypted with another key than this, or not though there is one: it is written again, the newest first. Such that are to
/// be merged are not: of what two blocks say, that of the later counts, and what is written again is the latest.
pub(crate) fn next_with_other_key(blocks: &[&Summary], key: Option<KeyNumber>) -> Option<Job> {
    let overlaps = |a: &Summary, b: &Summary| a.tier == b.tier && a.first_ms <= b.last_ms && b.first_ms <= a.last_ms;
    let is_alone = |block: &Summary| blocks.iter().filter(|other| overlaps(block, other)).count() == 1;
    let is_settled = |block: &Summary| block.is_final || block.tier != Tier::Raw;
    let others = blocks.iter().filter(|block| block.key != key && is_settled(block) && is_alone(block));
    let block = others.max_by_key(|block| (block.last_ms, block.number))?;
    Some(Job { tier: block.tier, sources: vec![block.number], is_final: true })
}

type Spans<'a> = BTreeMap<(Tier, Span), Vec<&'a Summary>>;

/// Blocks by the span that they belong to: that of a longer block where there is one around them.
fn by_span<'a>(blocks: &[&'a Summary]) -> Spans<'a> {
    let own = |block: &'a Summary| Some((block, Span::covering(block.first_ms, block.last_ms)?));
    let known: Vec<(&Summary, Span)> = blocks.iter().filter_map(|block| own(block)).collect();
    let taken: BTreeSet<(Tier, Span)> = known.iter().map(|(block, span)| (block.tier, *span)).collect();
    let mut spans = Spans::new();
    for (block, span) in known {
        let around = std::iter::successors(Some(span), |span| span.longer());
        let widest = around.filter(|span| taken.contains(&(block.tier, *span))).last();
        spans.entry((block.tier, widest.unwrap_or(span))).or_default().push(block);
    }
    spans
}

/// Merges what there is of one span, once that is all, or too much; before that, what is not merged yet.
fn merge_span(tier: Tier, span: Span, blocks: &[&Summary], options: &CompactOptions, now: Timestamp) -> Option<Job> {
    let is_over = now.as_millis() >= span.end_ms().saturating_add(options.grace_ms);
    let is_first = !blocks.iter().any(|block| block.is_final);
    let newest = blocks.iter().map(|block| block.created_ms).max()?;
    let is_quiet = now.as_millis().saturating_sub(newest) >= options.quiet_ms;
    let is_single = matches!(blocks, [block] if block.is_final || tier != Tier::Raw);
    let is_due = is_over && (is_first || is_quiet) || blocks.len() > options.blocks_max;
    if is_due && !is_single {
        return Some(Job { tier, sources: numbers(blocks.iter().copied()), is_final: is_over });
    }
    // The newest of all: what they say counts, and what is made of them is newer still.
    let fresh = || blocks.iter().copied().filter(|block| block.replaced.is_empty());
    let is_enough = tier == Tier::Raw && !is_over && fresh().count() >= options.fresh_max.max(1);
    is_enough.then(|| Job { tier, sources: numbers(fresh()), is_final: false })
}

/// Merges the blocks of several spans into one of the span around them, if all is over there and it does not get too large.
fn merge_longer(spans: &Spans<'_>, tier: Tier, options: &CompactOptions, now: Timestamp) -> Option<Job> {
    let mut longer: BTreeMap<Span, Vec<&Summary>> = BTreeMap::new();
    for ((of, span), blocks) in spans {
        if let Some(around) = span.longer().filter(|_| *of == tier) {
            longer.entry(around).or_default().extend(blocks);
        }
    }
    longer.into_iter().rev().find_map(|(around, blocks)| {
        let is_over = now.as_millis() >= around.end_ms().saturating_add(options.grace_ms + options.quiet_ms);
        let is_settled = blocks.iter().all(|block| block.is_final || tier != Tier::Raw);
        let bytes: u64 = blocks.iter().map(|block| block.bytes).sum();
        let is_due = is_over && is_settled && blocks.len() > 1 && bytes <= options.block_bytes_max;
        is_due.then(|| Job { tier, sources: numbers(blocks.iter().copied()), is_final: true })
    })
}

fn numbers<'a>(blocks: impl Iterator<Item = &'a Summary>) -> Vec<u64> {
    let mut numbers: Vec<u64> = blocks.map(|block| block.number).collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::partition::HOUR_MS;

    /// A block: number, tier, first and last hour, whether final, when created (hours), MiB.
    fn block(number: u64, tier: Tier, (first, last): (i64, i64), is_final: bool, created: f64, mib: u64) -> Summary {
        Summary {
            bytes: mib << 20,
            created_ms: (created * HOUR_MS as f64) as i64,
            is_final,
            ..Summary::example(number, tier, (first * HOUR_MS, last * HOUR_MS + HOUR_MS - 1000))
        }
    }

    fn check(blocks: &[Summary], hour: f64, expected: &Expect) {
        let blocks: Vec<&Summary> = blocks.iter().collect();
        let now = Timestamp::from_millis((hour * HOUR_MS as f64) as i64);
        let job = next(&blocks, &CompactOptions::default(), now);
        let text = job.map_or("nothing".into(), |Job { tier, sources, is_final }| {
            format!("{} {sources:?}{}", tier.as_str(), if is_final { "" } else { " for now" })
        });
        expected.assert_eq(&text);
    }

    const RAW: Tier = Tier::Raw;

    #[test]
    fn an_hour_is_merged_some_minutes_after_its_end() {
        let blocks = [block(1, RAW, (5, 5), false, 5.1, 1), block(2, RAW, (5, 5), false, 5.2, 1)];
        check(&blocks, 5.9, &expect!["nothing"]);
        check(&blocks, 6.05, &expect!["nothing"]);
        check(&blocks, 6.1, &expect!["raw [1, 2]"]);
        check(&[block(3, RAW, (5, 5), true, 6.1, 2)], 9.0, &expect!["nothing"]);
        check(&[block(1, RAW, (5, 5), false, 5.1, 1)], 9.0, &expect!["raw [1]"]);
    }

    #[test]
    fn late_samples_are_merged_when_no_more_come_or_there_are_too_many() {
        let mut blocks = vec![block(3, RAW, (5, 5), true, 6.1, 100), block(9, RAW, (5, 5), false, 8.0, 1)];
        check(&blocks, 8.1, &expect!["nothing"]);
        check(&blocks, 8.2, &expect!["raw [3, 9]"]);
        let merged_before = |number| Summary { replaced: vec![0], ..block(number, RAW, (7, 7), false, 8.0, 1) };
        blocks.extend((10..50).map(merged_before));
        check(&blocks[2..34], 7.5, &expect!["nothing"]);
        check(
            &blocks[2..],
            7.5,
            &expect![
                "raw [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49] for now"
            ],
        );
    }

    #[test]
    fn of_an_hour_that_goes_on_what_is_fresh_is_merged_and_what_was_merged_is_left() {
        let fresh = |number| block(number, RAW, (5, 5), false, 5.1, 1);
        let mut blocks: Vec<Summary> = (1..=5).map(fresh).collect();
        check(&blocks, 5.2, &expect!["nothing"]);
        blocks.push(fresh(6));
        check(&blocks, 5.2, &expect!["raw [1, 2, 3, 4, 5, 6] for now"]);
        blocks = vec![Summary { replaced: (1..=6).collect(), ..fresh(7) }];
        check(&blocks, 5.2, &expect!["nothing"]);
        blocks.extend((8..=13).map(fresh));
        check(&blocks, 5.4, &expect!["raw [8, 9, 10, 11, 12, 13] for now"]);
        check(&blocks, 6.1, &expect!["raw [7, 8, 9, 10, 11, 12, 13]"]);
    }

    #[test]
    fn hours_become_a_day_and_days_a_month_unless_that_is_too_large() {
        let hours =
            |mib| (0..24).map(move |hour| block(hour as u64 + 1, RAW, (hour, hour), true, hour as f64 + 1.1, mib));
        let small: Vec<Summary> = hours(10).collect();
        check(&small, 24.1, &expect!["nothing"]);
        check(
            &small,
            24.3,
            &expect!["raw [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24]"],
        );
        check(&hours(100).collect::<Vec<_>>(), 24.3, &expect!["nothing"]);
        let days: Vec<Summary> =
            (0..30).map(|day| block(day as u64, Tier::Hour, (day * 24, day * 24 + 23), true, 1.0, 1)).collect();
        check(&days, 29.0 * 24.0, &expect!["nothing"]);
        check(&days[..3], 721.0, &expect!["1h [0, 1, 2]"]);
    }

    #[test]
    fn what_has_another_key_is_written_again_once_it_is_merged() {
        let key = |number| Some(KeyNumber(number));
        let mut blocks = [
            block(1, RAW, (5, 5), true, 5.1, 1),
            block(2, RAW, (6, 6), true, 6.1, 1),
            block(3, RAW, (7, 7), false, 7.1, 1),
            block(4, Tier::Hour, (4, 4), true, 5.1, 1),
            block(5, Tier::Minute, (4, 4), true, 5.1, 1),
            block(6, Tier::Minute, (4, 4), true, 6.1, 1),
        ];
        let order = |blocks: &mut [Summary], to: Option<KeyNumber>| {
            let mut order: Vec<u64> = Vec::new();
            while let Some(job) = next_with_other_key(&blocks.iter().collect::<Vec<_>>(), to) {
                order.extend(&job.sources);
                blocks.iter_mut().filter(|block| job.sources.contains(&block.number)).for_each(|block| block.key = to);
            }
            order
        };
        assert_eq!(order(&mut blocks, key(7)), [2, 1, 4]);
        assert_eq!(order(&mut blocks, key(7)), []);
        assert_eq!(order(&mut blocks, key(8)), [2, 1, 4]);
    }

    #[test]
    fn what_comes_late_into_a_day_is_merged_with_the_day() {
        let blocks = [block(30, RAW, (0, 23), true, 25.0, 100), block(31, RAW, (7, 7), false, 30.0, 1)];
        check(&blocks, 30.1, &expect!["nothing"]);
        check(&blocks, 30.2, &expect!["raw [30, 31]"]);
    }
}
