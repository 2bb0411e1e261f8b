//! Cards made of files: what tests read.

use crate::samplers::fixture::Fixture;

/// Where the server's accelerator and the old card are on the bus.
const MI300X_SLOT: &str = "devices/pci0000:c0/0000:c0:01.1";
pub(super) const MI300X_AT: &str = "devices/pci0000:c0/0000:c0:01.1/0000:c1:00.0";
pub(super) const RX580_AT: &str = "devices/pci0000:00/0000:00:03.1/0000:08:00.0";

/// A server's accelerator: no fan, no edge; errors are counted.
pub(super) const MI300X: &[(&str, &str)] = &[
    ("vendor", "0x1002"),
    ("device", "0x74a1"),
    ("unique_id", "5a1d0c44b2f09e37"),
    ("product_name", "AMD Instinct MI300X OAM"),
    ("product_number", "102-G30000-00"),
    ("serial_number", "692300000001"),
    ("vbios_version", "113-M3000100-000"),
    ("power/runtime_status", "active"),
    ("gpu_busy_percent", "87"),
    ("mem_busy_percent", "41"),
    ("mem_info_vram_total", "206141652992"),
    ("mem_info_vram_used", "184683593728"),
    ("pcie_replay_count", "3"),
    ("current_link_speed", "32.0 GT/s PCIe"),
    ("current_link_width", "16"),
    ("max_link_speed", "32.0 GT/s PCIe"),
    ("max_link_width", "16"),
    ("pp_dpm_sclk", "S: 132Mhz *\n0: 500Mhz\n1: 2100Mhz"),
    ("pp_dpm_mclk", "0: 900Mhz\n1: 1100Mhz\n2: 1200Mhz\n3: 1300Mhz *"),
    ("hwmon/hwmon4/name", "amdgpu"),
    ("hwmon/hwmon4/temp2_label", "junction"),
    ("hwmon/hwmon4/temp2_input", "71000"),
    ("hwmon/hwmon4/temp2_crit", "100000"),
    ("hwmon/hwmon4/temp2_emergency", "105000"),
    ("hwmon/hwmon4/temp3_label", "mem"),
    ("hwmon/hwmon4/temp3_input", "62000"),
    ("hwmon/hwmon4/temp3_crit", "105000"),
    ("hwmon/hwmon4/temp3_emergency", "110000"),
    ("hwmon/hwmon4/power1_input", "654000000"),
    ("hwmon/hwmon4/power1_cap", "700000000"),
    ("hwmon/hwmon4/power1_cap_default", "750000000"),
    ("hwmon/hwmon4/power1_cap_min", "0"),
    ("hwmon/hwmon4/power1_cap_max", "750000000"),
    ("hwmon/hwmon4/freq1_input", "2087000000"),
    ("hwmon/hwmon4/freq2_input", "1300000000"),
    ("ras/features", "feature mask: 0x1"),
    ("ras/gfx_err_count", "ue: 0\nce: 0"),
    ("ras/umc_err_count", "ue: 1\nce: 20\nde: 3"),
];

/// An old card of a workstation: no name, no number of its own, one temperature.
pub(super) const RX580: &[(&str, &str)] = &[
    ("vendor", "0x1002"),
    ("device", "0x67df"),
    ("vbios_version", "113-00000000-000"),
    ("gpu_busy_percent", "3"),
    ("mem_info_vram_total", "8589934592"),
    ("mem_info_vram_used", "524288000"),
    ("pcie_replay_count", "0"),
    ("current_link_speed", "8.0 GT/s PCIe"),
    ("current_link_width", "16"),
    ("max_link_speed", "8.0 GT/s PCIe"),
    ("max_link_width", "16"),
    ("pp_dpm_sclk", "0: 300Mhz *\n1: 1366Mhz"),
    ("pp_dpm_mclk", "0: 300Mhz *\n1: 2000Mhz"),
    ("hwmon/hwmon2/name", "amdgpu"),
    ("hwmon/hwmon2/temp1_label", "edge"),
    ("hwmon/hwmon2/temp1_input", "41000"),
    ("hwmon/hwmon2/temp1_crit", "94000"),
    ("hwmon/hwmon2/power1_average", "33117000"),
    ("hwmon/hwmon2/power1_cap", "145000000"),
    ("hwmon/hwmon2/power1_cap_max", "145000000"),
    ("hwmon/hwmon2/fan1_input", "850"),
    ("hwmon/hwmon2/fan1_max", "3400"),
    ("hwmon/hwmon2/pwm1", "80"),
    ("hwmon/hwmon2/pwm1_max", "255"),
    ("hwmon/hwmon2/freq1_input", "300000000"),
    ("hwmon/hwmon2/freq2_input", "300000000"),
];

pub(super) fn with(mut fixture: Fixture, directory: &str, files: &[(&str, &str)]) -> Fixture {
    for (file, text) in files {
        fixture = fixture.sys(&format!("{directory}/{file}"), &format!("{text}\n"));
    }
    fixture
}

pub(super) fn with_card(fixture: Fixture, name: &str, at: &str, files: &[(&str, &str)]) -> Fixture {
    with(fixture, at, files)
        .sys_link(&format!("{at}/driver"), "bus/pci/drivers/amdgpu")
        .sys_link(&format!("class/drm/{name}/device"), at)
        .sys(&format!("class/drm/{name}-DP-1/status"), "disconnected")
}

pub(super) fn mi300x() -> Fixture {
    let slot = [("vendor", "0x1022"), ("max_link_speed", "32.0 GT/s PCIe"), ("max_link_width", "16")];
    with_card(with(Fixture::new(), MI300X_SLOT, &slot), "card1", MI300X_AT, MI300X)
}
