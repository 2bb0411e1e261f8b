//! Frames from any bytes, as they are and with a header that fits them: a checksum alone would keep the fuzzer out.
#![no_main]

use belfry_common::wire::frame::{HEADER_BYTES, Header, Kind, seal};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    open(data);
    if let Some((&[kind, is_packed], payload)) = data.split_first_chunk() {
        open(&forged(kind, is_packed & 1 == 1, payload));
        let mut sealed = Vec::new();
        seal(Kind::Batches, payload, &mut sealed);
        assert_eq!(open(&sealed).as_deref(), Some(payload));
    }
});

fn open(bytes: &[u8]) -> Option<Vec<u8>> {
    let (head, payload) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    Header::parse(head).ok()?.open(payload.to_vec()).ok()
}

/// A frame with the right magic, version, length and checksum around any payload.
fn forged(kind: u8, is_packed: bool, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32 | if is_packed { 1 << 31 } else { 0 };
    let mut frame = vec![0xBF, 0x59, 1, kind];
    frame.extend_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&frame), payload);
    frame.extend_from_slice(&checksum.to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}
