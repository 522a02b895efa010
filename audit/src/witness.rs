//! Witnessing ([C2SP tlog-witness](https://c2sp.org/tlog-witness)): what a log sends to have a checkpoint cosigned,
//! and how a witness decides. Storage, clock, key and HTTP are the caller's.
//!
//! ```
//! # use arca_audit::{Tree, checkpoint::Checkpoint, cosignature::cosign, leaf_hash};
//! # use arca_audit::note::{KeyKind, VerifierKey};
//! # use arca_audit::witness::{AddCheckpoint, Refusal, Witness};
//! # use ed25519_dalek::SigningKey;
//! # let log_key = SigningKey::from_bytes(&[1; 32]);
//! # let log = VerifierKey::of_signing_key("example.com/log".parse()?, KeyKind::Ed25519, &log_key);
//! # let (key, name, now) = (SigningKey::from_bytes(&[2; 32]), "example.com/witness".parse()?, 1_700_000_000);
//! # let tree: Tree = [leaf_hash(b"entry")].into_iter().collect();
//! # let signed = Checkpoint { origin: "example.com/log".parse()?, size: 1, root: tree.root() }.sign(&log_key);
//! # let body = AddCheckpoint { old_size: 0, proof: Vec::new(), note: signed }.to_bytes();
//! # fn store(_: &[u8]) {}
//! let mut witness = Witness::new([log]);
//! let accepted = witness.judge(&AddCheckpoint::parse(&body)?)?;
//! // What is not stored must not be cosigned: after a crash the witness would sign what contradicts it.
//! store(&accepted.note().to_bytes());
//! let checkpoint = witness.accept(accepted)?;
//! let line = cosign(&checkpoint, now, &name, &key)?;
//! # assert!(line.to_string().starts_with("— example.com/witness "));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;

use crate::checkpoint::Checkpoint;
use crate::note::{MAX_NOTE, MAX_SIGNATURES, NoteSignature, SignedNote, VerifierKey};
use crate::{Error, Hash, note::KeyName, text, verify_consistency};

/// The most hashes of a request's proof, as the protocol has it.
pub const MAX_PROOF: usize = 63;
/// The longest request, in bytes: a note, and some kilobytes of proof.
pub const MAX_REQUEST: usize = MAX_NOTE + 4096;
/// Content type of the body of a conflict.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";

const REQUEST: &str = "add-checkpoint request";
const RESPONSE: &str = "add-checkpoint response";

/// Body of an `add-checkpoint` request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the checkpoint that the witness cosigned last; 0 when none.
    pub old_size: u64,
    /// Consistency proof from there.
    pub proof: Vec<Hash>,
    /// The new checkpoint, signed.
    pub note: SignedNote,
}

impl AddCheckpoint {
    /// Reads a request; judges nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`].
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let malformed = |reason| Error::malformed(REQUEST, reason);
        if body.len() > MAX_REQUEST {
            return Err(malformed("it is too long"));
        }
        let body = std::str::from_utf8(body).map_err(|_| malformed("it is not UTF-8"))?;
        let (old_size, rest) = text::line(body)
            .and_then(|(first, rest)| Some((first.strip_prefix("old ")?, rest)))
            .ok_or(malformed("it does not begin with the old size"))?;
        let old_size =
            text::decimal(old_size).ok_or(malformed("its old size is no decimal below 2^63"))?;
        let (proof, rest) = text::hashes(rest, MAX_PROOF, REQUEST)?;
        Ok(Self {
            old_size,
            proof,
            note: SignedNote::parse(rest.as_bytes())?,
        })
    }

    /// The request as bytes; [`parse`](Self::parse) gives it back when it is within the limits.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        for hash in &self.proof {
            writeln!(f, "{}", text::encode(hash))?;
        }
        write!(f, "\n{}", self.note)
    }
}

