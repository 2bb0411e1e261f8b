//! What `belfry status` looks like, at the widths of terminals and in a pipe.

use belfry_common::model::Timestamp;
use expect_test::{Expect, expect};

use super::{
    Look,
    alert::{StandingAlert, tests::alert},
    fleet, node, text,
    units::parse_time,
};
use crate::api::{
    AlertCounts, CpuStatus, DiskStatus, FilesystemStatus, GpuProcess, GpuStatus, MemoryStatus, NetworkStatus,
    NodeStatus, StatusDocument,
};

pub(super) const TIME: &str = "2026-11-23T14:03:27.000Z";

pub(super) fn look(width: Option<usize>) -> Look {
    Look { width, is_colored: false, now: parse_time(TIME).unwrap_or(Timestamp::from_millis(0)) }
}

fn gpu(index: usize, utilization: f64) -> GpuStatus {
    GpuStatus {
        index: index.to_string(),
        uuid: format!("GPU-{index:08}-aaaa-bbbb-cccc-0123456789ab"),
        model: Some("NVIDIA H100 80GB HBM3".into()),
        state: "ok".into(),
        causes: Vec::new(),
        utilization_ratio: Some(utilization),
        memory_used_bytes: Some(79e9 * utilization),
        memory_total_bytes: Some(85_520_809_984.0),
        temperature_celsius: Some(33.0 + 40.0 * utilization),
        power_watts: Some(75.0 + 600.0 * utilization),
        processes: Vec::new(),
    }
}

pub(super) fn up(name: &str, utilizations: &[f64]) -> NodeStatus {
    NodeStatus {
        name: name.into(),
        state: "up".into(),
        reason: None,
        last_seen: Some("2026-11-23T14:03:26.800Z".into()),
        agent_version: Some(env!("CARGO_PKG_VERSION").into()),
        boot_time: Some("2026-11-11T14:03:27.000Z".into()),
        cpu: CpuStatus { utilization_ratio: Some(0.31), cores: Some(192), load1: Some(58.2) },
        memory: MemoryStatus { used_bytes: Some(0.9e12), total_bytes: Some(2_199_023_255_552.0) },
        disk: DiskStatus { used_ratio_max: Some(0.62), mountpoint: Some("/".into()) },
        filesystems: Vec::new(),
        network: NetworkStatus { receive_bytes_per_second: Some(1.2e9), transmit_bytes_per_second: Some(3.4e9) },
        gpus: utilizations.iter().enumerate().map(|(index, &utilization)| gpu(index, utilization)).collect(),
        alerts: AlertCounts::default(),
    }
}

pub(super) fn stale(name: &str, utilizations: &[f64]) -> NodeStatus {
    NodeStatus {
        state: "stale".into(),
        reason: Some("silent".into()),
        last_seen: Some("2026-11-23T14:03:19.000Z".into()),
        ..up(name, utilizations)
    }
}

pub(super) fn down(name: &str, reason: &str) -> NodeStatus {
    NodeStatus {
        name: name.into(),
        state: "down".into(),
        reason: Some(reason.into()),
        last_seen: Some("2026-11-23T11:00:00.000Z".into()),
        agent_version: None,
        boot_time: None,
        cpu: CpuStatus::default(),
        memory: MemoryStatus::default(),
        disk: DiskStatus::default(),
        filesystems: Vec::new(),
        network: NetworkStatus::default(),
        gpus: Vec::new(),
        alerts: AlertCounts::default(),
    }
}

/// Three nodes of 8 GPUs and one without, one of them stale, one with a dead GPU.
pub(super) fn picture() -> (StatusDocument, Vec<StandingAlert>) {
    let mut dead = up("gpu-02", &[0.97, 0.98, 0.95, 0.0, 0.99, 0.96, 0.97, 0.98]);
    dead.gpus[3].state = "failed".into();
    dead.alerts.firing = 1;
    let mut lazy = up("gpu-04", &[0.0; 8]);
    lazy.network = NetworkStatus::default();
    lazy.disk = DiskStatus { used_ratio_max: Some(0.98), mountpoint: Some("/scratch".into()) };
    let mut host = up("login-01", &[]);
    host.network = NetworkStatus { receive_bytes_per_second: Some(12_000.0), transmit_bytes_per_second: Some(4_100.0) };
    let nodes = vec![
        up("gpu-01", &[1.0, 0.97, 0.99, 0.95, 0.98, 0.84, 0.97, 0.96]),
        dead,
        stale("gpu-03", &[0.5; 8]),
        lazy,
        host,
    ];
    let alerts = vec![
        alert("firing", "critical", Some("gpu-02"), "GpuLost", "XID 79 on GPU 3: fell off the bus"),
        alert("firing", "warning", Some("gpu-03"), "NodeStale", "gpu-03 has stopped sending"),
        alert("pending", "warning", Some("gpu-04"), "DiskFull", "/scratch is nearly full"),
    ];
    (StatusDocument { time: TIME.into(), nodes }, alerts)
}

