//! Writing OpenMetrics text.
//!
//! A family's type and help stand before its first sample; samples of one series follow each other. What is missing has no form here: it is
//! left out, and counted.

use std::{borrow::Cow, io::Write as _};

use belfry_common::model::{Kind, Metric};
use belfry_promql::{Labels, METRIC_NAME};
use belfry_store::Sample;

use crate::{
    exchange::{Sink, SinkError, Target, Written, put_number},
    render::text::{escape, is_harmful},
};

/// Writes OpenMetrics text.
pub(in crate::exchange) struct Writer {
    target: Target,
    /// The metric whose family is open.
    metric: Box<str>,
    /// Of the series: name and labels, ready to be written.
    series: Vec<u8>,
    line: Vec<u8>,
    written: Written,
}

impl Writer {
    pub(in crate::exchange) fn new(target: Target) -> Self {
        Self { target, metric: "".into(), series: Vec::new(), line: Vec::new(), written: Written::default() }
    }
}

impl Sink for Writer {
    fn series(&mut self, metric: &Metric, labels: &Labels) -> Result<(), SinkError> {
        if self.metric != metric.name {
            self.metric.clone_from(&metric.name);
            let (family, kind) = family(metric);
            writeln!(self.target, "# TYPE {family} {kind}")?;
            if !metric.help.is_empty() {
                let help = escaped(&metric.help);
                let shown = self.target.shown(&help);
                writeln!(self.target, "# HELP {family} {shown}")?;
            }
        }
        self.series.clear();
        self.series.extend_from_slice(metric.name.as_bytes());
        let mut opening = '{';
        for (name, value) in labels.iter().filter(|(name, _)| *name != METRIC_NAME) {
            write!(self.series, "{opening}{name}=\"{}\"", self.target.shown(&escaped(value)))?;
            opening = ',';
        }
        self.series.extend_from_slice(if opening == ',' { b"} " } else { b" " });
        Ok(())
    }

    fn samples(&mut self, columns: &[Vec<Sample>]) -> Result<(), SinkError> {
        for sample in columns.first().into_iter().flatten() {
            let Ok(value) = sample.value else {
                // An end is no reading.
                self.written.left_out += u64::from(sample.value != Err(None));
                continue;
            };
            let line = &mut self.line;
            line.clear();
            line.extend_from_slice(&self.series);
            put_number(value, line)?;
            let millis = sample.time.as_millis();
            let sign = if millis < 0 { "-" } else { "" };
            let millis = millis.unsigned_abs();
            writeln!(line, " {sign}{}.{:03}", millis / 1000, millis % 1000)?;
            self.target.write_all(line)?;
            self.written.samples += 1;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(Target, Written), SinkError> {
        self.target.write_all(b"# EOF\n")?;
        Ok((self.target, self.written))
    }
}

/// The name of a metric's family and its type. A counter's samples end in `_total` and the family's name does not; likewise `_info`.
fn family(metric: &Metric) -> (&str, &'static str) {
    let name = &*metric.name;
    match metric.kind {
        Kind::Counter => name.strip_suffix("_total").map_or((name, "unknown"), |family| (family, "counter")),
        Kind::Gauge => (name, "gauge"),
        Kind::Info => name.strip_suffix("_info").map_or((name, "gauge"), |family| (family, "info")),
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

impl Target {
    /// A terminal would act on some characters: there they are spelled out, though that is another text then.
    fn shown<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.is_terminal() && text.contains(is_harmful) { escape(text).into() } else { text.into() }
    }
}
