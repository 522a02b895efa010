//! Proofs from tiles, without reading any: a [`TileReader`] says which tiles it needs, the caller gets them from
//! wherever they are, and the reader makes the proof of them.

use std::collections::BTreeSet;

use crate::plan::{self, Part, Subtree};
use crate::tile::{TILE_HEIGHT, TILE_WIDTH, TileKind, TilePath};
use crate::writer::{Tiles, content};
use crate::{Error, Hash, Tree, node_hash, root};

/// A proof, or an edge, to be made from tiles.
///
/// # Security
///
/// Tiles are not checked. What is made from wrong ones does not verify, so verify it where it matters: an edge by
/// the root of the tree that it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TileReader {
    /// The subtrees that make up each hash of the proof.
    hashes: Vec<Vec<Subtree>>,
    /// Size of the log whose tiles are read.
    size: u64,
}

impl TileReader {
    /// Reads the proof that the entry at `index` is in the log of `size` entries.
    ///
    /// # Errors
    ///
    /// [`Error::BeyondTree`], [`Error::TooLarge`].
    pub fn inclusion(index: u64, size: u64) -> Result<Self, Error> {
        Ok(Self::new(&plan::inclusion(index, size)?, size))
    }

    /// Reads the proof that the log of `newer` entries begins with that of `older`.
    ///
    /// # Errors
    ///
    /// [`Error::Shrunk`], [`Error::TooLarge`].
    pub fn consistency(older: u64, newer: u64) -> Result<Self, Error> {
        Ok(Self::new(&plan::consistency(older, newer)?, newer))
    }

    /// Reads the edge ([`Tree::edge`]) that the log had when it had `older` entries, from tiles of the log of
    /// `newer`.
    ///
    /// # Errors
    ///
    /// [`Error::Shrunk`], [`Error::TooLarge`].
    pub fn edge(older: u64, newer: u64) -> Result<Self, Error> {
        // Refuses the same sizes.
        plan::consistency(older, newer)?;
        let whole = 0..older;
        Ok(Self {
            hashes: plan::subtrees(&whole)
                .into_iter()
                .map(|subtree| vec![subtree])
                .collect(),
            size: newer,
        })
    }

    fn new(parts: &[Part], size: u64) -> Self {
        Self {
            hashes: parts.iter().map(plan::subtrees).collect(),
            size,
        }
    }

    /// The tiles that it needs, each once, as wide as they are in the log that is read.
    pub fn needed(&self) -> Vec<TilePath> {
        let tiles: BTreeSet<_> = self
            .hashes
            .iter()
            .flatten()
            .filter_map(|subtree| self.place(*subtree))
            .map(|place| place.tile)
            .collect();
        tiles.into_iter().collect()
    }

    /// Makes the proof. A tile may be given in a wider form than was asked for, under its own path or under the one
    /// that was asked for.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTile`]; [`Error::Malformed`] when a tile is too narrow or no tile.
    pub fn make(&self, tiles: &Tiles) -> Result<Vec<Hash>, Error> {
        self.hashes
            .iter()
            .map(|subtrees| {
                let roots = subtrees
                    .iter()
                    .map(|subtree| self.subtree_root(*subtree, tiles))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok(join(roots))
            })
            .collect()
    }

    fn subtree_root(&self, subtree: Subtree, tiles: &Tiles) -> Result<Hash, Error> {
        // A plan has no subtree outside of its log.
        let place = self.place(subtree).ok_or(Error::BeyondTree {
            index: subtree.index,
            size: self.size,
        })?;
        let (hashes, _) = place.tile.narrow(content(tiles, place.tile)?)?.as_chunks();
        let end = place.first + place.count;
        // As wide as the log says, so it has them.
        let leaves = hashes
            .get(place.first..end)
            .ok_or(Error::MissingTile { path: place.tile })?;
        Ok(root(leaves))
    }

    /// Where a subtree's hash, or hashes below it, stand.
    fn place(&self, subtree: Subtree) -> Option<Place> {
        let level = u8::try_from(subtree.height / TILE_HEIGHT).ok()?;
        let below = subtree.height % TILE_HEIGHT;
        let first = subtree.index.checked_mul(1 << below)?;
        let width = u64::from(TILE_WIDTH);
        Some(Place {
            tile: TilePath::in_log(TileKind::Hashes { level }, first / width, self.size)?,
            first: usize::try_from(first % width).ok()?,
            count: 1 << below,
        })
    }
}

/// Hashes of a tile.
struct Place {
    tile: TilePath,
    first: usize,
    count: usize,
}

/// The root over subtrees, largest first, as at the edge of a tree.
fn join(roots: Vec<Hash>) -> Hash {
    roots
        .into_iter()
        .rev()
        .reduce(|right, left| node_hash(&left, &right))
        .unwrap_or_else(|| Tree::new().root())
}
