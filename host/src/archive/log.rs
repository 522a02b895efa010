//! One log of the enclave: how much of it is in the archive, how much in the database, and the tiles of both.
//!
//! The database has the entries as they came, one blob for each transaction of the enclave. They are kept there until they
//! are in full tiles of the archive; so the partial tiles of the archive are never needed to go on, and a full tile
//! can be made anew until it is durable.

use std::collections::{BTreeMap, BTreeSet};

use arca_audit::leaf_hash;
use arca_audit::tile::{TILE_WIDTH, TileKind, TilePath, decode_entries, encode_entries};
use arca_audit::writer::{TileWriter, Tiles};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{Damage, LogError};
use crate::storage::{Batch, BlobName, LOG, Reader, Removal};

/// Full tiles of entries that are moved at once. The database's writer removes their blobs in one transaction, for
/// which others wait.
const TOGETHER: u64 = 16;
/// Bytes of entries after which no more are moved at once.
const TOGETHER_BYTES: usize = 8 * 1024 * 1024;
/// Read from the database at once.
const SCAN: usize = 2 * 1024 * 1024;

const WIDTH: u64 = TILE_WIDTH as u64;
/// Levels of tiles: 256^8 is more than a log can have.
const LEVELS: u8 = 8;

/// One log.
#[derive(Debug, Default)]
pub(super) struct Log {
    number: u64,
    /// Of what is in full tiles of the archive.
    moved: TileWriter,
    /// Size of the checkpoint that was published when tiles were moved for the last time before the start.
    published_before: u64,
    /// Of all entries.
    seen: TileWriter,
    /// Full hash tiles above the lowest that are not in the archive. The lowest are made of entries when they are asked for.
    full: Tiles,
}

/// A tile, or where it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tile {
    Content(Vec<u8>),
    /// Full, in the archive.
    Archived,
    /// The log is not that long, as far as the database knows.
    Beyond,
}

/// Entries on their way into full tiles.
#[derive(Debug)]
pub(super) struct Move {
    /// What is to be in the archive first.
    pub files: Vec<(String, Bytes)>,
    moved: TileWriter,
    removals: Vec<Removal>,
    number: u64,
}

impl Log {
    /// A log as the host remembers it, or one that it has moved nothing of.
    pub(super) fn open(number: u64, remembered: Option<&[u8]>) -> Result<Self, LogError> {
        let (moved, published_before) = match remembered {
            None => (TileWriter::new(), 0),
            Some(remembered) => recall(remembered).ok_or(Damage::Remembered)?,
        };
        Ok(Self {
            number,
            published_before,
            seen: moved.clone(),
            moved,
            full: Tiles::new(),
        })
    }

    /// Entries in full tiles of the archive.
    pub(super) fn moved(&self) -> u64 {
        self.moved.size()
    }

    /// Where a host that was killed can have left partial tiles that nobody needs: the tiles at the edges of what was
    /// moved last and of what had been published then, as if they were full.
    pub(super) fn old_edges(&self) -> BTreeSet<TilePath> {
        let edge = |size| edge_tiles(size).map(|path| path.full());
        edge(self.moved())
            .chain(edge(self.published_before))
            .collect()
    }

    /// All entries.
    pub(super) fn size(&self) -> u64 {
        self.seen.size()
    }

    /// Takes note of what came into the database since the last time.
    pub(super) fn catch_up(&mut self, reader: &Reader<'_>) -> Result<(), LogError> {
        loop {
            let before = self.seen.size();
            for (first, blob) in blobs(reader, self.number, before)? {
                let entries = entries_of(&blob)?;
                let known = skip(first, &entries, self.seen.size())?;
                let new = entries.iter().skip(known).map(|entry| leaf_hash(entry));
                let full = self.seen.append(new);
                let above = full
                    .into_iter()
                    .filter(|(path, _)| path.kind() != TileKind::Hashes { level: 0 });
                self.full.extend(above);
            }
            if self.seen.size() == before {
                return Ok(());
            }
        }
    }

