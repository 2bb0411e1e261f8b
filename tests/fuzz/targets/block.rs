//! A block of any bytes, with no checksum in their way: it is counted, verified, queried and merged, or moved aside, and nothing panics.
//!
//! Input: the file. The checksums of its two ends are put right; those within are not looked at in a fuzzer's build.
#![no_main]

use std::{fs, ops::ControlFlow, path::Path, sync::Arc};

use belfry_common::model::{SeriesDefinition, Timestamp};
use belfry_store::{
    Aggregate, BlockError, CompactOptions, Grain, Keys, MaintainOptions, NodeId, ReadLimits, Sample, Selected,
    Selection, Store, StoreFiles, StoreOptions, Tier, TimeRange,
};
use libfuzzer_sys::fuzz_target;

const HEADER_BYTES: usize = 64;
const TRAILER_BYTES: usize = 40;
/// A byte can stand for some thousand samples.
const BYTES_MAX: usize = 8192;
const NODES: u32 = 16;

fuzz_target!(|data: &[u8]| {
    if data.len() > BYTES_MAX {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("blocks");
    fs::create_dir(&path).expect("a directory");
    let mut bytes = data.to_vec();
    seal(&mut bytes);
    let put = || fs::write(path.join("0000000000000001.block"), &bytes).expect("a sound disk");
    put();
    count(directory.path());
    query(directory.path());
    // The query may have moved it aside.
    put();
    merge(directory.path());
});

/// Puts the checksums of header and trailer right.
fn seal(bytes: &mut [u8]) {
    if let Some(trailer_at) = bytes.len().checked_sub(TRAILER_BYTES).filter(|&at| at >= HEADER_BYTES) {
        let (rest, trailer) = bytes.split_at_mut(trailer_at);
        put_crc(trailer, 32);
        put_crc(rest, HEADER_BYTES - 4);
    }
}

/// Writes the checksum of all before `at` there.
fn put_crc(bytes: &mut [u8], at: usize) {
    let (body, rest) = bytes.split_at_mut(at);
    if let Some(crc) = rest.first_chunk_mut::<4>() {
        *crc = crc32c::crc32c(body).to_le_bytes();
    }
}

fn count(directory: &Path) {
    let files = match StoreFiles::open(directory, &Keys::default()) {
        Err(BlockError::Key { .. }) => return,
        files => files.expect("a sound disk"),
    };
    let is_damage = |error: &BlockError| matches!(error, BlockError::Damaged { .. } | BlockError::Version { .. });
    let counted = files.metrics().map(drop).and(files.nodes().map(drop));
    assert!(counted.as_ref().err().is_none_or(is_damage), "{counted:?}");
    let damaged = files.verify(&|_| Ok(())).expect("nobody breaks it off");
    assert!(damaged.iter().all(|(_, error)| is_damage(error)), "{damaged:?}");
}

fn open(directory: &Path) -> Option<Store> {
    let compact = CompactOptions { grace_ms: 0, quiet_ms: 0, ..CompactOptions::default() };
    let maintain = MaintainOptions { compact, merge_bytes_per_second: u64::MAX, ..MaintainOptions::default() };
    let options = StoreOptions { maintain, segment_bytes: 128 * 1024, ..StoreOptions::default() };
    // A newer version of the format, or another key, is all that it may refuse.
    Store::open(directory, options, Timestamp::from_millis(1_800_000_000_000)).ok().map(|(store, _)| store)
}

fn query(directory: &Path) {
    let Some(store) = open(directory) else { return };
    let [after, until] = [i64::MIN, i64::MAX].map(Timestamp::from_millis);
    let nodes: Vec<NodeId> = (0..NODES).map(NodeId).collect();
    for grain in [Grain::Raw, Grain::Rows(Tier::Minute, Aggregate::Sum), Grain::Rows(Tier::Hour, Aggregate::Count)] {
        let range = TimeRange { after, until };
        let selection = Selection { range, grain, ..Selection::ALL };
        let mut visitor = |_, _: &Arc<SeriesDefinition>, samples: &[Sample]| {
            assert!(samples.is_sorted_by(|a, b| a.time < b.time));
            ControlFlow::Continue(())
        };
        let limits = ReadLimits { series: 10_000, samples: 1_000_000, bytes: 1 << 20, threads: 2 };
        drop(store.reader().visit(&nodes, &selection, limits, &mut Selected::default(), &mut visitor));
    }
}

fn merge(directory: &Path) {
    let Some(store) = open(directory) else { return };
    let maintainer = store.maintainer();
    let now = Timestamp::from_millis(i64::MAX / 2);
    for _ in 0..4 {
        match maintainer.compact(now) {
            Ok(_) => {}
            Err(error) => panic!("damage costs its block alone: {error}"),
        }
    }
}
