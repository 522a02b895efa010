//! The tiles that a log consists of, as it grows.

use std::collections::BTreeMap;

use crate::tile::{
    LEVELS, TILE_WIDTH, TileKind, TilePath, decode_entries, encode_entries, encode_hashes,
    tile_root,
};
use crate::{Error, Hash, Tree, root, text};

/// Contents of tiles by their paths.
pub type Tiles = BTreeMap<TilePath, Vec<u8>>;

/// Makes the hash tiles of a growing log. Keeps the partial ones, at most 255 hashes for each of 8 levels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TileWriter {
    size: u64,
    /// Hashes of the last tile of each level, fewer than 256.
    edge: Vec<Vec<Hash>>,
}

impl TileWriter {
    /// Of an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tiles that [`resume`](Self::resume) needs for a log of this size: the partial ones.
    pub fn needed(size: u64) -> Vec<TilePath> {
        (0..LEVELS)
            .filter_map(|level| TilePath::partial(TileKind::Hashes { level }, size))
            .collect()
    }

    /// Goes on with a log of this size, from its partial tiles or wider forms of them.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTile`], [`Error::Malformed`], [`Error::TooLarge`].
    ///
    /// # Security
    ///
    /// Compare the root of [`tree`](Self::tree) with one that is trusted.
    pub fn resume(size: u64, tiles: &Tiles) -> Result<Self, Error> {
        if size > text::MAX_SIZE {
            return Err(Error::TooLarge);
        }
        let mut edge = Vec::new();
        for level in 0..LEVELS {
            edge.push(match TilePath::partial(TileKind::Hashes { level }, size) {
                None => Vec::new(),
                Some(path) => path.hashes(content(tiles, path)?)?,
            });
        }
        Ok(Self { size, edge })
    }

    /// Number of entries so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds leaf hashes; gives the tiles that are full with them, lower ones before those above.
    pub fn append(&mut self, leaves: impl IntoIterator<Item = Hash>) -> Vec<(TilePath, Vec<u8>)> {
        let mut full = Vec::new();
        for leaf in leaves {
            self.append_one(leaf, &mut full);
        }
        full
    }

    fn append_one(&mut self, leaf: Hash, full: &mut Vec<(TilePath, Vec<u8>)>) {
        self.size += 1;
        let mut hash = leaf;
        for level in 0..LEVELS {
            if self.edge.len() <= level.into() {
                self.edge.push(Vec::new());
            }
            let Some(tile) = self.edge.get_mut(usize::from(level)) else {
                return;
            };
            tile.push(hash);
            let Some(above) = tile_root(tile) else {
                return;
            };
            if let Some(path) = TilePath::last(TileKind::Hashes { level }, self.size) {
                full.push((path, encode_hashes(tile)));
            }
            tile.clear();
            hash = above;
        }
    }

    /// The partial tiles of the log as it is.
    pub fn partial(&self) -> Vec<(TilePath, Vec<u8>)> {
        Self::needed(self.size)
            .into_iter()
            .zip(self.edge.iter().filter(|tile| !tile.is_empty()))
            .map(|(path, tile)| (path, encode_hashes(tile)))
            .collect()
    }

    /// The tree of the log as it is.
    pub fn tree(&self) -> Tree {
        let mut edge = Vec::new();
        for tile in self.edge.iter().rev() {
            // A tile's hashes are roots of equal subtrees; a power of two of them is a subtree again.
            let mut rest = tile.as_slice();
            while !rest.is_empty() {
                let power = 1 << rest.len().ilog2();
                let (subtree, after) = rest.split_at(power);
                edge.push(root(subtree));
                rest = after;
            }
        }
        Tree::of_valid(self.size, edge)
    }
}

/// Makes the entry bundles of a growing log. Keeps the partial one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BundleWriter {
    size: u64,
    /// Entries of the last bundle, fewer than 256.
    last: Vec<Vec<u8>>,
}

impl BundleWriter {
    /// Of an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bundle that [`resume`](Self::resume) needs for a log of this size: the partial one, if there is one.
    pub fn needed(size: u64) -> Option<TilePath> {
        TilePath::partial(TileKind::Entries, size)
    }

    /// Goes on with a log of this size, from its partial bundle or a wider form of it.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTile`], [`Error::Malformed`], [`Error::TooLarge`].
    pub fn resume(size: u64, tiles: &Tiles) -> Result<Self, Error> {
        if size > text::MAX_SIZE {
            return Err(Error::TooLarge);
        }
        let last = match Self::needed(size) {
            None => Vec::new(),
            Some(path) => {
                let entries = decode_entries(path.narrow(content(tiles, path)?)?)?;
                entries.into_iter().map(<[u8]>::to_vec).collect()
            }
        };
        Ok(Self { size, last })
    }

    /// Number of entries so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds an entry; gives the bundle that is full with it, if one is.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] when the entry is longer than 65535 bytes; it is not added then.
    pub fn append(&mut self, entry: &[u8]) -> Result<Option<(TilePath, Vec<u8>)>, Error> {
        // Refused now rather than when the bundle is written.
        encode_entries(&[entry])?;
        self.last.push(entry.to_vec());
        self.size += 1;
        if self.last.len() < TILE_WIDTH.into() {
            return Ok(None);
        }
        let full = encode_entries(&self.last)?;
        self.last.clear();
        Ok(TilePath::last(TileKind::Entries, self.size).map(|path| (path, full)))
    }

    /// The partial bundle of the log as it is, if there is one.
    pub fn partial(&self) -> Option<(TilePath, Vec<u8>)> {
        let path = Self::needed(self.size)?;
        // Each was found to fit when it came.
        Some((path, encode_entries(&self.last).ok()?))
    }
}

/// A tile's content, or that of a wider form of it.
pub(crate) fn content(tiles: &Tiles, path: TilePath) -> Result<&[u8], Error> {
    tiles
        .range(path..=path.full())
        .next()
        .map(|(_, content)| content.as_slice())
        .ok_or(Error::MissingTile { path })
}
