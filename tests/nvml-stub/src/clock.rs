//! The only place of this library that reads clocks.

use std::{
    fs,
    sync::LazyLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// When this library was loaded, and how long the machine was up by then.
static START: LazyLock<(Instant, Duration)> = LazyLock::new(|| (monotonic(), uptime()));

/// One moment, on each of the scales that a reading may grow with.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moment {
    /// Seconds since the scenario in force was loaded.
    pub(crate) since_load: f64,
    /// Seconds since this process loaded the library: what goes on over a reload.
    pub(crate) since_start: f64,
    /// Seconds since the machine booted: what goes on over a restart of the process too, as a driver's counters do.
    pub(crate) since_boot: f64,
    pub(crate) unix_us: u64,
}

impl Moment {
    /// Now, under a scenario that was loaded at `loaded`.
    pub(crate) fn now(loaded: Instant) -> Self {
        let (start, uptime) = *START;
        let since_start = start.elapsed();
        Self {
            since_load: loaded.elapsed().as_secs_f64(),
            since_start: since_start.as_secs_f64(),
            since_boot: (uptime + since_start).as_secs_f64(),
            unix_us: unix_us(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the library stands outside the agent, and this is its only clock")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the library stands outside the agent, and this is its only clock")]
fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Where `/proc` does not say, counters begin with the process.
fn uptime() -> Duration {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default();
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
