//! How sensors of `/sys/class/hwmon` are named and measured: node_exporter's rules for `temp1_crit_alarm` and the
//! like, and the kernel's units.
//!
//! No files are read here.

use belfry_common::model::{Kind, Resolution};

/// The kinds of sensors; other files of these directories are none.
const KINDS: [&str; 14] = [
    "vrm",
    "beep_enable",
    "update_interval",
    "in",
    "cpu",
    "fan",
    "pwm",
    "temp",
    "curr",
    "power",
    "energy",
    "humidity",
    "intrusion",
    "freq",
];

/// A file's name taken apart: `temp1_crit_alarm` is kind `temp`, number 1, property `crit_alarm`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attribute<'n> {
    pub(super) kind: &'n str,
    pub(super) number: u32,
    /// Empty where the file is the value itself, as `pwm1`.
    pub(super) property: &'n str,
}

impl<'n> Attribute<'n> {
    pub(super) fn parse(file: &'n str) -> Option<Self> {
        let digits = file.find(|c: char| c.is_ascii_digit()).unwrap_or(file.len());
        let (kind, rest) = file.split_at_checked(digits)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, rest) = rest.split_at_checked(end)?;
        let number = if number.is_empty() { 0 } else { number.parse().ok()? };
        let property = if rest.is_empty() { "" } else { rest.strip_prefix('_').filter(|rest| !rest.is_empty())? };
        KINDS.contains(&kind).then_some(Self { kind, number, property })
    }

    /// The label `sensor`.
    pub(super) fn sensor(&self) -> String {
        format!("{}{}", self.kind, self.number)
    }
}

/// What a file's reading is called, and in which step it counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Measure {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) resolution: Resolution,
}

/// The measure of an attribute. `has_bare_value` when the sensor also has a file without a property.
pub(super) fn measure(attribute: &Attribute<'_>, has_bare_value: bool) -> Measure {
    let Attribute { kind, property, .. } = *attribute;
    let gauge = |name: String, resolution| Measure { name, kind: Kind::Gauge, resolution };
    match kind {
        "beep_enable" => return gauge("node_hwmon_beep_enabled".into(), Resolution::ONE),
        "vrm" => return gauge("node_hwmon_voltage_regulator_version".into(), Resolution::ONE),
        "update_interval" => return gauge("node_hwmon_update_interval_seconds".into(), Resolution::MILLI),
        _ => {}
    }
    let name = match property {
        "" => format!("node_hwmon_{kind}"),
        "input" if !has_bare_value => format!("node_hwmon_{kind}"),
        _ => format!("node_hwmon_{kind}_{}", clean(property)),
    };
    let with = |unit: &str, resolution| gauge(format!("{name}{unit}"), resolution);
    match (kind, property) {
        (_, "fault" | "alarm") => with("", Resolution::ONE),
        (_, "beep") => with("_enabled", Resolution::ONE),
        ("in" | "cpu", _) => with("_volts", Resolution::MILLI),
        ("temp", "type") => with("", Resolution::ONE),
        ("temp", _) => with("_celsius", Resolution::MILLI),
        ("curr", _) => with("_amps", Resolution::MILLI),
        ("energy", _) => Measure { kind: Kind::Counter, ..with("_joule_total", Resolution::MICRO) },
        ("power", "accuracy") => with("", Resolution::MICRO),
        ("power", "average_interval" | "average_interval_min" | "average_interval_max") => {
            with("_seconds", Resolution::MILLI)
        }
        ("power", _) => with("_watt", Resolution::MICRO),
        ("humidity", _) => with("", Resolution::MICRO),
        ("fan", "input" | "min" | "max" | "target") => with("_rpm", Resolution::ONE),
        ("freq", "input") => with("_freq_mhz", Resolution::MICRO),
        _ => with("", Resolution::ONE),
    }
}

/// Lower case, and `_` for whatever a metric's name may not contain.
pub(super) fn clean(name: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, ':' | '_');
    let cleaned: String = name.to_lowercase().chars().map(|c| if is_allowed(c) { c } else { '_' }).collect();
    cleaned.trim_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_taken_apart() {
        let check = |file, expected: Option<(&str, u32, &str)>| {
            let parsed = Attribute::parse(file).map(|a| (a.kind, a.number, a.property));
            assert_eq!(parsed, expected, "{file}");
        };
        check("temp1_input", Some(("temp", 1, "input")));
        check("temp12_crit_alarm", Some(("temp", 12, "crit_alarm")));
        check("temp1_auto_point1_pwm", Some(("temp", 1, "auto_point1_pwm")));
        check("pwm1", Some(("pwm", 1, "")));
        check("update_interval", Some(("update_interval", 0, "")));
        check("temp1input", None);
        check("temp1_", None);
        check("temp99999999999_input", None);
        check("name", None);
        check("uevent", None);
        check("", None);
    }

    #[test]
    fn measures_have_node_exporters_names_and_the_kernels_units() {
        let check = |file, name: &str, resolution| {
            let measure = measure(&Attribute::parse(file).unwrap(), false);
            assert_eq!((&*measure.name, measure.resolution), (name, resolution), "{file}");
        };
        check("temp1_input", "node_hwmon_temp_celsius", Resolution::MILLI);
        check("temp1_crit_alarm", "node_hwmon_temp_crit_alarm_celsius", Resolution::MILLI);
        check("temp1_alarm", "node_hwmon_temp_alarm", Resolution::ONE);
        check("temp1_type", "node_hwmon_temp_type", Resolution::ONE);
        check("in0_input", "node_hwmon_in_volts", Resolution::MILLI);
        check("cpu0_vid", "node_hwmon_cpu_vid_volts", Resolution::MILLI);
        check("fan1_input", "node_hwmon_fan_rpm", Resolution::ONE);
        check("fan1_beep", "node_hwmon_fan_beep_enabled", Resolution::ONE);
        check("fan1_div", "node_hwmon_fan_div", Resolution::ONE);
        check("pwm1", "node_hwmon_pwm", Resolution::ONE);
        check("curr1_max", "node_hwmon_curr_max_amps", Resolution::MILLI);
        check("power1_average", "node_hwmon_power_average_watt", Resolution::MICRO);
        check("power1_average_interval", "node_hwmon_power_average_interval_seconds", Resolution::MILLI);
        check("power1_accuracy", "node_hwmon_power_accuracy", Resolution::MICRO);
        check("energy1_input", "node_hwmon_energy_joule_total", Resolution::MICRO);
        check("humidity1_input", "node_hwmon_humidity", Resolution::MICRO);
        check("freq1_input", "node_hwmon_freq_freq_mhz", Resolution::MICRO);
        check("intrusion0_alarm", "node_hwmon_intrusion_alarm", Resolution::ONE);
        check("beep_enable", "node_hwmon_beep_enabled", Resolution::ONE);
        assert_eq!(measure(&Attribute::parse("fan1_input").unwrap(), true).name, "node_hwmon_fan_input_rpm");
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_read_without_a_panic(file in ".*|(temp|in|fan)[0-9]{0,12}_?.{0,9}") {
            if let Some(attribute) = Attribute::parse(&file) {
                let name = measure(&attribute, false).name;
                proptest::prop_assert!(belfry_common::model::check_metric_name(&name).is_ok() || name.len() > 200);
            }
        }
    }
}
