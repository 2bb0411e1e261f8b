//! Rules and selectors that were written for dcgm-exporter.

use std::time::Duration;

use belfry_tests::{agent::Agent, cli::Cli, collector::Collector, gpus::Gpus, wait::eventually};

/// As such files are: DCGM's names and units, dcgm-exporter's labels.
const RULES: &str = r#"
groups:
- name: dcgm
  rules:
  - alert: GpuHot
    expr: DCGM_FI_DEV_GPU_TEMP > 85
    annotations:
      summary: "GPU {{ $labels.gpu }} ({{ $labels.modelName }}, {{ $labels.UUID }}) on {{ $labels.Hostname }}: {{ $value }} C"
  - alert: GpuMemoryFull
    expr: DCGM_FI_DEV_FB_USED / (DCGM_FI_DEV_FB_USED + DCGM_FI_DEV_FB_FREE) > 0.9
  - alert: GpuXid
    expr: DCGM_FI_DEV_XID_ERRORS{device=~"nvidia.*"} != 0
  - alert: GpuEcc
    expr: DCGM_FI_DEV_ECC_DBE_VOL_TOTAL > 5
  - alert: HostBusy
    expr: avg by (Hostname) (DCGM_FI_DEV_GPU_UTIL) > 80
  - alert: HostBusyByItsNewName
    expr: avg by (hostname) (DCGM_FI_DEV_GPU_UTIL_RATIO) > 0.8
  - alert: Never
    expr: DCGM_FI_DEV_GPU_UTIL > 100 or DCGM_FI_DEV_GPU_UTIL_RATIO > 1
"#;

const SCENARIO: &str = "[[gpu]]\nkind = \"h100\"\n[gpu.values]\ntemperature = 90\nutilization_gpu = 95\nmemory_used = 82000000000\n\
                        ecc_dram_uncorrected_volatile = 4\necc_sram_uncorrected_volatile = 3\n[[xid]]\ngpu = 0\ncode = 31\nat = 2\n";

/// What is read every ten seconds comes within those.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_rule_file_for_the_exporter_loads_and_fires_unchanged() {
    let collector = Collector::start_with_rules(RULES).await;
    let gpus = Gpus::new(SCENARIO);
    let mut agent = Agent::join(&collector, "gpu-01", collector.address()).await;
    agent.equip(&gpus, "");
    agent.start();
    let cli = Cli::admin(&collector);
    let expected = ["GpuEcc", "GpuHot", "GpuMemoryFull", "GpuXid", "HostBusy", "HostBusyByItsNewName"];
    let alerts = eventually("all that are to fire do", PATIENCE, async || {
        let alerts = cli.json(&["alerts", "--state", "firing"]).await.as_array().unwrap().clone();
        let mut names: Vec<String> = alerts.iter().map(|alert| alert["rule"].as_str().unwrap().to_owned()).collect();
        names.sort();
        (names == expected).then_some(alerts)
    })
    .await;
    let of = |rule: &str| alerts.iter().find(|alert| alert["rule"] == rule).unwrap();
    let summary = of("GpuHot")["annotations"]["summary"].as_str().unwrap();
    assert!(summary.starts_with("GPU 0 (NVIDIA H100 80GB HBM3, GPU-"), "{summary}");
    assert!(summary.ends_with(" on gpu-01: 90 C"), "{summary}");
    assert_eq!(of("GpuXid")["value"], 31.0);
    assert_eq!(of("GpuEcc")["value"], 7.0, "what DCGM counts as one is added up");
    assert_eq!(of("HostBusy")["labels"]["Hostname"], "gpu-01");

    let mut tail = cli.start(&["tail", "DCGM_FI_DEV_FB_USED{gpu=\"0\"}", "-o", "jsonl"]);
    let samples = tail.until("a sample", |samples| !samples.is_empty()).await;
    assert_eq!(samples[0]["metric"], "DCGM_FI_DEV_FB_USED");
    assert_eq!(samples[0]["value"].as_f64().unwrap(), 82_000_000_000.0 / 1_048_576.0);
    assert_eq!(samples[0]["labels"]["Hostname"], "gpu-01");
    drop(tail);
    let mut tail = cli.start(&["tail", "DCGM_FI_PROF_*", "-o", "jsonl"]);
    tail.until("what the profiler's names say", |samples| {
        samples.iter().any(|sample| sample["metric"] == "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE")
    })
    .await;
    agent.stop().await;
}
