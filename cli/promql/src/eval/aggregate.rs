//! Aggregation: rows fall into groups by their labels, and each group is reduced or thinned out step by step.

use super::rank;
use super::reduce::{Avg, Count, Max, Min, One, Reduce, Sum, Variance};
use super::{ABSENT, Block, EvalError, Evaluator, Grid, is_absent};
use crate::functions::{Aggregation, quantile, quantile_message, sort_nan_first};
use crate::hash::FastMap;
use crate::plan::{Aggregate, Expr, LabelChoice};
use crate::value::number;
use crate::{Labels, Level};

impl Evaluator<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate, grid: Grid) -> Result<Block, EvalError> {
        let parameter = match &aggregate.parameter {
            Some(Expr::Scalar(scalar)) => self.scalar(scalar, grid)?,
            _ => Vec::new(),
        };
        let block = self.vector(&aggregate.inner, grid)?;
        let _held = self.hold(&block)?;
        if let (Aggregation::CountValues, Some(Expr::Text(label))) = (aggregate.op, &aggregate.parameter) {
            return self.count_values(&block, &label.text, &aggregate.group);
        }
        let groups = Groups::of(&block, &aggregate.group);
        self.check_cells(groups.list.len(), grid.steps)?;
        Ok(match aggregate.op {
            Aggregation::Sum => self.reduced::<Sum>(&block, &groups)?,
            Aggregation::Avg => self.reduced::<Avg>(&block, &groups)?,
            Aggregation::Count => self.reduced::<Count>(&block, &groups)?,
            Aggregation::Group => self.reduced::<One>(&block, &groups)?,
            Aggregation::Min => self.reduced::<Min>(&block, &groups)?,
            Aggregation::Max => self.reduced::<Max>(&block, &groups)?,
            Aggregation::Stdvar => self.reduced::<Variance>(&block, &groups)?,
            Aggregation::Stddev => {
                let mut block = self.reduced::<Variance>(&block, &groups)?;
                block.map(f64::sqrt);
                block
            }
            Aggregation::Quantile => {
                self.warn(aggregate, parameter.iter().filter_map(|&phi| quantile_message(phi)));
                self.quantiles(&block, &groups, &parameter)?
            }
            Aggregation::Topk | Aggregation::Bottomk => rank::best(self, aggregate.op, block, &groups, &parameter)?,
            Aggregation::Limitk => rank::first(self, block, &groups, &parameter)?,
            Aggregation::LimitRatio => {
                self.warn(aggregate, parameter.iter().filter_map(|&ratio| ratio_message(ratio)));
                rank::share(block, &parameter)?
            }
            Aggregation::CountValues => return Err(EvalError::Internal("count_values was planned without a label")),
        })
    }

    fn warn(&mut self, aggregate: &Aggregate, messages: impl Iterator<Item = String>) {
        let Some(parameter) = &aggregate.parameter else { return };
        for message in messages {
            self.annotate(Level::Warning, parameter.span(), message);
        }
    }

    fn reduced<R: Reduce>(&self, block: &Block, groups: &Groups) -> Result<Block, EvalError> {
        let mut out = Block::with_capacity(block.steps(), groups.list.len());
        let mut states: Vec<Option<R>> = vec![None; block.steps()];
        for group in &groups.list {
            self.check_cancelled()?;
            states.fill(None);
            for &row in &group.rows {
                for (state, &value) in states.iter_mut().zip(block.row_values(row)) {
                    if is_absent(value) {
                        continue;
                    }
                    match state {
                        Some(state) => state.add(value),
                        None => *state = Some(R::first(value)),
                    }
                }
            }
            let values = states.iter().map(|state| state.map_or(ABSENT, R::result));
            out.push_if_present(&group.labels, group.drop_name, values);
        }
        Ok(out)
    }

    fn quantiles(&self, block: &Block, groups: &Groups, parameter: &[f64]) -> Result<Block, EvalError> {
        let mut out = Block::with_capacity(block.steps(), groups.list.len());
        for group in &groups.list {
            self.check_cancelled()?;
            let values = parameter.iter().enumerate().map(|(step, &phi)| {
                let mut values: Vec<f64> = present_at(block, group, step).map(|(_, value)| value).collect();
                if values.is_empty() {
                    return ABSENT;
                }
                sort_nan_first(&mut values);
                quantile(phi, &values)
            });
            out.push_if_present(&group.labels, group.drop_name, values);
        }
        Ok(out)
    }

    /// One row per group and value, which a label names; the values count how often it occurs.
    fn count_values(&self, block: &Block, label: &str, choice: &LabelChoice) -> Result<Block, EvalError> {
        if label.is_empty() {
            return Err(EvalError::LabelName(label.to_owned()));
        }
        let mut counts = Block::new(block.steps());
        let mut places: FastMap<Labels, usize> = FastMap::default();
        for (row, values) in block.iter() {
            self.check_cancelled()?;
            for (step, &value) in values.iter().enumerate().filter(|(_, value)| !is_absent(**value)) {
                let labels = row.labels.with(label, &plain_number(value));
                let labels = match choice {
                    LabelChoice::Only(names) => {
                        let kept = labels.only(names);
                        kept.with(label, labels.value(label))
                    }
                    LabelChoice::Without(_) => group_labels(&labels, choice),
                };
                if !places.contains_key(&labels) {
                    self.check_cells(places.len() + 1, block.steps())?;
                }
                let place = *places.entry(labels).or_insert_with_key(|labels| {
                    counts.push(labels.clone(), row.drop_name, &vec![ABSENT; block.steps()]);
                    counts.rows().len() - 1
                });
                if let Some(count) = counts.row_values_mut(place).get_mut(step) {
                    *count = if is_absent(*count) { 1.0 } else { *count + 1.0 };
                }
            }
        }
        Ok(counts)
    }
}

