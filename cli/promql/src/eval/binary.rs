//! Operators between vectors, and between a vector and numbers.

use super::block::Row;
use super::{ABSENT, Block, EvalError, Evaluator, is_absent};
use crate::Labels;
use crate::hash::FastMap;
use crate::plan::{BinaryOp, Cardinality, LabelChoice, Matching, SetOp};

/// A vector and one number per step.
pub(super) fn with_scalar(
    op: BinaryOp,
    bool_result: bool,
    scalar_left: bool,
    mut block: Block,
    numbers: &[f64],
) -> Block {
    let filters = op.is_comparison() && !bool_result;
    for values in block.values_mut() {
        for (value, &number) in values.iter_mut().zip(numbers) {
            if is_absent(*value) {
                continue;
            }
            let (lhs, rhs) = if scalar_left { (number, *value) } else { (*value, number) };
            if !filters {
                *value = op.apply(lhs, rhs);
            } else if !op.holds(lhs, rhs) {
                *value = ABSENT;
            }
        }
    }
    if filters {
        block.retain_present();
    } else {
        block.drop_names();
    }
    block
}

/// `and`, `or`, `unless`.
pub(super) fn sets(op: SetOp, on: &LabelChoice, mut left: Block, mut right: Block) -> Block {
    match op {
        SetOp::And => {
            let present = presence(&right, on);
            mask(&mut left, on, &present, true);
        }
        SetOp::Unless => {
            let present = presence(&right, on);
            mask(&mut left, on, &present, false);
        }
        SetOp::Or => {
            let present = presence(&left, on);
            mask(&mut right, on, &present, false);
            append(&mut left, &right);
        }
    }
    left
}

/// At which steps any series with certain labels has a value.
fn presence(block: &Block, on: &LabelChoice) -> FastMap<Labels, Vec<bool>> {
    let mut present: FastMap<Labels, Vec<bool>> = FastMap::default();
    for (row, values) in block.iter() {
        let steps = present.entry(match_group(&row.labels, on)).or_insert_with(|| vec![false; values.len()]);
        for (step, &value) in steps.iter_mut().zip(values) {
            *step |= !is_absent(value);
        }
    }
    present
}

/// Keeps the values at steps where the other side is present, or where it is not.
fn mask(block: &mut Block, on: &LabelChoice, present: &FastMap<Labels, Vec<bool>>, keep_present: bool) {
    let groups: Vec<Option<&Vec<bool>>> =
        block.rows().iter().map(|row| present.get(&match_group(&row.labels, on))).collect();
    for (values, group) in block.values_mut().zip(groups) {
        match group {
            Some(steps) => {
                for (value, &present) in values.iter_mut().zip(steps) {
                    if present != keep_present {
                        *value = ABSENT;
                    }
                }
            }
            None if keep_present => values.fill(ABSENT),
            None => {}
        }
    }
    block.retain_present();
}

/// Adds rows to others; rows that are the same series, which have no step in common, become one.
fn append(left: &mut Block, right: &Block) {
    let places: FastMap<Row, usize> = left.rows().iter().cloned().zip(0..).collect();
    for (row, values) in right.iter() {
        let Some(&at) = places.get(row) else {
            left.push(row.labels.clone(), row.drop_name, values);
            continue;
        };
        for (place, &value) in left.row_values_mut(at).iter_mut().zip(values) {
            if is_absent(*place) {
                *place = value;
            }
        }
    }
}

/// The labels by which a series finds its partners.
fn match_group(labels: &Labels, on: &LabelChoice) -> Labels {
    match on {
        LabelChoice::Only(names) => labels.only(names),
        LabelChoice::Without(names) if names.is_empty() => labels.without_metric_name(),
        LabelChoice::Without(names) => labels.without(names).without_metric_name(),
    }
}

/// Arithmetic and comparison between vectors.
pub(super) fn vectors(
    evaluator: &Evaluator<'_>,
    op: BinaryOp,
    bool_result: bool,
    matching: &Matching,
    mut left: Block,
    mut right: Block,
) -> Result<Block, EvalError> {
    let swapped = matching.cardinality == Cardinality::OneToMany;
    let mut groups = groups(&left, &right, matching, swapped);
    fill(&mut groups, matching.fill, swapped, &mut left, &mut right);
    let (many, one) = if swapped { (&right, &left) } else { (&left, &right) };
    check_one_side(&groups, many, one, swapped, matching.fill)?;
    let operator = Operator { op, bool_result, swapped };
    let _held = evaluator.hold(&right)?;
    let mut out = Block::with_capacity(many.steps(), many.rows().len());
    for group in groups.values() {
        join(evaluator, group, (many, one), matching, operator, &mut out)?;
    }
    out.retain_present();
    Ok(out)
}

