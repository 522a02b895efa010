//! Transactions over redb, and opening it again after it failed.
//!
//! redb refuses everything after an I/O error until it is opened again, and then goes back to the last
//! commit whose checksums are right. So a failure here retires the open database; the next call opens it
//! anew, at most once per [`RETRY`].

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use sha2::{Digest as _, Sha256};
use tracing::{error, info, warn};

use super::names::{BlobName, NameFragment};
use super::{Batch, Removal, StorageError, file};
use crate::error::Error;
use crate::metrics::Metrics;

const BLOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("blobs");
/// Sums kept beside the blobs, in the same transactions, so that opening need not count.
const TOTALS: TableDefinition<'_, &str, u64> = TableDefinition::new("totals");
/// What the host remembers for itself.
const OWN: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("own");
/// Bytes of all names and blobs.
const BYTES: &str = "bytes";

/// Between two attempts to open a failed storage.
const RETRY: Duration = Duration::from_millis(500);

/// After a failed write the next ones wait for so many times what opening the file took, so that a full
/// disk does not keep the host checking the whole file over and over.
const HOLD: u32 = 4;
const HOLD_AT_MOST: Duration = Duration::from_secs(10);

/// Opens the database; called again after each failure.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// The database, open or waiting to be opened again.
pub(super) struct Engine {
    opener: Opener,
    path: PathBuf,
    quota_bytes: u64,
    state: RwLock<State>,
    writes: Mutex<Writes>,
    metrics: Arc<Metrics>,
}

enum State {
    Open {
        database: Database,
        generation: u64,
    },
    Failed {
        error: StorageError,
        generation: u64,
        at: Instant,
    },
}

/// What the last write met.
#[derive(Default)]
struct Writes {
    failed: Option<StorageError>,
    hold: Option<Instant>,
    opening_took: Duration,
}

impl Engine {
    pub(super) fn open(
        opener: Opener,
        path: &Path,
        quota_bytes: u64,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let refuse = |problem: String, remedy| Error::Storage {
            path: path.to_owned(),
            problem,
            remedy,
        };
        let opened = guarded(|| {
            let database = opener()?;
            let bytes = prepare(&database)?;
            Ok((database, bytes))
        });
        let (database, bytes) = opened.map_err(|failure| match failure {
            redb::Error::DatabaseAlreadyOpen => refuse(
                "another process has it open".into(),
                "Stop the other host; each party has one host and one storage file",
            ),
            failure if is_full(&failure) => {
                refuse(failure.to_string(), "Free space on its disk")
            }
            failure => refuse(
                format!("cannot be used: {failure}"),
                "If the file is damaged, restore it from a backup: with a new one the enclave would have \
                 none of its shares",
            ),
        })?;
        metrics.storage_bytes.set(bytes as f64);
        Ok(Self {
            opener,
            path: path.to_owned(),
            quota_bytes,
            state: RwLock::new(State::Open {
                database,
                generation: 0,
            }),
            writes: Mutex::new(Writes::default()),
            metrics,
        })
    }

