//! Results of queries as JSON, written piece by piece: the text of a large one is several times what it is in memory.

use std::{
    convert::Infallible,
    fmt::Write as _,
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use belfry_promql::{Annotation, Labels, Level, Output, Sample, Series, Value};
use bytes::Bytes;
use http_body::Frame;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    envelope::{JSON, TRUNCATED},
    number::number,
};

/// Pieces of about this many bytes are passed on.
const PIECE_BYTES: usize = 64 * 1024;
/// Remarks of each level that are told.
const REMARKS_MAX: usize = 10;

/// An answer with the result of a query at this time, of which at most `limit` series are shown.
///
/// It takes `room` until it is sent or given up.
pub(super) fn response(output: Output, time_ms: i64, limit: Option<usize>, room: OwnedSemaphorePermit) -> Response {
    let pieces = Pieces { room: Some(room), ..Pieces::new(output, time_ms, limit) };
    ([(header::CONTENT_TYPE, JSON)], Body::new(pieces)).into_response()
}

/// What a result takes in memory, about.
pub(super) fn bytes(output: &Output) -> usize {
    match &output.value {
        Value::Scalar(_) | Value::String(_) => 0,
        Value::Vector(rows) => rows.len() * SERIES_BYTES,
        Value::Matrix(all) => all.iter().map(|series| SERIES_BYTES + series.samples.len() * size_of::<Sample>()).sum(),
    }
}

/// A series beside its samples; its labels are mostly its own.
const SERIES_BYTES: usize = 256;

/// The series that are still to be written.
enum Rest {
    Vector(vec::IntoIter<(Labels, Sample)>),
    Matrix { series: vec::IntoIter<Series>, samples: Option<vec::IntoIter<Sample>> },
    Done,
}

/// A result as pieces of JSON.
struct Pieces {
    text: String,
    rest: Rest,
    is_first: bool,
    end: String,
    room: Option<OwnedSemaphorePermit>,
}

