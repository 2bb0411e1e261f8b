//! Turns the parser's tree into ours: typed, names resolved, regular expressions compiled.
//!
//! The parser's tree has no positions. It is walked in the order of the text, and each node takes the next
//! position of its kind from the scan; should the two disagree, positions are those of the whole expression.

use std::sync::Arc;
use std::vec::IntoIter;

use promql_parser::parser as ast;
use regex::Regex;

use super::disguise::restored;
use super::node::{
    Aggregate, BinaryOp, Call, Cardinality, Expr, LabelChoice, Matching, RangeExpr, RangeKind, ScalarExpr, ScalarKind,
    SetOp, TextExpr, VectorExpr, VectorKind,
};
use super::scan::Scan;
use super::{PlanError, PlanOptions};
use crate::functions::{self, Aggregation};
use crate::limits::REGEXES_MAX;
use crate::{MatchOp, Span, ValueType, pattern};

/// Builds the tree.
pub(super) fn build(tree: &ast::Expr, expression: &str, scan: Scan, options: PlanOptions) -> Result<Expr, PlanError> {
    let mut builder = Builder {
        whole: Span::of(expression, 0, expression.len()),
        expression,
        options,
        selects: 0,
        patterns: 0,
        calls: scan.calls.into_iter(),
        aggregations: scan.aggregations.into_iter(),
        selectors: scan.selectors.into_iter(),
        numbers: scan.numbers.into_iter(),
        strings: scan.strings.into_iter(),
        parentheses: scan.parentheses.into_iter(),
        matchers: scan.matchers.into_iter(),
    };
    builder.expr(tree)
}

pub(super) struct Builder<'a> {
    expression: &'a str,
    pub(super) whole: Span,
    options: PlanOptions,
    pub(super) selects: usize,
    /// How many functions have a regular expression.
    patterns: usize,
    calls: IntoIter<Span>,
    aggregations: IntoIter<Span>,
    pub(super) selectors: IntoIter<Span>,
    numbers: IntoIter<Span>,
    strings: IntoIter<Span>,
    parentheses: IntoIter<Span>,
    pub(super) matchers: IntoIter<Vec<MatchOp>>,
}

