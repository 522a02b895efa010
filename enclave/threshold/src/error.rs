//! What can go wrong, and who is to blame for it.

use crate::Participant;

/// Why a call failed. Every failure of [`Protocol::advance`](crate::Protocol::advance) ends the run:
/// its state is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A participant did not follow the protocol. The run is over.
    #[error("{reason}; culprits {culprits:?}, suspects {suspects:?}")]
    Abort {
        /// What was seen.
        reason: AbortReason,
        /// Deviated, by what this participant itself received from each of them. In ascending order.
        culprits: Vec<Participant>,
        /// Parties to a contradiction: someone deviated, and what this participant saw does not prove
        /// who. In ascending order, never one of the culprits.
        suspects: Vec<Participant>,
    },
    /// The request is not one this crate serves. No participant is to blame.
    ///
    /// Nothing was started, but for [`Reject::SetupPoisoned`], with which a run that is under way also
    /// ends (and is then over, as after an abort), because another one failed over the same setup; and
    /// for [`Reject::UnexpectedSender`], which ends nothing. Presignatures that were given are spent.
    #[error(transparent)]
    Reject(#[from] Reject),
    /// Unreachable, or the caller misused the interface.
    #[error("bug: {0}")]
    Bug(&'static str),
}

impl Error {
    pub(crate) fn abort(reason: AbortReason, culprit: Participant) -> Self {
        Self::abort_all(reason, vec![culprit])
    }

    pub(crate) fn abort_all(reason: AbortReason, culprits: Vec<Participant>) -> Self {
        Self::Abort {
            reason,
            culprits,
            suspects: Vec::new(),
        }
    }
}

/// What a participant was seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum AbortReason {
    /// A round was closed without these participants' messages.
    #[error("no message")]
    Missing,
    /// A message of the wrong length or version, or a field that decodes to no canonical value.
    #[error("malformed message")]
    Malformed,
    /// A message of another session or another protocol.
    #[error("message of another session")]
    WrongSession,
    /// A message of another round.
    #[error("message of another round")]
    WrongRound,
    /// A message whose sender or recipient is not who sent and received it.
    #[error("misaddressed message")]
    Misaddressed,
    /// Two different messages for the same round.
    #[error("two different messages for one round")]
    Conflicting,
    /// Participants do not agree on what this run is about: participants, threshold, key, messages,
    /// or the caller's context.
    #[error("participants disagree on the session's parameters")]
    ContextMismatch,
    /// Participants do not agree on what was broadcast in the round before.
    #[error("participants received different broadcasts")]
    Equivocation,
    /// What was opened is not what was committed to.
    #[error("opening does not match its commitment")]
    CommitmentMismatch,
    /// A proof of knowledge does not verify.
    #[error("invalid proof of knowledge")]
    InvalidProof,
    /// A secret share does not fit its sender's commitment.
    #[error("invalid secret share")]
    InvalidShare,
    /// Participants derived different public keys.
    #[error("participants derived different public keys")]
    KeyMismatch,
    /// A signature share does not verify.
    #[error("invalid signature share")]
    InvalidSignatureShare,
    /// A consistency check of the oblivious transfers failed. The pair's setup is gone with it.
    #[error("consistency check failed")]
    ConsistencyCheck,
}

impl AbortReason {
    /// The stable name, for wire and logs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "MISSING",
            Self::Malformed => "MALFORMED",
            Self::WrongSession => "WRONG_SESSION",
            Self::WrongRound => "WRONG_ROUND",
            Self::Misaddressed => "MISADDRESSED",
            Self::Conflicting => "CONFLICTING",
            Self::ContextMismatch => "CONTEXT_MISMATCH",
            Self::Equivocation => "EQUIVOCATION",
            Self::CommitmentMismatch => "COMMITMENT_MISMATCH",
            Self::InvalidProof => "INVALID_PROOF",
            Self::InvalidShare => "INVALID_SHARE",
            Self::KeyMismatch => "KEY_MISMATCH",
            Self::InvalidSignatureShare => "INVALID_SIGNATURE_SHARE",
            Self::ConsistencyCheck => "CONSISTENCY_CHECK",
        }
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Reject {
    /// Fewer than 2 or more than [`MAX_PARTICIPANTS`](crate::MAX_PARTICIPANTS).
    #[error("a key needs 2 to 16 participants")]
    Participants,
    /// The threshold is below 2 or above the number of participants.
    #[error("the threshold must be at least 2 and at most the number of participants")]
    Threshold,
    /// This party is not among the participants or signers.
    #[error("this party does not take part")]
    NotAParticipant,
    /// Fewer signers than the key's threshold.
    #[error("fewer signers than the key's threshold")]
    TooFewSigners,
    /// A signer that holds no share of the key.
    #[error("a signer holds no share of this key")]
    UnknownSigner,
    /// The coordinator is not one of the signers.
    #[error("the coordinator is not one of the signers")]
    Coordinator,
    /// No message, or more than [`MAX_BATCH`](crate::MAX_BATCH).
    #[error("a session signs 1 to 64 messages")]
    Batch,
    /// A message that is too long, or for BIP-340 not 32 bytes.
    #[error("message of a length that this scheme does not sign")]
    MessageLength,
    /// A taproot tweak with a scheme that has none.
    #[error("this scheme has no taproot tweak")]
    Tweak,
    /// A derivation path with a hardened step, or too long, or one that leads to no key (BIP-32 says to
    /// take the next index).
    #[error("no key at this derivation path")]
    DerivationPath,
    /// A digest that is zero modulo the curve's order: a signature of it says nothing about the key.
    #[error("a digest of zero is not signed")]
    ZeroDigest,
    /// A presignature of another key, binding or set of signers, or not one for each message.
    #[error("the presignatures do not fit the request")]
    Presignature,
    /// No pairwise setup with one of the other signers.
    #[error("no pairwise setup with one of the signers")]
    PairSetup,
    /// Bytes that are not a key package, or not a consistent one.
    #[error("malformed key package")]
    KeyPackage,
    /// Bytes that are not a public key of the scheme.
    #[error("malformed public key")]
    PublicKey,
    /// The signature does not verify.
    #[error("invalid signature")]
    Signature,
    /// The pair's setup was thrown away after a failed check, before this run or while it was under way:
    /// make a new one first.
    #[error("the pair's setup was thrown away after a failed check")]
    SetupPoisoned,
    /// A message from someone from whom none is expected. Drop it; the run goes on.
    #[error("message from someone from whom none is expected")]
    UnexpectedSender,
}
