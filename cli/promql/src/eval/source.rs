//! Reading: what each selector needs is worked out first, so that each stretch of each series is read once.

use std::cell::OnceCell;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::OnceLock;

use super::budget::Budget;
use super::{EvalError, Grid, Period};
use crate::functions::OfSummary;
use crate::hash::FastMap;
use crate::plan::{
    Aggregate, At, Call, Expr, Plan, RangeExpr, RangeKind, ScalarExpr, ScalarKind, SelectId, VectorExpr, VectorKind,
};
use crate::sample::Columns;
use crate::{Labels, Matcher, Needed, ReadRequest, Samples, SeriesReader, Summary};

/// As [`Reduce`](crate::Reduce), if the query may go on.
type TryReduce<'a> = &'a (dyn Fn(Samples<'_>, &mut Vec<f64>) -> Result<(), EvalError> + Sync);

/// The time a selector needs.
#[derive(Debug, Clone, Copy)]
struct Need {
    start_ms: i64,
    end_ms: i64,
    needed: Needed,
    summary: Summary,
}

impl Need {
    fn request(self, matchers: &[Matcher]) -> ReadRequest<'_> {
        let Self { start_ms, end_ms, needed, summary } = self;
        ReadRequest { matchers, start_ms, end_ms, needed, summary }
    }

    /// Whether one read for both costs less than two. The newest sample is cheap and may be all that is read in the end; of two
    /// stretches it is the same one only if both end at one time. Of steps that fall between those of others, all would be read.
    fn joins(&self, other: &Self) -> bool {
        match (self.needed, other.needed) {
            _ if self.summary != other.summary => false,
            (Needed::Newest, Needed::Newest) => self.end_ms == other.end_ms,
            (Needed::Newest, _) | (_, Needed::Newest) => false,
            (Needed::EachStep { .. }, Needed::EachStep { .. }) => self.overlaps(other) && self.joined(other).is_thin(),
            // All of both has to be worth it: steps over a year beside minutes of samples are read for themselves.
            _ => self.overlaps(other) && self.joined(other).length_ms() <= 2 * self.all_ms().max(other.all_ms()),
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.start_ms < other.end_ms && other.start_ms < self.end_ms
    }

    /// Whether one sample a step is enough.
    fn is_thin(&self) -> bool {
        matches!(self.needed, Needed::EachStep { .. })
    }

    fn length_ms(&self) -> i64 {
        self.end_ms - self.start_ms
    }

    /// How long a stretch is of which all is needed.
    fn all_ms(&self) -> i64 {
        if self.is_thin() { 0 } else { self.length_ms() }
    }

    /// Both in one; an older start is harmless to the newest sample.
    fn joined(&self, other: &Self) -> Self {
        Self {
            start_ms: self.start_ms.min(other.start_ms),
            end_ms: self.end_ms.max(other.end_ms),
            needed: match (self.needed, other.needed) {
                (Needed::Newest, Needed::Newest) => Needed::Newest,
                (Needed::EachStep { end_ms: a, step_ms }, Needed::EachStep { end_ms: b, step_ms: other_ms })
                    if step_ms == other_ms && (a - b) % step_ms == 0 =>
                {
                    Needed::EachStep { end_ms: a.max(b), step_ms }
                }
                _ => Needed::All,
            },
            summary: self.summary,
        }
    }
}

/// Where the series of each selector come from.
pub(super) struct Sources<'q> {
    reader: &'q dyn SeriesReader,
    budget: Rc<Budget<'q>>,
    reads: Vec<Read<'q>>,
    /// The read that serves each selector.
    by_selector: FastMap<(SelectId, Summary), usize>,
}

/// One read, for one selector or several.
struct Read<'p> {
    matchers: &'p [Matcher],
    need: Need,
    selectors: usize,
    /// What was read for several, kept from the first on.
    kept: OnceCell<Rc<[(Labels, Columns)]>>,
}