    /// Stores all in one durable transaction, in order; one result for each. A batch that its guard or the quota
    /// refuses does not hinder the rest; a failure is everybody's.
    pub(super) fn put_all<'a>(
        &self,
        batches: impl Iterator<Item = &'a Batch> + Clone,
    ) -> Vec<Result<(), StorageError>> {
        let held = {
            let writes = self.writes();
            writes
                .failed
                .clone()
                .filter(|_| writes.hold.is_some_and(|hold| Instant::now() < hold))
        };
        let failure = match held {
            Some(failure) => failure,
            None => match self.run(|database| self.commit(database, batches.clone())) {
                Ok(results) => {
                    self.writes().failed = None;
                    return results;
                }
                Err(failure) => {
                    let mut writes = self.writes();
                    let hold = (writes.opening_took * HOLD).min(HOLD_AT_MOST);
                    writes.hold = Some(Instant::now() + hold);
                    writes.failed = Some(failure.clone());
                    failure
                }
            },
        };
        batches.map(|_| Err(failure.clone())).collect()
    }

    pub(super) fn get(&self, name: &BlobName) -> Result<Option<Vec<u8>>, StorageError> {
        self.run_again(|database| {
            let table = database.begin_read()?.open_table(BLOBS)?;
            Ok(table.get(name.as_str())?.map(|blob| blob.value().to_vec()))
        })
    }

    /// At most `count` names with a prefix and after another name, ascending.
    pub(super) fn list(
        &self,
        prefix: &NameFragment,
        after: &NameFragment,
        count: usize,
    ) -> Result<Vec<String>, StorageError> {
        let (prefix, after) = (prefix.as_str(), after.as_str());
        let start = if after < prefix {
            Bound::Included(prefix)
        } else {
            Bound::Excluded(after)
        };
        self.run_again(|database| {
            let table = database.begin_read()?.open_table(BLOBS)?;
            let mut names = Vec::new();
            for entry in table.range::<&str>((start, Bound::Unbounded))?.take(count) {
                let (name, _) = entry?;
                if !name.value().starts_with(prefix) {
                    break;
                }
                names.push(name.value().to_owned());
            }
            Ok(names)
        })
    }

    /// Blobs whose names begin with `prefix`, ascending: from the last one that is not after `from`, or else the
    /// first. Ends when they are `bytes` long together, with at least one.
    pub(super) fn scan(
        &self,
        prefix: &str,
        from: &str,
        bytes: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StorageError> {
        self.run_again(|database| {
            let table = database.begin_read()?.open_table(BLOBS)?;
            let mut start = from.to_owned();
            if let Some(before) = table.range::<&str>(prefix..=from)?.next_back() {
                start = before?.0.value().to_owned();
            }
            let (mut found, mut length) = (Vec::new(), 0_usize);
            for blob in table.range::<&str>((Bound::Included(start.as_str()), Bound::Unbounded))? {
                let (name, blob) = blob?;
                let (name, blob) = (name.value(), blob.value());
                length = length.saturating_add(blob.len());
                if !name.starts_with(prefix) || length > bytes && !found.is_empty() {
                    break;
                }
                found.push((name.to_owned(), blob.to_vec()));
            }
            Ok(found)
        })
    }

    pub(super) fn own(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StorageError> {
        self.run_again(|database| {
            let table = match database.begin_read()?.open_table(OWN) {
                Ok(table) => table,
                // A file of before there was one.
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(failure) => return Err(failure.into()),
            };
            let mut found = Vec::new();
            for own in table.range::<&str>(prefix..)? {
                let (key, value) = own?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                found.push((key.value().to_owned(), value.value().to_vec()));
            }
            Ok(found)
        })
    }

    /// A read that finds nothing.
    pub(super) fn probe(&self) -> Result<(), StorageError> {
        self.run_again(|database| {
            database.begin_read()?.open_table(TOTALS)?.get(BYTES)?;
            Ok(())
        })
    }

    pub(super) fn last_write_failed(&self) -> bool {
        self.writes().failed.is_some()
    }

    pub(super) fn measure_file(&self) {
        if let Some(bytes) = file::disk_bytes(&self.path) {
            self.metrics.storage_file_bytes.set(bytes as f64);
        }
    }

    fn writes(&self) -> MutexGuard<'_, Writes> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit<'a>(
        &self,
        database: &Database,
        batches: impl Iterator<Item = &'a Batch>,
    ) -> Result<Vec<Result<(), StorageError>>, redb::Error> {
        let transaction = database.begin_write()?;
        let mut results = Vec::new();
        let mut used;
        {
            let mut totals = transaction.open_table(TOTALS)?;
            let mut blobs = transaction.open_table(BLOBS)?;
            let mut own = transaction.open_table(OWN)?;
            used = totals.get(BYTES)?.map_or(0, |bytes| bytes.value());
            for batch in batches {
                if let Some(guard) = &batch.guard {
                    let there = blobs.get(guard.name.as_str())?;
                    let there = there.map(|blob| <[u8; 32]>::from(Sha256::digest(blob.value())));
                    if there != guard.sha256 {
                        let name = guard.name.as_str().to_owned();
                        results.push(Err(StorageError::Conflict(name)));
                        continue;
                    }
                }
                if let Some(changed) = changed(&blobs, &batch.removals)? {
                    results.push(Err(StorageError::Conflict(changed)));
                    continue;
                }
                let mut new = used;
                for (name, blob) in &batch.blobs {
                    let name = name.as_str();
                    let size = |blob: &[u8]| size(name, blob);
                    let old = blobs.get(name)?.map_or(0, |old| size(old.value()));
                    new = new.saturating_sub(old).saturating_add(size(blob));
                }
                // Over quota, what makes the storage no larger is still welcome.
                if new > self.quota_bytes && new > used {
                    results.push(Err(StorageError::Quota {
                        used,
                        wanted: new - used,
                        quota: self.quota_bytes,
                    }));
                    continue;
                }
                for (name, blob) in &batch.blobs {
                    blobs.insert(name.as_str(), blob.as_slice())?;
                }
                for Removal { name, .. } in &batch.removals {
                    if let Some(old) = blobs.remove(name.as_str())? {
                        new = new.saturating_sub(size(name.as_str(), old.value()));
                    }
                }
                for (key, value) in &batch.own {
                    own.insert(key.as_str(), value.as_slice())?;
                }
                used = new;
                results.push(Ok(()));
            }
            totals.insert(BYTES, used)?;
        }
        transaction.commit()?;
        self.metrics.storage_commits.increment(1);
        self.metrics.storage_bytes.set(used as f64);
        Ok(results)
    }

    /// Runs a read; if it is the one that finds the database failed, once more on the reopened one.
    fn run_again<T>(
        &self,
        read: impl Fn(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StorageError> {
        self.run(&read).or_else(|_| self.run(&read))
    }

    /// Runs on the open database, opening it first if it had failed. A failure retires it.
    fn run<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StorageError> {
        self.reopen_if_failed()?;
        let (failure, generation) = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            match &*state {
                State::Open {
                    database,
                    generation,
                } => match guarded(|| work(database)) {
                    Ok(done) => return Ok(done),
                    Err(failure) => (failure, *generation),
                },
                State::Failed { error, .. } => return Err(error.clone()),
            }
        };
        Err(self.retire(generation, &failure))
    }

    /// Puts a failed database out of use, unless somebody already has.
    fn retire(&self, failed: u64, failure: &redb::Error) -> StorageError {
        let error = if is_full(failure) {
            StorageError::Full(failure.to_string())
        } else {
            StorageError::Fault(failure.to_string())
        };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Open { generation, .. } if *generation == failed => {
                error!(%failure, "storage failed; opening the file again");
                // The old database is closed here; its complaints on the way out add nothing.
                let at = Instant::now()
                    .checked_sub(RETRY)
                    .unwrap_or_else(Instant::now);
                let old = std::mem::replace(
                    &mut *state,
                    State::Failed {
                        error: error.clone(),
                        generation: failed,
                        at,
                    },
                );
                let _ = guarded(|| {
                    drop(old);
                    Ok(())
                });
                error
            }
            // Another call met the same failure first and knows its cause.
            State::Failed { error, .. } => error.clone(),
            State::Open { .. } => error,
        }
    }

    fn reopen_if_failed(&self) -> Result<(), StorageError> {
        if !matches!(
            &*self.state.read().unwrap_or_else(PoisonError::into_inner),
            State::Failed { .. }
        ) {
            return Ok(());
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let State::Failed {
            error,
            generation,
            at,
        } = &mut *state
        else {
            return Ok(());
        };
        if at.elapsed() < RETRY {
            return Err(error.clone());
        }
        let since = Instant::now();
        let opened = guarded(|| {
            let database = (self.opener)()?;
            let bytes = prepare(&database)?;
            Ok((database, bytes))
        });
        self.writes().opening_took = since.elapsed();
        match opened {
            Ok((database, bytes)) => {
                info!("storage is open again");
                self.metrics.storage_reopens.increment(1);
                self.metrics.storage_bytes.set(bytes as f64);
                let generation = generation.wrapping_add(1);
                *state = State::Open {
                    database,
                    generation,
                };
                Ok(())
            }
            Err(failure) => {
                warn!(%failure, "storage cannot be opened yet");
                *at = Instant::now();
                *error = if is_full(&failure) {
                    StorageError::Full(failure.to_string())
                } else {
                    StorageError::Fault(failure.to_string())
                };
                Err(error.clone())
            }
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// The first of the blobs to be removed that is another one by now. One that is gone already is as it should be.
fn changed(
    blobs: &impl ReadableTable<&'static str, &'static [u8]>,
    removals: &[Removal],
) -> Result<Option<String>, redb::Error> {
    for Removal { name, sha256 } in removals {
        let there = blobs.get(name.as_str())?;
        if there.is_some_and(|blob| <[u8; 32]>::from(Sha256::digest(blob.value())) != *sha256) {
            return Ok(Some(name.as_str().to_owned()));
        }
    }
    Ok(None)
}

/// What a blob counts against the quota.
fn size(name: &str, blob: &[u8]) -> u64 {
    (name.len() as u64).saturating_add(blob.len() as u64)
}

/// Makes the tables if there are none, and returns how many bytes are stored.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let read = database.begin_read()?;
    match read.open_table(TOTALS) {
        Ok(totals) => return Ok(totals.get(BYTES)?.map_or(0, |bytes| bytes.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(failure) => return Err(failure.into()),
    }
    drop(read);
    let transaction = database.begin_write()?;
    transaction.open_table(BLOBS)?;
    transaction.open_table(TOTALS)?.insert(BYTES, 0)?;
    transaction.commit()?;
    Ok(0)
}

/// Runs redb so that a panic of its own, which a damaged file can cause, is a failure like another.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(redb::Error::Corrupted(
            "the file made the storage engine panic".into(),
        ))
    })
}

/// Whether a failure is for want of space.
fn is_full(failure: &redb::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match failure {
        redb::Error::Io(error) => {
            matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
        }
        _ => false,
    }
}
