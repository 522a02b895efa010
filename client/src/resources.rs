//! What the parties keep, in this crate's own types: keys, signing requests, parties.
//!
//! A party is attested, and still its answers are parsed once, here, and refused when they do not fit.

use arca_attestation::TrustClass;
use arca_proto::v1;
use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::group_key::GroupKey;
use crate::path::DerivationPath;

/// A signature scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// BIP-340 Schnorr over secp256k1: Bitcoin taproot.
    Bip340,
    /// Ed25519 (RFC 8032): Solana and others.
    Ed25519,
    /// ECDSA over secp256k1: Ethereum and its kin, Bitcoin P2WPKH.
    EcdsaSecp256k1,
    /// ECDSA over P-256: raw digests.
    EcdsaP256,
}

impl Scheme {
    /// As it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bip340 => "bip340",
            Self::Ed25519 => "ed25519",
            Self::EcdsaSecp256k1 => "ecdsa-secp256k1",
            Self::EcdsaP256 => "ecdsa-p256",
        }
    }
}

impl From<Scheme> for v1::Scheme {
    fn from(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Bip340 => Self::Bip340,
            Scheme::Ed25519 => Self::Ed25519,
            Scheme::EcdsaSecp256k1 => Self::EcdsaSecp256k1,
            Scheme::EcdsaP256 => Self::EcdsaP256,
        }
    }
}

/// A key, whose shares the parties hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    /// `keys/` and 32 hex digits.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// What it signs with.
    pub scheme: Scheme,
    /// Whether it signs.
    pub state: KeyState,
    /// Shares needed to sign.
    pub threshold: u32,
    /// The parties that hold a share, in the order of their share indices.
    pub parties: Vec<String>,
    /// With the chain code, where keys lie below it.
    #[serde(flatten)]
    pub public_key: GroupKey,
    /// Counts up with every refresh or reshare.
    pub epoch: u64,
    /// When it was made.
    pub create_time: Option<Timestamp>,
    /// Whether raw digests may be signed with it.
    pub allow_raw_digest: bool,
}

/// Whether a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// The party that answered does not know yet that all others hold their shares.
    Pending,
    /// It signs.
    Enabled,
}

impl Key {
    /// The key below this one at `path`, as what to sign with.
    pub fn at<'a>(&'a self, path: &DerivationPath) -> KeyRef<'a> {
        KeyRef {
            name: &self.name,
            path: path.clone(),
        }
    }
}

/// Which key shall sign: one that the parties hold, by its resource name, or one below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRef<'a> {
    /// `keys/...`
    pub name: &'a str,
    /// From that key to the one that signs.
    pub path: DerivationPath,
}

impl<'a> From<&'a str> for KeyRef<'a> {
    fn from(name: &'a str) -> Self {
        Self {
            name,
            path: DerivationPath::root(),
        }
    }
}

impl<'a> From<&'a String> for KeyRef<'a> {
    fn from(name: &'a String) -> Self {
        name.as_str().into()
    }
}

impl TryFrom<v1::Key> for Key {
    type Error = Error;

    fn try_from(key: v1::Key) -> Result<Self> {
        let wrong = |field: &str| Error::bug(format!("a party sent a key with an invalid {field}"));
        let scheme = match key.scheme() {
            v1::Scheme::Bip340 => Scheme::Bip340,
            v1::Scheme::Ed25519 => Scheme::Ed25519,
            v1::Scheme::EcdsaSecp256k1 => Scheme::EcdsaSecp256k1,
            v1::Scheme::EcdsaP256 => Scheme::EcdsaP256,
            v1::Scheme::Unspecified => return Err(wrong("scheme")),
        };
        Ok(Self {
            scheme,
            state: match key.state() {
                v1::key::State::Pending => KeyState::Pending,
                v1::key::State::Enabled => KeyState::Enabled,
                v1::key::State::Unspecified => return Err(wrong("state")),
            },
            public_key: GroupKey::new(scheme, &key.public_key, &key.chain_code)
                .map_err(|problem| wrong(&format!("public_key: {problem}")))?,
            create_time: key.create_time.map(timestamp).transpose()?,
            name: key.name,
            display_name: key.display_name,
            threshold: key.threshold,
            parties: key.parties,
            epoch: key.epoch,
            allow_raw_digest: key.allow_raw_digest,
        })
    }
}

