//! The storage on a disk that fails: full, broken at every operation in turn, and cut off from power.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{Builder, StorageBackend};
use sha2::{Digest as _, Sha256};

use super::{Batch, BlobName, NameFragment, Removal, StorageError, Store, Writer};
use crate::metrics::Metrics;

/// A disk with a write cache: what was not synced is lost, in part or torn, when the power fails.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    /// What a reader sees.
    shown: Vec<u8>,
    /// What is there for certain.
    synced: Vec<u8>,
    /// What happened since the last sync.
    cached: Vec<Change>,
    /// No byte beyond this can be written.
    capacity: Option<usize>,
    /// Countdown to the operation that fails, and how.
    fails_in: Option<(u32, Failure)>,
    /// What all operations meet since then.
    broken: Option<Failure>,
    operations: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// This one operation; what a failed sync did not write is gone.
    Once,
    /// This and all that follow, until healed.
    Lasting,
    /// The power is cut: nothing of this or later operations reaches the disk.
    Power,
}

#[derive(Clone, Debug)]
enum Change {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Length(length) => content.resize(*length, 0),
            Self::Write(offset, bytes) => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
        }
    }
}

/// Small, so that reads touch the disk when there are many blobs.
const CACHE: usize = 256 * 1024;

impl Disk {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    /// How often it was touched.
    pub(crate) fn operations(&self) -> u32 {
        self.platter().operations
    }

    pub(crate) fn fail(&self, operation: u32, failure: Failure) {
        self.platter().fails_in = Some((operation, failure));
    }

    /// Everything works again.
    pub(crate) fn heal(&self) {
        let mut platter = self.platter();
        platter.fails_in = None;
        platter.broken = None;
    }

    /// A disk as it may be after the power failed: of what was not synced, some arrived, some did not,
    /// some only in part.
    pub(crate) fn after_power_failure(&self, mut seed: u64) -> Self {
        let platter = self.platter();
        let mut content = platter.synced.clone();
        for change in &platter.cached {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            match (seed >> 61, change) {
                (0..=2, change) => change.apply(&mut content),
                (3..=4, Change::Write(offset, bytes)) => {
                    let torn = bytes.len() / 512 / 2 * 512;
                    Change::Write(*offset, bytes[..torn].to_vec()).apply(&mut content);
                }
                _ => {}
            }
        }
        let after = Platter {
            shown: content.clone(),
            synced: content,
            ..Platter::default()
        };
        Self(Arc::new(Mutex::new(after)))
    }

    pub(crate) fn open_store(&self) -> Result<(Store, Writer), crate::Error> {
        let metrics = Metrics::new("ceo", &[], 0).unwrap();
        let disk = self.clone();
        let opener = Box::new(move || {
            Builder::new()
                .set_cache_size(CACHE)
                .create_with_backend(disk.clone())
        });
        Store::open_with(opener, Path::new("disk"), u64::MAX / 4, Arc::new(metrics))
    }
}

