//! Quantities as people read them: two or three digits and a unit. Scripts get base units, elsewhere.
//!
//! Memory counts in powers of 1024 and says so (GiB), as everything does that people compare it with; rates and watts in powers of
//! 1000. What is missing is `–`, never 0.

use belfry_common::model::Timestamp;

/// What stands where there is no value.
pub(crate) const MISSING: &str = "–";

const BINARY: (f64, [&str; 7]) = (1024.0, ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]);
const DECIMAL: (f64, [&str; 7]) = (1000.0, ["", "k", "M", "G", "T", "P", "E"]);

/// `1.5 GiB`
pub(crate) fn bytes(value: f64) -> String {
    let (divisor, unit) = scale(value, BINARY);
    format!("{} {unit}", digits(value / divisor))
}

/// `0.9/2.0 TiB`, both in the unit of the second.
pub(crate) fn bytes_of(used: f64, total: f64) -> String {
    let (divisor, unit) = scale(total, BINARY);
    format!("{}/{} {unit}", digits(used / divisor), digits(total / divisor))
}

/// `4.4 kW`: powers of 1000 before a unit.
pub(crate) fn decimal(value: f64, unit: &str) -> String {
    let (divisor, prefix) = scale(value, DECIMAL);
    let gap = if prefix.is_empty() && unit.is_empty() { "" } else { " " };
    format!("{}{gap}{prefix}{unit}", digits(value / divisor))
}

/// `1.2/3.4 GB/s`, both in the unit of the larger.
pub(crate) fn rates(receive: f64, transmit: f64) -> String {
    let (divisor, prefix) = scale(receive.abs().max(transmit.abs()), DECIMAL);
    format!("{}/{} {prefix}B/s", digits(receive / divisor), digits(transmit / divisor))
}

/// `31%`. Nothing that is above zero looks like nothing, and nothing below one like all.
pub(crate) fn percent(ratio: f64) -> String {
    match ratio * 100.0 {
        percent if percent > 0.0 && percent < 0.5 => "<1%".to_string(),
        percent if (99.5..100.0).contains(&percent) => "99%".to_string(),
        percent => format!("{percent:.0}%"),
    }
}

/// `71°C`
pub(crate) fn celsius(value: f64) -> String {
    format!("{value:.0}°C")
}

