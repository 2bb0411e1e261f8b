//! What clients ask of the server itself, and of expressions.

use axum::extract::State;
use belfry_promql::{Plan, prettified};
use serde::Serialize;

use super::{
    App,
    envelope::{ApiError, Data},
    parameters::Parameters,
};
use crate::queries::{QueryError, TIMEOUT_MAX};

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
pub(super) async fn format_query(State(app): State<App>, parameters: Parameters) -> Result<Data<String>, ApiError> {
    let expression = parameters.first("query").unwrap_or_default().to_owned();
    let planned =
        app.services.queries.read(TIMEOUT_MAX, move |_, _| Plan::parse(&expression).map(|plan| prettified(&plan)));
    Ok(Data::new(planned.await?.map_err(QueryError::from)?))
}

/// `query_exemplars`: nobody measures any.
pub(super) async fn exemplars() -> Data<[(); 0]> {
    Data::new([])
}
