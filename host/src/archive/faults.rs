//! The archive over files and a storage that fail at every operation in turn, and hosts that are killed there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arca_audit::checkpoint::Checkpoint;
use arca_audit::tile::{TilePath, encode_entries};
use arca_audit::writer::{BundleWriter, TileWriter};
use arca_audit::{Tree, leaf_hash};
use bytes::Bytes;
use ed25519_dalek::SigningKey;

use super::files::{Files, FilesError};
use super::notes::Note;
use super::{Archive, Archiver, LogError};
use crate::config::{ArchiveConfig, ArchivePlace};
use crate::metrics::Metrics;
use crate::storage::faults::{self, Disk};
use crate::storage::{Batch, BlobName, NameFragment, Store};

/// Files in memory.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Shelf>>);

#[derive(Debug, Default)]
struct Shelf {
    files: BTreeMap<String, Vec<u8>>,
    operations: u32,
    /// Countdown to the operation that fails, and how.
    fails_in: Option<(u32, Failure)>,
    /// Bytes that fit.
    capacity: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// Nothing of it happened.
    Before,
    /// One file of several is made.
    Half,
    /// All of it happened, and nobody was told.
    After,
}

const FAILURES: [Failure; 3] = [Failure::Before, Failure::Half, Failure::After];

impl Memory {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap()
    }

    fn failed(problem: &str) -> FilesError {
        FilesError::Unavailable {
            what: "memory".into(),
            problem: problem.into(),
            remedy: "None",
        }
    }
}

impl Shelf {
    /// How the next operation fails, if it does.
    fn turn(&mut self) -> Option<Failure> {
        self.operations += 1;
        match self.fails_in.take() {
            Some((0, failure)) => Some(failure),
            Some((turns, failure)) => {
                self.fails_in = Some((turns - 1, failure));
                None
            }
            None => None,
        }
    }

    fn write(&mut self, path: &str, content: &[u8]) -> Result<(), FilesError> {
        let used: usize = self.files.values().map(Vec::len).sum();
        if self.capacity.is_some_and(|it| used + content.len() > it) {
            return Err(Memory::failed("no space left on device"));
        }
        self.files.insert(path.to_owned(), content.to_vec());
        Ok(())
    }
}

fn result(failure: Option<Failure>) -> Result<(), FilesError> {
    match failure {
        Some(failure) => Err(Memory::failed(&format!("chosen to fail: {failure:?}"))),
        None => Ok(()),
    }
}

#[tonic::async_trait]
impl Files for Memory {
    async fn create(&self, files: Vec<(String, Bytes)>) -> Result<(), FilesError> {
        let mut shelf = self.shelf();
        let failure = shelf.turn();
        let some = match failure {
            Some(Failure::Before) => 0,
            Some(Failure::Half) => files.len().div_ceil(2),
            Some(Failure::After) | None => files.len(),
        };
        for (path, content) in files.into_iter().take(some) {
            match shelf.files.get(&path) {
                Some(there) if *there != content => return Err(FilesError::Differs { what: path }),
                Some(_) => {}
                None => shelf.write(&path, &content)?,
            }
        }
        result(failure)
    }

    async fn replace(&self, path: &str, content: Bytes) -> Result<(), FilesError> {
        let mut shelf = self.shelf();
        let failure = shelf.turn();
        if !matches!(failure, Some(Failure::Before | Failure::Half)) {
            shelf.write(path, &content)?;
        }
        result(failure)
    }

    async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, FilesError> {
        let mut shelf = self.shelf();
        result(shelf.turn())?;
        Ok(shelf.files.get(path).cloned())
    }

    async fn delete(&self, paths: Vec<String>) -> Result<(), FilesError> {
        let mut shelf = self.shelf();
        let failure = shelf.turn();
        let some = match failure {
            Some(Failure::Before) => 0,
            Some(Failure::Half) => paths.len() / 2,
            Some(Failure::After) | None => paths.len(),
        };
        for path in paths.iter().take(some) {
            shelf.files.remove(path);
        }
        result(failure)
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, FilesError> {
        let mut shelf = self.shelf();
        result(shelf.turn())?;
        let prefix = format!("{folder}/");
        let names = shelf.files.keys().filter_map(|it| it.strip_prefix(&prefix));
        Ok(names.map(str::to_owned).collect())
    }
}

/// What the enclave wrote.
#[derive(Clone)]
struct Written {
    entries: Vec<Vec<u8>>,
    tree: Tree,
    key: SigningKey,
}

impl Written {
    fn new() -> Self {
        Self {
            entries: Vec::new(),
            tree: Tree::new(),
            key: SigningKey::from_bytes(&[3; 32]),
        }
    }

