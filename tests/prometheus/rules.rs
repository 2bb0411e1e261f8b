//! Rule files and tests of rules beside promtool: the same verdict on each, or a difference that its version explains.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use belfry_tests::{cli::Cli, process::Said, skip::skipped};
use tempfile::TempDir;

use crate::say;

/// What is refused that promtool lets pass, or the other way around, and why.
const EXPLAINED: &[(&str, &str)] = &[
    ("labels of a group", "since Prometheus 3 groups have labels"),
    ("query_offset", "since Prometheus 2.53 groups have an offset"),
    ("max_of", "a function of Prometheus 3"),
    ("a second document", "promtool reads the first document alone, in silence"),
    ("a function of templates that asks", "alerts are made without a query in their templates"),
    ("text as expression", "a rule of a text can never be evaluated"),
    ("range as expression", "a rule of a range can never be evaluated"),
];

/// Names and texts of rules.
const RULES: &[(&str, &str)] = &[
    ("alert", "- {alert: A, expr: up == 0, for: 5m, labels: {severity: page}, annotations: {summary: down}}"),
    ("record", "- {record: a:b, expr: sum(up), labels: {a: b}}"),
    ("number as expression", "- {alert: A, expr: 1}"),
    (
        "templates",
        "- {alert: A, expr: up, annotations: {a: '{{ $labels.job }} {{ $value | humanize }} {{ printf \"%.2f\" $value }}'}}",
    ),
    (
        "template with a condition",
        "- {alert: A, expr: up, annotations: {a: '{{ if gt $value 1.0 }}much{{ else }}little{{ end }}'}}",
    ),
    ("template with spaces trimmed", "- {alert: A, expr: up, annotations: {a: '{{- $labels.job -}}'}}"),
    ("utf-8 in annotations", "- {alert: A, expr: up, annotations: {a: 'Grüße ✓'}}"),
    ("no rules", ""),
    ("folded expression", "- alert: A\n  expr: >\n    up\n    == 0\n"),
    ("literal expression", "- alert: A\n  expr: |\n    up == 0 # why\n    and up\n"),
    ("anchors", "- &a {alert: A, expr: up == 0, labels: {x: y}}\n- {<<: *a, alert: B}"),
    (
        "same name twice, other labels",
        "- {alert: A, expr: up == 0, labels: {x: y}}\n- {alert: A, expr: up == 0, labels: {x: z}}",
    ),
    ("duration with several units", "- {alert: A, expr: up, for: 1h30m}"),
    ("duration of nothing", "- {alert: A, expr: up, for: 0}"),
    ("keep_firing_for", "- {alert: A, expr: up, keep_firing_for: 5m}"),
    ("max_of", "- {alert: A, expr: 'up > max_of(1, 2)'}"),
    ("empty labels", "- {alert: A, expr: up, labels: {}, annotations: }"),
    ("label without a value", "- {alert: A, expr: up, labels: {a: }}"),
    ("number as label", "- {alert: A, expr: up, labels: {severity: 1}}"),
    ("colons in a recorded name", "- {record: 'a:b:c', expr: up}"),
    ("neither alert nor record", "- {expr: up}"),
    ("both alert and record", "- {alert: A, record: b, expr: up}"),
    ("no expression", "- {alert: A}"),
    ("empty expression", "- {alert: A, expr: ''}"),
    ("text as expression", "- {alert: A, expr: '\"text\"'}"),
    ("range as expression", "- {alert: A, expr: 'up[5m]'}"),
    ("unclosed parenthesis", "- {alert: A, expr: 'sum(up'}"),
    ("unknown function", "- {alert: A, expr: 'nosuch(up)'}"),
    ("too many arguments", "- {alert: A, expr: 'rate(up[5m], 1)'}"),
    ("rate of an instant", "- {alert: A, expr: 'rate(up)'}"),
    ("malformed regular expression", "- {alert: A, expr: 'up{a=~\"(\"}'}"),
    ("malformed duration in expression", "- {alert: A, expr: 'rate(up[5x])'}"),
    ("unknown field", "- {alert: A, expr: up, fore: 5m}"),
    ("malformed duration", "- {alert: A, expr: up, for: 5}"),
    ("negative duration", "- {alert: A, expr: up, for: -5m}"),
    ("units in disorder", "- {alert: A, expr: up, for: 5s1m}"),
    ("for of a recording rule", "- {record: a, expr: up, for: 5m}"),
    ("annotations of a recording rule", "- {record: a, expr: up, annotations: {a: b}}"),
    ("malformed recorded name", "- {record: 'a b', expr: up}"),
    ("braces in a recorded name", "- {record: 'a{b=\"c\"}', expr: up}"),
    ("reserved label", "- {alert: A, expr: up, labels: {__name__: x}}"),
    ("malformed template", "- {alert: A, expr: up, annotations: {a: '{{ $labels.job'}}"),
    ("unknown function in a template", "- {alert: A, expr: up, annotations: {a: '{{ nosuch $value }}'}}"),
    ("unknown variable in a template", "- {alert: A, expr: up, annotations: {a: '{{ $nosuch }}'}}"),
    ("condition that does not end", "- {alert: A, expr: up, annotations: {a: '{{ if $value }}x'}}"),
    ("a function of templates that asks", "- {alert: A, expr: up, annotations: {a: '{{ query \"up\" | len }}'}}"),
    ("same rule twice", "- {alert: A, expr: up == 0}\n- {alert: A, expr: up == 0}"),
    ("labels as a list", "- {alert: A, expr: up, labels: [a]}"),
    ("rule as a text", "- text"),
    ("label as a mapping", "- {alert: A, expr: up, labels: {a: {b: c}}}"),
];

