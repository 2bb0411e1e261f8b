//! Reading: what each selector needs is worked out first, so that each stretch of each series is read once.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::rc::Rc;

use super::{EvalError, Grid};
use crate::limits::Limits;
use crate::plan::{
    Aggregate, At, Call, Expr, Plan, RangeExpr, RangeKind, ScalarExpr, ScalarKind, SelectId, VectorExpr, VectorKind,
};
use crate::{Labels, Matcher, ReadRequest, Sample, Series, SeriesReader};

/// The time a selector needs.
#[derive(Debug, Clone, Copy)]
struct Need {
    start_ms: i64,
    end_ms: i64,
    last_only: bool,
}

impl Need {
    fn request(self, matchers: &[Matcher]) -> ReadRequest<'_> {
        ReadRequest { matchers, start_ms: self.start_ms, end_ms: self.end_ms, last_only: self.last_only }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.start_ms < other.end_ms && other.start_ms < self.end_ms
    }

    /// The newest sample of a stretch is that of both only if both end at one time; the older start is harmless.
    fn joined(&self, other: &Self) -> Self {
        Self {
            start_ms: self.start_ms.min(other.start_ms),
            end_ms: self.end_ms.max(other.end_ms),
            last_only: self.last_only && other.last_only && self.end_ms == other.end_ms,
        }
    }
}

/// Where the series of each selector come from.
pub(super) struct Sources<'q> {
    reader: &'q dyn SeriesReader,
    limits: &'q Limits<'q>,
    /// By the number of the selector.
    list: Vec<Source<'q>>,
    /// How many samples and series may still be read.
    budget: Cell<(usize, usize)>,
}

#[derive(Clone)]
enum Source<'q> {
    /// Read beforehand, for several selectors.
    Shared(Rc<[Series]>),
    /// Of one selector alone: read when it is evaluated, which is once, and never held.
    Own { matchers: &'q [Matcher], need: Need },
}

impl<'q> Sources<'q> {
    /// Works out what a plan needs at the steps of a query, and reads what several parts of it share.
    pub(super) fn of(
        plan: &'q Plan,
        reader: &'q dyn SeriesReader,
        grid: Grid,
        limits: &'q Limits<'q>,
    ) -> Result<Self, EvalError> {
        let mut needs = Needs { lookback_ms: plan.options.lookback_ms, query: grid, list: Vec::new() };
        needs.expr(&plan.root, grid);
        let list = vec![Source::Shared(Rc::from([])); plan.selects];
        let budget = Cell::new((limits.samples_max, limits.series_max));
        let mut sources = Self { reader, limits, list, budget };
        for read in merged(&needs.list) {
            let source = if read.ids.len() > 1 {
                Source::Shared(sources.read(read.matchers, read.need)?)
            } else {
                Source::Own { matchers: read.matchers, need: read.need }
            };
            for SelectId(id) in read.ids {
                if let Some(place) = sources.list.get_mut(id) {
                    *place = source.clone();
                }
            }
        }
        Ok(sources)
    }

    /// Hands each series of a selector to `body`.
    pub(super) fn each(
        &self,
        SelectId(id): SelectId,
        mut body: impl FnMut(&Labels, &[Sample]) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        match self.list.get(id) {
            Some(Source::Shared(series)) => series.iter().try_for_each(|series| {
                super::check_cancelled(self.limits)?;
                body(&series.labels, &series.samples)
            }),
            Some(Source::Own { matchers, need }) => {
                let mut result = Ok(());
                let mut visitor = |labels: &Labels, samples: &[Sample]| {
                    result = self.spend(1, samples.len()).and_then(|()| body(labels, samples));
                    if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                };
                self.reader.visit(&need.request(matchers), &mut visitor).map_err(EvalError::Read)?;
                result
            }
            None => Err(EvalError::Internal("a selector has no source")),
        }
    }

    fn read(&self, matchers: &[Matcher], need: Need) -> Result<Rc<[Series]>, EvalError> {
        super::check_cancelled(self.limits)?;
        let series = self.reader.select(&need.request(matchers)).map_err(EvalError::Read)?;
        self.spend(series.len(), series.iter().map(|series| series.samples.len()).sum())?;
        Ok(series.into())
    }

    /// Counts what was read.
    fn spend(&self, series: usize, samples: usize) -> Result<(), EvalError> {
        super::check_cancelled(self.limits)?;
        let (samples_left, series_left) = self.budget.get();
        let series_left = series_left.checked_sub(series);
        let samples_left = samples_left.checked_sub(samples);
        let series_left = series_left.ok_or(EvalError::TooManySeries { limit: self.limits.series_max })?;
        let samples_left = samples_left.ok_or(EvalError::TooManySamples { limit: self.limits.samples_max })?;
        self.budget.set((samples_left, series_left));
        Ok(())
    }
}

