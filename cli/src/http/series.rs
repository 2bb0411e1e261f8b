//! `series`, `labels`, `label/NAME/values` and `metadata`: what there is to ask for.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
};

use axum::extract::{Path, State};
use belfry_common::{clock, error_chain::ErrorChain};
use belfry_promql::{Labels, Matcher, Needed, Plan, ReadRequest, Sample, SeriesReader as _};
use serde::Serialize;

use super::{
    App,
    envelope::{ApiError, Data, ErrorType},
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
pub(super) async fn series(
    State(app): State<App>,
    parameters: Parameters,
) -> Result<Data<Vec<BTreeMap<String, String>>>, ApiError> {
    let selectors = selectors(&parameters, "match[]")?;
    if selectors.is_empty() {
        return Err(ApiError::new(ErrorType::BadData, "no match[] parameter provided"));
    }
    let gather = |labels: &Labels, found: &mut BTreeSet<Labels>| {
        found.insert(labels.clone());
    };
    let found = gathered(&app, &parameters, selectors, gather).await?;
    let pairs = |labels: Labels| labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(Data { data: found.data.into_iter().map(pairs).collect(), warnings: found.warnings })
}

/// `labels`: names of labels, of all series or of those that selectors match.
pub(super) async fn names(State(app): State<App>, parameters: Parameters) -> Result<Data<Vec<String>>, ApiError> {
    let selectors = or_all(selectors(&parameters, "match[]")?);
    let gather = |labels: &Labels, found: &mut BTreeSet<String>| labels.iter().for_each(|(name, _)| add(name, found));
    gathered(&app, &parameters, selectors, gather).await
}

/// `label/NAME/values`: values of one label, of all series or of those that selectors match.
pub(super) async fn values(
    State(app): State<App>,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Result<Data<Vec<String>>, ApiError> {
    let name = unescaped(&name);
    if name.is_empty() {
        return Err(ApiError::new(ErrorType::BadData, format!("invalid label name: {name:?}")));
    }
    let selectors = or_all(selectors(&parameters, "match[]")?);
    let gather = move |labels: &Labels, found: &mut BTreeSet<String>| {
        labels.get(&name).into_iter().for_each(|value| add(value, found));
    };
    gathered(&app, &parameters, selectors, gather).await
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

/// The matchers of each selector of a parameter.
pub(super) fn selectors(parameters: &Parameters, name: &str) -> Result<Vec<Arc<[Matcher]>>, ApiError> {
    let selector = |text: &str| {
        let plan = Plan::parse(text).map_err(|error| invalid(name, &ErrorChain(&error).to_string()))?;
        match (plan.is_instant_selector(), plan.selectors().pop()) {
            (true, Some(selector)) => Ok(selector.matchers.into()),
            _ => Err(invalid(name, &format!("{text:?} is no selector"))),
        }
    };
    parameters.all(name).map(selector).collect()
}

/// Without any selector, everything is asked for.
fn or_all(selectors: Vec<Arc<[Matcher]>>) -> Vec<Arc<[Matcher]>> {
    if selectors.is_empty() { vec![Arc::from([])] } else { selectors }
}

/// What `gather` makes of all series that match within the period that is asked for, in order, and no more than was asked for.
async fn gathered<T: Ord + Send + 'static>(
    app: &App,
    parameters: &Parameters,
    selectors: Vec<Arc<[Matcher]>>,
    gather: impl Fn(&Labels, &mut BTreeSet<T>) + Send + 'static,
) -> Result<Data<Vec<T>>, ApiError> {
    let period = Period::of(parameters, clock::now(), PERIOD_MS)?;
    let limit = parameters.limit("limit")?.unwrap_or(usize::MAX);
    let timeout = parameters.timeout()?.unwrap_or(TIMEOUT_MAX);
    let found = app.services.queries.read(timeout, move |reader, patience| {
        let mut found = BTreeSet::new();
        for matchers in selectors {
            visit(reader, &matchers, &period, patience, |labels, _| {
                gather(labels, &mut found);
                within(found.len(), SERIES_MAX)
            })?;
        }
        Ok::<_, ApiError>(found)
    });
    let found = found.await??;
    let is_truncated = found.len() > limit;
    Ok(Data::truncated(found.into_iter().take(limit).collect(), is_truncated))
}

/// Visits all series that have a sample in a period, each with its newest.
pub(super) fn visit(
    reader: &StoreReader,
    matchers: &[Matcher],
    period: &Period,
    patience: &Patience,
    mut each: impl FnMut(&Labels, &[Sample]) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let Period { start_ms, end_ms } = *period;
    let request = ReadRequest { matchers, start_ms: start_ms - 1, end_ms, needed: Needed::Newest };
    let mut result = Ok(());
    let mut visitor = |labels: &Labels, samples: &[Sample]| {
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
