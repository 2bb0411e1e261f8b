//! What clients ask of the server itself, and of expressions.

use axum::extract::State;
use belfry_promql::{PlanOptions, prettified};
use serde::Serialize;

use super::{
    App,
    envelope::{ApiError, Data},
    parameters::Parameters,
    query,
};

/// `status/buildinfo`: who answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Build {
    version: &'static str,
    revision: &'static str,
    branch: &'static str,
    build_user: &'static str,
    build_date: &'static str,
    go_version: &'static str,
}

pub(super) async fn build(State(_): State<App>) -> Data<Build> {
    let unknown = "";
    Data::new(Build {
        version: env!("CARGO_PKG_VERSION"),
        revision: unknown,
        branch: unknown,
        build_user: unknown,
        build_date: unknown,
        go_version: unknown,
    })
}

/// `format_query`: the expression as it is written with care.
pub(super) async fn format_query(parameters: Parameters) -> Result<Data<String>, ApiError> {
    let expression = parameters.first("query").unwrap_or_default();
    Ok(Data::new(prettified(&query::plan(expression, PlanOptions::default())?)))
}

/// `query_exemplars`: nobody measures any.
pub(super) async fn exemplars() -> Data<[(); 0]> {
    Data::new([])
}
