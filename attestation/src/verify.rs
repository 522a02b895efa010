//! The appraisal of an attestation document, steps 4 to 11.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use crate::cose::Envelope;
use crate::document::Fields;
use crate::{Error, Measurements, TrustAnchors, TrustClass, UnixMillis, path};

/// How far, in milliseconds and in either direction, live evidence may be from the verifier's clock.
pub const LIVE_SKEW: u64 = 5 * 60 * 1000;

/// The shortest nonce, in bytes, that a live verifier can call fresh.
const MIN_NONCE: usize = 16;

/// What live evidence has to say. Every value is compared; an empty one refuses all evidence.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Reference values: the evidence must equal one of them.
    pub measurements: &'a [Measurements],
    /// At least 16 bytes, drawn by this verifier for this one verification.
    pub nonce: &'a [u8],
    /// The attester's identity key, SubjectPublicKeyInfo in DER.
    pub public_key: &'a [u8],
    /// What the evidence is bound to: see [`binder`](crate::binder).
    pub user_data: &'a [u8],
}

/// What stored evidence has to say.
#[derive(Clone, Copy, Debug)]
pub struct ArchiveExpected<'a> {
    /// Reference values: the evidence must equal one of them. None at all refuses all evidence.
    pub measurements: &'a [Measurements],
    /// The nonce that was asked for.
    pub nonce: Expectation<'a>,
    /// The attester's identity key.
    pub public_key: Expectation<'a>,
    /// What the evidence was bound to.
    pub user_data: Expectation<'a>,
}

/// One expectation of an auditor, who may know what a value was, or not.
#[derive(Clone, Copy, Debug)]
pub enum Expectation<'a> {
    /// The field is present and equal. An empty value refuses all evidence.
    Equals(&'a [u8]),
    /// The field is not looked at.
    NotCompared,
}

/// Appraises evidence that was just made for this verifier. `document` is an untagged or tagged COSE_Sign1 of at
/// most 16 KiB.
///
/// # Errors
/// The first step that refuses, in the order of [`Error`]'s variants.
///
/// # Security
/// The caller draws the nonce, uses it for one verification and then forgets it; this function has no memory.
pub fn verify_live(
    document: &[u8],
    anchors: &TrustAnchors,
    expected: &Expected<'_>,
    now: UnixMillis,
) -> Result<Evidence, Error> {
    let facts = verify(
        document,
        anchors,
        expected.measurements,
        Clock::Verifier(now),
    )?;
    if expected.nonce.len() < MIN_NONCE {
        return Err(Error::MissingExpectation { field: "nonce" });
    }
    facts.check_bound_to(
        Expectation::Equals(expected.nonce),
        Expectation::Equals(expected.public_key),
        Expectation::Equals(expected.user_data),
    )?;
    Ok(Evidence(facts))
}

/// Appraises stored evidence at its own time: certificates are judged at the document's timestamp.
///
/// # Errors
/// As [`verify_live`], except that no clock is compared.
///
/// # Security
/// Says that the evidence was true once. It says nothing about who presents it, or when.
pub fn verify_archive(
    document: &[u8],
    anchors: &TrustAnchors,
    expected: &ArchiveExpected<'_>,
) -> Result<ArchivedEvidence, Error> {
    let facts = verify(document, anchors, expected.measurements, Clock::Document)?;
    facts.check_bound_to(expected.nonce, expected.public_key, expected.user_data)?;
    Ok(ArchivedEvidence(facts))
}

/// Reads a document without verifying anything, for display.
///
/// # Errors
/// When the document is malformed, as [`verify_live`].
pub fn inspect(document: &[u8]) -> Result<Inspection, Error> {
    let fields = Fields::parse(Envelope::parse(document)?.payload)?;
    Ok(Inspection {
        claimed_module_id: fields.module_id.to_owned(),
        claimed_timestamp: UnixMillis(fields.timestamp),
        claimed_pcrs: fields.pcrs,
        claimed_public_key: fields.public_key.map(<[u8]>::to_vec),
        claimed_user_data: fields.user_data.map(<[u8]>::to_vec),
        claimed_nonce: fields.nonce.map(<[u8]>::to_vec),
        claimed_path: fields
            .cabundle
            .iter()
            .chain([&fields.certificate])
            .map(|der| der.to_vec())
            .collect(),
    })
}