struct Read<'p> {
    matchers: &'p [Matcher],
    need: Need,
    ids: Vec<SelectId>,
}

/// Joins the needs of equal selectors whose times overlap; reading apart what lies apart costs less.
fn merged<'p>(needs: &[(SelectId, &'p [Matcher], Need)]) -> Vec<Read<'p>> {
    let mut reads: Vec<Read<'p>> = Vec::new();
    let mut by_matchers: HashMap<Vec<(&str, &str)>, Vec<usize>> = HashMap::new();
    for &(id, matchers, need) in needs {
        let key = matchers.iter().map(|matcher| (matcher.name(), matcher.value())).collect();
        let candidates = by_matchers.entry(key).or_default();
        let partner = candidates
            .iter()
            .copied()
            .find(|&at| reads.get(at).is_some_and(|read| read.matchers == matchers && read.need.overlaps(&need)));
        if let Some(read) = partner.and_then(|at| reads.get_mut(at)) {
            read.need = read.need.joined(&need);
            read.ids.push(id);
        } else {
            candidates.push(reads.len());
            reads.push(Read { matchers, need, ids: vec![id] });
        }
    }
    reads
}

/// Walks a plan with the steps at which each part of it will be evaluated.
struct Needs<'p> {
    lookback_ms: i64,
    query: Grid,
    list: Vec<(SelectId, &'p [Matcher], Need)>,
}

impl<'p> Needs<'p> {
    fn expr(&mut self, expr: &'p Expr, grid: Grid) {
        match expr {
            Expr::Scalar(scalar) => self.scalar(scalar, grid),
            Expr::Vector(vector) => self.vector(vector, grid),
            Expr::Range(range) => self.range(range, grid),
            Expr::Text(_) => {}
        }
    }

    fn scalar(&mut self, scalar: &'p ScalarExpr, grid: Grid) {
        let mut scalar = scalar;
        loop {
            scalar = match &scalar.kind {
                ScalarKind::Number(_) => return,
                ScalarKind::Negate(inner) => inner,
                ScalarKind::Binary { lhs, rhs, .. } => {
                    self.scalar(rhs, grid);
                    lhs
                }
                ScalarKind::Call(call) => return self.call(call, grid),
            };
        }
    }

    fn vector(&mut self, vector: &'p VectorExpr, grid: Grid) {
        let mut vector = vector;
        loop {
            vector = match &vector.kind {
                VectorKind::Select(select) => {
                    let (first_ms, last_ms) = self.bounds(grid, select.offset_ms, select.at);
                    let need =
                        Need { start_ms: first_ms - self.lookback_ms, end_ms: last_ms, last_only: first_ms == last_ms };
                    return self.list.push((select.id, &select.matchers, need));
                }
                VectorKind::Negate(inner) => inner,
                VectorKind::WithScalar { vector: inner, scalar, .. } => {
                    self.scalar(scalar, grid);
                    inner
                }
                VectorKind::Binary { lhs, rhs, .. } | VectorKind::Set { lhs, rhs, .. } => {
                    self.vector(rhs, grid);
                    lhs
                }
                VectorKind::Aggregate(aggregate) => {
                    let Aggregate { parameter, inner, .. } = &**aggregate;
                    if let Some(parameter) = parameter {
                        self.expr(parameter, grid);
                    }
                    inner
                }
                VectorKind::Call(call) => return self.call(call, grid),
            };
        }
    }

    fn call(&mut self, call: &'p Call, grid: Grid) {
        for argument in &call.arguments {
            self.expr(argument, grid);
        }
    }

    fn range(&mut self, range: &'p RangeExpr, grid: Grid) {
        let (first_ms, last_ms) = self.bounds(grid, range.offset_ms, range.at);
        match &range.kind {
            RangeKind::Select { id, matchers } => {
                let need = Need { start_ms: first_ms - range.range_ms, end_ms: last_ms, last_only: false };
                self.list.push((*id, matchers, need));
            }
            RangeKind::Subquery { inner, step_ms } => {
                if let Some(grid) = Grid::multiples(first_ms - range.range_ms, last_ms, *step_ms) {
                    self.vector(inner, grid);
                }
            }
        }
    }

    /// The first and last instant at which something with these modifiers is evaluated.
    fn bounds(&self, grid: Grid, offset_ms: i64, at: Option<At>) -> (i64, i64) {
        match at {
            Some(at) => {
                let time_ms = at.time_ms(self.query) - offset_ms;
                (time_ms, time_ms)
            }
            None => (grid.start_ms - offset_ms, grid.end_ms() - offset_ms),
        }
    }
}

impl At {
    /// The time that the modifier means within a query.
    pub(super) fn time_ms(self, query: Grid) -> i64 {
        match self {
            Self::Time(time_ms) => time_ms,
            Self::Start => query.start_ms,
            Self::End => query.end_ms(),
        }
    }
}