impl Builder<'_> {
    pub(super) fn expr(&mut self, tree: &ast::Expr) -> Result<Expr, PlanError> {
        match tree {
            ast::Expr::NumberLiteral(number) => Ok(Expr::Scalar(ScalarExpr {
                kind: ScalarKind::Number(number.val),
                span: self.number_span(number.val),
                constant: true,
            })),
            ast::Expr::StringLiteral(text) => Ok(Expr::Text(TextExpr {
                text: restored(&text.val).into(),
                span: self.strings.next().unwrap_or(self.whole),
            })),
            ast::Expr::Paren(paren) => {
                let span = self.parentheses.next().unwrap_or(self.whole);
                let mut inner = self.expr(&paren.expr)?;
                inner.set_span(span);
                Ok(inner)
            }
            ast::Expr::Unary(unary) => self.negation(&unary.expr),
            ast::Expr::Binary(_) => self.chain(tree),
            ast::Expr::VectorSelector(selector) => self.instant_selector(selector),
            ast::Expr::MatrixSelector(selector) => self.range_selector(selector),
            ast::Expr::Subquery(subquery) => self.subquery(subquery),
            ast::Expr::Call(call) => self.call(call),
            ast::Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            ast::Expr::Extension(_) => Err(self.unsupported("an extension", self.whole)),
        }
    }

    fn negation(&mut self, inner: &ast::Expr) -> Result<Expr, PlanError> {
        let inner = self.expr(inner)?;
        let span = self.with_minus(inner.span());
        match inner {
            Expr::Scalar(ScalarExpr { kind: ScalarKind::Number(number), .. }) => {
                Ok(Expr::Scalar(ScalarExpr { kind: ScalarKind::Number(-number), span, constant: true }))
            }
            Expr::Scalar(inner) => {
                let constant = inner.constant;
                Ok(Expr::Scalar(ScalarExpr { kind: ScalarKind::Negate(Box::new(inner)), span, constant }))
            }
            other => {
                let inner = vector(other, "a negation")?;
                let constant = inner.constant;
                Ok(Expr::Vector(VectorExpr { kind: VectorKind::Negate(Box::new(inner)), span, constant }))
            }
        }
    }

    /// The parser makes a minus a part of the number behind it.
    fn number_span(&mut self, value: f64) -> Span {
        let span = self.numbers.next().unwrap_or(self.whole);
        if value.is_sign_negative() { self.with_minus(span) } else { span }
    }

    /// An operand and the minus before it.
    fn with_minus(&self, operand: Span) -> Span {
        let before = self.expression.get(..operand.start).unwrap_or_default().trim_end();
        let start = before.strip_suffix('-').map_or(operand.start, str::len);
        Span::of(self.expression, start, operand.end)
    }

    /// A chain of operators leans to the left as far as it is long: it is built without recursion.
    fn chain(&mut self, tree: &ast::Expr) -> Result<Expr, PlanError> {
        let mut links = Vec::new();
        let mut first = tree;
        while let ast::Expr::Binary(binary) = first {
            links.push(binary);
            first = &binary.lhs;
        }
        let mut result = self.expr(first)?;
        for link in links.into_iter().rev() {
            let rhs = self.expr(&link.rhs)?;
            result = self.binary(link, result, rhs)?;
        }
        Ok(result)
    }

    fn binary(&self, binary: &ast::BinaryExpr, lhs: Expr, rhs: Expr) -> Result<Expr, PlanError> {
        let span = self.span(lhs.span(), rhs.span());
        let constant = lhs.is_constant() && rhs.is_constant();
        let symbol = binary.op.to_string();
        let Some(op) = operator(&symbol) else {
            let op = match symbol.as_str() {
                "and" => SetOp::And,
                "or" => SetOp::Or,
                "unless" => SetOp::Unless,
                _ => return Err(self.unsupported(&format!("`{symbol}`"), span)),
            };
            let on = matching_labels(binary);
            let lhs = Box::new(vector(lhs, "a set operation")?);
            let rhs = Box::new(vector(rhs, "a set operation")?);
            return Ok(Expr::Vector(VectorExpr { kind: VectorKind::Set { op, on, lhs, rhs }, span, constant }));
        };
        let bool_result = binary.return_bool();
        let with_scalar = |scalar_left, vector, scalar| VectorKind::WithScalar {
            op,
            bool_result,
            scalar_left,
            vector: Box::new(vector),
            scalar: Box::new(scalar),
        };
        let kind = match (lhs, rhs) {
            (Expr::Scalar(lhs), Expr::Scalar(rhs)) => {
                let kind = ScalarKind::Binary { op, lhs: Box::new(lhs), rhs: Box::new(rhs) };
                return Ok(Expr::Scalar(ScalarExpr { kind, span, constant }));
            }
            (Expr::Scalar(scalar), other) => with_scalar(true, vector(other, "an operation")?, scalar),
            (other, Expr::Scalar(scalar)) => with_scalar(false, vector(other, "an operation")?, scalar),
            (lhs, rhs) => VectorKind::Binary {
                op,
                bool_result,
                matching: matching(binary),
                lhs: Box::new(vector(lhs, "an operation")?),
                rhs: Box::new(vector(rhs, "an operation")?),
            },
        };
        Ok(Expr::Vector(VectorExpr { kind, span, constant }))
    }

    fn subquery(&mut self, subquery: &ast::SubqueryExpr) -> Result<Expr, PlanError> {
        let inner = vector(self.expr(&subquery.expr)?, "a subquery")?;
        let span = self.with_brackets(inner.span);
        let step_ms = match subquery.step {
            Some(step) => self.duration(step, span)?,
            None => self.options.subquery_step_ms,
        };
        if step_ms <= 0 {
            return Err(PlanError::Argument { message: "step of a subquery must be positive".to_owned(), span });
        }
        Ok(Expr::Range(RangeExpr {
            kind: RangeKind::Subquery { inner: Box::new(inner), step_ms },
            range_ms: self.duration(subquery.range, span)?,
            offset_ms: self.offset(subquery.offset.as_ref(), span)?,
            at: self.at(subquery.at.as_ref(), span)?,
            span,
        }))
    }

    fn call(&mut self, call: &ast::Call) -> Result<Expr, PlanError> {
        let span = self.calls.next().unwrap_or(self.whole);
        let name = call.func.name;
        let function =
            functions::find(name).ok_or_else(|| PlanError::UnknownFunction { name: name.to_owned(), span })?;
        let arguments = if name == "info" {
            self.info_arguments(&call.args.args, span)?
        } else {
            call.args.args.iter().map(|tree| self.expr(tree)).collect::<Result<Vec<_>, _>>()?
        };
        function.check(&arguments, span)?;
        let constant = function.is_constant(&arguments);
        let pattern = match function.pattern.and_then(|at| arguments.get(at)) {
            Some(Expr::Text(text)) => Some(self.pattern(name, text)?),
            _ => None,
        };
        let call = Call { function, arguments, pattern };
        Ok(match function.returns() {
            ValueType::Scalar => Expr::Scalar(ScalarExpr { kind: ScalarKind::Call(call), span, constant }),
            _ => Expr::Vector(VectorExpr { kind: VectorKind::Call(call), span, constant }),
        })
    }

    fn pattern(&mut self, function: &str, text: &TextExpr) -> Result<Regex, PlanError> {
        self.patterns += 1;
        if self.patterns > REGEXES_MAX {
            return Err(PlanError::TooManyRegexes);
        }
        pattern::compile(&text.text).map_err(|source| PlanError::Regex {
            place: format!("call to `{function}`"),
            span: text.span,
            source,
        })
    }

    fn aggregate(&mut self, aggregate: &ast::AggregateExpr) -> Result<Expr, PlanError> {
        let span = self.aggregations.next().unwrap_or(self.whole);
        let name = aggregate.op.to_string();
        let op = Aggregation::named(&name).ok_or_else(|| self.unsupported(&format!("`{name}`"), span))?;
        let parameter = aggregate.param.as_deref().map(|tree| self.expr(tree)).transpose()?;
        if let (Some(parameter), Some(expected)) = (&parameter, op.parameter()) {
            expect_type(parameter, expected, &format!("the parameter of `{name}`"))?;
        }
        let inner = vector(self.expr(&aggregate.expr)?, &format!("`{name}`"))?;
        let group = match &aggregate.modifier {
            Some(ast::LabelModifier::Exclude(labels)) => LabelChoice::Without(shared(&labels.labels)),
            Some(ast::LabelModifier::Include(labels)) => LabelChoice::Only(shared(&labels.labels)),
            None => LabelChoice::Only(Arc::from([])),
        };
        let constant = inner.constant && parameter.as_ref().is_none_or(Expr::is_constant);
        let kind = VectorKind::Aggregate(Box::new(Aggregate { op, parameter, group, inner }));
        Ok(Expr::Vector(VectorExpr { kind, span, constant }))
    }

    fn span(&self, first: Span, last: Span) -> Span {
        Span::of(self.expression, first.start, last.end)
    }

    /// A part of the expression and the brackets behind it.
    pub(super) fn with_brackets(&self, part: Span) -> Span {
        let rest = self.expression.get(part.end..).unwrap_or_default();
        let end = rest.find(']').map_or(part.end, |at| part.end + at + 1);
        Span::of(self.expression, part.start, end)
    }

    pub(super) fn unsupported(&self, what: &str, span: Span) -> PlanError {
        PlanError::Unsupported { what: what.to_owned(), span }
    }
}

