//! A log read from its tiles: every entry, every hash compared, and the root that they come to.

use std::io;

use arca_audit::tile::{TILE_WIDTH, TileKind, TilePath};
use arca_audit::{Hash, Tree, leaf_hash, root};

use super::export;
use super::source::Source;

/// Bytes of the longest bundle: 256 entries of 16 KiB with their lengths.
const MAX_BUNDLE: usize = 256 * (arca_audit::entry::MAX_ENTRY + 2);
const MAX_TILE: usize = 256 * 32;

/// Why a log cannot be read on.
#[derive(Debug)]
pub(super) enum Trouble {
    Io(String),
    Missing(String),
    Malformed(String),
    /// A tile's hashes are not those of what lies under it.
    Differs(String),
}

/// A tree that grows by leaves, and by whole tiles where the leaves are not there.
#[derive(Clone, Default)]
pub(super) struct Roots {
    /// Over the roots of full tiles.
    tiles: Tree,
    /// Leaves of the tile that is not full.
    leaves: Vec<Hash>,
}

impl Roots {
    pub fn size(&self) -> u64 {
        self.tiles.size().saturating_mul(TILE_WIDTH.into()) + self.leaves.len() as u64
    }

    pub fn push(&mut self, leaf: Hash) {
        self.leaves.push(leaf);
        if self.leaves.len() == usize::from(TILE_WIDTH) {
            self.tiles.append(root(&self.leaves));
            self.leaves.clear();
        }
    }

    /// Only between tiles.
    fn push_tile(&mut self, tile: Hash) {
        self.tiles.append(tile);
    }

    /// The leaves that do not fill a tile are a tree of their own, to the right of all full ones.
    pub fn root(&self) -> Hash {
        if self.leaves.is_empty() {
            return self.tiles.root();
        }
        let mut tiles = self.tiles.clone();
        tiles.append(root(&self.leaves));
        tiles.root()
    }
}

/// One log's files.
#[derive(Clone, Copy)]
pub(super) struct LogFiles<'a> {
    pub source: &'a dyn Source,
    pub party: &'a str,
    pub log: u64,
    pub size: u64,
}

/// What was read of a log.
pub(super) struct Read {
    pub root: Hash,
    /// Hash tiles that were compared.
    pub tiles: u64,
}

impl LogFiles<'_> {
    fn folder(&self) -> String {
        format!("{}/{}", self.party, self.log)
    }

    pub fn checkpoint(&self) -> io::Result<Option<Vec<u8>>> {
        self.source.read(
            &format!("{}/checkpoint", self.folder()),
            arca_audit::note::MAX_NOTE,
        )
    }

    fn tile(&self, path: &TilePath, limit: usize) -> Result<Vec<u8>, Trouble> {
        let shown = format!("{}/{path}", self.folder());
        match self.source.read(&shown, limit) {
            Ok(Some(content)) => Ok(content),
            Ok(None) => Err(Trouble::Missing(shown)),
            Err(cause) => Err(Trouble::Io(format!("{shown}: {cause}"))),
        }
    }

    fn hashes(&self, path: &TilePath) -> Result<Vec<Hash>, Trouble> {
        let content = self.tile(path, MAX_TILE)?;
        let malformed = || Trouble::Malformed(format!("{}/{path}", self.folder()));
        if content.len() != usize::from(path.width()) * 32 {
            return Err(malformed());
        }
        path.hashes(&content).map_err(|_| malformed())
    }

    /// The openings of a bundle: lines of JSON, or nothing.
    pub fn openings(&self, bundle: u64) -> io::Result<Option<Vec<u8>>> {
        const MOST: usize = 256 << 20;
        match export::openings_path(self.party, self.log, bundle) {
            Ok(path) => self.source.read(&path, MOST),
            Err(_) => Ok(None),
        }
    }

    /// Reads entries and hash tiles, in order. `entry` is told index and bytes of each entry that is there according to
    /// `has`; of bundles that are not there, the hashes stand for them.
    pub fn read(
        &self,
        has: impl Fn(u64) -> bool,
        mut bundle: impl FnMut(u64, &[&[u8]]),
    ) -> Result<Read, Trouble> {
        let mut levels = Levels::new(self);
        let mut roots = Roots::default();
        let mut index = 0;
        while let Some(path) = TilePath::in_log(TileKind::Entries, index, self.size) {
            if has(path.first()) {
                let content = self.tile(&path, MAX_BUNDLE)?;
                let malformed = || Trouble::Malformed(format!("{}/{path}", self.folder()));
                let entries = path.entries(&content).map_err(|_| malformed())?;
                let length: usize = entries.iter().map(|entry| entry.len() + 2).sum();
                if length != content.len() {
                    return Err(malformed());
                }
                let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
                // Before anything that the entries say is looked at: it is what the tiles say that it is.
                levels.tile(index, &leaves)?;
                leaves.into_iter().for_each(|leaf| roots.push(leaf));
                bundle(index, &entries);
            } else if path.is_full() {
                let tile = self.tile_above(index)?;
                roots.push_tile(tile);
                levels.push(1, tile)?;
            } else {
                self.hashes(&level0(&path)?)?
                    .into_iter()
                    .for_each(|leaf| roots.push(leaf));
            }
            index += 1;
        }
        Ok(Read {
            root: roots.root(),
            tiles: levels.finish()?,
        })
    }

    /// Reads leaf hashes alone: `leaf` is told each root on the way, as a tree that has grown by one leaf or tile.
    pub fn grow(
        &self,
        has: impl Fn(u64) -> bool,
        mut grown: impl FnMut(&Roots) -> io::Result<()>,
    ) -> Result<Hash, Trouble> {
        let io = |cause: io::Error| Trouble::Io(cause.to_string());
        let mut roots = Roots::default();
        let mut index = 0;
        while let Some(path) = TilePath::in_log(TileKind::Entries, index, self.size) {
            if path.is_full() && !has(path.first()) {
                roots.push_tile(self.tile_above(index)?);
                grown(&roots).map_err(io)?;
            } else {
                for leaf in self.hashes(&level0(&path)?)? {
                    roots.push(leaf);
                    grown(&roots).map_err(io)?;
                }
            }
            index += 1;
        }
        Ok(roots.root())
    }

    /// The root of a full tile of leaves, as the tile above it has it.
    fn tile_above(&self, index: u64) -> Result<Hash, Trouble> {
        let width = u64::from(TILE_WIDTH);
        let above = TilePath::in_log(TileKind::Hashes { level: 1 }, index / width, self.size);
        let missing = || Trouble::Missing(format!("{}/tile/1", self.folder()));
        let hashes = self.hashes(&above.ok_or_else(missing)?)?;
        let place = usize::try_from(index % width).map_err(|_| missing())?;
        hashes.get(place).copied().ok_or_else(missing)
    }
}

