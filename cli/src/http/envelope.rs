//! What every answer of the API looks like: Prometheus' envelope, its kinds of errors and their status codes.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use belfry_common::error_chain::ErrorChain;
use belfry_promql::{EvalError, ReadError};
use serde::Serialize;

use super::parameters::invalid;
use crate::queries::QueryError;

/// Kinds of errors; the names are Prometheus'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ErrorType {
    BadData,
    Execution,
    Timeout,
    Internal,
    Unavailable,
    NotFound,
    Unauthorized,
    Forbidden,
}

impl ErrorType {
    fn status(self) -> StatusCode {
        match self {
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Timeout | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
        }
    }
}

/// An answer that says why there is none.
#[derive(Debug)]
pub(super) struct ApiError {
    kind: ErrorType,
    message: String,
}

impl ApiError {
    pub(super) fn new(kind: ErrorType, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let text = ErrorChain(&error).to_string();
        let kind = match &error {
            QueryError::Plan(_) | QueryError::Evaluate(EvalError::NotForRange { .. }) => {
                return invalid("query", &text);
            }
            QueryError::Evaluate(EvalError::InvalidTimes) => ErrorType::BadData,
            QueryError::Evaluate(EvalError::Internal(_)) => ErrorType::Internal,
            QueryError::Evaluate(_) | QueryError::Read(_) => ErrorType::Execution,
            QueryError::Timeout(_) => ErrorType::Timeout,
            QueryError::TooMany => ErrorType::Unavailable,
            QueryError::Ended => ErrorType::Internal,
        };
        Self::new(kind, text)
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        QueryError::from(error).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Envelope<'a> {
            status: &'static str,
            error_type: ErrorType,
            error: &'a str,
        }
        let envelope = Envelope { status: "error", error_type: self.kind, error: &self.message };
        json(self.kind.status(), serde_json::to_vec(&envelope))
    }
}

/// An answer whose data fits memory.
#[derive(Debug)]
pub(super) struct Data<T> {
    pub(super) data: T,
    pub(super) warnings: Vec<String>,
}

impl<T> Data<T> {
    pub(super) fn new(data: T) -> Self {
        Self { data, warnings: Vec::new() }
    }

    /// An answer of which a limit cut something off, if it did.
    pub(super) fn truncated(data: T, is_truncated: bool) -> Self {
        let warnings = if is_truncated { vec![TRUNCATED.to_owned()] } else { Vec::new() };
        Self { data, warnings }
    }
}

/// What is said when a limit of the request cuts something off.
pub(super) const TRUNCATED: &str = "results truncated due to limit";

/// What an answer looks like.
#[derive(Debug, Serialize)]
struct Envelope<'a, T> {
    status: &'static str,
    data: &'a T,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [String],
}

impl<T: Serialize> Data<T> {
    fn text(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Envelope { status: "success", data: &self.data, warnings: &self.warnings })
    }
}

impl<T: Serialize> IntoResponse for Data<T> {
    fn into_response(self) -> Response {
        json(StatusCode::OK, self.text())
    }
}

/// An answer whose text is made already: where its data borrow what they tell.
#[derive(Debug)]
pub(super) struct Json(serde_json::Result<Vec<u8>>);

impl Json {
    pub(super) fn of(data: &Data<impl Serialize>) -> Self {
        Self(data.text())
    }
}

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        json(StatusCode::OK, self.0)
    }
}

fn json(status: StatusCode, text: serde_json::Result<Vec<u8>>) -> Response {
    match text {
        Ok(text) => (status, [(header::CONTENT_TYPE, JSON)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

pub(super) const JSON: &str = "application/json";
