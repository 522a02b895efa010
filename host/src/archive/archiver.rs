//! What fills the archive: one task, one pass at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arca_audit::tile::TilePath;
use arca_audit::writer::{BundleWriter, TileWriter, Tiles};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, info, warn};

use super::log::edge_tiles;
use super::notes::Note;
use super::path::FileName;
use super::{Archive, Damage, LogError, LogPath, fragment, in_full_tiles};
use crate::config::ArchiveConfig;
use crate::stop::Stop;
use crate::storage::{Batch, BlobName, LOG, Removal, StorageError};

/// Between two passes: what comes in meanwhile is moved together.
const PACE: Duration = Duration::from_millis(50);
/// After a failure, doubled with each that follows it.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_AT_MOST: Duration = Duration::from_secs(60);
/// For the last pass, at shutdown.
const FINISH: Duration = Duration::from_secs(5);
/// Moves of one log in a pass, so that none keeps the others waiting.
const MOVES: usize = 64;
/// Files that entries name, moved at once.
const FILES: usize = 64;

/// Moves the log into the archive.
#[derive(Debug)]
pub(crate) struct Archiver {
    archive: Archive,
    quiet: Duration,
    every: Duration,
    logs: BTreeMap<u64, Progress>,
    failures: u32,
}

/// What the archiver knows of a log.
#[derive(Debug, Default)]
struct Progress {
    /// Whether what the archive had at the start was found to be this log.
    checked: bool,
    /// Whether it is left alone until the host starts again.
    stopped: bool,
    /// The enclave's checkpoint that is not published yet.
    due: Option<Due>,
    /// Partial tiles that may be there and that a published checkpoint may have outgrown.
    partial: BTreeSet<TilePath>,
}

/// A checkpoint on its way, and since when there has been one.
#[derive(Debug)]
struct Due {
    note: Note,
    since: Instant,
    changed: Instant,
}

impl Archiver {
    pub(super) fn new(archive: Archive, config: &ArchiveConfig) -> Self {
        Self {
            archive,
            quiet: config.quiet,
            every: config.every,
            logs: BTreeMap::new(),
            failures: 0,
        }
    }

