//! Proof bundles ([C2SP tlog-proof](https://c2sp.org/tlog-proof)): index, inclusion proof and cosigned checkpoint in
//! one text, enough to verify without a network that an entry is in a log.

use std::fmt;

use crate::cosignature::CosignedCheckpoint;
use crate::note::{MAX_NOTE, SignedNote, VerifierKey};
use crate::{Error, Hash, text, verify_inclusion};

/// The longest bundle that is read, in bytes: twice a note.
pub const MAX_BUNDLE: usize = 2 * MAX_NOTE;
/// The hashes from a leaf up to the root of the largest log.
const MAX_HASHES: usize = 63;

const HEADER: &str = "c2sp.org/tlog-proof@v1";
const BUNDLE: &str = "proof bundle";

/// Where an entry stands in a log, and what proves it. Nothing in it is verified but by [`verify`](Self::verify).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// What the application adds; nothing authenticates it. Without it the line is left out.
    pub extra: Vec<u8>,
    /// Index of the entry.
    pub index: u64,
    /// Its inclusion proof in the tree of the checkpoint.
    pub proof: Vec<Hash>,
    /// The checkpoint, signed and cosigned.
    pub checkpoint: SignedNote,
}

impl TlogProof {
    /// Verifies that the entry with this [`leaf_hash`](crate::leaf_hash) stands at the index in the log with this
    /// key, under a checkpoint that those of `witnesses` cosigned whom the result names. It may name none: how many
    /// are enough is the caller's to say.
    ///
    /// # Errors
    ///
    /// Those of [`CosignedCheckpoint::verify`] and [`verify_inclusion`].
    pub fn verify(
        &self,
        leaf: &Hash,
        log_key: &VerifierKey,
        witnesses: &[VerifierKey],
    ) -> Result<CosignedCheckpoint, Error> {
        let cosigned = CosignedCheckpoint::verify_note(&self.checkpoint, log_key, witnesses)?;
        let checkpoint = cosigned.checkpoint();
        verify_inclusion(
            &checkpoint.root,
            checkpoint.size,
            self.index,
            leaf,
            &self.proof,
        )?;
        Ok(cosigned)
    }

    /// Reads a bundle; verifies nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = |reason| Error::malformed(BUNDLE, reason);
        if bytes.len() > MAX_BUNDLE {
            return Err(malformed("it is longer than 2 MiB"));
        }
        let bundle = std::str::from_utf8(bytes).map_err(|_| malformed("it is not UTF-8"))?;
        let next = |rest| text::line(rest).ok_or(malformed("it ends before its checkpoint"));
        let (header, rest) = next(bundle)?;
        if header != HEADER {
            return Err(malformed("its first line is another"));
        }
        let (mut line, mut rest) = next(rest)?;
        let mut extra = Vec::new();
        if let Some(data) = line.strip_prefix("extra ") {
            extra = text::decode(data)
                .filter(|extra| !extra.is_empty())
                .ok_or(malformed("its extra data is no base64"))?;
            (line, rest) = next(rest)?;
        }
        let index = line
            .strip_prefix("index ")
            .and_then(text::decimal)
            .ok_or(malformed("its index is no decimal below 2^63"))?;
        let (proof, rest) = text::hashes(rest, MAX_HASHES, BUNDLE)?;
        Ok(Self {
            extra,
            index,
            proof,
            checkpoint: SignedNote::parse(rest.as_bytes())?,
        })
    }

    /// The bundle as bytes; [`parse`](Self::parse) gives it back when it is within the limits.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if !self.extra.is_empty() {
            writeln!(f, "extra {}", text::encode(&self.extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.proof {
            writeln!(f, "{}", text::encode(hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}