/// Rows of both sides that match each other.
#[derive(Debug, Default)]
struct Group {
    labels: Labels,
    many: Vec<usize>,
    one: Vec<usize>,
}

/// What to do with two values.
#[derive(Debug, Clone, Copy)]
struct Operator {
    op: BinaryOp,
    bool_result: bool,
    /// Whether the "many" side is on the right.
    swapped: bool,
}

impl Operator {
    #[inline]
    fn apply(self, many: f64, one: f64) -> f64 {
        let (lhs, rhs) = if self.swapped { (one, many) } else { (many, one) };
        if !self.op.is_comparison() || self.bool_result {
            self.op.apply(lhs, rhs)
        } else if self.op.holds(lhs, rhs) {
            lhs
        } else {
            ABSENT
        }
    }
}

/// In the order in which the "many" side first names them, so that results are in a stable order.
fn groups(left: &Block, right: &Block, matching: &Matching, swapped: bool) -> indexed::Groups {
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let mut groups = indexed::Groups::default();
    for (at, row) in many.rows().iter().enumerate() {
        groups.of(match_group(&row.labels, &matching.on)).many.push(at);
    }
    for (at, row) in one.rows().iter().enumerate() {
        groups.of(match_group(&row.labels, &matching.on)).one.push(at);
    }
    groups
}

/// Adds stand-ins for partners that are missing, where the expression asks for them.
fn fill(
    groups: &mut indexed::Groups,
    (fill_left, fill_right): (Option<f64>, Option<f64>),
    swapped: bool,
    left: &mut Block,
    right: &mut Block,
) {
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let (fill_many, fill_one) = if swapped { (fill_right, fill_left) } else { (fill_left, fill_right) };
    if fill_many.is_none() && fill_one.is_none() {
        return;
    }
    for group in groups.values_mut() {
        let has_many = any_present(many, &group.many);
        let has_one = any_present(one, &group.one);
        let stand_in = |fill: f64, missing: &[bool], partner: &[bool]| -> Vec<f64> {
            let steps = missing.iter().zip(partner);
            steps.map(|(&has_own, &has_partner)| if !has_own && has_partner { fill } else { ABSENT }).collect()
        };
        if let Some(fill) = fill_many {
            group.many.push(many.rows().len());
            many.push(group.labels.clone(), false, &stand_in(fill, &has_many, &has_one));
        }
        if let Some(fill) = fill_one {
            group.one.push(one.rows().len());
            one.push(group.labels.clone(), false, &stand_in(fill, &has_one, &has_many));
        }
    }
}

fn any_present(block: &Block, rows: &[usize]) -> Vec<bool> {
    let mut present = vec![false; block.steps()];
    for &row in rows {
        for (present, &value) in present.iter_mut().zip(block.row_values(row)) {
            *present |= !is_absent(value);
        }
    }
    present
}

/// Refuses two series of the "one" side in one group at one step, unless the other side is empty at that step.
fn check_one_side(
    groups: &indexed::Groups,
    many: &Block,
    one: &Block,
    swapped: bool,
    fill: (Option<f64>, Option<f64>),
) -> Result<(), EvalError> {
    if groups.values().iter().all(|group| group.one.len() < 2) {
        return Ok(());
    }
    let all: Vec<usize> = (0..many.rows().len()).collect();
    let fills = fill.0.is_some() || fill.1.is_some();
    let other_present = if fills { vec![true; many.steps()] } else { any_present(many, &all) };
    for group in groups.values().iter().filter(|group| group.one.len() > 1) {
        let mut seen: Vec<Option<usize>> = vec![None; one.steps()];
        for &row in &group.one {
            for ((seen, &value), &relevant) in seen.iter_mut().zip(one.row_values(row)).zip(&other_present) {
                if is_absent(value) || !relevant {
                    continue;
                }
                if let Some(other) = seen.replace(row) {
                    return Err(many_to_many(group, one, other, row, swapped));
                }
            }
        }
    }
    Ok(())
}

fn many_to_many(group: &Group, one: &Block, first: usize, second: usize, swapped: bool) -> EvalError {
    let labels = |row: usize| one.rows().get(row).map_or_else(Labels::empty, |row| row.labels.clone());
    let (first, second) = (labels(first).min(labels(second)), labels(first).max(labels(second)));
    EvalError::ManyToMany { group: group.labels.clone(), side: if swapped { "left" } else { "right" }, first, second }
}

