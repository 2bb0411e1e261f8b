//! Where a series that comes from outside belongs: what `labels` makes of stored series, undone.

use super::{INSTANCE, JOB, xid};
use crate::fleet;

/// Whose a series is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The collector's own.
    Collector,
    /// Of the node that a label calls so.
    Node(String),
    /// No label says it.
    Nobody,
}

/// Whose a series with these labels is, and the labels under which it is stored there. `node_label` names the node, unless the series was
/// shown by a collector: then its job says so.
pub(crate) fn origin(
    metric: &str,
    mut labels: Vec<(String, String)>,
    node_label: &str,
) -> (Owner, Vec<(String, String)>) {
    let take = |name: &str, labels: &mut Vec<(String, String)>| {
        let place = labels.iter().position(|(known, _)| known == name)?;
        Some(labels.remove(place).1)
    };
    if !labels.iter().any(|(name, value)| (name.as_str(), value.as_str()) == JOB) {
        return (take(node_label, &mut labels).map_or(Owner::Nobody, Owner::Node), labels);
    }
    take(JOB.0, &mut labels);
    if fleet::is_of_collector(metric) {
        return (Owner::Collector, labels);
    }
    let owner = take(INSTANCE, &mut labels).map_or(Owner::Collector, Owner::Node);
    if matches!(owner, Owner::Node(_)) {
        labels.retain(|(name, _)| !xid::is_joined_to(metric, name));
        for (name, _) in &mut labels {
            match name.as_str() {
                "exported_instance" => INSTANCE.clone_into(name),
                "exported_job" => JOB.0.clone_into(name),
                _ => {}
            }
        }
        labels.sort_unstable();
    }
    (owner, labels)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use belfry_common::model::{Kind, Metric, Resolution, SeriesDefinition};
    use belfry_promql::METRIC_NAME;
    use proptest::prelude::*;

    use super::*;
    use crate::{series::labels, xid::Catalogue};

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    proptest! {
        #[test]
        fn what_queries_see_is_traced_back(
            metric in prop_oneof![Just("m"), Just("gpu_xid_errors_total"), Just("up")],
            values in proptest::collection::vec("[a-c79]{1,2}", 4),
            is_own: bool,
        ) {
            let names: &[&str] = if is_own { &["instance", "x"] } else { &["instance", "job", "xid", "z"] };
            prop_assume!(is_own || metric != "up");
            let metric = Arc::new(Metric::new(metric, Kind::Gauge, Resolution::ONE, names, ""));
            let label_values = values.iter().take(names.len()).map(|value| value.as_str().into()).collect();
            let definition = SeriesDefinition { metric: Arc::clone(&metric), label_values };
            prop_assume!(!is_own || &*metric.name == "up");
            let shown = labels(&definition, "n", is_own, &Catalogue::built_in());
            let shown = shown.iter().filter(|(name, _)| *name != METRIC_NAME);
            let shown = shown.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let own: Vec<(String, String)> =
                names.iter().zip(&values).map(|(name, value)| (name.to_string(), value.clone())).collect();
            let owner = if is_own { Owner::Collector } else { Owner::Node("n".into()) };
            prop_assert_eq!(origin(&metric.name, shown, "instance"), (owner, own));
        }
    }

    #[test]
    fn what_others_have_keeps_its_job_and_loses_the_label_that_names_the_node() {
        let shown = pairs(&[("host", "a"), ("instance", "a:9100"), ("job", "node")]);
        let (owner, kept) = origin("up", shown.clone(), "instance");
        assert_eq!((owner, kept), (Owner::Node("a:9100".into()), pairs(&[("host", "a"), ("job", "node")])));
        let (owner, kept) = origin("up", shown, "host");
        assert_eq!((owner, kept), (Owner::Node("a".into()), pairs(&[("instance", "a:9100"), ("job", "node")])));
        assert_eq!(origin("up", pairs(&[("job", "node")]), "instance").0, Owner::Nobody);
        assert_eq!(origin("x", pairs(&[("job", "belfry")]), "instance"), (Owner::Collector, Vec::new()));
    }
}
