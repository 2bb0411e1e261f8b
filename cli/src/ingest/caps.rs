//! Holds a node to its number of series: those that it had first stay, what is beyond is left out and counted.
//!
//! Pure. The journal and the head never see what is left out.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use belfry_common::model::{Batch, Layout, SeriesDefinition, Tick};

/// One node's cap.
#[derive(Debug)]
pub(super) struct SeriesCap {
    series_max: usize,
    groups: HashMap<u16, Group>,
    /// Reported last.
    left_out: u64,
}

#[derive(Debug)]
struct Group {
    given: Arc<Layout>,
    kept: Arc<Layout>,
    /// Places of the given layout that are kept; none if all are.
    places: Option<Vec<usize>>,
}

impl SeriesCap {
    pub(super) fn new(series_max: usize) -> Self {
        Self { series_max, groups: HashMap::new(), left_out: 0 }
    }

    /// The batch as it may be, and how many series are left out of all groups if that has changed.
    pub(super) fn apply(&mut self, mut batch: Batch) -> (Batch, Option<u64>) {
        let mut has_changed = false;
        for tick in &mut batch.ticks {
            let known = self.groups.get(&tick.layout.group);
            if known.is_none_or(|group| !Arc::ptr_eq(&group.given, &tick.layout)) {
                has_changed = true;
                self.learn(&tick.layout);
            }
            if let Some(group) = self.groups.get(&tick.layout.group) {
                group.trim(tick);
            }
        }
        if !has_changed {
            return (batch, None);
        }
        let left_out =
            self.groups.values().map(|group| (group.given.series.len() - group.kept.series.len()) as u64).sum();
        let news = (left_out != self.left_out).then_some(left_out);
        self.left_out = left_out;
        (batch, news)
    }

    fn learn(&mut self, given: &Arc<Layout>) {
        let before = self.groups.remove(&given.group);
        let others: usize = self.groups.values().map(|group| group.kept.series.len()).sum();
        let room = self.series_max.saturating_sub(others);
        let group = if given.series.len() <= room {
            Group { given: Arc::clone(given), kept: Arc::clone(given), places: None }
        } else {
            Group::limited(given, before.as_ref().map(|group| &*group.kept), room)
        };
        self.groups.insert(given.group, group);
    }
}

impl Group {
    fn limited(given: &Arc<Layout>, before: Option<&Layout>, room: usize) -> Self {
        let before: HashSet<&Arc<SeriesDefinition>> = before.iter().flat_map(|before| &before.series).collect();
        let is_old = |series: &Arc<SeriesDefinition>| before.contains(series);
        let (mut places, new): (Vec<usize>, Vec<usize>) =
            (0..given.series.len()).partition(|&place| given.series.get(place).is_some_and(is_old));
        places.truncate(room);
        places.extend(new.into_iter().take(room.saturating_sub(places.len())));
        places.sort_unstable();
        let series = places.iter().filter_map(|&place| given.series.get(place).cloned()).collect();
        let kept = Layout { series, sampler: given.sampler.clone(), ..**given };
        Self { given: Arc::clone(given), kept: Arc::new(kept), places: Some(places) }
    }

    fn trim(&self, tick: &mut Tick) {
        if let Some(places) = &self.places {
            tick.values = places.iter().filter_map(|&place| tick.values.get(place).copied()).collect();
            tick.layout = Arc::clone(&self.kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use belfry_common::model::{Kind, Metric, Raw, Resolution, Timestamp};

    use super::*;

    fn batch(group: u16, devices: std::ops::Range<i64>) -> Batch {
        let metric = Arc::new(Metric::new("m", Kind::Gauge, Resolution::ONE, &["d"], ""));
        let series = devices.clone().map(|device| {
            let label_values = Box::new([device.to_string().into()]);
            Arc::new(SeriesDefinition { metric: Arc::clone(&metric), label_values })
        });
        let layout = Arc::new(Layout { group, sampler: "s".into(), interval_ms: 1000, series: series.collect() });
        let values = devices.map(Raw::integer).collect();
        Batch { ticks: vec![Tick { layout, time: Timestamp::default(), values }] }
    }

    fn values(batch: &Batch) -> Vec<i64> {
        assert_eq!(batch.ticks[0].values.len(), batch.ticks[0].layout.series.len());
        batch.ticks[0].values.iter().map(|raw| raw.bits()).collect()
    }

    #[test]
    fn who_was_first_stays_and_the_rest_is_counted() {
        let mut cap = SeriesCap::new(10);
        let (first, left_out) = cap.apply(batch(1, 0..6));
        assert_eq!((values(&first), left_out), (vec![0, 1, 2, 3, 4, 5], None));
        let (bomb, left_out) = cap.apply(batch(2, 100..1_000));
        assert_eq!((values(&bomb), left_out), (vec![100, 101, 102, 103], Some(896)));
        let (grown, left_out) = cap.apply(batch(2, 50..200));
        assert_eq!(values(&grown), [100, 101, 102, 103], "the ones that were there");
        assert_eq!(left_out, Some(146));
        let (calm, left_out) = cap.apply(batch(2, 100..101));
        assert_eq!((values(&calm), left_out), (vec![100], Some(0)));
    }
}
