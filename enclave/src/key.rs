//! A key as this party knows it: the record, and this party's share.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use arca_audit::{certificate, entry::KeyCreated};
use arca_policy::{KeyFacts, PublicKey, Scheme};
use arca_proto::v1::{self as wire, key::State};
use arca_threshold::{
    KeyPackage, MAX_PARTICIPANTS, Participant,
    ecdsa::{self, CurveId, DerivedKey, Path},
};
use prost::Message as _;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{error::Error, names, tags};

/// What is known of a key. Nothing here is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Resource name, `keys/` and 32 hex digits.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// What it signs with.
    pub scheme: Scheme,
    /// Whether every party is known to hold its share.
    pub enabled: bool,
    /// Shares needed to sign.
    pub threshold: u16,
    /// Parties with a share; share index is the position counted from 1.
    pub parties: Vec<String>,
    /// The key; `None` before it is made.
    pub public_key: Option<PublicKey>,
    /// Key epoch.
    pub epoch: u64,
    /// Milliseconds since 1970.
    pub create_ms: u64,
    /// Whether raw digests may be signed.
    pub allow_raw_digest: bool,
}

/// A key with this party's share of it. Neither `Clone` nor `Debug`.
pub struct HeldKey {
    /// What everybody may know.
    pub record: KeyRecord,
    /// This party's share.
    pub share: Share,
    /// Keys below it that were signed with: deriving one costs a multiplication for each step.
    derived: Mutex<HashMap<Vec<u32>, DerivedKey>>,
}

/// Derived keys that are remembered for each key.
const DERIVED_KEYS: usize = 1024;

/// A key share with what is public about its key, as the protocol of its scheme has it.
///
/// A clone is another reference to the one copy of the secret, which is erased with the last of them.
#[derive(Clone)]
pub enum Share {
    /// BIP-340 and Ed25519: FROST.
    Frost(Arc<KeyPackage>),
    /// ECDSA: DKLs23.
    Ecdsa(Arc<ecdsa::KeyPackage>),
}

impl Share {
    /// The key, for everybody.
    pub fn public_key(&self) -> PublicKey {
        match self {
            Self::Frost(package) => match package.scheme() {
                arca_threshold::Scheme::Bip340 => PublicKey::Bip340(package.public_key()),
                arca_threshold::Scheme::Ed25519 => PublicKey::Ed25519(package.public_key()),
            },
            Self::Ecdsa(package) => {
                let (key, chain_code) = (package.public_key(), package.chain_code());
                match package.curve() {
                    CurveId::Secp256k1 => PublicKey::EcdsaSecp256k1 { key, chain_code },
                    CurveId::P256 => PublicKey::EcdsaP256 { key, chain_code },
                }
            }
        }
    }

    /// SHA-256 of everything public about the key, verifying shares included: the same at every party.
    pub fn public_key_package_digest(&self) -> [u8; 32] {
        match self {
            Self::Frost(package) => package.public_key_package_digest(),
            Self::Ecdsa(package) => package.public_key_package_digest(),
        }
    }

    fn threshold(&self) -> u16 {
        match self {
            Self::Frost(package) => package.threshold(),
            Self::Ecdsa(package) => package.threshold(),
        }
    }

    fn participants(&self) -> usize {
        match self {
            Self::Frost(package) => package.participants().len(),
            Self::Ecdsa(package) => package.participants().len(),
        }
    }

    fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        match self {
            Self::Frost(package) => package
                .to_bytes()
                .map_err(|_| Error::Bug("a key package cannot be encoded")),
            Self::Ecdsa(package) => Ok(package.to_bytes()),
        }
    }

    fn from_bytes(scheme: Scheme, bytes: &[u8]) -> Option<Self> {
        match scheme {
            Scheme::Bip340 | Scheme::Ed25519 => KeyPackage::from_bytes(bytes)
                .ok()
                .map(|package| Self::Frost(Arc::new(package))),
            Scheme::EcdsaSecp256k1 | Scheme::EcdsaP256 => ecdsa::KeyPackage::from_bytes(bytes)
                .ok()
                .map(|package| Self::Ecdsa(Arc::new(package))),
        }
    }
}

