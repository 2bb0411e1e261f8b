//! What a batch may not say, whatever its form. Pure.

use belfry_common::{
    limits,
    model::{Batch, Timestamp},
};

/// Refuses batches from a clock that is far ahead: they would hide the present of their series for as long.
///
/// # Errors
/// The reason, for the agent's log.
pub(super) fn inspect(batch: &Batch, now: Timestamp) -> Result<(), String> {
    let future_max = i64::try_from(limits::FUTURE_MAX.as_millis()).unwrap_or(i64::MAX);
    for tick in &batch.ticks {
        let ahead = tick.time.millis_since(now);
        if ahead > future_max {
            return Err(format!(
                "a tick of `{}` is {} s in the future, more than the {} s allowed: set the node's clock",
                tick.layout.sampler.escape_debug(),
                ahead / 1000,
                future_max / 1000
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use belfry_common::model::{Layout, Tick};

    use super::*;

    fn at(millis: i64) -> Batch {
        let layout = Arc::new(Layout { group: 1, sampler: "cpu".into(), interval_ms: 1000, series: Box::default() });
        Batch { ticks: vec![Tick { layout, time: Timestamp::from_millis(millis), values: Vec::new() }] }
    }

    #[test]
    fn ten_minutes_ahead_is_a_wrong_clock_and_any_past_is_backlog() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        assert_eq!(inspect(&at(1_700_000_600_000), now), Ok(()));
        assert_eq!(inspect(&at(0), now), Ok(()));
        let error = inspect(&at(1_731_536_000_000), now).unwrap_err();
        assert_eq!(
            error,
            "a tick of `cpu` is 31536000 s in the future, more than the 600 s allowed: set the node's clock"
        );
    }
}
