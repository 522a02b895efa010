//! What a log's entries say: canonical, versioned events.
//!
//! An entry is one line of JSON without white space, its fields in the order of the types here, bytes as lower-case hex.
//! There is one way to write each: [`Entry::decode`] refuses every other. See `docs/audit-log.md`.

use serde::{Deserialize, Serialize};

/// The version that is written.
pub const VERSION: u32 = 1;
/// The longest entry, in bytes.
pub const MAX_ENTRY: usize = 16 * 1024;

/// A fixed number of bytes, in hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex<const N: usize>(pub [u8; N]);

impl<const N: usize> std::fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> std::fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let mut bytes = [0; N];
        hex::decode_to_slice(text.as_ref(), &mut bytes).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}

/// One entry of a party's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// [`VERSION`].
    pub version: u32,
    /// The enclave's clock, in milliseconds since 1970.
    pub time_ms: u64,
    /// Which start of the enclave.
    pub boot: Hex<16>,
    /// SHA-384 of the manifest in force.
    pub manifest: Hex<48>,
    /// SHA-256 of the log evidence of this boot under this manifest.
    pub evidence: Hex<32>,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Event {
    /// First of every log, of every boot, and of every manifest within one.
    InstanceStarted(InstanceStarted),
    /// A manifest is in force.
    ManifestAccepted {
        /// Its epoch.
        epoch: u64,
        /// SHA-384 of its bytes.
        digest: Hex<48>,
    },
    /// A peer proved itself on a channel.
    EvidenceVerified {
        /// Its name.
        peer: String,
        /// Its boot id.
        boot: Hex<16>,
        /// SHA-256 of the document.
        evidence: Hex<32>,
        /// SHA-256 over PCR 0, 1 and 2; of a class that measures code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        measurement: Option<Hex<32>>,
    },
    /// This party takes a peer's instance for its only one.
    LeaseGranted {
        /// The peer.
        peer: String,
        /// Its instance.
        boot: Hex<16>,
    },
    /// This party never deals with a peer's instance again.
    Fenced {
        /// The peer.
        peer: String,
        /// Its instance.
        boot: Hex<16>,
        /// Why; in `UPPER_SNAKE_CASE`.
        reason: String,
    },
    /// This instance's peers have granted it.
    LeaseHeld {
        /// This instance.
        boot: Hex<16>,
    },
    /// This party holds its share of a new key.
    KeyCreated(KeyCreated),
    /// Every party is known to hold its share.
    KeyEnabled {
        /// `keys/…`
        key: String,
        /// Its epoch.
        epoch: u64,
    },
    /// A share of a signature is about to leave.
    SigningIntent(SigningIntent),
    /// How a session that signs ended.
    SigningOutcome {
        /// The session.
        session: Hex<32>,
        /// How.
        result: Outcome,
    },
    /// Something that an authenticated caller asked for is refused.
    Refused {
        /// The party or initiator that asked.
        from: String,
        /// Why; in `UPPER_SNAKE_CASE`.
        reason: String,
        /// The commitment to the request, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<Hex<32>>,
    },
    /// An ECDSA pairwise setup is thrown away.
    SetupDiscarded {
        /// The other party of the pair.
        peer: String,
        /// Why; in `UPPER_SNAKE_CASE`.
        reason: String,
        /// Who is to blame, as far as is known.
        culprits: Vec<String>,
    },
    /// The administrators accepted that later state is lost: this log begins with that.
    LossAccepted {
        /// SHA-384 of the acceptance, as signed.
        acceptance: Hex<48>,
        /// Sequence of the sealed state that was found.
        found: u64,
        /// Sequence that it goes on from.
        resumed: u64,
    },
    /// A peer's log contradicts what this party cosigned.
    LogConflict {
        /// The peer.
        peer: String,
        /// The number of its log.
        log: u64,
        /// The signed checkpoint that this party cosigned.
        cosigned: String,
        /// The signed checkpoint that it showed.
        shown: String,
    },
}

/// An instance and the keys of its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceStarted {
    /// Ed25519 key that signs this log's checkpoints.
    pub log_key: Hex<32>,
    /// Ed25519 key that cosigns the checkpoints of others.
    pub witness_key: Hex<32>,
    /// SHA-256 of the party's identity key, SubjectPublicKeyInfo in DER.
    pub identity: Hex<32>,
    /// Whether that key was made in this boot.
    pub first: bool,
    /// The log before this one, where a loss was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<LogPoint>,
}

/// A key and who holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyCreated {
    /// `keys/…`
    pub key: String,
    /// Its epoch.
    pub epoch: u64,
    /// `bip340`, `ed25519`, `ecdsa-secp256k1` or `ecdsa-p256`.
    pub scheme: String,
    /// In hex, as in `arca.v1.Key`.
    #[serde(with = "hex::serde")]
    pub public_key: Vec<u8>,
    /// Shares needed to sign.
    pub threshold: u16,
    /// Who holds one, in the order of their share indices.
    pub parties: Vec<String>,
}

/// What a party is about to sign, and with whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningIntent {
    /// The session.
    pub session: Hex<32>,
    /// Commitment to the request.
    pub request: Hex<32>,
    /// `keys/…`
    pub key: String,
    /// Its epoch.
    pub epoch: u64,
    /// [Digest](crate::certificate::KeyRecord::digest) of all that is public about it: which key signs.
    pub key_record: Hex<32>,
    /// The party that asked for the session.
    pub coordinator: String,
    /// The parties that sign.
    pub signers: Vec<String>,
    /// The last checkpoint of each peer's log that this party had cosigned.
    pub seen: Vec<Seen>,
}

