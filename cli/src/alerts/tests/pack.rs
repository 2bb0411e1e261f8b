//! Each rule that ships with the program fires on an incident made for it, and resolves after it.

use std::sync::Arc;

use super::super::event::{EventKind, Previous};
use super::super::*;
use super::world::{World, run};
use crate::rules::{RuleSet, pack};

/// An incident for each rule of the pack. All rules are in force; only those named may say anything.
const INCIDENTS: &[(&[&str], &str)] = &[
    (
        &["NodeStale"],
        "up{instance=n1,job=belfry} 1 1 0x20 1x20
         belfry_node_state{instance=n1,state=up} 1 1 stale _x19 1x20
         belfry_node_state{instance=n1,state=stale,reason=silent} _ _ 1x20 stale",
    ),
    (
        &["NodeStale", "NodeUnreachable"],
        "up{instance=n1,job=belfry} 1 1 0x60 1x20
         belfry_node_state{instance=n1,state=up} 1 1 stale _x59 1x20
         belfry_node_state{instance=n1,state=stale,reason=silent} _ _ 1x20 stale
         belfry_node_state{instance=n1,state=down,reason=unreachable} _x22 1x40 stale",
    ),
    (
        &["NodeDown"],
        "up{instance=n1,job=belfry} 1 1 0x60 1x20
         belfry_node_state{instance=n1,state=up} 1 1 stale _x59 1x20
         belfry_node_state{instance=n1,state=down,reason=stopped} _ _ 1x60 stale",
    ),
    // After a restart of the collector nobody is suspected.
    (&[], "belfry_node_state{instance=n1,state=stale,reason=awaited} 1x60"),
    (
        &["NodeNeverSeen"],
        "belfry_node_state{instance=n1,state=down,reason=never_seen} 1x700 stale
         belfry_node_state{instance=n1,state=up} _x700 1x20",
    ),
    // Revoked on purpose: nothing to say.
    (&[], "belfry_node_state{instance=n1,state=down,reason=revoked} 1x60"),
    (&["CollectorDiskFull"], "belfry_collector_store_writable{job=belfry} 1x3 0x30 1x10"),
    (&["CollectorBlocksQuarantined"], "belfry_collector_blocks_quarantined{job=belfry} 0x3 1x30 0x10"),
    (&["NodeClockSkew"], "belfry_node_clock_skew_seconds{instance=n1} 0 -5x90 0x10"),
    (
        &["AgentSpoolGrowing"],
        "belfry_agent_spool_oldest_age_seconds{instance=n1} 0 90x200 1x10
         belfry_agent_spool_bytes{instance=n1} ^0+1000x201 0x10",
    ),
    (
        &["MemoryPressure"],
        "node_memory_MemTotal_bytes{instance=n1} 1000x300
         node_memory_MemAvailable_bytes{instance=n1} 500 20x90 500x209",
    ),
    (&["OomKill"], "node_vmstat_oom_kill{instance=n1} 3x60 4x400"),
    (&["OomKill"], "node_vmstat_oom_kill{instance=n1} 0x60 1x400"),
    (
        &["DiskAlmostFull"],
        "node_filesystem_size_bytes{instance=n1,device=/dev/a,fstype=ext4,mountpoint=/} 1000x200
         node_filesystem_avail_bytes{instance=n1,device=/dev/a,fstype=ext4,mountpoint=/} 500 10x100 500x99
         node_filesystem_readonly{instance=n1,device=/dev/a,fstype=ext4,mountpoint=/} 0x200
         node_filesystem_size_bytes{instance=n1,device=t,fstype=tmpfs,mountpoint=/t} 1000x200
         node_filesystem_avail_bytes{instance=n1,device=t,fstype=tmpfs,mountpoint=/t} 0x200
         node_filesystem_readonly{instance=n1,device=t,fstype=tmpfs,mountpoint=/t} 0x200",
    ),
    (
        &["DiskFillingUp"],
        "node_filesystem_size_bytes{instance=n1,device=/dev/a,fstype=ext4,mountpoint=/} 1000000x1100
         node_filesystem_avail_bytes{instance=n1,device=/dev/a,fstype=ext4,mountpoint=/} ^300000-100x1000 900000x100
         node_filesystem_readonly{instance=n1,device=/dev/a,fstype=ext4,mountpoint=/} 0x1100",
    ),
    (
        &["FilesystemReadOnly"],
        "node_filesystem_readonly{instance=n1,device=/dev/a,fstype=ext4,mountpoint=/} 0 1x60 0x10
         node_filesystem_readonly{instance=n1,device=l,fstype=squashfs,mountpoint=/snap} 1x71",
    ),
    (
        &["NetworkErrors"],
        "node_network_receive_errs_total{instance=n1,device=eth0} 0 ^0+10x150 1500x250
         node_network_transmit_errs_total{instance=n1,device=eth0} 0x401",
    ),
    (
        &["GpuDriverUnresponsive"],
        "gpu_driver_responsive{instance=n1,driver=nvidia} 1 1 0x20 1x20
         gpu_driver_stuck_call_info{instance=n1,driver=nvidia,call=nvmlDeviceGetTemperature,gpu=3} _ _ 1x20 stale",
    ),
    (
        &["GpuDriverUnavailable"],
        "gpu_driver_state{instance=n1,driver=nvidia,state=no_driver} 0x10 1x60 0x10
         gpu_driver_state{instance=n1,driver=nvidia,state=ok} 1x10 0x60 1x10
         gpu_driver_state{instance=n1,driver=nvidia,state=starting} 1x80",
    ),
    (&["GpuMonitoringPaused"], "gpu_driver_state{instance=n1,driver=nvidia,state=paused} 0 1x3700 0x10"),
    (&["GpuLost"], "gpu_up{instance=n1,gpu=3,uuid=u3} 1x5 0x10 1x10\ngpu_up{instance=n1,gpu=4,uuid=u4} 1x25"),
    (
        &["GpuMissing"],
        "gpu_devices{instance=n1,driver=nvidia} 8x5 7x60 8x5
         gpu_devices_expected{instance=n1,driver=nvidia} 8x70",
    ),
    (
        &["GpuRecoveryAction"],
        "gpu_recovery_action{instance=n1,gpu=3,uuid=u3,action=none} 1x5 0x10 1x10
         gpu_recovery_action{instance=n1,gpu=3,uuid=u3,action=gpu_reset} 0x5 1x10 0x10",
    ),
    // The time in the world of these tests begins with second 1,700,000,000.
    (
        &["GpuXidFatal"],
        "gpu_xid_last_timestamp_seconds{instance=n1,gpu=3,uuid=u3,xid=79,class=fatal,action=reboot_inspect} _x5 1700000005x60 stale
         gpu_xid_last_timestamp_seconds{instance=n1,gpu=4,uuid=u4,xid=79,class=fatal,action=reboot_inspect} 1699900000x65",
    ),
    (
        &["GpuXid"],
        "gpu_xid_last_timestamp_seconds{instance=n1,gpu=3,uuid=u3,xid=31,class=warning,action=check_application} _x5 1700000005x700
         gpu_xid_last_timestamp_seconds{instance=n1,gpu=3,uuid=u3,xid=45,class=warning,action=ignore} _x5 1700000005x700
         gpu_xid_last_timestamp_seconds{instance=n1,gpu=3,uuid=u3,xid=152,class=info,action=none} _x5 1700000005x700",
    ),
    (
        &["GpuMemoryErrors"],
        "gpu_ecc_errors_total{instance=n1,gpu=3,uuid=u3,type=uncorrected,scope=volatile,location=dram} 0x5 2x10 0x10
         gpu_ecc_errors_total{instance=n1,gpu=3,uuid=u3,type=uncorrected,scope=aggregate,location=dram} 7x25
         gpu_ecc_errors_total{instance=n1,gpu=3,uuid=u3,type=corrected,scope=volatile,location=dram} 5x25",
    ),
    (&["GpuRowRemapFailed"], "gpu_row_remap_failure{instance=n1,gpu=3,uuid=u3} 0x5 1x10 0x5"),
    (&["GpuRowRemapPending"], "gpu_row_remap_pending{instance=n1,gpu=3,uuid=u3} 0x5 1x10 0x5"),
    (&["GpuPageRetirementPending"], "gpu_retired_pages_pending{instance=n1,gpu=3,uuid=u3} 0x5 1x10 0x5"),
    (
        &["GpuThermalSlowdown"],
        "gpu_clock_event_active{instance=n1,gpu=3,uuid=u3,reason=sw_thermal_slowdown} 0x5 1x40 0x90
         gpu_clock_event_active{instance=n1,gpu=3,uuid=u3,reason=sw_power_cap} 1x135",
    ),
    (
        &["GpuPowerBrake"],
        "gpu_clock_event_active{instance=n1,gpu=3,uuid=u3,reason=hw_power_brake_slowdown} 0x5 1x20 0x90",
    ),
    (
        &["GpuPcieNarrow"],
        "gpu_pcie_link_width{instance=n1,gpu=3,uuid=u3} 16x5 8x70 16x5
         gpu_pcie_link_width_max{instance=n1,gpu=3,uuid=u3} 16x80",
    ),
    (
        &["GpuPcieSlow"],
        "gpu_pcie_link_generation{instance=n1,gpu=3,uuid=u3} 1x200
         gpu_pcie_link_generation_max{instance=n1,gpu=3,uuid=u3} 5x200
         gpu_utilization_ratio{instance=n1,gpu=3,uuid=u3} 0x80 0.9x70 0x50",
    ),
    (
        &["GpuNvlinkDown"],
        "gpu_nvlink_active{instance=n1,gpu=3,uuid=u3,link=0} 1x5 0x40 1x5
         gpu_nvlink_active{instance=n1,gpu=3,uuid=u3,link=1} 0x50
         gpu_nvlink_active{instance=n1,gpu=4,uuid=u4,link=0} 1x50
         gpu_nvlink_active{instance=n1,gpu=4,uuid=u4,link=1} 0x50",
    ),
    (
        &["GpuNvlinkErrors"],
        "gpu_nvlink_errors_total{instance=n1,gpu=3,uuid=u3,link=7,kind=replay} 0x20 3x700
         gpu_nvlink_errors_total{instance=n1,gpu=3,uuid=u3,link=7,kind=symbol} ^0+1x720",
    ),
    (
        &["GpuFabricIncomplete"],
        "gpu_fabric_state{instance=n1,gpu=3,uuid=u3,state=in_progress} 1x310 0x5
         gpu_fabric_state{instance=n1,gpu=3,uuid=u3,state=completed} 0x310 1x5",
    ),
    (&["GpuFabricFailed"], "gpu_fabric_status{instance=n1,gpu=3,uuid=u3} 0x5 999x70 0x5"),
    (&["GpuFabricDegraded"], "gpu_fabric_degraded{instance=n1,gpu=3,uuid=u3} 0x5 1x70 0x5"),
    (
        &["GpuMemoryHot"],
        "gpu_temperature_celsius{instance=n1,gpu=3,uuid=u3,sensor=memory} 90x5 96x40 80x90
         gpu_temperature_celsius{instance=n1,gpu=4,uuid=u4,sensor=memory} 96x135
         gpu_temperature_threshold_celsius{instance=n1,gpu=4,uuid=u4,threshold=memory_max} 105x135",
    ),
    (
        &["GpuHeldIdle"],
        "gpu_utilization_ratio{instance=n1,gpu=3,uuid=u3} 0x1900 0.9x10
         gpu_processes{instance=n1,gpu=3,uuid=u3} 1x1910
         gpu_utilization_ratio{instance=n1,gpu=4,uuid=u4} 0x1910
         gpu_processes{instance=n1,gpu=4,uuid=u4} 0x1910",
    ),
    (
        &["GpuAllocatedUnused"],
        "gpu_job_processes{instance=n1,gpu=3,uuid=u3,job_kind=slurm,job_id=7} 0x1000 stale
         gpu_job_processes{instance=n1,gpu=4,uuid=u4,job_kind=slurm,job_id=8} 2x1000 stale",
    ),
    (
        &["GpuBusyNotWorking"],
        "gpu_utilization_ratio{instance=n1,gpu=3,uuid=u3} 1x400 0x10
         gpu_power_watts{instance=n1,gpu=3,uuid=u3} 120x410
         gpu_power_limit_watts{instance=n1,gpu=3,uuid=u3,limit=enforced} 700x410
         gpu_power_limit_watts{instance=n1,gpu=3,uuid=u3,limit=max} 700x410
         gpu_tensor_active_ratio{instance=n1,gpu=3,uuid=u3} 0x410
         gpu_utilization_ratio{instance=n1,gpu=4,uuid=u4} 1x410
         gpu_power_watts{instance=n1,gpu=4,uuid=u4} 120x410
         gpu_power_limit_watts{instance=n1,gpu=4,uuid=u4,limit=enforced} 700x410
         gpu_tensor_active_ratio{instance=n1,gpu=4,uuid=u4} 0.5x410",
    ),
];

