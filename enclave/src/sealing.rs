//! Sealed blobs: what the host stores and cannot read, exchange between objects or alter.
//!
//! A blob is a header, a data key wrapped by the platform, and AES-256-GCM ciphertext under that data key.
//! The header is authenticated by both the wrap and the cipher. All integers are big-endian; `lp` is a
//! two-byte length and the bytes:
//!
//! ```text
//! magic[8] suite[1] class[1] lp(cluster) lp(party) lp(object) key_epoch[8] sequence[8]
//! predecessor[32] manifest_digest[48] lp(kek_id)                          <- header
//! lp(wrapped data key) nonce[12] ciphertext and tag
//! ```
//!
//! # Security
//! A blob that unseals was sealed by this code for exactly this object. That it is the newest one is another
//! question: within one boot `state.rs` refuses an older one, across boots the peers have to.

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use arca_attestation::TrustClass;
use arca_wipe::{wipe, wiped};
use rand_core::CryptoRngCore;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    platform::{DataKey, Platform, PlatformError},
    tags,
};

/// AES-256-GCM under a data key that the platform wrapped.
const SUITE_AES256_GCM: u8 = 1;
const NONCE: usize = 12;

/// What a blob is and where it belongs. Everything here is authenticated, nothing is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Class of the platform that sealed it.
    pub class: TrustClass,
    /// Cluster id; empty for the object that says which cluster it is.
    pub cluster: String,
    /// Party name; empty likewise.
    pub party: String,
    /// Name of the object, as the host files it.
    pub object: String,
    /// Epoch of the key it holds a share of; 0 for other objects.
    pub key_epoch: u64,
    /// 1 for the first blob of an object, then one more each time.
    pub sequence: u64,
    /// SHA-256 of the blob before this one; zeros for the first.
    pub predecessor: [u8; 32],
    /// SHA-384 of the manifest in force when it was sealed.
    pub manifest_digest: [u8; 48],
}

/// Why a blob was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Cut short, or not a sealed blob of this version.
    #[error("{object}: not a sealed blob of a known version, or cut short")]
    Malformed {
        /// Name of the object asked for.
        object: String,
    },
    /// A whole blob, but of another class, cluster, party, object or key.
    #[error("{object}: the stored blob belongs to another {field}: it says {found}")]
    Misplaced {
        /// Name of the object asked for.
        object: String,
        /// Which header field differs.
        field: &'static str,
        /// The field's value in the blob.
        found: String,
    },
    /// The data key or the content does not authenticate.
    #[error(
        "{object}: the stored blob does not authenticate; it was altered, or sealed on other hardware"
    )]
    NotAuthentic {
        /// Name of the object asked for.
        object: String,
    },
    /// The platform could not wrap or unwrap.
    #[error(transparent)]
    Platform(#[from] PlatformError),
}

/// Seals `content` under a fresh data key.
///
/// # Errors
/// When the platform's key service fails.
pub async fn seal(
    platform: &dyn Platform,
    header: &Header,
    content: &[u8],
    rng: &mut (impl CryptoRngCore + Send),
) -> Result<Vec<u8>, SealError> {
    let mut blob = header.encode(&platform.kek_id());
    let key = DataKey::generate(rng);
    let wrapped = platform.wrap(&key, &blob).await;
    // What the platform computed on this thread.
    wipe();
    let wrapped = wrapped?;
    put(&mut blob, &wrapped);
    let mut nonce = [0u8; NONCE];
    rng.fill_bytes(&mut nonce);
    let content = Payload {
        msg: content,
        aad: &blob,
    };
    let ciphertext = wiped(|| Aes256Gcm::new(key.expose().into()).encrypt(&nonce.into(), content))
        .map_err(|_| SealError::Platform(too_long()))?;
    blob.extend_from_slice(&nonce);
    blob.extend_from_slice(&ciphertext);
    Ok(blob)
}

/// Opens `blob`, which the host returned for `object`, if it is exactly what it should be.
///
/// `class`, `cluster`, `party` and `object` are compared; the rest of the header is returned.
///
/// # Errors
/// Every [`SealError`]; nothing of the content is returned with any of them.
pub async fn unseal(
    platform: &dyn Platform,
    cluster: &str,
    party: &str,
    object: &str,
    blob: &[u8],
) -> Result<(Header, Zeroizing<Vec<u8>>), SealError> {
    let malformed = || SealError::Malformed {
        object: object.to_owned(),
    };
    let (header, kek_id, rest) = Header::decode(blob).ok_or_else(malformed)?;
    let kek = platform.kek_id();
    for (field, found, expected) in [
        (
            "trust class",
            &header.class.to_string(),
            &platform.class().to_string(),
        ),
        ("cluster", &header.cluster, &cluster.to_owned()),
        ("party", &header.party, &party.to_owned()),
        ("object", &header.object, &object.to_owned()),
        ("key-encryption key", &kek_id, &kek),
    ] {
        if found != expected {
            return Err(SealError::Misplaced {
                object: object.to_owned(),
                field,
                found: found.escape_default().to_string(),
            });
        }
    }
    let mut rest = rest;
    let header_len = blob.len() - rest.len();
    let wrapped = take(&mut rest).ok_or_else(malformed)?;
    let aad = blob.get(..blob.len() - rest.len()).ok_or_else(malformed)?;
    let (nonce, ciphertext) = rest.split_at_checked(NONCE).ok_or_else(malformed)?;
    let key = platform
        .unwrap(wrapped, blob.get(..header_len).ok_or_else(malformed)?)
        .await;
    wipe();
    let key = match key {
        Ok(key) => key,
        Err(PlatformError::NotAuthentic) => {
            return Err(SealError::NotAuthentic {
                object: object.to_owned(),
            });
        }
        Err(other) => return Err(other.into()),
    };
    let content = Payload {
        msg: ciphertext,
        aad,
    };
    let content = wiped(|| Aes256Gcm::new(key.expose().into()).decrypt(nonce.into(), content))
        .map_err(|_| SealError::NotAuthentic {
            object: object.to_owned(),
        })?;
    Ok((header, Zeroizing::new(content)))
}