    /// A tile of the log as it is, or the first hashes or entries of it.
    pub(super) fn tile(&self, path: TilePath, reader: &Reader<'_>) -> Result<Tile, LogError> {
        let in_log = |size| TilePath::in_log(path.kind(), path.index(), size);
        if in_log(self.size()).is_none_or(|widest| widest.width() < path.width()) {
            return Ok(Tile::Beyond);
        }
        if in_log(self.moved()).is_some_and(|widest| widest.is_full()) {
            return Ok(Tile::Archived);
        }
        let is_it = |(at, _): &(TilePath, Vec<u8>)| at.full() == path.full();
        let known = match self.full.get(&path.full()) {
            Some(content) => Some(content.clone()),
            None => self.seen.partial().into_iter().find(is_it).map(|it| it.1),
        };
        if let Some(content) = known {
            return Ok(Tile::Content(path.narrow(&content)?.to_vec()));
        }
        let entries = self.entries(path.first(), path.width().into(), reader)?;
        Ok(Tile::Content(match path.kind() {
            TileKind::Entries => encode_entries(&entries)?,
            TileKind::Hashes { .. } => entries.iter().flat_map(|it| leaf_hash(it)).collect(),
        }))
    }

    fn entries(
        &self,
        first: u64,
        count: usize,
        reader: &Reader<'_>,
    ) -> Result<Vec<Vec<u8>>, LogError> {
        let mut found: Vec<Vec<u8>> = Vec::new();
        while found.len() < count {
            let next = first + found.len() as u64;
            let before = found.len();
            for (at, blob) in blobs(reader, self.number, next)? {
                let entries = entries_of(&blob)?;
                let known = skip(at, &entries, first + found.len() as u64)?;
                found.extend(entries.into_iter().skip(known).map(<[u8]>::to_vec));
            }
            if found.len() == before {
                return Err(Damage::Gap { expected: next }.into());
            }
        }
        found.truncate(count);
        Ok(found)
    }

    /// The next entries that fill tiles, if there are any.
    pub(super) fn next_move(&self, reader: &Reader<'_>) -> Result<Option<Move>, LogError> {
        let start = self.moved();
        let (mut entries, mut bytes): (Vec<Vec<u8>>, _) = (Vec::new(), 0);
        let mut read = Vec::new();
        let enough = |entries: u64, bytes| entries >= TOGETHER * WIDTH || bytes >= TOGETHER_BYTES;
        while start + (entries.len() as u64) < self.size() && !enough(entries.len() as u64, bytes) {
            let next = start + entries.len() as u64;
            for (first, blob) in blobs(reader, self.number, next)? {
                let of_blob = entries_of(&blob)?;
                let end = first + of_blob.len() as u64;
                let known = skip(first, &of_blob, start + entries.len() as u64)?;
                if known == of_blob.len() {
                    continue;
                }
                bytes += blob.len();
                entries.extend(of_blob.into_iter().skip(known).map(<[u8]>::to_vec));
                read.push((first, end, Sha256::digest(&blob).into()));
            }
            if start + entries.len() as u64 == next {
                return Err(Damage::Gap { expected: next }.into());
            }
        }
        // What came since is not hashed yet.
        let known = usize::try_from(self.size() - start).unwrap_or(usize::MAX);
        entries.truncate(known);
        let (tiles, _) = entries.as_chunks::<{ TILE_WIDTH as usize }>();
        if tiles.is_empty() {
            return Ok(None);
        }
        let mut moved = self.moved.clone();
        let mut files = Vec::new();
        for tile in tiles {
            let path = TilePath::new(TileKind::Entries, moved.size() / WIDTH, TILE_WIDTH)?;
            files.push((path, encode_entries(tile)?));
            files.extend(moved.append(tile.iter().map(|entry| leaf_hash(entry))));
        }
        let name = |path: TilePath| format!("{}/{path}", self.number);
        let files = files.into_iter().map(|(path, it)| (name(path), it.into()));
        let gone = read.into_iter().filter(|(_, end, _)| *end <= moved.size());
        let removals = gone.map(|(first, _, sha256)| {
            let name = blob_name(self.number, first)?;
            Ok(Removal { name, sha256 })
        });
        Ok(Some(Move {
            files: files.collect(),
            removals: removals.collect::<Result<_, LogError>>()?,
            moved,
            number: self.number,
        }))
    }

