//! How many GPUs a node should have: as many as it had.
//!
//! A GPU that is gone says nothing, and after a restart of the driver there is no trace of it. So the number is kept on disk, and a
//! lower one has to stand for a week before it is believed.

use std::{fs, path::PathBuf};

use belfry_common::model::Timestamp;
use tracing::{info, warn};

/// Longer than a GPU waits for its replacement, in the eyes of who wants to hear of it.
const BELIEVED_AFTER_MS: i64 = 7 * 24 * 3_600_000;

/// The number, and since when it was not reached.
#[derive(Debug)]
pub(super) struct Expected {
    file: PathBuf,
    count: u32,
    fewer_since: Option<Timestamp>,
}

impl Expected {
    /// Reads what was kept; nothing was if the file is not there.
    pub(super) fn load(file: PathBuf) -> Self {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let mut numbers = text.split_whitespace().map(str::parse::<i64>);
        let count = numbers.next().and_then(Result::ok).and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        let fewer_since = numbers.next().and_then(Result::ok).map(Timestamp::from_millis);
        Self { file, count, fewer_since }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// A driver that was just opened has so many.
    pub(super) fn found(&mut self, count: u32, now: Timestamp) {
        let before = (self.count, self.fewer_since);
        if count >= self.count {
            (self.count, self.fewer_since) = (count, None);
        } else {
            let since = *self.fewer_since.get_or_insert(now);
            if now.millis_since(since) > BELIEVED_AFTER_MS {
                info!(before = self.count, now = count, "fewer GPUs for a week: they are not expected any more");
                (self.count, self.fewer_since) = (count, None);
            }
        }
        if before != (self.count, self.fewer_since) {
            self.keep();
        }
    }

    fn keep(&self) {
        let since = self.fewer_since.map(|since| format!(" {}", since.as_millis())).unwrap_or_default();
        if let Err(error) = fs::write(&self.file, format!("{}{since}\n", self.count)) {
            let file = self.file.display();
            warn!(%file, %error, "number of GPUs cannot be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_number_has_to_stand_for_a_week() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("gpus");
        let day = |day: i64| Timestamp::from_millis(1_700_000_000_000 + day * 24 * 3_600_000);
        let mut expected = Expected::load(file.clone());
        expected.found(8, day(0));
        expected.found(7, day(1));
        assert_eq!(expected.count(), 8);

        let mut expected = Expected::load(file.clone());
        expected.found(7, day(7));
        assert_eq!(expected.count(), 8, "it is kept over a restart");
        expected.found(8, day(8));
        expected.found(7, day(9));
        expected.found(7, day(15));
        assert_eq!(expected.count(), 8, "a week without interruption");
        expected.found(7, day(17));
        assert_eq!(Expected::load(file).count(), 7);
    }
}