/// Reads the body of a response with status 200: lines of signatures.
///
/// # Errors
///
/// [`Error::Malformed`].
pub fn parse_cosignatures(body: &[u8]) -> Result<Vec<NoteSignature>, Error> {
    let malformed = |reason| Error::malformed(RESPONSE, reason);
    if body.len() > MAX_NOTE {
        return Err(malformed("it is longer than 1 MiB"));
    }
    let body = std::str::from_utf8(body).map_err(|_| malformed("it is not UTF-8"))?;
    let lines = body
        .strip_suffix('\n')
        .ok_or(malformed("it does not end with a newline"))?;
    let lines: Vec<_> = lines
        .split('\n')
        .take(MAX_SIGNATURES + 1)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    if lines.len() > MAX_SIGNATURES {
        return Err(malformed("it has more than 64 signatures"));
    }
    Ok(lines)
}

/// Why a checkpoint is not cosigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The request or its checkpoint cannot be read.
    #[error(transparent)]
    Malformed(#[from] Error),
    /// The log is not one that is witnessed here.
    #[error("the log is not one that is witnessed here")]
    UnknownOrigin,
    /// The log did not sign it.
    #[error("the checkpoint is not signed by its log")]
    Signature,
    /// The old size is larger than the new one.
    #[error("the old size is larger than that of the checkpoint")]
    OldBeyondNew,
    /// The old size is not that of the checkpoint that was accepted last.
    #[error("the checkpoint that was cosigned last has size {size}")]
    Conflict {
        /// The size that was accepted last.
        size: u64,
    },
    /// The log signed two checkpoints of one size with different roots. This one and the last are the proof of it.
    #[error("the log has signed another checkpoint of size {size}")]
    Fork {
        /// The size that both have.
        size: u64,
    },
    /// The consistency proof does not verify. The log may have forked, or the proof be wrong.
    #[error("the consistency proof does not verify")]
    Proof,
}

impl Refusal {
    /// Status of the HTTP response.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::OldBeyondNew => 400,
            Self::Signature => 403,
            Self::UnknownOrigin => 404,
            Self::Conflict { .. } | Self::Fork { .. } => 409,
            Self::Proof => 422,
        }
    }

    /// The size that goes into the body of a conflict, in decimal before a newline, as
    /// [`SIZE_CONTENT_TYPE`].
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::Conflict { size } | Self::Fork { size } => Some(*size),
            _ => None,
        }
    }
}

/// A log that is witnessed, and the last of its checkpoints that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessedLog {
    key: VerifierKey,
    last: Option<Seen>,
}

/// An accepted checkpoint with the note that carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    checkpoint: Checkpoint,
    /// With the log's signature alone.
    note: SignedNote,
}

/// A checkpoint that continues the last one, and is to be stored before it takes its place and is cosigned. Only
/// [`judge`](WitnessedLog::judge) makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    seen: Seen,
    /// Size of the checkpoint that it was compared with.
    old_size: u64,
}

impl Accepted {
    /// What it says.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.seen.checkpoint
    }

    /// What to store: the note with the log's signature alone. [`WitnessedLog::resume`] takes it.
    pub fn note(&self) -> &SignedNote {
        &self.seen.note
    }
}

impl WitnessedLog {
    /// A log of which nothing was seen.
    ///
    /// # Security
    ///
    /// Only when nothing was ever cosigned of it: a witness that forgets lets a log fork.
    pub fn new(key: VerifierKey) -> Self {
        Self { key, last: None }
    }

    /// A log with the note that was stored last.
    ///
    /// # Errors
    ///
    /// Those of [`Checkpoint::verify`].
    pub fn resume(key: VerifierKey, note: &SignedNote) -> Result<Self, Error> {
        let checkpoint = Checkpoint::verify_note(note, &key)?;
        let note = note.only(std::slice::from_ref(&key))?;
        let last = Some(Seen { checkpoint, note });
        Ok(Self { key, last })
    }

    /// The log's key.
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// The checkpoint that was accepted last.
    pub fn last(&self) -> Option<&Checkpoint> {
        self.last.as_ref().map(|seen| &seen.checkpoint)
    }

    /// The note of the checkpoint that was accepted last, with the log's signature alone.
    pub fn last_note(&self) -> Option<&SignedNote> {
        self.last.as_ref().map(|seen| &seen.note)
    }