fn level0(bundle: &TilePath) -> Result<TilePath, Trouble> {
    TilePath::new(
        TileKind::Hashes { level: 0 },
        bundle.index(),
        bundle.width(),
    )
    .map_err(|cause| Trouble::Malformed(cause.to_string()))
}

/// The hash tiles above the leaves, as they fill up while the log is read, each compared with its file.
struct Levels<'a> {
    files: &'a LogFiles<'a>,
    levels: Vec<Level>,
    compared: u64,
}

#[derive(Default)]
struct Level {
    /// Index of the tile that is filling up.
    index: u64,
    hashes: Vec<Hash>,
}

impl<'a> Levels<'a> {
    fn new(files: &'a LogFiles<'a>) -> Self {
        Self {
            files,
            levels: Vec::new(),
            compared: 0,
        }
    }

    fn level(&mut self, level: u8) -> Option<&mut Level> {
        while self.levels.len() <= usize::from(level) {
            self.levels.push(Level::default());
        }
        self.levels.get_mut(usize::from(level))
    }

    fn push(&mut self, level: u8, hash: Hash) -> Result<(), Trouble> {
        let mut hash = hash;
        for level in level..u8::MAX {
            let Some(current) = self.level(level) else {
                return Ok(());
            };
            current.hashes.push(hash);
            if current.hashes.len() < usize::from(TILE_WIDTH) {
                return Ok(());
            }
            let hashes = std::mem::take(&mut current.hashes);
            let index = current.index;
            current.index += 1;
            self.compare(level, index, &hashes)?;
            hash = root(&hashes);
        }
        Ok(())
    }

    /// A tile of leaves.
    fn tile(&mut self, index: u64, leaves: &[Hash]) -> Result<(), Trouble> {
        self.compare(0, index, leaves)?;
        match arca_audit::tile::tile_root(leaves) {
            Some(root) => self.push(1, root),
            None => Ok(()),
        }
    }

    fn compare(&mut self, level: u8, index: u64, hashes: &[Hash]) -> Result<(), Trouble> {
        let width = u16::try_from(hashes.len()).unwrap_or(TILE_WIDTH);
        let path = TilePath::new(TileKind::Hashes { level }, index, width)
            .map_err(|cause| Trouble::Malformed(cause.to_string()))?;
        self.compared += 1;
        if self.files.hashes(&path)? == hashes {
            Ok(())
        } else {
            Err(Trouble::Differs(format!("{}/{path}", self.files.folder())))
        }
    }

    /// The partial tiles that are left.
    fn finish(mut self) -> Result<u64, Trouble> {
        let levels = std::mem::take(&mut self.levels);
        for (level, Level { index, hashes }) in levels.iter().enumerate() {
            if !hashes.is_empty() {
                let level = u8::try_from(level).unwrap_or(u8::MAX);
                self.compare(level, *index, hashes)?;
            }
        }
        Ok(self.compared)
    }
}