    fn checkpoint(&self) -> Vec<u8> {
        let checkpoint = Checkpoint {
            origin: "log".parse().unwrap(),
            size: self.tree.size(),
            root: self.tree.root(),
        };
        checkpoint.sign(&self.key).to_bytes()
    }

    fn append(&mut self, count: usize) -> Batch {
        let first = self.entries.len();
        for index in first..first + count {
            let entry = format!("entry {index}").into_bytes();
            self.tree.append(leaf_hash(&entry));
            self.entries.push(entry);
        }
        let name = |text: String| BlobName::try_from(text).unwrap();
        let entries = encode_entries(&self.entries[first..]).unwrap();
        Batch {
            blobs: vec![
                (name(format!("log/1/entries/{first:020}")), entries),
                (name("log/1/checkpoint".into()), self.checkpoint()),
            ],
            ..Batch::default()
        }
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let (mut tiles, mut bundles) = (TileWriter::new(), BundleWriter::new());
        let mut all: Vec<(TilePath, Vec<u8>)> =
            tiles.append(self.entries.iter().map(|it| leaf_hash(it)));
        for entry in &self.entries {
            all.extend(bundles.append(entry).unwrap());
        }
        all.extend(tiles.partial());
        all.extend(bundles.partial());
        let mut files: BTreeMap<_, _> = all
            .into_iter()
            .map(|(path, content)| (format!("1/{path}"), content))
            .collect();
        files.insert("1/checkpoint".into(), self.checkpoint());
        files
    }
}

fn start(files: &Memory, store: &Store) -> (Archive, Archiver) {
    let config = ArchiveConfig {
        place: ArchivePlace::Folder("memory".into()),
        quiet: Duration::ZERO,
        every: Duration::ZERO,
    };
    let metrics = Metrics::new("ceo", &[], 0).unwrap();
    Archive::over(
        Box::new(files.clone()),
        &config,
        store.clone(),
        Arc::new(metrics),
    )
}

async fn all_readable(archive: &Archive, written: &Written) {
    for (path, content) in written.files() {
        let read = archive.read(path.parse().unwrap()).await;
        assert_eq!(read.unwrap().unwrap(), content, "{path}");
    }
}

/// Whatever happened, a published checkpoint has its tiles beside it, and they hash to it.
fn published_is_whole(files: &Memory, written: &Written) {
    let files = files.shelf().files.clone();
    let Some(checkpoint) = files.get("1/checkpoint") else {
        return;
    };
    let size = Note::parse(checkpoint).unwrap().size();
    let there = usize::try_from(size).unwrap();
    let mut then = Written::new();
    then.tree
        .extend(written.entries.iter().take(there).map(|it| leaf_hash(it)));
    then.entries = written.entries.iter().take(there).cloned().collect();
    for (path, content) in then.files() {
        assert_eq!(files.get(&path), Some(&content), "{path} of {size}");
    }
}

const TRANSACTIONS: [usize; 5] = [40, 300, 7, 700, 250];

/// Writes and archives, with whatever fails; then once more without.
async fn run(files: &Memory, store: &Store, killed: bool) -> Written {
    let mut written = Written::new();
    let (mut archive, mut archiver) = start(files, store);
    for count in TRANSACTIONS {
        let batch = written.append(count);
        // A transaction that fails is tried again, as the enclave does.
        let again = |batch: &Batch| Batch {
            blobs: batch.blobs.clone(),
            ..Batch::default()
        };
        while store.put(again(&batch)).await.is_err() {}
        if let Err(error) = archiver.pass(false).await {
            assert!(!matches!(error, LogError::Damage(_)), "{error}");
            if killed {
                (archive, archiver) = start(files, store);
            }
            all_readable(&archive, &written).await;
        }
        published_is_whole(files, &written);
    }
    while archiver.pass(true).await.is_err() {}
    // What could not be deleted goes with the next checkpoint.
    files.shelf().fails_in = None;
    let mut more = written.clone();
    while store.put(more.append(3)).await.is_err() {
        more = written.clone();
    }
    written = more;
    while archiver.pass(true).await.is_err() {}
    all_readable(&archive, &written).await;
    // Of 1300 entries, 1280 are in full tiles: these two transactions have others.
    let names = NameFragment::try_from("log/1/entries/".to_owned()).unwrap();
    let left = store.list(names.clone(), names, 100).await.unwrap();
    assert_eq!(
        left,
        [1047, 1297].map(|first| format!("log/1/entries/{first:020}"))
    );
    written
}

#[tokio::test]
async fn whichever_operation_on_files_fails_the_archive_ends_up_whole() {
    let disk = Disk::new();
    let storage = disk.open_store().unwrap();
    let files = Memory::default();
    run(&files, &storage.0, false).await;
    let operations = files.shelf().operations;
    faults::close(storage).await;
    assert!(operations > 25, "files are touched {operations} times");
    for chosen in 0..operations {
        for failure in FAILURES {
            for killed in [false, true] {
                let disk = Disk::new();
                let storage = disk.open_store().unwrap();
                let files = Memory::default();
                files.shelf().fails_in = Some((chosen, failure));
                let written = run(&files, &storage.0, killed).await;
                let found = files.shelf().files.clone();
                let names = |files: &BTreeMap<String, Vec<u8>>| format!("{:?}", files.keys());
                assert_eq!(
                    names(&found),
                    names(&written.files()),
                    "{chosen} {failure:?} {killed}"
                );
                assert_eq!(found, written.files());
                faults::close(storage).await;
            }
        }
    }
}

#[tokio::test]
async fn whichever_operation_of_the_storage_fails_the_archive_ends_up_whole() {
    let disk = Disk::new();
    let storage = disk.open_store().unwrap();
    let before = disk.operations();
    run(&Memory::default(), &storage.0, false).await;
    let operations = disk.operations() - before;
    faults::close(storage).await;
    for chosen in (0..operations).step_by(3) {
        let disk = Disk::new();
        let storage = disk.open_store().unwrap();
        let files = Memory::default();
        disk.fail(chosen, faults::Failure::Once);
        let written = run(&files, &storage.0, false).await;
        assert_eq!(files.shelf().files, written.files(), "{chosen}");
        faults::close(storage).await;
    }
}

#[tokio::test]
async fn a_full_disk_keeps_entries_in_the_storage_and_recovers() {
    let disk = Disk::new();
    let storage = disk.open_store().unwrap();
    let files = Memory::default();
    let (archive, mut archiver) = start(&files, &storage.0);
    let mut written = Written::new();
    files.shelf().capacity = Some(20_000);
    for _ in 0..10 {
        storage.0.put(written.append(200)).await.unwrap();
        let _ = archiver.pass(false).await;
        all_readable(&archive, &written).await;
    }
    let error = archiver.pass(false).await.unwrap_err();
    assert!(error.to_string().contains("no space"), "{error}");
    let extent = archive.extents().await.unwrap()[0];
    assert!(extent.archived < 1000 && extent.size == 2000, "{extent:?}");
    files.shelf().capacity = None;
    archiver.pass(true).await.unwrap();
    assert_eq!(files.shelf().files, written.files());
    drop((archive, archiver));
    faults::close(storage).await;
}

#[tokio::test]
async fn what_came_after_the_last_look_is_not_moved_before_it_is_hashed() {
    let disk = Disk::new();
    let storage = disk.open_store().unwrap();
    let files = Memory::default();
    let (archive, mut archiver) = start(&files, &storage.0);
    let mut written = Written::new();
    storage.0.put(written.append(300)).await.unwrap();
    let (later, store) = (written.append(300), storage.0.clone());
    let runtime = tokio::runtime::Handle::current();
    let step = archive.with_log(1, move |log, reader| {
        runtime.block_on(store.put(later))?;
        log.next_move(reader)
    });
    let step = step.await.unwrap().flatten().unwrap();
    let names: Vec<_> = step.files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["1/tile/entries/000", "1/tile/0/000"]);
    archiver.pass(true).await.unwrap();
    assert_eq!(files.shelf().files, written.files());
    drop((archive, archiver));
    faults::close(storage).await;
}
