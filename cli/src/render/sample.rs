//! Lines of `belfry tail`.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;

use super::{
    Look, machine,
    style::Style,
    text::{escape, selector, width},
    units::of_metric,
};
use crate::api::TailLine;

/// What the collector sends: a sample, or that it left some out.
#[derive(Debug)]
pub(crate) enum Line {
    Sample(TailLine),
    /// So many batches were left out, because this reader was too slow for them.
    Lost(u64),
}

#[derive(Deserialize)]
struct Note {
    lost_batches: u64,
}

impl Line {
    /// # Errors
    /// JSON that is neither.
    pub(crate) fn parse(json: &str) -> Result<Self, serde_json::Error> {
        match serde_json::from_str::<Note>(json) {
            Ok(note) => Ok(Self::Lost(note.lost_batches)),
            Err(_) => serde_json::from_str(json).map(Self::Sample),
        }
    }
}

/// Labels that every series has, or that have a column of their own.
const SHOWN_LABELS: [&str; 2] = ["instance", "job"];
/// A longer node name pushes the rest of its line to the right.
const NODE_WIDTH_MAX: usize = 24;
const VALUE_WIDTH: usize = 12;

/// Aligns lines although it cannot know what is still to come.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    node: usize,
}

impl Columns {
    /// `14:03:27.123Z  gpu-01      71.0 °C  gpu_temperature_celsius{gpu="3"}`
    pub(crate) fn line(&mut self, sample: &TailLine, look: &Look) -> String {
        let node = escape(sample.labels.get("instance").map_or("", String::as_str));
        self.node = self.node.max(width(&node)).min(NODE_WIDTH_MAX);
        let time = sample.time.split_once('T').map_or(sample.time.as_str(), |(_, clock)| clock);
        let (value, style) = value(sample);
        let padding = " ".repeat(VALUE_WIDTH.saturating_sub(width(&value)));
        let mut line = Style::Dim.paint(&escape(time), look.is_colored);
        let node_padding = " ".repeat(self.node.saturating_sub(width(&node)));
        // Writing to a string cannot fail.
        let _ = writeln!(
            line,
            "  {node}{node_padding}  {padding}{}  {}",
            style.paint(&value, look.is_colored),
            series(sample)
        );
        line
    }
}

fn value(sample: &TailLine) -> (String, Style) {
    match (&sample.value, &sample.reason) {
        (Value::Number(number), _) => (of_metric(&sample.metric, number.as_f64().unwrap_or(f64::NAN)), Style::Plain),
        // NaN and the infinities.
        (Value::String(text), _) => (escape(text), Style::Plain),
        (_, Some(reason)) => (format!("– {}", escape(reason)), Style::Warning),
        (_, None) => ("–".into(), Style::Warning),
    }
}

/// `name{label="value"}` as a query would select it.
fn series(sample: &TailLine) -> String {
    let labels = sample.labels.iter().filter(|(name, _)| !SHOWN_LABELS.contains(&name.as_str()));
    selector(&sample.metric, labels.map(|(name, value)| (name.as_str(), value.as_str())))
}

/// The names of [`csv_row`]'s fields.
pub(crate) const CSV_NAMES: [&str; 5] = ["time", "metric", "labels", "value", "reason"];

/// The labels are one field, a JSON object.
pub(crate) fn csv_row(sample: &TailLine) -> Result<String, csv::Error> {
    let labels = serde_json::to_string(&sample.labels).unwrap_or_default();
    let reason = machine::field(sample.reason.as_ref());
    machine::csv_row(&[sample.time.clone(), sample.metric.clone(), labels, machine::value(&sample.value), reason])
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::render::tests::look;

    fn check(lines: &[&str], expected: &Expect) {
        let mut columns = Columns::default();
        let shown: String = lines
            .iter()
            .map(|line| match Line::parse(line).unwrap() {
                Line::Sample(sample) => columns.line(&sample, &look(None)),
                Line::Lost(count) => format!("lost {count}\n"),
            })
            .collect();
        expected.assert_eq(&shown);
    }

    #[test]
    fn samples_are_aligned_and_read_in_their_units() {
        check(
            &[
                r#"{"time":"2026-11-23T14:03:27.123Z","metric":"node_load1","labels":{"instance":"gpu-01","job":"belfry"},"value":0.42}"#,
                r#"{"time":"2026-11-23T14:03:27.123Z","metric":"gpu_temperature_celsius","labels":{"gpu":"3","instance":"gpu-01","job":"belfry"},"value":71}"#,
                r#"{"time":"2026-11-23T14:03:28.001Z","metric":"node_memory_MemTotal_bytes","labels":{"instance":"head-node"},"value":2199023255552}"#,
                r#"{"time":"2026-11-23T14:03:28.001Z","metric":"gpu_power_watts","labels":{"gpu":"3","instance":"gpu-01"},"value":null,"reason":"lost"}"#,
                r#"{"time":"2026-11-23T14:03:28.002Z","metric":"x","labels":{},"value":"NaN"}"#,
                r#"{"time":"2026-11-23T14:03:28.003Z","lost_batches":3}"#,
            ],
            &expect![[r#"
                14:03:27.123Z  gpu-01        0.4200  node_load1
                14:03:27.123Z  gpu-01       71.0 °C  gpu_temperature_celsius{gpu="3"}
                14:03:28.001Z  head-node       2.0 TiB  node_memory_MemTotal_bytes
                14:03:28.001Z  gpu-01           – lost  gpu_power_watts{gpu="3"}
                14:03:28.002Z                      NaN  x
                lost 3
            "#]],
        );
    }

    #[test]
    fn labels_cannot_act_on_the_terminal() {
        check(
            &[
                r#"{"time":"2026-11-23T14:03:27.123Z","metric":"m","labels":{"a":"\u001b[2J\"\\","b":"x\r\ny\u202e"},"value":1}"#,
            ],
            &expect![[r#"
                14:03:27.123Z               1  m{a="\u{1b}[2J\"\\",b="x\r\ny\u{202e}"}
            "#]],
        );
    }

    #[test]
    fn csv_holds_the_labels_in_one_field() {
        let json = r#"{"time":"t","metric":"m","labels":{"a":"1"},"value":null,"reason":"lost"}"#;
        let Line::Sample(sample) = Line::parse(json).unwrap() else { panic!("a sample") };
        assert_eq!(csv_row(&sample).unwrap(), "t,m,\"{\"\"a\"\":\"\"1\"\"}\",,lost\n");
    }
}