    fn size(&self) -> u64 {
        self.last().map_or(0, |last| last.size)
    }

    /// Whether a checkpoint continues the last one. Changes nothing.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn judge(&self, request: &AddCheckpoint) -> Result<Accepted, Refusal> {
        let checkpoint: Checkpoint = request.note.text().parse()?;
        if checkpoint.origin != *self.key.name() {
            return Err(Refusal::UnknownOrigin);
        }
        Checkpoint::verify_note(&request.note, &self.key).map_err(|_| Refusal::Signature)?;
        let (old_size, size) = (request.old_size, self.size());
        if let Some(last) = self.last()
            && last.size == checkpoint.size
            && last.root != checkpoint.root
        {
            return Err(Refusal::Fork { size });
        }
        if old_size > checkpoint.size {
            return Err(Refusal::OldBeyondNew);
        }
        if old_size != size {
            return Err(Refusal::Conflict { size });
        }
        // Of nothing every log is a continuation, and the empty one has one root.
        let old_root = self.last().map_or(crate::root(&[]), |last| last.root);
        verify_consistency(
            old_size,
            &old_root,
            checkpoint.size,
            &checkpoint.root,
            &request.proof,
        )
        .map_err(|_| Refusal::Proof)?;
        let note = request
            .note
            .only(std::slice::from_ref(&self.key))
            .map_err(|_| Refusal::Signature)?;
        Ok(Accepted {
            seen: Seen { checkpoint, note },
            old_size,
        })
    }

    /// Takes an accepted checkpoint for the last one, once it is stored. Gives what may be cosigned now.
    ///
    /// # Errors
    ///
    /// [`Refusal::Conflict`] when another took that place since it was judged, [`Refusal::UnknownOrigin`] when it is
    /// of another log.
    pub fn accept(&mut self, accepted: Accepted) -> Result<Checkpoint, Refusal> {
        if accepted.checkpoint().origin != *self.key.name() {
            return Err(Refusal::UnknownOrigin);
        }
        let size = self.size();
        if accepted.old_size != size {
            return Err(Refusal::Conflict { size });
        }
        let checkpoint = accepted.seen.checkpoint.clone();
        self.last = Some(accepted.seen);
        Ok(checkpoint)
    }
}

/// The logs of a witness, by their origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    logs: BTreeMap<KeyName, WitnessedLog>,
}

impl Witness {
    /// A witness of these logs that has seen nothing of them.
    pub fn new(keys: impl IntoIterator<Item = VerifierKey>) -> Self {
        let mut witness = Self::default();
        for key in keys {
            witness.insert(WitnessedLog::new(key));
        }
        witness
    }

    /// Adds a log, in place of one of the same origin.
    pub fn insert(&mut self, log: WitnessedLog) {
        self.logs.insert(log.key.name().clone(), log);
    }

    /// A log by its origin.
    pub fn log(&self, origin: &KeyName) -> Option<&WitnessedLog> {
        self.logs.get(origin)
    }

    /// All logs, by origin.
    pub fn logs(&self) -> impl Iterator<Item = &WitnessedLog> {
        self.logs.values()
    }

    /// As [`WitnessedLog::judge`], of the log that the checkpoint names.
    ///
    /// # Errors
    ///
    /// Why it is not accepted.
    pub fn judge(&self, request: &AddCheckpoint) -> Result<Accepted, Refusal> {
        let checkpoint: Checkpoint = request.note.text().parse()?;
        self.log(&checkpoint.origin)
            .ok_or(Refusal::UnknownOrigin)?
            .judge(request)
    }

    /// As [`WitnessedLog::accept`].
    ///
    /// # Errors
    ///
    /// Why it may not be cosigned.
    pub fn accept(&mut self, accepted: Accepted) -> Result<Checkpoint, Refusal> {
        self.logs
            .get_mut(&accepted.checkpoint().origin)
            .ok_or(Refusal::UnknownOrigin)?
            .accept(accepted)
    }
}