/// The results of one group.
fn join(
    evaluator: &Evaluator<'_>,
    group: &Group,
    sides: (&Block, &Block),
    matching: &Matching,
    operator: Operator,
    out: &mut Block,
) -> Result<(), EvalError> {
    let (many, one) = sides;
    evaluator.check_cancelled()?;
    evaluator.check_cells(out.rows().len() + 1, many.steps())?;
    if let ([many_row], [one_row]) = (&group.many[..], &group.one[..]) {
        // By far the most common case, in which nothing can clash.
        if let Some((row, values)) = pair(group, sides, (*many_row, *one_row), matching, operator) {
            out.push_if_present(&row.labels, row.drop_name, values);
        }
        return Ok(());
    }
    // Which row of the "many" side took a step: of the whole group if one to one, else of each set of labels.
    let mut taken: FastMap<Option<Labels>, Vec<Option<usize>>> = FastMap::default();
    let mut places: FastMap<Row, usize> = FastMap::default();
    let one_to_one = matching.cardinality == Cardinality::OneToOne;
    for &many_row in &group.many {
        evaluator.scan(group.one.len().saturating_mul(many.steps()))?;
        evaluator.check_cells(out.rows().len() + group.one.len(), many.steps())?;
        for &one_row in &group.one {
            let Some((row, values)) = pair(group, sides, (many_row, one_row), matching, operator) else { continue };
            let key = (!one_to_one).then(|| row.labels.clone());
            let steps = taken.entry(key).or_insert_with(|| vec![None; many.steps()]);
            take(steps, many_row, many.row_values(many_row), one.row_values(one_row))
                .map_err(|Taken| if one_to_one { EvalError::ManyToOne } else { EvalError::GroupingNotUnique })?;
            let place = *places.entry(row).or_insert_with_key(|row| {
                out.push(row.labels.clone(), row.drop_name, &vec![ABSENT; many.steps()]);
                out.rows().len() - 1
            });
            for (place, value) in out.row_values_mut(place).iter_mut().zip(values) {
                if !is_absent(value) {
                    *place = value;
                }
            }
        }
    }
    Ok(())
}

/// The result of two rows that match.
fn pair<'b>(
    group: &Group,
    (many, one): (&'b Block, &'b Block),
    (many_row, one_row): (usize, usize),
    matching: &Matching,
    operator: Operator,
) -> Option<(Row, impl Iterator<Item = f64> + 'b)> {
    let (row, partner) = (many.rows().get(many_row)?, one.rows().get(one_row)?);
    let labels = result_labels(group, &row.labels, &partner.labels, matching, operator.op);
    let values =
        many.row_values(many_row).iter().zip(one.row_values(one_row)).map(move |(&many, &one)| {
            if is_absent(many) || is_absent(one) { ABSENT } else { operator.apply(many, one) }
        });
    Some((Row { labels, drop_name: row.drop_name || operator.bool_result }, values))
}

/// Two rows claim one step.
struct Taken;

fn take(steps: &mut [Option<usize>], row: usize, many: &[f64], one: &[f64]) -> Result<(), Taken> {
    for ((step, &many), &one) in steps.iter_mut().zip(many).zip(one) {
        if !is_absent(many) && !is_absent(one) && step.replace(row).is_some_and(|other| other != row) {
            return Err(Taken);
        }
    }
    Ok(())
}

fn result_labels(group: &Group, many: &Labels, one: &Labels, matching: &Matching, op: BinaryOp) -> Labels {
    let one_to_one = matching.cardinality == Cardinality::OneToOne;
    let mut labels = match &matching.on {
        LabelChoice::Without(names) if one_to_one && op.is_comparison() => many.without(names),
        _ if one_to_one => group.labels.clone(),
        _ => many.clone(),
    };
    if !op.is_comparison() {
        labels = labels.without_metric_name();
    }
    for name in matching.include.iter() {
        labels = labels.with(name, one.value(name));
    }
    labels
}

/// Groups in order of their first mention.
mod indexed {

    use super::Group;
    use crate::Labels;
    use crate::hash::FastMap;

    #[derive(Debug, Default)]
    pub(super) struct Groups {
        groups: Vec<Group>,
        places: FastMap<Labels, usize>,
    }

    impl Groups {
        pub(super) fn of(&mut self, labels: Labels) -> &mut Group {
            let next = self.groups.len();
            let place = *self.places.entry(labels).or_insert_with_key(|labels| {
                self.groups.push(Group { labels: labels.clone(), ..Group::default() });
                next
            });
            self.groups.get_mut(place).expect("a place is given out together with its group")
        }

        pub(super) fn values(&self) -> &[Group] {
            &self.groups
        }

        pub(super) fn values_mut(&mut self) -> &mut [Group] {
            &mut self.groups
        }
    }
}