fn world() -> World {
    let mut world = World::new("groups: []");
    world.rules = Arc::new(RuleSet::load(&pack()).expect("the pack is valid"));
    world.engine = Engine::new(Arc::clone(&world.rules), Options::default(), world.now_ms());
    world
}

/// Names of the rules that fired, and of those that resolved after, each once and in order.
fn told(world: &World, kind: EventKind) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let fired = |event: &&Event| event.event == kind && event.previous != Some(Previous::Pending);
    let any = |event: &&Event| event.event == kind;
    let events: Vec<&Event> = match kind {
        EventKind::Resolved => world.events.iter().filter(fired).collect(),
        _ => world.events.iter().filter(any).collect(),
    };
    for event in events {
        let name = event.rule.clone().unwrap_or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[test]
fn the_pack_is_valid_without_a_warning() {
    let checked = RuleSet::check(&pack());
    assert_eq!(checked.problems, []);
    let rules = checked.rules.expect("valid rules");
    for (_, _, rule) in rules.iter() {
        let crate::rules::RuleKind::Alert(alert) = &rule.kind else { panic!("the pack only alerts") };
        for wanted in ["summary", "description", "action"] {
            assert!(alert.annotations.iter().any(|(name, _)| name == wanted), "{}: {wanted}", rule.name());
        }
    }
}

#[test]
fn each_rule_fires_on_its_incident_and_resolves_after() {
    for (names, script) in INCIDENTS {
        let mut world = world();
        run(&mut world, script);
        assert_eq!(told(&world, EventKind::Firing), *names, "{script}\n{}", world.log);
        assert_eq!(told(&world, EventKind::Resolved), *names, "{script}\n{}", world.log);
        assert_eq!(world.states(), "", "{}", world.log);
        let texts = world.events.iter().flat_map(|event| event.annotations.values());
        assert!(texts.clone().all(|text| !text.contains("error expanding")), "{:?}", texts.collect::<Vec<_>>());
    }
}

#[test]
fn every_rule_has_an_incident() {
    let rules = world().rules;
    let named: Vec<&str> = INCIDENTS.iter().flat_map(|(names, _)| names.iter().copied()).collect();
    let lacking: Vec<&str> =
        rules.iter().map(|(_, _, rule)| rule.name()).filter(|name| !named.contains(name)).collect();
    // It takes many nodes and has a test of its own.
    assert_eq!(lacking, ["ManyNodesUnreachable"]);
}

#[test]
fn the_loss_of_many_nodes_is_one_alert_more() {
    let mut script = String::new();
    for node in 0..20 {
        let (up, state, down) = match node {
            0..8 => ("1 1 0x30 1x10", "1 1 stale _x29 1x10", "_ _ 1x30 stale"),
            _ => ("1x42", "1x42", "_"),
        };
        script += &format!(
            "up{{instance=n{node},job=belfry}} {up}
             belfry_node_state{{instance=n{node},state=up}} {state}
             belfry_node_state{{instance=n{node},state=down,reason=unreachable}} {down}\n"
        );
    }
    let mut world = world();
    run(&mut world, &script);
    let of = |kind: EventKind, rule: &str| {
        world.events.iter().filter(|event| event.event == kind && event.rule.as_deref() == Some(rule)).count()
    };
    for kind in [EventKind::Firing, EventKind::Resolved] {
        assert_eq!((of(kind, "ManyNodesUnreachable"), of(kind, "NodeUnreachable")), (1, 8), "{}", world.log);
    }
}

#[test]
fn a_disk_alert_outlives_its_node() {
    let mut world = world();
    run(
        &mut world,
        "up{instance=n1,job=belfry} 1x100 0x500
         node_filesystem_size_bytes{instance=n1,device=/dev/a,fstype=ext4,mountpoint=/} 1000x100 stale
         node_filesystem_avail_bytes{instance=n1,device=/dev/a,fstype=ext4,mountpoint=/} 10x100 stale
         node_filesystem_readonly{instance=n1,device=/dev/a,fstype=ext4,mountpoint=/} 0x100 stale",
    );
    assert_eq!(world.states(), "DiskAlmostFull n1 firing without data", "{}", world.log);
}
