//! Hardware monitors: temperatures, fans, voltages, power, from `/sys/class/hwmon`.
//!
//! What a chip and a sensor are called is decided in the same way as by node_exporter; the names of readings are
//! in [`super::hwmon_names`]. Every numeric file of a sensor is a reading, limits and alarms included. Absent: GPUs that fall asleep.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use belfry_common::model::{Kind, Metric, Reason};

use super::{
    Roots, SampleError, TEN_SECONDS, declare,
    hwmon_names::{Attribute, Measure, clean, measure},
    number,
    sysfs::{Family, Plan, Sysfs, text},
};

#[derive(Debug)]
pub(super) struct Hwmon {
    directory: PathBuf,
    chip_names: Arc<Metric>,
    sensor_label: Arc<Metric>,
    /// By name: each chip may have the same.
    measures: HashMap<String, Arc<Metric>>,
}

pub(super) fn sampler(roots: &Roots) -> Sysfs<Hwmon> {
    Sysfs::new(Hwmon {
        directory: roots.sys.join("class/hwmon"),
        chip_names: declare::info(
            "node_hwmon_chip_names",
            &["chip", "chip_name"],
            "Annotation metric for human-readable chip names.",
        ),
        sensor_label: declare::info(
            "node_hwmon_sensor_label",
            &["chip", "sensor", "label"],
            "Label for given chip and sensor.",
        ),
        measures: HashMap::new(),
    })
}

impl Family for Hwmon {
    const NAME: &'static str = "hwmon";
    const INTERVAL: Duration = TEN_SECONDS;

    fn scan(&mut self, plan: &mut Plan) -> Result<(), SampleError> {
        let mut directories: Vec<_> =
            plan.list(&self.directory, "")?.iter().map(|name| self.directory.join(name)).collect();
        directories.retain(|directory| !is_gpu_that_sleeps(directory));
        for (chip, directory) in with_unique_names(&directories) {
            if let Some(name) = text(&directory.join("name")).map(|name| clean(&name)).filter(|name| !name.is_empty()) {
                plan.fixed(&self.chip_names, &[&chip, &name], 1);
            }
            let mut clocks = HashSet::new();
            for sensor in sensors(plan, directory)?.values() {
                self.scan_sensor(plan, &chip, sensor, &mut clocks);
            }
        }
        Ok(())
    }
}

/// The files of one sensor by their property.
#[derive(Debug, Default)]
struct Sensor {
    name: String,
    files: BTreeMap<String, PathBuf>,
}

impl Hwmon {
    fn scan_sensor(&mut self, plan: &mut Plan, chip: &str, sensor: &Sensor, clocks: &mut HashSet<String>) {
        let label = sensor.files.get("label").and_then(|path| text(path));
        if let Some(label) = &label {
            plan.fixed(&self.sensor_label, &[chip, &sensor.name, label], 1);
        }
        for (property, path) in sensor.files.iter().filter(|(property, _)| *property != "label") {
            let Some(attribute) = Attribute::parse(&sensor.name).map(|sensor| Attribute { property, ..sensor }) else {
                continue;
            };
            // A frequency is known by its label alone.
            let name = match (attribute.kind, &**property, &label) {
                ("freq", "input", Some(label)) if clocks.insert(clean(label)) => clean(label),
                ("freq", "input", _) => continue,
                _ => sensor.name.clone(),
            };
            let metric = self.metric(&measure(&attribute, sensor.files.contains_key("")));
            let parse = if attribute.kind == "beep_enable" { is_one } else { number::signed };
            if is_reading(path) {
                plan.file(&metric, &[chip, &name], path.clone(), parse);
            }
        }
    }

    fn metric(&mut self, measure: &Measure) -> Arc<Metric> {
        let declare = || {
            let help =
                if measure.kind == Kind::Counter { "Hardware monitor counter." } else { "Hardware monitor reading." };
            declare::metric(&measure.name, measure.kind, measure.resolution, &["chip", "sensor"], help)
        };
        Arc::clone(self.measures.entry(measure.name.clone()).or_insert_with(declare))
    }
}

/// Whether the chip belongs to a GPU that falls asleep when nobody uses it. On many kernels reading its sensors wakes it; its own
/// sampler looks first.
fn is_gpu_that_sleeps(directory: &Path) -> bool {
    let power = |file| text(&directory.join("device/power").join(file));
    text(&directory.join("name")).as_deref() == Some("amdgpu")
        && power("control").as_deref() == Some("auto")
        && power("runtime_status").is_some_and(|status| status != "unsupported")
}

/// Whether a file is to be read at each tick: it holds a number, or fails for now. Text is none; nor is what can
/// only be written, or is a directory.
fn is_reading(path: &Path) -> bool {
    let may_be_read = fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o444 != 0);
    may_be_read && text(path).is_none_or(|text| number::signed(&text).is_ok())
}

fn is_one(text: &str) -> Result<i64, Reason> {
    Ok(i64::from(text == "1"))
}

