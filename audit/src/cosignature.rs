//! Cosignatures ([C2SP tlog-cosignature](https://c2sp.org/tlog-cosignature), `cosignature/v1`): a witness' word that
//! a checkpoint continues all that it has seen of the log.

use ed25519_dalek::{Signer as _, SigningKey};

use crate::checkpoint::Checkpoint;
use crate::note::{KeyKind, KeyName, NoteSignature, SignedNote, VerifierKey};
use crate::{Error, text};

/// Time in seconds, then an Ed25519 signature.
const LENGTH: usize = 8 + 64;

/// What a witness signs: the first line separates it from all else that is signed with Ed25519.
fn message(text: &str, time: u64) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// Cosigns a checkpoint at a time in seconds since 1970. The line goes under the log's note
/// ([`SignedNote::add`]).
///
/// # Errors
///
/// [`Error::Time`] when the time is beyond 2^63 - 1.
///
/// # Security
///
/// Only after the checkpoint was found to continue the last one that was cosigned of this log, and after it was
/// stored as the last one now (see [`witness`](crate::witness)). The key must be of this witness alone: what is
/// signed does not name it.
pub fn cosign(
    checkpoint: &Checkpoint,
    time: u64,
    name: &KeyName,
    key: &SigningKey,
) -> Result<NoteSignature, Error> {
    if time > text::MAX_SIZE {
        return Err(Error::Time);
    }
    let message = message(&checkpoint.to_string(), time);
    let mut bytes = time.to_be_bytes().to_vec();
    bytes.extend(key.sign(message.as_bytes()).to_bytes());
    let id = VerifierKey::of_signing_key(name.clone(), KeyKind::CosignatureV1, key).id();
    Ok(NoteSignature::new(name.clone(), id, bytes))
}

/// Checks a cosignature's bytes, and gives its time.
pub(crate) fn verify(key: &VerifierKey, text: &str, bytes: &[u8]) -> Result<u64, Error> {
    let bytes: &[u8; LENGTH] = bytes.try_into().map_err(|_| Error::BadSignature)?;
    let (time, signature) = bytes.split_first_chunk::<8>().ok_or(Error::BadSignature)?;
    let signature = signature.try_into().map_err(|_| Error::BadSignature)?;
    let time = u64::from_be_bytes(*time);
    if time > text::MAX_SIZE {
        return Err(Error::Time);
    }
    key.verify_bytes(message(text, time).as_bytes(), signature)?;
    Ok(time)
}

/// A cosignature that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignature {
    /// Whose.
    pub key: VerifierKey,
    /// When, in seconds since 1970, as the witness says.
    pub time: u64,
}

/// A checkpoint whose log signature was verified, and the cosignatures of those witnesses that were asked about.
/// Only [`verify`](Self::verify) makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CosignedCheckpoint {
    checkpoint: Checkpoint,
    cosignatures: Vec<Cosignature>,
}

impl CosignedCheckpoint {
    /// Verifies a note as the log's checkpoint and every cosignature on it of one of `witnesses`. There need be
    /// none: how many are enough is the caller's to say.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::verify`]; also when a cosignature says that it is of one of `witnesses` and is not.
    pub fn verify(
        note: &[u8],
        log_key: &VerifierKey,
        witnesses: &[VerifierKey],
    ) -> Result<Self, Error> {
        Self::verify_note(&SignedNote::parse(note)?, log_key, witnesses)
    }

    /// As [`verify`](Self::verify), of a note that was read already.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn verify_note(
        note: &SignedNote,
        log_key: &VerifierKey,
        witnesses: &[VerifierKey],
    ) -> Result<Self, Error> {
        let checkpoint = Checkpoint::verify_note(note, log_key)?;
        if witnesses
            .iter()
            .any(|key| key.kind() != KeyKind::CosignatureV1)
        {
            return Err(Error::KeyKind);
        }
        let signed = match note.verify(witnesses) {
            Ok(signed) => signed,
            Err(Error::Unsigned) => Vec::new(),
            Err(error) => return Err(error),
        };
        let cosignatures = signed
            .into_iter()
            .filter_map(|signed| {
                Some(Cosignature {
                    key: signed.key.clone(),
                    time: signed.time?,
                })
            })
            .collect();
        Ok(Self {
            checkpoint,
            cosignatures,
        })
    }

    /// What the log signed.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Who vouches for it, in the order of the witnesses that were asked about.
    pub fn cosignatures(&self) -> &[Cosignature] {
        &self.cosignatures
    }
}