/// Refuses an expression of another type.
pub(crate) fn expect_type(expr: &Expr, expected: ValueType, place: &str) -> Result<(), PlanError> {
    let found = expr.value_type();
    if found == expected {
        return Ok(());
    }
    Err(PlanError::Type { expected, found, place: place.to_owned(), span: expr.span() })
}

fn vector(expr: Expr, place: &str) -> Result<VectorExpr, PlanError> {
    expect_type(&expr, ValueType::Vector, place)?;
    match expr {
        Expr::Vector(vector) => Ok(vector),
        other => Err(PlanError::Type {
            expected: ValueType::Vector,
            found: other.value_type(),
            place: place.to_owned(),
            span: other.span(),
        }),
    }
}

fn operator(symbol: &str) -> Option<BinaryOp> {
    Some(match symbol {
        "+" => BinaryOp::Add,
        "-" => BinaryOp::Subtract,
        "*" => BinaryOp::Multiply,
        "/" => BinaryOp::Divide,
        "%" => BinaryOp::Modulo,
        "^" => BinaryOp::Power,
        "atan2" => BinaryOp::Atan2,
        "==" => BinaryOp::Equal,
        "!=" => BinaryOp::NotEqual,
        ">" => BinaryOp::Greater,
        "<" => BinaryOp::Less,
        ">=" => BinaryOp::GreaterOrEqual,
        "<=" => BinaryOp::LessOrEqual,
        _ => return None,
    })
}

fn matching(binary: &ast::BinaryExpr) -> Matching {
    let modifier = binary.modifier.as_ref();
    let (cardinality, include) = match modifier.map(|modifier| &modifier.card) {
        Some(ast::VectorMatchCardinality::ManyToOne(labels)) => (Cardinality::ManyToOne, shared(&labels.labels)),
        Some(ast::VectorMatchCardinality::OneToMany(labels)) => (Cardinality::OneToMany, shared(&labels.labels)),
        _ => (Cardinality::OneToOne, Arc::from([])),
    };
    let fill = modifier.map_or((None, None), |modifier| (modifier.fill_values.lhs, modifier.fill_values.rhs));
    Matching { on: matching_labels(binary), cardinality, include, fill }
}

fn matching_labels(binary: &ast::BinaryExpr) -> LabelChoice {
    match binary.modifier.as_ref().and_then(|modifier| modifier.matching.as_ref()) {
        Some(ast::LabelModifier::Include(labels)) => LabelChoice::Only(shared(&labels.labels)),
        Some(ast::LabelModifier::Exclude(labels)) => LabelChoice::Without(shared(&labels.labels)),
        None => LabelChoice::Without(Arc::from([])),
    }
}

fn shared(labels: &[String]) -> Arc<[Arc<str>]> {
    labels.iter().map(|label| Arc::from(label.as_str())).collect()
}