/// A number without an exponent, however long.
fn plain_number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { number(value) }
}

fn ratio_message(ratio: f64) -> Option<String> {
    let capped = if ratio > 1.0 {
        1
    } else if ratio < -1.0 {
        -1
    } else {
        return None;
    };
    Some(format!("ratio value should be between -1 and 1, got {}, capping to {capped}", number(ratio)))
}

/// Rows that are aggregated together, in order of first mention.
pub(super) struct Groups {
    pub(super) list: Vec<Group>,
}

pub(super) struct Group {
    labels: Labels,
    drop_name: bool,
    rows: Vec<usize>,
}

impl Groups {
    fn of(block: &Block, choice: &LabelChoice) -> Self {
        let mut list: Vec<Group> = Vec::new();
        let mut places: FastMap<Labels, usize> = FastMap::default();
        for (at, row) in block.rows().iter().enumerate() {
            let next = list.len();
            let place = *places.entry(group_labels(&row.labels, choice)).or_insert(next);
            if place == next {
                let labels = group_labels(&row.labels, choice);
                list.push(Group { labels, drop_name: false, rows: Vec::new() });
            }
            if let Some(group) = list.get_mut(place) {
                group.rows.push(at);
                group.drop_name |= row.drop_name;
            }
        }
        Self { list }
    }
}

fn group_labels(labels: &Labels, choice: &LabelChoice) -> Labels {
    match choice {
        LabelChoice::Only(names) => labels.only(names),
        LabelChoice::Without(names) => labels.without(names).without_metric_name(),
    }
}

/// The rows of a group that have a value at a step.
pub(super) fn present_at<'a>(
    block: &'a Block,
    group: &'a Group,
    step: usize,
) -> impl Iterator<Item = (usize, f64)> + 'a {
    group.rows.iter().filter_map(move |&row| {
        let value = *block.row_values(row).get(step)?;
        (!is_absent(value)).then_some((row, value))
    })
}