/// Where a signing request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Policy has not decided yet.
    PendingPolicy,
    /// Somebody has to approve it.
    AwaitingApproval,
    /// Admitted, not started.
    Queued,
    /// Under way.
    Signing,
    /// Its signatures are there.
    Signed,
    /// Refused.
    Denied,
    /// Its time was over first.
    Expired,
    /// It could not be signed.
    Failed,
    /// Withdrawn.
    Cancelled,
}

impl State {
    /// Whether nothing follows.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::PendingPolicy | Self::AwaitingApproval | Self::Queued | Self::Signing => false,
            Self::Signed | Self::Denied | Self::Expired | Self::Failed | Self::Cancelled => true,
        }
    }

    /// As the interface spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PendingPolicy => "PENDING_POLICY",
            Self::AwaitingApproval => "AWAITING_APPROVAL",
            Self::Queued => "QUEUED",
            Self::Signing => "SIGNING",
            Self::Signed => "SIGNED",
            Self::Denied => "DENIED",
            Self::Expired => "EXPIRED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

/// A signing request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SigningRequest {
    /// `signingRequests/` and 32 hex digits.
    pub name: String,
    /// Idempotency key of its initiator.
    pub request_id: String,
    /// `keys/...`
    pub key: String,
    /// From that key to the one that signs.
    pub derivation_path: DerivationPath,
    /// Where it stands.
    pub state: State,
    /// Counts its states.
    pub revision: u64,
    /// When it was admitted.
    pub create_time: Option<Timestamp>,
    /// Until when it may be signed.
    pub expire_time: Option<Timestamp>,
    /// The principal that created it.
    pub initiator: String,
    /// What the enclave understood of the payload.
    pub summary: String,
    /// In SIGNED, one for each thing that was to be signed.
    pub signatures: Vec<Signature>,
    /// The parties that signed.
    pub signers: Vec<String>,
    /// In FAILED.
    pub failure: Option<Failure>,
    /// The party that coordinates it.
    pub coordinator: String,
}

/// A signature of the cluster, as a party sent it: [`crate::verify`] tells whether it is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signature {
    /// BIP-340, RFC 8032, or ECDSA's r and s, each big-endian.
    #[serde(with = "hex::serde")]
    pub signature: [u8; 64],
    /// The PSBT input it belongs to; 0 otherwise.
    pub input: u32,
    /// What an ECDSA signature has besides.
    #[serde(flatten)]
    pub ecdsa: Option<EcdsaSigner>,
}

/// Whose an ECDSA signature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EcdsaSigner {
    /// Which nonce point r came from, 0 to 3. Bit 0: its y is odd; bit 1: its x is not below the order.
    pub recovery_id: u8,
    /// The key that it verifies under, SEC 1 compressed.
    #[serde(serialize_with = "hex::serde::serialize")]
    pub public_key: [u8; 33],
}

/// Why a signing request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Stable, in UPPER_SNAKE_CASE.
    pub reason: String,
    /// The coordinator's words.
    pub message: String,
    /// The parties that misbehaved, where the protocol can name them.
    pub culprits: Vec<String>,
}

impl SigningRequest {
    /// The request itself when it is SIGNED, an error for every other end.
    ///
    /// # Errors
    /// [`Error::Abort`] with its reason; [`Error::Bug`] when it has not ended.
    pub fn into_signed(self) -> Result<Self> {
        let (reason, message, culprits) = match (self.state, self.failure) {
            (State::Signed, _) => {
                return Ok(Self {
                    failure: None,
                    ..self
                });
            }
            (_, Some(failure)) => (failure.reason, failure.message, failure.culprits),
            (state, None) if state.is_terminal() => (
                state.as_str().to_owned(),
                "was not signed".to_owned(),
                Vec::new(),
            ),
            (state, None) => {
                return Err(Error::bug(format!(
                    "{} is still {}",
                    self.name,
                    state.as_str()
                )));
            }
        };
        Err(Error::Abort {
            object: self.name,
            reason,
            message,
            culprits,
        })
    }
}

impl TryFrom<v1::SigningRequest> for SigningRequest {
    type Error = Error;