/// How a session that signs ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Outcome {
    /// At the coordinator: with signatures.
    Signed {
        /// SHA-256 of each, 64 bytes as `arca.v1.Signature` has them.
        signatures: Vec<Hex<32>>,
    },
    /// At the others: this party's shares have left.
    Released,
    /// Without.
    Failed {
        /// Why; in `UPPER_SNAKE_CASE`.
        reason: String,
        /// Who is to blame, as far as is known.
        culprits: Vec<String>,
    },
}

/// A point in a party's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPoint {
    /// The number of the log.
    pub log: u64,
    /// Entries.
    pub size: u64,
    /// Root over them.
    pub root: Hex<32>,
}

/// A point in a peer's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// The peer.
    pub party: String,
    /// The number of its log.
    pub log: u64,
    /// Entries.
    pub size: u64,
    /// Root over them.
    pub root: Hex<32>,
}

/// Why bytes are no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Longer than [`MAX_ENTRY`].
    #[error("an entry has at most {MAX_ENTRY} bytes, this has {0}")]
    TooLong(usize),
    /// Not the JSON of an entry. What is wrong and where; none of the bytes.
    #[error("not an entry: {0}")]
    Malformed(String),
    /// A version that this code does not know.
    #[error("entry of version {0}; this code reads version {VERSION}")]
    Version(u32),
    /// The JSON of an entry, not in its one form.
    #[error("an entry that is not in canonical form")]
    NotCanonical,
}

impl Entry {
    /// The bytes that are logged.
    ///
    /// # Errors
    /// [`EntryError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        let bytes = serde_json::to_vec(self).map_err(malformed)?;
        if bytes.len() > MAX_ENTRY {
            return Err(EntryError::TooLong(bytes.len()));
        }
        Ok(bytes)
    }

    /// The inverse of [`encode`](Self::encode), and of nothing else.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > MAX_ENTRY {
            return Err(EntryError::TooLong(bytes.len()));
        }
        let entry: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        if entry.version != VERSION {
            return Err(EntryError::Version(entry.version));
        }
        if entry.encode()? != bytes {
            return Err(EntryError::NotCanonical);
        }
        Ok(entry)
    }
}

fn malformed(error: serde_json::Error) -> EntryError {
    // The message can quote a field's name or value; its place and kind are enough.
    EntryError::Malformed(format!(
        "line {}, column {}: {:?}",
        error.line(),
        error.column(),
        error.classify()
    ))
}

/// Name of a party's log in notes: its origin.
pub fn origin(kind: &str, cluster: &str, party: &str, log: u64) -> String {
    format!("arca/{kind}/{cluster}/{party}/{log}")
}

/// Name under which a party cosigns.
pub fn witness_name(kind: &str, cluster: &str, party: &str) -> String {
    format!("arca/{kind}/{cluster}/{party}/witness")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry() -> Entry {
        Entry {
            version: VERSION,
            time_ms: 1_700_000_000_000,
            boot: Hex([1; 16]),
            manifest: Hex([2; 48]),
            evidence: Hex([3; 32]),
            event: Event::SigningIntent(SigningIntent {
                session: Hex([4; 32]),
                request: Hex([5; 32]),
                key: "keys/00".into(),
                epoch: 1,
                key_record: Hex([7; 32]),
                coordinator: "ceo".into(),
                signers: vec!["ceo".into(), "cto".into()],
                seen: vec![Seen {
                    party: "cto".into(),
                    log: 1,
                    size: 9,
                    root: Hex([6; 32]),
                }],
            }),
        }
    }

    #[test]
    fn an_entry_reads_back() {
        let bytes = entry().encode().unwrap();
        assert!(bytes.starts_with(br#"{"version":1,"time_ms":1700000000000,"boot":"0101"#));
        assert_eq!(Entry::decode(&bytes).unwrap(), entry());
    }

    #[test]
    fn there_is_one_form_of_each() {
        let text = String::from_utf8(entry().encode().unwrap()).unwrap();
        let others = [
            text.replace(",\"boot\"", ", \"boot\""),
            text.replace("\"boot\":\"01", "\"boot\":\"0\\u0031"),
            text.replace("\"epoch\":1", "\"epoch\":1.0"),
            text.replace("{\"version\":1,", "{\"version\":1,\"version\":1,"),
            text.replace(
                "\"version\":1,\"time_ms\":1700000000000",
                "\"time_ms\":1700000000000,\"version\":1",
            ),
            text.replace("\"seen\"", "\"more\":1,\"seen\""),
            format!("{text}\n"),
            format!("{text}{text}"),
            text.replacen("\"version\":1", "\"version\":2", 1),
            text.replace("\"signing-intent\"", "\"signing-plan\""),
        ];
        for other in others {
            assert_ne!(other, text);
            assert!(Entry::decode(other.as_bytes()).is_err(), "{other}");
        }
        let upper = text.replace("0606", "0A06");
        assert!(Entry::decode(upper.as_bytes()).is_err());
    }

    #[test]
    fn every_changed_byte_is_another_entry_or_none() {
        let bytes = entry().encode().unwrap();
        for index in 0..bytes.len() {
            for flip in [1, 0x20, 0x80] {
                let mut changed = bytes.clone();
                *changed.get_mut(index).unwrap() ^= flip;
                if let Ok(decoded) = Entry::decode(&changed) {
                    assert_ne!(decoded, entry());
                }
            }
        }
    }

    #[test]
    fn what_is_too_long_is_neither_written_nor_read() {
        let mut long = entry();
        long.event = Event::Refused {
            from: "x".repeat(MAX_ENTRY),
            reason: String::new(),
            request: None,
        };
        assert!(matches!(long.encode(), Err(EntryError::TooLong(_))));
        assert!(matches!(
            Entry::decode(&vec![b' '; MAX_ENTRY + 1]),
            Err(EntryError::TooLong(_))
        ));
    }
}
