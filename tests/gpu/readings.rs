//! What each kind of GPU gives, and what is never given.

use std::collections::BTreeSet;

use belfry_tests::gpus::Gpus;
use serde_json::Value;

/// Readings of GPU 0: those of the metric, each with its other labels that are not empty.
fn of<'a>(samples: &'a [Value], metric: &'a str) -> impl Iterator<Item = &'a Value> {
    samples.iter().filter(move |sample| sample["metric"] == metric && sample["labels"]["gpu"] == "0")
}

fn metrics(samples: &[Value]) -> BTreeSet<&str> {
    let of_gpus = samples.iter().filter(|sample| sample["labels"].get("gpu").is_some());
    of_gpus.map(|sample| sample["metric"].as_str().unwrap()).collect()
}

/// The only value of a metric without further labels.
fn value(samples: &[Value], metric: &str) -> f64 {
    let values: Vec<f64> = of(samples, metric).map(|sample| sample["value"].as_f64().unwrap()).collect();
    let [value] = values[..] else { panic!("{metric}: {values:?}") };
    value
}

#[tokio::test]
async fn each_kind_gives_what_it_has_and_nothing_that_it_lacks() {
    const ALL: [&str; 12] = [
        "gpu_up",
        "gpu_info",
        "gpu_memory_used_bytes",
        "gpu_memory_total_bytes",
        "gpu_temperature_celsius",
        "gpu_temperature_threshold_celsius",
        "gpu_power_watts",
        "gpu_clock_hertz",
        "gpu_clock_event_active",
        "gpu_performance_state",
        "gpu_pcie_link_width",
        "gpu_ecc_errors_total",
    ];
    let nvlink = ["gpu_nvlink_active", "gpu_nvlink_transmit_bytes_total", "gpu_nvlink_errors_total"];
    let hopper = ["gpu_fabric_state", "gpu_jpeg_utilization_ratio", "gpu_ofa_utilization_ratio", "gpu_recovery_action"];
    let rows = ["gpu_remapped_rows_total", "gpu_row_remap_pending", "gpu_row_remap_failure"];
    let pages = ["gpu_retired_pages_total", "gpu_retired_pages_pending"];
    for (kind, has, lacks) in [
        ("h100", [&nvlink[..], &hopper, &rows].concat(), pages.to_vec()),
        ("h200", [&nvlink[..], &hopper, &rows].concat(), pages.to_vec()),
        ("a100", [&nvlink[..], &rows].concat(), [&pages[..], &["gpu_fabric_state", "gpu_sm_active_ratio"]].concat()),
        ("t4", pages.to_vec(), [&nvlink[..], &rows].concat()),
        ("k80", pages.to_vec(), [&nvlink[..], &rows, &["gpu_energy_joules_total"]].concat()),
    ] {
        let gpus = Gpus::new(&format!("[[gpu]]\nkind = {kind:?}\n"));
        let samples = gpus.sampled().await;
        let found = metrics(&samples);
        for metric in ALL.iter().chain(&has) {
            assert!(found.contains(metric), "{kind} lacks {metric}: {found:?}");
        }
        for metric in lacks {
            assert!(!found.contains(metric), "{kind} has no {metric}");
        }
        let missing: Vec<&Value> = samples
            .iter()
            .filter(|sample| sample["labels"].get("gpu").is_some() && sample["value"].is_null())
            .collect();
        assert!(missing.is_empty(), "{kind}: {missing:?}");
    }
}

#[tokio::test]
async fn readings_come_in_base_units() {
    let gpus = Gpus::new(
        "[[gpu]]\nkind = \"h100\"\n[gpu.values]\ntemperature = 45\nmemory_temperature = 55\npower_average = 300500\n\
         power_instant = 310250\nutilization_gpu = 75\nclock_sm = 1980\nperformance_state = 2\nnvlink_replay_errors = 4\n",
    );
    let samples = gpus.sampled().await;
    let labelled = |metric, label: &str, wanted: &str| {
        of(&samples, metric).find(|sample| sample["labels"][label] == wanted).map(|sample| sample["value"].clone())
    };
    assert_eq!(labelled("gpu_temperature_celsius", "sensor", "gpu"), Some(45.0.into()));
    assert_eq!(labelled("gpu_temperature_celsius", "sensor", "memory"), Some(55.0.into()));
    assert_eq!(labelled("gpu_clock_hertz", "clock", "sm"), Some(1.98e9.into()));
    assert_eq!(labelled("gpu_power_limit_watts", "limit", "enforced"), Some(700.0.into()));
    assert_eq!(value(&samples, "gpu_power_instant_watts"), 310.25);
    assert_eq!(value(&samples, "gpu_power_average_watts"), 300.5);
    assert_eq!(value(&samples, "gpu_utilization_ratio"), 0.75);
    assert_eq!(value(&samples, "gpu_performance_state"), 2.0);
    let replays = of(&samples, "gpu_nvlink_errors_total").filter(|sample| sample["labels"]["kind"] == "replay");
    let links: Vec<(&str, f64)> = replays
        .map(|sample| (sample["labels"]["link"].as_str().unwrap(), sample["value"].as_f64().unwrap()))
        .filter(|(_, errors)| *errors > 0.0)
        .collect();
    assert_eq!(links, [("0", 4.0)], "each error once, by its link");
}

