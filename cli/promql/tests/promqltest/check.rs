//! Whether an evaluation over a store is what a script expects.

use belfry_promql::{Labels, Limits, Output, Plan, Sample, SeriesReader, Value, evaluate_instant, evaluate_range};

use super::compare;
use super::script::{Eval, When};

/// Calls whose value is another in a range query.
const READS_RANGE: [&str; 4] = ["start()", "end()", "step()", "range()"];

/// The expression with every selector pinned to a time by `@`, if that can be done without another meaning.
pub(crate) type Pinned = fn(&str, i64) -> Option<String>;

/// Checks an evaluation, of an instant also in other ways that must give the same.
pub(crate) fn check(eval: &Eval, plan: &Plan, store: &dyn SeriesReader, pinned: Pinned) -> Result<(), String> {
    evaluate(eval, plan, store).and_then(|()| again(eval, store, pinned))
}

fn evaluate(eval: &Eval, plan: &Plan, store: &dyn SeriesReader) -> Result<(), String> {
    let limits = Limits::default();
    let result = match eval.when {
        When::Instant(time_ms) => evaluate_instant(plan, store, time_ms, &limits),
        When::Range { start_ms, end_ms, step_ms } => evaluate_range(plan, store, start_ms, end_ms, step_ms, &limits),
    };
    let output = match result {
        Err(error) if eval.expect_fail => return compare::failure(eval, &error.to_string()),
        Err(error) => return Err(format!("failed: {error}")),
        Ok(_) if eval.expect_fail => return Err("should have failed".to_owned()),
        Ok(output) => output,
    };
    compare::annotations(eval, &output)?;
    match (eval.when, &output.value) {
        (When::Instant(_), value) => compare::instant(eval, value),
        (When::Range { start_ms, step_ms, .. }, Value::Matrix(series)) => {
            compare::range(eval, series, start_ms, step_ms)
        }
        (When::Range { .. }, _) => Err("the result of a range query is no matrix".to_owned()),
    }
}

/// Checks an instant query in other ways that must give the same: as one step of a range, and pinned by `@`.
fn again(eval: &Eval, store: &dyn SeriesReader, pinned: Pinned) -> Result<(), String> {
    let When::Instant(time_ms) = eval.when else { return Ok(()) };
    if eval.expect_fail || eval.ordered || eval.string.is_some() || eval.matrix.is_some() {
        return Ok(());
    }
    let plan = Plan::parse(&eval.expression).map_err(|error| error.to_string())?;
    let limits = Limits::default();
    if READS_RANGE.iter().any(|call| eval.expression.contains(call)) {
        return Ok(());
    }
    let output = evaluate_range(&plan, store, time_ms - 60_000, time_ms + 60_000, 60_000, &limits)
        .map_err(|error| format!("as a range: {error}"))?;
    middle(eval, &output, time_ms).map_err(|error| format!("as a range: {error}"))?;
    let Some(pinned) = pinned(&eval.expression, time_ms) else { return Ok(()) };
    let plan = Plan::parse(&pinned).map_err(|error| format!("{pinned}: {error}"))?;
    let others =
        if time_ms == 0 { vec![-1_000, 1_000] } else { vec![-10 * time_ms, 0, time_ms / 5, time_ms, 10 * time_ms] };
    for other in others {
        let output = evaluate_instant(&plan, store, other, &limits).map_err(|error| format!("{pinned}: {error}"))?;
        compare::instant(eval, &output.value).map_err(|error| format!("{pinned} at {other}: {error}"))?;
    }
    Ok(())
}

fn middle(eval: &Eval, output: &Output, time_ms: i64) -> Result<(), String> {
    let Value::Matrix(series) = &output.value else { return Err("no matrix".to_owned()) };
    let at_time: Vec<(Labels, Sample)> = series
        .iter()
        .filter_map(|series| {
            let sample = series.samples.iter().find(|sample| sample.time_ms == time_ms)?;
            Some((series.labels.clone(), *sample))
        })
        .collect();
    match (eval.scalar, &at_time[..]) {
        (Some(_), [(_, sample)]) => compare::instant(eval, &Value::Scalar(*sample)),
        _ => compare::instant(eval, &Value::Vector(at_time)),
    }
}