/// Names and texts of whole files.
const FILES: &[(&str, &str)] = &[
    ("empty file", ""),
    ("no groups", "groups: []"),
    ("unknown field of a file", "groups: []\nrules: []\n"),
    ("unknown field of a group", "groups: [{name: g, rulez: []}]"),
    ("group without a name", "groups: [{rules: []}]"),
    ("two groups of one name", "groups: [{name: g}, {name: g}]"),
    ("interval", "groups: [{name: g, interval: 30s, limit: 5, rules: [{record: a, expr: up}]}]"),
    ("malformed interval", "groups: [{name: g, interval: 30}]"),
    ("malformed limit", "groups: [{name: g, limit: many}]"),
    ("labels of a group", "groups: [{name: g, labels: {a: b}}]"),
    ("query_offset", "groups: [{name: g, query_offset: 1m}]"),
    ("groups as a mapping", "groups: {name: g}"),
    ("not YAML", "groups: [\n"),
    ("tabs", "groups:\n\t- name: g\n"),
    ("a key twice", "groups: []\ngroups: []\n"),
    ("a second document", "groups: []\n---\ngroups: []\n"),
    ("a text alone", "text"),
];

const TESTED: &str = r#"groups:
- name: second
  rules:
  - {record: "twice:up", expr: 2 * sum by (job) (up)}
- name: g
  rules:
  - alert: Down
    expr: up == 0
    for: 5m
    labels: {severity: '{{ if eq $labels.job "db" }}page{{ else }}ticket{{ end }}'}
    annotations: {summary: '{{ $labels.instance }} of {{ $externalLabels.site }} at {{ $externalURL }}: {{ $value }}'}
  - {alert: Errors, expr: 'rate(errors_total[5m]) > 0.5'}
  - {alert: Gone, expr: 'absent(up{job="db"})', for: 2m}
  - {alert: Few, expr: 'twice:up < 3'}
"#;

