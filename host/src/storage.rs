//! Storage of sealed blobs: one redb file, one writer that lets concurrent batches share a commit.
//!
//! A put returns when its transaction is durable. All batches that wait while one transaction commits go
//! into the next together, so that throughput grows with load while a lone one waits for one commit only.

mod engine;
#[cfg(test)]
pub(crate) mod faults;
mod file;
mod names;
mod service;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::StorageConfig;
use crate::error::Error;
use crate::metrics::Metrics;
use engine::{Engine, Opener};
pub(crate) use names::{BlobName, NameFragment};
pub(crate) use service::serve;

/// Largest blob, from `arca/v1/host.proto`.
pub(crate) const MAX_BLOB: usize = 1024 * 1024;
/// Most blobs of one batch, and most of their bytes.
pub(crate) const MAX_BATCH: (usize, usize) = (1024, 8 * MAX_BLOB);

/// Batches that wait for the writer; a full queue holds the callers back, which bounds memory.
const QUEUE: usize = 64;
/// Batches in one transaction.
const TOGETHER: usize = 256;
/// Bytes after which a transaction takes no further batch.
const TOGETHER_BYTES: usize = 8 * 1024 * 1024;

/// The storage, shared by whoever needs it.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    engine: Arc<Engine>,
    writer: mpsc::Sender<Job>,
    log_written: Arc<Notify>,
}

/// Reads that block.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a Engine);

/// What the names of the audit log's blobs begin with.
pub(crate) const LOG: &str = "log/";

/// The thread that writes.
#[derive(Debug)]
pub(crate) struct Writer(JoinHandle<()>);

/// Why a blob is not stored or not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StorageError {
    #[error(
        "storage.quota_bytes is used up: {used} of {quota} bytes stored, {wanted} more wanted; \
         raise storage.quota_bytes at the host"
    )]
    Quota { used: u64, wanted: u64, quota: u64 },
    #[error(
        "{waiting} bytes of the audit log wait to be archived; see that the archive's folder or bucket can be \
         written (the host's log says why not)"
    )]
    Backlog { waiting: u64 },
    #[error("the host's disk is full ({0}); free space or move the storage file")]
    Full(String),
    #[error("the host's storage failed: {0}; see the host's log")]
    Fault(String),
    #[error("{0} is not the blob that this batch was to follow; nothing of it was stored")]
    Conflict(String),
    #[error("the host is shutting down")]
    Stopped,
}

/// A batch and who waits for it. Without blobs it probes whether commits succeed.
#[derive(Debug)]
struct Job {
    batch: Batch,
    done: oneshot::Sender<Result<(), StorageError>>,
}

/// Blobs that are stored together or not at all.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub blobs: Vec<(BlobName, Vec<u8>)>,
    /// What has to be there for it to be stored.
    pub guard: Option<Guard>,
    /// What goes, unless it is something else by now: then nothing of the batch happens.
    pub removals: Vec<Removal>,
    /// What the host remembers for itself, by key; no call of the enclave reaches it.
    pub own: Vec<(String, Vec<u8>)>,
}

/// A blob that is to go: by name, and by the SHA-256 that it had when whoever removes it read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    pub name: BlobName,
    pub sha256: [u8; 32],
}

/// A blob by its SHA-256, or that there is none of the name.
#[derive(Debug)]
pub(crate) struct Guard {
    pub name: BlobName,
    pub sha256: Option<[u8; 32]>,
}