#[tokio::test]
async fn a_gpu_that_is_split_says_its_instances_and_nothing_twice() {
    let gpus = Gpus::new("[[gpu]]\nkind = \"h100_mig\"\n");
    let samples = gpus.sampled().await;
    let instance = |sample: &Value| sample["labels"]["gpu_instance"].as_str().unwrap_or_default().to_owned();
    let memory: Vec<String> = of(&samples, "gpu_memory_used_bytes").map(instance).collect();
    assert_eq!(memory, ["1", "7", "8"]);
    let infos: Vec<String> = of(&samples, "gpu_instance_info").map(instance).collect();
    assert_eq!(infos, ["1", "7", "8"]);
    assert_eq!(of(&samples, "gpu_utilization_ratio").count(), 0, "the driver does not say it of a GPU that is split");
    assert_eq!(of(&samples, "gpu_power_watts").count(), 1, "what only the whole has is said once");
    assert_eq!(value(&samples, "gpu_mig_enabled"), 1.0);
}

/// The field's known defects, each as the driver gave it: none of them is a value.
#[tokio::test]
async fn what_cannot_be_true_is_out_of_range() {
    for (call, field, raw, metric) in [
        ("nvmlDeviceGetUtilizationRates", None, "4294967295", "gpu_utilization_ratio"),
        ("nvmlDeviceGetTemperature", None, "4294967295", "gpu_temperature_celsius"),
        ("nvmlDeviceGetPowerUsage", None, "4294967295", "gpu_power_watts"),
        ("nvmlDeviceGetClockInfo", None, "4294967295", "gpu_clock_hertz"),
        ("nvmlDeviceGetEncoderUtilization", None, "255", "gpu_encoder_utilization_ratio"),
        ("nvmlDeviceGetMemoryInfo_v2", None, "9223372036854775807", "gpu_memory_total_bytes"),
        ("nvmlDeviceGetTotalEnergyConsumption", None, "18446744073709551615", "gpu_energy_joules_total"),
        ("nvmlDeviceGetPerformanceState", None, "77", "gpu_performance_state"),
        ("nvmlDeviceGetCurrPcieLinkWidth", None, "4294967295", "gpu_pcie_link_width"),
        // 9e18 °C.
        ("nvmlDeviceGetFieldValues", Some(82), "9000000000000000000", "gpu_temperature_celsius"),
        ("nvmlDeviceGetFieldValues", Some(186), "4294967295", "gpu_power_instant_watts"),
        ("nvmlDeviceGetFieldValues", Some(197), "18446744073709551615", "gpu_pcie_transmit_bytes_total"),
    ] {
        let field = field.map(|field| format!("field = {field}\n")).unwrap_or_default();
        let fault = format!("[[fault]]\ncall = {call:?}\n{field}value = {raw}\n");
        let gpus = Gpus::new(&format!("[[gpu]]\nkind = \"h100\"\n{fault}"));
        let samples = gpus.sampled().await;
        let bad: Vec<&Value> = of(&samples, metric).filter(|sample| sample["value"].is_null()).collect();
        assert!(!bad.is_empty(), "{fault}: {:?}", of(&samples, metric).collect::<Vec<_>>());
        assert!(bad.iter().all(|sample| sample["reason"] == "out_of_range"), "{fault}: {bad:?}");
    }
    // 600 W on a card of 160 W: a T4 has 70.
    let gpus = Gpus::new("[[gpu]]\nkind = \"t4\"\n[gpu.values]\npower_average = 600000\n");
    let samples = gpus.sampled().await;
    let power: Vec<&Value> = of(&samples, "gpu_power_watts").collect();
    assert_eq!((power.len(), &power[0]["value"], &power[0]["reason"]), (1, &Value::Null, &"out_of_range".into()));
}

#[tokio::test]
async fn nothing_is_set_nothing_slow_is_asked_and_what_is_not_offered_is_asked_for_once() {
    let gpus = Gpus::new("");
    let log = gpus.file("calls.log");
    gpus.set(&format!("log = {log:?}\n[[gpu]]\nkind = \"k80\"\n"));
    let mut running = std::process::Command::new(belfry_tests::binaries::belfry_agent());
    let config = gpus.file("agent.toml");
    std::fs::write(&config, gpus.config()).unwrap();
    running.arg("--config").arg(&config).arg("--state-dir").arg(gpus.file("state")).args(["sample", "-o", "jsonl"]);
    running.env(belfry_tests::gpus::SCENARIO, gpus.scenario());
    let mut stream = belfry_tests::cli::Stream::start(&mut running);
    let temperature = |sample: &&Value| sample["metric"] == "gpu_temperature_celsius" && sample["labels"]["gpu"] == "0";
    stream.until("some ticks", |samples| samples.iter().filter(temperature).count() >= 5).await;
    drop(stream);
    let calls = std::fs::read_to_string(&log).unwrap();
    let count = |name: &str| calls.lines().filter(|line| line.split(' ').next() == Some(name)).count();
    assert!(count("nvmlDeviceGetTemperature") >= 5);
    assert!(!calls.contains("Set") || !calls.lines().any(|line| line.starts_with("nvmlDeviceSet")), "{calls}");
    assert_eq!(count("nvmlDeviceGetPcieThroughput"), 0, "it takes 20 ms");
    assert_eq!(count("nvmlDeviceGetTotalEnergyConsumption"), 1, "a K80 does not count energy");
    assert_eq!(count("nvmlDeviceGetEncoderUtilization"), 1);
}
