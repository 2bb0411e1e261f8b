//! Runs commands against series in memory.

use std::collections::BTreeMap;

use belfry_promql::{Labels, Matcher, Needed, Plan, PlanError, ReadError, ReadRequest, Sample, Series, SeriesReader};

use super::at;
use super::check::check;
use super::number::Values;
use super::script::{Command, Eval, Kind, Load};

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
            Kind::Other => Some(Outcome::Failed("unknown command".to_owned())),
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
        outcome(check(eval, &plan, &store, at::pinned))
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
