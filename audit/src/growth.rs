//! Proofs about a log's recent entries, from memory.

use crate::plan::{self, Part};
use crate::{Error, Hash, Tree, root, verify_consistency};

/// A log's recent leaf hashes over the edge of what was before them: enough to prove, without any tile, how the log
/// grew within them and where they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    base: Tree,
    leaves: Vec<Hash>,
}

impl Growth {
    /// Remembers what will follow `base`.
    pub fn new(base: Tree) -> Self {
        Self {
            base,
            leaves: Vec::new(),
        }
    }

    /// Size of the log where the memory begins.
    pub fn from(&self) -> u64 {
        self.base.size()
    }

    /// Number of entries of the log.
    pub fn size(&self) -> u64 {
        self.base.size() + self.leaves.len() as u64
    }

    /// Adds an entry's [`leaf_hash`](crate::leaf_hash) at the end.
    pub fn append(&mut self, leaf: Hash) {
        self.leaves.push(leaf);
    }

    /// Forgets how the log came to `size`; from then on the memory begins there. Sizes before the memory change
    /// nothing, those beyond the log forget all.
    pub fn forget_before(&mut self, size: u64) {
        let known = size.saturating_sub(self.from());
        let known =
            usize::try_from(known).map_or(self.leaves.len(), |known| known.min(self.leaves.len()));
        self.base.extend(self.leaves.drain(..known));
    }

    /// The tree as it was at a size.
    ///
    /// # Errors
    ///
    /// [`Error::Forgotten`], [`Error::BeyondTree`].
    pub fn tree(&self, size: u64) -> Result<Tree, Error> {
        self.remembers(size)?;
        let new = self
            .leaves_of(&(self.from()..size))
            .ok_or(self.beyond(size))?;
        let mut tree = self.base.clone();
        tree.extend(new.iter().copied());
        Ok(tree)
    }

    /// Proof that the log of `newer` entries begins with that of `older`.
    ///
    /// # Errors
    ///
    /// [`Error::Forgotten`], [`Error::BeyondTree`], [`Error::Shrunk`].
    pub fn consistency(&self, older: u64, newer: u64) -> Result<Vec<Hash>, Error> {
        let parts = plan::consistency(older, newer)?;
        self.remembers(older)?;
        self.prove(&parts, newer)
    }

    /// Proof that the entry at `index` is in the log of `size` entries.
    ///
    /// # Errors
    ///
    /// [`Error::Forgotten`], [`Error::BeyondTree`].
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, Error> {
        let parts = plan::inclusion(index, size)?;
        self.remembers(index)?;
        self.prove(&parts, size)
    }

    fn remembers(&self, asked: u64) -> Result<(), Error> {
        let from = self.from();
        if asked < from {
            return Err(Error::Forgotten { asked, from });
        }
        Ok(())
    }

    fn beyond(&self, index: u64) -> Error {
        let size = self.size();
        Error::BeyondTree { index, size }
    }

    fn prove(&self, parts: &[Part], size: u64) -> Result<Vec<Hash>, Error> {
        if size > self.size() {
            return Err(self.beyond(size));
        }
        parts
            .iter()
            .map(|part| self.hash(part).ok_or(self.beyond(part.end)))
            .collect()
    }

    /// Root of a part of the log. Proofs about what is remembered need only such parts as begin where a subtree of
    /// the base's edge does, or are remembered.
    fn hash(&self, part: &Part) -> Option<Hash> {
        if part.start >= self.from() {
            return self.leaves_of(part).map(root);
        }
        // The base's subtrees that lie within the part.
        let mut edge = Vec::new();
        let whole = 0..self.from();
        for (subtree, hash) in plan::subtrees(&whole).iter().zip(self.base.edge()) {
            let start = subtree.index << subtree.height;
            let end = start + (1 << subtree.height);
            if part.start <= start && end <= part.end {
                edge.push(*hash);
            }
        }
        let old = part.end.min(self.from()) - part.start;
        let mut tree = Tree::from_edge(old, edge).ok()?;
        if part.end > self.from() {
            tree.extend(self.leaves_of(&(self.from()..part.end))?.iter().copied());
        }
        Some(tree.root())
    }

    /// Remembered leaves, by their indices in the log.
    fn leaves_of(&self, part: &Part) -> Option<&[Hash]> {
        let index = |index: u64| usize::try_from(index.checked_sub(self.from())?).ok();
        self.leaves.get(index(part.start)?..index(part.end)?)
    }
}

impl Extend<Hash> for Growth {
    fn extend<I: IntoIterator<Item = Hash>>(&mut self, leaves: I) {
        self.leaves.extend(leaves);
    }
}

/// Proof that a log continues `older`, from exactly the leaf hashes that it has after it.
pub fn consistency_since(older: &Tree, leaves: &[Hash]) -> Vec<Hash> {
    let growth = Growth {
        base: older.clone(),
        leaves: leaves.to_vec(),
    };
    // From its beginning to its end, which it remembers.
    growth
        .consistency(older.size(), growth.size())
        .unwrap_or_default()
}

/// The tree as it was at `older`, when the edge that it had then ([`TileReader::edge`]) and a consistency proof come
/// from somebody who is not trusted, and the newer root is.
///
/// [`TileReader::edge`]: crate::reader::TileReader::edge
///
/// # Errors
///
/// [`Error::Length`], [`Error::TooLarge`], or those of [`verify_consistency`].
pub fn older_tree(
    older: u64,
    edge: Vec<Hash>,
    newer: u64,
    newer_root: &Hash,
    proof: &[Hash],
) -> Result<Tree, Error> {
    let tree = Tree::from_edge(older, edge)?;
    verify_consistency(older, &tree.root(), newer, newer_root, proof)?;
    Ok(tree)
}
