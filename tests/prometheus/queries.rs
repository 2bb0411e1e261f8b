//! What is asked of both: every function, aggregation, operator and modifier, over metrics as agents send them.

/// All queries.
pub(crate) fn all() -> Vec<String> {
    [functions(), over_time(), aggregations(), operators(), matching(), selectors(), combinations(), wrong()].concat()
}

fn each(templates: &[&str], words: &[&str]) -> Vec<String> {
    templates.iter().flat_map(|template| words.iter().map(|word| template.replace("$", word))).collect()
}

fn listed(queries: &[&str]) -> Vec<String> {
    queries.iter().map(ToString::to_string).collect()
}

fn functions() -> Vec<String> {
    let of_values = [
        "abs",
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atanh",
        "ceil",
        "cos",
        "cosh",
        "deg",
        "exp",
        "floor",
        "ln",
        "log10",
        "log2",
        "rad",
        "sgn",
        "sin",
        "sinh",
        "sqrt",
        "tan",
        "tanh",
        "round",
        "sort",
        "sort_desc",
        "timestamp",
        "absent",
        "scalar",
    ];
    let of_times = ["day_of_month", "day_of_week", "day_of_year", "days_in_month", "hour", "minute", "month", "year"];
    [
        each(&["$(odd_value)", "$(gpu_utilization_ratio - 0.5)"], &of_values),
        each(&["$()", "$(vector(1795000000))", "$(timestamp(node_load1))"], &of_times),
        listed(&[
            "clamp(gpu_power_watts, 300, 400)",
            "clamp(gpu_power_watts, 400, 300)",
            "clamp_max(gpu_power_watts, 350)",
            "clamp_min(gpu_power_watts, 350)",
            "round(gpu_power_watts, 5)",
            "round(node_load1, 0.3)",
            "pi()",
            "time()",
            "vector(time() % 7)",
            "scalar(node_load1{instance=\"gpu-01\"})",
            "absent(nosuch{a=\"b\",c=~\"d.*\"})",
            "absent(sum(nosuch))",
            "absent_over_time(nosuch{a=\"b\"}[5m])",
            "absent_over_time(node_load1[5m])",
            "label_replace(node_load1, \"number\", \"$1\", \"instance\", \"gpu-0(.)\")",
            "label_replace(node_load1, \"number\", \"x\", \"instance\", \"nothing\")",
            "label_replace(node_load1, \"job\", \"\", \"job\", \".*\")",
            "label_join(gpu_power_watts, \"place\", \"/\", \"instance\", \"gpu\")",
            "label_join(gpu_power_watts, \"uuid\", \"-\")",
            "histogram_quantile(0.9, request_duration_seconds_bucket)",
            "histogram_quantile(0.5, sum by (le) (rate(request_duration_seconds_bucket[5m])))",
            "histogram_quantile(1.5, request_duration_seconds_bucket)",
            "histogram_quantile(-1, request_duration_seconds_bucket)",
            "histogram_quantile(scalar(node_load1{instance=\"gpu-01\"}) / 10, request_duration_seconds_bucket)",
        ]),
    ]
    .concat()
}

fn over_time() -> Vec<String> {
    let of_ranges = [
        "avg_over_time",
        "changes",
        "count_over_time",
        "delta",
        "deriv",
        "idelta",
        "increase",
        "irate",
        "last_over_time",
        "max_over_time",
        "min_over_time",
        "present_over_time",
        "rate",
        "resets",
        "stddev_over_time",
        "stdvar_over_time",
        "sum_over_time",
    ];
    let ranges = [
        "$(gpu_utilization_ratio[5m])",
        "$(node_cpu_seconds_total{mode=\"user\"}[1m])",
        "$(node_network_receive_bytes_total[2m])",
        "$(node_load1[30m:1m])",
        "$(rate(node_network_receive_bytes_total[1m])[10m:30s])",
    ];
    [
        each(&ranges, &of_ranges),
        each(
            &["$(odd_value[1m])"],
            &["max_over_time", "min_over_time", "count_over_time", "last_over_time", "changes"],
        ),
        listed(&[
            "quantile_over_time(0.9, gpu_power_watts[10m])",
            "quantile_over_time(scalar(gpu_utilization_ratio{uuid=\"GPU-00\"}), gpu_power_watts[10m])",
            "predict_linear(gpu_temperature_celsius[20m], 3600)",
            "predict_linear(node_load1[20m:2m], 60)",
            "rate(node_cpu_seconds_total[20s])",
            "increase(node_cpu_seconds_total{instance=\"gpu-02\"}[1h])",
            "resets(node_cpu_seconds_total{instance=\"gpu-02\"}[2h])",
        ]),
    ]
    .concat()
}

