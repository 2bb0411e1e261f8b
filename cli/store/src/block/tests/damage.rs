//! What is not as it was written is noticed, costs its block alone, and is kept.

use super::*;

/// A folder with these two blocks.
fn two_blocks() -> (Simulated, [Vec<u8>; 2]) {
    let disk = Simulated::new(1);
    let shelf = shelf(&disk);
    let bytes = [content(5), content(9)].map(|content| {
        let block = write(&shelf, &content, &[]).unwrap();
        disk.contents(block.name()).unwrap()
    });
    (disk, bytes)
}

const FIRST: &str = "0000000000000001.block";

#[test]
fn a_flipped_bit_anywhere_is_noticed_and_costs_its_block_alone() {
    let (_, [first, second]) = two_blocks();
    for at in 0..first.len() {
        let disk = Simulated::new(1);
        let mut flipped = first.clone();
        flipped[at] ^= 1 << (at % 8);
        disk.create(FIRST).unwrap().write_at(&flipped, 0).unwrap();
        disk.create("0000000000000002.block").unwrap().write_at(&second, 0).unwrap();
        let shelf = match Shelf::open(Arc::new(disk.clone()), &Keys::default(), 1 << 20) {
            Ok((shelf, recovery)) => {
                assert!(recovery.blocks + recovery.quarantined == 2, "byte {at}: {recovery:?}");
                shelf
            }
            Err(error) => panic!("byte {at}: {error}"),
        };
        for block in shelf.blocks().iter() {
            match (block.number(), read(block, &all(&|_| true)), block.verify(&|_| Ok(()))) {
                (1, Ok(read), verified) => {
                    // What nobody reads in a query is still noticed by a scan.
                    assert_eq!(read, content(5), "byte {at}");
                    assert!(matches!(verified, Err(BlockError::Damaged { .. })), "byte {at}");
                }
                (1, Err(error), _) => {
                    assert!(matches!(error, BlockError::Damaged { .. }), "byte {at}: {error}");
                    shelf.quarantine_block(block, &error);
                }
                (_, read, _) => assert_eq!(read.unwrap(), content(9)),
            }
        }
        if shelf.quarantined() == 1 {
            assert_eq!(disk.contents(&format!("quarantine/{FIRST}")), Some(flipped), "the evidence is kept");
            assert_eq!(shelf.blocks().len(), 1);
        }
    }
}

#[test]
fn a_block_cut_short_anywhere_goes_to_the_quarantine() {
    let (_, [first, _]) = two_blocks();
    for length in 0..first.len() {
        let disk = Simulated::new(1);
        disk.create(FIRST).unwrap().write_at(&first[..length], 0).unwrap();
        let (shelf, recovery) = Shelf::open(Arc::new(disk), &Keys::default(), 1 << 20).unwrap();
        assert_eq!((shelf.blocks().len(), recovery.quarantined), (0, 1), "{length} bytes");
    }
}

#[test]
fn a_block_of_a_newer_version_is_refused_and_left_alone() {
    let (_, [mut first, _]) = two_blocks();
    first[8] = 2;
    let crc = crc32c::crc32c(&first[..60]);
    first[60..64].copy_from_slice(&crc.to_le_bytes());
    let disk = Simulated::new(1);
    disk.create(FIRST).unwrap().write_at(&first, 0).unwrap();
    let error = Shelf::open(Arc::new(disk.clone()), &Keys::default(), 1 << 20).unwrap_err();
    assert!(error.to_string().contains("format 2"), "{error}");
    assert_eq!(disk.contents(FIRST), Some(first));
}

#[test]
fn what_was_not_finished_or_is_replaced_goes_at_the_start_and_numbers_are_not_used_again() {
    let (disk, _) = two_blocks();
    disk.kill();
    disk.create("0000000000000009.tmp").unwrap();
    disk.create("notes.txt").unwrap();
    let (open, recovery) = Shelf::open(Arc::new(disk.clone()), &Keys::default(), 1 << 20).unwrap();
    assert_eq!((recovery.blocks, recovery.unfinished, recovery.replaced), (2, 1, 0));
    // A crash after the rename: the block that replaces is there, and so are the others.
    let held = open.blocks();
    let merged = write(&open, &content(9), &[1, 2]).unwrap();
    assert_eq!(merged.number(), 10);
    disk.kill();
    let (again, recovery) = Shelf::open(Arc::new(disk.clone()), &Keys::default(), 1 << 20).unwrap();
    assert_eq!((recovery.blocks, recovery.replaced), (1, 2));
    assert_eq!(again.blocks()[0].number(), 10);
    assert_eq!(disk.names(), ["000000000000000a.block", "notes.txt"]);
    drop(held);
}

#[test]
fn a_second_owner_is_refused() {
    let (disk, _) = two_blocks();
    let first = shelf(&disk);
    assert!(Shelf::open(Arc::new(disk.clone()), &Keys::default(), 1 << 20).is_err());
    drop(first);
    assert!(Shelf::open(Arc::new(disk), &Keys::default(), 1 << 20).is_ok());
}
