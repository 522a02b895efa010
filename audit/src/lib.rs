//! The Merkle tree under the audit log: RFC 6962 hashes, inclusion proofs, consistency proofs.
//!
//! A log of *n* entries is one root hash. An *inclusion proof* shows that an entry stands at an index of
//! the log with that root; a *consistency proof* shows that the log with one root is the beginning of the
//! log with another, so that nothing in it was changed or taken out. Both are checked with the roots alone.
//!
//! ```
//! use arca_audit::{Tree, inclusion_proof, leaf_hash, verify_inclusion};
//!
//! let leaves: Vec<_> = [b"created".as_slice(), b"signed", b"rotated"].map(leaf_hash).to_vec();
//! let tree: Tree = leaves.iter().copied().collect();
//! let proof = inclusion_proof(&leaves, 1)?;
//! verify_inclusion(&tree.root(), tree.size(), 1, &leaf_hash(b"signed"), &proof)?;
//! # Ok::<(), arca_audit::Error>(())
//! ```
//!
//! The tree is that of RFC 6962 section 2.1, kept unchanged with SHA-256 in RFC 9162 section 2.1; the
//! numbers of sections in this crate are those of RFC 9162. Pure: no I/O, clock or randomness.

#![forbid(unsafe_code)]

pub mod certificate;
pub mod entry;
mod proof;
mod tree;

pub use proof::{consistency_proof, inclusion_proof, verify_consistency, verify_inclusion};
pub use tree::{Hash, Tree, leaf_hash, node_hash, root};

/// Why a proof cannot be made or does not hold. All are refusals: none is the fault of this crate or of
/// the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The index is not one of the tree's.
    #[error("index {index} is beyond a log of {size} entries")]
    BeyondTree {
        /// The index asked for.
        index: u64,
        /// Entries in the tree.
        size: u64,
    },
    /// The older log is larger than the newer one.
    #[error("a log of {newer} entries cannot continue one of {older}")]
    Shrunk {
        /// Entries in the older tree.
        older: u64,
        /// Entries in the newer tree.
        newer: u64,
    },
    /// The proof has more or fewer hashes than the sizes call for.
    #[error("the proof has {found} hashes, which is not what the sizes call for")]
    Length {
        /// Hashes in the proof.
        found: usize,
    },
    /// The proof does not lead to the root: the entry, the proof or the root is not of this log.
    #[error("the proof does not lead to the root")]
    Root,
}
