//! How a card is: limits, fans, link and memory errors. Read every ten seconds.

use belfry_common::model::Reason;

use super::{
    super::series::{Series as _, within},
    Metrics,
    card::{Card, unsigned},
    link,
};
use crate::readings::Readings;

/// µW
pub(super) const POWER_LIMIT_MAX: u64 = 3_000_000_000;

/// The driver's words for errors, and ours. A deferred one is known to have damaged data that nobody has used yet.
const ERRORS: [(&str, &str); 3] = [("ce", "corrected"), ("ue", "uncorrected"), ("de", "deferred")];

/// Reads one card.
pub(super) fn read(card: &mut Card, metrics: &Metrics, out: &mut Readings) {
    power_limit(card, metrics, "enforced", "power1_cap", out);
    fan(card, metrics, out);
    link::read(card, metrics, out);
    errors(card, metrics, out);
    if !card.is_asleep() {
        card.count(out, &metrics.identity.unsupported, &[], Ok(card.unsupported() as u64));
    }
}

/// Reads a limit of its power.
pub(super) fn power_limit(card: &mut Card, metrics: &Metrics, limit: &str, file: &str, out: &mut Readings) {
    if let Some(microwatts) = card.sensor_number(file) {
        let microwatts = within(microwatts, &(0..=POWER_LIMIT_MAX));
        card.count(out, &metrics.power.power_limit, &[limit], microwatts.map(|microwatts| microwatts / 1000));
    }
}

/// A card has one fan, or several that turn alike. By its speed if that can be compared with the highest, else by what drives it.
fn fan(card: &mut Card, metrics: &Metrics, out: &mut Readings) {
    let Some(percent) = share(card, "fan1_input", "fan1_max").or_else(|| share(card, "pwm1", "pwm1_max")) else {
        return;
    };
    // A fan can be told to run faster than its rated speed.
    card.scaled(out, &metrics.power.fan_speed, &["0"], within(percent, &(0.0..=200.0)), 100.0);
}

/// Percent
fn share(card: &mut Card, file: &str, max_file: &str) -> Option<Result<f64, Reason>> {
    let max = card.sensor_number(max_file).filter(|max| *max != Ok(0))?;
    let value = card.sensor_number(file)?;
    Some(max.and_then(|max| Ok(100.0 * value? as f64 / max as f64)))
}

fn errors(card: &mut Card, metrics: &Metrics, out: &mut Readings) {
    let blocks = std::mem::take(&mut card.blocks);
    for block in &blocks {
        let Some(text) = card.text(&format!("ras/{block}_err_count")) else { continue };
        for (word, kind) in ERRORS {
            let count = text.as_ref().map_err(|reason| *reason).and_then(|text| count_of(text, word));
            // Few cards tell deferred ones; the two others are there whenever the file is.
            if kind == "deferred" && count.is_err() {
                continue;
            }
            card.count(out, &metrics.errors.ecc_errors, &[kind, "volatile", block], count);
        }
    }
    card.blocks = blocks;
}

/// The count in the line `ue: 5`. While the card resets itself there is a sentence instead.
fn count_of(text: &str, word: &str) -> Result<u64, Reason> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, count) = lines.find(|(name, _)| name.trim() == word).ok_or(Reason::Error)?;
    unsigned(count.trim())
}
