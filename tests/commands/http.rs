//! Queries over HTTP, as Prometheus' clients make them.

use belfry_common::{
    clock,
    model::{Raw, Reason, Timestamp},
};
use belfry_tests::{
    collector::Collector,
    http::ask,
    samples::batch_of,
    wait::{SOON, eventually},
};
use serde_json::{Value, json};

use crate::node::Node;

/// A collector with one node that has sent three readings of `test_value`: 1.5, one that failed, and infinity.
async fn with_readings() -> (Collector, Timestamp) {
    let collector = Collector::start().await;
    let mut node = Node::join(&collector, "node").await;
    let time = clock::now();
    let mut batch = batch_of(1, "test_value", 0..3, time, 1.5);
    batch.ticks[0].values = vec![Raw::float(1.5), Raw::missing(Reason::Timeout), Raw::float(f64::INFINITY)];
    let (live, sequence) = node.live();
    live.store(sequence, &batch).await;
    (collector, time)
}

fn data(collector: &Collector, path: &str) -> Value {
    let (status, body) = collector.get(&format!("/api/v1/{path}"));
    let mut answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
    assert_eq!((status, &answer["status"]), (200, &json!("success")), "{path}: {body}");
    answer["data"].take()
}

/// An error's status, kind and words.
fn error(collector: &Collector, path: &str) -> (u16, String, String) {
    let (status, body) = collector.get(&format!("/api/v1/{path}"));
    let answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
    assert_eq!(answer["status"], "error", "{path}: {body}");
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    (status, text("errorType"), text("error"))
}

#[tokio::test]
async fn queries_are_answered_in_prometheus_form() {
    let (collector, time) = with_readings().await;
    let now = time.as_millis() as f64 / 1000.0 + 1.0;
    let result = data(&collector, &format!("query?query=test_value&time={now}"));
    assert_eq!(result["resultType"], "vector");
    let rows = result["result"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "a reading that failed is no sample: {result}");
    let labels =
        |device: &str| json!({"__name__": "test_value", "instance": "node", "job": "belfry", "device": device});
    for (row, (device, value)) in rows.iter().zip([("d0", "1.5"), ("d2", "+Inf")]) {
        assert_eq!(row["metric"], labels(device));
        assert_eq!(row["value"][1], value);
        assert_eq!(row["value"][0].as_f64(), Some(now), "of when it is asked for");
    }
    let range = format!("query_range?query=sum(test_value{{device=\"d0\"}})&start={}&end={now}&step=1", now - 10.0);
    let result = data(&collector, &range);
    assert_eq!(result["resultType"], "matrix");
    let values = result["result"][0]["values"].as_array().unwrap();
    assert_eq!(values.last().unwrap(), &json!([now, "1.5"]), "{result}");
    assert_eq!(data(&collector, "query?query=1%2B1")["result"][1], "2");
    assert_eq!(data(&collector, "query?query=\"a\"")["resultType"], "string");
    let limited = collector.get(&format!("/api/v1/query?query=test_value&limit=1&time={now}")).1;
    assert!(limited.contains("results truncated due to limit"), "{limited}");
}

#[tokio::test]
async fn what_is_wrong_has_prometheus_status_and_names_its_place() {
    let (collector, _) = with_readings().await;
    let many_selectors = format!("series?{}", "match[]=up&".repeat(101));
    let two_regexes = r#"match[]=up{a=~"x.*y",b=~"x.*y"}&"#;
    let many_regexes = format!("series?{}", two_regexes.repeat(51));
    for (path, status, kind, words) in [
        ("query?query=sum(", 400, "bad_data", "invalid parameter \"query\": unclosed parenthesis at 1:4"),
        ("query?query=nosuch(up)", 400, "bad_data", "unknown function `nosuch` at 1:1"),
        ("query?query=up&time=noon", 400, "bad_data", "cannot parse \"noon\" to a valid timestamp"),
        ("query?query=test_value * on() test_value", 422, "execution", "many"),
        ("query_range?query=up&start=2&end=1&step=1", 400, "bad_data", "end timestamp must not be before start time"),
        ("query_range?query=up&start=1&end=2&step=0", 400, "bad_data", "zero or negative query resolution step"),
        ("query_range?query=up&start=0&end=20000&step=1", 400, "bad_data", "maximum resolution of 11,000 points"),
        ("query_range?query=up[5m]&start=1&end=2&step=1", 400, "bad_data", "invalid expression type"),
        ("query_range?query=up&end=2&step=1", 400, "bad_data", "invalid parameter \"start\""),
        ("query?query=up&timeout=0", 503, "timeout", "timed out"),
        ("series", 400, "bad_data", "no match[] parameter provided"),
        ("series?match[]=rate(up[5m])", 400, "bad_data", "is no selector"),
        (&many_selectors, 400, "bad_data", "there are more than 100"),
        (&many_regexes, 400, "bad_data", "more than 100 regular expressions"),
        ("rules?type=odd", 400, "bad_data", "not supported value"),
        ("nosuch", 404, "not_found", "no such endpoint"),
    ] {
        let seen = error(&collector, path);
        assert_eq!((seen.0, &*seen.1), (status, kind), "{path}: {seen:?}");
        assert!(seen.2.contains(words), "{path}: {seen:?}");
    }
}

