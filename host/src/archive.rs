//! The archive of the audit log: immutable files in the layout of C2SP tlog-tiles, in a folder or a bucket.
//!
//! The enclave writes its log into the database, in the transactions of its other state
//! (`docs/audit-log.md`, "What the host stores"). The [`Archiver`] moves it from there into files; an [`Archive`]
//! reads both as one. Nothing here is trusted: the enclave and auditors check all of it.
//!
//! In this order, so that a crash between any two steps is harmless: full tiles are made durable, reads go to them,
//! then one transaction removes their blobs and remembers how far they went. A checkpoint is published when all of
//! its tiles are there. Nothing is ever deleted but partial tiles that a later checkpoint has outgrown.

mod archiver;
#[cfg(test)]
mod faults;
mod files;
mod log;
mod notes;
mod path;
mod witness;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arca_audit::Hash;
use arca_audit::tile::{TILE_WIDTH, TilePath};
use arca_audit::writer::{TileWriter, Tiles};

use crate::config::ArchiveConfig;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::storage::{BlobName, LOG, NameFragment, Reader, StorageError, Store};
pub(crate) use archiver::Archiver;
use files::Files;
pub(crate) use files::FilesError;
use log::{Log, Tile};
use notes::{Note, Notes};
pub(crate) use path::{LogPath, NoLogPath};
pub(crate) use witness::watch;

/// Logs that are looked at. A party begins one with each loss that its administrators accept.
const MAX_LOGS: usize = 1024;
/// After all names of a log's blobs.
const LAST: &str = "zz";

/// The audit log as the host has it, in files and in the database. Shared by whoever reads it.
#[derive(Clone, Debug)]
pub(crate) struct Archive(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    files: Box<dyn Files>,
    /// Those that were looked at so far.
    logs: Mutex<BTreeMap<u64, Log>>,
    notes: Notes,
    metrics: Arc<Metrics>,
}

/// How much there is of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub number: u64,
    /// Entries.
    pub size: u64,
    /// Entries of the newest checkpoint.
    pub checkpoint_size: u64,
    /// Entries that are in files.
    pub archived: u64,
}

/// Why the log is not read or not moved.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Files(FilesError),
    #[error(transparent)]
    Damage(#[from] Damage),
}

/// What cannot mend itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    #[error(
        "what the host remembers of it in its storage file is damaged; restore the storage file"
    )]
    Remembered,
    #[error("a blob of its entries has an impossible name")]
    Name,
    #[error("a blob of its entries cannot be read as entries")]
    Entries,
    #[error(
        "entry {expected} is neither in the archive nor in the storage file, and later ones are"
    )]
    Gap { expected: u64 },
    #[error(
        "blobs of its entries were changed while they were moved: does a second enclave write there?"
    )]
    Changed,
    #[error("the enclave's checkpoint cannot be read, or is of more entries than there are")]
    Checkpoint,
    #[error("its entries do not hash to the root of the enclave's checkpoint of {size} entries")]
    Root { size: u64 },
    #[error(
        "the archive lacks {path}, which was moved there. Is it the right folder or bucket, is its disk mounted? \
         Bring the archive back and restart the host"
    )]
    Lost { path: String },
    #[error(
        "the archive holds other entries than this party's log: {what} differs. A storage file was taken back, or it \
         is the archive of another party. Keep a copy of both for the auditors; then move what differs out of the \
         archive, or name another one, and restart the host"
    )]
    Differs { what: String },
    #[error("bug: {0}")]
    Bug(arca_audit::Error),
}

impl From<FilesError> for LogError {
    fn from(error: FilesError) -> Self {
        match error {
            FilesError::Differs { what } => Damage::Differs { what }.into(),
            unavailable @ FilesError::Unavailable { .. } => Self::Files(unavailable),
        }
    }
}

impl From<arca_audit::Error> for LogError {
    fn from(error: arca_audit::Error) -> Self {
        Damage::Bug(error).into()
    }
}

impl Archive {
    /// The archive of the configuration, and what fills it. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Archive`], when it could never be used. A bucket that cannot be reached is no error.
    pub(crate) fn open(
        config: &ArchiveConfig,
        store: Store,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Archiver), Error> {
        Ok(Self::over(files::open(config)?, config, store, metrics))
    }

    fn over(
        files: Box<dyn Files>,
        config: &ArchiveConfig,
        store: Store,
        metrics: Arc<Metrics>,
    ) -> (Self, Archiver) {
        let archive = Self(Arc::new(Inner {
            store,
            files,
            logs: Mutex::default(),
            notes: Notes::default(),
            metrics,
        }));
        (archive.clone(), Archiver::new(archive, config))
    }

