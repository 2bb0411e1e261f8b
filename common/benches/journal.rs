//! What a durable record costs, and how fast a journal is opened and read.
//!
//! `TMPDIR` says which file system is measured.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has nothing better to do")]

use std::hint::black_box;

use belfry_common::journal::{Journal, Options, Position};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const RECORD_BYTES: usize = 2048;
const GROUP: u64 = 64;
const SCANNED_BYTES: u64 = 256 * 1024 * 1024;

fn append(journal: &mut Journal, payload: &[u8]) {
    if journal.wants_roll(payload.len()) {
        journal.roll().unwrap();
        // As much as an owner's cap would leave.
        while journal.segments().len() > 2 {
            journal.remove_oldest().unwrap();
        }
    }
    journal.append(payload).unwrap();
}

fn groups(criterion: &mut Criterion) {
    let payload = [0xa5; RECORD_BYTES];
    let mut group = criterion.benchmark_group("group_of_64_records_of_2_kib");
    group.throughput(Throughput::Elements(GROUP)).sample_size(30);
    for (name, preallocate, is_synced) in
        [("append_flush", true, false), ("append_sync", true, true), ("append_sync_without_preallocation", false, true)]
    {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { preallocate, ..Options::default() };
        let (mut journal, _) = Journal::open(directory.path(), options).unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for _ in 0..GROUP {
                    append(&mut journal, &payload);
                }
                if is_synced {
                    journal.sync().map(|_| ()).unwrap();
                } else {
                    journal.flush().unwrap();
                }
            });
        });
    }
    group.finish();
}

fn scans(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(directory.path(), Options::default()).unwrap();
    let payload = [0xa5; RECORD_BYTES];
    while journal.bytes() < SCANNED_BYTES || !journal.wants_roll(RECORD_BYTES) {
        if journal.wants_roll(RECORD_BYTES) {
            journal.roll().unwrap();
        }
        journal.append(&payload).unwrap();
    }
    journal.sync().unwrap();
    let bytes = journal.bytes();

    let mut group = criterion.benchmark_group("256_mib_of_2_kib_records");
    group.throughput(Throughput::Bytes(bytes)).sample_size(10);
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            let mut reader = journal.read(Position::START).unwrap();
            while let Some(record) = reader.next_record().unwrap() {
                black_box(record.payload);
            }
        });
    });
    drop(journal);
    group.bench_function("open", |bencher| {
        bencher.iter(|| black_box(Journal::open(directory.path(), Options::default()).unwrap()));
    });
    group.finish();
}

criterion_group!(benches, groups, scans);
criterion_main!(benches);
