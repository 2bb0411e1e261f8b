//! What each tick is of interest for: the rules that read it, and which of its values are others than before.

use std::{
    collections::HashMap,
    iter, mem,
    ops::Range,
    sync::{Arc, Weak},
};

use belfry_common::model::{Layout, Raw, Tick};
use belfry_store::NodeId;

use crate::{
    alerts::{Engine, Interest},
    series::dcgm,
};

/// Layouts and groups that are remembered: twelve groups of 5,000 nodes. Beyond that all are forgotten and found again.
const LAYOUTS_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Interests {
    /// By the layout's address. The weak reference keeps the address from being given to another, and lets the series go.
    of_layouts: HashMap<usize, (Weak<Layout>, Known)>,
    /// What was read last of each group of each node.
    former: HashMap<(NodeId, u16), Former>,
}

/// Of what interest the ticks of one layout are.
#[derive(Debug, Clone, Default)]
struct Known {
    interest: Interest,
    /// Places of series of one metric that stand together.
    runs: Arc<[Range<usize>]>,
    /// The runs that some rule reads, by their places, ascending: what nobody reads is not compared.
    read: Arc<[usize]>,
}

impl Known {
    /// The values of what is read, run by run.
    fn read_of<'a>(&'a self, tick: &'a Tick) -> impl Iterator<Item = (usize, &'a [Raw])> {
        let run = |&place: &usize| Some((place, tick.values.get(self.runs.get(place)?.clone())?));
        self.read.iter().filter_map(run)
    }
}

#[derive(Debug, Default)]
struct Former {
    known: Known,
    /// Of what is read, run by run.
    values: Vec<Raw>,
}

impl Former {
    /// Whether each run that is read is other than before, which is now as in this tick.
    fn take(&mut self, known: &Known, tick: &Tick) -> Vec<bool> {
        let mut changed = vec![false; known.runs.len()];
        let mut before = self.values.as_mut_slice();
        for (place, now) in known.read_of(tick) {
            let (former, rest) = mem::take(&mut before).split_at_mut_checked(now.len()).unwrap_or_default();
            before = rest;
            let is_other = former != now;
            changed.get_mut(place).into_iter().for_each(|run| *run = is_other);
            if is_other && former.len() == now.len() {
                former.copy_from_slice(now);
            }
        }
        changed
    }
}

/// What the rules are to be told of a tick.
#[derive(Debug)]
pub(super) struct News {
    pub(super) interest: Interest,
    /// Whether anything of each run is other than before; nothing if there is no before.
    pub(super) changed: Option<Vec<bool>>,
    /// Of what interest the group's tick before was, where it had other series: one that has gone is in no tick any more, and the
    /// rules that read it are to know.
    pub(super) gone: Option<Interest>,
}

impl Interests {
    /// Takes a tick in, which is newer than all before of its group.
    pub(super) fn of(&mut self, engine: &Engine, node: NodeId, tick: &Tick) -> News {
        let known = self.known(engine, &tick.layout);
        let interest = known.interest.clone();
        if self.former.len() >= LAYOUTS_MAX {
            self.former.clear();
        }
        let former = self.former.entry((node, tick.layout.group)).or_default();
        if former.known.interest.is_same(&interest) && former.known.runs == known.runs {
            return News { interest, changed: Some(former.take(&known, tick)), gone: None };
        }
        let values = known.read_of(tick).flat_map(|(_, values)| values).copied().collect();
        let before = mem::replace(former, Former { known, values });
        let gone = Some(before.known.interest).filter(|before| !before.is_empty() && !before.is_same(&interest));
        News { interest, changed: None, gone }
    }

    /// Forgets nodes of which this says no, and layouts that are gone.
    pub(super) fn keep(&mut self, is_here: impl Fn(NodeId) -> bool) {
        self.former.retain(|&(node, _), _| is_here(node));
        let room = 2 * self.former.len();
        self.former.shrink_to(room);
        self.of_layouts.retain(|_, (layout, _)| layout.strong_count() > 0);
        let room = 2 * self.of_layouts.len();
        self.of_layouts.shrink_to(room);
    }