    fn try_from(request: v1::SigningRequest) -> Result<Self> {
        use v1::signing_request::State as Wire;
        let wrong = |field: &str| {
            Error::bug(format!(
                "a party sent a signing request with an invalid {field}"
            ))
        };
        let state = match request.state() {
            Wire::Unspecified => return Err(wrong("state")),
            Wire::PendingPolicy => State::PendingPolicy,
            Wire::AwaitingApproval => State::AwaitingApproval,
            Wire::Queued => State::Queued,
            Wire::Signing => State::Signing,
            Wire::Signed => State::Signed,
            Wire::Denied => State::Denied,
            Wire::Expired => State::Expired,
            Wire::Failed => State::Failed,
            Wire::Cancelled => State::Cancelled,
        };
        let signatures = request
            .signatures
            .into_iter()
            .map(|signature| {
                let ecdsa = match signature.public_key.as_slice() {
                    [] => None,
                    key => Some(EcdsaSigner {
                        public_key: key.try_into().map_err(|_| wrong("public_key"))?,
                        recovery_id: u8::try_from(signature.recovery_id)
                            .ok()
                            .filter(|id| *id < 4)
                            .ok_or_else(|| wrong("recovery_id"))?,
                    }),
                };
                Ok(Signature {
                    input: signature.input,
                    ecdsa,
                    signature: signature
                        .signature
                        .try_into()
                        .map_err(|_| wrong("signature"))?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        if state == State::Signed && signatures.is_empty() {
            return Err(wrong("number of signatures"));
        }
        Ok(Self {
            name: request.name,
            request_id: request.request_id,
            key: request.key,
            derivation_path: DerivationPath::new(request.derivation_path)
                .map_err(|_| wrong("derivation_path"))?,
            state,
            revision: request.revision,
            create_time: request.create_time.map(timestamp).transpose()?,
            expire_time: request.expire_time.map(timestamp).transpose()?,
            initiator: request.initiator,
            summary: request.summary,
            signatures,
            signers: request.signers,
            failure: request.failure.map(|failure| Failure {
                reason: failure.reason,
                message: failure.message,
                culprits: failure.culprits,
            }),
            coordinator: request.coordinator,
        })
    }
}

/// The cluster as one party sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parties {
    /// The cluster's id.
    pub cluster: String,
    /// Epoch of the manifest that the party holds.
    pub manifest_epoch: u64,
    /// SHA-384 of that manifest.
    #[serde(with = "hex::serde")]
    pub manifest_digest: [u8; 48],
    /// All parties of that manifest.
    pub parties: Vec<PartyStatus>,
}

/// One party as another one sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartyStatus {
    /// Its name.
    pub name: String,
    /// What its evidence means.
    pub trust_class: TrustClass,
    /// Whether the party that answered is connected to it.
    pub connection: Connection,
    /// Of its running enclave, while connected; hex.
    pub boot_id: Option<String>,
    /// When its evidence was last verified.
    pub verify_time: Option<Timestamp>,
}

/// Whether a party is connected to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Connection {
    /// It is the party that answered.
    Itself,
    /// Connected, both ways attested.
    Up,
    /// Not connected.
    Down,
}

impl TryFrom<v1::ListPartiesResponse> for Parties {
    type Error = Error;

