//! A column at rest from any bytes; what is read is written again and must read the same.
//!
//! Input: number of readings u8, resolution u8, the column.
#![no_main]

use belfry_common::{
    model::{Raw, Resolution},
    wire::codec::column::{Column, encode},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&[count, resolution], bytes)) = data.split_first_chunk() else { return };
    let resolution = if resolution == 255 { Resolution::Float } else { Resolution::Decimal(resolution % 10) };
    let readings = read(resolution, bytes, count.into());
    let mut written = Vec::new();
    encode(resolution, &readings, &mut written);
    assert_eq!(read(resolution, &written, readings.len()), readings);
});

fn read(resolution: Resolution, bytes: &[u8], count: usize) -> Vec<Raw> {
    let Ok(mut column) = Column::new(resolution, bytes) else { return Vec::new() };
    let readings = std::iter::from_fn(|| column.next_reading().ok());
    readings.take(count).map(|raw| raw.reason().map_or(raw, Raw::missing)).collect()
}
