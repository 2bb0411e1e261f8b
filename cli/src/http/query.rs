//! `query` and `query_range`.

use axum::{extract::State, response::Response};
use belfry_common::clock;
use belfry_promql::PlanOptions;

use super::{
    App,
    envelope::{ApiError, ErrorType},
    parameters::{Parameters, end_before_start, invalid},
    results,
};
use crate::queries::{Query, TIMEOUT_MAX, When};

/// Points of one series that one answer has: more than any screen shows.
const POINTS_MAX: i64 = 11_000;

pub(super) async fn instant(State(app): State<App>, parameters: Parameters) -> Result<Response, ApiError> {
    let time_ms = parameters.time_ms("time")?.unwrap_or_else(|| clock::now().as_millis());
    answer(&app, &parameters, When::Instant(time_ms)).await
}

pub(super) async fn range(State(app): State<App>, parameters: Parameters) -> Result<Response, ApiError> {
    let start_ms = parameters.needed_time_ms("start")?;
    let end_ms = parameters.needed_time_ms("end")?;
    if end_ms < start_ms {
        return Err(end_before_start());
    }
    let step_ms = parameters.duration_ms("step")?;
    let step_ms = step_ms.ok_or_else(|| invalid("step", "cannot parse \"\" to a valid duration"))?;
    if step_ms <= 0 {
        let what = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(invalid("step", what));
    }
    if (end_ms - start_ms) / step_ms > POINTS_MAX {
        let what = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";
        return Err(ApiError::new(ErrorType::BadData, what));
    }
    answer(&app, &parameters, When::Range { start_ms, end_ms, step_ms }).await
}

async fn answer(app: &App, parameters: &Parameters, when: When) -> Result<Response, ApiError> {
    let limit = parameters.limit("limit")?;
    let timeout = parameters.timeout()?.unwrap_or(TIMEOUT_MAX);
    let mut options = PlanOptions::default();
    if let Some(lookback_ms) = parameters.duration_ms("lookback_delta")?.filter(|lookback_ms| *lookback_ms > 0) {
        options.lookback_ms = lookback_ms;
    }
    let expression = parameters.first("query").unwrap_or_default().to_owned();
    let (When::Instant(time_ms) | When::Range { end_ms: time_ms, .. }) = when;
    let queries = &app.services.queries;
    let output = queries.run(Query { expression, options, when, timeout }).await?;
    let room = queries.room(results::bytes(&output))?;
    Ok(results::response(output, time_ms, limit, room))
}
