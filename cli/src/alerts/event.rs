//! One line of the alert stream. Names and order of the fields are a contract: scripts depend on them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;
use super::json::{Number, Time};

/// The version of the fields' meaning; it goes up only if a script could misread a line.
pub(crate) const SCHEMA: u32 = 1;

/// Something that happened to an alert.
///
/// `starts_at` is when the condition was first seen to hold, not when the alert fired: it is the same in all events of
/// one episode, and `dedup_key` with it. `previous` is the state that the last event of the episode told, so that the
/// stream alone tells the state of every alert; an alert that is being kept firing counts as firing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) schema: u32,
    /// The number in the event log, which has no gaps. A heartbeat repeats the last one. 0 until the log gives one.
    pub(crate) seq: u64,
    pub(crate) time: Time,
    pub(crate) event: EventKind,
    pub(crate) previous: Option<Previous>,
    pub(crate) reason: Option<Reason>,
    pub(crate) rule: Option<String>,
    pub(crate) severity: Option<String>,
    pub(crate) fingerprint: Option<Fingerprint>,
    /// The same for all events of one episode of one alert, across restarts.
    pub(crate) dedup_key: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) value: Option<Number>,
    pub(crate) starts_at: Option<Time>,
    pub(crate) ends_at: Option<Time>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventKind {
    /// The condition holds, but not for long enough yet.
    Pending,
    /// The alert is on.
    Firing,
    /// The alert is over; or it was pending and never fired, which `previous` tells.
    Resolved,
    /// Nothing: the stream is alive.
    Heartbeat,
}

/// The state before an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Previous {
    Inactive,
    Pending,
    Firing,
}

/// Why something happened: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// The condition holds.
    ConditionTrue,
    /// The condition has held for as long as the rule's `for` asks.
    Held,
    /// Data contradicts the condition.
    ConditionFalse,
    /// Data contradicts the condition, and `keep_firing_for` is over.
    KeptLongEnough,
    /// The series ended on a node that is up, and did not come back for a long time.
    NoData,
    /// The rule is no longer in the files, or has another name, group or labels.
    RuleRemoved,
    /// The node was forgotten.
    NodeForgotten,
}

impl Event {
    /// A sign of life for those who follow the stream. `seq` is that of the last event.
    pub(crate) fn heartbeat(time_ms: i64, seq: u64) -> Self {
        Self {
            schema: SCHEMA,
            seq,
            time: Time(time_ms),
            event: EventKind::Heartbeat,
            previous: None,
            reason: None,
            rule: None,
            severity: None,
            fingerprint: None,
            dedup_key: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            value: None,
            starts_at: None,
            ends_at: None,
        }
    }

    /// The event as JSON without `schema` and `seq`: what the event log keeps and adds these two to.
    pub(crate) fn body(&self) -> Result<String, serde_json::Error> {
        let json = serde_json::to_string(self)?;
        let head = format!("{{\"schema\":{},\"seq\":{},", self.schema, self.seq);
        Ok(json.strip_prefix(&head).map_or(json.clone(), |members| format!("{{{members}")))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(event: &Event, expected: &Expect) {
        let json = serde_json::to_string(event).expect("JSON");
        expected.assert_eq(&json);
        let read: Event = serde_json::from_str(&json).expect("an event");
        assert_eq!(read, *event);
    }

    fn firing(value: f64) -> Event {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        Event {
            event: EventKind::Firing,
            previous: Some(Previous::Pending),
            reason: Some(Reason::Held),
            rule: Some("Hot".to_owned()),
            severity: Some("critical".to_owned()),
            fingerprint: Some(Fingerprint(0xab)),
            dedup_key: Some("00000000000000ab-00000001-1700000000000".to_owned()),
            labels: map(&[("severity", "critical"), ("alertname", "Hot"), ("instance", "gpu-01")]),
            annotations: map(&[("summary", "\u{1b}[31m hot\n")]),
            value: Some(Number(value)),
            starts_at: Some(Time(1_700_000_000_000)),
            ..Event::heartbeat(1_700_000_060_500, 7)
        }
    }

    #[test]
    fn a_firing_alert() {
        check(
            &firing(91.5),
            &expect![[
                r#"{"schema":1,"seq":7,"time":"2023-11-14T22:14:20.500Z","event":"firing","previous":"pending","reason":"held","rule":"Hot","severity":"critical","fingerprint":"00000000000000ab","dedup_key":"00000000000000ab-00000001-1700000000000","labels":{"alertname":"Hot","instance":"gpu-01","severity":"critical"},"annotations":{"summary":"\u001b[31m hot\n"},"value":91.5,"starts_at":"2023-11-14T22:13:20.000Z","ends_at":null}"#
            ]],
        );
    }

    #[test]
    fn the_log_adds_what_the_body_lacks() {
        let event = firing(1.0);
        let body = event.body().expect("JSON");
        assert!(body.starts_with("{\"time\":\"2023-11-14T22:14:20.500Z\","), "{body}");
        let line = body.replacen('{', "{\"schema\":1,\"seq\":7,", 1);
        assert_eq!(line, serde_json::to_string(&event).expect("JSON"));
    }

    #[test]
    fn numbers_that_json_lacks_are_texts() {
        for (value, text) in [(f64::NAN, "\"NaN\""), (f64::INFINITY, "\"+Inf\""), (f64::NEG_INFINITY, "\"-Inf\"")] {
            let json = serde_json::to_string(&firing(value)).expect("JSON");
            assert!(json.contains(&format!("\"value\":{text}")), "{json}");
            assert_eq!(serde_json::from_str::<Event>(&json).expect("an event").value, Some(Number(value)));
        }
    }

    #[test]
    fn a_heartbeat_repeats_the_last_number() {
        check(
            &Event::heartbeat(1_700_000_000_000, 41),
            &expect![[
                r#"{"schema":1,"seq":41,"time":"2023-11-14T22:13:20.000Z","event":"heartbeat","previous":null,"reason":null,"rule":null,"severity":null,"fingerprint":null,"dedup_key":null,"labels":{},"annotations":{},"value":null,"starts_at":null,"ends_at":null}"#
            ]],
        );
    }
}