/// `8s`, `12m`, `3h`, `5d`: the largest unit alone, rounded down.
pub(crate) fn age(millis: i64) -> String {
    let seconds = millis.max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A number without a unit: enough digits to tell changes, no more than people read.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "NaN".to_string(),
        _ if value.is_infinite() => if value > 0.0 { "+Inf" } else { "-Inf" }.to_string(),
        0.0 => "0".to_string(),
        size if !(1e-4..1e15).contains(&size) => format!("{value:.3e}"),
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 1000.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

/// A sample's value, in the unit that its metric's name ends with.
pub(crate) fn of_metric(metric: &str, value: f64) -> String {
    let name = metric.strip_suffix("_total").unwrap_or(metric);
    let unit = name.rsplit('_').next().unwrap_or_default();
    match unit {
        _ if !value.is_finite() => number(value),
        "bytes" => bytes(value),
        "ratio" => format!("{:.1}%", value * 100.0),
        "celsius" => format!("{value:.1} °C"),
        "seconds" if name.ends_with("_timestamp_seconds") || name.ends_with("_boot_time_seconds") => {
            short_time(Timestamp::from_millis((value * 1000.0) as i64))
        }
        "seconds" if value != 0.0 && value.abs() < 1.0 => decimal_small(value, "s"),
        "seconds" => format!("{} s", number(value)),
        "watts" => decimal(value, "W"),
        "volts" => format!("{} V", number(value)),
        "amps" => format!("{} A", number(value)),
        "joules" => decimal(value, "J"),
        "hertz" => decimal(value, "Hz"),
        "rpm" => format!("{value:.0} rpm"),
        _ => number(value),
    }
}

/// `2026-11-23 14:03:27Z`, to the second.
pub(crate) fn short_time(time: Timestamp) -> String {
    let text = crate::api::time(time);
    let second = text.split('.').next().unwrap_or_default();
    format!("{}Z", second.replace('T', " "))
}

/// `14:03:27Z`, of a time in the form of the contract.
pub(crate) fn clock(time: &str) -> String {
    let time = time.split_once('T').map_or(time, |(_, clock)| clock);
    format!("{}Z", time.split(['.', 'Z']).next().unwrap_or_default())
}

/// A time in the form of the contract.
pub(crate) fn parse_time(text: &str) -> Option<Timestamp> {
    let since = humantime::parse_rfc3339(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(Timestamp::from_millis)
}

/// How long ago a time of the contract was.
pub(crate) fn age_of(time: &str, now: Timestamp) -> Option<String> {
    Some(age(now.millis_since(parse_time(time)?)))
}

/// `1 node`, `2 nodes`
pub(crate) fn count(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The step of a scale that leaves two or three digits before the point.
fn scale(value: f64, (step, units): (f64, [&'static str; 7])) -> (f64, &'static str) {
    let mut divisor = 1.0;
    let [first, larger @ ..] = units;
    let mut unit = first;
    for next in larger {
        // Where rounding would show 1000, the next unit is meant. Memory turns over early: 0.9 TiB reads better than 922 GiB.
        if !value.is_finite() || value.abs() / divisor < 999.5 {
            break;
        }
        divisor *= step;
        unit = next;
    }
    (divisor, unit)
}

fn decimal_small(value: f64, unit: &str) -> String {
    let steps = [(1e-3, "m"), (1e-6, "µ"), (1e-9, "n")];
    let (divisor, prefix) = steps.into_iter().find(|(divisor, _)| value.abs() >= *divisor).unwrap_or((1e-9, "n"));
    format!("{} {prefix}{unit}", digits(value / divisor))
}

/// One digit behind the point below ten, none above.
fn digits(value: f64) -> String {
    if value.abs() < 9.95 && value != 0.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_counts_in_powers_of_1024() {
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(1023.0), "1.0 KiB");
        assert_eq!(bytes(1536.0 * 1024.0), "1.5 MiB");
        assert_eq!(bytes(f64::from(1 << 30) * 81.0), "81 GiB");
        assert_eq!(bytes_of(0.9e12, 2.2e12), "0.8/2.0 TiB");
        assert_eq!(bytes_of(0.0, 1.0e9), "0/954 MiB");
    }

    #[test]
    fn rates_share_a_unit() {
        assert_eq!(rates(1.2e9, 3.4e9), "1.2/3.4 GB/s");
        assert_eq!(rates(0.0, 950.0), "0/950 B/s");
        assert_eq!(rates(12.0, 48_000.0), "0.0/48 kB/s");
        assert_eq!(decimal(4400.0, "W"), "4.4 kW");
        assert_eq!(decimal(640.0, "W"), "640 W");
    }

    #[test]
    fn a_percentage_does_not_hide_the_first_and_last_bit() {
        let shown = [0.0, 0.001, 0.31, 0.996, 1.0].map(percent);
        assert_eq!(shown, ["0%", "<1%", "31%", "99%", "100%"]);
    }

    #[test]
    fn ages_are_short() {
        assert_eq!(
            [0, 8_400, 119_000, 120_000, 7_300_000, 900_000_000].map(age),
            ["0s", "8s", "119s", "2m", "2h", "10d"]
        );
        assert_eq!(age(-5_000), "0s", "clocks differ a little");
    }

    #[test]
    fn numbers_keep_what_changes() {
        let shown = [0.0, 1.0, 0.25, 12.5, 1234.56, 1e18, 1e-9, f64::NAN, f64::NEG_INFINITY].map(number);
        assert_eq!(shown, ["0", "1", "0.2500", "12.500", "1234.6", "1.000e18", "1.000e-9", "NaN", "-Inf"]);
    }

    #[test]
    fn the_name_of_a_metric_tells_its_unit() {
        let check = |metric, value, expected: &str| assert_eq!(of_metric(metric, value), expected, "{metric}");
        check("node_memory_MemTotal_bytes", 1_073_741_824.0, "1.0 GiB");
        check("node_network_receive_bytes_total", 2048.0, "2.0 KiB");
        check("gpu_utilization_ratio", 0.961, "96.1%");
        check("gpu_temperature_celsius", 71.0, "71.0 °C");
        check("gpu_power_watts", 698.0, "698 W");
        check("node_cpu_seconds_total", 12_345.67, "12345.7 s");
        check("node_disk_read_time_seconds", 0.0042, "4.2 ms");
        check("node_boot_time_seconds", 1_700_000_000.0, "2023-11-14 22:13:20Z");
        check("node_load1", 0.42, "0.4200");
        check("gpu_memory_used_bytes", f64::NAN, "NaN");
    }

    #[test]
    fn times_are_those_of_the_contract() {
        let time = parse_time("2023-11-14T22:13:20.500Z").unwrap();
        assert_eq!(time.as_millis(), 1_700_000_000_500);
        assert_eq!(clock("2023-11-14T22:13:20.500Z"), "22:13:20Z");
        assert_eq!(age_of("2023-11-14T22:13:20.500Z", time.plus_millis(9_000)).as_deref(), Some("9s"));
        assert_eq!(age_of("yesterday", time), None);
    }
}