/// What a document claims. Nothing of it is verified: anybody can write such a document.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Names the enclave and its parent instance.
    pub claimed_module_id: String,
    /// When the document was made.
    pub claimed_timestamp: UnixMillis,
    /// By index, 0 to 31.
    pub claimed_pcrs: BTreeMap<u8, [u8; 48]>,
    /// Absent when the field is absent or null.
    pub claimed_public_key: Option<Vec<u8>>,
    /// Absent when the field is absent or null.
    pub claimed_user_data: Option<Vec<u8>>,
    /// Absent when the field is absent or null.
    pub claimed_nonce: Option<Vec<u8>>,
    /// DER certificates, root first, leaf last.
    pub claimed_path: Vec<Vec<u8>>,
}

/// Evidence that [`verify_live`] found true: fresh, and bound to what the verifier expected.
#[derive(Clone, Debug)]
pub struct Evidence(Facts);

/// Evidence that [`verify_archive`] found true at its own time.
#[derive(Clone, Debug)]
pub struct ArchivedEvidence(Facts);

impl Deref for Evidence {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.0
    }
}

impl Deref for ArchivedEvidence {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.0
    }
}

/// What verified evidence says. Reached through [`Evidence`] and [`ArchivedEvidence`].
#[derive(Clone)]
pub struct Facts {
    class: TrustClass,
    module_id: String,
    timestamp: UnixMillis,
    not_after: UnixMillis,
    measurements: Measurements,
    pcrs: BTreeMap<u8, [u8; 48]>,
    public_key: Option<Vec<u8>>,
    user_data: Option<Vec<u8>>,
    nonce: Option<Vec<u8>>,
    digest: [u8; 32],
}

impl Facts {
    /// The class of the anchors that it verified under.
    pub fn class(&self) -> TrustClass {
        self.class
    }

    /// Names the enclave and its parent instance.
    pub fn module_id(&self) -> &str {
        &self.module_id
    }

    /// When the document was made, by the attester's clock.
    pub fn timestamp(&self) -> UnixMillis {
        self.timestamp
    }

    /// Until when every certificate on the path is valid, that of the attester's signing key included.
    pub fn not_after(&self) -> UnixMillis {
        self.not_after
    }

    /// PCR 0, 1 and 2: one of the reference values.
    pub fn measurements(&self) -> &Measurements {
        &self.measurements
    }

    /// Every PCR by index, 0 to 31. Only 0, 1 and 2 were compared with anything.
    pub fn pcrs(&self) -> &BTreeMap<u8, [u8; 48]> {
        &self.pcrs
    }

    /// The key that the attester had included.
    pub fn public_key(&self) -> Option<&[u8]> {
        self.public_key.as_deref()
    }

    /// What the attester had included: see [`binder`](crate::binder).
    pub fn user_data(&self) -> Option<&[u8]> {
        self.user_data.as_deref()
    }

    /// The verifier's nonce.
    pub fn nonce(&self) -> Option<&[u8]> {
        self.nonce.as_deref()
    }

