//! `series`, `labels`, `label/NAME/values` and `metadata`: what there is to ask for.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
};

use axum::extract::{Path, State};
use belfry_common::{clock, error_chain::ErrorChain};
use belfry_promql::{Labels, MatchOp, Matcher, Needed, Plan, ReadRequest, Samples, SeriesReader as _, Summary};
use serde::Serialize;

use super::{
    App,
    envelope::{ApiError, Data, ErrorType, Json},
    parameters::{Parameters, Period, invalid},
};
use crate::{
    queries::{Patience, TIMEOUT_MAX},
    series::StoreReader,
};

/// Without a start: as long ago as dashboards look. Prometheus looks through all there is.
const PERIOD_MS: i64 = 12 * 3_600_000;

/// Most series that one answer tells of; each is some 300 bytes.
const SERIES_MAX: usize = 1_000_000;

/// `series`: label sets that selectors match.
pub(super) async fn series(State(app): State<App>, parameters: Parameters) -> Result<Json, ApiError> {
    let selectors = Selectors::needed(&parameters)?;
    let gather = |labels: &Labels, found: &mut BTreeSet<Labels>| {
        found.insert(labels.clone());
    };
    let pairs = |labels: Labels| -> BTreeMap<String, String> {
        labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    gathered(&app, &parameters, selectors, gather, pairs).await
}

/// `labels`: names of labels, of all series or of those that selectors match.
pub(super) async fn names(State(app): State<App>, parameters: Parameters) -> Result<Json, ApiError> {
    let selectors = Selectors::or_all(&parameters)?;
    let gather = |labels: &Labels, found: &mut BTreeSet<String>| labels.iter().for_each(|(name, _)| add(name, found));
    gathered(&app, &parameters, selectors, gather, |name| name).await
}

/// `label/NAME/values`: values of one label, of all series or of those that selectors match.
pub(super) async fn values(
    State(app): State<App>,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Result<Json, ApiError> {
    let name = unescaped(&name);
    if name.is_empty() {
        return Err(ApiError::new(ErrorType::BadData, format!("invalid label name: {name:?}")));
    }
    let selectors = Selectors::or_all(&parameters)?;
    let gather = move |labels: &Labels, found: &mut BTreeSet<String>| {
        labels.get(&name).into_iter().for_each(|value| add(value, found));
    };
    gathered(&app, &parameters, selectors, gather, |value| value).await
}

/// Most series have nothing that others have not.
fn add(text: &str, found: &mut BTreeSet<String>) {
    if !found.contains(text) {
        found.insert(text.to_owned());
    }
}

/// A metric as its sampler describes it.
#[derive(Debug, Serialize)]
pub(super) struct Metadata {
    #[serde(rename = "type")]
    kind: &'static str,
    help: String,
    unit: &'static str,
}

/// `metadata`: type and help of each metric that is measured now.
pub(super) async fn metadata(
    State(app): State<App>,
    parameters: Parameters,
) -> Result<Data<BTreeMap<String, Vec<Metadata>>>, ApiError> {
    let limit = parameters.limit("limit")?.unwrap_or(usize::MAX);
    let metric = parameters.first("metric");
    let mut found = BTreeMap::new();
    for metric in app.services.head.metrics() {
        let metadata = Metadata { kind: metric.kind.prometheus_type(), help: metric.help.to_string(), unit: "" };
        found.entry(metric.name.to_string()).or_insert_with(|| vec![metadata]);
    }
    found.retain(|name, _| metric.is_none_or(|metric| metric == name));
    Ok(Data::new(found.into_iter().take(limit).collect()))
}

/// The parameter that selects series.
const MATCH: &str = "match[]";

/// Most selectors of one request, and most regular expressions in all of them.
const SELECTORS_MAX: usize = 100;
const REGEXES_MAX: usize = belfry_promql::limits::REGEXES_MAX;

/// Selectors as they were asked for. To parse them is work for a thread that does such.
#[derive(Debug, Clone)]
pub(super) struct Selectors {
    texts: Vec<String>,
    /// Whether without any everything is asked for.
    or_all: bool,
}

impl Selectors {
    /// Those of a request, if there are any.
    pub(super) fn of(parameters: &Parameters) -> Result<Self, ApiError> {
        let texts: Vec<String> = parameters.all(MATCH).take(SELECTORS_MAX + 1).map(str::to_owned).collect();
        if texts.len() > SELECTORS_MAX {
            return Err(invalid(MATCH, &format!("there are more than {SELECTORS_MAX}: ask for fewer at a time")));
        }
        Ok(Self { texts, or_all: false })
    }

    /// Those of a request that must have some.
    pub(super) fn needed(parameters: &Parameters) -> Result<Self, ApiError> {
        let selectors = Self::of(parameters)?;
        if selectors.texts.is_empty() {
            return Err(ApiError::new(ErrorType::BadData, "no match[] parameter provided"));
        }
        Ok(selectors)
    }

    /// Those of a request, or everything.
    fn or_all(parameters: &Parameters) -> Result<Self, ApiError> {
        Ok(Self { or_all: true, ..Self::of(parameters)? })
    }

    /// The matchers of each.
    pub(super) fn parsed(&self) -> Result<Vec<Arc<[Matcher]>>, ApiError> {
        if self.texts.is_empty() && self.or_all {
            return Ok(vec![Arc::from([])]);
        }
        let mut regexes = 0;
        let selector = |text: &String| {
            let plan = Plan::parse(text).map_err(|error| invalid(MATCH, &ErrorChain(&error).to_string()))?;
            let selector = plan.selectors().pop().filter(|_| plan.is_instant_selector());
            let matchers = selector.ok_or_else(|| invalid(MATCH, &format!("{text:?} is no selector")))?.matchers;
            regexes +=
                matchers.iter().filter(|matcher| matches!(matcher.op(), MatchOp::Regex | MatchOp::NotRegex)).count();
            if regexes > REGEXES_MAX {
                return Err(invalid(MATCH, &format!("there are more than {REGEXES_MAX} regular expressions in all")));
            }
            Ok(matchers.into())
        };
        self.texts.iter().map(selector).collect()
    }
}

/// What `gather` makes of all series that match within the period that is asked for, in order and as `show` shows it, and no more than was
/// asked for.
async fn gathered<T: Ord + 'static, S: Serialize>(
    app: &App,
    parameters: &Parameters,
    selectors: Selectors,
    gather: impl Fn(&Labels, &mut BTreeSet<T>) + Send + 'static,
    show: impl Fn(T) -> S + Send + 'static,
) -> Result<Json, ApiError> {
    let period = Period::of(parameters, clock::now(), PERIOD_MS)?;
    let limit = parameters.limit("limit")?.unwrap_or(usize::MAX);
    let timeout = parameters.timeout()?.unwrap_or(TIMEOUT_MAX);
    let found = app.services.queries.read(timeout, move |reader, patience| {
        let mut found = BTreeSet::new();
        for matchers in selectors.parsed()? {
            visit(reader, &matchers, &period, patience, |labels, _| {
                gather(labels, &mut found);
                within(found.len(), SERIES_MAX)
            })?;
        }
        let is_truncated = found.len() > limit;
        let shown: Vec<S> = found.into_iter().take(limit).map(show).collect();
        Ok::<_, ApiError>(Json::of(&Data::truncated(shown, is_truncated)))
    });
    found.await?
}

/// Visits all series that have a sample in a period, each with its newest.
pub(super) fn visit(
    reader: &StoreReader,
    matchers: &[Matcher],
    period: &Period,
    patience: &Patience,
    mut each: impl FnMut(&Labels, Samples<'_>) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    // Asked before each selector, too: one that matches nothing visits nothing.
    if patience.is_over() {
        return Err(out_of_time());
    }
    let Period { start_ms, end_ms } = *period;
    let (needed, summary) = (Needed::Newest, Summary::Last);
    let request = ReadRequest { matchers, start_ms: start_ms - 1, end_ms, needed, summary };
    let mut result = Ok(());
    let mut visitor = |labels: &Labels, samples: Samples<'_>| {
        result = if patience.is_over() { Err(out_of_time()) } else { each(labels, samples) };
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    reader.visit(&request, &mut visitor)?;
    result
}

fn out_of_time() -> ApiError {
    ApiError::new(ErrorType::Timeout, "request timed out: ask for fewer series or a shorter range")
}

/// Refuses an answer that grows too long.
pub(super) fn within(series: usize, most: usize) -> Result<(), ApiError> {
    if series <= most {
        return Ok(());
    }
    Err(ApiError::new(ErrorType::Execution, format!("more than {most} series match: ask for fewer")))
}

/// A name with characters that a path cannot have: `U__` before it, `_HEX_` for each of them, `__` for an underscore.
fn unescaped(name: &str) -> String {
    let plain = || name.to_owned();
    let Some(escaped) = name.strip_prefix("U__") else { return plain() };
    let mut text = String::new();
    let mut rest = escaped;
    while let Some((before, behind)) = rest.split_once('_') {
        text.push_str(before);
        if let Some(behind) = behind.strip_prefix('_') {
            text.push('_');
            rest = behind;
            continue;
        }
        let Some((digits, behind)) = behind.split_once('_') else { return plain() };
        let Some(c) = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32) else { return plain() };
        text.push(c);
        rest = behind;
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::unescaped;

    #[test]
    fn names_that_a_path_cannot_have() {
        for (name, expected) in [
            ("instance", "instance"),
            ("U__service_2e_name", "service.name"),
            ("U__a__b", "a_b"),
            ("U__a_zz_b", "U__a_zz_b"),
            ("U__a_2", "U__a_2"),
        ] {
            assert_eq!(unescaped(name), expected);
        }
    }
}