impl KeyRecord {
    /// Validates a record that came over the wire or out of a sealed blob.
    ///
    /// # Errors
    /// [`Error::Reject`] naming the field.
    pub fn from_wire(key: wire::Key) -> Result<Self, Error> {
        let invalid = |field: &str, what: &str| {
            Error::invalid("INVALID_ARGUMENT", format!("{field}: {what}"))
        };
        names::key_id(&key.name)?;
        if key.display_name.chars().count() > 64 || key.display_name.chars().any(char::is_control) {
            return Err(invalid(
                "display_name",
                "at most 64 characters, no control characters",
            ));
        }
        let scheme = scheme_from_wire(key.scheme)?;
        let parties = key.parties;
        if !(2..=MAX_PARTICIPANTS).contains(&parties.len()) {
            return Err(invalid(
                "parties",
                &format!("a key has 2 to {MAX_PARTICIPANTS} parties"),
            ));
        }
        for (index, party) in parties.iter().enumerate() {
            if parties.iter().skip(index + 1).any(|other| other == party) {
                return Err(invalid("parties", &format!("{party} is named twice")));
            }
        }
        let threshold = u16::try_from(key.threshold)
            .ok()
            .filter(|threshold| (2..=parties.len()).contains(&usize::from(*threshold)))
            .ok_or_else(|| {
                invalid(
                    "threshold",
                    &format!("2 to {} for these parties", parties.len()),
                )
            })?;
        let public_key = match key.public_key.as_slice() {
            [] => None,
            bytes => Some(
                public_key(scheme, bytes, &key.chain_code)
                    .ok_or_else(|| invalid("public_key", "not one of this scheme"))?,
            ),
        };
        let create_ms = names::millis(key.create_time.as_ref())
            .ok_or_else(|| invalid("create_time", "not a time after 1970"))?;
        Ok(Self {
            name: key.name,
            display_name: key.display_name,
            scheme,
            enabled: key.state == i32::from(State::Enabled),
            threshold,
            parties,
            public_key,
            epoch: key.epoch,
            create_ms,
            allow_raw_digest: key.allow_raw_digest,
        })
    }

    /// The record as callers see it.
    pub fn to_wire(&self) -> wire::Key {
        let (public_key, chain_code) = match &self.public_key {
            None => (Vec::new(), Vec::new()),
            Some(PublicKey::Bip340(key) | PublicKey::Ed25519(key)) => (key.to_vec(), Vec::new()),
            Some(
                PublicKey::EcdsaSecp256k1 { key, chain_code }
                | PublicKey::EcdsaP256 { key, chain_code },
            ) => (key.to_vec(), chain_code.to_vec()),
        };
        wire::Key {
            name: self.name.clone(),
            display_name: self.display_name.clone(),
            scheme: match self.scheme {
                Scheme::Bip340 => wire::Scheme::Bip340,
                Scheme::Ed25519 => wire::Scheme::Ed25519,
                Scheme::EcdsaSecp256k1 => wire::Scheme::EcdsaSecp256k1,
                Scheme::EcdsaP256 => wire::Scheme::EcdsaP256,
            }
            .into(),
            state: if self.enabled {
                State::Enabled
            } else {
                State::Pending
            }
            .into(),
            threshold: u32::from(self.threshold),
            parties: self.parties.clone(),
            public_key,
            epoch: self.epoch,
            create_time: Some(names::timestamp(self.create_ms)),
            allow_raw_digest: self.allow_raw_digest,
            chain_code,
        }
    }