impl<'q> Sources<'q> {
    /// Works out what a plan needs at the steps of a query. Nothing is read yet: an operator may never come to its right side.
    ///
    /// # Errors
    /// The windows of subqueries hold more values than the query may look at, were there but one series in each.
    pub(super) fn of(
        plan: &'q Plan,
        reader: &'q dyn SeriesReader,
        (query, grid): (Period, Grid),
        budget: &Rc<Budget<'q>>,
    ) -> Result<Self, EvalError> {
        let mut needs = Needs { reader, lookback_ms: plan.options.lookback_ms, query, list: Vec::new(), scans: 0 };
        needs.expr(&plan.root, grid);
        budget.check_scans(needs.scans)?;
        let (reads, by_selector) = merged(&needs.list);
        Ok(Self { reader, budget: Rc::clone(budget), reads, by_selector })
    }

    /// Hands each series of a selector to `body`.
    pub(super) fn each(
        &self,
        id: SelectId,
        mut body: impl FnMut(&Labels, Samples<'_>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let read = self.read(id, Summary::Last)?;
        if read.selectors > 1 {
            return self.kept(read)?.iter().try_for_each(|(labels, columns)| {
                self.budget.scan(1)?;
                body(labels, columns.samples())
            });
        }
        // Of one selector alone: evaluated once, and never held.
        self.visit(read, body)
    }

    /// Hands to `body` what `reduce` makes of each series of a selector. The series may be reduced on several threads; `body` gets them in
    /// order. What was made and not handed over yet counts as held.
    pub(super) fn reduce(
        &self,
        (id, summary): (SelectId, Summary),
        reduce: TryReduce<'_>,
        mut body: impl FnMut(&Labels, &[f64]) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let read = self.read(id, summary)?;
        if read.selectors > 1 {
            let mut values = Vec::new();
            return self.kept(read)?.iter().try_for_each(|(labels, columns)| {
                self.budget.scan(1)?;
                values.clear();
                reduce(columns.samples(), &mut values)?;
                body(labels, &values)
            });
        }
        let (budget, failure) = (&*self.budget, OnceLock::new());
        let reduce = |samples: Samples<'_>, values: &mut Vec<f64>| {
            let mut made = || {
                budget.read(samples.len())?;
                reduce(samples, values)?;
                budget.keep(size_of_val(&**values))
            };
            if failure.get().is_none()
                && let Err(error) = made()
            {
                // Of several the first counts.
                let _ = failure.set(error);
            }
        };
        let mut result = self.budget.check_cancelled();
        let mut visitor = |labels: &Labels, values: &[f64]| {
            if failure.get().is_none() {
                budget.release(size_of_val(values));
                result = body(labels, values);
            }
            if failure.get().is_none() && result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        self.reader.reduce(&read.need.request(read.matchers), &reduce, &mut visitor).map_err(EvalError::Read)?;
        failure.into_inner().map_or(result, Err)
    }

    /// Whether a selector's samples may stand for several, and are read for a function that wants to know more of these than the last.
    pub(super) fn summarises(&self, id: SelectId) -> bool {
        !self.by_selector.contains_key(&(id, Summary::Last))
    }

    fn read(&self, id: SelectId, summary: Summary) -> Result<&Read<'q>, EvalError> {
        let read = self.by_selector.get(&(id, summary)).and_then(|&at| self.reads.get(at));
        read.ok_or(EvalError::Internal("a selector has no source"))
    }

