//! Why a channel was not opened.

use arca_attestation::ClusterKind;

/// Reason of whatever went wrong inside this side.
pub(crate) const INTERNAL: &str = "INTERNAL";

/// Why a channel was not opened. Nothing was served on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // The transport, and time.
    /// The stream failed or ended early, or TLS refused what came over it.
    #[error("the connection failed during the handshake: {0}")]
    Io(#[from] std::io::Error),
    /// The other side took too long.
    #[error("the handshake did not finish in time")]
    Timeout,
    /// Newer connections took its place before it had said who it is.
    #[error("dropped unfinished, because too many newer connections came")]
    Crowded,
    /// TLS could not be set up.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// TLS succeeded with parameters that this channel excludes.
    #[error("the TLS session is not one this channel accepts: {0}")]
    TlsParameters(&'static str),

    // The other side's flights.
    /// The other side refused us.
    #[error("the other side refused the connection: {reason}: {message}")]
    Refused {
        /// Stable, in UPPER_SNAKE_CASE; as [`Error::reason`] has it at the other side.
        reason: String,
        /// Printable ASCII, bounded; the other side's words.
        message: String,
    },
    /// A flight is longer than any can be.
    #[error("a flight of {0} bytes was announced; the limit is {limit}", limit = crate::flight::MAX_FLIGHT)]
    Oversize(u32),
    /// A flight does not have the form it must have.
    #[error("a flight is malformed: {0}")]
    Malformed(&'static str),
    /// The initiator speaks another version of this handshake.
    #[error("the other side speaks version {0} of the handshake, not 1")]
    Version(u32),

    // Who the other side is.
    /// The other side has our own key: our evidence is being sent back to us, or a key was copied.
    #[error("the other side has this side's own key")]
    Reflection,
    /// One of the two holds no manifest yet, so neither can be known as a party or a principal.
    #[error("no manifest has been accepted yet at {0}")]
    NotEnrolled(&'static str),
    /// The connection was meant for another party, or reached another one.
    #[error("the connection is for party {wanted:?}, and this is {found:?}")]
    WrongParty {
        /// Whom the initiator named.
        wanted: String,
        /// Who answered.
        found: String,
    },
    /// The two belong to different clusters.
    #[error("the connection is for cluster {wanted:?}, and this is {found:?}")]
    WrongCluster {
        /// What this side expects.
        wanted: String,
        /// What the other side says.
        found: String,
    },
    /// No party of this name stands in the manifest.
    #[error("the manifest names no party {0:?}")]
    UnknownParty(String),
    /// The other side's key is not the one that the manifest gives to the party.
    #[error("the other side does not hold the identity key of party {0:?}")]
    WrongIdentity(String),
    /// The manifest names no party with the other side's key.
    #[error("the other side's key is not a party's")]
    NotAParty,
    /// The manifest names no principal with the other side's key.
    #[error("the other side's key is not a principal's")]
    UnknownPrincipal,
    /// The manifest revokes the other side's key.
    #[error("the manifest revokes the other side's key")]
    Revoked,
    /// Two parties hold different manifests; the older one has to be brought up to date first.
    #[error("the other party holds epoch {theirs} of the manifest, this one {ours}")]
    Epoch {
        /// Epoch of this side's manifest.
        ours: u64,
        /// Epoch of the other side's.
        theirs: u64,
    },
    /// The manifest on which this side decides is outside its period of validity.
    #[error("the manifest is outside its period of validity")]
    ManifestExpired,
    /// An enclave that is no party yet gives a cluster of a kind that it cannot be of, or that this side's trust
    /// anchors are not for.
    #[error("the enclave is of a {0} cluster, which it cannot be under these trust anchors")]
    WrongKind(ClusterKind),
    /// The evidence was refused.
    #[error("evidence refused: {0}")]
    Evidence(#[from] arca_attestation::Error),
    /// The evidence is good but about to expire.
    #[error("the evidence expires too soon to open a channel on it")]
    EvidenceExpiring,

    // This side.
    /// The manifest changed while the handshake was under way; it has to be made again.
    #[error("the manifest changed during the handshake")]
    ManifestChanged,
    /// A manifest was given that this endpoint cannot take.
    #[error("this endpoint cannot take that manifest: {0}")]
    Manifest(&'static str),
    /// The platform made no evidence.
    #[error(transparent)]
    Attester(#[from] crate::AttesterError),
    /// This endpoint has no platform to make evidence with, so it can accept nobody and be no party.
    #[error("this endpoint cannot make evidence")]
    NoAttester,
    /// Randomness failed.
    #[error("the random generator failed")]
    Random,
    /// These bytes are no secret key.
    #[error("not a P-256 secret key")]
    SecretKey,
    /// The hardware's identity key is not one that this channel can use.
    #[error("the hardware's identity key is not the canonical SubjectPublicKeyInfo of a P-384 key")]
    HardwareKey,
}

impl Error {
    /// A stable name, in UPPER_SNAKE_CASE, for the other side, logs and metrics.
    pub fn reason(&self) -> &str {
        match self {
            Self::Io(_) => "CONNECTION_FAILED",
            Self::Timeout => "TIMEOUT",
            Self::Crowded => "CROWDED",
            Self::Tls(_) | Self::TlsParameters(_) => "TLS",
            Self::Refused { reason, .. } => reason,
            Self::Oversize(_) => "OVERSIZE",
            Self::Malformed(_) => "MALFORMED",
            Self::Version(_) => "VERSION",
            Self::Reflection => "REFLECTION",
            Self::NotEnrolled(_) => "NOT_ENROLLED",
            Self::WrongParty { .. } => "WRONG_PARTY",
            Self::WrongCluster { .. } => "WRONG_CLUSTER",
            Self::UnknownParty(_) => "UNKNOWN_PARTY",
            Self::WrongIdentity(_) => "WRONG_IDENTITY",
            Self::NotAParty => "NOT_A_PARTY",
            Self::UnknownPrincipal => "UNKNOWN_PRINCIPAL",
            Self::Revoked => "REVOKED",
            Self::Epoch { .. } => "MANIFEST_EPOCH",
            Self::ManifestExpired => "MANIFEST_EXPIRED",
            Self::WrongKind(_) => "TRUST_CLASS",
            Self::Evidence(_) => "EVIDENCE_REFUSED",
            Self::EvidenceExpiring => "EVIDENCE_EXPIRING",
            Self::ManifestChanged => "MANIFEST_CHANGED",
            Self::Manifest(_) => "MANIFEST",
            Self::Attester(_)
            | Self::NoAttester
            | Self::Random
            | Self::SecretKey
            | Self::HardwareKey => INTERNAL,
        }
    }
}
