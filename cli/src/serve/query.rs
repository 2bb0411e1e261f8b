//! Expressions, evaluated over what the store has.

use std::time::Duration;

use belfry_common::{clock, error_chain::ErrorChain};
use belfry_promql::{EvalError, Labels, Level, Output, PlanOptions, Sample, Series, Value};

use super::{Reply, ServeError};
use crate::{
    alerts::Number,
    api::{QueryAnswer, QuerySeries, ResultType},
    listen::Member,
    queries::{Query, QueryError, When},
};

/// What is asked.
pub(super) struct Wanted {
    pub(super) expression: String,
    pub(super) start_ms: Option<i64>,
    pub(super) end_ms: Option<i64>,
    pub(super) step_ms: Option<i64>,
    pub(super) timeout_ms: u64,
}

impl From<QueryError> for ServeError {
    fn from(error: QueryError) -> Self {
        let text = ErrorChain(&error).to_string();
        match error {
            QueryError::Plan(_) => Self::Invalid(text),
            // The same again ends the same way.
            QueryError::Evaluate(_) | QueryError::Timeout(_) => Self::Invalid(text),
            QueryError::Read(_) | QueryError::TooMany | QueryError::Ended => Self::Failed(text),
        }
    }
}

/// Evaluates and answers; gives up when nobody waits any more.
pub(super) async fn run(member: &Member, wanted: Wanted, reply: &mut Reply) -> Result<(), ServeError> {
    let end_ms = wanted.end_ms.unwrap_or_else(|| clock::now().as_millis());
    let when = match (wanted.start_ms, wanted.step_ms) {
        (Some(start_ms), Some(step_ms)) => When::Range { start_ms, end_ms, step_ms },
        (Some(_), None) => return Err(ServeError::Invalid("a range needs a step".into())),
        (None, _) => When::Instant(end_ms),
    };
    let timeout = Duration::from_millis(wanted.timeout_ms);
    let query = Query { expression: wanted.expression, options: PlanOptions::default(), when, timeout };
    let answered = tokio::select! {
        answered = member.services.queries.run(query) => answered,
        () = reply.closed() => return Ok(()),
    };
    let output = answered.map_err(|error| match error {
        QueryError::Evaluate(EvalError::NotForRange { found }) => ServeError::Invalid(format!(
            "a {found} has no value at each step of a range: leave out the range, or take it at an instant"
        )),
        error => error.into(),
    })?;
    reply.document(&answer(output, end_ms)).await
}

fn answer(output: Output, time_ms: i64) -> QueryAnswer {
    let said =
        |level: Level| output.annotations.iter().filter(move |said| said.level == level).map(ToString::to_string);
    let (warnings, infos) = (said(Level::Warning).collect(), said(Level::Info).collect());
    let of = |labels: &Labels, samples: &[Sample]| QuerySeries {
        labels: labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        samples: samples.iter().map(|sample| (sample.time_ms, Number(sample.value))).collect(),
    };
    let (r#type, series, text) = match output.value {
        Value::Scalar(sample) => (ResultType::Scalar, vec![of(&Labels::empty(), &[sample])], None),
        Value::String(text) => (ResultType::String, Vec::new(), Some(text)),
        Value::Vector(rows) => {
            (ResultType::Vector, rows.iter().map(|(labels, sample)| of(labels, &[*sample])).collect(), None)
        }
        Value::Matrix(all) => {
            let series = all.iter().map(|Series { labels, samples }| of(labels, samples));
            (ResultType::Matrix, series.collect(), None)
        }
    };
    QueryAnswer { r#type, time_ms, series, text, warnings, infos }
}