    /// Hands each series of a read to `body`, counted.
    fn visit(
        &self,
        read: &Read<'_>,
        mut body: impl FnMut(&Labels, Samples<'_>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let mut result = self.budget.check_cancelled();
        let mut visitor = |labels: &Labels, samples: Samples<'_>| {
            result = self.budget.read(samples.len()).and_then(|()| body(labels, samples));
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        self.reader.visit(&read.need.request(read.matchers), &mut visitor).map_err(EvalError::Read)?;
        result
    }

    fn kept(&self, read: &Read<'_>) -> Result<Rc<[(Labels, Columns)]>, EvalError> {
        if let Some(series) = read.kept.get() {
            return Ok(Rc::clone(series));
        }
        let mut series = Vec::new();
        self.visit(read, |labels, samples| {
            self.budget.keep_samples(samples.len())?;
            series.push((labels.clone(), Columns::of(samples)));
            Ok(())
        })?;
        Ok(Rc::clone(read.kept.get_or_init(|| series.into())))
    }
}

/// Joins the needs of equal selectors; says which read serves each selector.
#[expect(clippy::mutable_key_type, reason = "a compiled pattern has caches, which are no part of what a matcher is")]
fn merged<'p>(needs: &[(SelectId, &'p [Matcher], Need)]) -> (Vec<Read<'p>>, FastMap<(SelectId, Summary), usize>) {
    let mut reads: Vec<Read<'p>> = Vec::new();
    let mut by_selector = FastMap::default();
    let mut by_matchers: FastMap<&[Matcher], Vec<usize>> = FastMap::default();
    for &(id, matchers, need) in needs {
        let candidates = by_matchers.entry(matchers).or_default();
        let joins = |&at: &usize| reads.get(at).is_some_and(|read| read.need.joins(&need));
        let at = candidates.iter().copied().find(joins).unwrap_or(reads.len());
        match reads.get_mut(at) {
            Some(read) => {
                read.need = read.need.joined(&need);
                read.selectors += 1;
            }
            None => {
                candidates.push(at);
                reads.push(Read { matchers, need, selectors: 1, kept: OnceCell::new() });
            }
        }
        by_selector.insert((id, need.summary), at);
    }
    (reads, by_selector)
}

/// Walks a plan with the steps at which each part of it will be evaluated.
struct Needs<'p> {
    reader: &'p dyn SeriesReader,
    lookback_ms: i64,
    query: Period,
    list: Vec<(SelectId, &'p [Matcher], Need)>,
    /// How many values the windows of subqueries hold that functions walk, with one series in each.
    scans: u64,
}

impl<'p> Needs<'p> {
    fn expr(&mut self, expr: &'p Expr, grid: Grid) {
        match expr {
            Expr::Scalar(scalar) => self.scalar(scalar, grid),
            Expr::Vector(vector) => self.vector(vector, grid),
            Expr::Range(range) => self.range(range, grid, &[]),
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
            // As the evaluator does it.
            let grid = if vector.constant { grid.first() } else { grid };
            vector = match &vector.kind {
                VectorKind::Select(select) => {
                    let (first_ms, last_ms) = self.bounds(grid, select.offset_ms, select.at);
                    let steps = Needed::EachStep { end_ms: last_ms, step_ms: grid.step_ms };
                    let needed = if first_ms == last_ms { Needed::Newest } else { steps };
                    let (start_ms, summary) = (first_ms - self.lookback_ms, Summary::Last);
                    let need = Need { start_ms, end_ms: last_ms, needed, summary };
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
            match argument {
                Expr::Range(range) => self.range(range, grid, call.function.of_summaries),
                other => self.expr(other, grid),
            }
            if let Expr::Range(RangeExpr { kind: RangeKind::Subquery { step_ms, .. }, range_ms, .. }) = argument
                && call.function.scans
            {
                let windows = u64::try_from(grid.steps).unwrap_or(u64::MAX);
                self.scans = self.scans.saturating_add(windows.saturating_mul((range_ms / step_ms).unsigned_abs()));
            }
        }
    }

    fn range(&mut self, range: &'p RangeExpr, grid: Grid, of_summaries: &[OfSummary]) {
        let (first_ms, last_ms) = self.bounds(grid, range.offset_ms, range.at);
        match &range.kind {
            RangeKind::Select { id, matchers } => {
                let start_ms = first_ms - range.range_ms;
                let need = |summary| Need { start_ms, end_ms: last_ms, needed: Needed::All, summary };
                if of_summaries.is_empty() || !self.reader.summarises(start_ms, last_ms) {
                    self.list.push((*id, matchers, need(Summary::Last)));
                } else {
                    let needs = of_summaries.iter().map(|(summary, _)| (*id, &**matchers, need(*summary)));
                    self.list.extend(needs);
                }
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
    pub(super) fn time_ms(self, query: Period) -> i64 {
        match self {
            Self::Time(time_ms) => time_ms,
            Self::Start => query.start_ms,
            Self::End => query.end_ms,
        }
    }
}
