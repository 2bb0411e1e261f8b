//! The same expression with every selector pinned by `@`: its value no longer depends on when it is evaluated.

use std::time::{Duration, SystemTime};

use promql_parser::parser::{self, AtModifier, Expr, FunctionArgs};

/// Functions whose value depends on the time of evaluation even if their arguments do not.
const READS_TIME: [&str; 16] = [
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "end",
    "hour",
    "info",
    "minute",
    "month",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "timestamp",
    "year",
];

/// The expression pinned to a time, or nothing if that is not possible without changing its meaning.
pub(crate) fn pinned(expression: &str, time_ms: i64) -> Option<String> {
    let mut tree = parser::parse(expression).ok()?;
    let time = if time_ms < 0 {
        SystemTime::UNIX_EPOCH - Duration::from_millis(time_ms.unsigned_abs())
    } else {
        SystemTime::UNIX_EPOCH + Duration::from_millis(time_ms.unsigned_abs())
    };
    pin(&mut tree, &AtModifier::At(time)).then(|| tree.to_string())
}

fn pin(tree: &mut Expr, at: &AtModifier) -> bool {
    match tree {
        Expr::VectorSelector(selector) => {
            selector.at.get_or_insert_with(|| at.clone());
            true
        }
        Expr::MatrixSelector(selector) => {
            selector.vs.at.get_or_insert_with(|| at.clone());
            true
        }
        Expr::Subquery(subquery) => {
            subquery.at.get_or_insert_with(|| at.clone());
            true
        }
        Expr::Aggregate(aggregate) => {
            pin(&mut aggregate.expr, at) && aggregate.param.as_deref_mut().is_none_or(|tree| pin(tree, at))
        }
        Expr::Unary(unary) => pin(&mut unary.expr, at),
        Expr::Binary(binary) => pin(&mut binary.lhs, at) && pin(&mut binary.rhs, at),
        Expr::Paren(paren) => pin(&mut paren.expr, at),
        Expr::Call(call) => {
            let FunctionArgs { args } = &mut call.args;
            !READS_TIME.contains(&call.func.name) && args.iter_mut().all(|tree| pin(tree, at))
        }
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => true,
        Expr::Extension(_) => false,
    }
}
