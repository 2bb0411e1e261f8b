//! Format 1 stays readable for ever.

use super::*;
use crate::journal::format::{Seed, SegmentHeader, encode_record};

/// Written down once, and checked with an implementation in another language from the documentation alone.
const GOLDEN: &[u8] = include_bytes!("segment-1.journal");

fn segment() -> (Vec<u8>, Seed) {
    SegmentHeader { number: 0x0102_0304, previous_end: 0x0506_0708, salt: 0x090a_0b0c }.encode()
}

#[test]
fn the_bytes_are_as_they_were() {
    let (mut bytes, seed) = segment();
    encode_record(&mut bytes, seed, 32, 32, b"first");
    encode_record(&mut bytes, seed, 53, 32, b"second record");
    encode_record(&mut bytes, seed, 82, 82, &[0]);
    bytes.extend_from_slice(&[0; 21]);
    assert_eq!(bytes, GOLDEN);
}

#[test]
fn the_bytes_are_read_as_they_were_meant() {
    let disk = Simulated::new(1);
    disk.put("0000000001020304.journal", GOLDEN);
    let (journal, recovery) = open(&disk, SMALL).unwrap();
    assert_eq!((recovery.is_clean(), recovery.records), (true, 3));
    let at = |offset| Position { segment: 0x0102_0304, offset };
    let expected = [(at(32), &b"first"[..]), (at(53), b"second record"), (at(82), &[0])];
    assert_eq!(read_all(&journal), expected.map(|(position, payload)| (position, payload.to_vec())));
    assert_eq!(journal.end(), at(99));
}