impl Pieces {
    fn new(output: Output, time_ms: i64, limit: Option<usize>) -> Self {
        let mut text = String::from(r#"{"status":"success","data":{"resultType":"#);
        let mut is_truncated = false;
        let most = limit.unwrap_or(usize::MAX);
        let rest = match output.value {
            Value::Scalar(sample) => {
                text.push_str(r#""scalar","result":"#);
                point(&mut text, sample);
                Rest::Done
            }
            Value::String(value) => {
                text.push_str(r#""string","result":["#);
                time(&mut text, time_ms);
                text.push(',');
                string(&mut text, &value);
                text.push(']');
                Rest::Done
            }
            Value::Vector(mut rows) => {
                text.push_str(r#""vector","result":["#);
                is_truncated = rows.len() > most;
                rows.truncate(most);
                Rest::Vector(rows.into_iter())
            }
            Value::Matrix(mut series) => {
                text.push_str(r#""matrix","result":["#);
                is_truncated = series.len() > most;
                series.truncate(most);
                Rest::Matrix { series: series.into_iter(), samples: None }
            }
        };
        let mut end = String::from(if matches!(rest, Rest::Done) { "}" } else { "]}" });
        let said = |level: Level| output.annotations.iter().filter(move |said| said.level == level);
        let mut warnings = first_of(said(Level::Warning), "warning");
        warnings.extend(is_truncated.then(|| TRUNCATED.to_owned()));
        remarks(&mut end, "warnings", &warnings);
        let infos = first_of(said(Level::Info), "info");
        remarks(&mut end, "infos", &infos);
        end.push('}');
        Self { text, rest, is_first: true, end, room: None }
    }

    /// Writes one more series, or of one with many samples as much as makes a piece; false if there was nothing.
    fn write_next(&mut self) -> bool {
        let text = &mut self.text;
        let mut begin = |text: &mut String, metric: &Labels| {
            text.push_str(if std::mem::take(&mut self.is_first) { r#"{"metric":"# } else { r#",{"metric":"# });
            labels(text, metric);
        };
        match &mut self.rest {
            Rest::Vector(rows) => {
                let Some((metric, sample)) = rows.next() else { return false };
                begin(text, &metric);
                text.push_str(r#","value":"#);
                point(text, sample);
                text.push('}');
            }
            Rest::Matrix { series, samples } => {
                let mut rest = match samples.take() {
                    Some(rest) => rest,
                    None => {
                        let Some(next) = series.next() else { return false };
                        begin(text, &next.labels);
                        text.push_str(r#","values":["#);
                        let mut rest = next.samples.into_iter();
                        if let Some(first) = rest.next() {
                            point(text, first);
                        }
                        rest
                    }
                };
                while text.len() < PIECE_BYTES
                    && let Some(sample) = rest.next()
                {
                    text.push(',');
                    point(text, sample);
                }
                if rest.len() == 0 {
                    text.push_str("]}");
                } else {
                    *samples = Some(rest);
                }
            }
            Rest::Done => return false,
        }
        true
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while self.text.len() < PIECE_BYTES && self.write_next() {}
        if self.text.len() < PIECE_BYTES {
            self.rest = Rest::Done;
            drop(self.room.take());
            self.text.push_str(&std::mem::take(&mut self.end));
        }
        let piece = std::mem::take(&mut self.text);
        (!piece.is_empty()).then(|| piece.into())
    }
}

impl axum::body::HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next().map(|piece| Ok(Frame::data(piece))))
    }
}

/// As many remarks of one level as are told, and how many more there are, in Prometheus' words.
fn first_of<'a>(said: impl Iterator<Item = &'a Annotation> + Clone, level: &str) -> Vec<String> {
    let mut told: Vec<String> = said.clone().take(REMARKS_MAX).map(ToString::to_string).collect();
    let more = said.count().saturating_sub(REMARKS_MAX);
    told.extend((more > 0).then(|| format!("{more} more {level} annotations omitted")));
    told
}

fn remarks(text: &mut String, name: &str, remarks: &[String]) {
    for (at, remark) in remarks.iter().enumerate() {
        let before = if at == 0 { format!(r#","{name}":["#) } else { ",".to_owned() };
        text.push_str(&before);
        string(text, remark);
    }
    if !remarks.is_empty() {
        text.push(']');
    }
}

fn labels(text: &mut String, labels: &Labels) {
    text.push('{');
    for (at, (name, value)) in labels.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        string(text, name);
        text.push(':');
        string(text, value);
    }
    text.push('}');
}

fn point(text: &mut String, sample: Sample) {
    text.push('[');
    time(text, sample.time_ms);
    text.push_str(",\"");
    number(text, sample.value);
    text.push_str("\"]");
}

/// Seconds, with three digits behind the point where they are not whole.
fn time(text: &mut String, ms: i64) {
    let (sign, ms) = if ms < 0 { ("-", ms.unsigned_abs()) } else { ("", ms.unsigned_abs()) };
    let (seconds, rest) = (ms / 1000, ms % 1000);
    // Writing to a string does not fail.
    let _ = if rest == 0 { write!(text, "{sign}{seconds}") } else { write!(text, "{sign}{seconds}.{rest:03}") };
}

fn string(text: &mut String, value: &str) {
    if value.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        text.push('"');
        text.push_str(value);
        text.push('"');
        return;
    }
    // A text always has a form in JSON.
    text.push_str(&serde_json::to_string(value).unwrap_or_else(|_| "\"\"".to_owned()));
}

#[cfg(test)]
mod tests {
    use belfry_promql::Span;
    use expect_test::{Expect, expect};

    use super::*;

    fn check(value: Value, annotations: Vec<Annotation>, limit: Option<usize>, expected: &Expect) {
        let output = Output { value, annotations };
        let text: Vec<u8> = Pieces::new(output, 1_500, limit).flatten().collect();
        let text = String::from_utf8(text).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).expect("valid JSON");
        expected.assert_eq(&text);
    }

    fn sample(time_ms: i64, value: f64) -> Sample {
        Sample { time_ms, value }
    }

    #[test]
    fn every_type_of_result() {
        let labels = Labels::from_pairs([("__name__", "up"), ("instance", "a \"b\"\n")]);
        let series = Series { labels: labels.clone(), samples: vec![sample(0, 1.0), sample(60_050, f64::NAN)] };
        let warning = Annotation { level: Level::Warning, span: Span::default(), message: "odd".into() };
        let info = Annotation { level: Level::Info, ..warning.clone() };
        check(
            Value::Vector(vec![(labels.clone(), sample(1_500, 0.1)), (labels, sample(1_500, 1.5e-7))]),
            vec![warning, info],
            Some(1),
            &expect![[
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","instance":"a \"b\"\n"},"value":[1.500,"0.1"]}]},"warnings":["PromQL warning: odd (0:0)","results truncated due to limit"],"infos":["PromQL info: odd (0:0)"]}"#
            ]],
        );
        check(
            Value::Matrix(vec![series]),
            vec![],
            None,
            &expect![[
                r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"up","instance":"a \"b\"\n"},"values":[[0,"1"],[60.050,"NaN"]]}]}}"#
            ]],
        );
        check(
            Value::Matrix(vec![]),
            vec![],
            None,
            &expect![[r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#]],
        );
        check(
            Value::Scalar(sample(-1_250, f64::INFINITY)),
            vec![],
            None,
            &expect![[r#"{"status":"success","data":{"resultType":"scalar","result":[-1.250,"+Inf"]}}"#]],
        );
        check(
            Value::String("x\\y".into()),
            vec![],
            None,
            &expect![[r#"{"status":"success","data":{"resultType":"string","result":[1.500,"x\\y"]}}"#]],
        );
    }

    #[test]
    fn a_long_series_comes_in_pieces_too() {
        let samples: Vec<Sample> = (0..100_000).map(|at| sample(at, 0.5)).collect();
        let series = vec![Series { labels: Labels::empty(), samples }; 2];
        let output = Output { value: Value::Matrix(series), annotations: vec![] };
        let pieces: Vec<Bytes> = Pieces::new(output, 0, None).collect();
        assert!(pieces.len() > 20 && pieces.iter().all(|piece| piece.len() < 2 * PIECE_BYTES));
        let json: serde_json::Value = serde_json::from_slice(&pieces.concat()).unwrap();
        for series in json["data"]["result"].as_array().unwrap() {
            assert_eq!(series["values"].as_array().map(Vec::len), Some(100_000));
        }
    }

    #[test]
    fn many_remarks_are_cut_and_counted() {
        let said = |at: usize| Annotation { level: Level::Warning, span: Span::default(), message: at.to_string() };
        let output = Output { value: Value::Vector(vec![]), annotations: (0..15).map(said).collect() };
        let text: Vec<u8> = Pieces::new(output, 0, None).flatten().collect();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            (json["warnings"].as_array().map(Vec::len), &json["warnings"][10]),
            (Some(11), &"5 more warning annotations omitted".into())
        );
    }

    #[test]
    fn a_large_result_comes_in_pieces() {
        let samples: Vec<Sample> = (0..1_000).map(|at| sample(at, 0.5)).collect();
        let series =
            |at: usize| Series { labels: Labels::from_pairs([("n", at.to_string())]), samples: samples.clone() };
        let output = Output { value: Value::Matrix((0..40).map(series).collect()), annotations: vec![] };
        let pieces: Vec<Bytes> = Pieces::new(output, 0, None).collect();
        assert!(pieces.len() > 5 && pieces.iter().all(|piece| piece.len() < 2 * PIECE_BYTES));
        let json: serde_json::Value = serde_json::from_slice(&pieces.concat()).unwrap();
        assert_eq!(json["data"]["result"].as_array().map(Vec::len), Some(40));
    }
}
