//! Expressions from any text: planned or refused, and what is planned can be evaluated within its limits.
#![no_main]

use std::sync::LazyLock;

use belfry_promql::{Labels, Limits, Plan, Sample, Series, evaluate_instant, evaluate_range, prettified};
use libfuzzer_sys::fuzz_target;

const NOW: i64 = 1_000_000;

static STORE: LazyLock<Vec<Series>> = LazyLock::new(|| {
    let series = |name, gpu, le, step: f64| Series {
        labels: Labels::from_pairs([("__name__", name), ("gpu", gpu), ("le", le)]),
        samples: (0..20).map(|i| Sample { time_ms: NOW - 20_000 + i * 1_000, value: step * i as f64 }).collect(),
    };
    vec![
        series("a", "0", "1", 1.0),
        series("a", "1", "+Inf", 3.0),
        series("b", "0", "", -0.5),
        series("c", "", "", f64::NAN),
    ]
});

fuzz_target!(|expression: &str| {
    let Ok(plan) = Plan::parse(expression) else { return };
    for selector in plan.selectors() {
        assert!(!format!("{selector:?}").is_empty());
    }
    // Laid out, it is still an expression.
    assert!(Plan::parse(&prettified(&plan)).is_ok());
    let limits =
        Limits { samples_max: 20_000, series_max: 100, steps_max: 50, scanned_max: 1_000_000, bytes_max: 1 << 20, cancelled: None };
    // A query may be refused or too dear; it may not panic.
    drop(evaluate_instant(&plan, &*STORE, NOW, &limits));
    drop(evaluate_range(&plan, &*STORE, NOW - 10_000, NOW, 5_000, &limits));
});
