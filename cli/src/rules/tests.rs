use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn sources(texts: &[&str]) -> Vec<Source> {
    let name = |at: usize| ["a.yml", "b.yml", "c.yml"].get(at).copied().unwrap_or("z.yml").to_owned();
    texts.iter().enumerate().map(|(at, text)| Source { name: name(at), text: (*text).to_owned() }).collect()
}

fn problems(texts: &[&str]) -> String {
    let checked = RuleSet::check(&sources(texts));
    let refused = checked.problems.iter().any(|problem| problem.severity == Severity::Error);
    assert_eq!(checked.rules.is_none(), refused);
    checked.problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[track_caller]
fn check(text: &str, expected: &Expect) {
    expected.assert_eq(&problems(&[text]));
}

#[test]
fn everything_prometheus_knows_is_accepted() {
    let text = r#"
groups:
  - name: node
    interval: 30s
    query_offset: 1m
    limit: 10
    labels: { team: infra, number: 7, nothing: }
    rules:
      - record: instance:cpu:rate1m
        expr: sum by (instance) (rate(node_cpu_seconds_total[1m]))
        labels: { source: recorded }
      - alert: Hot
        expr: |
          # A comment
          max by (instance, gpu) (gpu_temperature_celsius{sensor="gpu"})
            > 85
        for: 1m30s
        keep_firing_for: 5m
        labels: { severity: "{{ if gt $value 95.0 }}critical{{ else }}warning{{ end }}" }
        annotations:
          summary: '{{ $labels.gpu }} at {{ $value | humanize }}'
      - { alert: Constant, expr: 1 > bool 0, labels: { severity: info }, annotations: { summary: x } }
"#;
    assert_eq!(problems(&[text]), "");
    let rules = RuleSet::load(&sources(&[text])).expect("valid rules");
    assert_eq!(rules.len(), 3);
    let (_, group, rule) = rules.iter().nth(1).expect("three rules");
    assert_eq!((group.interval_ms, group.query_offset_ms, group.limit), (Some(30_000), 60_000, Some(10)));
    let RuleKind::Alert(alert) = &rule.kind else { panic!("an alerting rule") };
    assert_eq!((alert.for_ms, alert.keep_firing_for_ms), (90_000, 300_000));
    assert_eq!(rule.key.labels.lines().count(), 4);
    assert!(rule.is_separable());
}

#[test]
fn empty_files_hold_no_rules() {
    for text in ["", "# nothing", "groups:", "groups: []", "groups: [{name: a}]", "groups: [{name: a, rules: }]"] {
        assert_eq!(problems(&[text]), "", "{text:?}");
    }
}

#[test]
fn every_problem_of_a_file_is_told() {
    check(
        r#"groups:
  - name: one
    intervall: 30s
    rules:
      - alert: Broken
        expr: sum(rate(up[5m])
        fore: 5m
      - alert: NoExpression
      - expr: up == 0
      - record: both
        alert: Both
        expr: up
      - alert: Function
        expr: rates(up[5m]) > 0
        for: 5 minutes
        labels: { severity: critical, 'a b': x }
        annotations: { summary: "{{ $valu }}" }
  - name: one
    limit: many
    rules: nothing
  - rules: []
"#,
        &expect![[r#"
            a.yml:3:5: error: unknown field "intervall" in a group; did you mean "interval"?
            a.yml:6:18: error: group "one", rule "Broken": the expression is not valid: unclosed parenthesis; mend the expression
            a.yml:7:9: error: group "one", rule "Broken": unknown field "fore" in a rule; did you mean "for"?
            a.yml:8:9: error: group "one", rule "NoExpression": the rule has no expression; add `expr: …`
            a.yml:9:9: error: group "one", rule 3: the rule has neither `alert` nor `record`; give it a name: `alert: …` to alert, `record: …` to store the result
            a.yml:10:17: error: group "one", rule "both": the rule has both `alert` and `record`; make two rules of it
            a.yml:14:15: error: group "one", rule "Function": the expression is not valid: unknown function `rates`; mend the expression
            a.yml:15:14: error: group "one", rule "Function": `for`: "5 minutes" is not a valid duration; write it like 30s, 5m or 1h30m
            a.yml:17:37: error: group "one", rule "Function": annotation "summary": variable `$valu` is not defined; use $labels, $value, $externalLabels or $externalURL
            a.yml:18:5: error: group "one": a group of this name stands further up in the file; rename one, or join their rules
            a.yml:19:12: error: group "one": `limit` is "many"; it must be a whole number; 0 is no limit
            a.yml:20:12: error: group "one": `rules` is a text; begin each entry with `- `
            a.yml:21:5: error: group "": the group has no name; add `name: …`
        "#]],
    );
}

#[test]
fn fields_of_the_wrong_shape() {
    check(
        "[]",
        &expect![[r#"
        a.yml:1:1: error: a rule file is a list; it must have fields such as `groups:`
    "#]],
    );
    check(
        "groups: 5",
        &expect![[r#"
        a.yml:1:9: error: `groups` is a text; begin each entry with `- `
    "#]],
    );
    check(
        "groups: [5]",
        &expect![[r#"
        a.yml:1:10: error: a group is a text; it must have fields such as `name:`
    "#]],
    );
    check(
        "rules: []",
        &expect![[r#"
        a.yml:1:1: error: unknown field "rules" in a rule file; known are groups
    "#]],
    );
    check(
        "groups: []\ngroups: []",
        &expect![[r#"
        a.yml:2:1: error: field "groups" stands here twice; remove one
    "#]],
    );
    check(
        "groups: [{name: [a], rules: [{alert: {}, expr: [1]}]}]",
        &expect![[r#"
        a.yml:1:10: error: group "": the group has no name; add `name: …`
        a.yml:1:17: error: `name` is a list; it must be a single value
        a.yml:1:30: error: group "", rule 1: the rule has neither `alert` nor `record`; give it a name: `alert: …` to alert, `record: …` to store the result
        a.yml:1:38: error: group "", rule 1: `alert` is a mapping; it must be a single value
        a.yml:1:48: error: group "", rule 1: `expr` is a list; it must be a single value
        a.yml:1:48: error: group "", rule 1: the rule has no expression; add `expr: …`
    "#]],
    );
    check(
        "groups: [{name: a, labels: [x], rules: [{alert: A, expr: up, labels: {x: {y: z}, 1: {}}}]}]",
        &expect![[r#"
        a.yml:1:28: error: group "a": `labels` is a list; write one `name: text` a line below it
        a.yml:1:41: warning: group "a", rule "A": the alert has no label `severity`; add `severity: critical`, `warning` or `info`
        a.yml:1:41: warning: group "a", rule "A": the alert has no annotation `summary`; say in one line what is wrong, and where
        a.yml:1:58: warning: group "a", rule "A": the expression compares nothing: it alerts for every series there is; add a comparison such as `> 0`
        a.yml:1:74: error: group "a", rule "A": label "x" is a mapping; it must be a text; quote it if it begins with `{` or `[`
        a.yml:1:85: error: group "a", rule "A": label "1" is a mapping; it must be a text; quote it if it begins with `{` or `[`
    "#]],
    );
    check(
        "groups: [{name: a, rules: [{alert: A, expr: up == 1, annotations: {x: 1, x: 2}}]}]",
        &expect![[r#"
        a.yml:1:28: warning: group "a", rule "A": the alert has no label `severity`; add `severity: critical`, `warning` or `info`
        a.yml:1:28: warning: group "a", rule "A": the alert has no annotation `summary`; say in one line what is wrong, and where
        a.yml:1:74: error: group "a", rule "A": annotation "x" stands here twice; remove one
    "#]],
    );
}

#[test]
fn text_that_is_not_yaml() {
    check(
        "groups:\n - name: a\n   rules:\n  - alert: x",
        &expect![[r#"
        a.yml:4:3: error: not valid YAML: while parsing a block collection, did not find expected '-' indicator; mend the line, or the one above it
    "#]],
    );
    check(
        "groups:\n\t- name: a",
        &expect![[r#"
        a.yml:2:2: error: not valid YAML: tabs disallowed within this context (block indentation); mend the line, or the one above it
    "#]],
    );
    check(
        "a: *b",
        &expect![[r#"
        a.yml:1:4: error: not valid YAML: while parsing node, found unknown anchor; mend the line, or the one above it
    "#]],
    );
    check(
        "groups: []\n---\ngroups: []",
        &expect![[r#"
        a.yml:2:1: error: a second YAML document begins here; put it into a file of its own
    "#]],
    );
}

#[test]
fn rules_that_are_refused() {
    check(
        "groups: [{name: a, rules: [{record: 'x{}', expr: up}]}]",
        &expect![[r#"
        a.yml:1:37: error: group "a", rule "x{}": braces in the recorded name "x{}"; write only the new metric's name; labels go under `labels`
    "#]],
    );
    check(
        "groups: [{name: a, rules: [{record: 'a b', expr: up}]}]",
        &expect![[r#"
        a.yml:1:37: error: group "a", rule "a b": metric name "a b" is not valid: it must match [a-zA-Z_:][a-zA-Z0-9_:]* and have at most 200 characters; rename it
    "#]],
    );
    check(
        "groups: [{name: a, rules: [{record: x, expr: up, for: 1m, annotations: {a: b}}]}]",
        &expect![[r#"
        a.yml:1:55: error: group "a", rule "x": a recording rule has no `for`; remove it
        a.yml:1:72: error: group "a", rule "x": a recording rule has no `annotations`; remove it
    "#]],
    );
    check(
        "groups: [{name: a, rules: [{record: x, expr: 'up[5m]'}]}]",
        &expect![[r#"
            a.yml:1:46: error: group "a", rule "x": the expression yields a range vector; the rule needs an instant vector or a number
        "#]],
    );
    check(
        "groups: [{name: a, rules: [{alert: x, expr: '\"text\"'}]}]",
        &expect![[r#"
            a.yml:1:45: error: group "a", rule "x": the expression yields a string; the rule needs an instant vector or a number
        "#]],
    );
    check(
        "groups: [{name: a, rules: [{alert: x, expr: ' '}]}]",
        &expect![[r#"
        a.yml:1:45: error: group "a", rule "x": the rule has no expression; add `expr: …`
    "#]],
    );
    check(
        "groups: [{name: a, rules: [{alert: x, expr: up, labels: {__name__: y}}]}]",
        &expect![[r#"
        a.yml:1:28: warning: group "a", rule "x": the alert has no label `severity`; add `severity: critical`, `warning` or `info`
        a.yml:1:28: warning: group "a", rule "x": the alert has no annotation `summary`; say in one line what is wrong, and where
        a.yml:1:45: warning: group "a", rule "x": the expression compares nothing: it alerts for every series there is; add a comparison such as `> 0`
        a.yml:1:58: error: group "a", rule "x": "__name__" is no valid name of a label; rename it
    "#]],
    );
    check(
        "groups: [{name: a, rules: [{alert: x, expr: up, annotations: {belfry_no_data: maybe}}]}]",
        &expect![[r#"
        a.yml:1:28: warning: group "a", rule "x": the alert has no label `severity`; add `severity: critical`, `warning` or `info`
        a.yml:1:28: warning: group "a", rule "x": the alert has no annotation `summary`; say in one line what is wrong, and where
        a.yml:1:45: warning: group "a", rule "x": the expression compares nothing: it alerts for every series there is; add a comparison such as `> 0`
        a.yml:1:79: error: group "a", rule "x": annotation "belfry_no_data" is "maybe"; it must be "keep" or "ok"
    "#]],
    );
    check(
        "groups: [{name: a, rules: [{alert: x, expr: up == 0}, {alert: x, expr: 'up == 0 '}, {alert: x, expr: up == 1}]}]",
        &expect![[r#"
            a.yml:1:28: warning: group "a", rule "x": the alert has no label `severity`; add `severity: critical`, `warning` or `info`
            a.yml:1:28: warning: group "a", rule "x": the alert has no annotation `summary`; say in one line what is wrong, and where
            a.yml:1:55: warning: group "a", rule "x": the alert has no label `severity`; add `severity: critical`, `warning` or `info`
            a.yml:1:55: warning: group "a", rule "x": the alert has no annotation `summary`; say in one line what is wrong, and where
            a.yml:1:55: warning: group "a", rule "x": the rule repeats the one at a.yml:1:28; remove one
            a.yml:1:85: warning: group "a", rule "x": the alert has no label `severity`; add `severity: critical`, `warning` or `info`
            a.yml:1:85: warning: group "a", rule "x": the alert has no annotation `summary`; say in one line what is wrong, and where
            a.yml:1:85: warning: group "a", rule "x": the rule has the name and labels of the one at a.yml:1:28: their alerts look the same; give them different labels
        "#]],
    );
}

#[test]
fn errors_in_expressions_and_templates_are_placed_within_them() {
    check(
        r#"groups:
  - name: a
    rules:
      - alert: Block
        expr: |
          up == 0
            and unknown_function(up)
        annotations:
          summary: |
            first line
            second {{ humanise $value }}
      - alert: Folded
        expr: >
          up == 0
          and up{a=~"("} == 1
      - alert: Quoted
        expr: "up{instance=\"x\"} > nothing(up)"
        annotations: { summary: "{{ \"\n\" }} {{ query \"up\" }}" }
"#,
        &expect![[r#"
            a.yml:7:17: error: group "a", rule "Block": the expression is not valid: unknown function `unknown_function`; mend the expression
            a.yml:11:23: error: group "a", rule "Block": annotation "summary": function "humanise" is not defined; check its spelling
            a.yml:15:15: error: group "a", rule "Folded": the expression is not valid: invalid regular expression in matcher of label `a`: malformed regular expression `(`: unclosed group; mend the expression
            a.yml:17:37: error: group "a", rule "Quoted": the expression is not valid: unknown function `nothing`; mend the expression
            a.yml:18:37: error: group "a", rule "Quoted": annotation "summary": the quote is not closed; close it
        "#]],
    );
}

#[test]
fn lints() {
    check(
        r#"groups:
  - name: a
    interval: 1m
    rules:
      - alert: Bare
        expr: node_load1
        for: 10s
      - alert: Dropped
        expr: sum by (instance) (gpu_power_watts{x="> 5"}) > 5
        labels: { severity: warning, instance: x, a-b: y }
        annotations: { summary: "{{ $labels.instance }} {{ $labels.gpu }}" }
      - alert: Kept
        expr: topk(3, gpu_power_watts) > 5
        labels: { severity: warning }
        annotations: { summary: "{{ $labels.gpu }}" }
      - alert: Gauge
        expr: |
          rate(node_load1[5m]) > 0
            or rate(node_cpu_seconds_total[5m]) > rate(node_vmstat_pgfault[5m])
        labels: { severity: warning }
        annotations: { summary: x }
      - { alert: Absent, expr: absent(up), labels: { severity: a }, annotations: { summary: x } }
"#,
        &expect![[r#"
            a.yml:5:9: warning: group "a", rule "Bare": the alert has no label `severity`; add `severity: critical`, `warning` or `info`
            a.yml:5:9: warning: group "a", rule "Bare": the alert has no annotation `summary`; say in one line what is wrong, and where
            a.yml:5:9: warning: group "a", rule "Bare": `for: 10s` is shorter than the group's interval of 1m; Prometheus would wait for a whole interval
            a.yml:6:15: warning: group "a", rule "Bare": the expression compares nothing: it alerts for every series there is; add a comparison such as `> 0`
            a.yml:9:15: warning: group "a", rule "Dropped": "summary" names the label "gpu", which the aggregation drops; write `by (gpu, …)`, or leave it out
            a.yml:10:38: warning: group "a", rule "Dropped": label "instance" hides the one the alert has already; remove it, or rename it
            a.yml:10:51: warning: group "a", rule "Dropped": label "a-b" must be quoted wherever it is used; use letters, digits and underscores
            a.yml:18:16: warning: group "a", rule "Gauge": `rate` of "node_load1", which may be no counter: its name does not end in `_total`; use `deriv` or `delta` for a gauge
        "#]],
    );
}

#[test]
fn loading_is_all_or_nothing() {
    let good = "groups: [{name: a, rules: [{record: x, expr: up}]}]";
    let bad = "groups: [{name: a, rules: [{record: x, expr: 'up('}]}]";
    let error = RuleSet::load(&sources(&[good, bad])).expect_err("the second file is bad");
    expect![[r#"
        rules not loaded, 1 error:
          b.yml:1:49: error: group "a", rule "x": the expression is not valid: unclosed parenthesis; mend the expression"#]].assert_eq(&error.to_string());
    assert_eq!(RuleSet::load(&sources(&[good, good.replace("x,", "y,").as_str()])).expect("valid").len(), 2);
}

#[test]
fn a_rule_is_found_by_the_metrics_it_reads() {
    let text = r#"
groups:
  - name: a
    rules:
      - { record: one, expr: a + b }
      - { record: two, expr: '{__name__=~"b|c"}' }
      - { record: three, expr: '{__name__=~"d.*"}' }
      - { record: four, expr: 'sum(rate(c[5m])) > 1 unless absent(e)' }
"#;
    let rules = RuleSet::load(&sources(&[text])).expect("valid rules");
    let readers = |metric: &str| rules.readers_of([metric]).into_iter().map(|id| id.0).collect::<Vec<_>>();
    assert_eq!(readers("a"), [0, 2]);
    assert_eq!(readers("b"), [0, 1, 2]);
    assert_eq!(readers("c"), [1, 2, 3]);
    assert_eq!(readers("e"), [2, 3]);
    assert_eq!(readers("z"), [2]);
}

#[test]
fn equal_rules_are_numbered() {
    let text = "groups: [{name: a, rules: [{alert: x, expr: up == 0}, {alert: x, expr: up == 1}]}]";
    let rules = RuleSet::load(&sources(&[text])).expect("valid rules");
    let ordinals: Vec<_> = rules.iter().map(|(_, _, rule)| rule.key.ordinal).collect();
    assert_eq!(ordinals, [0, 1]);
}

#[test]
fn too_many_problems_are_counted() {
    let rules = "      - {}\n".repeat(150);
    let text = format!("groups:\n  - name: a\n    rules:\n{rules}");
    let told = problems(&[&text]);
    assert_eq!(told.lines().count(), 101);
    assert!(told.contains("more problems are not shown; mend the ones above first"), "{told}");
}

#[test]
fn files_are_read_with_a_limit() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules.yml");
    std::fs::write(&path, "groups: []").expect("written");
    assert_eq!(read(std::slice::from_ref(&path)).expect("read").len(), 1);
    std::fs::write(&path, vec![b'#'; 5 << 20]).expect("written");
    assert!(read(std::slice::from_ref(&path)).expect_err("too large").to_string().ends_with("split it"));
    let missing = directory.path().join("missing.yml");
    assert!(read(&[missing]).expect_err("missing").to_string().starts_with("failed to read rule file"));
}

proptest! {
    #[test]
    fn garbage_never_panics(text in "([-:{}\\[\\]#&*!|>'\"%@` \na-z0-9é]|groups:|rules:|alert:|expr:|labels:|\n  |- ){0,80}") {
        problems(&[&text]);
    }

    #[test]
    fn a_damaged_file_never_panics(at in 0_usize..1_000, byte: u8) {
        let mut text = pack().remove(0).text.into_bytes();
        let length = text.len();
        text[at % length] = byte;
        problems(&[&String::from_utf8_lossy(&text)]);
    }
}
