//! The appraisal of evidence, steps 4 to 11 of the verifier.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use crate::cose::Envelope;
use crate::document::Fields;
use crate::facts::{ArchivedEvidence, Attester, Evidence, Facts};
use crate::{
    Error, Measurements, ReferenceValues, TrustAnchors, TrustClass, UnixMillis, hsm, path,
};

/// How far, in milliseconds and in either direction, live evidence may be from the verifier's clock.
pub const LIVE_SKEW: u64 = 5 * 60 * 1000;

/// The shortest nonce, in bytes, that a live verifier can call fresh.
const MIN_NONCE: usize = 16;

/// What live evidence has to say. Every value is compared; an empty one refuses all evidence.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// What the attester is, and what of that class is trusted.
    pub reference: &'a ReferenceValues,
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
    /// What the attester is, and what of that class is trusted. An empty list refuses all evidence.
    pub reference: &'a ReferenceValues,
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

/// Appraises evidence that was just made for this verifier. `document` is a COSE_Sign1 of at most 16 KiB: an NSM's
/// attestation document, or a [statement of an HSM](hsm), as `expected` has it.
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
    let facts = verify(document, anchors, expected.reference, Clock::Verifier(now))?;
    if expected.nonce.len() < MIN_NONCE {
        return Err(Error::MissingExpectation { field: "nonce" });
    }
    check_bound_to(
        &facts,
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
    let facts = verify(document, anchors, expected.reference, Clock::Document)?;
    check_bound_to(
        &facts,
        expected.nonce,
        expected.public_key,
        expected.user_data,
    )?;
    Ok(ArchivedEvidence(facts))
}

/// Whose clock certificates are judged by.
#[derive(Clone, Copy)]
enum Clock {
    Verifier(UnixMillis),
    Document,
}

impl Clock {
    fn at(self, timestamp: UnixMillis) -> UnixMillis {
        match self {
            Self::Verifier(now) => now,
            Self::Document => timestamp,
        }
    }
}

/// Steps 1 to 9. What is expected says in which format the document has to be, and under which roots.
fn verify(
    document: &[u8],
    anchors: &TrustAnchors,
    reference: &ReferenceValues,
    clock: Clock,
) -> Result<Facts, Error> {
    match reference {
        ReferenceValues::Nitro(measurements) => {
            verify_nsm(document, anchors, TrustClass::Nitro, measurements, clock)
        }
        ReferenceValues::Simulated(measurements) => verify_nsm(
            document,
            anchors,
            TrustClass::Simulated,
            measurements,
            clock,
        ),
        ReferenceValues::Hsm(roots) => verify_hsm(document, roots, clock),
    }
}

/// `external_aad` of an NSM's documents.
const NO_EXTERNAL_AAD: &[u8] = b"";

fn verify_nsm(
    document: &[u8],
    anchors: &TrustAnchors,
    class: TrustClass,
    references: &[Measurements],
    clock: Clock,
) -> Result<Facts, Error> {
    let root = anchors.nsm_root(class)?;
    let envelope = Envelope::parse(document)?;
    let fields = Fields::parse(envelope.payload)?;
    let timestamp = UnixMillis(fields.timestamp);
    let at = clock.at(timestamp);
    let leaf = path::verify(class, &[root], &fields.cabundle, fields.certificate, at)?;
    check_skew(timestamp, at)?;
    envelope.verify(&leaf.key, NO_EXTERNAL_AAD)?;
    let measurements = check_measurements(&fields, references)?;

    Ok(Facts {
        class,
        timestamp,
        not_after: leaf.not_after,
        public_key: fields.public_key.map(<[u8]>::to_vec),
        user_data: fields.user_data.map(<[u8]>::to_vec),
        nonce: fields.nonce.map(<[u8]>::to_vec),
        digest: Sha256::digest(document).into(),
        attester: Attester::Enclave {
            module_id: fields.module_id.to_owned(),
            measurements,
            pcrs: fields.pcrs,
        },
    })
}

/// An HSM's evidence has no measurements, so steps 8 and 9 fall away; that the key which signed is the one in the
/// certificate *and* the one in the statement takes their place.
fn verify_hsm(document: &[u8], roots: &[Vec<u8>], clock: Clock) -> Result<Facts, Error> {
    if roots.is_empty() {
        return Err(Error::NoHsmRoots);
    }
    let roots: Vec<&[u8]> = roots.iter().map(Vec::as_slice).collect();
    let (envelope, statement) = hsm::parse(document)?;
    let at = clock.at(statement.timestamp);
    let leaf = path::verify(
        TrustClass::Hsm,
        &roots,
        &statement.cabundle,
        statement.certificate,
        at,
    )?;
    if !hsm::is_spki_of(statement.public_key, &leaf.key) {
        return Err(Error::OtherKeyThanCertified);
    }
    check_skew(statement.timestamp, at)?;
    envelope.verify(&leaf.key, hsm::external_aad())?;

    Ok(Facts {
        class: TrustClass::Hsm,
        timestamp: statement.timestamp,
        not_after: leaf.not_after,
        public_key: Some(statement.public_key.to_vec()),
        user_data: Some(statement.user_data.to_vec()),
        nonce: Some(statement.nonce.to_vec()),
        digest: Sha256::digest(document).into(),
        attester: Attester::Hsm(statement.token),
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

/// Step 10.
fn check_bound_to(
    facts: &Facts,
    nonce: Expectation<'_>,
    public_key: Expectation<'_>,
    user_data: Expectation<'_>,
) -> Result<(), Error> {
    if matches!(nonce, Expectation::Equals(_)) && facts.nonce().unwrap_or_default().is_empty() {
        return Err(Error::NonceMissing);
    }
    check_equal("nonce", facts.nonce(), nonce, Error::NonceMismatch)?;
    check_equal(
        "public_key",
        facts.public_key(),
        public_key,
        Error::PublicKeyMismatch,
    )?;
    check_equal(
        "user_data",
        facts.user_data(),
        user_data,
        Error::UserDataMismatch,
    )
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
