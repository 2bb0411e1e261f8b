//! `info`: labels that an info metric tells of the same target.
//!
//! An info metric (by default `target_info`) has the value 1 and says what it knows in its labels. Series and info
//! metric belong together if they agree in [`IDENTIFYING`].

use std::collections::BTreeMap;

use crate::eval::{ABSENT, Block, EvalError, is_absent};
use crate::functions::{Arguments, as_vector};
use crate::hash::FastMap;
use crate::labels::METRIC_NAME;
use crate::plan::VectorKind;
use crate::{Labels, Matcher};

/// The labels that name a target.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// Adds labels of info metrics; the second argument, which the planner supplies if the expression does not, selects
/// the info metrics and names the labels that are wanted.
pub(super) fn info(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    let wanted = Wanted::of(arguments)?;
    let base = arguments.vector(0)?;
    let times = arguments.sample_times(1)?.ok_or(EvalError::Internal("info was planned without a selector"))?;
    let mut by_target: FastMap<Labels, Vec<usize>> = FastMap::default();
    for (at, row) in times.rows().iter().enumerate() {
        by_target.entry(row.labels.only(&IDENTIFYING)).or_default().push(at);
    }
    let mut out = Block::with_capacity(base.steps(), base.rows().len());
    for (row, values) in base.iter() {
        arguments.check_rows(out.rows().len() + 1)?;
        if wanted.is_info(&row.labels) {
            out.push(row.labels.clone(), row.drop_name, values);
            continue;
        }
        let rows = by_target.get(&row.labels.only(&IDENTIFYING)).map(Vec::as_slice).unwrap_or_default();
        arguments.scan(rows.len().saturating_mul(values.len()))?;
        // Info metrics come and go, so that the labels of a series may be others at other steps.
        let mut enriched: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
        for (step, &value) in values.iter().enumerate().filter(|(_, value)| !is_absent(**value)) {
            let newest = newest(&times, rows, step)?;
            let Some(labels) = wanted.enriched(&row.labels, &newest)? else { continue };
            let column = enriched.entry(labels).or_insert_with(|| vec![ABSENT; values.len()]);
            if let Some(place) = column.get_mut(step) {
                *place = value;
            }
        }
        for (labels, values) in enriched {
            out.push(labels, row.drop_name, &values);
        }
    }
    Ok(out)
}

/// Of each info metric the series with the newest sample at a step.
fn newest<'b>(times: &'b Block, rows: &[usize], step: usize) -> Result<Vec<&'b Labels>, EvalError> {
    let mut newest: BTreeMap<&str, (f64, &Labels)> = BTreeMap::new();
    for &row in rows {
        let Some(labels) = times.rows().get(row).map(|row| &row.labels) else { continue };
        let Some(&time) = times.row_values(row).get(step).filter(|time| !is_absent(**time)) else { continue };
        let place = newest.entry(labels.metric_name().unwrap_or_default()).or_insert((time, labels));
        if time > place.0 {
            *place = (time, labels);
        } else if time >= place.0 && place.1 != labels {
            return Err(EvalError::InfoDuplicate { first: place.1.clone(), second: labels.clone() });
        }
    }
    Ok(newest.into_values().map(|(_, labels)| labels).collect())
}

/// What the second argument asks for.
struct Wanted<'e> {
    /// Conditions on the names of info metrics.
    names: Vec<&'e Matcher>,
    /// Conditions on the labels to add; if there are any, no others are added.
    labels: Vec<&'e Matcher>,
}

impl<'e> Wanted<'e> {
    fn of(arguments: &Arguments<'e, '_>) -> Result<Self, EvalError> {
        let Some(VectorKind::Select(select)) = as_vector(arguments.expr(1)?).map(|vector| &vector.kind) else {
            return Err(EvalError::Internal("info was planned without a selector"));
        };
        let (names, labels) = select.matchers.iter().partition(|matcher| matcher.name() == METRIC_NAME);
        Ok(Self { names, labels })
    }

    fn is_info(&self, labels: &Labels) -> bool {
        self.names.iter().all(|matcher| matcher.matches(labels.value(METRIC_NAME)))
    }

    /// The labels of a series with those that info metrics add; nothing if it lacks one that is demanded.
    fn enriched(&self, base: &Labels, infos: &[&Labels]) -> Result<Option<Labels>, EvalError> {
        let mut added: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, value) in infos.iter().flat_map(|labels| labels.iter()) {
            let wanted = self.labels.is_empty() || self.labels.iter().any(|matcher| matcher.name() == name);
            if name == METRIC_NAME || !wanted || base.get(name).is_some() {
                continue;
            }
            if added.insert(name, value).is_some_and(|other| other != value) {
                return Err(EvalError::InfoConflict { label: name.to_owned() });
            }
        }
        if added.is_empty() && self.labels.iter().any(|matcher| !matcher.matches("")) {
            return Ok(None);
        }
        Ok(Some(added.into_iter().fold(base.clone(), |labels, (name, value)| labels.with(name, value))))
    }
}
