//! Which series a person asks for: PromQL selectors, or globs of metric names.

use belfry_common::error_chain::ErrorChain;
use belfry_promql::{Labels, METRIC_NAME, Matcher, Plan, PlanOptions, Selector};
use thiserror::Error;

use super::{INSTANCE, dcgm};
use crate::glob;

/// A series is wanted if one of them says so. No wish means everything.
#[derive(Debug, Default)]
pub(crate) struct Wishes(Vec<Wish>);

#[derive(Debug)]
enum Wish {
    Glob(String),
    Selector(Selector),
}

/// Words that ask for no series.
#[derive(Debug, Error)]
#[error("{text:?} is no selector: {why}")]
pub(crate) struct WishError {
    text: String,
    why: String,
}

impl Wishes {
    /// # Errors
    /// [`WishError`] for the first that is neither a selector nor a glob.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, WishError> {
        texts.iter().map(|text| wish(text)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a name of DCGM's is asked for. Who asks for everything does not ask for the same twice.
    pub(crate) fn with_dcgm(&self) -> bool {
        self.0.iter().any(|wish| match wish {
            Wish::Glob(pattern) => pattern.starts_with(dcgm::WORD),
            Wish::Selector(selector) => of_label(selector, METRIC_NAME).any(|name| name.value().contains(dcgm::WORD)),
        })
    }

    /// Whether a series with these labels is wanted.
    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.any(|wish| match wish {
            Wish::Glob(pattern) => glob::matches(pattern, labels.value(METRIC_NAME)),
            Wish::Selector(selector) => {
                selector.matchers.iter().all(|matcher| matcher.matches(labels.value(matcher.name())))
            }
        })
    }

    /// Whether series of this metric can be wanted.
    pub(crate) fn may_be_of_metric(&self, name: &str) -> bool {
        self.any(|wish| match wish {
            Wish::Glob(pattern) => glob::matches(pattern, name),
            Wish::Selector(selector) => of_label(selector, METRIC_NAME).all(|matcher| matcher.matches(name)),
        })
    }

    /// Whether series of the node with this name can be wanted.
    pub(crate) fn may_be_of_node(&self, name: &str) -> bool {
        self.any(|wish| match wish {
            Wish::Glob(_) => true,
            Wish::Selector(selector) => of_label(selector, INSTANCE).all(|matcher| matcher.matches(name)),
        })
    }

    /// Whether a series with these labels can be wanted, of some node.
    pub(crate) fn may_be_series(&self, labels: &Labels) -> bool {
        self.any(|wish| match wish {
            Wish::Glob(pattern) => glob::matches(pattern, labels.value(METRIC_NAME)),
            Wish::Selector(selector) => {
                let mut others = selector.matchers.iter().filter(|matcher| matcher.name() != INSTANCE);
                others.all(|matcher| matcher.matches(labels.value(matcher.name())))
            }
        })
    }

    fn any(&self, holds: impl Fn(&Wish) -> bool) -> bool {
        self.0.is_empty() || self.0.iter().any(holds)
    }
}

/// What is asked of one label.
fn of_label<'a>(selector: &'a Selector, label: &'a str) -> impl Iterator<Item = &'a Matcher> {
    selector.matchers.iter().filter(move |matcher| matcher.name() == label)
}

fn wish(text: &str) -> Result<Wish, WishError> {
    if text.contains(['*', '?']) && !text.contains(['{', '[', '(']) {
        return Ok(Wish::Glob(text.to_string()));
    }
    let invalid = |why: String| WishError { text: text.to_owned(), why };
    let plan = Plan::parse(text).map_err(|error| invalid(ErrorChain(&error).to_string()))?;
    match (plan.is_instant_selector(), plan.selectors().pop()) {
        (true, Some(selector)) if selector.pinned || selector.before_ms != PlanOptions::default().lookback_ms => {
            Err(invalid("it says which series, not of when: leave out `offset` and `@`".into()))
        }
        (true, Some(selector)) => Ok(Wish::Selector(selector)),
        _ => Err(invalid("a plain selector such as `node_load1{instance=\"n\"}` or a glob of names is needed".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_wanted_includes_what_is() {
        let texts = [r#"up{instance="a"}"#, "node_*", r#"{__name__=~"gpu_.*",instance!="b"}"#].map(str::to_owned);
        let wishes = Wishes::parse(&texts).unwrap();
        let mut wanted = Vec::new();
        for metric in ["up", "node_load1", "gpu_x", "other"] {
            for node in ["a", "b"] {
                let labels = Labels::from_pairs([(METRIC_NAME, metric), (INSTANCE, node)]);
                if wishes.matches(&labels) {
                    assert!(wishes.may_be_of_metric(metric) && wishes.may_be_of_node(node), "{labels}");
                    assert!(wishes.may_be_series(&labels.with(INSTANCE, "")), "{labels}");
                    wanted.push(format!("{metric} {node}"));
                }
            }
        }
        assert_eq!(wanted, ["up a", "node_load1 a", "node_load1 b", "gpu_x a"]);
        assert!(!wishes.may_be_of_metric("other"));
        let of_one = Wishes::parse(&texts[..1]).unwrap();
        assert!(!of_one.may_be_of_node("b") && !of_one.may_be_of_metric("node_load1"));
        assert!(Wishes::default().matches(&Labels::empty()));
    }
}