/// SHA-256 of a whole blob: what its successor names as predecessor.
pub fn digest(blob: &[u8]) -> [u8; 32] {
    Sha256::digest(blob).into()
}

impl Header {
    fn encode(&self, kek_id: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(tags::SEALED_BLOB_MAGIC);
        out.push(SUITE_AES256_GCM);
        out.push(class_code(self.class));
        for text in [&self.cluster, &self.party, &self.object] {
            put(&mut out, text.as_bytes());
        }
        out.extend_from_slice(&self.key_epoch.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.predecessor);
        out.extend_from_slice(&self.manifest_digest);
        put(&mut out, kek_id.as_bytes());
        out
    }

    /// The header, the name of the key-encryption key, and what follows them.
    fn decode(blob: &[u8]) -> Option<(Self, String, &[u8])> {
        let mut rest = blob.strip_prefix(tags::SEALED_BLOB_MAGIC)?;
        let [suite, class] = array(&mut rest)?;
        if suite != SUITE_AES256_GCM {
            return None;
        }
        let header = Self {
            class: class_of(class)?,
            cluster: text(&mut rest)?,
            party: text(&mut rest)?,
            object: text(&mut rest)?,
            key_epoch: u64::from_be_bytes(array(&mut rest)?),
            sequence: u64::from_be_bytes(array(&mut rest)?),
            predecessor: array(&mut rest)?,
            manifest_digest: array(&mut rest)?,
        };
        let kek_id = text(&mut rest)?;
        Some((header, kek_id, rest))
    }
}

fn class_code(class: TrustClass) -> u8 {
    match class {
        TrustClass::Nitro => 1,
        TrustClass::Hsm => 2,
        TrustClass::Simulated => 3,
    }
}

fn class_of(code: u8) -> Option<TrustClass> {
    match code {
        1 => Some(TrustClass::Nitro),
        2 => Some(TrustClass::Hsm),
        3 => Some(TrustClass::Simulated),
        _ => None,
    }
}

/// Appends `bytes` behind their length. Every caller's strings are bounded far below 64 KiB.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("names and wrapped keys are below 64 KiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::from(u16::from_be_bytes(array(rest)?));
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

fn text(rest: &mut &[u8]) -> Option<String> {
    String::from_utf8(take(rest)?.to_vec()).ok()
}

fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

fn too_long() -> PlatformError {
    PlatformError::Failed {
        operation: "sealing",
        cause: "content is longer than one AES-GCM message may be".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_platform::TestPlatform;

    fn header() -> Header {
        Header {
            class: TrustClass::Simulated,
            cluster: "sim-test".into(),
            party: "ceo".into(),
            object: "key/00".into(),
            key_epoch: 1,
            sequence: 3,
            predecessor: [9; 32],
            manifest_digest: [8; 48],
        }
    }

    async fn sealed(platform: &TestPlatform) -> Vec<u8> {
        seal(platform, &header(), b"a key share", &mut rand_core::OsRng)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn opens_as_what_it_was_sealed() {
        let platform = TestPlatform::new();
        let blob = sealed(&platform).await;
        let (found, content) = unseal(&platform, "sim-test", "ceo", "key/00", &blob)
            .await
            .unwrap();
        assert_eq!(found, header());
        assert_eq!(&content[..], b"a key share");
    }

    #[tokio::test]
    async fn every_flipped_bit_and_every_truncation_is_refused() {
        let platform = TestPlatform::new();
        let blob = sealed(&platform).await;
        for position in 0..blob.len() {
            for bit in 0..8 {
                let mut altered = blob.clone();
                altered[position] ^= 1 << bit;
                assert!(
                    unseal(&platform, "sim-test", "ceo", "key/00", &altered)
                        .await
                        .is_err()
                );
            }
            assert!(
                unseal(&platform, "sim-test", "ceo", "key/00", &blob[..position])
                    .await
                    .is_err()
            );
        }
    }

    #[tokio::test]
    async fn a_blob_in_the_wrong_place_says_whose_it_is() {
        let platform = TestPlatform::new();
        let blob = sealed(&platform).await;
        for (cluster, party, object, field) in [
            ("sim-other", "ceo", "key/00", "cluster"),
            ("sim-test", "cto", "key/00", "party"),
            ("sim-test", "ceo", "key/01", "object"),
        ] {
            match unseal(&platform, cluster, party, object, &blob).await {
                Err(SealError::Misplaced { field: found, .. }) => assert_eq!(found, field),
                other => panic!("expected a misplaced {field}, got {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn other_hardware_cannot_open_it() {
        let blob = sealed(&TestPlatform::new()).await;
        let outcome = unseal(&TestPlatform::new(), "sim-test", "ceo", "key/00", &blob).await;
        assert!(
            matches!(outcome, Err(SealError::NotAuthentic { .. })),
            "{outcome:?}"
        );
    }
}