/// Names and texts of tests: of each file the fields below `tests`.
const TESTS: &[(&str, &str)] = &[
    ("nothing is checked", "- {input_series: [{series: up, values: '1'}]}"),
    (
        "pending is not firing",
        "- {input_series: [{series: 'up{job=\"a\"}', values: '0x10'}], alert_rule_test: [{eval_time: 4m, alertname: Down}]}",
    ),
    (
        "fires when it held long enough",
        "- {input_series: [{series: 'up{job=\"a\",instance=\"i\"}', values: '0x10'}], external_labels: {site: x}, alert_rule_test: [{eval_time: 5m, alertname: Down, exp_alerts: [{exp_labels: {severity: ticket, job: a, instance: i}, exp_annotations: {summary: 'i of x at : 0'}}]}]}",
    ),
    (
        "label by template",
        "- {input_series: [{series: 'up{job=\"db\"}', values: '0x10'}], alert_rule_test: [{eval_time: 5m, alertname: Down, exp_alerts: [{exp_labels: {severity: page, job: db}, exp_annotations: {summary: ' of  at : 0'}}]}]}",
    ),
    (
        "wrong annotation",
        "- {input_series: [{series: 'up{job=\"db\"}', values: '0x10'}], alert_rule_test: [{eval_time: 5m, alertname: Down, exp_alerts: [{exp_labels: {severity: page, job: db}, exp_annotations: {summary: other}}]}]}",
    ),
    (
        "wrong label",
        "- {input_series: [{series: 'up{job=\"db\"}', values: '0x10'}], alert_rule_test: [{eval_time: 5m, alertname: Down, exp_alerts: [{exp_labels: {severity: ticket, job: db}}]}]}",
    ),
    (
        "an alert too few",
        "- {input_series: [{series: 'up{job=\"db\"}', values: '0x10'}], alert_rule_test: [{eval_time: 6m, alertname: Down}]}",
    ),
    ("an alert too many", "- {alert_rule_test: [{eval_time: 6m, alertname: Down, exp_alerts: [{}]}]}"),
    (
        "a flap begins anew",
        "- {input_series: [{series: up, values: '0x3 1 0x10'}], alert_rule_test: [{eval_time: 8m, alertname: Down}]}",
    ),
    (
        "resolves",
        "- {input_series: [{series: up, values: '0x6 1x5'}], alert_rule_test: [{eval_time: 7m, alertname: Down}]}",
    ),
    (
        "a series that ends",
        "- {input_series: [{series: up, values: '0x6 stale'}], alert_rule_test: [{eval_time: 7m, alertname: Down}]}",
    ),
    (
        "a series that is silent",
        "- {input_series: [{series: up, values: '0x6'}], alert_rule_test: [{eval_time: 12m, alertname: Down}]}",
    ),
    (
        "missing samples",
        "- {input_series: [{series: up, values: '0 _x3 0x4'}], alert_rule_test: [{eval_time: 6m, alertname: Down, exp_alerts: [{exp_labels: {severity: ticket}, exp_annotations: {summary: ' of  at : 0'}}]}]}",
    ),
    ("absent", "- {alert_rule_test: [{eval_time: 2m, alertname: Gone, exp_alerts: [{exp_labels: {job: db}}]}]}"),
    (
        "not absent",
        "- {input_series: [{series: 'up{job=\"db\"}', values: '1x5'}], alert_rule_test: [{eval_time: 4m, alertname: Gone}]}",
    ),
    (
        "counters",
        "- {interval: 30s, input_series: [{series: errors_total, values: '0+60x20'}], alert_rule_test: [{eval_time: 6m, alertname: Errors, exp_alerts: [{}]}]}",
    ),
    (
        "a recorded series is read by a later group",
        "- {input_series: [{series: 'up{job=\"a\"}', values: '1x5'}], alert_rule_test: [{eval_time: 1m, alertname: Few, exp_alerts: [{exp_labels: {job: a}}]}]}",
    ),
    (
        "an expression",
        "- {input_series: [{series: 'up{job=\"a\"}', values: '1x5'}], promql_expr_test: [{expr: 'twice:up', eval_time: 3m, exp_samples: [{labels: 'twice:up{job=\"a\"}', value: 2}]}]}",
    ),
    (
        "an expression with another value",
        "- {input_series: [{series: 'up{job=\"a\"}', values: '1x5'}], promql_expr_test: [{expr: 'twice:up', eval_time: 3m, exp_samples: [{labels: 'twice:up{job=\"a\"}', value: 3}]}]}",
    ),
    (
        "an expression with another label",
        "- {input_series: [{series: 'up{job=\"a\"}', values: '1x5'}], promql_expr_test: [{expr: 'up', eval_time: 3m, exp_samples: [{labels: 'up{job=\"b\"}', value: 1}]}]}",
    ),
    ("a number", "- {promql_expr_test: [{expr: 'time() / 60', eval_time: 3m, exp_samples: [{value: 3}]}]}"),
    ("an empty result", "- {promql_expr_test: [{expr: 'nosuch', eval_time: 3m}]}"),
    (
        "results in another order",
        "- {input_series: [{series: 'a{x=\"1\"}', values: '1'}, {series: 'a{x=\"2\"}', values: '2'}], promql_expr_test: [{expr: a, eval_time: 0, exp_samples: [{labels: 'a{x=\"2\"}', value: 2}, {labels: 'a{x=\"1\"}', value: 1}]}]}",
    ),
    ("a malformed series", "- {input_series: [{series: 'up{', values: '1'}]}"),
    (
        "malformed values",
        "- {input_series: [{series: up, values: '1 zwei'}], promql_expr_test: [{expr: up, eval_time: 1m}]}",
    ),
    ("a malformed expression", "- {promql_expr_test: [{expr: 'sum(', eval_time: 3m}]}"),
    ("an alert without a name", "- {alert_rule_test: [{eval_time: 2m}]}"),
    ("an unknown field", "- {alert_rule_tests: []}"),
    ("a malformed time", "- {promql_expr_test: [{expr: up, eval_time: 3}]}"),
];

