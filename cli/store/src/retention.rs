//! Which blocks are too old, or too many. Pure.

use belfry_common::model::Timestamp;

use crate::block::{Summary, Tier};

/// How long, and how much, is kept of each tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionOptions {
    /// Of samples as they were read.
    pub raw: TierRetention,
    /// Of minutes.
    pub minute: TierRetention,
    /// Of hours.
    pub hour: TierRetention,
}

/// How long, and how much, is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierRetention {
    /// Milliseconds.
    pub age_ms_max: i64,
    /// Bytes; `None` for the tier's share of the disk.
    pub bytes_max: Option<u64>,
}

const DAY_MS: i64 = 24 * 3_600_000;

impl Default for RetentionOptions {
    fn default() -> Self {
        let days = |days: i64| TierRetention { age_ms_max: days * DAY_MS, bytes_max: None };
        Self { raw: days(30), minute: days(365), hour: days(5 * 365) }
    }
}

impl RetentionOptions {
    /// What is kept of a tier.
    #[must_use]
    pub fn of(&self, tier: Tier) -> TierRetention {
        match tier {
            Tier::Raw => self.raw,
            Tier::Minute => self.minute,
            Tier::Hour => self.hour,
        }
    }
}

/// Of a disk, in hundredths, what a tier may have: together they leave a fifth to the journal, the database and others.
fn share(tier: Tier) -> u64 {
    match tier {
        Tier::Raw => 60,
        Tier::Minute => 15,
        Tier::Hour => 5,
    }
}

/// The numbers of the blocks that go: those of which nothing is young enough, and of the others the oldest, tier by tier, while they are
/// more than the tier may have on a disk of so many bytes.
///
/// Raw samples of which no rows were made yet, such as those of history that was just imported, are not too old before that.
pub(crate) fn expired(
    blocks: &[&Summary],
    options: &RetentionOptions,
    disk_bytes: Option<u64>,
    now: Timestamp,
) -> Vec<u64> {
    let mut expired = Vec::new();
    for tier in Tier::ALL {
        let TierRetention { age_ms_max, bytes_max } = options.of(tier);
        let bytes_max = bytes_max.or(disk_bytes.map(|bytes| bytes / 100 * share(tier)));
        let horizon = |age_ms_max: i64| now.plus_millis(-age_ms_max).as_millis();
        let (own, of_rows) = (horizon(age_ms_max), horizon(options.minute.age_ms_max.max(options.hour.age_ms_max)));
        let is_old = |block: &&Summary| {
            let waits = tier == Tier::Raw && !block.is_final && block.last_ms >= of_rows;
            block.last_ms < own && !waits
        };
        let of_tier = blocks.iter().copied().filter(|block| block.tier == tier);
        let (old, mut young): (Vec<&Summary>, Vec<&Summary>) = of_tier.partition(is_old);
        expired.extend(old.iter().map(|block| block.number));
        young.sort_by_key(|block| block.last_ms);
        let mut bytes: u64 = young.iter().map(|block| block.bytes).sum();
        for block in young {
            if bytes_max.is_none_or(|max| bytes <= max) {
                break;
            }
            bytes -= block.bytes;
            expired.push(block.number);
        }
    }
    expired
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u64, tier: Tier, last_day: i64, bytes: u64) -> Summary {
        Summary { bytes, ..Summary::example(number, tier, ((last_day - 1) * DAY_MS, last_day * DAY_MS)) }
    }

    #[test]
    fn what_is_old_goes_and_of_what_is_too_much_the_oldest() {
        let waits = |number, last_day| Summary { is_final: false, ..block(number, Tier::Raw, last_day, 100) };
        let waiting = [waits(1, 60), waits(2, -1_800)];
        let waiting: Vec<&Summary> = waiting.iter().collect();
        let now = Timestamp::from_millis(100 * DAY_MS);
        assert_eq!(expired(&waiting, &RetentionOptions::default(), None, now), [2], "rows of it would be too old, too");
        let blocks = [
            block(1, Tier::Raw, 9, 100),
            block(2, Tier::Raw, 75, 100),
            block(3, Tier::Raw, 80, 100),
            block(4, Tier::Raw, 99, 100),
            block(5, Tier::Minute, 9, 100),
        ];
        let blocks: Vec<&Summary> = blocks.iter().collect();
        let go = |options: &RetentionOptions, disk| expired(&blocks, options, disk, now);
        assert_eq!(go(&RetentionOptions::default(), None), [1]);
        assert_eq!(go(&RetentionOptions::default(), Some(400)), [1, 2, 5]);
        let some = TierRetention { age_ms_max: i64::MAX, bytes_max: Some(199) };
        assert_eq!(go(&RetentionOptions { raw: some, ..RetentionOptions::default() }, Some(40_000)), [1, 2, 3]);
    }
}
