//! A connection's worth of bodies through one decoder. What is decoded is encoded again and must decode to the same.
//!
//! Input: bodies, each behind its length as u16 LE.
#![no_main]

use belfry_common::{
    model::{Batch, Raw},
    wire::codec::{Decoder, Encoder},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (mut decoder, mut encoder, mut second) = (Decoder::new(), Encoder::new(), Decoder::new());
    let mut rest = data;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (body, after) = after.split_at(usize::from(u16::from_le_bytes(*length)).min(after.len()));
        rest = after;
        let Ok(batch) = decoder.decode(body) else { continue };
        let mut again = Vec::new();
        encoder.encode(&batch, &mut again).expect("a decoded batch does not contradict itself");
        let decoded = second.decode(&again).expect("an encoded batch can be decoded");
        assert_eq!(meaning(&decoded), meaning(&batch));
    }
});

/// A batch with every reason for a missing reading as this version understands it.
fn meaning(batch: &Batch) -> Batch {
    let mut batch = batch.clone();
    for value in batch.ticks.iter_mut().flat_map(|tick| &mut tick.values) {
        *value = value.reason().map_or(*value, Raw::missing);
    }
    batch
}
