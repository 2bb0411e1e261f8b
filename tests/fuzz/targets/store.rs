//! The collector's store over a journal of any records: it opens, and what it holds can be read.
//!
//! Input: records, each behind its length as u16 LE.
#![no_main]

use belfry_common::{
    journal::{Journal, Options},
    model::Timestamp,
};
use belfry_store::{HeadOptions, Store, StoreOptions};
use libfuzzer_sys::fuzz_target;

/// Small: each run reserves a segment.
const SEGMENT_BYTES: u32 = 128 * 1024;
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fuzz_target!(|data: &[u8]| {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("journal");
    std::fs::create_dir(&path).expect("a directory");
    let (mut journal, _) =
        Journal::open(&path, Options { segment_bytes: SEGMENT_BYTES, preallocate: false, ..Options::default() })
            .expect("a journal");
    let mut rest = data;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (record, after) = after.split_at(usize::from(u16::from_le_bytes(*length)).min(after.len()));
        rest = after;
        if !record.is_empty() {
            journal.append(record).expect("a sound disk");
        }
    }
    journal.flush().expect("a sound disk");
    drop(journal);
    let options = StoreOptions {
        head: HeadOptions { bytes_max: 1 << 20, ..HeadOptions::default() },
        segment_bytes: SEGMENT_BYTES,
        ..StoreOptions::default()
    };
    let (mut store, _) = Store::open(directory.path(), options, NOW).expect("a store always opens");
    store.commit().expect("a sound disk");
    store.cut(NOW).expect("a sound disk");
});