    fn known(&mut self, engine: &Engine, layout: &Arc<Layout>) -> Known {
        let address = Arc::as_ptr(layout) as usize;
        if let Some((_, known)) = self.of_layouts.get(&address)
            && engine.is_current(&known.interest)
        {
            return known.clone();
        }
        if self.of_layouts.len() >= LAYOUTS_MAX {
            self.of_layouts.clear();
        }
        let runs: Arc<[Range<usize>]> = runs(layout).collect();
        let metrics = runs.iter().filter_map(|run| layout.series.get(run.start));
        let interest = engine.interest(metrics.map(|series| {
            let own: &str = &series.metric.name;
            iter::once(own).chain(dcgm::names_of(own).map(|alias| -> &str { alias }))
        }));
        let read = interest.runs().into();
        let known = Known { interest, runs, read };
        self.of_layouts.insert(address, (Arc::downgrade(layout), known.clone()));
        known
    }
}

fn runs(layout: &Layout) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    layout.series.chunk_by(|one, next| one.metric.name == next.metric.name).map(move |run| {
        let start = end;
        end += run.len();
        start..end
    })
}

#[cfg(test)]
mod tests {
    use belfry_common::model::{Kind, Metric, Resolution, SeriesDefinition, Timestamp};

    use super::*;
    use crate::{
        alerts::Options,
        rules::{RuleSet, Source},
    };

    fn engine() -> Engine {
        let text = "groups: [{name: g, rules: [{alert: A, expr: a > 5}, {alert: B, expr: b > 5}]}]".to_owned();
        let rules = RuleSet::load(&[Source { name: "test".into(), text }]).unwrap();
        Engine::new(Arc::new(rules), Options::default(), 0)
    }

    fn layout(names: &[&str]) -> Arc<Layout> {
        let series = |name: &&str| {
            let metric = Arc::new(Metric::new(name, Kind::Gauge, Resolution::ONE, &[], "Test."));
            Arc::new(SeriesDefinition { metric, label_values: [].into() })
        };
        let series = names.iter().map(series).collect();
        Arc::new(Layout { group: 1, sampler: "test".into(), interval_ms: 1000, series })
    }

    fn tick(layout: &Arc<Layout>, values: &[i64]) -> Tick {
        let values = values.iter().map(|value| Raw::integer(*value)).collect();
        Tick { layout: Arc::clone(layout), time: Timestamp::from_millis(0), values }
    }

    #[test]
    fn what_changed_is_told_by_metric_and_node() {
        let (engine, mut interests, layout) = (engine(), Interests::default(), layout(&["a", "a", "b"]));
        let [one, other] = [NodeId(1), NodeId(2)];
        let mut changed = |node, values: &[i64]| interests.of(&engine, node, &tick(&layout, values)).changed;
        assert_eq!(changed(one, &[1, 2, 3]), None);
        assert_eq!(changed(one, &[1, 2, 3]), Some(vec![false, false]));
        assert_eq!(changed(one, &[1, 9, 3]), Some(vec![true, false]));
        assert_eq!(changed(one, &[1, 9, 4]), Some(vec![false, true]));
        assert_eq!(changed(other, &[1, 9, 4]), None);
    }

    #[test]
    fn what_is_remembered_of_a_node_goes_with_it() {
        let (engine, mut interests, layout) = (engine(), Interests::default(), layout(&["a"]));
        let changed = |interests: &mut Interests, node| interests.of(&engine, node, &tick(&layout, &[1])).changed;
        let [one, other] = [NodeId(1), NodeId(2)];
        assert_eq!([one, other].map(|node| changed(&mut interests, node)), [None, None]);
        interests.keep(|node| node == one);
        assert_eq!([one, other].map(|node| changed(&mut interests, node)), [Some(vec![false]), None]);
        drop(layout);
        interests.keep(|_| false);
        assert!(interests.former.is_empty() && interests.of_layouts.is_empty(), "{interests:?}");
    }

    #[test]
    fn rules_learn_that_a_series_has_gone() {
        let (engine, mut interests) = (engine(), Interests::default());
        let (both, one) = (layout(&["a", "b"]), layout(&["a"]));
        assert!(interests.of(&engine, NodeId(1), &tick(&both, &[1, 2])).gone.is_none());
        let news = interests.of(&engine, NodeId(1), &tick(&one, &[1]));
        assert_eq!((news.changed, news.gone.map(|gone| gone.len())), (None, Some(2)));
        assert!(interests.of(&engine, NodeId(1), &tick(&one, &[1])).gone.is_none());
    }
}