fn check(width: Option<usize>, (document, alerts): &(StatusDocument, Vec<StandingAlert>), expected: &Expect) {
    let shown = fleet::view(document, alerts, &look(width));
    expected.assert_eq(&shown);
    assert!(!shown.chars().any(|character| text::is_harmful(character) && character != '\n'));
    let widest = shown.lines().map(text::width).max();
    assert!(width.is_none() || widest <= width, "{widest:?}");
}

#[test]
fn a_fleet_on_80_columns() {
    check(
        Some(80),
        &picture(),
        &expect![[r#"
            4 nodes up, 1 stale · 32 GPUs: 23 ok, 1 failed, 8 unknown              14:03:27Z
            2 alerts firing · 1 pending

            NODE      STATE     CPU              MEM  GPUS      UTIL  ALERTS
            gpu-03    stale 8s    –                –  ????????     –  has stopped sending
            gpu-02    up        31%  0.8/2.0 TiB 41%  ▇▇▇✗▇▇▇▇   85%  XID 79 on GPU 3: fell…
            gpu-01    up        31%  0.8/2.0 TiB 41%  ▇▇▇▇▇▆▇▇   96%
            gpu-04    up        31%  0.8/2.0 TiB 41%  ▁▁▁▁▁▁▁▁    0%  pending: /scratch is …
            login-01  up        31%  0.8/2.0 TiB 41%
        "#]],
    );
}

#[test]
fn a_fleet_on_120_columns() {
    check(
        Some(120),
        &picture(),
        &expect![[r#"
            4 nodes up, 1 stale · 32 GPUs: 23 ok, 1 failed, 8 unknown · 2 alerts firing · 1 pending                        14:03:27Z

            NODE      STATE     CPU              MEM  GPUS      UTIL      GPU MEM  TEMP   POWER       NET ↓/↑  ALERTS
            gpu-03    stale 8s    –                –  ????????     –            –     –       –             –  has stopped sending
            gpu-02    up        31%  0.8/2.0 TiB 41%  ▇▇▇✗▇▇▇▇   85%  500/637 GiB  73°C  4.7 kW  1.2/3.4 GB/s  XID 79 on GPU 3: fel…
            gpu-01    up        31%  0.8/2.0 TiB 41%  ▇▇▇▇▇▆▇▇   96%  564/637 GiB  73°C  5.2 kW  1.2/3.4 GB/s
            gpu-04    up        31%  0.8/2.0 TiB 41%  ▁▁▁▁▁▁▁▁    0%    0/637 GiB  33°C   600 W             –  pending: /scratch is…
            login-01  up        31%  0.8/2.0 TiB 41%                                              12/4.1 kB/s
        "#]],
    );
}

#[test]
fn a_fleet_on_200_columns() {
    check(
        Some(200),
        &picture(),
        &expect![[r#"
            4 nodes up, 1 stale · 32 GPUs: 23 ok, 1 failed, 8 unknown · 2 alerts firing · 1 pending                                                                                                        14:03:27Z

            NODE      STATE     CPU              MEM  GPUS      UTIL      GPU MEM  TEMP   POWER       NET ↓/↑  DISK          ALERTS
            gpu-03    stale 8s    –                –  ????????     –            –     –       –             –  –             has stopped sending
            gpu-02    up        31%  0.8/2.0 TiB 41%  ▇▇▇✗▇▇▇▇   85%  500/637 GiB  73°C  4.7 kW  1.2/3.4 GB/s  62%           XID 79 on GPU 3: fell off the bus
            gpu-01    up        31%  0.8/2.0 TiB 41%  ▇▇▇▇▇▆▇▇   96%  564/637 GiB  73°C  5.2 kW  1.2/3.4 GB/s  62%
            gpu-04    up        31%  0.8/2.0 TiB 41%  ▁▁▁▁▁▁▁▁    0%    0/637 GiB  33°C   600 W             –  98% /scratch  pending: /scratch is nearly full
            login-01  up        31%  0.8/2.0 TiB 41%                                              12/4.1 kB/s  62%
        "#]],
    );
}

#[test]
fn a_pipe_gets_everything() {
    let (document, alerts) = picture();
    let shown = |width| fleet::view(&document, &alerts, &look(width));
    let (pipe, wide) = (shown(None), shown(Some(200)));
    let ((first, rest), (_, table)) = (pipe.split_once('\n').unwrap(), wide.split_once('\n').unwrap());
    assert_eq!(
        first,
        "4 nodes up, 1 stale · 32 GPUs: 23 ok, 1 failed, 8 unknown · 2 alerts firing · 1 pending  14:03:27Z"
    );
    assert_eq!(rest, table);
}

#[test]
fn a_fleet_without_gpus_and_without_trouble_has_no_columns_for_them() {
    let nodes = vec![up("web-2", &[]), up("web-1", &[])];
    check(
        Some(80),
        &(StatusDocument { time: TIME.into(), nodes }, Vec::new()),
        &expect![[r#"
        2 nodes up                                                             14:03:27Z

        NODE   STATE  CPU              MEM       NET ↓/↑  DISK
        web-1  up     31%  0.8/2.0 TiB 41%  1.2/3.4 GB/s  62%
        web-2  up     31%  0.8/2.0 TiB 41%  1.2/3.4 GB/s  62%
    "#]],
    );
}

#[test]
fn what_is_wrong_comes_first() {
    let mut new = up("d-strange", &[]);
    new.state = "draining".into();
    let nodes = vec![up("a", &[]), stale("b", &[]), down("z-lost", "unreachable"), down("c-off", "stopped"), new];
    let alerts = vec![alert("firing", "critical", None, "ManyNodesUnreachable", "7 nodes are unreachable at once")];
    check(
        Some(100),
        &(StatusDocument { time: TIME.into(), nodes }, alerts),
        &expect![[r#"
        1 node up, 2 stale, 2 down · 1 alert firing                                                14:03:27Z
        ManyNodesUnreachable: 7 nodes are unreachable at once

        NODE       STATE     CPU              MEM       NET ↓/↑  DISK  ALERTS
        c-off      down 3h     –                –             –  –     agent stopped
        z-lost     down 3h     –                –             –  –     unreachable
        b          stale 8s    –                –             –  –     silent
        d-strange  draining    –                –             –  –
        a          up        31%  0.8/2.0 TiB 41%  1.2/3.4 GB/s  62%
    "#]],
    );
}

#[test]
fn nobody_has_joined_yet() {
    check(
        Some(80),
        &(StatusDocument { time: TIME.into(), nodes: Vec::new() }, Vec::new()),
        &expect![[r#"
        0 nodes up                                                             14:03:27Z

        No node has joined yet. `belfry token create` makes the line to run on one.
    "#]],
    );
}

#[test]
fn names_cannot_act_on_the_terminal_or_break_the_table() {
    let mut hostile = up("evil\u{1b}[2J\r\n\u{202e}txt", &[0.5]);
    hostile.disk = DiskStatus { used_ratio_max: Some(0.99), mountpoint: Some("/a\u{1b}]0;x\u{7}\nb".into()) };
    hostile.state = "up".into();
    let long = up(&format!("node-{}", "x".repeat(200)), &[]);
    let alerts = vec![alert("firing", "warning", Some(&hostile.name), "A", "line 1\nline 2\u{9b}31m")];
    let document = StatusDocument { time: format!("{TIME}\u{1b}[31m"), nodes: vec![hostile, long] };
    check(
        Some(120),
        &(document, alerts),
        &expect![[r#"
            2 nodes up · 1 GPU: 1 ok · 1 alert firing                                                                      14:03:27Z

            NODE                               STATE  CPU              MEM  GPUS  UTIL    GPU MEM  TEMP  POWER  ALERTS
            evil\u{1b}[2J\r\n\u{202e}txt       up     31%  0.8/2.0 TiB 41%  ▄      50%  37/80 GiB  53°C  375 W  line 1\nline 2\u{9b…
            node-xxxxxxxxxxx…xxxxxxxxxxxxxxxx  up     31%  0.8/2.0 TiB 41%
        "#]],
    );
}

#[test]
fn colours_follow_thresholds() {
    let (document, alerts) = picture();
    let shown = fleet::view(&document, &alerts, &Look { is_colored: true, ..look(Some(120)) });
    let line =
        |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap_or_default().replace('\u{1b}', "^");
    expect!["gpu-02    ^[32mup^[0m        31%  0.8/2.0 TiB 41%  ▇▇▇^[1;31m✗^[0m▇▇▇▇   85%  500/637 GiB  73°C  4.7 kW  1.2/3.4 GB/s  ^[1;31mXID 79 on GPU 3: fel…^[0m"].assert_eq(&line("gpu-02"));
    expect!["gpu-03    ^[33mstale 8s^[0m    ^[2m–^[0m                ^[2m–^[0m  ^[2m?^[0m^[2m?^[0m^[2m?^[0m^[2m?^[0m^[2m?^[0m^[2m?^[0m^[2m?^[0m^[2m?^[0m     ^[2m–^[0m            ^[2m–^[0m     ^[2m–^[0m       ^[2m–^[0m             ^[2m–^[0m  ^[33mhas stopped sending^[0m"].assert_eq(&line("gpu-03"));
    expect!["gpu-04    ^[32mup^[0m        31%  0.8/2.0 TiB 41%  ▁▁▁▁▁▁▁▁    0%    0/637 GiB  33°C   600 W             ^[2m–^[0m  ^[2mpending: /scratch is…^[0m"].assert_eq(&line("gpu-04"));
    let plain = fleet::view(&document, &alerts, &look(Some(120)));
    let mut uncoloured = String::new();
    let mut rest = shown.as_str();
    while let Some((text, after)) = rest.split_once('\u{1b}') {
        uncoloured.push_str(text);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    assert_eq!(uncoloured + rest, plain, "colours change nothing but colours");
}

#[test]
fn a_node_in_full() {
    let (document, alerts) = picture();
    let mut dead = document.nodes[1].clone();
    dead.gpus.truncate(4);
    let filesystem = |mountpoint: &str, used_ratio| FilesystemStatus {
        mountpoint: mountpoint.into(),
        used_ratio,
        size_bytes: 2e12,
        available_bytes: 2e12 * (1.0 - used_ratio),
    };
    dead.filesystems = vec![filesystem("/", 0.62), filesystem("/scratch", 0.05)];
    dead.gpus[0].processes = vec![GpuProcess {
        pid: 4242,
        user: "ada".into(),
        command: "python train.py \u{1b}[31m".into(),
        job: Some("slurm 1187".into()),
        memory_bytes: Some(71e9),
        utilization_ratio: Some(0.97),
        ..GpuProcess::default()
    }];
    let document = StatusDocument { time: TIME.into(), nodes: vec![dead] };
    expect![[r#"
        gpu-02  up                                                                                 14:03:27Z

        CPU        31% of 192 cores, load 58.20
        Memory     41%, 0.8/2.0 TiB
        Disk       62% of /, the fullest
        Network    ↓ 1.2 GB/s  ↑ 3.4 GB/s
        GPUs       ▇▇▇✗  72%  213/319 GiB  72°C the hottest  2.0 kW
        Agent      OWN
        Up for     12d
        Last seen  0s ago

        GPU  STATE     UTIL     MEMORY  TEMP  POWER  MODEL
        0    ok         97%  71/80 GiB  72°C  657 W  NVIDIA H100 80GB HBM3
        1    ok         98%  72/80 GiB  72°C  663 W  NVIDIA H100 80GB HBM3
        2    ok         95%  70/80 GiB  71°C  645 W  NVIDIA H100 80GB HBM3
        3    ✗ failed    0%   0/80 GiB  33°C   75 W  NVIDIA H100 80GB HBM3

        DISK      USED  AVAILABLE     SIZE
        /          62%    708 GiB  1.8 TiB
        /scratch    5%    1.7 TiB  1.8 TiB

        GPU   PID  USER  JOB         UTIL  MEMORY  COMMAND
        0    4242  ada   slurm 1187   97%  66 GiB  python train.py \u{1b}[31m

        STATE   SEVERITY  FOR  NODE    ALERT    SUMMARY
        firing  critical   3m  gpu-02  GpuLost  XID 79 on GPU 3: fell off the bus
    "#]]
    .assert_eq(&node::view(&document, &alerts, &look(Some(100))).replace(env!("CARGO_PKG_VERSION"), "OWN"));
}

#[test]
fn what_is_said_of_gpus_in_a_row_is_said_once_and_in_whole() {
    let mut node = up("gpu-02", &[0.5, 0.5, 0.5, 0.5]);
    node.gpus.remove(2);
    for gpu in &mut node.gpus {
        gpu.state = "unknown".into();
        gpu.causes = vec!["driver does not answer (nvmlDeviceGetTemperature)".into(), "2 of 18 NVLinks down".into()];
    }
    let document = StatusDocument { time: TIME.into(), nodes: vec![node] };
    let view = node::view(&document, &[], &look(Some(60)));
    let causes = view.lines().skip_while(|line| !line.starts_with("GPUs 0 to")).take_while(|line| !line.is_empty());
    let causes: Vec<&str> = causes.collect();
    assert_eq!(
        causes,
        [
            "GPUs 0 to 1: driver does not answer",
            "             (nvmlDeviceGetTemperature); 2 of 18 NVLinks",
            "             down",
            "GPU 3: driver does not answer (nvmlDeviceGetTemperature); 2",
            "       of 18 NVLinks down",
        ]
    );
}

#[test]
fn a_node_that_is_gone() {
    let document = StatusDocument { time: TIME.into(), nodes: vec![down("gpu-09", "unreachable")] };
    expect![[r#"
        gpu-09  down 3h: unreachable                                           14:03:27Z
        What follows is the last that it said.

        CPU        –
        Memory     –
        Disk       –
        Network    –
        Agent      –
        Up for     –
        Last seen  3h ago
    "#]]
    .assert_eq(&node::view(&document, &[], &look(Some(80))));
}
