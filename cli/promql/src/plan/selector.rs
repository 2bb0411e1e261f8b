//! Selectors and their modifiers, from the parser's tree into ours.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use promql_parser::label::Matchers;
use promql_parser::parser as ast;

use super::PlanError;
use super::build::Builder;
use super::disguise::restored;
use super::node::{At, Expr, RangeExpr, RangeKind, Select, SelectId, VectorExpr, VectorKind};
use crate::labels::METRIC_NAME;
use crate::limits::TIME_MS_MAX;
use crate::{MatchOp, Matcher, Span};

impl Builder<'_> {
    pub(super) fn instant_selector(&mut self, selector: &ast::VectorSelector) -> Result<Expr, PlanError> {
        let span = self.selectors.next().unwrap_or(self.whole);
        let select = Select {
            matchers: self.matchers(selector.name.as_deref(), &selector.matchers, span)?,
            id: self.next_id(),
            offset_ms: self.offset(selector.offset.as_ref(), span)?,
            at: self.at(selector.at.as_ref(), span)?,
        };
        let constant = select.at.is_some();
        Ok(Expr::Vector(VectorExpr { kind: VectorKind::Select(select), span, constant }))
    }

    pub(super) fn range_selector(&mut self, selector: &ast::MatrixSelector) -> Result<Expr, PlanError> {
        let name = self.selectors.next().unwrap_or(self.whole);
        let span = self.with_brackets(name);
        let matchers = self.matchers(selector.vs.name.as_deref(), &selector.vs.matchers, span)?;
        Ok(Expr::Range(RangeExpr {
            kind: RangeKind::Select { id: self.next_id(), matchers },
            range_ms: self.duration(selector.range, span)?,
            offset_ms: self.offset(selector.vs.offset.as_ref(), span)?,
            at: self.at(selector.vs.at.as_ref(), span)?,
            span,
        }))
    }

    /// The second argument of `info` is a selector in form only: it may match the empty text, may be missing, and
    /// is about `target_info` unless it names another metric.
    pub(super) fn info_arguments(&mut self, trees: &[Box<ast::Expr>], span: Span) -> Result<Vec<Expr>, PlanError> {
        let mut arguments = Vec::new();
        let mut matchers = Vec::new();
        for (at, tree) in trees.iter().enumerate() {
            match &**tree {
                ast::Expr::VectorSelector(selector) if at == 1 => {
                    let span = self.selectors.next().unwrap_or(self.whole);
                    if selector.offset.is_some() || selector.at.is_some() {
                        let message = "the second argument of `info` takes no time modifiers".to_owned();
                        return Err(PlanError::Argument { message, span });
                    }
                    matchers = self.listed_matchers(selector.name.as_deref(), &selector.matchers, span)?;
                }
                _ => arguments.push(self.expr(tree)?),
            }
        }
        if !matchers.iter().any(|matcher| matcher.name() == METRIC_NAME) {
            let name = Matcher::new(METRIC_NAME, MatchOp::Equal, "target_info");
            matchers.extend(name.ok());
        }
        let select = Select { id: self.next_id(), matchers: matchers.into(), offset_ms: 0, at: None };
        arguments.push(Expr::Vector(VectorExpr { kind: VectorKind::Select(select), span, constant: false }));
        Ok(arguments)
    }

    fn matchers(&mut self, name: Option<&str>, list: &Matchers, span: Span) -> Result<Arc<[Matcher]>, PlanError> {
        let matchers = self.listed_matchers(name, list, span)?;
        if matchers.iter().all(|matcher| matcher.matches("")) {
            let message = "vector selector must contain at least one non-empty matcher".to_owned();
            return Err(PlanError::Syntax { message, span });
        }
        Ok(matchers.into())
    }

    fn listed_matchers(&mut self, name: Option<&str>, list: &Matchers, span: Span) -> Result<Vec<Matcher>, PlanError> {
        if !list.or_matchers.is_empty() {
            return Err(self.unsupported("`or` between matchers", span));
        }
        let ops = if list.matchers.is_empty() { Vec::new() } else { self.matchers.next().unwrap_or_default() };
        if ops.len() != list.matchers.len() {
            return Err(PlanError::Syntax { message: "matchers could not be told apart".to_owned(), span });
        }
        let regex_error =
            |label: &str, source| PlanError::Regex { place: format!("matcher of label `{label}`"), span, source };
        let named = name.map(|name| (METRIC_NAME, MatchOp::Equal, name.to_owned()));
        let listed = list.matchers.iter().zip(ops).map(|(matcher, op)| (&*matcher.name, op, restored(&matcher.value)));
        named
            .into_iter()
            .chain(listed)
            .map(|(label, op, value)| Matcher::new(label, op, value).map_err(|source| regex_error(label, source)))
            .collect()
    }

    pub(super) fn next_id(&mut self) -> SelectId {
        self.selects += 1;
        SelectId(self.selects - 1)
    }

    pub(super) fn offset(&self, offset: Option<&ast::Offset>, span: Span) -> Result<i64, PlanError> {
        match offset {
            None => Ok(0),
            Some(ast::Offset::Pos(duration)) => self.duration(*duration, span),
            Some(ast::Offset::Neg(duration)) => self.duration(*duration, span).map(|ms| -ms),
        }
    }

    pub(super) fn at(&self, at: Option<&ast::AtModifier>, span: Span) -> Result<Option<At>, PlanError> {
        Ok(match at {
            None => None,
            Some(ast::AtModifier::Start) => Some(At::Start),
            Some(ast::AtModifier::End) => Some(At::End),
            Some(ast::AtModifier::At(time)) => Some(At::Time(self.timestamp(*time, span)?)),
        })
    }

    fn timestamp(&self, time: SystemTime, span: Span) -> Result<i64, PlanError> {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => self.duration(after, span),
            Err(before) => self.duration(before.duration(), span).map(|ms| -ms),
        }
    }

    pub(super) fn duration(&self, duration: Duration, span: Span) -> Result<i64, PlanError> {
        match i64::try_from(duration.as_millis()) {
            Ok(ms) if ms <= TIME_MS_MAX => Ok(ms),
            _ => Err(PlanError::Duration { text: format!("{duration:?}"), span }),
        }
    }
}
