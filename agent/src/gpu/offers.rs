//! What a GPU is known not to offer, so that it is not asked for at each tick; and whether the GPU is lost.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

use belfry_common::model::{Reason, Timestamp};

/// What a GPU does not offer is asked for again after this: a setting or a driver may have changed.
const ASK_AGAIN_MS: i64 = 10 * 60_000;

/// Ticks in a row in which all that was asked failed, until a GPU counts as one that does not answer.
const FAILED_TICKS: u32 = 3;

/// What one GPU offers, of the things that a `K` names.
pub(super) struct Offers<K> {
    /// Until when each reading that is not offered is not asked for.
    unsupported: HashMap<K, Timestamp>,
    now: Timestamp,
    /// Since the beginning of this tick.
    is_lost: bool,
    has_answered: bool,
    has_failed: bool,
    /// Before this one.
    failed_ticks: u32,
}

impl<K> Default for Offers<K> {
    fn default() -> Self {
        Self {
            unsupported: HashMap::new(),
            now: Timestamp::default(),
            is_lost: false,
            has_answered: false,
            has_failed: false,
            failed_ticks: 0,
        }
    }
}

impl<K: Eq + Hash> Offers<K> {
    /// Begins a tick: whatever was lost gets another chance.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.now = now;
        self.failed_ticks = self.failing_ticks();
        (self.is_lost, self.has_answered, self.has_failed) = (false, false, false);
    }

    /// The GPU is gone, or answers nothing.
    pub(super) fn lose(&mut self) {
        self.is_lost = true;
    }

    /// Of a GPU that is lost nothing more is asked in this tick.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Whether it answers: not if it is lost, and not if all that was asked has failed for some ticks.
    pub(super) fn answers(&self) -> bool {
        !self.is_lost && self.failing_ticks() < FAILED_TICKS
    }

    /// With this one.
    fn failing_ticks(&self) -> u32 {
        if self.has_failed && !self.has_answered { self.failed_ticks.saturating_add(1) } else { 0 }
    }

    /// Forgets that these things were not offered.
    pub(super) fn forget(&mut self, is_it: impl Fn(&K) -> bool) {
        self.unsupported.retain(|asked, _| !is_it(asked));
    }

    /// How many things it does not offer.
    pub(super) fn unsupported(&self) -> usize {
        self.unsupported.len()
    }

    /// Whether this is to be asked for: not while the GPU is known not to offer it. One that is lost offers what it did.
    pub(super) fn offers<Q: Eq + Hash + ?Sized>(&self, asked: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.unsupported.get(asked).is_none_or(|until| !self.is_lost && self.now >= *until)
    }

    /// Remembers what an answer says of the GPU. What it does not offer is no answer.
    pub(super) fn note<T, Q>(&mut self, asked: &Q, answer: Result<T, Reason>) -> Option<Result<T, Reason>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        match &answer {
            Err(Reason::Unsupported) => {
                self.unsupported.insert(asked.to_owned(), self.now.plus_millis(ASK_AGAIN_MS));
                return None;
            }
            Err(Reason::Lost) => self.is_lost = true,
            Err(_) => self.has_failed = true,
            Ok(_) => {
                self.has_answered = true;
                self.unsupported.remove(asked);
            }
        }
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_offered_is_asked_for_again_after_a_while() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let mut offers: Offers<String> = Offers::default();
        offers.begin(now);
        assert_eq!(offers.note::<(), _>("fan", Err(Reason::Unsupported)), None);
        offers.begin(now.plus_millis(ASK_AGAIN_MS - 1));
        assert!(!offers.offers("fan") && offers.offers("power"));
        offers.begin(now.plus_millis(ASK_AGAIN_MS));
        offers.lose();
        assert!(!offers.offers("fan") && offers.offers("power"));
        offers.begin(now.plus_millis(ASK_AGAIN_MS));
        assert!(offers.offers("fan"));
        assert_eq!(offers.note("fan", Ok(1)), Some(Ok(1)));
        assert_eq!(offers.unsupported(), 0);
    }

    #[test]
    fn what_was_not_offered_can_be_forgotten() {
        let mut offers: Offers<String> = Offers::default();
        for asked in ["fan", "instance 1", "instance 2"] {
            offers.note::<(), _>(asked, Err(Reason::Unsupported));
        }
        offers.forget(|asked| asked.starts_with("instance"));
        assert!(offers.offers("instance 1") && offers.offers("instance 2") && !offers.offers("fan"));
    }

    #[test]
    fn a_gpu_that_only_fails_does_not_answer() {
        let mut offers: Offers<String> = Offers::default();
        assert!(offers.answers(), "nothing was asked");
        offers.note::<(), _>("fan", Err(Reason::Unsupported));
        assert!(offers.answers());
        let mut tick = |clock: Result<i32, Reason>| {
            offers.begin(Timestamp::default());
            offers.note::<(), _>("power", Err(Reason::Error));
            offers.note("clock", clock);
            offers.answers()
        };
        let failed = || Err(Reason::Error);
        assert_eq!([tick(failed()), tick(failed()), tick(failed()), tick(failed())], [true, true, false, false]);
        assert_eq!([tick(Ok(1)), tick(failed()), tick(failed()), tick(failed())], [true, true, true, false]);
    }

    #[test]
    fn a_gpu_is_lost_until_the_next_tick() {
        let mut offers: Offers<String> = Offers::default();
        offers.note::<(), _>("power", Err(Reason::Lost));
        assert!(offers.is_lost());
        offers.begin(Timestamp::default());
        assert!(!offers.is_lost());
    }
}
