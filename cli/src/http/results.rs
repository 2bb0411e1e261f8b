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
use belfry_promql::{Labels, Level, Output, Sample, Series, Value};
use bytes::Bytes;
use http_body::Frame;

use super::{
    envelope::{JSON, TRUNCATED},
    number::number,
};

/// Pieces of about this many bytes are passed on.
const PIECE_BYTES: usize = 64 * 1024;

/// An answer with the result of a query at this time, of which at most `limit` series are shown.
pub(super) fn response(output: Output, time_ms: i64, limit: Option<usize>) -> Response {
    ([(header::CONTENT_TYPE, JSON)], Body::new(Pieces::new(output, time_ms, limit))).into_response()
}

/// The series that are still to be written.
enum Rest {
    Vector(vec::IntoIter<(Labels, Sample)>),
    Matrix(vec::IntoIter<Series>),
    Done,
}

/// A result as pieces of JSON.
struct Pieces {
    text: String,
    rest: Rest,
    is_first: bool,
    end: String,
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
                Rest::Matrix(series.into_iter())
            }
        };
        let mut end = String::from(if matches!(rest, Rest::Done) { "}" } else { "]}" });
        let said = |level: Level| output.annotations.iter().filter(move |said| said.level == level);
        let mut warnings: Vec<String> = said(Level::Warning).map(ToString::to_string).collect();
        warnings.extend(is_truncated.then(|| TRUNCATED.to_owned()));
        remarks(&mut end, "warnings", &warnings);
        let infos: Vec<String> = said(Level::Info).map(ToString::to_string).collect();
        remarks(&mut end, "infos", &infos);
        end.push('}');
        Self { text, rest, is_first: true, end }
    }

    /// Writes one more series; false if there was none.
    fn write_next(&mut self) -> bool {
        let separator = if std::mem::take(&mut self.is_first) { r#"{"metric":"# } else { r#",{"metric":"# };
        let text = &mut self.text;
        match &mut self.rest {
            Rest::Vector(rows) => {
                let Some((metric, sample)) = rows.next() else { return false };
                text.push_str(separator);
                labels(text, &metric);
                text.push_str(r#","value":"#);
                point(text, sample);
            }
            Rest::Matrix(all) => {
                let Some(series) = all.next() else { return false };
                text.push_str(separator);
                labels(text, &series.labels);
                text.push_str(r#","values":"#);
                for (at, sample) in series.samples.iter().enumerate() {
                    text.push(if at == 0 { '[' } else { ',' });
                    point(text, *sample);
                }
                text.push(']');
            }
            Rest::Done => return false,
        }
        text.push('}');
        true
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while self.text.len() < PIECE_BYTES && self.write_next() {}
        if self.text.len() < PIECE_BYTES {
            self.rest = Rest::Done;
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
    use belfry_promql::{Annotation, Span};
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
