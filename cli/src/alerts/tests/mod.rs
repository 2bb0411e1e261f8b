mod pack;
mod random;
mod world;

use expect_test::{Expect, expect};

use super::*;
use world::{World, run, series};

#[track_caller]
fn check(rule: &str, script: &str, expected: &Expect) {
    let mut world = World::new(&file(rule));
    run(&mut world, script);
    expected.assert_eq(&world.log);
}

/// A file of one group with rules, one a line.
fn file(rules: &str) -> String {
    let rules: Vec<_> = rules.lines().map(str::trim).filter(|rule| !rule.is_empty()).collect();
    format!("groups: [{{name: g, rules: [{}]}}]", rules.join(", "))
}

#[test]
fn without_for_an_alert_fires_at_once() {
    check(
        "{alert: A, expr: a > 5}",
        "a{instance=n1} 1 9 8 3 9",
        &expect![[r#"
           1s firing A {instance=n1} after inactive because condition_true value=9 starts=1s
           3s resolved A {instance=n1} after firing because condition_false value=8 starts=1s ends=3s
           4s firing A {instance=n1} after inactive because condition_true value=9 starts=4s
    "#]],
    );
}

#[test]
fn with_for_an_alert_is_pending_until_it_was_held() {
    check(
        "{alert: A, expr: a > 5, for: 3s}",
        "a{instance=n1} 1 9x5 1 9 1 9x3 1",
        &expect![[r#"
        1s pending A {instance=n1} after inactive because condition_true value=9 starts=1s
        4s firing A {instance=n1} after pending because held value=9 starts=1s
        6s resolved A {instance=n1} after firing because condition_false value=9 starts=1s ends=6s
        7s pending A {instance=n1} after inactive because condition_true value=9 starts=7s
        8s resolved A {instance=n1} after pending because condition_false value=9 starts=7s ends=8s
        9s pending A {instance=n1} after inactive because condition_true value=9 starts=9s
        12s resolved A {instance=n1} after pending because condition_false value=9 starts=9s ends=12s
    "#]],
    );
}

#[test]
fn two_ticks_of_one_instant_are_told_apart() {
    let mut world = World::new(&file("{alert: A, expr: a / b > 5}"));
    let ((a, _), (b, _)) = (series("a{instance=n1}"), series("b{instance=n1}"));
    world.step(&[(a.clone(), Some(9.0)), (b.clone(), Some(1.0))]);
    world.tick_of(&a, 9.0);
    world.tick_of(&b, belfry_promql::STALE_NAN);
    assert_eq!(world.states(), "A n1 firing without data");
    world.second += 1;
    world.tick_of(&a, 9.0);
    world.tick_of(&b, 1.0);
    assert_eq!(world.states(), "A n1 firing");
    world.second += 1;
    world.tick_of(&a, 9.0);
    world.tick_of(&b, 3.0);
    assert_eq!(world.states(), "");
}

#[test]
fn each_series_is_an_alert() {
    check(
        "{alert: A, expr: a > 5, for: 2s, labels: {severity: critical}}",
        "a{instance=n1,gpu=0} 9x4 1
         a{instance=n1,gpu=1} 1 9x4
         a{instance=n2,gpu=0} 1 1 9 1 1",
        &expect![[r#"
               0s pending A {gpu=0,instance=n1,severity=critical} after inactive because condition_true value=9 starts=0s
               1s pending A {gpu=1,instance=n1,severity=critical} after inactive because condition_true value=9 starts=1s
               2s firing A {gpu=0,instance=n1,severity=critical} after pending because held value=9 starts=0s
               2s pending A {gpu=0,instance=n2,severity=critical} after inactive because condition_true value=9 starts=2s
               3s firing A {gpu=1,instance=n1,severity=critical} after pending because held value=9 starts=1s
               3s resolved A {gpu=0,instance=n2,severity=critical} after pending because condition_false value=9 starts=2s ends=3s
               4s resolved A {gpu=0,instance=n1,severity=critical} after firing because condition_false value=9 starts=0s ends=4s
        "#]],
    );
}

#[test]
fn keep_firing_for_bridges_gaps() {
    check(
        "{alert: A, expr: a > 5, keep_firing_for: 3s}",
        "a{instance=n1} 9 1 1 9 1 1 1 1 1 9
         @2 states
         @4 states",
        &expect![[r#"
               0s firing A {instance=n1} after inactive because condition_true value=9 starts=0s
               2s states: A n1 recovering
               4s states: A n1 firing
               7s resolved A {instance=n1} after firing because kept_long_enough value=9 starts=0s ends=7s
               9s firing A {instance=n1} after inactive because condition_true value=9 starts=9s
        "#]],
    );
}

#[test]
fn flapping_tells_every_turn() {
    check(
        "{alert: A, expr: a > 5}",
        "a{instance=n1} 9 1 9 1 9 1",
        &expect![[r#"
           0s firing A {instance=n1} after inactive because condition_true value=9 starts=0s
           1s resolved A {instance=n1} after firing because condition_false value=9 starts=0s ends=1s
           2s firing A {instance=n1} after inactive because condition_true value=9 starts=2s
           3s resolved A {instance=n1} after firing because condition_false value=9 starts=2s ends=3s
           4s firing A {instance=n1} after inactive because condition_true value=9 starts=4s
           5s resolved A {instance=n1} after firing because condition_false value=9 starts=4s ends=5s
    "#]],
    );
}

#[test]
fn a_series_that_ends_keeps_its_alert() {
    check(
        "{alert: A, expr: a > 5}",
        "a{instance=n1} 9 9 stale _x5 9 1
         @3 states
         @9 states",
        &expect![[r#"
               0s firing A {instance=n1} after inactive because condition_true value=9 starts=0s
               3s states: A n1 firing without data
               9s states: A n1 firing
               9s resolved A {instance=n1} after firing because condition_false value=9 starts=0s ends=9s
        "#]],
    );
    check(
        "{alert: A, expr: a > 5}",
        "a{instance=n1} 9 9 _x400 1
         b{instance=n1} 1x400
         @200 states
         @350 states",
        &expect![[r#"
            0s firing A {instance=n1} after inactive because condition_true value=9 starts=0s
            200s states: A n1 firing
            350s states: A n1 firing
            402s resolved A {instance=n1} after firing because condition_false value=9 starts=0s ends=402s
        "#]],
    );
}

#[test]
fn a_rate_that_runs_out_of_samples_keeps_its_alert() {
    check(
        "{alert: A, expr: 'rate(a_total[5s]) > 5'}",
        "a_total{instance=n1} 0 10 20 30 40 50 _x40 60 61 62 63 64 65
         @30 states",
        &expect![[r#"
            3s firing A {instance=n1} after inactive because condition_true value=6 starts=3s
            30s states: A n1 firing without data
            46s resolved A {instance=n1} after firing because condition_false value=10 starts=3s ends=46s
        "#]],
    );
}

#[test]
fn a_pending_alert_without_data_does_not_fire_and_its_wait_does_not_count() {
    check(
        "{alert: A, expr: a > 5, for: 4s}",
        "a{instance=n1} 9 9 stale _x9 9 9 9 9
         @10 states",
        &expect![[r#"
            0s pending A {instance=n1} after inactive because condition_true value=9 starts=0s
            10s states: A n1 pending without data
            14s firing A {instance=n1} after pending because held value=9 starts=0s
        "#]],
    );
}

#[test]
fn a_recovering_alert_recovers_without_data() {
    check(
        "{alert: A, expr: a > 5, keep_firing_for: 4s}",
        "a{instance=n1} 9 1 stale _x5",
        &expect![[r#"
           0s firing A {instance=n1} after inactive because condition_true value=9 starts=0s
           5s resolved A {instance=n1} after firing because kept_long_enough value=9 starts=0s ends=5s
    "#]],
    );
}

#[test]
fn a_comparison_with_a_missing_side_keeps_its_alert() {
    check(
        "{alert: A, expr: a / b > 5}",
        "a{instance=n1} 9 9 9 1 1
         b{instance=n1} 1 stale _ _ 1
         @2 states
         @4 states",
        &expect![[r#"
               0s firing A {instance=n1} after inactive because condition_true value=9 starts=0s
               2s states: A n1 firing without data
               3s resolved A {instance=n1} after firing because condition_false value=9 starts=0s ends=3s
               4s states: 
        "#]],
    );
}

#[test]
fn existence_operators_resolve_by_presence_and_not_by_absence() {
    check(
        "{alert: Unless, expr: a > 5 unless b}
         {alert: Absent, expr: 'absent(b)'}",
        "a{instance=n1} 9x8
         b{instance=n1} _ _ 1 1 stale _ _ _",
        &expect![[r#"
               0s firing Unless {instance=n1} after inactive because condition_true value=9 starts=0s
               0s firing Absent {} after inactive because condition_true value=1 starts=0s
               2s resolved Unless {instance=n1} after firing because condition_false value=9 starts=0s ends=2s
               2s resolved Absent {} after firing because condition_false value=1 starts=0s ends=2s
               4s firing Unless {instance=n1} after inactive because condition_true value=9 starts=4s
               4s firing Absent {} after inactive because condition_true value=1 starts=4s
        "#]],
    );
    check(
        "{alert: Kept, expr: a > 5 and b}
         {alert: Ended, expr: a > 5 and b, annotations: {belfry_no_data: ok}}",
        "a{instance=n1} 9x5
         b{instance=n1} 1 1 stale _ _
         @4 states",
        &expect![[r#"
               0s firing Kept {instance=n1} after inactive because condition_true value=9 starts=0s
               0s firing Ended {instance=n1} after inactive because condition_true value=9 starts=0s
               2s resolved Ended {instance=n1} after firing because condition_false value=9 starts=0s ends=2s
               4s states: Kept n1 firing without data
        "#]],
    );
}

#[test]
fn a_sum_that_lost_a_member_keeps_its_alert_until_the_others_contradict() {
    check(
        "{alert: A, expr: sum(a) > 5}",
        "a{instance=n1} 4 4 4 4 1
         a{instance=n2} 4 stale _ _ _
         @3 states",
        &expect![[r#"
               0s firing A {} after inactive because condition_true value=8 starts=0s
               3s states: A  firing without data
               4s resolved A {} after firing because condition_false value=8 starts=0s ends=4s
        "#]],
    );
}

#[test]
fn more_moments_than_are_looked_back_to_at_once_all_have_their_turn() {
    // Forty series end in forty different seconds, come back in one and contradict their alerts.
    let script: String =
        (0..40).map(|at| format!("a{{instance=n1,x={at}}} 9x{} stale _x{} 1x5\n", at + 1, 40 - at)).collect();
    let mut world = World::new(&file("{alert: A, expr: a > 5}"));
    run(&mut world, &script);
    assert_eq!(world.states(), "", "{}", world.log);
    let resolved_at: std::collections::BTreeSet<_> = world.events[40..].iter().map(|event| event.time).collect();
    assert_eq!((world.events.len(), resolved_at.len()), (80, 3));
}

#[test]
fn a_failing_store_loses_no_event() {
    let mut world = World::new(&file("{alert: A, expr: a > 5}"));
    let names = ["a{instance=n1,x=0}", "a{instance=n1,x=1}"];
    let (first, second) = (series(names[0]).0, series(names[1]).0);
    world.step(&[(first.clone(), Some(9.0)), (second.clone(), Some(9.0))]);
    world.step(&[(first.clone(), Some(9.0))]);
    // `keep` of the world compares what stands with what was told after each call, failed or not.
    world.fail_after = Some(2);
    world.step(&[(first.clone(), Some(1.0)), (second.clone(), Some(1.0))]);
    world.fail_after = None;
    world.step(&[(first, Some(1.0)), (second, Some(1.0))]);
    assert_eq!(world.states(), "");
    assert_eq!(world.events.len(), 4);
}

#[test]
fn no_data_ends_after_a_day_on_a_node_that_is_up_and_never_on_one_that_is_down() {
    let options = Options { no_data_keep_ms: 10_000, ..Options::default() };
    let mut world = World::with(&file("{alert: A, expr: a > 5}"), options.clone());
    run(&mut world, "a{instance=n1} 9 stale _x20\n up{instance=n1} 1x22");
    expect![[r#"
        0s firing A {instance=n1} after inactive because condition_true value=9 starts=0s
        11s resolved A {instance=n1} after firing because no_data value=9 starts=0s ends=11s
    "#]]
    .assert_eq(&world.log);
    let mut world = World::with(&file("{alert: A, expr: a > 5}"), options);
    run(&mut world, "a{instance=n1} 9 stale _x40\n up{instance=n1} 1 0x20 1x21\n @20 states\n @25 states");
    expect![[r#"
        0s firing A {instance=n1} after inactive because condition_true value=9 starts=0s
        20s states: A n1 firing without data
        25s states: A n1 firing without data
    "#]]
    .assert_eq(&world.log);
}

#[test]
fn a_forgotten_node_takes_its_alerts_along() {
    check(
        "{alert: A, expr: a > 5}
         {alert: Sum, expr: sum(a) > 5}",
        "a{instance=n1} 9 9 9 9
         a{instance=n2} 9 9 9 9
         @2 forget n1",
        &expect![[r#"
               0s firing A {instance=n1} after inactive because condition_true value=9 starts=0s
               0s firing A {instance=n2} after inactive because condition_true value=9 starts=0s
               0s firing Sum {} after inactive because condition_true value=18 starts=0s
               2s resolved A {instance=n1} after firing because node_forgotten value=9 starts=0s ends=2s
               2s firing A {instance=n1} after inactive because condition_true value=9 starts=2s
        "#]],
    );
}

#[test]
fn a_restart_resumes_the_very_state() {
    check(
        "{alert: A, expr: a > 5, for: 6s}",
        "a{instance=n1} 9x12 1
         @3 restart
         @8 restart",
        &expect![[r#"
            0s pending A {instance=n1} after inactive because condition_true value=9 starts=0s
            7s firing A {instance=n1} after pending because held value=9 starts=0s
            12s resolved A {instance=n1} after firing because condition_false value=9 starts=0s ends=12s
        "#]],
    );
}

#[test]
fn downtime_is_no_evidence() {
    // Pending for 2 s, away for 5 s, then 4 s more are needed.
    check(
        "{alert: A, expr: a > 5, for: 6s}",
        "a{instance=n1} 9x20
         @3 crash
         @8 restart",
        &expect![[r#"
            0s pending A {instance=n1} after inactive because condition_true value=9 starts=0s
            12s firing A {instance=n1} after pending because held value=9 starts=0s
        "#]],
    );
    // Firing before, data back only later: no resolve between, and the resolve that was missed is delivered.
    check(
        "{alert: A, expr: a > 5}",
        "a{instance=n1} 9 9 _ _ _ _ _ _ 1 1
         @2 crash
         @6 restart
         @7 states",
        &expect![[r#"
               0s firing A {instance=n1} after inactive because condition_true value=9 starts=0s
               7s states: A n1 firing
               8s resolved A {instance=n1} after firing because condition_false value=9 starts=0s ends=8s
        "#]],
    );
    check(
        "{alert: A, expr: a > 5, keep_firing_for: 4s}",
        "a{instance=n1} 9 1 1 1 1 1 1 1 1 1 1 1
         @3 crash
         @7 restart",
        &expect![[r#"
            0s firing A {instance=n1} after inactive because condition_true value=9 starts=0s
            10s resolved A {instance=n1} after firing because kept_long_enough value=9 starts=0s ends=10s
        "#]],
    );
}

#[test]
fn duplicate_labels_are_an_error_of_the_rule_and_change_nothing() {
    check(
        "{alert: A, expr: a > 5, labels: {gpu: any}}",
        "a{instance=n1,gpu=0} 9 9 9 9 1
         a{instance=n1,gpu=1} 1 1 9 1 1
         @2 health
         @3 health
         @4 health",
        &expect![[r#"
               0s firing A {gpu=any,instance=n1} after inactive because condition_true value=9 starts=0s
               2s health of A: "ok" 
               3s health of A: "err" two series have the labels {alertname="A", gpu="any", instance="n1"} after the rule's labels are applied; keep a label that tells them apart
               4s health of A: "ok" 
               4s resolved A {gpu=any,instance=n1} after firing because condition_false value=9 starts=0s ends=4s
        "#]],
    );
    check(
        "{alert: A, expr: a > 5, labels: {instance: any}}",
        "a{instance=n1} 9 9 1 1
         a{instance=n2} 9 9 9 9
         @1 health
         @3 health",
        &expect![[r#"
               0s firing A {instance=any} after inactive because condition_true value=9 starts=0s
               1s health of A: "err" two series have the labels {alertname="A", instance="any"} after the rule's labels are applied; keep a label that tells them apart
               2s resolved A {instance=any} after firing because condition_false value=9 starts=0s ends=2s
               2s firing A {instance=any} after inactive because condition_true value=9 starts=2s
               3s health of A: "ok" 
        "#]],
    );
}

#[test]
fn errors_of_evaluation_keep_the_state() {
    check(
        "{alert: A, expr: a * on(instance) group_left(x) b > 5}",
        "a{instance=n1} 9 9 9 1
         b{instance=n1,x=1} 1 1 1 1
         b{instance=n1,x=2} _ 1 stale _
         @2 health
         @2 states
         @3 health",
        &expect![[r#"
               0s firing A {instance=n1,x=1} after inactive because condition_true value=9 starts=0s
               2s health of A: "err" failed to evaluate the expression: found duplicate series for the match group {instance="n1"} on the right hand-side of the operation: [{__name__="b", instance="n1", x="1"}, {__name__="b", instance="n1", x="2"}];many-to-many matching not allowed: matching labels must be unique on one side
               2s states: A n1 firing
               3s health of A: "ok" 
               3s resolved A {instance=n1,x=1} after firing because condition_false value=9 starts=0s ends=3s
        "#]],
    );
}

#[test]
fn labels_and_annotations_are_templates() {
    let rule = "{alert: A, expr: a > 5, labels: {severity: '{{ if gt $value 8 }}critical{{ else }}warning{{ end }}', \
                gone: '{{ $labels.missing }}'}, annotations: {summary: '{{ $labels.instance }} at {{ $value }}', \
                bad: '{{ humanize $labels.instance }}'}}";
    let mut world = World::new(&file(rule));
    run(&mut world, "a{instance=n1} 6 7 9");
    expect![[r#"
           0s firing A {instance=n1,severity=warning} after inactive because condition_true value=6 starts=0s
           2s firing A {instance=n1,severity=critical} after inactive because condition_true value=9 starts=2s
           2s resolved A {instance=n1,severity=warning} after firing because condition_false value=7 starts=0s ends=2s
    "#]]
    .assert_eq(&world.log);
    let annotations: Vec<_> = world.events.iter().map(|event| event.annotations.clone()).collect();
    expect![[r#"
        Some(
            {
                "bad": "<error expanding template: `humanize`: \"n1\" is no number>",
                "summary": "n1 at 7",
            },
        )
    "#]]
    .assert_debug_eq(&annotations.last());
}

#[test]
fn a_limit_keeps_what_stands() {
    let text = "groups: [{name: g, limit: 2, rules: [{alert: A, expr: a > 5}]}]";
    let mut world = World::new(text);
    run(
        &mut world,
        "a{instance=n1,x=1} 9 9 9 1 1
         a{instance=n1,x=2} _ 9 9 9 9
         a{instance=n1,x=3} _ _ 9 9 9
         a{instance=n1,x=4} _ _ 9 9 9
         @3 health
         @4 health",
    );
    expect![[r#"
           0s firing A {instance=n1,x=1} after inactive because condition_true value=9 starts=0s
           1s firing A {instance=n1,x=2} after inactive because condition_true value=9 starts=1s
           3s health of A: "err" limit of 2 reached: 2 more are left out
           3s resolved A {instance=n1,x=1} after firing because condition_false value=9 starts=0s ends=3s
           4s health of A: "err" limit of 2 reached: 2 more are left out
           4s firing A {instance=n1,x=4} after inactive because condition_true value=9 starts=4s
    "#]]
    .assert_eq(&world.log);
    let mut world = World::with(&file("{alert: A, expr: a > 5}"), Options { alerts_max: 1, ..Options::default() });
    run(&mut world, "a{instance=n1,x=1} 9 9\n a{instance=n1,x=2} 9 9\n @1 health");
    expect![[r#"
           0s firing A {instance=n1,x=1} after inactive because condition_true value=9 starts=0s
           1s health of A: "err" limit of 1 reached: 1 more are left out
    "#]]
    .assert_eq(&world.log);
}

#[test]
fn a_reload_keeps_what_it_can() {
    let mut world = World::new(&file("{alert: A, expr: a > 5}\n {alert: B, expr: a > 5}\n {alert: C, expr: a > 5}"));
    let (labels, _) = series("a{instance=n1}");
    world.step(&[(labels.clone(), Some(9.0))]);
    world.reload(&file("{alert: A, expr: a > 7, for: 1m}\n {alert: B, expr: a > 5, labels: {team: x}}"));
    world.step(&[(labels.clone(), Some(9.0))]);
    world.step(&[(labels, Some(6.0))]);
    expect![[r#"
           0s firing A {instance=n1} after inactive because condition_true value=9 starts=0s
           0s firing B {instance=n1} after inactive because condition_true value=9 starts=0s
           0s firing C {instance=n1} after inactive because condition_true value=9 starts=0s
           1s resolved B {instance=n1} after firing because rule_removed value=9 starts=0s ends=1s
           1s resolved C {instance=n1} after firing because rule_removed value=9 starts=0s ends=1s
           1s firing B {instance=n1,team=x} after inactive because condition_true value=9 starts=1s
           2s resolved A {instance=n1} after firing because condition_false value=9 starts=0s ends=2s
    "#]]
    .assert_eq(&world.log);
}

#[test]
fn recording_rules_chain() {
    let mut world = World::new(
        "groups: [{name: g, interval: 2s, rules: [\
           {record: r, expr: sum by (instance) (a), labels: {by: sum}}, \
           {record: s, expr: r * 2}, \
           {alert: A, expr: s > 10}]}]",
    );
    run(
        &mut world,
        "a{instance=n1,x=1} 1 1 4 4 4 4 stale _ _
         a{instance=n1,x=2} 1 1 4 4 4 4 stale _ _",
    );
    expect![[r#"
           0s record r{by="sum", instance="n1"} 2
           0s record s{by="sum", instance="n1"} 4
           2s record r{by="sum", instance="n1"} 8
           2s record s{by="sum", instance="n1"} 16
           2s firing A {by=sum,instance=n1} after inactive because condition_true value=16 starts=2s
           4s record r{by="sum", instance="n1"} 8
           4s record s{by="sum", instance="n1"} 16
           6s record r{by="sum", instance="n1"} stale
           6s record s{by="sum", instance="n1"} stale
    "#]]
    .assert_eq(&world.log);
}

#[test]
fn a_query_offset_looks_back() {
    let text = "groups: [{name: g, query_offset: 2s, rules: [{alert: A, expr: a > 5}]}]";
    let mut world = World::new(text);
    run(&mut world, "a{instance=n1} 1 9 1 1 1 1");
    expect![[r#"
           3s firing A {instance=n1} after inactive because condition_true value=9 starts=3s
           4s resolved A {instance=n1} after firing because condition_false value=9 starts=3s ends=4s
    "#]]
    .assert_eq(&world.log);
}

#[test]
fn time_alone_moves_rules_that_depend_on_it() {
    let mut world = World::new(
        "groups: [{name: g, interval: 5s, rules: [{alert: Old, expr: time() - a > 7}, \
         {alert: Gone, expr: 'absent(b{instance=\"n1\"})', for: 3s}]}]",
    );
    run(
        &mut world,
        "a{instance=n1} 1700000000 _x20 1700000021
         b{instance=n1} _x12 1 1 1 1 1",
    );
    expect![[r#"
        0s pending Gone {instance=n1} after inactive because condition_true value=1 starts=0s
        3s firing Gone {instance=n1} after pending because held value=1 starts=0s
        10s firing Old {instance=n1} after inactive because condition_true value=10 starts=10s
        12s resolved Gone {instance=n1} after firing because condition_false value=1 starts=0s ends=12s
        21s resolved Old {instance=n1} after firing because condition_false value=20 starts=10s ends=21s
    "#]]
    .assert_eq(&world.log);
}

#[test]
fn a_node_whose_clock_is_wrong_is_looked_at_by_its_own_time() {
    // Rules are evaluated over everything every 2 s by the collector's clock, and for each tick by the node's.
    let text = "groups: [{name: g, interval: 2s, rules: [{alert: A, expr: a > 5, for: 2s}]}]";
    let script = "a{instance=n1} 1 9x8 stale _x3 9 1 1 9\n @11 states";
    let mut logs = Vec::new();
    for skew_ms in [0, -30_000, -200_000, 30_000, 599_000] {
        let mut world = World::new(text);
        world.skew_ms = skew_ms;
        run(&mut world, script);
        logs.push(world.log);
    }
    expect![[r#"
        1s pending A {instance=n1} after inactive because condition_true value=9 starts=1s
        3s firing A {instance=n1} after pending because held value=9 starts=1s
        11s states: A n1 firing without data
        14s resolved A {instance=n1} after firing because condition_false value=9 starts=1s ends=14s
        16s pending A {instance=n1} after inactive because condition_true value=9 starts=16s
    "#]]
    .assert_eq(&logs[0]);
    assert!(logs.iter().all(|log| log == &logs[0]), "{logs:#?}");
}

#[test]
fn data_about_many_nodes_is_looked_at_once() {
    let mut world = World::new(&file("{alert: A, expr: a > 5}"));
    let interest = world.engine.interest([["a"]]);
    run(&mut world, "z{instance=n1} 1");
    for node in ["a{instance=n1}", "a{instance=n2}"] {
        world.store(&series(node).0, 9.0);
    }
    world.engine.touch(&interest);
    run(&mut world, "z{instance=n1} 1");
    assert_eq!(world.states(), "A n1 firing, A n2 firing");
}

#[test]
fn series_of_one_node_that_cannot_be_evaluated_do_not_concern_the_others() {
    let mut world = World::new(&file("{alert: A, expr: a / on (instance) b > 5}"));
    run(
        &mut world,
        "a{instance=n1} 9\nb{instance=n1} 1\na{instance=n2} 9\nb{instance=n2,x=1} 1\nb{instance=n2,x=2} 1\n\
         a{instance=n3} 9\nb{instance=n3} 1",
    );
    assert_eq!(world.states(), "A n1 firing, A n3 firing");
    let failure = serde_json::to_string(&world.engine.rule_views()).expect("JSON");
    assert!(failure.contains("many-to-many"), "{failure}");
}

#[test]
fn an_outdated_interest_is_an_interest_in_everything() {
    let mut world = World::new(&file("{alert: A, expr: b > 5}"));
    let interest = world.engine.interest([["a"]]);
    assert!(world.engine.is_current(&interest));
    world.reload(&file("{alert: A, expr: a > 5}"));
    assert!(!world.engine.is_current(&interest));
    world.store(&series("a{instance=n1}").0, 9.0);
    let store = std::mem::take(&mut world.store);
    let tick = Tick { node: "n1", time_ms: world.now_ms(), interest: &interest, changed: None };
    let outcome = world.engine.on_tick(&tick, &world::context(&store, world.now_ms()));
    assert_eq!(outcome.transitions.len(), 1);
}

#[test]
fn what_did_not_change_is_not_evaluated_again() {
    let mut world = World::new(&file("{alert: A, expr: a > 5 unless b > 5}"));
    let evaluations = |world: &World| world.engine.iter().map(|(.., running)| running.health.evaluations).sum::<u64>();
    run(&mut world, "a{instance=n1} 1 1 1 1 1 1\nb{instance=n1} 1 2 2 2 2 2");
    let before = evaluations(&world);
    run(&mut world, "a{instance=n1} 1 1 1 1 1 1\nb{instance=n1} 2 2 2 2 2 2");
    assert_eq!(evaluations(&world), before);
    run(&mut world, "a{instance=n1} 9 9 9\nb{instance=n1} 2 2 2");
    assert_eq!(world.states(), "A n1 firing");
    assert_eq!(evaluations(&world), before + 3, "what stands is looked at with each tick");
    run(&mut world, "a{instance=n1} 9 9\nb{instance=n1} 9 9");
    assert_eq!(world.states(), "");
}

#[test]
fn lists_of_alerts_and_rules() {
    let mut world = World::new(
        "groups: [{name: g, rules: [{record: r, expr: a}, {alert: A, expr: a > 5, labels: {severity: page}, \
         annotations: {summary: hot}}]}]",
    );
    run(&mut world, "a{instance=n1} 9");
    expect![[r#"
        [
          {
            "state": "firing",
            "rule": "A",
            "group": "g",
            "severity": "page",
            "fingerprint": "131fe311a8363945",
            "labels": {
              "alertname": "A",
              "instance": "n1",
              "severity": "page"
            },
            "annotations": {
              "summary": "hot"
            },
            "value": 9.0,
            "active_at": "2023-11-14T22:13:20.000Z",
            "fired_at": "2023-11-14T22:13:20.000Z",
            "keep_firing_since": null,
            "no_data_since": null
          }
        ]"#]]
    .assert_eq(&serde_json::to_string_pretty(&world.engine.alerts()).expect("JSON"));
    expect![[r#"
        [
          {
            "file": "test.yml",
            "group": "g",
            "rule": "r",
            "type": "recording",
            "state": null,
            "health": "ok",
            "last_error": null,
            "warnings": [],
            "last_evaluation": "2023-11-14T22:13:20.000Z",
            "evaluation_seconds": 0.0,
            "evaluations": 1,
            "evaluation_seconds_total": 0.0,
            "alerts": 0,
            "left_out": 0,
            "expression": "a",
            "for_seconds": 0.0,
            "keep_firing_for_seconds": 0.0,
            "labels": {},
            "annotations": {},
            "interval_seconds": null,
            "limit": null
          },
          {
            "file": "test.yml",
            "group": "g",
            "rule": "A",
            "type": "alerting",
            "state": "firing",
            "health": "ok",
            "last_error": null,
            "warnings": [],
            "last_evaluation": "2023-11-14T22:13:20.000Z",
            "evaluation_seconds": 0.0,
            "evaluations": 2,
            "evaluation_seconds_total": 0.0,
            "alerts": 1,
            "left_out": 0,
            "expression": "a > 5",
            "for_seconds": 0.0,
            "keep_firing_for_seconds": 0.0,
            "labels": {
              "severity": "page"
            },
            "annotations": {
              "summary": "hot"
            },
            "interval_seconds": null,
            "limit": null
          }
        ]"#]]
    .assert_eq(&serde_json::to_string_pretty(&world.engine.rule_views()).expect("JSON"));
}

#[test]
fn an_event_of_an_alert_has_every_field() {
    let mut world = World::new(&file("{alert: A, expr: a > 5, labels: {severity: page}, annotations: {summary: hot}}"));
    run(&mut world, "a{instance=n1} 9 1");
    let last = world.events.last().expect("an event");
    expect![[r#"
        {
          "schema": 1,
          "seq": 0,
          "time": "2023-11-14T22:13:21.000Z",
          "event": "resolved",
          "previous": "firing",
          "reason": "condition_false",
          "rule": "A",
          "severity": "page",
          "fingerprint": "131fe311a8363945",
          "dedup_key": "131fe311a8363945-fa0f6b06-1700000000000",
          "labels": {
            "alertname": "A",
            "instance": "n1",
            "severity": "page"
          },
          "annotations": {
            "summary": "hot"
          },
          "value": 9.0,
          "starts_at": "2023-11-14T22:13:20.000Z",
          "ends_at": "2023-11-14T22:13:21.000Z"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(last).expect("JSON"));
}

#[test]
fn the_dedup_key_tells_rules_and_episodes_apart_and_outlives_a_restart() {
    let mut world = World::new(&file("{alert: A, expr: a > 5}\n {alert: A, expr: a > 6}"));
    run(&mut world, "a{instance=n1} 9 9 9 1 9\n @2 restart");
    let keys: Vec<_> = world.events.iter().map(|event| event.dedup_key.clone().expect("a key")).collect();
    let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!((keys.len(), distinct.len()), (6, 4), "{keys:?}");
    assert_eq!((&keys[0], &keys[1]), (&keys[2], &keys[3]));
}
