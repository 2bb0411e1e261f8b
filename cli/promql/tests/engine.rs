//! What must hold for every expression: the engine never panics, stays within its bounds, and its answers agree with
//! each other.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use belfry_promql::{
    EvalError, Labels, Limits, Output, Plan, PlanError, ReadError, ReadRequest, Sample, Series, SeriesReader, Summary,
    Value, evaluate_instant, evaluate_range, limits,
};
use expect_test::{Expect, expect};
use proptest::prelude::*;

const SECOND_MS: i64 = 1_000;

/// Three metrics of two instances with two GPUs each, 100 samples ten seconds apart, a gap and an end among them.
fn store() -> Vec<Series> {
    let mut series = Vec::new();
    for (metric, name) in ["a", "b_total", "c"].into_iter().enumerate() {
        for (node, instance) in ["n1", "n2"].into_iter().enumerate() {
            for (gpu, label) in ["0", "1"].into_iter().enumerate() {
                let seed = i64::try_from(metric * 7 + node * 3 + gpu).expect("a small number");
                let pairs = [("__name__", name), ("instance", instance), ("gpu", label)];
                series.push(Series { labels: Labels::from_pairs(pairs), samples: samples(seed) });
            }
        }
    }
    series
}

fn samples(seed: i64) -> Vec<Sample> {
    let value = |step: i64| match (step + seed * 5) % 23 {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => 0.0,
        phase => f64::from(i32::try_from(phase * (seed % 4 + 1)).expect("a small number")),
    };
    (0..100)
        .filter(|step| (step + seed) % 40 > 2)
        .map(|step| {
            let stale = step == 90 && seed % 2 == 0;
            let value = if stale { belfry_promql::STALE_NAN } else { value(step) };
            Sample { time_ms: step * 10 * SECOND_MS + seed, value }
        })
        .collect()
}

fn refusal(expression: &str, expected: &Expect) {
    let error = Plan::parse(expression).expect_err("a refusal");
    expected.assert_eq(&error.to_string());
}