impl Store {
    /// Opens the storage file of the configuration, making it if there is none, and starts the writer.
    /// Blocks, after a crash for as long as it takes to check the whole file.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub(crate) fn open(
        config: &StorageConfig,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Writer), Error> {
        let opener = file::opener(&config.path)?;
        Self::open_with(opener, &config.path, config.quota_bytes, metrics)
    }

    fn open_with(
        opener: Opener,
        path: &Path,
        quota_bytes: u64,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Writer), Error> {
        let engine = Arc::new(Engine::open(opener, path, quota_bytes, metrics)?);
        let (writer, jobs) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("storage-writer".into());
        let running = Arc::clone(&engine);
        let thread = thread
            .spawn(move || write(&running, jobs))
            .map_err(|error| Error::Storage {
                path: path.to_owned(),
                problem: format!("cannot start the writer thread: {error}"),
                remedy: "Raise the account's limit on processes",
            })?;
        let log_written = Arc::default();
        let store = Self {
            engine,
            writer,
            log_written,
        };
        Ok((store, Writer(thread)))
    }

    /// Stores a batch, whole. Durable when this returns; after a fault it may or may not be there.
    pub(crate) async fn put(&self, batch: Batch) -> Result<(), StorageError> {
        let of_log = batch
            .blobs
            .iter()
            .any(|(name, _)| name.as_str().starts_with(LOG));
        self.submit(batch).await?;
        if of_log {
            self.log_written.notify_one();
        }
        Ok(())
    }

    pub(crate) async fn get(&self, name: BlobName) -> Result<Option<Vec<u8>>, StorageError> {
        self.read(move |engine| engine.get(&name)).await
    }

    pub(crate) async fn list(
        &self,
        prefix: NameFragment,
        after: NameFragment,
        count: usize,
    ) -> Result<Vec<String>, StorageError> {
        self.read(move |engine| engine.list(&prefix, &after, count))
            .await
    }

    /// Runs reads off the runtime's threads, as many as `work` makes.
    pub(crate) async fn reading<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader<'_>) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.read(move |engine| work(&Reader(engine))).await
    }

    /// Wakes up whoever waits for it once after blobs of the log were stored.
    pub(crate) fn log_written(&self) -> &Notify {
        &self.log_written
    }

    /// Whether blobs can be read and written; after a failed write this tries one.
    pub(crate) async fn usable(&self) -> Result<(), StorageError> {
        if self.engine.last_write_failed() {
            return self.submit(Batch::default()).await;
        }
        self.read(Engine::probe).await
    }

    /// Brings the metric of the file's size up to date.
    pub(crate) fn measure_file(&self) {
        self.engine.measure_file();
    }

    async fn submit(&self, batch: Batch) -> Result<(), StorageError> {
        let (done, answer) = oneshot::channel();
        let sent = self.writer.send(Job { batch, done }).await;
        sent.map_err(|_| StorageError::Stopped)?;
        answer.await.map_err(|_| StorageError::Stopped)?
    }

    /// Runs a read off the runtime's threads.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let engine = Arc::clone(&self.engine);
        let read = tokio::task::spawn_blocking(move || read(&engine)).await;
        read.map_err(|error| StorageError::Fault(error.to_string()))?
    }

    /// Lets go of the storage; the writer ends when everybody has.
    pub(crate) fn close(self) {}
}

impl Reader<'_> {
    pub(crate) fn list(
        &self,
        prefix: &NameFragment,
        after: &NameFragment,
        count: usize,
    ) -> Result<Vec<String>, StorageError> {
        self.0.list(prefix, after, count)
    }

    /// Blobs whose names begin with `prefix`, ascending, from the one named `prefix` + `from` on; if there is none of
    /// that name, from the last one before it. Ends when they are `bytes` long together, with at least one.
    pub(crate) fn scan(
        &self,
        prefix: &str,
        from: &str,
        bytes: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StorageError> {
        self.0.scan(prefix, &format!("{prefix}{from}"), bytes)
    }

    /// What the host remembers for itself under keys that begin with `prefix`.
    pub(crate) fn own(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StorageError> {
        self.0.own(prefix)
    }
}

impl Writer {
    /// Waits until everything accepted is written and the file is closed. Blocks.
    pub(crate) fn join(self) {
        // A panic of the writer was reported when it happened.
        let _ = self.0.join();
    }
}

/// The writer: takes what waits, commits it as one transaction, answers everybody.
fn write(engine: &Engine, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut bytes = first.bytes();
        let mut together = vec![first];
        while together.len() < TOGETHER && bytes < TOGETHER_BYTES {
            let Ok(next) = jobs.try_recv() else { break };
            bytes += next.bytes();
            together.push(next);
        }
        let results = engine.put_all(together.iter().map(|job| &job.batch));
        for (job, result) in together.into_iter().zip(results) {
            // A caller that stopped waiting does not need the answer.
            let _ = job.done.send(result);
        }
    }
}

impl Job {
    fn bytes(&self) -> usize {
        self.batch.blobs.iter().map(|(_, blob)| blob.len()).sum()
    }
}
