//! A journal that finds any bytes on its disk: it always opens, and serves only what was once appended.
//!
//! Input: mode u8. 0: the rest is the file of segment 1. Otherwise a script: records are appended, then the files patched.
#![no_main]

use std::{collections::HashSet, sync::Arc};

use belfry_common::{
    journal::{Journal, Options, Position},
    storage::simulated::Simulated,
};
use libfuzzer_sys::fuzz_target;

const OPTIONS: Options = Options { segment_bytes: 4096, buffer_bytes: 1024, preallocate: false };
const RECORDS_MAX: usize = 64;

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    let disk = Simulated::new(7);
    if *mode == 0 {
        disk.put("0000000000000001.journal", data);
        reopen(&disk);
        return;
    }
    let (appended, patches) = write(&disk, data);
    patch(&disk, patches);
    for served in reopen(&disk) {
        assert!(appended.contains(&served), "served what was never appended: {served:?}");
    }
});

/// Appends records as the script says (u8 length, 255 rolls); returns them and the rest of the script.
fn write<'d>(disk: &Simulated, mut data: &'d [u8]) -> (HashSet<Vec<u8>>, &'d [u8]) {
    let (mut journal, _) = Journal::open_in(Arc::new(disk.clone()), OPTIONS).expect("an empty disk");
    let mut appended = HashSet::new();
    for _ in 0..RECORDS_MAX {
        match data.split_first() {
            Some((0, rest)) => {
                data = rest;
                break;
            }
            Some((255, rest)) => {
                data = rest;
                journal.roll().expect("a sound disk");
            }
            Some((&length, rest)) => {
                let (record, rest) = rest.split_at(usize::from(length).min(rest.len()));
                data = rest;
                if !record.is_empty() {
                    journal.append(record).expect("a sound disk");
                    appended.insert(record.to_vec());
                }
            }
            None => break,
        }
    }
    journal.sync().expect("a sound disk");
    drop(journal);
    disk.kill();
    (appended, data)
}

/// Changes files: place u8 (which file), offset u16 LE, value u8; the values 0 and 1 cut the file there or add zeros.
fn patch(disk: &Simulated, script: &[u8]) {
    for &[place, low, high, value] in script.as_chunks::<4>().0 {
        let names = disk.names();
        let Some(name) = names.get(usize::from(place) % names.len().max(1)) else { return };
        let mut bytes = disk.contents(name).unwrap_or_default();
        let offset = usize::from(u16::from_le_bytes([low, high]));
        match value {
            0 => bytes.truncate(offset),
            1 => bytes.resize(bytes.len() + offset % 64, 0),
            value => {
                if let Some(byte) = bytes.get_mut(offset) {
                    *byte ^= value;
                }
            }
        }
        disk.put(name, &bytes);
    }
}

/// Opens, reads everything, appends, and opens once more; returns what was served the first time.
fn reopen(disk: &Simulated) -> Vec<Vec<u8>> {
    let opened = Journal::open_in(Arc::new(disk.clone()), OPTIONS);
    // A newer version of the format is the one thing that it may refuse.
    let Ok((mut journal, _)) = opened else { return Vec::new() };
    let served = read(&journal);
    if journal.wants_roll(3) {
        journal.roll().expect("a sound disk");
    }
    journal.append(b"new").expect("a sound disk");
    journal.sync().expect("a sound disk");
    drop(journal);
    disk.kill();
    let (journal, _) = Journal::open_in(Arc::new(disk.clone()), OPTIONS).expect("a journal that was just written");
    let again = read(&journal);
    assert_eq!(again.len(), served.len() + 1);
    assert_eq!(again.last().map(Vec::as_slice), Some(b"new".as_slice()));
    served
}

fn read(journal: &Journal) -> Vec<Vec<u8>> {
    let Ok(mut reader) = journal.read(Position::START) else { return Vec::new() };
    let mut records = Vec::new();
    loop {
        match reader.next_record() {
            Ok(Some(record)) => records.push(record.payload.to_vec()),
            Ok(None) => return records,
            Err(error) => panic!("the scan let something through: {error}"),
        }
    }
}
