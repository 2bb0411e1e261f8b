use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    os::unix::fs::{PermissionsExt as _, symlink},
    sync::Arc,
};

use belfry_common::model::{Batch, BatchKey, Epoch, Kind, Layout, Metric, Raw, Resolution, SeriesDefinition, Tick};
use belfry_store::{Entry, Keys, NodeId, Store, StoreOptions};
use tempfile::TempDir;

use super::{restore::Restored, take::Taken, *};
use crate::state::State;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A data directory as a collector has it, open.
struct Data {
    directory: TempDir,
    _state: State,
    store: Store,
}

impl Data {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        let _state = State::open(&data).unwrap();
        let (store, _) = Store::open(&data, StoreOptions::default(), NOW).unwrap();
        Authority::open(&data, NOW).unwrap();
        let mut data = Self { directory, _state, store };
        data.add(1);
        data
    }

    fn path(&self) -> PathBuf {
        self.at("data")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// One sample more, in a block, and one in the journal alone.
    fn add(&mut self, sequence: u64) {
        let metric = Arc::new(Metric::new("m", Kind::Gauge, Resolution::ONE, &[], ""));
        let series = Box::new([Arc::new(SeriesDefinition { metric, label_values: Box::default() })]);
        let layout = Arc::new(Layout { group: 1, sampler: "s".into(), interval_ms: 1000, series });
        for sequence in [2 * sequence, 2 * sequence + 1] {
            let time = NOW.plus_millis(sequence as i64 * 1000);
            let tick = Tick { layout: Arc::clone(&layout), time, values: vec![Raw::integer(1)] };
            let (key, batch) = (BatchKey { epoch: Epoch(7), sequence }, Arc::new(Batch { ticks: vec![tick] }));
            self.store.add(Entry { node: NodeId(1), key, received: time, batch }).unwrap();
            self.store.commit().unwrap();
            if sequence % 2 == 0 {
                self.store.maintainer().flush(time).unwrap();
            }
        }
    }

    fn take(&self, second: i64, keep: Option<usize>) -> Result<Taken, BackupError> {
        let now = NOW.plus_millis(second * 1000);
        take((&self.path(), &Keys::default()), &self.at("backups"), keep.and_then(NonZeroUsize::new), now, &|_| Ok(()))
    }

    fn restore(&self, from: &str, to: &str, skip_damaged: bool) -> Result<Restored, BackupError> {
        restore(&self.at(from), &self.at(to), skip_damaged, &|_| Ok(()))
    }
}

/// All files below, and the folders.
fn below(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for name in names(folder).unwrap() {
        let path = folder.join(name);
        if is_folder(&path) {
            found.extend(below(&path));
        }
        found.insert(path);
    }
    found
}

#[test]
fn what_was_backed_up_beside_a_collector_is_restored() {
    let data = Data::new();
    let taken = data.take(0, None).unwrap();
    assert_eq!(taken.path, data.at("backups/2023-11-14T22-13-20.000Z"));
    assert_eq!((taken.files, taken.bytes_new, taken.damaged.len()), (5, taken.bytes, 0));
    assert!(verify(&taken.path, &|_| Ok(())).unwrap().damaged.is_empty());
    let restored = data.restore("backups", "restored", false).unwrap();
    assert_eq!((restored.files, restored.bytes, restored.created), (5, taken.bytes, NOW));
    let names: BTreeSet<String> = names(&data.at("restored")).unwrap().into_iter().collect();
    assert_eq!(
        names,
        ["belfry.db", state::LOCK_FILE, "blocks", "ca.key.pem", "ca.pem", "journal"].map(str::to_owned).into()
    );
    for path in below(&data.at("restored")) {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if is_folder(&path) { 0o700 } else { 0o600 }, "{}", path.display());
    }
    for name in Authority::FILES {
        let read = |place: PathBuf| fs::read(place.join(name)).unwrap();
        assert_eq!(read(data.path()), read(data.at("restored")));
    }
    drop(State::open(&data.at("restored")).unwrap());
    let (store, recovery) = Store::open(&data.at("restored"), StoreOptions::default(), NOW).unwrap();
    assert!(recovery.is_clean(), "{recovery:?}");
    assert_eq!(store.durable(NodeId(1), Epoch(7)), [(2, 3)]);

    // One that is named is the one that is restored; what it is restored to must be empty.
    data.restore("backups/2023-11-14T22-13-20.000Z", "again", false).unwrap();
    assert!(matches!(data.restore("backups", "again", false), Err(BackupError::NotEmpty { .. })));
    assert!(matches!(data.restore("backups", "data", false), Err(BackupError::InUse { .. })));
    assert!(matches!(data.restore("again", "other", false), Err(BackupError::NoBackup { .. })));
    assert!(!data.at("other").exists());
}

#[test]
fn blocks_are_new_once_and_old_backups_go() {
    let mut data = Data::new();
    let first = data.take(0, None).unwrap();
    data.add(2);
    let second = data.take(1, Some(2)).unwrap();
    assert_eq!((second.removed, second.files), (0, first.files + 1));
    let block = fs::metadata(data.path().join(StoreFile::Block(1).path())).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&block), 3);
    assert!(second.bytes_new < second.bytes, "{second:?}");
    let third = data.take(2, Some(1)).unwrap();
    assert_eq!((third.removed, third.files), (2, second.files));
    let left: BTreeSet<String> = names(&data.at("backups")).unwrap().into_iter().collect();
    assert_eq!(left, ["2023-11-14T22-13-22.000Z", "lock"].map(str::to_owned).into());
    data.restore("backups", "restored", false).unwrap();
}

