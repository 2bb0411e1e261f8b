//! Lines of `belfry alerts --follow`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{
    Look,
    alert::{style, urgency},
    machine,
    style::Style,
    text::{cut, escape, width},
    units::{MISSING, clock},
};

/// An event as the collector sends it: texts, so that a kind of event that a newer collector knows can be shown, too.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct EventLine {
    pub(crate) seq: u64,
    pub(crate) time: String,
    pub(crate) event: String,
    pub(crate) previous: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) rule: Option<String>,
    pub(crate) severity: Option<String>,
    pub(crate) fingerprint: Option<String>,
    pub(crate) dedup_key: Option<String>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) value: Value,
    pub(crate) starts_at: Option<String>,
    pub(crate) ends_at: Option<String>,
}

impl EventLine {
    /// Whether it only says that the stream is alive.
    pub(crate) fn is_heartbeat(&self) -> bool {
        self.event == "heartbeat"
    }
}

/// Aligns lines although it cannot know what is still to come.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    severity: usize,
    node: usize,
    rule: usize,
}

/// A longer word pushes the rest of its line to the right.
const WORD_WIDTH_MAX: usize = 24;

impl Columns {
    /// `14:03:27Z  firing    critical  gpu-02  GpuFellOffTheBus  GPU 3 has fallen off the bus`
    pub(crate) fn line(&mut self, event: &EventLine, look: &Look) -> String {
        let word = escape(&event.event);
        let urgency = urgency(event.severity.as_deref());
        let style = match word.as_str() {
            "firing" => style(true, urgency),
            "resolved" => Style::Good,
            _ => Style::Plain,
        };
        let severity = escape(event.severity.as_deref().unwrap_or(MISSING));
        let node = escape(event.labels.get("instance").map_or(MISSING, String::as_str));
        let rule = escape(event.rule.as_deref().unwrap_or(MISSING));
        let summary = escape(event.annotations.get("summary").map_or("", String::as_str));
        let time = escape(&clock(&event.time));
        let head = [
            Style::Dim.paint(&time, look.is_colored),
            style.paint(&pad(&word, &mut 12), look.is_colored),
            pad(&severity, &mut self.severity),
            pad(&node, &mut self.node),
            pad(&rule, &mut self.rule),
        ];
        let taken = width(&time) + 12 + self.severity + self.node + self.rule + 2 * head.len();
        let summary =
            look.width.map_or_else(|| summary.clone(), |width| cut(&summary, width.saturating_sub(taken).max(8)));
        format!("{}  {summary}", head.join("  ")).trim_end().to_string() + "\n"
    }
}

/// The text with spaces up to the widest so far.
fn pad(text: &str, widest: &mut usize) -> String {
    *widest = (*widest).max(width(text)).min(WORD_WIDTH_MAX);
    format!("{text}{}", " ".repeat(widest.saturating_sub(width(text))))
}

/// The names of [`csv_row`]'s fields.
pub(crate) const CSV_NAMES: [&str; 14] = [
    "seq",
    "time",
    "event",
    "previous",
    "reason",
    "rule",
    "severity",
    "fingerprint",
    "dedup_key",
    "labels",
    "annotations",
    "value",
    "starts_at",
    "ends_at",
];

/// Labels and annotations are one field each, JSON objects.
pub(crate) fn csv_row(event: &EventLine) -> Result<String, csv::Error> {
    let object = |map| serde_json::to_string(map).unwrap_or_default();
    machine::csv_row(&[
        event.seq.to_string(),
        event.time.clone(),
        event.event.clone(),
        machine::field(event.previous.as_ref()),
        machine::field(event.reason.as_ref()),
        machine::field(event.rule.as_ref()),
        machine::field(event.severity.as_ref()),
        machine::field(event.fingerprint.as_ref()),
        machine::field(event.dedup_key.as_ref()),
        object(&event.labels),
        object(&event.annotations),
        machine::value(&event.value),
        machine::field(event.starts_at.as_ref()),
        machine::field(event.ends_at.as_ref()),
    ])
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::render::tests::look;

    const FIRING: &str = r#"{"schema":1,"seq":7,"time":"2026-11-23T14:03:27.500Z","event":"firing","previous":"pending","reason":"held","rule":"Hot","severity":"critical","fingerprint":"00000000000000ab","dedup_key":"k","labels":{"instance":"gpu-01"},"annotations":{"summary":"\u001b[31m hot\n"},"value":91.5,"starts_at":"2026-11-23T14:03:20.000Z","ends_at":null}"#;
    const RESOLVED: &str = r#"{"schema":1,"seq":8,"time":"2026-11-23T14:04:27.500Z","event":"resolved","previous":"firing","reason":"no_data","rule":"ManyNodesUnreachable","severity":null,"fingerprint":null,"dedup_key":null,"labels":{},"annotations":{},"value":null,"starts_at":null,"ends_at":null}"#;

    fn check(width: Option<usize>, expected: &Expect) {
        let mut columns = Columns::default();
        let events = [FIRING, RESOLVED, FIRING].map(|json| serde_json::from_str::<EventLine>(json).unwrap());
        let shown: String = events.iter().map(|event| columns.line(event, &look(width))).collect();
        expected.assert_eq(&shown);
    }

    #[test]
    fn events_are_aligned_and_cannot_act_on_the_terminal() {
        check(
            None,
            &expect![[r#"
            14:03:27Z  firing        critical  gpu-01  Hot  \u{1b}[31m hot\n
            14:04:27Z  resolved      –         –       ManyNodesUnreachable
            14:03:27Z  firing        critical  gpu-01  Hot                   \u{1b}[31m hot\n
        "#]],
        );
        check(
            Some(60),
            &expect![[r#"
            14:03:27Z  firing        critical  gpu-01  Hot  \u{1b}[31m …
            14:04:27Z  resolved      –         –       ManyNodesUnreachable
            14:03:27Z  firing        critical  gpu-01  Hot                   \u{1b}[…
        "#]],
        );
    }

    #[test]
    fn csv_has_a_field_for_each_member() {
        let event: EventLine = serde_json::from_str(FIRING).unwrap();
        expect![[r#"
            7,2026-11-23T14:03:27.500Z,firing,pending,held,Hot,critical,00000000000000ab,k,"{""instance"":""gpu-01""}","{""summary"":""\u001b[31m hot\n""}",91.5,2026-11-23T14:03:20.000Z,
        "#]].assert_eq(&csv_row(&event).unwrap());
    }
}
