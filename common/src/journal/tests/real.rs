//! What only the operating system can show.

use std::fs;
use std::thread;

use super::*;
use crate::journal::format::segment_name;
use crate::limits::RECORD_BYTES_MAX;

#[test]
fn records_come_back_from_a_real_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/on/demand");
    for preallocate in [true, false] {
        let options = Options { preallocate, segment_bytes: 64 * 1024, ..SMALL };
        let (mut journal, _) = Journal::open(&path, options).unwrap();
        let mut expected = read_all(&journal);
        for sequence in 0..200 {
            let payload = payload(sequence, 1000);
            if journal.wants_roll(payload.len()) {
                journal.roll().unwrap();
            }
            expected.push((journal.append(&payload).unwrap(), payload));
        }
        assert_eq!(journal.sync().unwrap(), journal.end());
        assert_eq!(read_all(&journal), expected);

        let on_disk: u64 =
            journal.segments().iter().map(|s| fs::metadata(path.join(segment_name(s.number))).unwrap().len()).sum();
        assert_eq!(journal.bytes(), on_disk);
        drop(journal);
        let (mut journal, recovery) = Journal::open(&path, options).unwrap();
        assert!(recovery.is_clean());
        assert_eq!(read_all(&journal), expected);
        let before = journal.segments().len();
        assert_eq!(journal.remove_through(2).unwrap().segments, if preallocate { 2 } else { 0 });
        assert_eq!(journal.segments().len(), if preallocate { before - 2 } else { before });
    }
}

#[test]
fn a_torn_tail_and_a_damaged_segment_on_a_real_disk() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(directory.path(), SMALL).unwrap();
    let first = journal.append(b"first").unwrap();
    journal.append(b"lost").unwrap();
    journal.roll().unwrap();
    let third = journal.append(b"third").unwrap();
    journal.append(b"torn").unwrap();
    let end = journal.sync().unwrap();
    drop(journal);

    let damaged = directory.path().join(segment_name(1));
    let mut bytes = fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    let newest = fs::OpenOptions::new().write(true).open(directory.path().join(segment_name(2))).unwrap();
    newest.set_len(u64::from(end.offset) - 1).unwrap();
    fs::create_dir(directory.path().join(segment_name(3))).unwrap();

    let (journal, recovery) = Journal::open(directory.path(), SMALL).unwrap();
    assert_eq!(read_all(&journal), [(first, b"first".to_vec()), (third, b"third".to_vec())]);
    assert_eq!((recovery.damages.len(), recovery.foreign, journal.end().segment), (2, 1, 4));
    assert_eq!(fs::read(directory.path().join("quarantine").join(segment_name(1))).unwrap(), bytes);
}

#[test]
fn a_second_opening_is_refused_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(directory.path(), SMALL).unwrap();
    let path = directory.path().display().to_string();
    let error = Journal::open(directory.path(), SMALL).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "`{path}` is in use by another process: stop that one first (`fuser {path}/lock` names it), or use \
             another directory"
        )
    );
    drop(journal);
    Journal::open(directory.path(), SMALL).unwrap();
}

#[test]
fn records_have_1_to_the_largest_number_of_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(directory.path(), SMALL).unwrap();
    for bytes in [0, RECORD_BYTES_MAX + 1] {
        assert!(matches!(journal.append(&vec![0; bytes]), Err(JournalError::RecordSize { bytes: b }) if b == bytes));
    }
    let largest = vec![0xa5; RECORD_BYTES_MAX];
    let position = journal.append(&largest).unwrap();
    assert!(journal.wants_roll(1));
    journal.append(b"next").unwrap();
    journal.sync().unwrap();
    drop(journal);
    let (journal, recovery) = Journal::open(directory.path(), SMALL).unwrap();
    assert!(recovery.is_clean());
    let mut reader = journal.read(position).unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().payload, largest);
    assert_eq!(reader.next_record().unwrap().unwrap().payload, b"next");
}

#[test]
fn a_reader_follows_the_writer_from_another_thread() {
    const RECORDS: u64 = 3000;
    let directory = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 20_000, buffer_bytes: 4000, preallocate: true };
    let (mut journal, _) = Journal::open(directory.path(), options).unwrap();
    let mut reader = journal.read(Position::START).unwrap();
    let following = thread::spawn(move || {
        for sequence in 0..RECORDS {
            loop {
                match reader.next_record().unwrap() {
                    Some(record) => {
                        assert_eq!(record.payload, payload(sequence, 8 + sequence as usize % 300));
                        break;
                    }
                    None => thread::yield_now(),
                }
            }
        }
    });
    for sequence in 0..RECORDS {
        let payload = payload(sequence, 8 + sequence as usize % 300);
        if journal.wants_roll(payload.len()) {
            journal.roll().unwrap();
        }
        journal.append(&payload).unwrap();
        if sequence % 7 == 0 {
            journal.flush().unwrap();
        }
    }
    journal.flush().unwrap();
    following.join().unwrap();
}

#[test]
fn a_reader_goes_on_after_segments_are_removed_under_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(directory.path(), SMALL).unwrap();
    for name in [&b"one"[..], b"two", b"three"] {
        journal.append(name).unwrap();
        journal.append(name).unwrap();
        journal.roll().unwrap();
    }
    journal.append(b"four").unwrap();
    journal.flush().unwrap();

    let mut next = {
        let mut reader = journal.read(Position::START).unwrap();
        move || reader.next_record().unwrap().map(|record| (record.position.segment, record.payload.to_vec()))
    };
    assert_eq!(next(), Some((1, b"one".to_vec())));
    assert_eq!(journal.remove_through(2).unwrap().records, 4);
    // Its file is open, and so lives on.
    assert_eq!(next(), Some((1, b"one".to_vec())));
    assert_eq!(next(), Some((3, b"three".to_vec())));
    assert_eq!(next(), Some((3, b"three".to_vec())));
    assert_eq!(next(), Some((4, b"four".to_vec())));
    assert_eq!(next(), None);
}

#[test]
fn a_position_behind_the_end_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(directory.path(), SMALL).unwrap();
    journal.append(b"one").unwrap();
    let end = journal.end();
    assert!(journal.read(end).is_ok());
    let from = Position { offset: end.offset + 1, ..end };
    assert_eq!(journal.read(from).unwrap_err().to_string(), "1:52 is behind the end, 1:51");
}
