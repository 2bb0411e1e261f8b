//! What a shell offers while a command is typed: `source <(COMPLETE=bash belfry)` and its like for zsh and fish.
//!
//! Names are the collector's own: of metrics, of their labels, of the values of these, of nodes. A collector that is not reached within a
//! moment offers none.

use std::{env, ffi::OsStr, future::Future, path::PathBuf, time::Duration};

use clap_complete::CompletionCandidate;

use super::Global;
use crate::{
    api::{QueryAnswer, Request},
    client::Client,
};

/// People wait for it with a finger on the key.
const PATIENCE: Duration = Duration::from_secs(1);
/// More than this nobody reads.
const OFFERS_MAX: usize = 500;

/// What can stand at the end of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place<'t> {
    /// A metric or a function that begins so.
    Name(&'t str),
    /// A label that begins so, of this metric if it is known.
    Label { metric: &'t str, begin: &'t str },
    /// A value that begins so of a label of a metric.
    Value { metric: &'t str, label: &'t str, begin: &'t str },
    /// Nothing that has a name.
    Nothing,
}

impl<'t> Place<'t> {
    fn begin(self) -> &'t str {
        match self {
            Self::Name(begin) | Self::Label { begin, .. } | Self::Value { begin, .. } => begin,
            Self::Nothing => "",
        }
    }

    /// Where an expression that is being typed ends.
    fn at_end_of(text: &'t str) -> Self {
        let (mut quote, mut brace, mut parenthesis) = (None, None, None);
        for (at, c) in text.char_indices() {
            match (quote, c) {
                (Some((_, open)), c) if c == open => quote = None,
                (None, '"' | '\'' | '`') => quote = Some((at, c)),
                (None, '{') => brace = Some(at),
                (None, '}') => brace = None,
                (None, '(') => parenthesis = Some(at),
                (None, ')') => parenthesis = None,
                _ => {}
            }
        }
        let before = |at: usize| text.get(..at).unwrap_or_default();
        match (quote, brace) {
            (Some((at, _)), Some(open)) => {
                let label = before(at).trim_end_matches(['=', '~', '!', ' ']);
                let begin = text.get(at + 1..).unwrap_or_default();
                Self::Value { metric: word(before(open).trim_end()), label: word(label), begin }
            }
            (Some(_), None) => Self::Nothing,
            (None, Some(open)) => Self::Label { metric: word(before(open).trim_end()), begin: word(text) },
            (None, None) => {
                let lists_labels = parenthesis.is_some_and(|open| {
                    let keyword = word(before(open).trim_end());
                    ["by", "without", "on", "ignoring", "group_left", "group_right"].contains(&keyword)
                });
                if lists_labels { Self::Label { metric: "", begin: word(text) } } else { Self::Name(word(text)) }
            }
        }
    }
}

/// The name that a text ends with.
fn word(text: &str) -> &str {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let begin = text.char_indices().rev().take_while(|(_, c)| is_part(*c)).last().map_or(text.len(), |(at, _)| at);
    text.get(begin..).unwrap_or_default()
}

/// Continues a PromQL expression.
pub(super) fn expression(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(text) = current.to_str() else { return Vec::new() };
    // What is typed within quotes may come with the first of them.
    let inner = text.strip_prefix(['\'', '"']).unwrap_or(text);
    let place = Place::at_end_of(inner);
    let kept = inner.strip_suffix(place.begin()).unwrap_or(inner);
    let mut names = asked(async |client| names_at(&client, place).await);
    if let Place::Name(begin) = place {
        names.extend(belfry_promql::function_names().filter(|name| name.starts_with(begin)).map(str::to_owned));
    }
    names.sort();
    names.dedup();
    names.into_iter().take(OFFERS_MAX).map(|name| CompletionCandidate::new(format!("{kept}{name}"))).collect()
}

/// Nodes by their names.
pub(super) fn node(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(begin) = current.to_str() else { return Vec::new() };
    let names = asked(async |client| {
        let nodes: Vec<serde_json::Value> = client.ask(&Request::Nodes).await.ok()?;
        Some(nodes.iter().filter_map(|node| Some(node.get("name")?.as_str()?.to_owned())).collect())
    });
    names.into_iter().filter(|name| name.starts_with(begin)).take(OFFERS_MAX).map(CompletionCandidate::new).collect()
}

async fn names_at(client: &Client, place: Place<'_>) -> Option<Vec<String>> {
    let quoted = |text: &str| format!("{:?}", format!("{}.*", regex::escape(text)));
    let (expression, label) = match place {
        Place::Name(begin) => (format!("group by (__name__) ({{__name__=~{}}})", quoted(begin)), Some("__name__")),
        Place::Label { metric: "", .. } => ("limitk(1000, {__name__=~\".+\"})".to_owned(), None),
        Place::Label { metric, .. } => (format!("limitk(100, {metric})"), None),
        Place::Value { metric, label, begin } => {
            (format!("group by ({label}) ({metric}{{{label}=~{}}})", quoted(begin)), Some(label))
        }
        Place::Nothing => return None,
    };
    let timeout_ms = super::millis(PATIENCE);
    let request = Request::Query { expression, start_ms: None, end_ms: None, step_ms: None, timeout_ms };
    let answer: QueryAnswer = client.ask(&request).await.ok()?;
    let of_series = answer.series.into_iter().map(|series| series.labels);
    let mut names: Vec<String> = match label {
        Some(label) => of_series.filter_map(|mut labels| labels.remove(label)).collect(),
        None => of_series.flat_map(|labels| labels.into_keys()).filter(|name| name != "__name__").collect(),
    };
    names.retain(|name| name.starts_with(place.begin()));
    Some(names)
}

/// What the collector answers, if it does in time.
fn asked<F: Future<Output = Option<Vec<String>>>>(ask: impl FnOnce(Client) -> F) -> Vec<String> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let global = Global { identity: env::var_os("BELFRY_IDENTITY").map(PathBuf::from), ..Global::default() };
    let names = async {
        let client = Client::connect(&global).await.ok()?;
        ask(client).await
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, names).await.ok().flatten() }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_expressions() {
        let name = Place::Name;
        let label = |metric, begin| Place::Label { metric, begin };
        let value = |metric, label, begin| Place::Value { metric, label, begin };
        for (text, place) in [
            ("", name("")),
            ("node_", name("node_")),
            ("sum(rate(node_cp", name("node_cp")),
            ("up == 1 and gpu", name("gpu")),
            ("node_load1{", label("node_load1", "")),
            ("rate(node_cpu_seconds_total{mode=\"idle\",cp", label("node_cpu_seconds_total", "cp")),
            ("up{instance=\"a\"} * gpu_", name("gpu_")),
            ("up{instance=\"sim-0", value("up", "instance", "sim-0")),
            ("up{job!=\"x\", instance =~ \"si", value("up", "instance", "si")),
            ("{__name__=\"u", value("", "__name__", "u")),
            ("avg by (inst", label("", "inst")),
            ("avg by (instance) (gpu", name("gpu")),
            ("label_replace(up, \"a", Place::Nothing),
        ] {
            assert_eq!(Place::at_end_of(text), place, "{text}");
        }
    }
}
