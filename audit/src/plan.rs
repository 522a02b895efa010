//! Which parts of a log the hashes of a proof are over (sections 2.1.3.1 and 2.1.4.1): the same whatever they are
//! computed from.

use std::ops::Range;

use crate::{Error, text};

/// Indices of consecutive entries; the subtree over them stands in the tree.
pub(crate) type Part = Range<u64>;

/// Size of the left subtree: the largest power of two smaller than that of the whole. At least two entries.
fn left(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// What proves the entry at `index` in a log of `size`, lowest first.
pub(crate) fn inclusion(index: u64, size: u64) -> Result<Vec<Part>, Error> {
    checked(size)?;
    if index >= size {
        return Err(Error::BeyondTree { index, size });
    }
    let (mut start, mut end) = (0, size);
    let mut parts = Vec::new();
    while end - start > 1 {
        let middle = start + left(end - start);
        if index < middle {
            parts.push(middle..end);
            end = middle;
        } else {
            parts.push(start..middle);
            start = middle;
        }
    }
    parts.reverse();
    Ok(parts)
}

/// What proves that a log of `newer` begins with one of `older`, lowest first.
pub(crate) fn consistency(older: u64, newer: u64) -> Result<Vec<Part>, Error> {
    checked(newer)?;
    if older > newer {
        return Err(Error::Shrunk { older, newer });
    }
    let mut parts = Vec::new();
    if older == 0 {
        return Ok(parts);
    }
    let (mut start, mut end) = (0, newer);
    while older < end {
        let middle = start + left(end - start);
        if older <= middle {
            parts.push(middle..end);
            end = middle;
        } else {
            parts.push(start..middle);
            start = middle;
        }
    }
    // The verifier has the older root already.
    if start > 0 {
        parts.push(start..end);
    }
    parts.reverse();
    Ok(parts)
}

/// The complete subtrees that a part consists of, largest first.
pub(crate) fn subtrees(part: &Part) -> Vec<Subtree> {
    let mut subtrees = Vec::new();
    let mut start = part.start;
    while let Some(height) = part.end.saturating_sub(start).checked_ilog2() {
        subtrees.push(Subtree {
            height,
            index: start >> height,
        });
        start += 1 << height;
    }
    subtrees
}

/// A complete subtree: it has 2^height leaves, and `index` subtrees of its height stand before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subtree {
    pub(crate) height: u32,
    pub(crate) index: u64,
}

fn checked(size: u64) -> Result<(), Error> {
    if size > text::MAX_SIZE {
        return Err(Error::TooLarge);
    }
    Ok(())
}
