//! The alerts that stand, for people.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::Deserialize;

use super::{
    Look,
    style::Style,
    table::{Cell, Column, Fit, Table},
    units::{MISSING, age_of},
};

/// An alert as the collector lists it: the part that a person is shown.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct StandingAlert {
    /// `pending`, `firing` or `recovering`: firing still, though the condition has ceased.
    pub(crate) state: String,
    pub(crate) rule: String,
    pub(crate) severity: Option<String>,
    pub(crate) fingerprint: String,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) active_at: String,
    pub(crate) fired_at: Option<String>,
    /// Since when there is no data that could confirm or contradict it.
    pub(crate) no_data_since: Option<String>,
}

/// Of a time to the second, as in `2026-11-23T14:03:27`.
const SECOND_BYTES: usize = 19;

/// How much an alert wants of people, by the words that the field uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// `info`, and `none` of the watchdogs that always fire.
    Info,
    Warning,
    Critical,
}

impl StandingAlert {
    /// The node that it is about; the whole fleet otherwise.
    pub(crate) fn node(&self) -> Option<&str> {
        self.labels.get("instance").map(String::as_str)
    }

    pub(crate) fn is_firing(&self) -> bool {
        self.state != "pending"
    }

    pub(crate) fn urgency(&self) -> Urgency {
        urgency(self.severity.as_deref())
    }

    /// What it says: its summary, or else its name.
    pub(crate) fn words(&self) -> &str {
        self.annotations.get("summary").filter(|summary| !summary.is_empty()).unwrap_or(&self.rule)
    }

    /// As [`Self::words`], beside the name of the node.
    pub(crate) fn words_beside_node(&self) -> &str {
        let words = self.words();
        let without = self.node().and_then(|node| words.strip_prefix(node)).filter(|rest| rest.starts_with([' ', ':']));
        without.map(|rest| rest.trim_start_matches([' ', ':'])).filter(|rest| !rest.is_empty()).unwrap_or(words)
    }

    /// What is most urgent comes first; of what began within one second, the GPUs in their order.
    pub(crate) fn order(&self) -> impl Ord + use<> {
        let second = self.active_at.get(..SECOND_BYTES).unwrap_or(&self.active_at).to_owned();
        let gpu = self.labels.get("gpu").and_then(|gpu| gpu.parse::<u32>().ok());
        let node = self.node().map(str::to_owned);
        (Reverse(self.is_firing()), Reverse(self.urgency()), second, self.rule.clone(), node, gpu)
    }

    pub(crate) fn style(&self) -> Style {
        style(self.is_firing(), self.urgency())
    }
}

pub(crate) fn urgency(severity: Option<&str>) -> Urgency {
    match severity {
        Some("critical" | "page" | "emergency") => Urgency::Critical,
        Some("info" | "none") => Urgency::Info,
        _ => Urgency::Warning,
    }
}

pub(crate) fn style(is_firing: bool, urgency: Urgency) -> Style {
    match urgency {
        Urgency::Critical if is_firing => Style::Bad,
        Urgency::Warning if is_firing => Style::Warning,
        _ => Style::Plain,
    }
}

const COLUMNS: &[Column] = &[
    Column::left("STATE", Fit::Always),
    Column::left("SEVERITY", Fit::Always),
    Column::right("FOR", Fit::Always),
    Column::left("NODE", Fit::Name(32)),
    Column::left("ALERT", Fit::Flexible(16)),
    Column::left("SUMMARY", Fit::Flexible(20)),
    Column::left("LABELS", Fit::Droppable),
];

/// The labels that have a column of their own, or are on every series.
const SHOWN_LABELS: [&str; 5] = ["alertname", "severity", "instance", "job", "__name__"];

/// One line an alert, the most urgent first.
pub(crate) fn table(alerts: &[StandingAlert], look: &Look) -> String {
    if alerts.is_empty() {
        return "no alerts\n".to_string();
    }
    let mut alerts: Vec<&StandingAlert> = alerts.iter().collect();
    alerts.sort_by_cached_key(|alert| alert.order());
    let rows = alerts.iter().map(|alert| {
        let style = alert.style();
        let state =
            if alert.no_data_since.is_some() { format!("{} (no data)", alert.state) } else { alert.state.clone() };
        let since = alert.fired_at.as_ref().unwrap_or(&alert.active_at);
        let labels = alert.labels.iter().filter(|(name, _)| !SHOWN_LABELS.contains(&name.as_str()));
        let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={value:?}")).collect();
        vec![
            Cell::new(&state, style),
            Cell::new(alert.severity.as_deref().unwrap_or(MISSING), style),
            Cell::known(age_of(since, look.now)),
            Cell::plain(alert.node().unwrap_or(MISSING)),
            Cell::plain(&alert.rule),
            Cell::plain(if alert.words() == alert.rule { "" } else { alert.words_beside_node() }),
            Cell::new(&labels.join(","), Style::Dim),
        ]
    });
    Table { columns: COLUMNS, rows: rows.collect() }.render(look)
}

#[cfg(test)]
pub(crate) mod tests {
    use expect_test::expect;

    use super::*;
    use crate::render::tests::look;

    pub(crate) fn alert(state: &str, severity: &str, node: Option<&str>, rule: &str, summary: &str) -> StandingAlert {
        let labels = node.map(|node| ("instance".to_string(), node.to_string()));
        StandingAlert {
            state: state.into(),
            rule: rule.into(),
            severity: Some(severity.into()),
            fingerprint: "00000000000000ab".into(),
            labels: labels.into_iter().collect(),
            annotations: BTreeMap::from([("summary".to_string(), summary.to_string())]),
            active_at: "2026-11-23T14:00:00.000Z".into(),
            fired_at: None,
            no_data_since: None,
        }
    }

    #[test]
    fn the_most_urgent_comes_first_and_text_cannot_act_on_the_terminal() {
        let mut hostile = alert("firing", "warning", Some("gpu-02"), "Odd", "\u{1b}]0;owned\u{7}\r\nall is well");
        hostile.labels.insert("gpu".into(), "3\u{202e}".into());
        let alerts = [
            alert("pending", "critical", Some("gpu-01"), "Hot", ""),
            hostile,
            alert("recovering", "critical", None, "ManyNodesUnreachable", "7 nodes are unreachable at once"),
        ];
        expect![[r#"
            STATE       SEVERITY  FOR  NODE    ALERT                 SUMMARY                             LABELS
            recovering  critical   3m  –       ManyNodesUnreachable  7 nodes are unreachable at once
            firing      warning    3m  gpu-02  Odd                   \u{1b}]0;owned\u{7}\r\nall is well  gpu="3\u{202e}"
            pending     critical   3m  gpu-01  Hot
        "#]]
        .assert_eq(&table(&alerts, &look(None)));
    }

    #[test]
    fn the_collectors_list_is_understood() {
        let json = r#"[{"state":"firing","rule":"Hot","group":"g","severity":null,"fingerprint":"00000000000000ab",
            "labels":{"instance":"a"},"annotations":{},"value":"NaN","active_at":"2026-11-23T14:00:00.000Z",
            "fired_at":null,"keep_firing_since":null,"no_data_since":null}]"#;
        let alerts: Vec<StandingAlert> = serde_json::from_str(json).unwrap();
        assert_eq!(alerts[0].words(), "Hot");
        assert_eq!(alerts[0].urgency(), Urgency::Warning, "an alert that does not say how urgent it is");
    }
}
