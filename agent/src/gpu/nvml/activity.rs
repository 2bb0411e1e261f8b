//! What a GPU does: read each second, from calls that are cheap.

use belfry_common::model::Reason;

use super::{
    gpu::{Asked, CLOCKS, Gpu, Series as _, within},
    instances,
    library::{Activity, ClockEvents, Field, FieldValue, Memory},
    metrics::Metrics,
};
use crate::readings::Readings;

/// MHz
const CLOCK_MAX: u64 = 10_000;

/// Reads one GPU.
pub(super) fn read(gpu: &mut Gpu, metrics: &Metrics, out: &mut Readings) {
    utilization(gpu, metrics, out);
    if !instances::activity(gpu, metrics, out) {
        let memory = gpu.ask(Asked::Call("memory"), |device| device.memory());
        memory_of(gpu, metrics, ["", ""], memory, out);
        units(gpu, metrics, out);
    }
    let temperature = gpu.ask(Asked::Call("temperature"), |device| device.temperature());
    if let Some(celsius) = temperature {
        gpu.temperature(out, metrics, "gpu", celsius.map(i64::from));
    }
    if let Some(margin) = gpu.ask(Asked::Call("temperature_margin"), |device| device.temperature_margin()) {
        let margin = within(margin.map(f64::from), &(-200.0..=200.0));
        gpu.scaled(out, &metrics.power.temperature_margin, &[], margin, 1.0);
    }
    if let Some(milliwatts) = gpu.ask(Asked::Call("power"), |device| device.power()) {
        gpu.power(out, &metrics.power.power, milliwatts.map(u64::from));
    }
    if let Some(millijoules) = gpu.ask(Asked::Call("energy"), |device| device.energy()) {
        gpu.count(out, &metrics.power.energy, &[], millijoules);
    }
    clocks(gpu, metrics, out);
    if let Some(state) = gpu.ask(Asked::Call("performance_state"), |device| device.performance_state()) {
        gpu.count(out, &metrics.power.performance_state, &[], within(state.map(u64::from), &(0..=15)));
    }
    if let Some(replays) = gpu.ask(Asked::Call("pcie_replays"), |device| device.pcie_replays()) {
        gpu.count(out, &metrics.links.pcie_replays, &[], replays.map(u64::from));
    }
    fields(gpu, metrics, out);
    // Last, for now it is known.
    gpu.count(out, &metrics.identity.up, &[], Ok(u64::from(gpu.answers())));
}

fn utilization(gpu: &mut Gpu, metrics: &Metrics, out: &mut Readings) {
    if let Some(rates) = gpu.ask(Asked::Call("utilization"), |device| device.utilization()) {
        gpu.percent(out, &metrics.work.utilization, &[], rates.map(|(gpu, _)| gpu.into()));
        gpu.percent(out, &metrics.work.memory_copy, &[], rates.map(|(_, memory)| memory.into()));
    }
    if let Some(percent) = gpu.ask(Asked::Call("encoder"), |device| device.encoder_utilization()) {
        gpu.percent(out, &metrics.work.encoder, &[], percent.map(f64::from));
    }
    if let Some(percent) = gpu.ask(Asked::Call("decoder"), |device| device.decoder_utilization()) {
        gpu.percent(out, &metrics.work.decoder, &[], percent.map(f64::from));
    }
    if let Some(percent) = gpu.ask(Asked::Call("jpeg"), |device| device.jpeg_utilization()) {
        gpu.percent(out, &metrics.work.jpeg, &[], percent.map(f64::from));
    }
    if let Some(percent) = gpu.ask(Asked::Call("ofa"), |device| device.ofa_utilization()) {
        gpu.percent(out, &metrics.work.ofa, &[], percent.map(f64::from));
    }
}

/// The memory of a GPU, or of one of its instances. No part of it is more than the whole.
pub(super) fn memory_of(
    gpu: &Gpu,
    metrics: &Metrics,
    instance: [&str; 2],
    memory: Option<Result<Memory, Reason>>,
    out: &mut Readings,
) {
    let Some(memory) = memory else { return };
    // 16 TiB: no GPU has as much.
    let total = within(memory.map(|memory| memory.total), &(1..=1 << 44));
    let part = |part: fn(&Memory) -> u64| {
        let whole = total?;
        within(memory.map(|memory| part(&memory)), &(0..=whole))
    };
    gpu.count(out, &metrics.work.memory_used, &instance, part(|memory| memory.used));
    gpu.count(out, &metrics.work.memory_free, &instance, part(|memory| memory.free));
    if memory.is_ok_and(|memory| memory.reserved.is_some()) {
        gpu.count(out, &metrics.work.memory_reserved, &instance, part(|memory| memory.reserved.unwrap_or_default()));
    }
    gpu.count(out, &metrics.work.memory_total, &instance, total);
}

