//! Every message type from any bytes: no panic, and what is read comes back the same when it is written and read again.
#![no_main]

use belfry_common::wire::message::{
    Ack, Backlog, Batches, CertificateRequest, Certified, Credit, Decoded, Definitions, Failure, Gaps, Goodbye,
    GpuEvent, GpuReadings, GpuReady, GpuRequest, Hello, Inventory, Message, Refused, Welcome, decode, encode,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 18 {
        0 => check::<Hello>(bytes),
        1 => check::<Welcome>(bytes),
        2 => batches(bytes),
        3 => check::<Ack>(bytes),
        4 => check::<Credit>(bytes),
        5 => check::<Gaps>(bytes),
        6 => check::<Refused>(bytes),
        7 => check::<Backlog>(bytes),
        8 => check::<CertificateRequest>(bytes),
        9 => check::<Certified>(bytes),
        10 => check::<Goodbye>(bytes),
        11 => check::<Failure>(bytes),
        12 => check::<Inventory>(bytes),
        13 => check::<GpuRequest>(bytes),
        14 => check::<GpuReady>(bytes),
        15 => readings(bytes),
        16 => check::<GpuEvent>(bytes),
        _ => check::<Definitions>(bytes),
    }
});

fn check<T: for<'a> Decoded<'a> + Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(message) = decode::<T>(bytes) else { return };
    let written = encode(&message);
    assert_eq!(decode::<T>(&written).expect("what was read can be written"), message);
}

/// As `check`, for a message that borrows; its runs and sums must not overflow either.
fn batches(bytes: &[u8]) {
    let Ok(message) = decode::<Batches<'_>>(bytes) else { return };
    let written = encode(&message);
    assert_eq!(decode::<Batches<'_>>(&written).expect("what was read can be written"), message);
}

/// As `check`, for the other message that borrows.
fn readings(bytes: &[u8]) {
    let Ok(message) = decode::<GpuReadings<'_>>(bytes) else { return };
    let written = encode(&message);
    assert_eq!(decode::<GpuReadings<'_>>(&written).expect("what was read can be written"), message);
}