    /// A file of the archive, moved there already or not; none when there is no such file.
    pub(crate) async fn read(&self, path: LogPath) -> Result<Option<Vec<u8>>, LogError> {
        match path {
            LogPath::Tile(number, tile) => self.tile(number, tile).await,
            LogPath::Checkpoint(number) => {
                let newest = self.newest_checkpoint(number).await?;
                Ok(newest.map(|note| note.to_bytes()))
            }
            LogPath::Cosignatures(number) => match self.0.notes.cosigned(number) {
                Some(note) => Ok(Some(note.to_bytes())),
                None => Ok(self.0.files.read(&path.to_string()).await?),
            },
            LogPath::File(name) => {
                let blob = BlobName::try_from(format!("{LOG}files/{}", name.as_str()));
                if let Ok(blob) = blob
                    && let Some(content) = self.0.store.get(blob).await?
                {
                    return Ok(Some(content));
                }
                let path = LogPath::File(name).to_string();
                Ok(self.0.files.read(&path).await?)
            }
        }
    }

    /// All logs that there is anything of, in ascending order.
    pub(crate) async fn extents(&self) -> Result<Vec<Extent>, LogError> {
        let mut extents = Vec::new();
        for number in self.numbers().await? {
            extents.push(self.extent(number).await?);
        }
        Ok(extents)
    }

    async fn extent(&self, number: u64) -> Result<Extent, LogError> {
        let sizes = self.with_log(number, |log, _| Ok((log.size(), log.moved())));
        let (size, moved) = sizes.await?.unwrap_or_default();
        let checkpoint = self.stored_checkpoint(number).await?;
        let published = self.0.notes.published(number);
        let published = published.map_or(0, |note| note.size());
        Ok(Extent {
            number,
            size,
            checkpoint_size: checkpoint.map_or(0, |note| note.size()).max(published),
            archived: moved.max(published.min(size)),
        })
    }

    async fn tile(&self, number: u64, path: TilePath) -> Result<Option<Vec<u8>>, LogError> {
        let found = self.with_log(number, move |log, reader| log.tile(path, reader));
        match found.await? {
            Some(Tile::Content(content)) => Ok(Some(content)),
            Some(Tile::Archived) => {
                let full = LogPath::Tile(number, path.full()).to_string();
                match self.0.files.read(&full).await? {
                    Some(content) => narrowed(path, &content, &full).map(Some),
                    None => Err(Damage::Lost { path: full }.into()),
                }
            }
            Some(Tile::Beyond) | None => self.beyond(number, path).await,
        }
    }

    /// A tile of which the database knows nothing: it is an older one than the archive, or a new one.
    async fn beyond(&self, number: u64, path: TilePath) -> Result<Option<Vec<u8>>, LogError> {
        let full = LogPath::Tile(number, path.full()).to_string();
        if let Some(content) = self.0.files.read(&full).await? {
            return narrowed(path, &content, &full).map(Some);
        }
        if path.is_full() {
            return Ok(None);
        }
        let folder = format!("{full}.p");
        let widths = self.0.files.list(&folder).await?;
        let widths = widths.iter().filter_map(|width| width.parse::<u16>().ok());
        let widest = widths.max().filter(|width| *width >= path.width());
        let Some(widest) = widest else {
            return Ok(None);
        };
        let at = format!("{folder}/{widest}");
        match self.0.files.read(&at).await? {
            Some(content) => narrowed(path, &content, &at).map(Some),
            None => Ok(None),
        }
    }

    /// Root of the first `size` entries of a log, from its tiles.
    async fn root_at(&self, number: u64, size: u64) -> Result<Hash, LogError> {
        let mut tiles = Tiles::new();
        for path in TileWriter::needed(size) {
            tiles.insert(path, self.needed_tile(number, path).await?);
        }
        Ok(TileWriter::resume(size, &tiles)?.tree().root())
    }

    /// A tile that is known to be there.
    async fn needed_tile(&self, number: u64, path: TilePath) -> Result<Vec<u8>, LogError> {
        let tile = self.tile(number, path).await?;
        tile.ok_or_else(|| {
            let path = LogPath::Tile(number, path).to_string();
            Damage::Lost { path }.into()
        })
    }

    /// The enclave's newest checkpoint.
    async fn stored_checkpoint(&self, number: u64) -> Result<Option<Note>, LogError> {
        let name = BlobName::try_from(format!("{LOG}{number}/checkpoint"));
        let name = name.map_err(|_| Damage::Name)?;
        let Some(blob) = self.0.store.get(name).await? else {
            return Ok(None);
        };
        let note = Note::parse(&blob).ok_or(Damage::Checkpoint)?;
        Ok(Some(note))
    }