fn aggregations() -> Vec<String> {
    let simple = ["sum", "avg", "count", "min", "max", "group", "stddev", "stdvar"];
    let with_number = ["topk(2, ", "bottomk(2, ", "quantile(0.75, ", "topk(0, ", "topk(1.5, "];
    [
        each(
            &[
                "$(gpu_power_watts)",
                "$ by (instance) (gpu_power_watts)",
                "$ without (gpu, uuid) (gpu_power_watts)",
                "$ by (nosuch) (rate(node_cpu_seconds_total[5m]))",
                "$(odd_value)",
            ],
            &simple,
        ),
        each(&["$gpu_power_watts)", "$node_cpu_seconds_total) by (instance)"], &with_number)
            .into_iter()
            .map(|query| query.replace("*", ""))
            .collect(),
        listed(&[
            "count_values(\"value\", round(node_load1))",
            "count_values by (job) (\"instance\", machine_info)",
            "topk by (instance) (1, node_cpu_seconds_total)",
            "bottomk without (cpu) (1, node_cpu_seconds_total)",
            "quantile by (instance) (0.5, node_cpu_seconds_total)",
            "sum(sum by (instance) (gpu_power_watts)) / count(gpu_power_watts)",
        ]),
    ]
    .concat()
}

fn operators() -> Vec<String> {
    let arithmetic = ["+", "-", "*", "/", "%", "^", "atan2"];
    let comparisons = ["==", "!=", ">", "<", ">=", "<="];
    [
        each(
            &["gpu_power_watts $ 350", "350 $ gpu_power_watts", "gpu_power_watts $ gpu_temperature_celsius", "7 $ 3"],
            &arithmetic,
        ),
        each(
            &[
                "node_load1 $ 2",
                "2 $ node_load1",
                "node_load1 $ odd_value",
                "node_load1 $ bool 2",
                "1 $ bool 2",
                "odd_value $ bool node_load1",
            ],
            &comparisons,
        ),
        each(
            &[
                "node_load1 > 2 $ node_load1 < 3",
                "gpu_power_watts $ on (instance) node_load1 > 2",
                "gpu_power_watts $ ignoring (gpu, uuid) (node_load1 > 2)",
                "node_load1 $ machine_info",
            ],
            &["and", "or", "unless"],
        ),
        listed(&[
            "-node_load1",
            "+node_load1",
            "-2 ^ 2",
            "2 ^ 3 ^ 2",
            "1 + 2 * 3 % 4 - 5 / 2",
            "-gpu_power_watts ^ 2",
            "node_load1 * -1 > -2",
            "1 / 0",
            "0 / 0",
            "Inf - Inf",
            "0x1f + 1e3 + .5 + NaN",
        ]),
    ]
    .concat()
}

fn matching() -> Vec<String> {
    listed(&[
        "gpu_power_watts / on (instance, gpu) gpu_temperature_celsius",
        "gpu_power_watts * on (instance) group_left (model) machine_info",
        "gpu_power_watts * on (instance) group_left () machine_info",
        "machine_info * on (instance) group_right (rack) gpu_power_watts",
        "gpu_power_watts / ignoring (gpu, uuid) group_left sum by (instance, job) (gpu_power_watts)",
        "gpu_power_watts > on (instance) group_left () (node_load1 * 100)",
        "gpu_power_watts == bool on (instance) group_left () node_load1",
        "sum by (instance) (gpu_power_watts) / on (instance) node_load1",
        "node_cpu_seconds_total{mode=\"user\"} / ignoring (mode) node_cpu_seconds_total{mode=\"idle\"}",
        "node_load1 - on (instance) group_left (model) machine_info",
        // What matches too much is an error.
        "gpu_power_watts / on (instance) gpu_temperature_celsius",
        "gpu_power_watts / on (instance) node_load1",
        "node_load1 * on (job) group_left () machine_info",
    ])
}