impl Platter {
    /// Counts an operation; how it fails if it does.
    fn turn(&mut self) -> Result<(), Failure> {
        self.operations += 1;
        match self.fails_in {
            Some((0, failure)) => {
                self.fails_in = None;
                self.broken = (failure != Failure::Once).then_some(failure);
                return Err(failure);
            }
            Some((turns, failure)) => self.fails_in = Some((turns - 1, failure)),
            None => {}
        }
        self.broken.map_or(Ok(()), Err)
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.shown);
        self.cached.push(change);
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        Self::other(format!("chosen to fail: {failure:?}"))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().shown.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut platter = self.platter();
        platter.turn()?;
        let offset = usize::try_from(offset).unwrap();
        let shown = platter.shown.get(offset..offset + out.len());
        out.copy_from_slice(shown.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut platter = self.platter();
        platter.turn()?;
        // As on a real disk, a hole takes no space until something is written there.
        platter.change(Change::Length(usize::try_from(length).unwrap()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.platter();
        if let Err(failure) = platter.turn() {
            if failure != Failure::Power {
                // The kernel marks the pages clean all the same, and they go with the cache.
                platter.cached.clear();
                platter.shown = platter.synced.clone();
            }
            return Err(failure.into());
        }
        platter.synced = platter.shown.clone();
        platter.cached.clear();
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut platter = self.platter();
        let offset = usize::try_from(offset).unwrap();
        if let Err(failure) = platter.turn() {
            if failure != Failure::Power {
                platter.change(Change::Write(offset, bytes[..bytes.len() / 2].to_vec()));
            }
            return Err(failure.into());
        }
        if let Some(capacity) = platter.capacity
            && offset + bytes.len() > capacity
        {
            // What fits is written, as write(2) does.
            let fits = capacity.saturating_sub(offset);
            platter.change(Change::Write(offset, bytes[..fits].to_vec()));
            return Err(ErrorKind::StorageFull.into());
        }
        platter.change(Change::Write(offset, bytes.to_vec()));
        Ok(())
    }
}

fn name(text: &str) -> BlobName {
    BlobName::try_from(text.to_owned()).unwrap()
}

fn everything() -> NameFragment {
    NameFragment::try_from(String::new()).unwrap()
}

/// A batch of one blob that follows nothing.
fn one(of: &str, blob: Vec<u8>) -> Batch {
    several(vec![(of.to_owned(), blob)])
}

fn several(blobs: Vec<(String, Vec<u8>)>) -> Batch {
    let blobs = blobs.into_iter().map(|(of, blob)| (name(&of), blob));
    Batch {
        blobs: blobs.collect(),
        ..Batch::default()
    }
}

fn blob(step: u8) -> Vec<u8> {
    vec![step; 300 + (usize::from(step) * 7919) % 20_000]
}

/// Where the blobs of a step go, from one end of the file's order to the other.
const PLACES: [&str; 3] = ["a", "m", "z"];

fn blobs(step: u8) -> Vec<(String, Vec<u8>)> {
    let at = |place| (format!("{place}/{}", step % 5), blob(step));
    PLACES.map(at).into()
}

/// Puts step by step, of each step several blobs at once; remembers of each slot what may be there: what was acknowledged last, and since
/// then what was tried and failed.
#[derive(Default)]
struct Ledger(BTreeMap<u8, Vec<u8>>);

impl Ledger {
    async fn put(&mut self, store: &Store, step: u8) -> Result<(), StorageError> {
        let result = store.put(several(blobs(step))).await;
        let possible = self.0.entry(step % 5).or_default();
        if result.is_ok() {
            possible.clear();
        }
        possible.push(step);
        result
    }

    /// Every acknowledged step is there whole, or one that was tried to replace it later.
    async fn check(&self, store: &Store, acknowledged: &BTreeMap<u8, u8>) {
        for (slot, possible) in &self.0 {
            let mut found = Vec::new();
            for place in PLACES {
                let key = format!("{place}/{slot}");
                found.extend(store.get(name(&key)).await.unwrap().map(|blob| (key, blob)));
            }
            let whole = possible.iter().any(|step| blobs(*step) == found);
            let never_acknowledged = found.is_empty() && !acknowledged.contains_key(slot);
            assert!(
                whole || never_acknowledged,
                "{slot}: possible {possible:?}, found {} blobs",
                found.len()
            );
        }
        let names = store.list(everything(), everything(), 100).await.unwrap();
        let mut slots = acknowledged.keys();
        assert!(slots.all(|slot| names.contains(&format!("m/{slot}"))));
    }
}

pub(crate) async fn close((store, writer): (Store, Writer)) {
    store.close();
    tokio::task::spawn_blocking(|| writer.join()).await.unwrap();
}

/// A dozen steps; what was acknowledged.
async fn puts(store: &Store, ledger: &mut Ledger) -> BTreeMap<u8, u8> {
    let mut acknowledged = BTreeMap::new();
    for step in 0..12 {
        if ledger.put(store, step).await.is_ok() {
            acknowledged.insert(step % 5, step);
        }
    }
    acknowledged
}

/// How often the puts touch an undisturbed disk.
async fn operations() -> u32 {
    let disk = Disk::new();
    let storage = disk.open_store().unwrap();
    let start = disk.platter().operations;
    let acknowledged = puts(&storage.0, &mut Ledger::default()).await;
    assert_eq!(acknowledged.len(), 5);
    let operations = disk.platter().operations - start;
    close(storage).await;
    assert!(
        operations > 60,
        "the puts touch the disk {operations} times"
    );
    operations
}

#[tokio::test]
async fn whichever_operation_fails_nothing_acknowledged_is_lost_and_the_next_put_works() {
    for chosen in 0..operations().await {
        let disk = Disk::new();
        let storage = disk.open_store().unwrap();
        disk.fail(chosen, Failure::Once);
        let mut ledger = Ledger::default();
        let acknowledged = puts(&storage.0, &mut ledger).await;
        disk.heal();
        ledger.check(&storage.0, &acknowledged).await;
        storage
            .0
            .put(one("after", b"works".to_vec()))
            .await
            .unwrap();
        assert_eq!(
            storage.0.get(name("after")).await.unwrap().unwrap(),
            b"works"
        );

        let crashed = disk.after_power_failure(u64::from(chosen));
        let after = crashed.open_store().unwrap();
        ledger.check(&after.0, &acknowledged).await;
        assert_eq!(after.0.get(name("after")).await.unwrap().unwrap(), b"works");
        close(after).await;
        close(storage).await;
    }
}

#[tokio::test]
async fn power_failing_at_any_operation_loses_nothing_acknowledged() {
    for chosen in 0..operations().await {
        let disk = Disk::new();
        let storage = disk.open_store().unwrap();
        disk.fail(chosen, Failure::Power);
        let mut ledger = Ledger::default();
        let acknowledged = puts(&storage.0, &mut ledger).await;
        for seed in 0..3 {
            let crashed = disk.after_power_failure(u64::from(chosen) * 3 + seed);
            let after = crashed.open_store().unwrap();
            ledger.check(&after.0, &acknowledged).await;
            close(after).await;
        }
        close(storage).await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_puts_serves_reads_and_recovers_without_a_restart() {
    let disk = Disk::new();
    let (store, writer) = disk.open_store().unwrap();
    store.put(one("early", vec![1; 1000])).await.unwrap();
    let capacity = disk.platter().shown.len();
    disk.platter().capacity = Some(capacity);
    // The first of the two would have fitted.
    let large = |byte| {
        let blobs = [("a", vec![byte]), ("large", vec![byte; 500_000])];
        several(blobs.map(|(of, blob)| (of.to_owned(), blob)).into())
    };
    let refused = loop {
        if let Err(error) = store.put(large(2)).await {
            break error;
        }
    };
    assert!(matches!(refused, StorageError::Full(_)), "{refused}");
    assert!(refused.to_string().contains("disk is full"), "{refused}");
    let small = store.get(name("a")).await.unwrap().is_some();
    assert_eq!(small, store.get(name("large")).await.unwrap().is_some());
    for _ in 0..5 {
        let again = store.put(large(2)).await.unwrap_err();
        assert!(matches!(again, StorageError::Full(_)), "{again}");
        assert_eq!(store.get(name("early")).await.unwrap().unwrap(), [1; 1000]);
    }

    disk.platter().capacity = None;
    let wait = async { while store.put(large(3)).await.is_err() {} };
    tokio::time::timeout(std::time::Duration::from_secs(60), wait)
        .await
        .unwrap();
    assert_eq!(
        store.get(name("large")).await.unwrap().unwrap(),
        vec![3; 500_000]
    );
    assert_eq!(store.get(name("early")).await.unwrap().unwrap(), [1; 1000]);
    close((store, writer)).await;
}

#[tokio::test]
async fn a_read_that_finds_the_file_failed_is_answered_from_the_reopened_one() {
    let disk = Disk::new();
    let storage = disk.open_store().unwrap();
    for number in 0..100 {
        let put = storage.0.put(one(&format!("blob/{number}"), blob(number)));
        put.await.unwrap();
    }
    close(storage).await;
    let storage = disk.open_store().unwrap();
    disk.fail(0, Failure::Once);
    let found = storage.0.get(name("blob/50")).await.unwrap();
    assert_eq!(found.unwrap(), blob(50));
    assert!(
        disk.platter().fails_in.is_none(),
        "the disk was not touched"
    );
    close(storage).await;
}

#[tokio::test]
async fn a_broken_disk_is_reported_as_such_until_it_works_again() {
    let disk = Disk::new();
    let (store, writer) = disk.open_store().unwrap();
    store.put(one("early", vec![1; 1000])).await.unwrap();
    disk.fail(0, Failure::Lasting);
    let failed = store.put(one("late", vec![2; 1000])).await.unwrap_err();
    assert!(matches!(failed, StorageError::Fault(_)), "{failed}");
    assert!(store.usable().await.is_err(), "not ready while writes fail");
    assert!(store.get(name("early")).await.is_err());

    disk.heal();
    let wait = async { while store.usable().await.is_err() {} };
    tokio::time::timeout(std::time::Duration::from_secs(60), wait)
        .await
        .unwrap();
    assert_eq!(store.get(name("early")).await.unwrap().unwrap(), [1; 1000]);
    store.put(one("late", vec![2; 1000])).await.unwrap();
    close((store, writer)).await;
}

#[tokio::test]
async fn a_blob_is_removed_as_it_was_read_or_not_at_all() {
    let disk = Disk::new();
    let storage = disk.open_store().unwrap();
    let (store, batch) = (&storage.0, |of, sha256| Batch {
        removals: vec![Removal {
            name: name(of),
            sha256,
        }],
        own: vec![("moved".into(), b"so far".to_vec())],
        ..Batch::default()
    });
    let digest = |blob: &[u8]| <[u8; 32]>::from(Sha256::digest(blob));
    let own = || store.reading(|reader| reader.own("mov"));
    store.put(one("kept", vec![1; 10])).await.unwrap();
    store.put(one("gone", vec![2; 10])).await.unwrap();
    let changed = store.put(batch("kept", digest(&[2; 10]))).await;
    assert_eq!(changed, Err(StorageError::Conflict("kept".into())));
    assert_eq!(own().await.unwrap(), []);
    assert_eq!(store.get(name("kept")).await.unwrap().unwrap(), [1; 10]);
    // Twice: what is gone already is as it should be.
    for _ in 0..2 {
        store.put(batch("gone", digest(&[2; 10]))).await.unwrap();
    }
    assert_eq!(store.get(name("gone")).await.unwrap(), None);
    assert_eq!(own().await.unwrap(), [("moved".into(), b"so far".to_vec())]);
    let names = store.list(everything(), everything(), 10).await.unwrap();
    assert_eq!(names, ["kept"]);
    close(storage).await;
}
