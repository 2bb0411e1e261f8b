//! What a card does: read each second.

use belfry_common::model::Reason;

use super::{
    super::series::{Series as _, within},
    Metrics,
    card::{Card, Place},
};
use crate::readings::Readings;

/// 16 TiB: no card has as much.
const MEMORY_MAX: u64 = 1 << 44;
/// Hz
const CLOCK_MAX: u64 = 10_000_000_000;

/// Words for the clocks, and their files.
const CLOCKS: [(&str, &str); 2] = [("graphics", "freq1_input"), ("memory", "freq2_input")];

/// Reads one card.
pub(super) fn read(card: &mut Card, metrics: &Metrics, out: &mut Readings) {
    if let Some(percent) = card.count_of("gpu_busy_percent") {
        card.percent(out, &metrics.work.utilization, &[], percent.map(|percent| percent as f64));
    }
    if let Some(percent) = card.count_of("mem_busy_percent") {
        card.percent(out, &metrics.work.memory_copy, &[], percent.map(|percent| percent as f64));
    }
    memory(card, metrics, out);
    temperatures(card, metrics, out);
    // Which of the two a card has depends on its generation.
    if let Some(microwatts) = card.sensor_number("power1_average").or_else(|| card.sensor_number("power1_input")) {
        let microwatts = within(microwatts, &card.power_range());
        card.scaled(out, &metrics.power.power, &[], microwatts.map(|microwatts| microwatts as f64), 1e6);
    }
    if let Some(microjoules) = card.sensor_number("energy1_input") {
        card.count(out, &metrics.power.energy, &[], microjoules.map(|microjoules| microjoules / 1000));
    }
    for (name, file) in CLOCKS {
        if let Some(hertz) = card.sensor_number(file) {
            card.count(out, &metrics.power.clock, &[name], within(hertz, &(0..=CLOCK_MAX)));
        }
    }
    if let Some(replays) = card.count_of("pcie_replay_count") {
        card.count(out, &metrics.links.pcie_replays, &[], replays);
    }
    // Last, for now it is known.
    card.count(out, &metrics.identity.up, &[], Ok(u64::from(card.answers())));
}

/// No part of the memory is more than the whole. A processor with graphics has none of its own.
fn memory(card: &mut Card, metrics: &Metrics, out: &mut Readings) {
    let Some(total) = card.count_of("mem_info_vram_total").filter(|total| *total != Ok(0)) else { return };
    let Some(used) = card.count_of("mem_info_vram_used") else { return };
    let total = within(total, &(1..=MEMORY_MAX));
    let used = total.and_then(|total| within(used, &(0..=total)));
    let free = total.and_then(|total| Ok(total - used?));
    for (metric, bytes) in
        [(&metrics.work.memory_used, used), (&metrics.work.memory_free, free), (&metrics.work.memory_total, total)]
    {
        card.count(out, metric, &["", ""], bytes);
    }
}

/// Each sensor under its own name. What the others' `gpu` is, the card's one temperature, is here the hottest place of the die: it is
/// what the card slows down by. Where that is not measured it is the edge.
fn temperatures(card: &mut Card, metrics: &Metrics, out: &mut Readings) {
    let sensors = std::mem::take(&mut card.sensors);
    let mut hottest: Option<(Place, Result<i64, Reason>)> = None;
    for sensor in &sensors {
        let Some(millicelsius) = card.temperature(&sensor.input) else { continue };
        let millicelsius = within(millicelsius, &sensor.range());
        put(card, metrics, sensor.place.as_str(), millicelsius, out);
        match sensor.place {
            Place::Junction => hottest = Some((Place::Junction, millicelsius)),
            Place::Edge => hottest = hottest.or(Some((Place::Edge, millicelsius))),
            Place::Memory => {}
        }
    }
    card.sensors = sensors;
    if let Some((_, millicelsius)) = hottest {
        put(card, metrics, "gpu", millicelsius, out);
    }
}

fn put(card: &Card, metrics: &Metrics, sensor: &str, millicelsius: Result<i64, Reason>, out: &mut Readings) {
    let millicelsius = millicelsius.map(|millicelsius| millicelsius as f64);
    card.scaled(out, &metrics.power.temperature, &[sensor], millicelsius, 1000.0);
}