    /// The newest checkpoint, with every signature that is known of it.
    async fn newest_checkpoint(&self, number: u64) -> Result<Option<Note>, LogError> {
        let stored = self.stored_checkpoint(number).await?;
        let published = match self.0.notes.published(number) {
            Some(note) => Some(note),
            None => match self
                .0
                .files
                .read(&LogPath::Checkpoint(number).to_string())
                .await
            {
                Ok(content) => content.and_then(|content| Note::parse(&content)),
                // The enclave's own is as good.
                Err(_) if stored.is_some() => None,
                Err(error) => return Err(error.into()),
            },
        };
        let newest = match (stored, published) {
            (Some(stored), Some(published)) if published.size() > stored.size() => published,
            (Some(stored), Some(published)) => stored.with_signatures_of(&published),
            (stored, published) => match stored.or(published) {
                Some(one) => one,
                None => return Ok(None),
            },
        };
        Ok(Some(match self.0.notes.cosigned(number) {
            Some(cosigned) => newest.with_signatures_of(&cosigned),
            None => newest,
        }))
    }

    /// Numbers of all logs that the database has anything of.
    async fn numbers(&self) -> Result<BTreeSet<u64>, LogError> {
        Ok(self.0.store.reading(numbers).await?)
    }

    /// Works with a log as it is now; none when the database has nothing of it.
    async fn with_log<T: Send + 'static>(
        &self,
        number: u64,
        work: impl FnOnce(&mut Log, &Reader<'_>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<Option<T>, LogError> {
        let inner = Arc::clone(&self.0);
        let worked = self.0.store.reading(move |reader| {
            let mut logs = inner.logs();
            let worked = open(&mut logs, number, reader).and_then(|log| {
                let Some(log) = log else { return Ok(None) };
                log.catch_up(reader)?;
                work(log, reader).map(Some)
            });
            Ok(worked)
        });
        worked.await?
    }

    /// Has a log be read from the database anew.
    fn forget(&self, number: u64) {
        self.0.logs().remove(&number);
    }
}

impl Inner {
    fn logs(&self) -> MutexGuard<'_, BTreeMap<u64, Log>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log of a number, if the database has anything of it.
fn open<'a>(
    logs: &'a mut BTreeMap<u64, Log>,
    number: u64,
    reader: &Reader<'_>,
) -> Result<Option<&'a mut Log>, LogError> {
    let vacant = match logs.entry(number) {
        Entry::Occupied(known) => return Ok(Some(known.into_mut())),
        Entry::Vacant(vacant) => vacant,
    };
    let key = log::own_key(number);
    let remembered = reader.own(&key)?;
    let remembered = remembered.into_iter().find(|(found, _)| *found == key);
    let blobs = fragment(format!("{LOG}{number}/"))?;
    if remembered.is_none()
        && reader
            .list(&blobs, &fragment(String::new())?, 1)?
            .is_empty()
    {
        return Ok(None);
    }
    let remembered = remembered.map(|(_, value)| value);
    let log = Log::open(number, remembered.as_deref())?;
    Ok(Some(vacant.insert(log)))
}

fn numbers(reader: &Reader<'_>) -> Result<BTreeSet<u64>, StorageError> {
    let remembered = reader.own(LOG)?.into_iter().map(|(key, _)| key);
    let number = |name: &str| {
        let number = name.strip_prefix(LOG)?.split('/').next()?;
        path::number(number)
    };
    let mut numbers: BTreeSet<u64> = remembered.filter_map(|key| number(&key)).collect();
    let prefix = fragment(LOG.to_owned())?;
    let mut after = String::new();
    while numbers.len() < MAX_LOGS {
        let next = reader.list(&prefix, &fragment(after)?, 1)?;
        let Some(name) = next.into_iter().next() else {
            break;
        };
        numbers.extend(number(&name));
        // On to the next number: past all names of this one.
        let rest = name.strip_prefix(LOG).unwrap_or(&name);
        after = format!("{LOG}{}/{LAST}", rest.split('/').next().unwrap_or(rest));
    }
    Ok(numbers)
}

fn fragment(text: String) -> Result<NameFragment, StorageError> {
    NameFragment::try_from(text).map_err(|error| StorageError::Fault(error.to_string()))
}

fn narrowed(path: TilePath, content: &[u8], at: &str) -> Result<Vec<u8>, LogError> {
    let narrow = path.narrow(content).map_err(|_| Damage::Differs {
        what: at.to_owned(),
    })?;
    Ok(narrow.to_vec())
}

/// How many entries are in full tiles, of so many.
fn in_full_tiles(size: u64) -> u64 {
    size - size % u64::from(TILE_WIDTH)
}