    fn try_from(list: v1::ListPartiesResponse) -> Result<Self> {
        let wrong = |field: &str| {
            Error::bug(format!(
                "a party sent a list of parties with an invalid {field}"
            ))
        };
        let parties = list.parties.into_iter().map(|party| {
            Ok(PartyStatus {
                trust_class: match party.trust_class.as_str() {
                    "nitro" => TrustClass::Nitro,
                    "hsm" => TrustClass::Hsm,
                    "simulated" => TrustClass::Simulated,
                    _ => return Err(wrong("trust_class")),
                },
                connection: match party.connection() {
                    v1::party_status::Connection::Unspecified => return Err(wrong("connection")),
                    v1::party_status::Connection::Self_ => Connection::Itself,
                    v1::party_status::Connection::Up => Connection::Up,
                    v1::party_status::Connection::Down => Connection::Down,
                },
                boot_id: Some(party.boot_id)
                    .filter(|id| !id.is_empty())
                    .map(hex::encode),
                verify_time: party.verify_time.map(timestamp).transpose()?,
                name: party.name,
            })
        });
        Ok(Self {
            cluster: list.cluster,
            manifest_epoch: list.manifest_epoch,
            manifest_digest: list
                .manifest_digest
                .try_into()
                .map_err(|_| wrong("manifest_digest"))?,
            parties: parties.collect::<Result<_>>()?,
        })
    }
}

fn timestamp(time: prost_types::Timestamp) -> Result<Timestamp> {
    Timestamp::new(time.seconds, time.nanos)
        .map_err(|_| Error::bug("a party sent a time that does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BIP-340, test vector 0.
    const X: &str = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9";

    fn wire_key() -> v1::Key {
        v1::Key {
            name: "keys/00".to_owned(),
            scheme: v1::Scheme::Bip340.into(),
            state: v1::key::State::Enabled.into(),
            threshold: 2,
            public_key: hex::decode(X).unwrap(),
            ..v1::Key::default()
        }
    }

    #[test]
    fn a_key_has_to_be_whole() {
        assert_eq!(Key::try_from(wire_key()).unwrap().scheme, Scheme::Bip340);
        let broken: [fn(&mut v1::Key); 6] = [
            |key| key.scheme = v1::Scheme::EcdsaSecp256k1.into(),
            |key| key.chain_code = vec![1; 32],
            |key| key.scheme = 0,
            |key| key.scheme = 77,
            |key| key.state = 0,
            |key| key.public_key = vec![1; 33],
        ];
        for breakage in broken {
            let mut key = wire_key();
            breakage(&mut key);
            assert!(Key::try_from(key).is_err());
        }
    }

    fn wire_request(state: v1::signing_request::State) -> v1::SigningRequest {
        v1::SigningRequest {
            name: "signingRequests/00".to_owned(),
            state: state.into(),
            ..v1::SigningRequest::default()
        }
    }

    #[test]
    fn a_signed_request_has_signatures() {
        let mut request = wire_request(v1::signing_request::State::Signed);
        assert!(SigningRequest::try_from(request.clone()).is_err());
        request.signatures = vec![v1::Signature {
            signature: vec![0; 63],
            ..v1::Signature::default()
        }];
        assert!(SigningRequest::try_from(request.clone()).is_err());
        request.signatures = vec![v1::Signature {
            signature: vec![0; 64],
            ..v1::Signature::default()
        }];
        assert!(
            SigningRequest::try_from(request)
                .unwrap()
                .into_signed()
                .is_ok()
        );
    }

    #[test]
    fn an_ecdsa_signature_names_its_key_and_nonce_point() {
        let mut request = wire_request(v1::signing_request::State::Signed);
        let good = v1::Signature {
            signature: vec![1; 64],
            recovery_id: 3,
            public_key: vec![2; 33],
            ..v1::Signature::default()
        };
        request.signatures = vec![good.clone()];
        request.derivation_path = vec![44, 60];
        let read = SigningRequest::try_from(request.clone()).unwrap();
        assert_eq!(read.derivation_path.to_string(), "m/44/60");
        let json = serde_json::to_value(&read.signatures[0]).unwrap();
        assert_eq!(json["recovery_id"], 3);
        assert_eq!(json["public_key"], "02".repeat(33));

        request.derivation_path = vec![1 << 31];
        assert!(SigningRequest::try_from(request.clone()).is_err());
        request.derivation_path.clear();
        for bad in [
            v1::Signature {
                recovery_id: 4,
                ..good.clone()
            },
            v1::Signature {
                public_key: vec![2; 32],
                ..good
            },
        ] {
            request.signatures = vec![bad];
            assert!(SigningRequest::try_from(request.clone()).is_err());
        }
    }

    #[test]
    fn every_other_end_is_an_error() {
        use v1::signing_request::State as Wire;
        for state in [Wire::Denied, Wire::Expired, Wire::Failed, Wire::Cancelled] {
            let request = SigningRequest::try_from(wire_request(state)).unwrap();
            assert!(request.state.is_terminal());
            assert!(matches!(request.into_signed(), Err(Error::Abort { .. })));
        }
        for state in [
            Wire::Queued,
            Wire::Signing,
            Wire::PendingPolicy,
            Wire::AwaitingApproval,
        ] {
            let request = SigningRequest::try_from(wire_request(state)).unwrap();
            assert!(!request.state.is_terminal());
            assert!(matches!(request.into_signed(), Err(Error::Bug(_))));
        }
    }
}