    /// What it signs with, as the audit log names it.
    pub fn scheme_name(&self) -> &'static str {
        match self.scheme {
            Scheme::Bip340 => "bip340",
            Scheme::Ed25519 => "ed25519",
            Scheme::EcdsaSecp256k1 => "ecdsa-secp256k1",
            Scheme::EcdsaP256 => "ecdsa-p256",
        }
    }

    /// All that is public about it, as certificates show it.
    pub fn to_certificate(&self) -> certificate::KeyRecord {
        let wire = self.to_wire();
        certificate::KeyRecord {
            name: wire.name,
            epoch: wire.epoch,
            scheme: self.scheme_name().to_owned(),
            public_key: wire.public_key,
            chain_code: wire.chain_code,
            threshold: self.threshold,
            parties: wire.parties,
            allow_raw_digest: wire.allow_raw_digest,
        }
    }

    /// What the log says of a key that was made.
    pub fn to_event(&self) -> KeyCreated {
        let wire = self.to_wire();
        KeyCreated {
            key: wire.name,
            epoch: wire.epoch,
            scheme: self.scheme_name().to_owned(),
            public_key: wire.public_key,
            threshold: self.threshold,
            parties: wire.parties,
        }
    }

    /// What every party of a key generation has to agree on besides the protocol's own parameters.
    pub fn context(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let text = |hash: &mut Sha256, text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        text(&mut hash, tags::KEY_CONTEXT);
        text(&mut hash, &self.name);
        text(&mut hash, &self.display_name);
        hash.update([u8::from(self.allow_raw_digest)]);
        hash.update(self.epoch.to_be_bytes());
        hash.update(self.create_ms.to_be_bytes());
        for party in &self.parties {
            text(&mut hash, party);
        }
        hash.finalize().into()
    }

    /// Share index of a party, if it holds a share.
    pub fn index_of(&self, party: &str) -> Option<Participant> {
        let position = self.parties.iter().position(|name| name == party)?;
        Participant::new(u16::try_from(position + 1).ok()?)
    }

    /// Share index and name of each of these parties.
    ///
    /// # Errors
    /// [`Error::Reject`] naming one that holds no share.
    pub fn indices(&self, parties: &[String]) -> Result<BTreeMap<Participant, String>, Error> {
        parties
            .iter()
            .map(|name| {
                let index = self.index_of(name).ok_or_else(|| {
                    Error::invalid(
                        "NOT_A_PARTY_OF_THE_KEY",
                        format!("{} holds no share", name.escape_default()),
                    )
                })?;
                Ok((index, name.clone()))
            })
            .collect()
    }

    /// What decoding a payload needs to know.
    ///
    /// # Errors
    /// [`Error::Bug`] for a key that is not made yet.
    pub fn facts(&self) -> Result<KeyFacts, Error> {
        Ok(KeyFacts {
            public_key: self
                .public_key
                .ok_or(Error::Bug("a key is held and not made"))?,
            allow_raw_digest: self.allow_raw_digest,
        })
    }
}

fn public_key(scheme: Scheme, key: &[u8], chain_code: &[u8]) -> Option<PublicKey> {
    let without_chain_code = || chain_code.is_empty().then(|| key.try_into().ok()).flatten();
    let with_chain_code = || Some((key.try_into().ok()?, chain_code.try_into().ok()?));
    match scheme {
        Scheme::Bip340 => without_chain_code().map(PublicKey::Bip340),
        Scheme::Ed25519 => without_chain_code().map(PublicKey::Ed25519),
        Scheme::EcdsaSecp256k1 => {
            with_chain_code().map(|(key, chain_code)| PublicKey::EcdsaSecp256k1 { key, chain_code })
        }
        Scheme::EcdsaP256 => {
            with_chain_code().map(|(key, chain_code)| PublicKey::EcdsaP256 { key, chain_code })
        }
    }
}

impl HeldKey {
    /// Puts a record and its share together.
    pub fn new(record: KeyRecord, share: Share) -> Self {
        Self {
            record,
            share,
            derived: Mutex::default(),
        }
    }