/// The units within a GPU, where it can tell them apart.
fn units(gpu: &mut Gpu, metrics: &Metrics, out: &mut Readings) {
    let Some(mut gpm) = gpu.gpm.take() else { return };
    if let Some(read) = gpu.ask(Asked::Call("gpm"), |device| gpm.read(device, None)) {
        activity_of(gpu, metrics, ["", ""], read, out);
    }
    gpu.gpm = Some(gpm);
}

/// The activity of a GPU, or of one of its instances.
pub(super) fn activity_of(
    gpu: &mut Gpu,
    metrics: &Metrics,
    instance: [&str; 2],
    read: Result<Option<Vec<Result<f64, Reason>>>, Reason>,
    out: &mut Readings,
) {
    let read = match read {
        // It takes two samples.
        Ok(None) => return,
        Ok(Some(values)) => values,
        Err(reason) => vec![Err(reason); Activity::ALL.len()],
    };
    for (activity, percent) in Activity::ALL.into_iter().zip(read) {
        let Some(metric) = metrics.activity.get(activity as usize) else { continue };
        if let Some(percent) = gpu.note(Asked::Of("activity", activity as u32), percent) {
            gpu.percent(out, metric, &instance, percent);
        }
    }
}

fn clocks(gpu: &mut Gpu, metrics: &Metrics, out: &mut Readings) {
    for (name, clock) in CLOCKS {
        if let Some(megahertz) = gpu.ask(Asked::Of("clock", clock as u32), |device| device.clock(clock)) {
            let megahertz = within(megahertz.map(u64::from), &(0..=CLOCK_MAX));
            gpu.count(out, &metrics.power.clock, &[name], megahertz.map(|megahertz| megahertz * 1_000_000));
        }
    }
    let Some(events) = gpu.ask(Asked::Call("clock_events"), |device| device.clock_events()) else { return };
    for (reason, bit) in ClockEvents::ALL {
        gpu.flag(out, &metrics.power.clock_event, &[reason], events.map(|events| events.has(bit)));
    }
}

/// What comes in one call of numbered fields.
fn fields(gpu: &mut Gpu, metrics: &Metrics, out: &mut Readings) {
    let wanted = [
        Field::MEMORY_TEMPERATURE,
        Field::POWER_INSTANT,
        Field::POWER_AVERAGE,
        Field::PCIE_TRANSMIT_BYTES,
        Field::PCIE_RECEIVE_BYTES,
    ];
    let wanted: Vec<Field> = wanted.into_iter().chain(Field::CLOCK_EVENT_TIMES.map(|(_, field)| field)).collect();
    read_fields(gpu, &wanted, |gpu, field, value| match field {
        Field::MEMORY_TEMPERATURE => {
            let celsius = value.map(|value| value.float().clamp(-1e6, 1e6) as i64);
            gpu.temperature(out, metrics, "memory", celsius);
        }
        Field::POWER_INSTANT => gpu.power(out, &metrics.power.power_instant, value.and_then(FieldValue::count)),
        Field::POWER_AVERAGE => gpu.power(out, &metrics.power.power_average, value.and_then(FieldValue::count)),
        Field::PCIE_TRANSMIT_BYTES => {
            gpu.count(out, &metrics.links.pcie_transmit, &[], value.and_then(FieldValue::count));
        }
        Field::PCIE_RECEIVE_BYTES => {
            gpu.count(out, &metrics.links.pcie_receive, &[], value.and_then(FieldValue::count));
        }
        field => {
            let reason = Field::CLOCK_EVENT_TIMES.iter().find(|(_, known)| *known == field);
            if let Some((reason, _)) = reason {
                gpu.count(out, &metrics.power.clock_event_seconds, &[reason], value.and_then(FieldValue::count));
            }
        }
    });
}

/// Asks for those of the fields that the GPU offers, in one call, and gives each to `take`.
pub(super) fn read_fields(
    gpu: &mut Gpu,
    fields: &[Field],
    mut take: impl FnMut(&Gpu, Field, Result<FieldValue, Reason>),
) {
    let offered: Vec<Field> = fields.iter().copied().filter(|field| gpu.offers(Asked::Field(*field))).collect();
    if offered.is_empty() {
        return;
    }
    let Some(values) = gpu.ask(Asked::Call("fields"), |device| device.fields(&offered)) else { return };
    let values = values.unwrap_or_else(|reason| vec![Err(reason); offered.len()]);
    for (field, value) in offered.into_iter().zip(values) {
        if let Some(value) = gpu.note(Asked::Field(field), value) {
            take(gpu, field, value);
        }
    }
}
