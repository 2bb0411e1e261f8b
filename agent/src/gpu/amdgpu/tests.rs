//! What is read of cards, and what is not.

use std::rc::Rc;

use belfry_common::model::Timestamp;
use expect_test::{Expect, expect};

use super::{
    super::driver::DriverState,
    fixture::{MI300X, MI300X_AT, RX580, RX580_AT, mi300x, with, with_card},
    *,
};
use crate::samplers::fixture::{Fixture, show};

/// The driver of a machine made of files.
struct Reader {
    amd: Amd,
    board: Rc<Board>,
}

impl Reader {
    fn open(fixture: &Fixture) -> Self {
        let board = Rc::new(Board::new().unwrap());
        let amd = Amd::open(&fixture.roots().sys, &[], Rc::clone(&board)).map_err(|error| error.state).unwrap();
        Self { amd, board }
    }

    fn print(&mut self, set: Set) -> String {
        let mut readings = Readings::new(1, "test", 1000);
        self.amd.sample(set, Timestamp::from_millis(0), &mut readings);
        show(&mut readings)
    }

    /// Calls noted so far, and the last of them.
    fn noted(&self) -> (u64, String) {
        self.board.read().map(|noted| (noted.number, noted.call)).unwrap()
    }
}

fn check(fixture: &Fixture, set: Set, expected: &Expect) {
    expected.assert_eq(&Reader::open(fixture).print(set));
}

