//! Why evidence or a manifest was refused.

/// Why evidence or a manifest was refused. No message carries bytes of the refused input.
///
/// Evidence variants stand in the order in which [`verify_live`](crate::verify_live) checks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // Evidence, before its first byte is read: what the verifier was given.
    /// The attester is an NSM of a class for which the verifier has no root.
    #[error("there is no trust anchor for evidence of class {class}")]
    NoTrustAnchor {
        /// The attester's class.
        class: crate::TrustClass,
    },
    /// The attester is an HSM, and the verifier was given no roots of HSMs.
    #[error("there are no roots of HSMs under which the evidence could be verified")]
    NoHsmRoots,

    // Evidence, step 1: bounds and encoding.
    /// The document is longer than 16 KiB.
    #[error("the attestation document has {size} bytes; at most {max} are read")]
    DocumentTooLarge {
        /// Its length in bytes.
        size: usize,
        /// The most that is read.
        max: usize,
    },
    /// The document is not strict CBOR of the expected shape.
    #[error("the attestation document is malformed at byte {offset} of the {part}: {fault}")]
    Cbor {
        /// `envelope` or `payload`.
        part: &'static str,
        /// From the beginning of that part.
        offset: usize,
        /// What is wrong there.
        fault: CborFault,
    },

    // Step 2: COSE_Sign1.
    /// The envelope is not an array of four, untagged or with tag 18.
    #[error("the attestation document is no COSE_Sign1")]
    NotCoseSign1,
    /// The protected header is not exactly `{1: -35}`, which is ES384.
    #[error("the protected header says something else than ES384 and nothing more")]
    ProtectedHeader,
    /// The unprotected header is not empty.
    #[error("the unprotected header is not empty")]
    UnprotectedHeader,
    /// The signature is not 96 bytes long.
    #[error("the signature has {size} bytes instead of 96")]
    SignatureLength {
        /// Its length in bytes.
        size: usize,
    },

    // Step 3: fields.
    /// A mandatory field is absent.
    #[error("the payload has no field `{field}`")]
    MissingField {
        /// The field's key.
        field: &'static str,
    },
    /// A field's length is outside what the format allows.
    #[error(
        "the payload's field `{field}` has {size} bytes or entries, which is outside its bounds"
    )]
    FieldBounds {
        /// The field's key.
        field: &'static str,
        /// Its length: bytes, or entries of a collection.
        size: usize,
    },
    /// The digest algorithm is not `SHA384`.
    #[error("the payload's digest algorithm is not SHA384")]
    DigestAlgorithm,
    /// The timestamp is zero.
    #[error("the payload's timestamp is zero")]
    Timestamp,
    /// A PCR's index is above 31.
    #[error("there is a PCR with an index above 31")]
    PcrIndex,
    /// A PCR is not 48 bytes long.
    #[error("PCR {index} has {size} bytes instead of 48")]
    PcrLength {
        /// Which PCR.
        index: u8,
        /// Its length in bytes.
        size: usize,
    },

    /// Evidence of an HSM has a version that this verifier does not know.
    #[error("the evidence has version {version} of the format for HSMs; this program knows 1")]
    EvidenceVersion {
        /// What it says.
        version: u64,
    },
    /// A text is not printable ASCII.
    #[error("the payload's field `{field}` is not printable ASCII")]
    NotPrintable {
        /// The field's key.
        field: &'static str,
    },
    /// Evidence of an HSM is encoded in another way than the one it has to be.
    #[error("the evidence is not in the one encoding that evidence of an HSM has")]
    NotCanonical,

    // Steps 4 and 5: the path from the pinned root to the leaf.
    /// The bundle does not begin with a pinned root.
    #[error("the certificate bundle begins with another root than the pinned ones ({class})")]
    UntrustedRoot {
        /// The class of the pinned roots.
        class: crate::TrustClass,
    },
    /// A certificate is refused.
    #[error("certificate {position} from the root is refused: {fault}")]
    Certificate {
        /// 0 is the root; the leaf comes last.
        position: usize,
        /// Why.
        fault: CertificateFault,
    },

    /// Evidence of an HSM names another identity key than its certificate does.
    #[error("the evidence's public key is not the one that the leaf certificate is for")]
    OtherKeyThanCertified,

    // Step 6: time.
    /// The document is older than the live verifier tolerates.
    #[error(
        "the evidence is {by_ms} ms older than the live verifier's clock; the tolerance is smaller"
    )]
    TooOld {
        /// The verifier's clock minus the document's timestamp.
        by_ms: u64,
    },
    /// The document's timestamp lies further in the future than the live verifier tolerates.
    #[error(
        "the evidence is {by_ms} ms ahead of the live verifier's clock; the tolerance is smaller"
    )]
    FromTheFuture {
        /// The document's timestamp minus the verifier's clock.
        by_ms: u64,
    },

    // Step 7: signature.
    /// The leaf's key did not sign this payload.
    #[error("the signature over the payload does not verify under the leaf certificate")]
    Signature,

    // Steps 8 and 9: measurements.
    /// PCR 0, 1 or 2 is all zero: the enclave runs in debug mode.
    #[error("the enclave runs in debug mode")]
    DebugMode,
    /// PCR 0, 1 or 2 is absent.
    #[error("the payload has no PCR {index}")]
    MissingPcr {
        /// Which PCR.
        index: u8,
    },
    /// The verifier was given no reference values.
    #[error("there are no reference values to compare the measurements with")]
    NoReferenceValues,
    /// No reference value equals the measurements.
    #[error("the measurements equal none of the {references} reference values")]
    Measurements {
        /// How many reference values there were.
        references: usize,
    },

    // Step 10: what the evidence is bound to.
    /// The verifier was given no value to compare a field with, or a nonce that is too short to be fresh.
    #[error("the verifier was given no usable expectation for `{field}`")]
    MissingExpectation {
        /// The field's key.
        field: &'static str,
    },
    /// The document carries no nonce.
    #[error("the evidence carries no nonce")]
    NonceMissing,
    /// The document carries another nonce.
    #[error("the evidence carries another nonce than the verifier's")]
    NonceMismatch,
    /// The document is bound to another public key, or to none.
    #[error("the evidence is bound to another public key")]
    PublicKeyMismatch,
    /// The document is bound to something else than this channel or answer.
    #[error("the evidence is bound to another channel or statement")]
    UserDataMismatch,

    // Trust anchors.
    /// What was given as the simulated root cannot be one.
    #[error("the simulated root is unusable: {fault}")]
    SimulatedRoot {
        /// Why.
        fault: CertificateFault,
    },
    /// The production root was given as the simulated root.
    #[error("the AWS Nitro root cannot be the root of a simulated cluster")]
    ProductionRootAsSimulated,

    // Manifest.
    /// The manifest is longer than 64 KiB.
    #[error("the manifest has {size} bytes; at most {max} are read")]
    ManifestTooLarge {
        /// Its length in bytes.
        size: usize,
        /// The most that is read.
        max: usize,
    },
    /// The manifest is not JSON of the expected shape.
    #[error("the manifest is malformed at line {line}, column {column}")]
    ManifestSyntax {
        /// Counted from 1; 0 when it is not JSON's fault.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// The manifest is well-formed and says something that is not allowed.
    #[error("the manifest's {field}: {problem}")]
    ManifestField {
        /// Which part of the manifest.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A loss acceptance is not JSON of the expected shape, or says something that is not allowed.
    #[error("the loss acceptance's {field}: {problem}")]
    LossAcceptance {
        /// Which part of it.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A manifest or loss acceptance carries more signatures than are read.
    #[error("there are {count} signatures; at most {max} are read")]
    TooManySignatures {
        /// How many it carries.
        count: usize,
        /// The most that are read.
        max: usize,
    },
    /// A signature in the name of an administrator does not verify.
    #[error("a signature in the name of administrator `{administrator}` does not verify")]
    AdministratorSignature {
        /// Name in the manifest, or the first digits of a pinned key.
        administrator: String,
    },
    /// Too few administrators have signed.
    #[error("{signed} of {needed} needed {whose} administrators have signed")]
    NoQuorum {
        /// `own`, `current` or `pinned`.
        whose: &'static str,
        /// How many different ones have signed.
        signed: usize,
        /// How many are needed.
        needed: usize,
    },
    /// The verifier was given a quorum that no set of signatures can reach, or that none reaches.
    #[error("the pinned quorum is {quorum} of {administrators}")]
    PinnedQuorum {
        /// As given.
        quorum: usize,
        /// How many different administrators were given.
        administrators: usize,
    },
    /// The manifest is for another cluster than the one in force.
    #[error("the manifest is for another cluster")]
    OtherCluster,
    /// The manifest's epoch is not above the one in force.
    #[error("the manifest has epoch {offered}; epoch {current} is already in force")]
    ManifestEpoch {
        /// Epoch of the manifest in force.
        current: u64,
        /// Epoch of the one that was offered.
        offered: u64,
    },
    /// The manifest is not valid yet.
    #[error("the manifest is not valid yet")]
    ManifestNotYetValid,
    /// The manifest is valid no longer.
    #[error("the manifest has expired")]
    ManifestExpired,
}

/// What is wrong with an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CborFault {
    /// The input ends inside an item.
    #[error("ends inside an item")]
    Truncated,
    /// There are bytes after the last item.
    #[error("bytes after the end")]
    Trailing,
    /// A map has two entries with one key.
    #[error("two entries with one key")]
    DuplicateKey,
    /// Another key than the one that stands there in the format, or one too many.
    #[error("another key than the one that is due")]
    Key,
    /// Items are nested too deep.
    #[error("nested too deep")]
    TooDeep,
    /// An item has another type than the format says.
    #[error("another type than the format says")]
    Type,
    /// A string comes in chunks of indefinite length.
    #[error("a string of indefinite length")]
    Chunked,
    /// A head that RFC 8949 reserves or that stands where it cannot.
    #[error("a reserved or misplaced head")]
    Head,
    /// A text string is not UTF-8.
    #[error("text that is not UTF-8")]
    Utf8,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateFault {
    /// Not one DER-encoded X.509 v3 certificate.
    #[error("not one DER-encoded X.509 version 3 certificate")]
    Encoding,
    /// Signed with another algorithm than ECDSA with SHA-384.
    #[error("its signature algorithm is not ECDSA with SHA-384")]
    Algorithm,
    /// Its key is not on P-384.
    #[error("its key is not a P-384 key")]
    Key,
    /// Its issuer's name is not the name of the certificate before it.
    #[error("another issuer than the certificate before it")]
    Issuer,
    /// The certificate before it did not sign it.
    #[error("the certificate before it did not sign it")]
    Signature,
    /// Not valid yet at the time of verification.
    #[error("not valid yet")]
    NotYetValid,
    /// No longer valid at the time of verification.
    #[error("expired")]
    Expired,
    /// It issues, and its basic constraints do not say that it may.
    #[error("it is no certificate authority")]
    NotAnAuthority,
    /// It is the leaf, and says that it may issue.
    #[error("the leaf is a certificate authority")]
    LeafIsAuthority,
    /// More authorities follow than its path length constraint allows.
    #[error("the path below it is longer than it allows")]
    PathLength,
    /// Its key usage is absent, or lacks `keyCertSign` (issuers) or `digitalSignature` (leaf).
    #[error("its key usage does not allow this use")]
    KeyUsage,
    /// A critical extension that this verifier does not know.
    #[error("an unknown critical extension")]
    CriticalExtension,
    /// One extension twice.
    #[error("one extension twice")]
    DuplicateExtension,
}