#[test]
fn what_was_not_finished_is_none_and_goes_with_the_next() {
    let data = Data::new();
    let unfinished = data.at("backups/.2023-11-14T22-13-19.000Z.unfinished");
    fs::create_dir_all(unfinished.join("blocks")).unwrap();
    for foreign in ["2023-11-14", ".mine.unfinished", "2023-11-14T22-13-18.000Z"] {
        fs::create_dir(data.at("backups").join(foreign)).unwrap();
    }
    assert!(matches!(data.restore("backups", "restored", false), Err(BackupError::NoBackup { .. })));
    let stopped = take((&data.path(), &Keys::default()), &data.at("backups"), None, NOW, &|_| {
        Err(belfry_store::BackupError::Stopped)
    });
    assert!(matches!(stopped, Err(BackupError::Copy(belfry_store::BackupError::Stopped))));
    assert!(!unfinished.exists());
    assert_eq!(names(&data.at("backups")).unwrap().len(), 4, "those of others, and the lock");
    let taken = data.take(1, Some(1)).unwrap();
    assert_eq!(taken.removed, 0, "what is no backup is not counted");

    let _lock = fs::File::open(data.at("backups/lock")).map(|file| file.try_lock().map(|()| file)).unwrap().unwrap();
    assert!(matches!(data.take(2, None), Err(BackupError::Busy { .. })));
    let inside = take((&data.path(), &Keys::default()), &data.path().join("a/b"), None, NOW, &|_| Ok(()));
    assert!(matches!(inside, Err(BackupError::Inside { .. })));
    assert!(!data.path().join("a").exists());
    let nothing = take((&data.at("backups"), &Keys::default()), &data.at("other"), None, NOW, &|_| Ok(()));
    assert!(matches!(nothing, Err(BackupError::NoCollector { .. })));
}

#[test]
fn nothing_is_put_in_place_of_a_backup_that_is_damaged_or_of_one_that_was_interrupted() {
    let data = Data::new();
    let backup = data.take(0, None).unwrap().path;
    let copy = |name: &str, change: &dyn Fn(&Path)| {
        let copied = std::process::Command::new("cp").arg("-a").arg(&backup).arg(data.at(name)).status().unwrap();
        assert!(copied.success());
        change(&data.at(name));
    };
    let block = StoreFile::Block(1).path();
    let flip = |path: PathBuf| {
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        fs::write(&path, bytes).unwrap();
    };
    copy("flipped-block", &|place| flip(place.join(&block)));
    copy("flipped-database", &|place| flip(place.join(state::FILE)));
    copy("cut-block", &|place| fs::write(place.join(&block), "").unwrap());
    copy("no-block", &|place| fs::remove_file(place.join(&block)).unwrap());
    copy("linked-block", &|place| {
        fs::remove_file(place.join(&block)).unwrap();
        symlink(data.path().join(&block), place.join(&block)).unwrap();
    });
    copy("linked-folder", &|place| {
        fs::rename(place.join("blocks"), data.at("elsewhere")).unwrap();
        symlink(data.at("elsewhere"), place.join("blocks")).unwrap();
    });
    for name in ["flipped-block", "cut-block", "no-block", "linked-block", "linked-folder", "flipped-database"] {
        let verified = verify(&data.at(name), &|_| Ok(())).unwrap();
        assert_eq!((verified.files, verified.damaged.len()), (5, 1), "{name}");
        let error = data.restore(name, "restored", false).unwrap_err();
        let expected = if name == "flipped-database" { state::FILE } else { &block };
        assert!(matches!(&error, BackupError::Damaged { files, .. } if *files == [expected]), "{name}: {error}");
        assert!(!data.at("restored").exists(), "{name}");
    }
    assert!(matches!(data.restore("flipped-database", "restored", true), Err(BackupError::Damaged { .. })));
    let restored = data.restore("flipped-block", "restored", true).unwrap();
    assert_eq!((restored.files, restored.damaged), (4, vec![block]));
    drop(Store::open(&data.at("restored"), StoreOptions::default(), NOW).unwrap());

    copy("no-manifest", &|place| flip(place.join(manifest::FILE)));
    assert!(matches!(data.restore("no-manifest", "other", false), Err(BackupError::Manifest { .. })));
    // An empty directory stays, and what a killed restore has left there is nothing.
    fs::create_dir_all(data.at("other/.restoring/blocks")).unwrap();
    let lock = State::lock(&data.at("other")).unwrap();
    assert!(matches!(restore(&backup, &data.at("other"), false, &|_| Ok(())), Err(BackupError::InUse { .. })));
    assert!(data.at("other/.restoring/blocks").exists(), "somebody restores to it already");
    drop(lock);
    let stopped = |step| match step {
        belfry_store::Step::Done(_) => Err(belfry_store::BackupError::Stopped),
        belfry_store::Step::Found(_) => Ok(()),
    };
    assert!(restore(&backup, &data.at("other"), false, &stopped).is_err());
    assert_eq!(names(&data.at("other")).unwrap().len(), 0);
    fs::create_dir_all(data.at("other/.restoring")).unwrap();
    fs::write(data.at("other/ca.pem"), "").unwrap();
    assert!(matches!(data.restore("backups", "other", false), Err(BackupError::HalfRestored { .. })));
    fs::remove_file(data.at("other/ca.pem")).unwrap();
    data.restore("backups", "other", false).unwrap();
    assert!(!data.at("other/.restoring").exists());
}

#[test]
fn a_backup_is_called_by_its_time() {
    for time in [NOW, NOW.plus_millis(123)] {
        assert_eq!(time_of(&name_of(time)), Some(time));
    }
    for name in ["", "lock", "2023-11-14T22:13:20.000Z", "2023-11-14T22-13-20Z", "2023-11-14T22-13-20.0000Z", "T"] {
        assert_eq!(time_of(name), None, "{name}");
    }
}