#[tokio::test]
async fn there_is_a_list_of_what_can_be_asked_for() {
    let (collector, _) = with_readings().await;
    let series = data(&collector, "series?match[]=test_value&match[]=test_value{device=\"d0\"}");
    assert_eq!(series.as_array().map(Vec::len), Some(3), "each once: {series}");
    let names = data(&collector, "labels");
    assert!(
        ["__name__", "device", "instance", "job"].iter().all(|name| names.as_array().unwrap().contains(&json!(name)))
    );
    assert_eq!(data(&collector, "labels?match[]=test_value"), json!(["__name__", "device", "instance", "job"]));
    assert_eq!(data(&collector, "label/device/values"), json!(["d0", "d1", "d2"]));
    assert_eq!(data(&collector, "label/device/values?match[]=nosuch"), json!([]));
    assert_eq!(data(&collector, "label/device/values?limit=1"), json!(["d0"]));
    assert_eq!(data(&collector, "metadata?metric=test_value")["test_value"][0]["type"], "gauge");
    assert_eq!(data(&collector, "format_query?query=sum(up)>1"), "sum(up) > 1");
    assert!(data(&collector, "status/buildinfo")["version"].is_string());
}

const RULES: &str = "
groups:
  - name: tests
    rules:
      - alert: High
        expr: test_value > 1
        for: 1h
        labels: {severity: warning, team: '{{ $labels.device }}'}
      - record: test:sum
        expr: sum(test_value)
";

#[tokio::test]
async fn rules_are_told_with_their_alerts() {
    let collector = Collector::start_with_rules(RULES).await;
    let mut node = Node::join(&collector, "node").await;
    let (live, sequence) = node.live();
    live.store(sequence, &batch_of(1, "test_value", 0..1, clock::now(), 1.5)).await;
    let pending = || data(&collector, "alerts")["alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
    eventually("the alert is pending", SOON, || async { pending().then_some(()) }).await;
    let group = &data(&collector, "rules")["groups"][0];
    assert_eq!((&group["name"], group["rules"].as_array().map(Vec::len)), (&json!("tests"), Some(2)), "{group}");
    let alerting = &group["rules"][0];
    assert_eq!((&alerting["type"], &alerting["state"]), (&json!("alerting"), &json!("pending")), "{alerting}");
    assert_eq!((&alerting["duration"], &alerting["health"]), (&json!(3600.0), &json!("ok")), "{alerting}");
    assert_eq!(alerting["labels"]["team"], "{{ $labels.device }}", "as it is written");
    let alert = &alerting["alerts"][0];
    assert_eq!((&alert["state"], &alert["value"]), (&json!("pending"), &json!("1.5")), "{alert}");
    assert_eq!(alert["labels"]["team"], "d0");
    let recorded = data(&collector, "rules?type=record")["groups"][0]["rules"].take();
    assert_eq!(recorded.as_array().map(Vec::len), Some(1), "{recorded}");
    assert_eq!(recorded[0]["query"], "sum(test_value)");
    assert_eq!(data(&collector, "rules?rule_name[]=nosuch")["groups"], json!([]));
}

#[tokio::test]
async fn forms_can_be_posted_and_answers_are_packed_for_who_can_unpack_them() {
    let (collector, _) = with_readings().await;
    let form = "query=sum(test_value%7Bdevice%3D%22d0%22%7D)";
    let post = |address: &str, kind: &str, body: &str| {
        let head = format!("Content-Type: {kind}\r\nContent-Length: {}", body.len());
        let request = format!("POST /api/v1/query{address} HTTP/1.0\r\n{head}\r\n\r\n{body}");
        serde_json::from_slice::<Value>(&ask(collector.http_address(), &request).unwrap().1).unwrap()
    };
    // vmalert says that it sends JSON, and sends nothing.
    for answer in
        [post("", "application/x-www-form-urlencoded", form), post(&format!("?{form}"), "application/json", "")]
    {
        assert_eq!(answer["data"]["result"][0]["value"][1], "1.5", "{answer}");
    }
    let refused = post("", "application/json", "{}");
    assert!(refused["error"].as_str().unwrap().contains("send a form"), "{refused}");
    for (coding, magic) in [("gzip", &[0x1f, 0x8b][..]), ("zstd", &[0x28, 0xb5, 0x2f, 0xfd])] {
        let (head, body) =
            ask(collector.http_address(), &format!("GET /metrics HTTP/1.0\r\nAccept-Encoding: {coding}\r\n\r\n"))
                .unwrap();
        assert!(head.contains(&format!("content-encoding: {coding}")), "{head}");
        assert!(body.starts_with(magic));
    }
}

#[tokio::test]
async fn another_prometheus_can_federate() {
    let (collector, time) = with_readings().await;
    let (status, text) = collector.get("/federate?match[]=test_value");
    assert_eq!(status, 200, "{text}");
    let of = |device: &str, value: &str| {
        format!("test_value{{device=\"{device}\",instance=\"node\",job=\"belfry\"}} {value} {}\n", time.as_millis())
    };
    assert_eq!(text, format!("# TYPE test_value gauge\n{}{}", of("d0", "1.5"), of("d2", "+Inf")));
    assert_eq!(collector.get("/federate").0, 400);
}