fn selectors() -> Vec<String> {
    listed(&[
        "node_load1",
        "{__name__=\"node_load1\"}",
        "{__name__=~\"node_lo.*\", instance!=\"gpu-02\"}",
        "gpu_power_watts{gpu=\"0\"}",
        "gpu_power_watts{gpu!=\"0\", instance=~\"gpu-0[12]\"}",
        "gpu_power_watts{instance!~\"gpu-0[12]\"}",
        "gpu_power_watts{instance=~\"\"}",
        "gpu_power_watts{nosuch=\"\"}",
        "gpu_power_watts{nosuch!=\"\"}",
        "gpu_power_watts{instance=~\"gpu-01|gpu-03\"}",
        "gpu_power_watts{instance=~\"(?i)GPU-01\"}",
        "nosuch",
        "node_load1 offset 10m",
        "node_load1 offset -10m",
        "node_load1 @ end()",
        "node_load1 @ start()",
        "node_load1 @ start() offset 5m",
        "rate(node_cpu_seconds_total{mode=\"idle\"}[5m] offset 20m)",
        "rate(node_cpu_seconds_total{mode=\"idle\"}[5m] @ end())",
        "max_over_time(node_load1[20m:1m] offset 10m)",
        "max_over_time(node_load1[20m:1m] @ end())",
        "sum_over_time(node_load1[10m:])",
        "max_over_time(max_over_time(node_load1[270s:1m])[20m:2m])",
        "gpu_power_watts{uuid=\"GPU-21\"}",
        "count_over_time(gpu_power_watts{uuid=\"GPU-21\"}[30m])",
        "node_load1[1m]",
        "node_load1[3m:1m]",
        "node_load1[1m] offset 5m",
    ])
}

fn combinations() -> Vec<String> {
    listed(&[
        "100 * (1 - avg by (instance) (rate(node_cpu_seconds_total{mode=\"idle\"}[5m])))",
        "sum by (instance) (rate(node_network_receive_bytes_total{device!~\"lo|veth.*\"}[2m])) * 8",
        "topk(2, sum by (instance) (gpu_power_watts))",
        "avg by (model) (gpu_utilization_ratio * on (instance) group_left (model) machine_info)",
        "sum(gpu_power_watts > 300) / sum(gpu_power_watts)",
        "count(gpu_utilization_ratio < 0.3) or vector(0)",
        "(avg_over_time(gpu_utilization_ratio[10m]) < 0.45) and on (instance, gpu) gpu_power_watts > 300",
        "stddev by (instance) (gpu_temperature_celsius) > 2",
        "abs(gpu_power_watts - on (instance) group_left () avg by (instance) (gpu_power_watts)) > 20",
        "sort_desc(sum by (instance, mode) (increase(node_cpu_seconds_total[10m])))",
        "histogram_quantile(0.99, sum by (instance, le) (rate(request_duration_seconds_bucket[5m]))) > 0.5",
        "label_replace(sum by (instance) (gpu_power_watts), \"node\", \"n$1\", \"instance\", \".*-(.*)\")",
        "max_over_time(sum(gpu_power_watts)[30m:1m]) - min_over_time(sum(gpu_power_watts)[30m:1m])",
        "predict_linear(node_load1[30m], 3600) > 5 unless on (instance) machine_info{model=\"A100\"}",
        "sum by (instance) (count_over_time(gpu_power_watts[5m])) - 40",
        "vector(1) + on () group_right () node_load1",
        "absent(gpu_power_watts{instance=\"gpu-09\"}) * 2",
        "node_load1 > bool 2 == 1",
        "quantile(0.5, rate(node_cpu_seconds_total[5m])) by (mode)",
        "time() - timestamp(gpu_power_watts)",
    ])
}

fn wrong() -> Vec<String> {
    listed(&[
        "",
        "sum(",
        "node_load1{",
        "node_load1[5m",
        "rate(node_load1)",
        "sum(node_load1[5m])",
        "nosuch(node_load1)",
        "node_load1 + \"text\"",
        "node_load1 and 1",
        "1 == 2",
        "{}",
        "{__name__=~\".*\"}",
        "{__name__=~\"(\"}",
        "topk(node_load1, node_load1)",
        "label_replace(node_load1, \"a\", \"b\")",
        "label_replace(node_load1, \"a\", \"b\", \"c\", \"(\")",
        "node_load1 offset",
        "node_load1 @ nowhere",
        "rate(sum(node_load1)[5m])",
        "sum by instance (node_load1)",
        "node_load1[5m][5m]",
        "5m",
        "node_load1 group_left machine_info",
    ])
}
