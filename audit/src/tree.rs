//! Hashes of leaves, nodes and whole trees (section 2.1.1).

use sha2::{Digest, Sha256};

use crate::{Error, text};

/// A SHA-256 hash of a leaf, a node or a whole tree.
pub type Hash = [u8; 32];

/// Domain separation of the two kinds of input: without it an inner node could pass for an entry.
const LEAF: [u8; 1] = [0x00];
const NODE: [u8; 1] = [0x01];

/// Hash of an entry: SHA-256(0x00 ‖ entry).
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new()
        .chain_update(LEAF)
        .chain_update(entry)
        .finalize()
        .into()
}

/// Hash of two neighbours: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new()
        .chain_update(NODE)
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// Root of the tree over leaf hashes; of no leaves, SHA-256 of nothing.
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = split(leaves);
            node_hash(&root(left), &root(right))
        }
    }
}

/// The leaves under the left and the right child of the root: left takes the largest power of two smaller
/// than their number. At least two leaves.
pub(crate) fn split(leaves: &[Hash]) -> (&[Hash], &[Hash]) {
    let left = leaves.len().next_power_of_two() / 2;
    leaves.split_at(left)
}

/// A tree that grows at its right edge and remembers that edge alone: at most 64 hashes for any number of
/// entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    /// Roots of the complete subtrees that make up the tree, largest first: one for each bit that is set in
    /// `size`.
    edge: Vec<Hash>,
}

impl Tree {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// A tree from its size and the [`edge`](Self::edge) that it had.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] when there is not one hash for each bit that is set in the size, [`Error::TooLarge`].
    ///
    /// # Security
    ///
    /// Any hashes make some tree: compare its root with one that is trusted.
    pub fn from_edge(size: u64, edge: Vec<Hash>) -> Result<Self, Error> {
        if size > text::MAX_SIZE {
            return Err(Error::TooLarge);
        }
        if u32::try_from(edge.len()) != Ok(size.count_ones()) {
            return Err(Error::Length { found: edge.len() });
        }
        Ok(Self { size, edge })
    }

    /// From an edge that is known to be of that size.
    pub(crate) fn of_valid(size: u64, edge: Vec<Hash>) -> Self {
        Self { size, edge }
    }

    /// Roots of the complete subtrees that make up the tree, largest first: one for each bit that is set in the
    /// size. With the size they are the whole state.
    pub fn edge(&self) -> &[Hash] {
        &self.edge
    }

    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds an entry's [`leaf_hash`] at the end.
    pub fn append(&mut self, leaf: Hash) {
        // As in binary addition: every trailing one of the size is a subtree that is completed now.
        let mut subtree = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.edge.pop() {
                subtree = node_hash(&left, &subtree);
            }
        }
        self.edge.push(subtree);
        self.size += 1;
    }

    /// Root over all entries so far.
    pub fn root(&self) -> Hash {
        let mut subtrees = self.edge.iter().rev();
        match subtrees.next() {
            None => root(&[]),
            Some(smallest) => subtrees.fold(*smallest, |right, left| node_hash(left, &right)),
        }
    }
}

impl FromIterator<Hash> for Tree {
    fn from_iter<I: IntoIterator<Item = Hash>>(leaves: I) -> Self {
        let mut tree = Self::new();
        tree.extend(leaves);
        tree
    }
}

impl Extend<Hash> for Tree {
    fn extend<I: IntoIterator<Item = Hash>>(&mut self, leaves: I) {
        for leaf in leaves {
            self.append(leaf);
        }
    }
}
