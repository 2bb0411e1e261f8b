//! What a query asks of the store.

use belfry_common::model::{SeriesDefinition, Timestamp};
use belfry_promql::{METRIC_NAME, MatchOp, Matcher, Needed, ReadRequest, Summary};
use belfry_store::{Grain, Pick, Selection, TimeRange};

use super::{
    INSTANCE, JOB,
    dcgm::{self, Alias},
};

/// A request, taken apart.
pub(super) struct Wanted<'a> {
    /// The only name that can match, if there is one.
    pub(super) metric: Option<&'a str>,
    /// What else is asked of the name.
    pub(super) names: Vec<&'a Matcher>,
    pub(super) instance: Vec<&'a Matcher>,
    /// Of all other labels, the name among them unless it is `metric`.
    pub(super) others: Vec<&'a Matcher>,
    pub(super) range: TimeRange,
    pub(super) pick: Pick,
    pub(super) summary: Summary,
}

impl<'a> Wanted<'a> {
    /// `None` if nothing can match.
    pub(super) fn of(request: &ReadRequest<'a>) -> Option<Self> {
        let range = TimeRange {
            after: Timestamp::from_millis(request.start_ms),
            until: Timestamp::from_millis(request.end_ms),
        };
        let (names, instance, others) = (Vec::new(), Vec::new(), Vec::new());
        let (pick, summary) = (pick(request.needed), request.summary);
        let mut wanted = Self { metric: None, names, instance, others, range, pick, summary };
        for matcher in request.matchers {
            match matcher.name() {
                METRIC_NAME if matcher.op() == MatchOp::Equal && wanted.metric.is_none() => {
                    wanted.metric = Some(matcher.value());
                }
                METRIC_NAME => {
                    wanted.names.push(matcher);
                    wanted.others.push(matcher);
                }
                INSTANCE => wanted.instance.push(matcher),
                name if name == JOB.0 && matcher.matches(JOB.1) => {}
                name if name == JOB.0 => return None,
                _ => wanted.others.push(matcher),
            }
        }
        Some(wanted)
    }

    pub(super) fn selection<'b>(
        &'b self,
        metric: Option<&'b str>,
        filter: &'b (dyn Fn(&SeriesDefinition) -> bool + Sync),
    ) -> Selection<'b> {
        Selection { metric, conditions: &[], filter, range: self.range, pick: self.pick, grain: Grain::Raw }
    }

    /// Whether series of this name are asked for.
    pub(super) fn may_be(&self, name: &str) -> bool {
        self.metric.is_none_or(|metric| metric == name) && self.names.iter().all(|matcher| matcher.matches(name))
    }

    /// Names of DCGM's that are asked for. Who asks for series of whatever name does not ask for the same twice.
    pub(super) fn aliases(&self) -> impl Iterator<Item = &'static Alias> {
        let is_named = self.metric.map_or_else(
            || self.names.iter().any(|matcher| matcher.value().contains(dcgm::WORD)),
            |metric| metric.starts_with(dcgm::PREFIX),
        );
        let all = if is_named { dcgm::ALIASES } else { &[] };
        all.iter().filter(|alias| self.may_be(alias.name))
    }
}

fn pick(needed: Needed) -> Pick {
    match needed {
        Needed::All => Pick::All,
        Needed::Newest => Pick::Newest,
        Needed::EachStep { end_ms, step_ms } => Pick::EachStep { end: Timestamp::from_millis(end_ms), step_ms },
    }
}
