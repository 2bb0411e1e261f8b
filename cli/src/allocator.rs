//! Gives memory back that nobody uses.
//!
//! mimalloc has a heap for each thread. What another thread frees goes to the heap that it came from, and is looked at when that one's
//! thread next needs memory of that size: after many nodes have gone, that can be never. So each thread looks itself, now and then.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use belfry_common::clock;

/// How often a thread looks: it costs some milliseconds where there is much.
const INTERVAL: Duration = Duration::from_secs(60);

thread_local! {
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// To be called by a thread whenever it has time: gives back what it has not needed for a while, if that is due.
pub(crate) fn give_back() {
    let now = clock::monotonic();
    LAST.with(|last| match last.get() {
        Some(before) if now.duration_since(before) < INTERVAL => {}
        before => {
            last.set(Some(now));
            // Nothing has gathered in a thread that has just begun.
            if before.is_some() {
                collect();
            }
        }
    });
}

#[expect(unsafe_code, reason = "the allocator's crate has no safe call for it")]
fn collect() {
    // SAFETY: the declaration is that of <mimalloc.h>, which is linked as the global allocator.
    unsafe extern "C" {
        safe fn mi_collect(force: bool);
    }
    mi_collect(true);
}