/// Both programs on files of their own.
struct Both {
    directory: TempDir,
    cli: Cli,
    agreed: usize,
    differences: Vec<String>,
}

impl Both {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cli = Cli::of(&directory.path().join("nobody"));
        Self { directory, cli, agreed: 0, differences: Vec::new() }
    }

    /// Asks both for a verdict on a file; `words` are ours beside it.
    async fn compare(&mut self, name: &str, text: &str, verb: &str, words: &[&str]) {
        let file = self.directory.path().join("file.yml");
        fs::write(&file, text).unwrap();
        let theirs = promtool(verb, &file);
        let words = [&["rules", verb][..], words, &[file.to_str().unwrap()]].concat();
        let ours = self.cli.run(&words).await;
        let is_explained = EXPLAINED.iter().any(|(explained, _)| *explained == name);
        match ((ours.code == Some(0)) == theirs.status.success(), is_explained) {
            (true, false) => self.agreed += 1,
            (false, true) => {}
            (true, true) => self.differences.push(format!("{name}: both agree, though a difference is explained")),
            (false, false) => self.differences.push(difference(name, &ours, &theirs)),
        }
    }

    fn judge(self, what: &str) {
        say(&format!("{} {what} get the same verdict from promtool", self.agreed));
        assert!(self.differences.is_empty(), "{}", self.differences.join("\n"));
    }
}

fn is_missing() -> bool {
    Command::new("promtool").arg("--version").output().is_err()
}

fn promtool(verb: &str, file: &Path) -> Output {
    Command::new("promtool").args([verb, "rules"]).arg(file).output().unwrap()
}

fn difference(name: &str, ours: &Said, theirs: &Output) -> String {
    let theirs_said = format!("{}{}", String::from_utf8_lossy(&theirs.stdout), String::from_utf8_lossy(&theirs.stderr));
    format!("{name}: ours {:?} {} theirs {:?} {theirs_said}", ours.code, ours.output, theirs.status.code())
}

#[tokio::test]
async fn rule_files_are_accepted_and_refused_as_promtool_does() {
    if is_missing() {
        return skipped("prometheus rules", "promtool is not installed");
    }
    let mut both = Both::new();
    for (name, rules) in RULES {
        let rules: String = rules.lines().map(|line| format!("  {line}\n")).collect();
        both.compare(name, &format!("groups:\n- name: g\n  rules:\n{rules}"), "check", &[]).await;
    }
    for (name, text) in FILES {
        both.compare(name, text, "check", &[]).await;
    }
    for (name, why) in EXPLAINED {
        say(&format!("  {name}: {why}"));
    }
    both.judge("rule files");
}

#[tokio::test]
async fn tests_of_rules_pass_and_fail_as_with_promtool() {
    if is_missing() {
        return skipped("prometheus rules", "promtool is not installed");
    }
    let mut both = Both::new();
    fs::write(both.directory.path().join("rules.yml"), TESTED).unwrap();
    for (name, test) in TESTS {
        // Without an interval older versions of promtool take all samples to be of one instant.
        let test =
            if test.contains("interval") { (*test).to_owned() } else { test.replacen('{', "{interval: 1m, ", 1) };
        let text = format!("rule_files: [rules.yml]\ngroup_eval_order: [second, g]\ntests:\n{test}\n");
        both.compare(name, &text, "test", &["--prometheus"]).await;
    }
    both.judge("tests of rules");
}
