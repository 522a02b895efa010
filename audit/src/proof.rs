//! Proofs: made from all leaf hashes, checked with roots alone (sections 2.1.3 and 2.1.4).

use crate::Error;
use crate::tree::{Hash, node_hash, root, split};

/// Proof that the entry at `index` is in the tree over `leaves`: the siblings on its way up, lowest first.
/// At most 64 hashes; hashes the whole tree once.
///
/// # Errors
///
/// [`Error::BeyondTree`].
pub fn inclusion_proof(leaves: &[Hash], index: u64) -> Result<Vec<Hash>, Error> {
    let beyond = Error::BeyondTree {
        index,
        size: leaves.len() as u64,
    };
    let mut index = usize::try_from(index).map_err(|_| beyond)?;
    if index >= leaves.len() {
        return Err(beyond);
    }
    // From the root down to the leaf, then turned around.
    let mut subtree = leaves;
    let mut proof = Vec::new();
    while subtree.len() > 1 {
        let (left, right) = split(subtree);
        if index < left.len() {
            proof.push(root(right));
            subtree = left;
        } else {
            proof.push(root(left));
            index -= left.len();
            subtree = right;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Proof that the tree over the first `older` of `leaves` is the beginning of the tree over all of them.
/// At most 65 hashes; hashes the whole tree once. Empty when there is nothing to prove: `older` is 0 or all.
///
/// # Errors
///
/// [`Error::Shrunk`].
pub fn consistency_proof(leaves: &[Hash], older: u64) -> Result<Vec<Hash>, Error> {
    let shrunk = Error::Shrunk {
        older,
        newer: leaves.len() as u64,
    };
    let mut older = usize::try_from(older).map_err(|_| shrunk)?;
    if older > leaves.len() {
        return Err(shrunk);
    }
    if older == 0 {
        return Ok(Vec::new());
    }
    // Follows the older tree's right edge down to the subtree that both trees have whole.
    let mut subtree = leaves;
    let mut proof = Vec::new();
    let mut is_older_tree = true;
    while older < subtree.len() {
        let (left, right) = split(subtree);
        if older <= left.len() {
            proof.push(root(right));
            subtree = left;
        } else {
            proof.push(root(left));
            older -= left.len();
            subtree = right;
            is_older_tree = false;
        }
    }
    // The verifier has the older tree's root already.
    if !is_older_tree {
        proof.push(root(subtree));
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that the entry with this [`leaf_hash`](crate::leaf_hash) stands at `index` of the tree of `size`
/// entries with this root (section 2.1.3.2).
///
/// # Errors
///
/// [`Error::BeyondTree`], [`Error::Length`] or [`Error::Root`].
///
/// # Security
///
/// Proves nothing about the root itself: take it, together with `size`, from a checkpoint whose signature
/// was verified.
pub fn verify_inclusion(
    tree_root: &Hash,
    size: u64,
    index: u64,
    leaf: &Hash,
    proof: &[Hash],
) -> Result<(), Error> {
    if index >= size {
        return Err(Error::BeyondTree { index, size });
    }
    let mut position = Position {
        index,
        last: size - 1,
    };
    let mut hash = *leaf;
    for sibling in proof {
        hash = match position
            .sibling()
            .ok_or(Error::Length { found: proof.len() })?
        {
            Side::Left => node_hash(sibling, &hash),
            Side::Right => node_hash(&hash, sibling),
        };
        position.up();
    }
    if position.last != 0 {
        return Err(Error::Length { found: proof.len() });
    }
    if hash == *tree_root {
        Ok(())
    } else {
        Err(Error::Root)
    }
}

/// Checks that the tree of `older` entries is the beginning of the tree of `newer` entries (section
/// 2.1.4.2). Every tree continues the empty one and itself.
///
/// # Errors
///
/// [`Error::Shrunk`], [`Error::Length`] or [`Error::Root`].
///
/// # Security
///
/// Proves nothing about the roots themselves: take each, together with its size, from a checkpoint whose
/// signature was verified.
pub fn verify_consistency(
    older: u64,
    older_root: &Hash,
    newer: u64,
    newer_root: &Hash,
    proof: &[Hash],
) -> Result<(), Error> {
    if older > newer {
        return Err(Error::Shrunk { older, newer });
    }
    let length = Error::Length { found: proof.len() };
    if older == 0 || older == newer {
        if !proof.is_empty() {
            return Err(length);
        }
        let expected = if older == 0 { root(&[]) } else { *newer_root };
        return if *older_root == expected {
            Ok(())
        } else {
            Err(Error::Root)
        };
    }
    // Start at the largest subtree that ends where the older tree ends: both trees have it whole. If it is
    // the older tree itself, its root is known and not part of the proof.
    let mut position = Position {
        index: older - 1,
        last: newer - 1,
    };
    position.rise(position.index.trailing_ones());
    let (start, path) = if older.is_power_of_two() {
        (older_root, proof)
    } else {
        proof.split_first().ok_or(length)?
    };
    let (mut older_hash, mut newer_hash) = (*start, *start);
    for sibling in path {
        match position.sibling().ok_or(length)? {
            Side::Left => {
                older_hash = node_hash(sibling, &older_hash);
                newer_hash = node_hash(sibling, &newer_hash);
            }
            // To the right of the older tree's edge there is nothing of the older tree.
            Side::Right => newer_hash = node_hash(&newer_hash, sibling),
        }
        position.up();
    }
    if position.last != 0 {
        return Err(length);
    }
    if older_hash == *older_root && newer_hash == *newer_root {
        Ok(())
    } else {
        Err(Error::Root)
    }
}

/// A node on the way up: its index in its level, and the last index of that level.
struct Position {
    index: u64,
    last: u64,
}

enum Side {
    Left,
    Right,
}

impl Position {
    /// On which side the next sibling of the proof stands; none at the root.
    fn sibling(&self) -> Option<Side> {
        if self.last == 0 {
            None
        } else if self.index % 2 == 1 || self.index == self.last {
            Some(Side::Left)
        } else {
            Some(Side::Right)
        }
    }

    /// To the parent. A last node without a right neighbour is its own parent: it rises until it has a
    /// left one to be joined with.
    fn up(&mut self) {
        if self.index == self.last {
            self.rise(self.index.trailing_zeros().min(63));
        }
        self.rise(1);
    }

    fn rise(&mut self, levels: u32) {
        self.index = self.index.checked_shr(levels).unwrap_or(0);
        self.last = self.last.checked_shr(levels).unwrap_or(0);
    }
}
