//! The signature certificate, the openings of an export, and the files that entries name by digest: their JSON.
//!
//! These types say how the documents look and nothing of whether they are true; that is verified with the trust
//! anchors and the manifest, by whoever holds them. See `docs/audit-log.md`.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha384};

use crate::entry::Hex;

/// The version of certificates that is written.
pub const VERSION: u32 = 1;
/// The longest certificate, in bytes.
pub const MAX_CERTIFICATE: usize = 1 << 20;

/// Bytes of any number, in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64ct::Encoding as _;
        serializer.serialize_str(&base64ct::Base64::encode_string(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64ct::Encoding as _;
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        base64ct::Base64::decode_vec(text.as_ref())
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

/// Everything that is needed, besides trust anchors, to see that a signature was made as it should have been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// [`VERSION`].
    pub version: u32,
    /// What the initiator asked for.
    pub request: Request,
    /// The key that signed.
    pub key: KeyRecord,
    /// The session that signed.
    pub session: Hex<32>,
    /// What came of it.
    pub signatures: Vec<Signature>,
    /// The manifest under which it was signed.
    pub manifest: SignedManifest,
    /// The parties that signed.
    pub parties: Vec<Party>,
}

/// A request, as its initiator signed it (`arca_attestation::SigningAuthorization`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The principal's name in the manifest.
    pub initiator: String,
    /// Its idempotency key.
    pub request_id: String,
    /// `keys/…`
    pub key: String,
    /// Field name in `arca.v1.SigningPayload`.
    pub payload_kind: String,
    /// The payload.
    pub payload: Base64,
    /// Milliseconds since 1970.
    pub expire_ms: u64,
    /// BIP-32 steps.
    pub derivation_path: Vec<u32>,
    /// ECDSA P-256 over all of it, 64 bytes.
    pub authorization: Hex<64>,
}

/// A key, as `arca.v1.Key` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// `keys/…`
    pub name: String,
    /// Its epoch.
    pub epoch: u64,
    /// `bip340`, `ed25519`, `ecdsa-secp256k1` or `ecdsa-p256`.
    pub scheme: String,
    /// In hex.
    #[serde(with = "hex::serde")]
    pub public_key: Vec<u8>,
    /// ECDSA: 32 bytes, in hex; empty otherwise.
    #[serde(with = "hex::serde")]
    pub chain_code: Vec<u8>,
    /// Shares needed to sign.
    pub threshold: u16,
    /// Who holds one.
    pub parties: Vec<String>,
    /// Whether raw digests may be signed with it.
    pub allow_raw_digest: bool,
}

/// Separates the digest of a key's record from all others.
const KEY_RECORD: &str = "arca/v1/key-record";

impl KeyRecord {
    /// SHA-256 over a tag, a zero byte and the record's JSON in its one form: how an intent names the key that signs.
    pub fn digest(&self) -> [u8; 32] {
        let json = serde_json::to_vec(self).unwrap_or_default();
        Sha256::new()
            .chain_update(KEY_RECORD)
            .chain_update([0])
            .chain_update(json)
            .finalize()
            .into()
    }
}

/// A signature, as `arca.v1.Signature` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// 64 bytes.
    pub signature: Hex<64>,
    /// The PSBT input it belongs to; 0 otherwise.
    pub input: u32,
    /// ECDSA: which nonce point.
    pub recovery_id: u32,
    /// ECDSA: the key that it verifies under; empty otherwise.
    #[serde(with = "hex::serde")]
    pub public_key: Vec<u8>,
}

/// A document and the signatures of administrators over it; also the form of the files that entries name by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedManifest {
    /// The exact bytes that were signed.
    pub manifest: Base64,
    /// Who signed them.
    pub signatures: Vec<AdministratorSignature>,
}

/// An accepted loss of state, as the file that an entry names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedAcceptance {
    /// The exact bytes that were signed.
    pub acceptance: Base64,
    /// Who signed them.
    pub signatures: Vec<AdministratorSignature>,
}

/// An administrator's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdministratorSignature {
    /// Ed25519 public key.
    pub administrator: Hex<32>,
    /// Ed25519 signature.
    pub signature: Hex<64>,
}

/// What shows that one party signed, in which enclave, and that its log says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// Its name in the manifest.
    pub party: String,
    /// Signs its checkpoints.
    pub log_key: Hex<32>,
    /// Cosigns those of others.
    pub witness_key: Hex<32>,
    /// The log evidence of the boot that signed.
    pub evidence: Base64,
    /// Its intent, as logged: the JSON of an entry.
    pub entry: String,
    /// Its place in the log: a C2SP tlog-proof.
    pub proof: String,
}

/// What an intent's commitment stands for: given to auditors, one line of an export's openings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// Index of the intent in the coordinator's log.
    pub index: u64,
    /// The session.
    pub session: Hex<32>,
    /// What the initiator asked for.
    pub request: Request,
    /// The key that signed.
    pub key: KeyRecord,
    /// What came of it.
    pub signatures: Vec<Signature>,
}

/// The name of a file that entries name by digest, in hex: of evidence its SHA-256; of what administrators signed, in
/// its one form, the SHA-384 of the bytes that they signed.
pub fn file_name(content: &[u8]) -> String {
    signed_bytes(content).map_or_else(
        || hex::encode(Sha256::digest(content)),
        |signed| hex::encode(Sha384::digest(signed)),
    )
}

fn signed_bytes(content: &[u8]) -> Option<Vec<u8>> {
    // Evidence is CBOR, which never begins so.
    if content.first() != Some(&b'{') {
        return None;
    }
    let (canonical, signed) = match serde_json::from_slice::<SignedManifest>(content) {
        Ok(file) => (serde_json::to_vec(&file).ok()?, file.manifest.0),
        Err(_) => {
            let file: SignedAcceptance = serde_json::from_slice(content).ok()?;
            (serde_json::to_vec(&file).ok()?, file.acceptance.0)
        }
    };
    (canonical == content).then_some(signed)
}

/// Why bytes are no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Longer than [`MAX_CERTIFICATE`].
    #[error("a certificate has at most {MAX_CERTIFICATE} bytes, this has {0}")]
    TooLong(usize),
    /// Not the JSON of a certificate.
    #[error("not a certificate: line {line}, column {column}")]
    Malformed {
        /// Where, from 1.
        line: usize,
        /// Where, from 1.
        column: usize,
    },
    /// A version that this code does not know.
    #[error("certificate of version {0}; this code reads version {VERSION}")]
    Version(u32),
    /// The JSON of a certificate, not in its one form.
    #[error("a certificate that is not in canonical form: it was changed after it was made")]
    NotCanonical,
}

impl Certificate {
    /// The file's bytes: canonical JSON, as an entry's.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The inverse of [`encode`](Self::encode); a line feed at the end is let pass.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CertificateError> {
        if bytes.len() > MAX_CERTIFICATE {
            return Err(CertificateError::TooLong(bytes.len()));
        }
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let certificate: Self =
            serde_json::from_slice(bytes).map_err(|error| CertificateError::Malformed {
                line: error.line(),
                column: error.column(),
            })?;
        if certificate.version != VERSION {
            return Err(CertificateError::Version(certificate.version));
        }
        if certificate.encode() != bytes {
            return Err(CertificateError::NotCanonical);
        }
        Ok(certificate)
    }
}
