//! Runs commands against series in memory.

use std::collections::BTreeMap;

use belfry_promql::{
    Labels, Limits, Matcher, Needed, Output, Plan, PlanError, ReadError, ReadRequest, Sample, Series, SeriesReader,
    Value, evaluate_instant, evaluate_range,
};

use crate::number::Values;
use crate::script::{Command, Eval, Kind, Load, When};
use crate::{at, compare};

/// Calls whose value is another in a range query.
const READS_RANGE: [&str; 4] = ["start()", "end()", "step()", "range()"];

pub(crate) enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

/// What has been loaded so far.
#[derive(Default)]
pub(crate) struct Runner {
    floats: BTreeMap<Labels, BTreeMap<i64, f64>>,
    /// Series that hold native histograms; they are not loaded.
    natives: Vec<Labels>,
}

impl Runner {
    /// Runs a command; evaluations have an outcome.
    pub(crate) fn run(&mut self, command: &Command) -> Option<Outcome> {
        match &command.kind {
            Kind::Clear => {
                *self = Self::default();
                None
            }
            Kind::Load(load) => {
                self.load(load);
                None
            }
            Kind::Eval(eval) => Some(self.eval(eval)),
        }
    }

    fn load(&mut self, load: &Load) {
        for (labels, values) in &load.series {
            let Values::Points(points) = values else {
                self.natives.push(labels.clone());
                continue;
            };
            if load.with_native
                && let Some(name) = labels.metric_name().and_then(|name| name.strip_suffix("_bucket"))
            {
                self.natives.push(labels.with("__name__", name).with("le", ""));
            }
            let samples = self.floats.entry(labels.clone()).or_default();
            let points = (0..).zip(points).filter_map(|(step, point): (i64, _)| Some((step * load.step_ms, (*point)?)));
            samples.extend(points);
        }
        let natives = &self.natives;
        self.floats.retain(|labels, _| !natives.contains(labels));
    }

    fn store(&self) -> Vec<Series> {
        let series = self.floats.iter().map(|(labels, samples)| Series {
            labels: labels.clone(),
            samples: samples.iter().map(|(&time_ms, &value)| Sample { time_ms, value }).collect(),
        });
        series.collect()
    }

    fn eval(&self, eval: &Eval) -> Outcome {
        if eval.series.iter().any(|(_, values)| matches!(values, Values::NativeHistograms)) {
            return Outcome::Skipped("native histogram".to_owned());
        }
        let plan = match Plan::parse(&eval.expression) {
            Ok(plan) => plan,
            Err(PlanError::Unsupported { what, .. }) => return Outcome::Skipped(format!("{what} unsupported")),
            // Refused before evaluation, in words of our own, which name the position.
            Err(_) if eval.expect_fail => return Outcome::Passed,
            Err(error) => return Outcome::Failed(format!("refused: {error}")),
        };
        if plan.selectors().iter().any(|selector| self.natives.iter().any(|labels| selects(&selector.matchers, labels)))
        {
            return Outcome::Skipped("native histogram".to_owned());
        }
        let store = Sparing(self.store());
        outcome(evaluate(eval, &plan, &store).and_then(|()| again(eval, &store)))
    }
}

fn outcome(result: Result<(), String>) -> Outcome {
    result.map_or_else(Outcome::Failed, |()| Outcome::Passed)
}

fn selects(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels.value(matcher.name())))
}

/// A store that gives no more than it is asked for, so that what is asked for is known to be enough.
struct Sparing(Vec<Series>);

impl SeriesReader for Sparing {
    fn select(&self, request: &ReadRequest<'_>) -> Result<Vec<Series>, ReadError> {
        let mut found = self.0.select(request)?;
        if let Needed::EachStep { end_ms, step_ms } = request.needed {
            let step = |sample: &Sample| (end_ms - sample.time_ms).div_euclid(step_ms);
            for series in &mut found {
                // The newest first, which is the one of equals that stays.
                series.samples.reverse();
                series.samples.dedup_by_key(|sample| step(sample));
                series.samples.reverse();
            }
        }
        Ok(found)
    }
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
fn again(eval: &Eval, store: &dyn SeriesReader) -> Result<(), String> {
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
    let Some(pinned) = at::pinned(&eval.expression, time_ms) else { return Ok(()) };
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
