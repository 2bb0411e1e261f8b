//! What a card is, and what it can be at most. Read once a minute.

use std::path::Path;

use belfry_common::model::Reason;

use super::{
    super::series::{Series as _, within},
    Metrics,
    card::{Card, Place},
    condition::power_limit,
    find::DRIVER,
};
use crate::{readings::Readings, samplers::attribute};

/// MHz
const CLOCK_MAX: u64 = 10_000;

const LIMITS: [(&str, &str); 3] =
    [("default", "power1_cap_default"), ("min", "power1_cap_min"), ("max", "power1_cap_max")];
const CLOCKS: [(&str, &str); 2] = [("graphics", "pp_dpm_sclk"), ("memory", "pp_dpm_mclk")];

/// Says the driver's version. The one that comes with the kernel has none of its own.
pub(super) fn driver(sys: &Path, metrics: &Metrics, out: &mut Readings) -> String {
    let version = attribute(&sys.join("module").join(DRIVER).join("version")).unwrap_or_default();
    if !version.is_empty() {
        out.integer(&metrics.identity.driver_info, &["amd", &version, "", ""], 1);
    }
    version
}

/// Reads one card.
pub(super) fn read(card: &mut Card, driver_version: &str, metrics: &Metrics, out: &mut Readings) {
    // Limits can be raised, and parts come with a reset.
    card.discover();
    info(card, driver_version, metrics, out);
    thresholds(card, metrics, out);
    for (limit, file) in LIMITS {
        power_limit(card, metrics, limit, file, out);
    }
    for (name, file) in CLOCKS {
        if let Some(table) = card.text(file) {
            let megahertz = within(table.and_then(|table| highest(&table)), &(0..=CLOCK_MAX));
            let hertz = megahertz.map(|megahertz| megahertz * 1_000_000);
            card.count(out, &metrics.power.clock_max, &[name], hertz);
        }
    }
}

/// Facts that the card does not have are empty labels, which are none.
fn info(card: &mut Card, driver_version: &str, metrics: &Metrics, out: &mut Readings) {
    let mut text = |file| card.text(file).and_then(Result::ok).unwrap_or_default();
    let (name, part_number, serial) = (text("product_name"), text("product_number"), text("serial_number"));
    let vbios = text("vbios_version");
    if card.is_asleep() || card.is_lost() {
        // Half of the facts would be another series.
        return;
    }
    let model = if name.is_empty() { ids(card) } else { name };
    let [index, uuid] = card.names();
    let labels =
        [index, uuid, &card.name, &model, &card.address, &serial, &part_number, &vbios, "", driver_version, ""];
    out.integer(&metrics.identity.info, &labels, 1);
}

/// `1002:73bf`: the only name of a card whose maker did not write one into it.
fn ids(card: &Card) -> String {
    let id = |file| card.glance(file).unwrap_or_default().trim_start_matches("0x").to_owned();
    format!("{}:{}", id("vendor"), id("device"))
}

/// Under the names that NVIDIA's have, where they mean the same: at `slowdown` and `memory_max` the card lowers its clocks, at the
/// others it shuts down.
fn thresholds(card: &mut Card, metrics: &Metrics, out: &mut Readings) {
    let sensors = std::mem::take(&mut card.sensors);
    let has_junction = sensors.iter().any(|sensor| sensor.place == Place::Junction);
    for sensor in &sensors {
        let [slowdown, shutdown] = match sensor.place {
            Place::Junction => ["slowdown", "shutdown"],
            Place::Edge if has_junction => ["edge_slowdown", "edge_shutdown"],
            Place::Edge => ["slowdown", "shutdown"],
            Place::Memory => ["memory_max", "memory_shutdown"],
        };
        for (threshold, file) in [(slowdown, &sensor.critical), (shutdown, &sensor.emergency)] {
            // 0 is what the driver writes where the card has told it nothing.
            let Some(millicelsius) = card.temperature(file).filter(|told| *told != Ok(0)) else { continue };
            let millicelsius = within(millicelsius, &(1000..=200_000)).map(|millicelsius| millicelsius as f64);
            card.scaled(out, &metrics.power.temperature_threshold, &[threshold], millicelsius, 1000.0);
        }
    }
    card.sensors = sensors;
}

/// The highest clock of a table of lines `1: 2100Mhz *`.
fn highest(table: &str) -> Result<u64, Reason> {
    let clock = |line: &str| {
        let (_, clock) = line.split_once(':')?;
        let digits = clock.trim_start().split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<u64>().ok()
    };
    table.lines().filter_map(clock).max().ok_or(Reason::Error)
}