    /// SHA-256 of the document's bytes, as `sha256sum` gives it: names this document in logs and certificates.
    ///
    /// # Security
    /// Identifies bytes, not a statement: ECDSA lets anybody make a second valid signature from the first.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Step 10.
    fn check_bound_to(
        &self,
        nonce: Expectation<'_>,
        public_key: Expectation<'_>,
        user_data: Expectation<'_>,
    ) -> Result<(), Error> {
        if matches!(nonce, Expectation::Equals(_)) && self.nonce().unwrap_or_default().is_empty() {
            return Err(Error::NonceMissing);
        }
        check_equal("nonce", self.nonce(), nonce, Error::NonceMismatch)?;
        check_equal(
            "public_key",
            self.public_key(),
            public_key,
            Error::PublicKeyMismatch,
        )?;
        check_equal(
            "user_data",
            self.user_data(),
            user_data,
            Error::UserDataMismatch,
        )
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("class", &self.class)
            .field("module_id", &self.module_id)
            .field("timestamp", &self.timestamp)
            .field("measurements", &self.measurements)
            .field("digest", &hex::encode(self.digest))
            .finish_non_exhaustive()
    }
}

/// `external_aad` of an NSM's documents.
const NO_EXTERNAL_AAD: &[u8] = b"";

/// Whose clock certificates are judged by.
enum Clock {
    Verifier(UnixMillis),
    Document,
}

/// Steps 1 to 9.
fn verify(
    document: &[u8],
    anchors: &TrustAnchors,
    references: &[Measurements],
    clock: Clock,
) -> Result<Facts, Error> {
    let envelope = Envelope::parse(document)?;
    let fields = Fields::parse(envelope.payload)?;
    let timestamp = UnixMillis(fields.timestamp);
    let at = match clock {
        Clock::Verifier(now) => now,
        Clock::Document => timestamp,
    };
    let leaf = path::verify(anchors, &fields.cabundle, fields.certificate, at)?;
    check_skew(timestamp, at)?;
    envelope.verify(&leaf.key, NO_EXTERNAL_AAD)?;
    let measurements = check_measurements(&fields, references)?;

    Ok(Facts {
        class: anchors.class(),
        module_id: fields.module_id.to_owned(),
        timestamp,
        not_after: leaf.not_after,
        measurements,
        public_key: fields.public_key.map(<[u8]>::to_vec),
        user_data: fields.user_data.map(<[u8]>::to_vec),
        nonce: fields.nonce.map(<[u8]>::to_vec),
        pcrs: fields.pcrs,
        digest: Sha256::digest(document).into(),
    })
}

/// Step 6. A document is always at its own time.
fn check_skew(timestamp: UnixMillis, now: UnixMillis) -> Result<(), Error> {
    let age = now.0.saturating_sub(timestamp.0);
    let ahead = timestamp.0.saturating_sub(now.0);
    if age > LIVE_SKEW {
        Err(Error::TooOld { by_ms: age })
    } else if ahead > LIVE_SKEW {
        Err(Error::FromTheFuture { by_ms: ahead })
    } else {
        Ok(())
    }
}

/// Steps 8 and 9.
fn check_measurements(
    fields: &Fields<'_>,
    references: &[Measurements],
) -> Result<Measurements, Error> {
    let pcr = |index| {
        fields
            .pcrs
            .get(&index)
            .copied()
            .ok_or(Error::MissingPcr { index })
    };
    let measurements = Measurements {
        pcr0: pcr(0)?,
        pcr1: pcr(1)?,
        pcr2: pcr(2)?,
    };
    if measurements.is_debug() {
        Err(Error::DebugMode)
    } else if references.is_empty() {
        Err(Error::NoReferenceValues)
    } else if !references.contains(&measurements) {
        Err(Error::Measurements {
            references: references.len(),
        })
    } else {
        Ok(measurements)
    }
}

fn check_equal(
    field: &'static str,
    found: Option<&[u8]>,
    expectation: Expectation<'_>,
    mismatch: Error,
) -> Result<(), Error> {
    match expectation {
        Expectation::NotCompared => Ok(()),
        Expectation::Equals([]) => Err(Error::MissingExpectation { field }),
        Expectation::Equals(expected) if found.unwrap_or_default().ct_eq(expected).into() => Ok(()),
        Expectation::Equals(_) => Err(mismatch),
    }
}
