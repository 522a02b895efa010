//! The audit log: the Merkle tree of RFC 6962 under it, and the C2SP formats in which it is signed, cosigned, stored
//! and proved.
//!
//! | | format | here |
//! |---|---|---|
//! | a text and who signed it | signed-note | [`note`] |
//! | a log's size and root | tlog-checkpoint | [`checkpoint`] |
//! | a witness' word on it | tlog-cosignature | [`cosignature`] |
//! | an entry's place under a cosigned checkpoint | tlog-proof | [`bundle`] |
//! | asking a witness, and being one | tlog-witness | [`witness`] |
//! | the log as files | tlog-tiles | [`tile`], made by [`writer`], read by [`reader`] |
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

pub mod bundle;
pub mod certificate;
pub mod checkpoint;
pub mod cosignature;
pub mod entry;
mod growth;
pub mod note;
mod plan;
mod proof;
pub mod reader;
mod text;
pub mod tile;
mod tree;
pub mod witness;
pub mod writer;

pub use growth::{Growth, consistency_since, older_tree};
pub use proof::{consistency_proof, inclusion_proof, verify_consistency, verify_inclusion};
pub use tree::{Hash, Tree, leaf_hash, node_hash, root};

/// Why something cannot be read, made or verified. All are refusals: none is the fault of this crate or of the
/// platform.
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
    /// Bytes that are not what they are read as, or could not be written as it.
    #[error("not a valid {format}: {reason}")]
    Malformed {
        /// What they should be.
        format: &'static str,
        /// What is wrong with them.
        reason: &'static str,
    },
    /// A size that no log has.
    #[error("a log cannot have more than 2^63 - 1 entries")]
    TooLarge,
    /// What was asked lies before all that is remembered.
    #[error("only what follows the first {from} entries is remembered, not entry or size {asked}")]
    Forgotten {
        /// The index or size asked for.
        asked: u64,
        /// Size of the log where the memory begins.
        from: u64,
    },
    /// A tile that is needed was not given.
    #[error("{path} is needed and was not given")]
    MissingTile {
        /// Which.
        path: tile::TilePath,
    },
    /// No signature of a key that was asked about.
    #[error("no known key has signed it")]
    Unsigned,
    /// A signature that says that it is of a known key, and is not.
    #[error("a signature is not of the key that it names")]
    BadSignature,
    /// A known key signed twice.
    #[error("one key has signed it twice")]
    DuplicateSignature,
    /// A checkpoint of another log than the key's.
    #[error("the checkpoint is of another log than the key that signed it")]
    Origin,
    /// A log's key where a witness' belongs, or the other way round.
    #[error("the key is of another kind than is needed here")]
    KeyKind,
    /// A time that the format cannot carry.
    #[error("the time of the cosignature is beyond 2^63 - 1")]
    Time,
}

impl Error {
    pub(crate) const fn malformed(format: &'static str, reason: &'static str) -> Self {
        Self::Malformed { format, reason }
    }
}