    /// The files of a move are durable: from now on they are read.
    pub(super) fn moved_to(&mut self, done: &Move) {
        self.moved = done.moved.clone();
        let size = self.moved.size();
        self.full.retain(|path, _| {
            TilePath::in_log(path.kind(), path.index(), size).is_none_or(|it| !it.is_full())
        });
    }
}

impl Move {
    /// What the database does once the files are durable.
    pub(super) fn into_batch(self, published: u64) -> Batch {
        Batch {
            removals: self.removals,
            own: vec![(own_key(self.number), remember(&self.moved, published))],
            ..Batch::default()
        }
    }
}

/// Under which key the host remembers a log.
pub(super) fn own_key(number: u64) -> String {
    format!("{LOG}{number}")
}

/// The last tile of each kind, and the one that comes after it if it is full.
pub(super) fn edge_tiles(size: u64) -> impl Iterator<Item = TilePath> {
    let levels = (0..LEVELS).map(|level| TileKind::Hashes { level });
    let kinds = std::iter::once(TileKind::Entries).chain(levels);
    kinds.filter_map(move |kind| {
        let height = match kind {
            TileKind::Hashes { level } => u32::from(level) * 8,
            TileKind::Entries => 0,
        };
        let index = size.checked_shr(height).unwrap_or(0) / WIDTH;
        // Higher up there is nothing yet.
        let there = height == 0 || size.checked_shr(height).unwrap_or(0) > 0;
        TilePath::new(kind, index, 1).ok().filter(|_| there)
    })
}

/// A log as the host remembers it: how much was moved, what was published, then the hashes of the partial tiles of
/// what was moved, lowest first.
fn remember(moved: &TileWriter, published: u64) -> Vec<u8> {
    let mut bytes = moved.size().to_be_bytes().to_vec();
    bytes.extend(published.to_be_bytes());
    moved.partial().iter().for_each(|(_, it)| bytes.extend(it));
    bytes
}

fn recall(bytes: &[u8]) -> Option<(TileWriter, u64)> {
    let (size, rest) = bytes.split_first_chunk()?;
    let (published, mut rest) = rest.split_first_chunk()?;
    let size = u64::from_be_bytes(*size);
    if size % WIDTH != 0 {
        return None;
    }
    let mut tiles = BTreeMap::new();
    for path in TileWriter::needed(size) {
        let (tile, after) = rest.split_at_checked(32 * usize::from(path.width()))?;
        tiles.insert(path, tile.to_vec());
        rest = after;
    }
    let writer = TileWriter::resume(size, &tiles).ok()?;
    rest.is_empty()
        .then_some((writer, u64::from_be_bytes(*published)))
}

/// Blobs of entries with the index of their first one: from the one that has `from` in it, if any has.
fn blobs(
    reader: &Reader<'_>,
    number: u64,
    from: u64,
) -> Result<impl Iterator<Item = (u64, Vec<u8>)> + use<>, LogError> {
    let prefix = format!("{LOG}{number}/entries/");
    let mut blobs = Vec::new();
    for (name, blob) in reader.scan(&prefix, &format!("{from:020}"), SCAN)? {
        let digits = name.strip_prefix(&prefix).filter(|it| it.len() == 20);
        let first = digits.and_then(|digits| digits.parse().ok());
        blobs.push((first.ok_or(Damage::Name)?, blob));
    }
    Ok(blobs.into_iter())
}

fn blob_name(number: u64, first: u64) -> Result<BlobName, LogError> {
    let name = BlobName::try_from(format!("{LOG}{number}/entries/{first:020}"));
    name.map_err(|_| Damage::Name.into())
}

fn entries_of(blob: &[u8]) -> Result<Vec<&[u8]>, LogError> {
    decode_entries(blob).map_err(|_| Damage::Entries.into())
}

/// How many entries of a blob come before `next`, which has to be in it or right after it.
fn skip(first: u64, entries: &[&[u8]], next: u64) -> Result<usize, LogError> {
    let known = next.checked_sub(first).map(usize::try_from);
    match known {
        // What lies wholly before is there when an older storage file was brought back.
        Some(known) => Ok(known.map_or(entries.len(), |known| known.min(entries.len()))),
        None => Err(Damage::Gap { expected: next }.into()),
    }
}