#[test]
fn an_accelerator_of_a_server() {
    let fixture = mi300x().sys("module/amdgpu/version", "6.10.5\n");
    check(
        &fixture,
        Set::Activity,
        &expect![[r#"
            gpu_utilization_ratio{gpu="0",uuid="GPU-5a1d0c44b2f09e37"} 0.87
            gpu_memory_copy_utilization_ratio{gpu="0",uuid="GPU-5a1d0c44b2f09e37"} 0.41
            gpu_memory_used_bytes{gpu="0",uuid="GPU-5a1d0c44b2f09e37",gpu_instance="",compute_instance=""} 184683593728
            gpu_memory_free_bytes{gpu="0",uuid="GPU-5a1d0c44b2f09e37",gpu_instance="",compute_instance=""} 21458059264
            gpu_memory_total_bytes{gpu="0",uuid="GPU-5a1d0c44b2f09e37",gpu_instance="",compute_instance=""} 206141652992
            gpu_temperature_celsius{gpu="0",uuid="GPU-5a1d0c44b2f09e37",sensor="junction"} 71
            gpu_temperature_celsius{gpu="0",uuid="GPU-5a1d0c44b2f09e37",sensor="memory"} 62
            gpu_temperature_celsius{gpu="0",uuid="GPU-5a1d0c44b2f09e37",sensor="gpu"} 71
            gpu_power_watts{gpu="0",uuid="GPU-5a1d0c44b2f09e37"} 654
            gpu_clock_hertz{gpu="0",uuid="GPU-5a1d0c44b2f09e37",clock="graphics"} 2087000000
            gpu_clock_hertz{gpu="0",uuid="GPU-5a1d0c44b2f09e37",clock="memory"} 1300000000
            gpu_pcie_replays_total{gpu="0",uuid="GPU-5a1d0c44b2f09e37"} 3
            gpu_up{gpu="0",uuid="GPU-5a1d0c44b2f09e37"} 1
        "#]],
    );
    check(
        &fixture,
        Set::Condition,
        &expect![[r#"
            gpu_power_limit_watts{gpu="0",uuid="GPU-5a1d0c44b2f09e37",limit="enforced"} 700
            gpu_pcie_link_generation{gpu="0",uuid="GPU-5a1d0c44b2f09e37"} 5
            gpu_pcie_link_generation_max{gpu="0",uuid="GPU-5a1d0c44b2f09e37"} 5
            gpu_pcie_link_width{gpu="0",uuid="GPU-5a1d0c44b2f09e37"} 16
            gpu_pcie_link_width_max{gpu="0",uuid="GPU-5a1d0c44b2f09e37"} 16
            gpu_ecc_errors_total{gpu="0",uuid="GPU-5a1d0c44b2f09e37",type="corrected",scope="volatile",location="gfx"} 0
            gpu_ecc_errors_total{gpu="0",uuid="GPU-5a1d0c44b2f09e37",type="uncorrected",scope="volatile",location="gfx"} 0
            gpu_ecc_errors_total{gpu="0",uuid="GPU-5a1d0c44b2f09e37",type="corrected",scope="volatile",location="umc"} 20
            gpu_ecc_errors_total{gpu="0",uuid="GPU-5a1d0c44b2f09e37",type="uncorrected",scope="volatile",location="umc"} 1
            gpu_ecc_errors_total{gpu="0",uuid="GPU-5a1d0c44b2f09e37",type="deferred",scope="volatile",location="umc"} 3
            gpu_readings_unsupported{gpu="0",uuid="GPU-5a1d0c44b2f09e37"} 4
        "#]],
    );
    check(
        &fixture,
        Set::Facts,
        &expect![[r#"
            gpu_driver_info{driver="amd",driver_version="6.10.5",nvml_version="",cuda_version=""} 1
            gpu_info{gpu="0",uuid="GPU-5a1d0c44b2f09e37",device="card1",model="AMD Instinct MI300X OAM",pci_bus_id="0000:c1:00.0",serial="692300000001",board_part_number="102-G30000-00",vbios_version="113-M3000100-000",compute_capability="",driver_version="6.10.5",cuda_version=""} 1
            gpu_temperature_threshold_celsius{gpu="0",uuid="GPU-5a1d0c44b2f09e37",threshold="slowdown"} 100
            gpu_temperature_threshold_celsius{gpu="0",uuid="GPU-5a1d0c44b2f09e37",threshold="shutdown"} 105
            gpu_temperature_threshold_celsius{gpu="0",uuid="GPU-5a1d0c44b2f09e37",threshold="memory_max"} 105
            gpu_temperature_threshold_celsius{gpu="0",uuid="GPU-5a1d0c44b2f09e37",threshold="memory_shutdown"} 110
            gpu_power_limit_watts{gpu="0",uuid="GPU-5a1d0c44b2f09e37",limit="default"} 750
            gpu_power_limit_watts{gpu="0",uuid="GPU-5a1d0c44b2f09e37",limit="min"} 0
            gpu_power_limit_watts{gpu="0",uuid="GPU-5a1d0c44b2f09e37",limit="max"} 750
            gpu_clock_max_hertz{gpu="0",uuid="GPU-5a1d0c44b2f09e37",clock="graphics"} 2100000000
            gpu_clock_max_hertz{gpu="0",uuid="GPU-5a1d0c44b2f09e37",clock="memory"} 1300000000
        "#]],
    );
}

#[test]
fn an_old_card_has_fewer_files_and_fewer_series() {
    let fixture = with_card(Fixture::new(), "card0", RX580_AT, RX580);
    check(
        &fixture,
        Set::Activity,
        &expect![[r#"
            gpu_utilization_ratio{gpu="0",uuid="0000:08:00.0"} 0.03
            gpu_memory_used_bytes{gpu="0",uuid="0000:08:00.0",gpu_instance="",compute_instance=""} 524288000
            gpu_memory_free_bytes{gpu="0",uuid="0000:08:00.0",gpu_instance="",compute_instance=""} 8065646592
            gpu_memory_total_bytes{gpu="0",uuid="0000:08:00.0",gpu_instance="",compute_instance=""} 8589934592
            gpu_temperature_celsius{gpu="0",uuid="0000:08:00.0",sensor="edge"} 41
            gpu_temperature_celsius{gpu="0",uuid="0000:08:00.0",sensor="gpu"} 41
            gpu_power_watts{gpu="0",uuid="0000:08:00.0"} 33.117
            gpu_clock_hertz{gpu="0",uuid="0000:08:00.0",clock="graphics"} 300000000
            gpu_clock_hertz{gpu="0",uuid="0000:08:00.0",clock="memory"} 300000000
            gpu_pcie_replays_total{gpu="0",uuid="0000:08:00.0"} 0
            gpu_up{gpu="0",uuid="0000:08:00.0"} 1
        "#]],
    );
    check(
        &fixture,
        Set::Condition,
        &expect![[r#"
            gpu_power_limit_watts{gpu="0",uuid="0000:08:00.0",limit="enforced"} 145
            gpu_fan_speed_ratio{gpu="0",uuid="0000:08:00.0",fan="0"} 0.25
            gpu_pcie_link_generation{gpu="0",uuid="0000:08:00.0"} 3
            gpu_pcie_link_generation_max{gpu="0",uuid="0000:08:00.0"} 3
            gpu_pcie_link_width{gpu="0",uuid="0000:08:00.0"} 16
            gpu_pcie_link_width_max{gpu="0",uuid="0000:08:00.0"} 16
            gpu_readings_unsupported{gpu="0",uuid="0000:08:00.0"} 5
        "#]],
    );
    check(
        &fixture,
        Set::Facts,
        &expect![[r#"
            gpu_info{gpu="0",uuid="0000:08:00.0",device="card0",model="1002:67df",pci_bus_id="0000:08:00.0",serial="",board_part_number="",vbios_version="113-00000000-000",compute_capability="",driver_version="",cuda_version=""} 1
            gpu_temperature_threshold_celsius{gpu="0",uuid="0000:08:00.0",threshold="slowdown"} 94
            gpu_power_limit_watts{gpu="0",uuid="0000:08:00.0",limit="max"} 145
            gpu_clock_max_hertz{gpu="0",uuid="0000:08:00.0",clock="graphics"} 1366000000
            gpu_clock_max_hertz{gpu="0",uuid="0000:08:00.0",clock="memory"} 2000000000
        "#]],
    );
}

#[test]
fn what_cannot_be_true_is_out_of_range() {
    for (file, text, metric, set) in [
        ("gpu_busy_percent", "255", "gpu_utilization_ratio", Set::Activity),
        ("mem_busy_percent", "-1", "gpu_memory_copy_utilization_ratio", Set::Activity),
        ("mem_info_vram_total", "18446744073709551615", "gpu_memory_total_bytes", Set::Activity),
        ("mem_info_vram_used", "206141652993", "gpu_memory_used_bytes", Set::Activity),
        ("mem_info_vram_used", "206141652993", "gpu_memory_free_bytes", Set::Activity),
        ("pcie_replay_count", "18446744073709551615", "gpu_pcie_replays_total", Set::Activity),
        ("hwmon/hwmon4/temp2_input", "511000", "gpu_temperature_celsius", Set::Activity),
        ("hwmon/hwmon4/temp2_input", "126000", "gpu_temperature_celsius", Set::Activity),
        ("hwmon/hwmon4/temp3_input", "-273150", "gpu_temperature_celsius", Set::Activity),
        // Twice its limit and a watt.
        ("hwmon/hwmon4/power1_input", "1501000000", "gpu_power_watts", Set::Activity),
        ("hwmon/hwmon4/freq1_input", "4294967295000000", "gpu_clock_hertz", Set::Activity),
        ("hwmon/hwmon4/power1_cap", "4294967295000000", "gpu_power_limit_watts", Set::Condition),
        ("current_link_width", "32", "gpu_pcie_link_width", Set::Condition),
        ("current_link_speed", "64.0 GT/s PCIe", "gpu_pcie_link_generation", Set::Condition),
        ("ras/umc_err_count", "ue: 18446744073709551615\nce: 0", "gpu_ecc_errors_total", Set::Condition),
        ("hwmon/hwmon4/temp2_crit", "1000000", "gpu_temperature_threshold_celsius", Set::Facts),
        ("pp_dpm_sclk", "0: 65535000Mhz", "gpu_clock_max_hertz", Set::Facts),
    ] {
        let fixture = mi300x().sys(&format!("{MI300X_AT}/{file}"), &format!("{text}\n"));
        let printed = Reader::open(&fixture).print(set);
        let missing = |line: &str| line.starts_with(metric) && line.ends_with("missing (out_of_range)");
        assert!(printed.lines().any(missing), "{file} = {text}:\n{printed}");
    }
}

#[test]
fn what_is_no_number_is_an_error_and_what_is_empty_is_not_offered() {
    let at = |file: &str| format!("{MI300X_AT}/{file}");
    let fixture = mi300x()
        .sys(&at("gpu_busy_percent"), "busy\n")
        .sys(&at("ras/umc_err_count"), "Query currently inaccessible\n")
        .sys(&at("hwmon/hwmon4/power1_cap"), "\n");
    let mut reader = Reader::open(&fixture);
    let printed = reader.print(Set::Activity) + &reader.print(Set::Condition);
    let missing = printed.lines().filter(|line| line.contains("missing"));
    let missing: String = missing.flat_map(|line| [line, "\n"]).collect();
    expect![[r#"
        gpu_utilization_ratio{gpu="0",uuid="GPU-5a1d0c44b2f09e37"} missing (error)
        gpu_ecc_errors_total{gpu="0",uuid="GPU-5a1d0c44b2f09e37",type="corrected",scope="volatile",location="umc"} missing (error)
        gpu_ecc_errors_total{gpu="0",uuid="GPU-5a1d0c44b2f09e37",type="uncorrected",scope="volatile",location="umc"} missing (error)
    "#]]
    .assert_eq(&missing);
    assert!(!printed.contains("gpu_power_limit_watts"), "{printed}");
}

#[test]
fn a_card_that_sleeps_is_not_touched() {
    let status = format!("{MI300X_AT}/power/runtime_status");
    let mut fixture = mi300x();
    let mut reader = Reader::open(&fixture);
    assert!(reader.print(Set::Activity).lines().count() > 10);
    for asleep in ["suspended\n", "suspending\n"] {
        fixture = fixture.sys(&status, asleep);
        let (before, _) = reader.noted();
        let up = "gpu_up{gpu=\"0\",uuid=\"GPU-5a1d0c44b2f09e37\"} 1\n";
        assert_eq!(reader.print(Set::Activity), up);
        assert_eq!(reader.noted(), (before + 1, "power/runtime_status".into()));
        assert_eq!(reader.print(Set::Facts), "");
        assert_eq!(reader.noted(), (before + 2, "power/runtime_status".into()));
        assert_eq!(reader.print(Set::Condition), "");
        // The list of cards is the kernel's.
        assert_eq!(reader.noted(), (before + 4, "power/runtime_status".into()));
    }
    fixture = fixture.sys(&status, "active\n");
    assert!(reader.print(Set::Activity).lines().count() > 10);
    // Nor is one that sleeps when the worker starts.
    fixture = fixture.sys(&status, "suspended\n");
    let mut reader = Reader::open(&fixture);
    assert_eq!(reader.noted().1, "unique_id", "which the driver keeps in memory");
    assert_eq!(reader.print(Set::Activity).lines().count(), 1);
}

#[test]
fn a_card_without_its_driver_or_off_the_bus_is_lost() {
    let mut fixture = mi300x();
    let mut reader = Reader::open(&fixture);
    let whole = reader.print(Set::Activity);
    let lost = |printed: &str| {
        let all = printed.lines().all(|line| line.ends_with("missing (lost)") || line.starts_with("gpu_up"));
        let up = "gpu_up{gpu=\"0\",uuid=\"GPU-5a1d0c44b2f09e37\"} 0";
        assert!(all && printed.lines().last() == Some(up), "{printed}");
        assert_eq!(printed.lines().count(), whole.lines().count(), "{printed}");
    };
    fixture = fixture.sys(&format!("{MI300X_AT}/current_link_width"), "63\n");
    lost(&reader.print(Set::Activity));
    fixture = fixture.sys(&format!("{MI300X_AT}/current_link_width"), "16\n");
    assert_eq!(reader.print(Set::Activity), whole);
    fixture = fixture.remove_sys(&format!("{MI300X_AT}/driver")).remove_sys("class/drm/card1");
    lost(&reader.print(Set::Activity));
    fixture = fixture.remove_sys(MI300X_AT);
    lost(&reader.print(Set::Activity));
    assert!(reader.print(Set::Condition).contains("missing (lost)"));
    assert_eq!(reader.amd.gpus().len(), 1, "it is not forgotten");

    // The driver comes back, and its sensors have another number.
    let files: Vec<(String, &str)> =
        MI300X.iter().map(|(file, text)| (file.replace("hwmon4", "hwmon7"), *text)).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(file, text)| (&**file, *text)).collect();
    let fixture = with_card(fixture, "card1", MI300X_AT, &files);
    assert_eq!(reader.print(Set::Activity), whole);
    drop(fixture);
}

#[test]
fn the_link_is_the_one_to_the_slot_and_its_limit_that_of_both_ends() {
    const ROOT: &str = "devices/pci0000:00/0000:00:01.0";
    const AT: &str = "devices/pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0/0000:03:00.0";
    let slot = [("vendor", "0x8086"), ("max_link_speed", "8.0 GT/s PCIe"), ("max_link_width", "16")];
    let upstream = [
        ("vendor", "0x1002"),
        ("current_link_speed", "8.0 GT/s PCIe"),
        ("current_link_width", "8"),
        ("max_link_speed", "16.0 GT/s PCIe"),
        ("max_link_width", "16"),
    ];
    let downstream = [("vendor", "0x1002")];
    let inner = [
        ("vendor", "0x1002"),
        ("current_link_speed", "16.0 GT/s PCIe"),
        ("current_link_width", "16"),
        ("max_link_speed", "16.0 GT/s PCIe"),
        ("max_link_width", "16"),
    ];
    let fixture = with(Fixture::new(), ROOT, &slot);
    let fixture = with(fixture, &format!("{ROOT}/0000:01:00.0"), &upstream);
    let fixture = with(fixture, &format!("{ROOT}/0000:01:00.0/0000:02:00.0"), &downstream);
    let fixture = with_card(fixture, "card0", AT, &inner);
    check(
        &fixture,
        Set::Condition,
        &expect![[r#"
        gpu_pcie_link_generation{gpu="0",uuid="0000:03:00.0"} 3
        gpu_pcie_link_generation_max{gpu="0",uuid="0000:03:00.0"} 3
        gpu_pcie_link_width{gpu="0",uuid="0000:03:00.0"} 8
        gpu_pcie_link_width_max{gpu="0",uuid="0000:03:00.0"} 16
        gpu_readings_unsupported{gpu="0",uuid="0000:03:00.0"} 0
    "#]],
    );
}

#[test]
fn a_card_that_comes_later_is_found_and_cards_are_numbered_by_address() {
    let mut fixture = mi300x();
    let mut reader = Reader::open(&fixture);
    let indices =
        |reader: &Reader| reader.amd.gpus().into_iter().map(|gpu| (gpu.index, gpu.pci_bus_id)).collect::<Vec<_>>();
    assert_eq!(indices(&reader), [(0, "0000:c1:00.0".into())]);
    fixture = with_card(fixture, "card0", RX580_AT, RX580);
    // Not ours: another maker's, another driver's, and one without a device.
    fixture = with_card(fixture, "card2", "devices/pci0000:00/0000:01:00.0", &[("vendor", "0x10de")]);
    fixture = with(fixture, "devices/pci0000:00/0000:02:00.0", &[("vendor", "0x1002")])
        .sys_link("devices/pci0000:00/0000:02:00.0/driver", "bus/pci/drivers/radeon")
        .sys_link("class/drm/card3/device", "devices/pci0000:00/0000:02:00.0")
        .sys("class/drm/card4/uevent", "");
    reader.print(Set::Activity);
    assert_eq!(indices(&reader).len(), 1);
    reader.print(Set::Condition);
    assert_eq!(indices(&reader), [(0, "0000:08:00.0".into()), (1, "0000:c1:00.0".into())]);

    let board = Rc::new(Board::new().unwrap());
    let mut amd = Amd::open(&fixture.roots().sys, &[0], board).map_err(|error| error.state).unwrap();
    amd.look_again();
    let gpus = amd.gpus();
    assert_eq!((gpus.len(), gpus[0].index, &*gpus[0].uuid), (1, 1, "GPU-5a1d0c44b2f09e37"));
}

#[test]
fn no_card_is_no_driver_or_no_device() {
    let state = |fixture: &Fixture| {
        let board = Rc::new(Board::new().unwrap());
        Amd::open(&fixture.roots().sys, &[], board).err().map(|error| error.state)
    };
    assert_eq!(state(&Fixture::new()), Some(DriverState::NoDriver));
    let loaded = Fixture::new().sys("bus/pci/drivers/amdgpu/bind", "");
    assert_eq!(state(&loaded), Some(DriverState::NoDevices));
    assert_eq!(state(&mi300x()), None);
}

#[test]
fn processes_hold_the_cards_in_which_they_have_memory() {
    let mut fixture = with_card(mi300x(), "card0", RX580_AT, RX580);
    let properties = |location: u32| format!("simd_count 304\nlocation_id {location}\ndomain 0\nvendor_id 4098\n");
    for (file, text) in [
        ("topology/nodes/0/gpu_id", "0\n".to_owned()),
        ("topology/nodes/0/properties", properties(0)),
        // A card that is split in two.
        ("topology/nodes/1/gpu_id", "51000\n".to_owned()),
        ("topology/nodes/1/properties", properties(0xc100)),
        ("topology/nodes/2/gpu_id", "51001\n".to_owned()),
        ("topology/nodes/2/properties", properties(0x1000_c100)),
        ("topology/nodes/3/gpu_id", "800\n".to_owned()),
        ("topology/nodes/3/properties", properties(0x0800)),
        ("proc/4711/vram_51000", "1000\n".to_owned()),
        ("proc/4711/vram_51001", "24\n".to_owned()),
        ("proc/4711/vram_800", "0\n".to_owned()),
        ("proc/4712/vram_800", "77\n".to_owned()),
    ] {
        fixture = fixture.sys(&format!("class/kfd/kfd/{file}"), &text);
    }
    let holders = Reader::open(&fixture).amd.holders();
    let processes = holders.iter().flat_map(|holders| &holders.processes);
    let held: Vec<_> = processes.map(|held| (held.gpu, held.pid, held.memory_bytes)).collect();
    assert_eq!(held, [(0, 4712, Some(77)), (1, 4711, Some(1024))]);
    // Without the compute driver, and where it tells nothing, nobody knows.
    assert_eq!(Reader::open(&mi300x()).amd.holders(), []);
    let fixture = fixture.remove_sys("class/kfd/kfd/topology/nodes/1/properties");
    assert_eq!(Reader::open(&fixture).amd.holders(), []);
}
