//! `/federate`: newest values, for a Prometheus that scrapes them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use belfry_common::clock;
use belfry_promql::{Labels, METRIC_NAME, PlanOptions, Sample, is_stale};

use super::{
    App,
    envelope::ApiError,
    exposition,
    parameters::{Parameters, Period},
    series::{Selectors, visit, within},
};
use crate::queries::TIMEOUT_MAX;

/// Most series in one answer: a hundred megabytes of text.
const SERIES_MAX: usize = 500_000;

pub(super) async fn federate(State(app): State<App>, parameters: Parameters) -> Result<Response, ApiError> {
    let selectors = Selectors::needed(&parameters)?;
    let types: HashMap<String, &str> = {
        let metrics = app.services.head.metrics();
        metrics.iter().map(|metric| (metric.name.to_string(), metric.kind.prometheus_type())).collect()
    };
    let end_ms = clock::now().as_millis();
    let period = Period { start_ms: end_ms - PlanOptions::default().lookback_ms + 1, end_ms };
    let found = app.services.queries.read(TIMEOUT_MAX, move |reader, patience| {
        let mut found: BTreeMap<Labels, Sample> = BTreeMap::new();
        for matchers in selectors.parsed()? {
            visit(reader, &matchers, &period, patience, |labels, samples| {
                if let Some(newest) = samples.last().filter(|newest| !is_stale(newest.value)) {
                    found.insert(labels.clone(), newest);
                }
                within(found.len(), SERIES_MAX)
            })?;
        }
        Ok::<_, ApiError>(text(&found, &types))
    });
    let text = found.await??;
    Ok(([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response())
}

/// In the order of names, each with its type before it.
fn text(found: &BTreeMap<Labels, Sample>, types: &HashMap<String, &str>) -> String {
    let mut rows: Vec<(&str, &Labels, &Sample)> =
        found.iter().map(|(labels, sample)| (labels.value(METRIC_NAME), labels, sample)).collect();
    rows.sort_by_key(|(name, ..)| *name);
    let mut text = String::new();
    let mut before = None;
    for (name, labels, sample) in rows {
        if before.replace(name) != Some(name) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# TYPE {name} {}", types.get(name).unwrap_or(&"untyped"));
        }
        exposition::sample(&mut text, labels, sample.value, sample.time_ms);
    }
    text
}