#[test]
fn what_is_not_supported_is_refused_with_its_position() {
    refusal("a + integral(b[5m])", &expect!["`integral` is not supported yet at 1:5"]);
    refusal("rate(a[5m] smoothed)", &expect!["`smoothed` is not supported yet at 1:12"]);
    refusal("rate(a[5m + 1m])", &expect!["a calculated duration is not supported yet at 1:8"]);
    refusal("a offset (5m)", &expect!["a calculated duration is not supported yet at 1:10"]);
    refusal(r#"{a="1" or b="2"}"#, &expect!["`or` between matchers is not supported yet at 1:1"]);
}

#[test]
fn mistakes_are_refused_with_their_position() {
    refusal("sum(\n  rat(a[5m]))", &expect!["unknown function `rat` at 2:3"]);
    refusal(r#"a{b=~"x("}"#, &expect!["invalid regular expression in matcher of label `b` at 1:1"]);
    refusal("a offset 99999999999y", &expect!["invalid duration or timestamp `99999999999y` at 1:10"]);
    refusal("a[1e300]", &expect!["invalid duration or timestamp `1e300` at 1:3"]);
    refusal(r#"a{b="x"#, &expect!["unclosed quote at 1:5"]);
    refusal(r#"{a=~".*"}"#, &expect!["vector selector must contain at least one non-empty matcher at 1:1"]);
    refusal(r#"label_replace(a, "x", "\xff", "y", "z")"#, &expect!["byte escape is not valid UTF-8 at 1:24"]);
}

#[test]
fn plans_are_shared_between_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Plan>();
    check::<PlanError>();
    check::<EvalError>();
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = |depth: usize| format!("{}a{}", "abs(".repeat(depth), ")".repeat(depth));
    assert!(Plan::parse(&nested(limits::NESTING_DEPTH_MAX - 2)).is_ok());
    for deep in [nested(100_000 / 8), format!("{}1", "-".repeat(1_000)), format!("1{}", "^1".repeat(1_000))] {
        assert!(matches!(Plan::parse(&deep), Err(PlanError::TooDeep { .. })));
    }
    for link in [" + 1", " or a", " % -1"] {
        let long = format!("a{}", link.repeat(limits::OPERATORS_MAX + 1));
        assert!(matches!(Plan::parse(&long), Err(PlanError::TooManyOperators { .. })));
    }
    let huge = "a".repeat(limits::EXPRESSION_BYTES_MAX + 1);
    assert!(matches!(Plan::parse(&huge), Err(PlanError::TooLong { .. })));
}

#[test]
fn long_chains_and_deep_nests_are_evaluated() {
    let deep = format!("{}a{}", "abs(".repeat(60), ")".repeat(60));
    for expression in [
        format!("a{}", " or a".repeat(limits::OPERATORS_MAX)),
        format!("a @ 5{}", " + a @ 5".repeat(limits::OPERATORS_MAX)),
        format!("a{}", " * 1".repeat(limits::OPERATORS_MAX)),
        format!("1{}", " - 1".repeat(limits::OPERATORS_MAX)),
        deep,
    ] {
        let plan = Plan::parse(&expression).expect("a valid expression");
        let _ = (plan.selectors(), plan.is_separable_by("x"), plan.depends_on_clock());
        let output = evaluate_range(&plan, &store(), 0, 100 * SECOND_MS, 50 * SECOND_MS, &Limits::default());
        assert!(output.is_ok(), "{output:?}");
    }
}

#[test]
fn queries_stay_within_their_limits() {
    let run = |expression: &str, limits: Limits<'_>| {
        let plan = Plan::parse(expression).expect("a valid expression");
        evaluate_range(&plan, &store(), 0, 900 * SECOND_MS, 10 * SECOND_MS, &limits)
    };
    let few_samples = Limits { samples_max: 100, ..Limits::default() };
    assert!(run("a", few_samples).is_ok(), "one series after the other");
    assert!(matches!(run("a - a", few_samples), Err(EvalError::TooManySamples { limit: 100 })));
    assert!(matches!(run("vector(1)[100y:1ms]", few_samples), Err(EvalError::NotForRange { .. })));
    assert!(matches!(
        run("last_over_time(vector(1)[100y:1ms])", Limits::default()),
        Err(EvalError::TooManyBytes { .. })
    ));
    let few_series = Limits { series_max: 3, ..Limits::default() };
    assert!(matches!(run("a", few_series), Err(EvalError::TooManySeries { limit: 3 })));
    let few_steps = Limits { steps_max: 90, ..Limits::default() };
    assert!(matches!(run("a", few_steps), Err(EvalError::TooManySteps { limit: 90 })));
    let mut doubled = "a".to_owned();
    for _ in 0..40 {
        doubled = format!(r#"label_replace({doubled}, "gpu", "$1$1", "gpu", "(.*)")"#);
    }
    assert!(matches!(run(&doubled, Limits::default()), Err(EvalError::LabelTooLong(_))));
}

#[test]
fn work_and_memory_are_bounded_whatever_is_nested() {
    let run = |expression: &str, limits: Limits<'_>| {
        let plan = Plan::parse(expression).expect("a valid expression");
        evaluate_instant(&plan, &store(), 900 * SECOND_MS, &limits)
    };
    let unlimited = |expression: &str| run(expression, Limits::default());
    // Known before anything is read, in whatever is nested.
    let nested = "sum_over_time(avg_over_time((a * time())[1d:1s])[1d:1s])";
    assert!(matches!(unlimited(nested), Err(EvalError::TooMuchWork { .. })));
    assert!(matches!(unlimited(&format!("-sum(a + on(gpu) {nested})")), Err(EvalError::TooMuchWork { .. })));
    // Windows that are not walked, and what is the same at each step, cost nothing.
    assert!(unlimited("last_over_time(rate(a[1d:1s])[1h:1s])").is_ok());
    assert!(unlimited("sum_over_time(sum_over_time(vector(1)[1d:1s] @ 0)[1d:1s])").is_ok());
    // Found out on the way: four series, of which each window of 600 steps holds some 60 samples.
    let few = Limits { scanned_max: 100_000, ..Limits::default() };
    assert!(matches!(run("max_over_time(sum_over_time(a[10m])[10m:1s])", few), Err(EvalError::TooMuchWork { .. })));
    assert!(run("max_over_time(last_over_time(a[10m])[10m:1s])", few).is_ok());
    let operators = format!("a{}", " * 2".repeat(900));
    assert!(matches!(run(&operators, Limits { scanned_max: 2_000, ..few }), Err(EvalError::TooMuchWork { .. })));
    // What waits for a right side counts, and what labels are made of.
    let waiting = format!("{}time(){}", "(time() + ".repeat(30), ")".repeat(30));
    let waiting = format!("count_over_time(vector({waiting})[1h:1s])");
    assert!(run(&waiting, Limits { bytes_max: 3_000_000, ..Limits::default() }).is_ok());
    let refused = run(&waiting, Limits { bytes_max: 300_000, ..Limits::default() });
    assert!(matches!(refused, Err(EvalError::TooManyBytes { limit: 300_000 })));
    let long = format!(r#"label_replace(a, "long", "{}", "", "")"#, "x".repeat(1_000));
    assert!(run(&long, Limits { bytes_max: 10_000, ..Limits::default() }).is_ok());
    assert!(matches!(
        run(&long, Limits { bytes_max: 2_000, ..Limits::default() }),
        Err(EvalError::TooManyBytes { .. })
    ));
}

#[test]
fn remarks_are_bounded_however_many_mistakes_there_are() {
    let plan = Plan::parse("quantile(1 + time(), vector(1))").expect("a valid expression");
    let limits = Limits { steps_max: 100_000, ..Limits::default() };
    let output = evaluate_range(&plan, &store(), 0, 99_000 * SECOND_MS, SECOND_MS, &limits).expect("a result");
    assert_eq!(output.annotations.len(), limits::ANNOTATIONS_MAX);
}

#[test]
fn queries_end_when_they_are_cancelled() {
    let asked = AtomicUsize::new(0);
    let cancelled = || asked.fetch_add(1, Relaxed) >= 3;
    let limits = Limits { cancelled: Some(&cancelled), ..Limits::default() };
    let plan = Plan::parse("sum by (gpu) (rate(b_total[1m]))").expect("a valid expression");
    assert!(matches!(evaluate_instant(&plan, &store(), 500 * SECOND_MS, &limits), Err(EvalError::Cancelled)));
}

/// A store that counts what is read of it. Reading one by one falls back on `select`.
struct Counting(Vec<Series>, Cell<usize>);

impl SeriesReader for Counting {
    fn select(&self, request: &ReadRequest<'_>) -> Result<Vec<Series>, ReadError> {
        self.1.set(self.1.get() + 1);
        self.0.select(request)
    }
}

/// How often the store is read while an expression is evaluated.
fn reads(expression: &str, evaluate: impl Fn(&Plan, &Counting) -> Result<Output, EvalError>) -> usize {
    let reader = Counting(store(), Cell::new(0));
    let plan = Plan::parse(expression).expect("a valid expression");
    evaluate(&plan, &reader).expect("a result");
    reader.1.get()
}

#[test]
fn equal_selectors_are_read_once_and_distant_ones_apart() {
    for (expression, expected) in [
        ("a / a", 1),
        ("a / on (gpu, instance) sum by (gpu, instance) (rate(a[1m]))", 1),
        ("a - a offset 1h", 2),
        ("a + c", 2),
        // At the steps of the others, or between them.
        ("a - a offset 1m", 1),
        ("a - a offset 7s", 2),
        // A little of all beside steps over a long time.
        ("a - last_over_time(a[1m] @ 890)", 2),
    ] {
        let over_range = |plan: &Plan, reader: &Counting| {
            evaluate_range(plan, reader, 0, 900 * SECOND_MS, 10 * SECOND_MS, &Limits::default())
        };
        assert_eq!(reads(expression, over_range), expected, "{expression}");
    }
}

/// A store whose samples up to 500 s stand for several: the first one for 2 and 6, the second one for 4, and of a newer one besides.
struct Summarising;

impl SeriesReader for Summarising {
    fn select(&self, request: &ReadRequest<'_>) -> Result<Vec<Series>, ReadError> {
        let values = match request.summary {
            Summary::Last => [6.0, 4.0, 9.0],
            Summary::Least => [2.0, 4.0, 9.0],
            Summary::Greatest => [6.0, 4.0, 9.0],
            Summary::Sum => [8.0, 4.0, 9.0],
            Summary::Count => [2.0, 1.0, 1.0],
        };
        let samples = [480, 490, 510].into_iter().zip(values);
        let samples = samples.map(|(second, value)| Sample { time_ms: second * SECOND_MS, value });
        vec![Series { labels: Labels::from_pairs([("__name__", "a")]), samples: samples.collect() }].select(request)
    }

    fn summarises(&self, start_ms: i64, _end_ms: i64) -> bool {
        start_ms <= 500 * SECOND_MS
    }
}

#[test]
fn of_samples_that_stand_for_several_a_function_is_given_what_it_wants() {
    for (expression, expected) in [
        ("a @ 485", 6.0),
        ("last_over_time(a[1m] @ 485)", 6.0),
        ("min_over_time(a[1m])", 2.0),
        ("max_over_time(a[1m])", 9.0),
        ("sum_over_time(a[1m])", 21.0),
        ("count_over_time(a[1m])", 4.0),
        ("avg_over_time(a[1m])", 5.25),
        ("max_over_time(a[1m]) - min_over_time(a[1m])", 7.0),
        ("quantile_over_time(0, a[1m])", 4.0),
        ("sum_over_time(a[1m:10s])", 23.0),
        ("present_over_time(a[1m])", 1.0),
        ("avg_over_time(a[5s])", 9.0),
    ] {
        let plan = Plan::parse(expression).expect("a valid expression");
        let output = evaluate_instant(&plan, &Summarising, 510 * SECOND_MS, &Limits::default());
        let Value::Vector(samples) = output.expect("a result").value else { panic!("{expression} is no vector") };
        let values: Vec<f64> = samples.iter().map(|(_, sample)| sample.value).collect();
        assert_eq!(values, [expected], "{expression}");
    }
}

#[test]
fn what_an_empty_left_side_decides_is_not_read() {
    for (expression, expected) in [
        ("a > 1e300 and rate(a[1m]) > 0 and avg_over_time(a[1m]) > 0", 1),
        ("(a > 1e300) * 0 + rate(a[1m]) + delta(a[1m])", 1),
        ("(a < 1e300) * 0 + rate(a[1m]) + delta(a[1m])", 2),
        ("a > 1e300 or rate(a[1m]) > 0", 2),
    ] {
        let at_once =
            |plan: &Plan, reader: &Counting| evaluate_instant(plan, reader, 500 * SECOND_MS, &Limits::default());
        assert_eq!(reads(expression, at_once), expected, "{expression}");
    }
}

/// Expressions that are well-formed, and mostly well-typed.
fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("a".to_owned()),
        Just("b_total".to_owned()),
        Just("c{gpu=~\"0|2\"}".to_owned()),
        Just("a offset 20s".to_owned()),
        Just("a @ 200".to_owned()),
        Just("rate(b_total[1m])".to_owned()),
        Just("avg_over_time(c[45s])".to_owned()),
        Just("vector(time())".to_owned()),
        Just("{__name__=~\"a|c\"}".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let by = prop_oneof![
            Just(""),
            Just(" by (instance)"),
            Just(" by (gpu)"),
            Just(" without (gpu)"),
            Just(" by (__name__, instance)")
        ];
        let aggregation = prop_oneof![
            Just("sum("),
            Just("avg("),
            Just("max("),
            Just("count("),
            Just("stddev("),
            Just("topk(1, "),
            Just("quantile(0.3, "),
            Just("limit_ratio(0.5, "),
            Just("count_values(\"v\", ")
        ];
        let function = prop_oneof![
            Just(("-", "")),
            Just(("abs(", ")")),
            Just(("absent(", ")")),
            Just(("timestamp(", ")")),
            Just(("clamp_max(", ", 5)")),
            Just(("vector(scalar(", "))")),
            Just(("max_over_time((", ")[1m:20s])")),
            Just(("label_replace(", ", \"gpu\", \"x\", \"gpu\", \"0\")")),
            Just(("2 * (", ")")),
            Just(("(", ") > 3")),
            Just(("(", ") == bool 3")),
        ];
        let operator = prop_oneof![
            Just("+"),
            Just("- on (instance, gpu)"),
            Just("* on (instance) group_left ()"),
            Just("/ ignoring (gpu)"),
            Just("> bool"),
            Just("<"),
            Just("and"),
            Just("or on (instance)"),
            Just("unless"),
            Just("or"),
        ];
        prop_oneof![
            (aggregation, by, inner.clone()).prop_map(|(aggregation, by, inner)| format!("{aggregation}{inner}){by}")),
            (function, inner.clone()).prop_map(|((before, after), inner)| format!("{before}{inner}{after}")),
            (operator, inner.clone(), inner).prop_map(|(operator, lhs, rhs)| format!("({lhs}) {operator} ({rhs})")),
        ]
    })
}

/// The values at one instant, or nothing if the query fails for what its data is.
fn values_at(plan: &Plan, store: &dyn SeriesReader, time_ms: i64) -> Option<BTreeMap<Labels, f64>> {
    match evaluate_instant(plan, store, time_ms, &Limits::default()) {
        Ok(output) => match output.value {
            Value::Vector(rows) => Some(rows.into_iter().map(|(labels, sample)| (labels, sample.value)).collect()),
            other => panic!("no vector: {other:?}"),
        },
        Err(
            EvalError::SameLabelset
            | EvalError::ManyToMany { .. }
            | EvalError::ManyToOne
            | EvalError::GroupingNotUnique,
        ) => None,
        Err(error) => panic!("{error}"),
    }
}

fn same(a: &BTreeMap<Labels, f64>, b: &BTreeMap<Labels, f64>) -> bool {
    let close =
        |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs();
    a.len() == b.len() && a.iter().zip(b).all(|((a, x), (b, y))| a == b && close(*x, *y))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_global_rejects: 20_000, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn planning_never_panics(expression in "\\PC{0,60}") {
        let _ = Plan::parse(&expression);
    }

    #[test]
    fn planning_a_soup_of_tokens_never_panics(tokens in proptest::collection::vec(prop_oneof![
        Just("sum"), Just("by"), Just("("), Just(")"), Just("{"), Just("}"), Just("["), Just("]"), Just(":"), Just("5m"),
        Just("@"), Just("offset"), Just("-"), Just("+"), Just("^"), Just("a"), Just("rate"), Just("1e9"), Just("NaN"),
        Just("Inf"), Just("\"x\""), Just("="), Just("=~"), Just("!~"), Just("!="), Just(","), Just("on"), Just("bool"),
        Just("group_left"), Just("and"), Just("0x1F"), Just("start"), Just("#"), Just("\n"), Just("'\\d+'"), Just("le"),
        Just("topk"), Just("fill"), Just("5m3s"), Just(".5"), Just("`q`"), Just("time"), Just("9999999999999999999"),
    ], 0..16)) {
        if let Ok(plan) = Plan::parse(&tokens.join(" ")) {
            let _ = evaluate_instant(&plan, &store(), 0, &Limits::default());
        }
        let _ = Plan::parse(&tokens.concat());
    }

    #[test]
    fn a_range_query_is_its_instants(expression in expressions()) {
        let plan = Plan::parse(&expression).expect("a valid expression");
        let (start, end, step) = (280 * SECOND_MS, 340 * SECOND_MS, 15 * SECOND_MS);
        let store = store();
        let range = evaluate_range(&plan, &store, start, end, step, &Limits::default());
        let mut failed = false;
        for time_ms in (start..=end).step_by(15_000) {
            let Some(instant) = values_at(&plan, &store, time_ms) else {
                failed = true;
                continue;
            };
            let Ok(output) = &range else { continue };
            let Value::Matrix(series) = &output.value else { panic!("no matrix") };
            let of_range = series.iter().filter_map(|series| {
                let sample = series.samples.iter().find(|sample| sample.time_ms == time_ms)?;
                Some((series.labels.clone(), sample.value))
            }).collect();
            prop_assert!(same(&instant, &of_range), "{expression} at {time_ms}: {instant:?} {of_range:?}");
        }
        prop_assert_eq!(failed, range.is_err(), "{}: {:?}", expression, range);
    }

    #[test]
    fn parts_make_up_the_whole_where_a_plan_says_so(expression in expressions()) {
        let plan = Plan::parse(&expression).expect("a valid expression");
        prop_assume!(plan.is_separable_by("instance"));
        let store = store();
        let Some(whole) = values_at(&plan, &store, 500 * SECOND_MS) else { return Ok(()) };
        let mut parts = BTreeMap::new();
        for instance in ["n1", "n2"] {
            let part: Vec<Series> =
                store.iter().filter(|series| series.labels.get("instance") == Some(instance)).cloned().collect();
            parts.extend(values_at(&plan, &part, 500 * SECOND_MS).expect("a part of what has a value"));
        }
        prop_assert!(same(&whole, &parts), "{expression}: {whole:?} {parts:?}");
    }

    #[test]
    fn time_alone_changes_nothing_where_a_plan_says_so(expression in expressions()) {
        let plan = Plan::parse(&expression).expect("a valid expression");
        prop_assume!(!plan.depends_on_clock());
        // Every series has a sample at most 20 ms after a multiple of ten seconds, and none until the next.
        let (now, later) = (values_at(&plan, &store(), 500_100), values_at(&plan, &store(), 509_900));
        match (now, later) {
            (Some(now), Some(later)) => prop_assert!(same(&now, &later), "{expression}: {now:?} {later:?}"),
            (now, later) => prop_assert_eq!(now, later),
        }
    }
}