/// The sensors of a chip, from its own directory and, for old drivers, its device's.
fn sensors(plan: &mut Plan, directory: &Path) -> Result<BTreeMap<(String, u32), Sensor>, SampleError> {
    let mut sensors: BTreeMap<_, Sensor> = BTreeMap::new();
    for directory in [directory.to_owned(), directory.join("device")] {
        for file in plan.list(&directory, "")? {
            let Some(attribute) = Attribute::parse(&file) else { continue };
            let sensor = sensors.entry((attribute.kind.to_owned(), attribute.number)).or_default();
            sensor.name = attribute.sensor();
            sensor.files.insert(attribute.property.to_owned(), directory.join(&file));
        }
    }
    Ok(sensors)
}

/// Names chips after their device, which unlike `hwmon3` does not depend on the order in which drivers were
/// loaded. Where several have the same device, the driver's name follows, or else `hwmon3` after all.
fn with_unique_names(directories: &[PathBuf]) -> Vec<(String, &PathBuf)> {
    let named: Vec<_> = directories
        .iter()
        .filter_map(|directory| {
            Some((base_name(directory)?, text(&directory.join("name")).unwrap_or_default(), directory))
        })
        .collect();
    let unique = |(base, name, directory): &(String, String, &PathBuf)| {
        let same_base = named.iter().filter(|(other, ..)| other == base).count();
        if same_base == 1 {
            return base.clone();
        }
        let same_both = named.iter().filter(|(other, other_name, _)| other == base && other_name == name).count();
        match clean(name) {
            suffix if same_both == 1 && !suffix.is_empty() => format!("{base}_{suffix}"),
            _ => format!("{base}_{}", clean(&last(directory))),
        }
    };
    named.iter().map(|chip| (unique(chip), chip.2)).collect()
}

/// `platform_coretemp_0` after the device, else the driver's name, else `hwmon3`.
fn base_name(directory: &Path) -> Option<String> {
    if !directory.is_dir() {
        return None;
    }
    let of_device = fs::canonicalize(directory.join("device")).ok().and_then(|device| {
        let name = clean(&last(&device));
        let bus = device.parent().map(|parent| clean(&last(parent))).unwrap_or_default();
        match (bus.is_empty(), name.is_empty()) {
            (_, true) => None,
            (true, false) => Some(name),
            (false, false) => Some(format!("{bus}_{name}")),
        }
    });
    let of_driver = || text(&directory.join("name")).map(|name| clean(&name));
    let of_itself = || fs::canonicalize(directory).ok().map(|real| clean(&last(&real)));
    let not_empty = |name: &String| !name.is_empty();
    of_device.or_else(|| of_driver().filter(not_empty)).or_else(|| of_itself().filter(not_empty))
}

