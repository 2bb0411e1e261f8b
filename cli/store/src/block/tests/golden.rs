//! The format does not change unnoticed: files of version 1 are read for ever.
//!
//! `UPDATE_EXPECT=1` writes them anew, which is right for no version that was released.

use std::{fs, path::Path};

use super::*;
use crate::compact::Rows;

/// Writes a block and reads the golden one, which must be of the same content. `is_exact`: no byte may differ.
fn check(name: &str, tier: Tier, columns: &[Content], is_exact: bool) {
    check_with(&Keys::default(), name, tier, columns, is_exact);
}

fn check_with(keys: &Keys, name: &str, tier: Tier, columns: &[Content], is_exact: bool) {
    let disk = Simulated::new(1);
    let shelf = |disk: &Simulated| Shelf::open(Arc::new(disk.clone()), keys, 1 << 20).unwrap().0;
    let block = write_columns(&shelf(&disk), tier, columns, &[]).unwrap();
    let written = disk.contents(block.name()).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/block/tests").join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &written).unwrap();
    }
    let golden = fs::read(&path).unwrap();
    assert!(written == golden || !is_exact, "{name}: the same content has other bytes: is this a new version?");
    let other = Simulated::new(1);
    other.create("0000000000000001.block").unwrap().write_at(&golden, 0).unwrap();
    let shelf = shelf(&other);
    let block = &shelf.blocks()[0];
    block.verify(&|_| Ok(())).unwrap();
    assert_eq!(block.summary().tier, tier);
    for (column, content) in columns.iter().enumerate() {
        assert_eq!(read_column(block, &all(&|_| true), column).unwrap(), *content, "{name}, column {column}");
    }
}

/// Enough for columns that are packed, at times that no few runs tell.
fn packed() -> Content {
    let mut content = content(700);
    for (times, readings) in content.values_mut() {
        times.iter_mut().zip(0_i64..).for_each(|(time, second)| *time += second * second % 89);
        let mut column = Vec::new();
        encode_column(Resolution::CENTI, readings, &mut column);
        assert_eq!(column[0] & 0x7F, 2, "packed");
    }
    content
}

/// Rows of these samples, a content for each column.
fn rows(samples: &Content, tier: Tier) -> Vec<Content> {
    let mut columns = vec![Content::new(); tier.columns()];
    for (key, (times, readings)) in samples {
        let mut rows = Rows::default();
        rows.add(times, readings, crate::compact::row_ms(tier).unwrap(), key.0 == "load");
        for (column, readings) in columns.iter_mut().zip(rows.columns) {
            column.insert(key.clone(), (rows.times.clone(), readings));
        }
    }
    columns
}

#[test]
fn samples_as_they_come() {
    check("v1.block", Tier::Raw, &[content(5)], true);
}

/// Another version of pco may pack the same numbers into other bytes; it has to read these.
#[test]
fn samples_as_they_are_merged() {
    check("v1-packed.block", Tier::Raw, &[packed()], false);
}

/// Each file has other random bytes.
#[test]
fn encrypted_samples() {
    check_with(&Keys::of(&[7]), "v1-encrypted.block", Tier::Raw, &[content(5)], false);
}

#[test]
fn minutes_and_hours() {
    check("v1-minutes.block", Tier::Minute, &rows(&packed(), Tier::Minute), true);
    check("v1-hours.block", Tier::Hour, &rows(&packed(), Tier::Hour), true);
}
