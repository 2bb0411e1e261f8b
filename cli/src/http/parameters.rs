//! The parameters of a request: those of its address and, of a form that was posted, those of its body.

use std::time::Duration;

use axum::{
    body::to_bytes,
    extract::{FromRequest, Request},
    http::{Method, header},
};
use belfry_common::model::Timestamp;
use tokio::time::timeout;

use super::envelope::{ApiError, ErrorType};
use crate::{instant, rules::duration};

/// Far more than the longest expression, and than a few hundred selectors.
const BODY_BYTES_MAX: usize = 1024 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Names and values in the order in which they were given, those of a form first.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl<S: Sync> FromRequest<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let mut all = Vec::new();
        if parts.method == Method::POST {
            let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            let kind = kind.split(';').next().unwrap_or_default().trim();
            let late = |_| ApiError::new(ErrorType::BadData, format!("request body: not there after {BODY_TIMEOUT:?}"));
            let body = timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await.map_err(late)?;
            let body = body.map_err(|error| ApiError::new(ErrorType::BadData, format!("request body: {error}")))?;
            // vmalert says that it sends JSON, and sends nothing.
            let is_form = kind.is_empty() || kind.eq_ignore_ascii_case("application/x-www-form-urlencoded");
            if !is_form && !body.is_empty() {
                let what = format!("a body of the type {kind:?} is not understood: send a form, urlencoded");
                return Err(ApiError::new(ErrorType::BadData, what));
            }
            all.extend(form_urlencoded::parse(&body).into_owned());
        }
        let query = parts.uri.query().unwrap_or_default();
        all.extend(form_urlencoded::parse(query.as_bytes()).into_owned());
        Ok(Self(all))
    }
}

impl Parameters {
    /// The first value of this name; nothing if there is none, or an empty one.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
        found.filter(|value| !value.is_empty())
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// A time in milliseconds: seconds since the Unix epoch, or RFC 3339.
    pub(super) fn time_ms(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let parse = |text: &str| {
            instant::parse(text).ok_or_else(|| invalid(name, &format!("cannot parse {text:?} to a valid timestamp")))
        };
        self.first(name).map(parse).transpose()
    }

    /// As [`Self::time_ms`], of a parameter that must be there.
    pub(super) fn needed_time_ms(&self, name: &str) -> Result<i64, ApiError> {
        self.time_ms(name)?.ok_or_else(|| invalid(name, "cannot parse \"\" to a valid timestamp"))
    }

    /// A duration in milliseconds: seconds, or as PromQL writes it.
    pub(super) fn duration_ms(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let parse = |text: &str| {
            let found = text.parse::<f64>().map_or_else(|_| duration::parse(text).ok(), instant::milliseconds);
            found.ok_or_else(|| invalid(name, &format!("cannot parse {text:?} to a valid duration")))
        };
        self.first(name).map(parse).transpose()
    }

    /// How long the answer may take.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, ApiError> {
        let timeout = self.duration_ms("timeout")?;
        Ok(timeout.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default())))
    }

    /// A count of which 0 means that there is no limit.
    pub(super) fn limit(&self, name: &str) -> Result<Option<usize>, ApiError> {
        let parse = |text: &str| {
            text.parse::<usize>().map_err(|_| invalid(name, &format!("{text:?} is no whole number from 0 on")))
        };
        Ok(self.first(name).map(parse).transpose()?.filter(|limit| *limit > 0))
    }

    /// Whether a switch is on.
    pub(super) fn is_on(&self, name: &str) -> Result<bool, ApiError> {
        match self.first(name) {
            None => Ok(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(text) => Err(invalid(name, &format!("{text:?} is neither true nor false"))),
        }
    }
}

/// What is wrong with a parameter, in Prometheus' words.
pub(super) fn invalid(name: &str, what: &str) -> ApiError {
    ApiError::new(ErrorType::BadData, format!("invalid parameter {name:?}: {what}"))
}

pub(super) fn end_before_start() -> ApiError {
    invalid("end", "end timestamp must not be before start time")
}

/// A range of time as the store has it, from the parameters `start` and `end`, both included.
pub(super) struct Period {
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
}

impl Period {
    /// Without a start, from as long ago as this; without an end, up to now.
    pub(super) fn of(parameters: &Parameters, now: Timestamp, default_ms: i64) -> Result<Self, ApiError> {
        let end_ms = parameters.time_ms("end")?.unwrap_or(now.as_millis());
        let start_ms = parameters.time_ms("start")?.unwrap_or(end_ms.saturating_sub(default_ms));
        if end_ms < start_ms {
            return Err(end_before_start());
        }
        Ok(Self { start_ms, end_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_their_forms() {
        let of = |text: &str| Parameters(vec![("step".into(), text.into())]).duration_ms("step").ok();
        assert_eq!(of("15"), Some(Some(15_000)));
        assert_eq!(of("1m30s"), Some(Some(90_000)));
        assert_eq!(of(""), Some(None));
        assert_eq!(of("5 apples"), None);
    }
}
