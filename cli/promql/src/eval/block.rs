//! Values of many series at many steps: one row per series, one column per step.

use super::EvalError;
use crate::hash::{FastMap, FastSet, FastState};
use crate::{Labels, STALE_NAN, is_stale};

/// Stands where a series has no value at a step. The stale marker is free for this: it is no result of arithmetic,
/// and selectors take it out.
pub(crate) const ABSENT: f64 = STALE_NAN;

/// Whether a value stands for none.
#[inline]
pub(crate) fn is_absent(value: f64) -> bool {
    is_stale(value)
}

/// What identifies a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) labels: Labels,
    /// Whether the metric's name is to be removed at the end. It stays until then, so that functions on labels
    /// can still read it.
    pub(crate) drop_name: bool,
}

/// Rows and their values, all in one allocation.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    steps: usize,
    rows: Vec<Row>,
    values: Vec<f64>,
    /// Whether no two rows can become one series: known of what was selected and only filtered since.
    distinct: bool,
}

impl Block {
    pub(crate) fn new(steps: usize) -> Self {
        Self::with_capacity(steps, 0)
    }

    pub(crate) fn with_capacity(steps: usize, rows: usize) -> Self {
        Self {
            steps,
            rows: Vec::with_capacity(rows),
            values: Vec::with_capacity(rows.saturating_mul(steps)),
            distinct: false,
        }
    }

    /// Notes that no two rows have the same labels; forgotten when rows are added or changed.
    pub(crate) fn mark_distinct(&mut self) {
        self.distinct = true;
    }

    pub(crate) fn is_distinct(&self) -> bool {
        self.distinct
    }

    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    /// How many values there is room for: one per row and step.
    pub(crate) fn cells(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn rows_mut(&mut self) -> &mut [Row] {
        self.distinct = false;
        &mut self.rows
    }

    pub(crate) fn values(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.values.chunks_exact(self.steps)
    }

    pub(crate) fn values_mut(&mut self) -> impl ExactSizeIterator<Item = &mut [f64]> {
        self.values.chunks_exact_mut(self.steps)
    }

    /// Rows with their values.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&Row, &[f64])> {
        self.rows.iter().zip(self.values())
    }

    /// The values of one row; none where there is no such row.
    pub(crate) fn row_values(&self, row: usize) -> &[f64] {
        let start = row.saturating_mul(self.steps);
        self.values.get(start..start.saturating_add(self.steps)).unwrap_or_default()
    }

    pub(crate) fn row_values_mut(&mut self, row: usize) -> &mut [f64] {
        let start = row.saturating_mul(self.steps);
        self.values.get_mut(start..start.saturating_add(self.steps)).unwrap_or_default()
    }

    /// Adds a row; `values` holds one value per step.
    pub(crate) fn push(&mut self, labels: Labels, drop_name: bool, values: &[f64]) {
        debug_assert_eq!(values.len(), self.steps);
        self.distinct = false;
        self.rows.push(Row { labels, drop_name });
        self.values.extend_from_slice(values);
    }

    /// Adds a row whose values an iterator gives, if there is any value among them.
    pub(crate) fn push_if_present(&mut self, labels: &Labels, drop_name: bool, values: impl Iterator<Item = f64>) {
        self.distinct = false;
        let start = self.values.len();
        self.values.extend(values.take(self.steps));
        self.values.resize(start + self.steps, ABSENT);
        let present = self.values.iter().skip(start).any(|&value| !is_absent(value));
        if present {
            self.rows.push(Row { labels: labels.clone(), drop_name });
        } else {
            self.values.truncate(start);
        }
    }

    /// Marks all names to be removed.
    pub(crate) fn drop_names(&mut self) {
        self.distinct = false;
        for row in &mut self.rows {
            row.drop_name = true;
        }
    }

    /// Divides by the values of the rows with the same labels; where there is none, nothing is left.
    pub(crate) fn divide(&mut self, divisors: &Self) {
        let rows: FastMap<&Labels, &[f64]> = divisors.iter().map(|(row, values)| (&row.labels, values)).collect();
        for (row, values) in self.rows.iter().zip(self.values.chunks_exact_mut(self.steps)) {
            let divisors = rows.get(&row.labels).copied().unwrap_or_default();
            for (step, value) in values.iter_mut().enumerate().filter(|(_, value)| !is_absent(**value)) {
                let divisor = divisors.get(step).copied().filter(|divisor| !is_absent(*divisor));
                *value = divisor.map_or(ABSENT, |divisor| *value / divisor);
            }
        }
        self.retain_present();
    }

    /// Replaces every value that is there.
    pub(crate) fn map(&mut self, body: impl Fn(f64) -> f64) {
        for value in &mut self.values {
            if !is_absent(*value) {
                *value = body(*value);
            }
        }
    }

    /// Removes rows without any value.
    pub(crate) fn retain_present(&mut self) {
        let present: Vec<bool> = self.values().map(|values| values.iter().any(|&value| !is_absent(value))).collect();
        if present.iter().all(|&present| present) {
            return;
        }
        let old = std::mem::replace(self, Self::new(self.steps));
        for (row, &keep) in (0..).zip(&present) {
            if keep && let Some(Row { labels, drop_name }) = old.rows.get(row) {
                self.push(labels.clone(), *drop_name, old.row_values(row));
            }
        }
        self.distinct = old.distinct;
    }

    /// Makes rows that are the same series one.
    ///
    /// # Errors
    /// Two rows with the same labels have a value at the same step.
    pub(crate) fn merged(self) -> Result<Self, EvalError> {
        let distinct: FastSet<&Labels> = self.rows.iter().map(|row| &row.labels).collect();
        if distinct.len() == self.rows.len() {
            return Ok(self);
        }
        let mut taken: FastMap<&Labels, Vec<bool>> =
            FastMap::with_capacity_and_hasher(self.rows.len(), FastState::default());
        let mut places: FastMap<&Row, usize> = FastMap::with_capacity_and_hasher(self.rows.len(), FastState::default());
        let mut merged = Self::with_capacity(self.steps, self.rows.len());
        for (row, values) in self.iter() {
            let taken = taken.entry(&row.labels).or_insert_with(|| vec![false; values.len()]);
            for (taken, &value) in taken.iter_mut().zip(values) {
                if !is_absent(value) && std::mem::replace(taken, true) {
                    return Err(EvalError::SameLabelset);
                }
            }
            let place = *places.entry(row).or_insert_with(|| {
                merged.push(row.labels.clone(), row.drop_name, &vec![ABSENT; values.len()]);
                merged.rows.len() - 1
            });
            for (place, &value) in merged.row_values_mut(place).iter_mut().zip(values) {
                if !is_absent(value) {
                    *place = value;
                }
            }
        }
        Ok(merged)
    }

    /// Puts the rows in another order: `order` names each row once.
    pub(crate) fn reordered(&self, order: &[usize]) -> Self {
        let mut sorted = Self::with_capacity(self.steps, self.rows.len());
        for &at in order {
            if let Some(row) = self.rows.get(at) {
                sorted.push(row.labels.clone(), row.drop_name, self.row_values(at));
            }
        }
        sorted.distinct = self.distinct;
        sorted
    }

    /// The values of one step repeated for many.
    pub(crate) fn repeated(&self, steps: usize) -> Self {
        let values = self.values.iter().flat_map(|&value| std::iter::repeat_n(value, steps)).collect();
        Self { steps, rows: self.rows.clone(), values, distinct: self.distinct }
    }
}
