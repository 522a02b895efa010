//! Checkpoints ([C2SP tlog-checkpoint](https://c2sp.org/tlog-checkpoint)): what a log says about its whole, signed.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::SigningKey;

use crate::note::{self, KeyKind, KeyName, NoteSignature, SignedNote, VerifierKey};
use crate::{Error, Hash, root, text};

const CHECKPOINT: &str = "checkpoint";

/// A log's size and root. Written as three lines, each ended by a newline, and nothing else: ours has no extension
/// lines, and one that has is refused, for nobody could say what was agreed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log, named as the key that signs for it.
    pub origin: KeyName,
    /// Number of entries.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

impl Checkpoint {
    /// Signs it as the log.
    ///
    /// # Security
    ///
    /// A log signs no two checkpoints of which one does not continue the other: sign what is stored, and nothing
    /// else. The key signs notes alone.
    pub fn sign(&self, key: &SigningKey) -> SignedNote {
        let text = self.to_string();
        let signature = note::sign(&text, &self.origin, key);
        self.note(signature)
    }

    /// It as a note with one signature. Far below a note's limits, and its text is one.
    fn note(&self, signature: NoteSignature) -> SignedNote {
        SignedNote::of_valid(self.to_string(), vec![signature])
    }

    /// The checkpoint in a note that the log with this key signed. Other signatures are ignored.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`], those of [`SignedNote::verify`], [`Error::Origin`] when it is not of the key's log,
    /// [`Error::KeyKind`] when the key is a witness'.
    pub fn verify(note: &[u8], log_key: &VerifierKey) -> Result<Self, Error> {
        Self::verify_note(&SignedNote::parse(note)?, log_key)
    }

    /// As [`verify`](Self::verify), of a note that was read already.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn verify_note(note: &SignedNote, log_key: &VerifierKey) -> Result<Self, Error> {
        if log_key.kind() != KeyKind::Ed25519 {
            return Err(Error::KeyKind);
        }
        note.verify(std::slice::from_ref(log_key))?;
        let checkpoint: Self = note.text().parse()?;
        if checkpoint.origin == *log_key.name() {
            Ok(checkpoint)
        } else {
            Err(Error::Origin)
        }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}\n{}\n{}",
            self.origin,
            self.size,
            text::encode(&self.root)
        )
    }
}

impl FromStr for Checkpoint {
    type Err = Error;

    fn from_str(body: &str) -> Result<Self, Error> {
        let malformed = |reason| Error::malformed(CHECKPOINT, reason);
        let next = |rest| text::line(rest).ok_or(malformed("it has fewer than three lines"));
        let (origin, rest) = next(body)?;
        let (size, rest) = next(rest)?;
        let (hash, rest) = next(rest)?;
        if !rest.is_empty() {
            return Err(malformed("it has extension lines"));
        }
        let checkpoint = Self {
            origin: origin.parse()?,
            size: text::decimal(size).ok_or(malformed("its size is no decimal below 2^63"))?,
            root: text::hash(hash).ok_or(malformed("its root is no base64 of 32 bytes"))?,
        };
        if checkpoint.size == 0 && checkpoint.root != root(&[]) {
            return Err(malformed("its root is not that of an empty log"));
        }
        Ok(checkpoint)
    }
}