    /// The ECDSA key at a path below this one, as the signing protocol derives it.
    ///
    /// # Errors
    /// [`Error::Reject`] for a path that is not served; [`Error::Bug`] for another scheme.
    pub fn derive(&self, path: &[u32]) -> Result<DerivedKey, Error> {
        let Share::Ecdsa(package) = &self.share else {
            return Err(Error::Bug("only ECDSA keys have keys below them"));
        };
        let known = || {
            self.derived
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
        };
        if let Some(derived) = known().get(path) {
            return Ok(derived.clone());
        }
        let refused = |error: arca_threshold::Error| {
            Error::invalid("DERIVATION_PATH", format!("derivation_path: {error}"))
        };
        let steps = Path::new(path.to_vec()).map_err(refused)?;
        let derived = package.derive(&steps).map_err(refused)?;
        let mut known = known();
        if known.len() >= DERIVED_KEYS
            && let Some(any) = known.keys().next().cloned()
        {
            known.remove(&any);
        }
        known.insert(path.to_vec(), derived.clone());
        Ok(derived)
    }

    /// The plaintext of the object "key/<id>": length of the encoded `Key` (4 bytes, big-endian), the `Key`, this
    /// party's share as `arca-threshold` encodes it. In one buffer that never grows.
    ///
    /// # Errors
    /// [`Error::Bug`] when the share cannot be encoded.
    pub fn to_sealed(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let package = self.share.to_bytes()?;
        let record = self.record.to_wire().encode_to_vec();
        let length = u32::try_from(record.len()).map_err(|_| Error::Bug("a record has no end"))?;
        let mut content = Zeroizing::new(Vec::with_capacity(4 + record.len() + package.len()));
        content.extend_from_slice(&length.to_be_bytes());
        content.extend_from_slice(&record);
        content.extend_from_slice(&package);
        Ok(content)
    }

    /// Reads what [`to_sealed`](Self::to_sealed) wrote and checks that record and share belong together.
    ///
    /// # Errors
    /// [`Error::Fault`] when they do not.
    pub fn from_sealed(name: &str, content: &[u8]) -> Result<Self, Error> {
        let fault = |what: &str| Error::Fault {
            reason: "SEALED_BLOB_MALFORMED",
            message: format!("{name}: {what}"),
        };
        let (record, package) = content
            .split_first_chunk::<4>()
            .and_then(|(length, rest)| {
                rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
            })
            .ok_or_else(|| fault("cut short"))?;
        let record = wire::Key::decode(record).map_err(|_| fault("no record"))?;
        let record = KeyRecord::from_wire(record).map_err(|error| fault(&error.to_string()))?;
        let share = Share::from_bytes(record.scheme, package)
            .ok_or_else(|| fault("not a key package of the record's scheme"))?;
        if record.name != name
            || record.public_key != Some(share.public_key())
            || record.threshold != share.threshold()
            || record.parties.len() != share.participants()
        {
            return Err(fault("record and key package do not belong together"));
        }
        Ok(Self::new(record, share))
    }
}

/// A scheme by its number on the wire.
///
/// # Errors
/// [`Error::Reject`] for one that is not served.
pub fn scheme_from_wire(scheme: i32) -> Result<Scheme, Error> {
    match wire::Scheme::try_from(scheme) {
        Ok(wire::Scheme::Bip340) => Ok(Scheme::Bip340),
        Ok(wire::Scheme::Ed25519) => Ok(Scheme::Ed25519),
        Ok(wire::Scheme::EcdsaSecp256k1) => Ok(Scheme::EcdsaSecp256k1),
        Ok(wire::Scheme::EcdsaP256) => Ok(Scheme::EcdsaP256),
        Ok(wire::Scheme::Unspecified) | Err(_) => Err(Error::invalid(
            "INVALID_ARGUMENT",
            "scheme: one of BIP340, ED25519, ECDSA_SECP256K1, ECDSA_P256",
        )),
    }
}