    /// Runs until told to stop; the last pass publishes what there is.
    pub(crate) async fn run(mut self, mut stop: Stop) {
        let mut next = Instant::now();
        loop {
            let store = self.archive.0.store.clone();
            tokio::select! {
                () = stop.stopping() => break,
                () = sleep_until(next) => next = self.turn().await,
                () = store.log_written().notified() => if self.failures == 0 {
                    next = self.turn().await;
                } else {
                    // How much waits is told all the same; an error is that of the turn before.
                    let _ = self.count().await;
                },
            }
            tokio::select! {
                () = stop.stopping() => break,
                () = tokio::time::sleep(PACE) => {}
            }
        }
        match timeout(FINISH, self.pass(true)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                warn!(%error, "the audit log's last entries stay in the storage file until the next start")
            }
            Err(_) => warn!(
                "the audit log's last entries stay in the storage file until the next start: the archive is slow"
            ),
        }
    }

    /// One pass; when the next one is due if nothing is written until then.
    async fn turn(&mut self) -> Instant {
        match self.pass(false).await {
            Ok(next) => {
                if self.failures > 0 {
                    info!("the audit log is archived again");
                }
                self.failures = 0;
                next
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let wait = RETRY.saturating_mul(1 << (self.failures - 1).min(16));
                let wait = wait.min(RETRY_AT_MOST);
                self.archive.0.metrics.archive_failed(match &error {
                    LogError::Files(error) => error.label(),
                    LogError::Storage(_) => "storage",
                    LogError::Damage(_) => "damage",
                });
                warn!(%error, retry_in = ?wait, "the audit log cannot be archived at the moment; its entries stay in the storage file");
                Instant::now() + wait
            }
        }
    }

    pub(super) async fn pass(&mut self, last: bool) -> Result<Instant, LogError> {
        // The count first: it is what shows that the rest does not get on.
        let counted = self.count().await;
        self.move_files().await?;
        let mut next = Instant::now() + RETRY_AT_MOST;
        for number in self.archive.numbers().await? {
            let progress = self.logs.entry(number).or_default();
            if progress.stopped {
                continue;
            }
            match self.pass_log(number, last).await {
                Ok(due) => next = next.min(due),
                Err(LogError::Damage(damage)) => {
                    self.archive.0.metrics.archive_failed("damage");
                    error!(log = number, %damage, "the audit log is no longer archived; its entries stay in the storage file");
                    self.logs.entry(number).or_default().stopped = true;
                }
                Err(error) => return Err(error),
            }
        }
        counted?;
        self.count().await?;
        Ok(next)
    }

    /// Brings the metrics up to date.
    async fn count(&self) -> Result<(), LogError> {
        let mut waiting = 0;
        let mut entries = 0;
        for number in self.archive.numbers().await? {
            match self.archive.extent(number).await {
                Ok(extent) => {
                    waiting += extent.size.saturating_sub(extent.archived);
                    entries += extent.size;
                }
                // Said where it is moved.
                Err(LogError::Damage(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let metrics = &self.archive.0.metrics;
        metrics.log_unarchived.set(waiting as f64);
        metrics.log_entries.set(entries as f64);
        let stopped = self.logs.values().filter(|log| log.stopped).count();
        metrics.log_stopped.set(stopped as f64);
        Ok(())
    }

    /// Moves a log's full tiles and, when it is time, publishes its checkpoint. When it is to be looked at again.
    async fn pass_log(&mut self, number: u64, last: bool) -> Result<Instant, LogError> {
        if !self.logs.entry(number).or_default().checked {
            self.check(number).await?;
            self.logs.entry(number).or_default().checked = true;
        }
        let mut moves = 0;
        while self.move_tiles(number).await? {
            moves += 1;
            if moves == MOVES && !last {
                return Ok(Instant::now());
            }
        }
        self.keep_cosignatures(number).await?;
        self.publish(number, last).await
    }

    /// Whether what the archive has is the beginning of this log.
    async fn check(&self, number: u64) -> Result<(), LogError> {
        let Self { archive, .. } = self;
        let extent = archive.extent(number).await?;
        let moved = archive.with_log(number, |log, _| Ok(log.moved())).await?;
        if let Some(path) = moved.and_then(last_bundle) {
            let path = LogPath::Tile(number, path).to_string();
            if archive.0.files.read(&path).await?.is_none() {
                return Err(Damage::Lost { path }.into());
            }
        }
        let cosigned = LogPath::Cosignatures(number).to_string();
        if let Some(content) = archive.0.files.read(&cosigned).await?
            && let Some(note) = Note::parse(&content)
        {
            archive.0.notes.remember_cosigned(number, note);
        }
        let path = LogPath::Checkpoint(number).to_string();
        let Some(content) = archive.0.files.read(&path).await? else {
            return self.tidy(number, 0).await;
        };
        let differs = || Damage::Differs { what: path.clone() };
        let published = Note::parse(&content).ok_or_else(differs)?;
        if let Some(stored) = archive.stored_checkpoint(number).await?
            && stored.origin() != published.origin()
        {
            return Err(differs().into());
        }
        if published.size() > extent.size {
            warn!(
                log = number,
                archived = published.size(),
                stored = extent.size,
                "the archive has more of the audit log than the storage file: was an older one brought back?"
            );
        } else if archive.root_at(number, published.size()).await? != *published.root() {
            return Err(differs().into());
        }
        self.tidy(number, published.size()).await?;
        archive.0.notes.publish(number, published);
        Ok(())
    }

    /// Moves the next full tiles; false when there are none.
    async fn move_tiles(&self, number: u64) -> Result<bool, LogError> {
        let Self { archive, .. } = self;
        let next = archive.with_log(number, |log, reader| log.next_move(reader));
        let Some(step) = next.await?.flatten() else {
            return Ok(false);
        };
        archive.0.files.create(step.files.clone()).await?;
        if let Some(log) = archive.0.logs().get_mut(&number) {
            log.moved_to(&step);
        }
        let published = archive.0.notes.published(number);
        let published = published.map_or(0, |published| published.size());
        match archive.0.store.put(step.into_batch(published)).await {
            Ok(()) => Ok(true),
            Err(error) => {
                // Whether it happened is open, so the database has to say.
                archive.forget(number);
                Err(match error {
                    StorageError::Conflict(_) => Damage::Changed.into(),
                    error => error.into(),
                })
            }
        }
    }

    /// Moves the files that entries name.
    async fn move_files(&self) -> Result<(), LogError> {
        let Self { archive, .. } = self;
        let prefix = format!("{LOG}files/");
        let mut after = String::new();
        loop {
            let names =
                archive
                    .0
                    .store
                    .list(fragment(prefix.clone())?, fragment(after.clone())?, FILES);
            let names = names.await?;
            let Some(last) = names.last() else {
                return Ok(());
            };
            after.clone_from(last);
            let (mut files, mut removals) = (Vec::new(), Vec::new());
            for name in names {
                let blob_name = BlobName::try_from(name.clone()).map_err(|_| Damage::Name)?;
                let Some(blob) = archive.0.store.get(blob_name.clone()).await? else {
                    continue;
                };
                let sha256: [u8; 32] = Sha256::digest(&blob).into();
                let is_named = name.strip_prefix(&prefix).and_then(|it| it.parse().ok());
                let Some(path) = is_named.filter(|name: &FileName| name.as_str() == hex(&sha256))
                else {
                    // Nothing of the log names it, so nobody misses it.
                    warn!(
                        name,
                        "a file of the audit log is not named by its SHA-256; it stays in the storage file"
                    );
                    continue;
                };
                files.push((LogPath::File(path).to_string(), Bytes::from(blob)));
                removals.push(Removal {
                    name: blob_name,
                    sha256,
                });
            }
            archive.0.files.create(files).await?;
            let batch = Batch {
                removals,
                ..Batch::default()
            };
            if !batch.removals.is_empty() {
                archive.0.store.put(batch).await?;
            }
        }
    }

    async fn keep_cosignatures(&self, number: u64) -> Result<(), LogError> {
        let inner = &self.archive.0;
        if let Some(note) = inner.notes.to_keep(number) {
            let path = LogPath::Cosignatures(number).to_string();
            inner.files.replace(&path, note.to_bytes().into()).await?;
            inner.notes.kept(number, &note);
        }
        Ok(())
    }

    /// Publishes the enclave's checkpoint when it is time. When it will be.
    async fn publish(&mut self, number: u64, last: bool) -> Result<Instant, LogError> {
        let (quiet, every) = (self.quiet, self.every);
        let idle = Instant::now() + RETRY_AT_MOST;
        let archive = self.archive.clone();
        let published = archive.0.notes.published(number);
        let Some(stored) = archive.stored_checkpoint(number).await? else {
            return Ok(idle);
        };
        let mut note = stored;
        if let Some(published) = &published {
            if published.size() > note.size() {
                return Ok(idle);
            }
            note = note.with_signatures_of(published);
        }
        if let Some(cosigned) = archive.0.notes.cosigned(number) {
            note = note.with_signatures_of(&cosigned);
        }
        let progress = self.logs.entry(number).or_default();
        if published.as_ref() == Some(&note) {
            progress.due = None;
            return Ok(idle);
        }
        let now = Instant::now();
        let due = match progress.due.take() {
            Some(due) if due.note == note => due,
            Some(due) => Due {
                note,
                changed: now,
                ..due
            },
            None => Due {
                note,
                since: now,
                changed: now,
            },
        };
        let at = (due.changed + quiet).min(due.since + every);
        if at > now && !last {
            progress.due = Some(due);
            return Ok(at);
        }
        let extent = archive.extent(number).await?;
        let moved = archive.with_log(number, |log, _| Ok(log.moved())).await?;
        if due.note.size() > extent.size {
            return Err(Damage::Checkpoint.into());
        }
        if moved.unwrap_or(0) < in_full_tiles(due.note.size()) {
            // Some came since they were moved.
            progress.due = Some(due);
            return Ok(now);
        }
        self.publish_now(number, due.note).await?;
        Ok(idle)
    }

    async fn publish_now(&mut self, number: u64, note: Note) -> Result<(), LogError> {
        let archive = self.archive.clone();
        let size = note.size();
        let mut partial = Tiles::new();
        for path in partial_tiles(size) {
            partial.insert(path, archive.needed_tile(number, path).await?);
        }
        if TileWriter::resume(size, &partial)?.tree().root() != *note.root() {
            return Err(Damage::Root { size }.into());
        }
        let name = |path: &TilePath| LogPath::Tile(number, *path).to_string();
        let progress = self.logs.entry(number).or_default();
        if let Some(published) = archive.0.notes.published(number) {
            progress.partial.extend(partial_tiles(published.size()));
        }
        progress.partial.extend(partial.keys().copied());
        let files = partial
            .iter()
            .map(|(path, it)| (name(path), it.clone().into()));
        archive.0.files.create(files.collect()).await?;
        let checkpoint = LogPath::Checkpoint(number).to_string();
        let content = note.to_bytes().into();
        archive.0.files.replace(&checkpoint, content).await?;
        archive.0.notes.publish(number, note);

        let outgrown = progress
            .partial
            .iter()
            .filter(|path| !partial.contains_key(path));
        match archive.0.files.delete(outgrown.map(name).collect()).await {
            Ok(()) => progress.partial.clear(),
            // They do no harm, and go with the next.
            Err(error) => warn!(%error, "partial tiles that are outgrown stay in the archive"),
        }
        Ok(())
    }

    /// Deletes partial tiles that a killed host left behind: those of a checkpoint that it did not publish any more, or
    /// that the one it published had outgrown.
    async fn tidy(&self, number: u64, published: u64) -> Result<(), LogError> {
        let Self { archive, .. } = self;
        let edges = archive
            .with_log(number, |log, _| Ok(log.old_edges()))
            .await?;
        let mut edges = edges.unwrap_or_default();
        edges.extend(edge_tiles(published).map(|path| path.full()));
        let needed: BTreeSet<TilePath> = partial_tiles(published).collect();
        let mut left = Vec::new();
        for path in edges {
            let folder = format!("{}.p", LogPath::Tile(number, path));
            for width in archive.0.files.list(&folder).await? {
                let width = width.parse().ok();
                let found = width.and_then(|it| TilePath::new(path.kind(), path.index(), it).ok());
                if let Some(found) = found.filter(|found| !needed.contains(found)) {
                    left.push(LogPath::Tile(number, found).to_string());
                }
            }
        }
        Ok(archive.0.files.delete(left).await?)
    }
}

/// All partial tiles of a log of this size: the bundle of entries, and hashes.
fn partial_tiles(size: u64) -> impl Iterator<Item = TilePath> {
    BundleWriter::needed(size)
        .into_iter()
        .chain(TileWriter::needed(size))
}

/// The last full bundle of entries of so many.
fn last_bundle(moved: u64) -> Option<TilePath> {
    let kind = arca_audit::tile::TileKind::Entries;
    let index = (moved / u64::from(arca_audit::tile::TILE_WIDTH)).checked_sub(1)?;
    TilePath::in_log(kind, index, moved)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
