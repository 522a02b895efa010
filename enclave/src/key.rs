//! A key as this party knows it: the record, and this party's share.

use std::sync::Arc;

use arca_policy::KeyFacts;
use arca_proto::v1::{self as wire, key::State};
use arca_threshold::{KeyPackage, MAX_PARTICIPANTS, Participant, Scheme};
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
    /// As `arca.v1.Key` describes it; zeros before the key is made.
    pub public_key: [u8; 32],
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
    pub package: Arc<KeyPackage>,
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
            [] => [0; 32],
            bytes => bytes
                .try_into()
                .map_err(|_| invalid("public_key", "32 bytes"))?,
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
        wire::Key {
            name: self.name.clone(),
            display_name: self.display_name.clone(),
            scheme: match self.scheme {
                Scheme::Bip340 => wire::Scheme::Bip340,
                Scheme::Ed25519 => wire::Scheme::Ed25519,
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
            public_key: self.public_key.to_vec(),
            epoch: self.epoch,
            create_time: Some(names::timestamp(self.create_ms)),
            allow_raw_digest: self.allow_raw_digest,
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

    /// What decoding a payload needs to know.
    pub fn facts(&self) -> KeyFacts {
        KeyFacts {
            scheme: match self.scheme {
                Scheme::Bip340 => arca_policy::Scheme::Bip340,
                Scheme::Ed25519 => arca_policy::Scheme::Ed25519,
            },
            public_key: self.public_key,
            allow_raw_digest: self.allow_raw_digest,
        }
    }
}

impl HeldKey {
    /// The plaintext of the object "key/<id>": length of the encoded `Key` (4 bytes, big-endian), the `Key`, this
    /// party's share as `arca-threshold` encodes it. In one buffer that never grows.
    ///
    /// # Errors
    /// [`Error::Bug`] when the share cannot be encoded.
    pub fn to_sealed(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let package = self
            .package
            .to_bytes()
            .map_err(|_| Error::Bug("a key package cannot be encoded"))?;
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
        let package = KeyPackage::from_bytes(package).map_err(|_| fault("not a key package"))?;
        let record = wire::Key::decode(record).map_err(|_| fault("no record"))?;
        let record = KeyRecord::from_wire(record).map_err(|error| fault(&error.to_string()))?;
        if record.name != name
            || record.public_key != package.public_key()
            || record.scheme != package.scheme()
            || record.threshold != package.threshold()
            || record.parties.len() != package.participants().len()
        {
            return Err(fault("record and key package do not belong together"));
        }
        Ok(Self {
            record,
            package: Arc::new(package),
        })
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
        Ok(wire::Scheme::Unspecified) | Err(_) => Err(Error::invalid(
            "INVALID_ARGUMENT",
            "scheme: one of BIP340, ED25519",
        )),
    }
}
