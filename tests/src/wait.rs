//! Polls for conditions under a deadline.

use std::time::{Duration, Instant};

use belfry_common::clock;

/// Long enough for anything that is to happen at once, on a machine that does ten other things.
pub const SOON: Duration = Duration::from_secs(20);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What `probe` finds; panics if it finds nothing in time.
pub async fn eventually<T>(what: &str, within: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let began = clock::monotonic();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(began.elapsed() < within, "{what}: not within {within:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// How long `work` takes, and what it gives.
pub async fn timed<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let began: Instant = clock::monotonic();
    let result = work.await;
    (began.elapsed(), result)
}