fn last(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    #[test]
    fn chips_are_named_after_their_device_and_sensors_have_units() {
        let mut fixture = Fixture::new().sys_link("class/hwmon/hwmon0", "devices/platform/coretemp.0/hwmon/hwmon0");
        for (file, text) in [
            ("hwmon/hwmon0/name", "coretemp"),
            ("hwmon/hwmon0/temp1_input", "55000"),
            ("hwmon/hwmon0/temp1_crit", "100000"),
            ("hwmon/hwmon0/temp1_label", "Physical id 0"),
            ("hwmon/hwmon0/temp2_input", "-40"),
            ("hwmon/hwmon0/fan1_input", "1098"),
            ("hwmon/hwmon0/power1_average", "4500000"),
            ("hwmon/hwmon0/power1_model_number", "X1"),
            ("hwmon/hwmon0/energy1_input", "1234567"),
            ("hwmon/hwmon0/in0_input", "1056"),
            ("hwmon/hwmon0/pwm1", "128"),
            ("hwmon/hwmon0/pwm1_enable", "2"),
            ("hwmon/hwmon0/beep_enable", "1"),
            ("hwmon/hwmon0/update_interval", "1500"),
            ("hwmon/hwmon0/freq1_input", "214000000"),
            ("hwmon/hwmon0/freq1_label", "sclk"),
            ("hwmon/hwmon0/freq2_input", "300000000"),
            ("hwmon/hwmon0/freq3_input", "400000000"),
            ("hwmon/hwmon0/freq3_label", "SCLK"),
            ("hwmon/hwmon0/power/control", "auto"),
        ] {
            fixture = fixture.sys(&format!("devices/platform/coretemp.0/{file}"), &format!("{text}\n"));
        }
        fixture = fixture.sys_link("devices/platform/coretemp.0/hwmon/hwmon0/device", "devices/platform/coretemp.0");
        expect![[r#"
            node_hwmon_chip_names{chip="platform_coretemp_0",chip_name="coretemp"} 1
            node_hwmon_beep_enabled{chip="platform_coretemp_0",sensor="beep_enable0"} 1
            node_hwmon_energy_joule_total{chip="platform_coretemp_0",sensor="energy1"} 1.234567
            node_hwmon_fan_rpm{chip="platform_coretemp_0",sensor="fan1"} 1098
            node_hwmon_sensor_label{chip="platform_coretemp_0",sensor="freq1",label="sclk"} 1
            node_hwmon_freq_freq_mhz{chip="platform_coretemp_0",sensor="sclk"} 214
            node_hwmon_sensor_label{chip="platform_coretemp_0",sensor="freq3",label="SCLK"} 1
            node_hwmon_in_volts{chip="platform_coretemp_0",sensor="in0"} 1.056
            node_hwmon_power_average_watt{chip="platform_coretemp_0",sensor="power1"} 4.5
            node_hwmon_pwm{chip="platform_coretemp_0",sensor="pwm1"} 128
            node_hwmon_pwm_enable{chip="platform_coretemp_0",sensor="pwm1"} 2
            node_hwmon_sensor_label{chip="platform_coretemp_0",sensor="temp1",label="Physical id 0"} 1
            node_hwmon_temp_crit_celsius{chip="platform_coretemp_0",sensor="temp1"} 100
            node_hwmon_temp_celsius{chip="platform_coretemp_0",sensor="temp1"} 55
            node_hwmon_temp_celsius{chip="platform_coretemp_0",sensor="temp2"} -0.04
            node_hwmon_update_interval_seconds{chip="platform_coretemp_0",sensor="update_interval0"} 1.5
        "#]]
        .assert_eq(&fixture.print(&mut sampler(&fixture.roots())));
    }

    #[test]
    fn chips_of_one_device_are_told_apart() {
        let mut fixture = Fixture::new().sys("devices/pci/nvme0/uevent", "");
        for (chip, name, device) in [
            (0, "fans", Some("devices/pci/nvme0")),
            (1, "temps", Some("devices/pci/nvme0")),
            (2, "same", Some("devices/pci")),
            (3, "same", Some("devices/pci")),
            (4, "Alone!", None),
            (5, "", None),
        ] {
            let directory = format!("class/hwmon/hwmon{chip}");
            fixture = fixture.sys(&format!("{directory}/name"), name).sys(&format!("{directory}/temp1_input"), "1000");
            if let Some(device) = device {
                fixture = fixture.sys_link(&format!("{directory}/device"), device);
            }
        }
        let printed = fixture.print(&mut sampler(&fixture.roots()));
        expect![[r#"
            node_hwmon_chip_names{chip="pci_nvme0_fans",chip_name="fans"} 1
            node_hwmon_temp_celsius{chip="pci_nvme0_fans",sensor="temp1"} 1
            node_hwmon_chip_names{chip="pci_nvme0_temps",chip_name="temps"} 1
            node_hwmon_temp_celsius{chip="pci_nvme0_temps",sensor="temp1"} 1
            node_hwmon_chip_names{chip="devices_pci_hwmon2",chip_name="same"} 1
            node_hwmon_temp_celsius{chip="devices_pci_hwmon2",sensor="temp1"} 1
            node_hwmon_chip_names{chip="devices_pci_hwmon3",chip_name="same"} 1
            node_hwmon_temp_celsius{chip="devices_pci_hwmon3",sensor="temp1"} 1
            node_hwmon_chip_names{chip="alone",chip_name="alone"} 1
            node_hwmon_temp_celsius{chip="alone",sensor="temp1"} 1
            node_hwmon_temp_celsius{chip="hwmon5",sensor="temp1"} 1
        "#]]
        .assert_eq(&printed);
    }

    #[test]
    fn a_gpu_that_falls_asleep_is_left_to_its_own_sampler() {
        let chip = "class/hwmon/hwmon0";
        for (control, status, is_read) in [
            ("auto", "suspended", false),
            ("auto", "active", false),
            ("auto", "unsupported", true),
            ("on", "active", true),
        ] {
            let fixture = Fixture::new()
                .sys(&format!("{chip}/name"), "amdgpu\n")
                .sys(&format!("{chip}/temp1_input"), "41000\n")
                .sys(&format!("{chip}/device/power/control"), &format!("{control}\n"))
                .sys(&format!("{chip}/device/power/runtime_status"), &format!("{status}\n"));
            let printed = fixture.print(&mut sampler(&fixture.roots()));
            assert_eq!(printed.contains("node_hwmon_temp_celsius"), is_read, "{control} {status}: {printed}");
        }
    }

    #[test]
    fn a_sensor_that_fails_later_is_missing() {
        let mut fixture =
            Fixture::new().sys("class/hwmon/hwmon0/name", "chip").sys("class/hwmon/hwmon0/temp1_input", "1");
        let mut sampler = sampler(&fixture.roots());
        fixture.print(&mut sampler);
        fixture = fixture.sys("class/hwmon/hwmon0/temp1_input", "");
        expect![[r#"
            node_hwmon_chip_names{chip="chip",chip_name="chip"} 1
            node_hwmon_temp_celsius{chip="chip",sensor="temp1"} missing (error)
        "#]]
        .assert_eq(&fixture.print(&mut sampler));
    }
}
