//! The verifier's checks, in its order, and which refusal belongs to which.

use arca_attestation::{
    Error as Refusal, Inspection, LIVE_SKEW, Measurements, ReferenceValues, TrustClass,
};

use super::document::Certificate;
use super::{Question, Reference};
use crate::clock;

/// One check. The order of [`all`] is that in which the verifier makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Anchor,
    Size,
    Envelope,
    Algorithm,
    SignatureLength,
    Payload,
    /// Not of an HSM, whose payload is read in one go.
    Fields,
    Root,
    /// By position; 0 is the root.
    Certificate(usize),
    /// Of an HSM.
    CertifiedKey,
    Time,
    Signature,
    PcrsPresent,
    DebugMode,
    /// 0, 1 or 2.
    Pcr(u8),
    Nonce,
    PublicKey,
    UserData,
    FurtherPcr(u8),
    /// None that is listed here.
    Other,
}

/// PCR 0, 1 and 2 as the document claims them.
pub(super) fn claimed(inspection: &Inspection) -> Option<Measurements> {
    let claimed = |index| inspection.claimed_pcrs.get(&index).copied();
    Some(Measurements {
        pcr0: claimed(0)?,
        pcr1: claimed(1)?,
        pcr2: claimed(2)?,
    })
}

fn pcr(measurements: &Measurements, index: u8) -> Option<&[u8; 48]> {
    match index {
        0 => Some(&measurements.pcr0),
        1 => Some(&measurements.pcr1),
        2 => Some(&measurements.pcr2),
        _ => None,
    }
}

/// The images that are expected; none of an HSM.
fn images<'a>(question: &Question<'a>) -> &'a [Measurements] {
    match question.reference {
        Reference::Values(ReferenceValues::Nitro(images) | ReferenceValues::Simulated(images)) => {
            images
        }
        Reference::Values(ReferenceValues::Hsm(_)) | Reference::AnyEnclave(_) => &[],
    }
}

/// Every check that this question makes of this document.
pub(super) fn all(question: &Question<'_>, inspection: Option<&Inspection>) -> Vec<Step> {
    let hsm = question.reference.class() == TrustClass::Hsm;
    // A document that cannot be read has certificates nobody knows of.
    let certificates = inspection.map_or(1, |inspection| inspection.claimed_path.len());
    let mut steps = vec![
        Step::Anchor,
        Step::Size,
        Step::Envelope,
        Step::Algorithm,
        Step::SignatureLength,
        Step::Payload,
    ];
    if !hsm {
        steps.push(Step::Fields);
    }
    steps.push(Step::Root);
    steps.extend((0..certificates).map(Step::Certificate));
    if hsm {
        steps.push(Step::CertifiedKey);
    }
    steps.extend([Step::Time, Step::Signature]);
    if !hsm {
        steps.extend([Step::PcrsPresent, Step::DebugMode]);
        steps.extend([0, 1, 2].map(Step::Pcr));
    }
    steps.extend([Step::Nonce, Step::PublicKey, Step::UserData]);
    steps.extend(question.further_pcrs.keys().copied().map(Step::FurtherPcr));
    steps
}

impl Step {
    /// The check that a refusal stands for.
    pub(super) fn of(
        refusal: &Refusal,
        question: &Question<'_>,
        inspection: Option<&Inspection>,
    ) -> Self {
        let hsm = question.reference.class() == TrustClass::Hsm;
        match refusal {
            Refusal::NoTrustAnchor { .. } | Refusal::NoHsmRoots => Self::Anchor,
            Refusal::DocumentTooLarge { .. } => Self::Size,
            Refusal::Cbor {
                part: "envelope", ..
            }
            | Refusal::NotCoseSign1
            | Refusal::UnprotectedHeader => Self::Envelope,
            Refusal::ProtectedHeader => Self::Algorithm,
            Refusal::SignatureLength { .. } => Self::SignatureLength,
            Refusal::Cbor { .. }
            | Refusal::PcrIndex
            | Refusal::PcrLength { .. }
            | Refusal::EvidenceVersion { .. }
            | Refusal::NotPrintable { .. }
            | Refusal::NotCanonical => Self::Payload,
            Refusal::MissingField { .. }
            | Refusal::FieldBounds { .. }
            | Refusal::DigestAlgorithm
            | Refusal::Timestamp => {
                if hsm {
                    Self::Payload
                } else {
                    Self::Fields
                }
            }
            Refusal::UntrustedRoot { .. } => Self::Root,
            Refusal::Certificate { position, .. } => Self::Certificate(*position),
            Refusal::OtherKeyThanCertified => Self::CertifiedKey,
            Refusal::TooOld { .. } | Refusal::FromTheFuture { .. } => Self::Time,
            Refusal::Signature => Self::Signature,
            Refusal::MissingPcr { .. } => Self::PcrsPresent,
            Refusal::DebugMode => Self::DebugMode,
            Refusal::NoReferenceValues => Self::Pcr(0),
            Refusal::Measurements { .. } => Self::Pcr(first_difference(question, inspection)),
            Refusal::NonceMissing
            | Refusal::NonceMismatch
            | Refusal::MissingExpectation { field: "nonce" } => Self::Nonce,
            Refusal::PublicKeyMismatch
            | Refusal::MissingExpectation {
                field: "public_key",
            } => Self::PublicKey,
            Refusal::UserDataMismatch | Refusal::MissingExpectation { field: "user_data" } => {
                Self::UserData
            }
            _ => Self::Other,
        }
    }

    /// Whether there is anything to compare with.
    pub(super) fn is_asked(self, question: &Question<'_>) -> bool {
        let live = question.now.is_some();
        match self {
            Self::Time => live,
            Self::Pcr(_) => matches!(question.reference, Reference::Values(_)),
            Self::Nonce => live || question.nonce.is_some(),
            Self::PublicKey => live || question.public_key.is_some(),
            Self::UserData => live || question.user_data.is_some(),
            _ => true,
        }
    }

    /// Stable, in snake_case.
    pub(super) fn name(self) -> String {
        match self {
            Self::Anchor => "anchor".to_owned(),
            Self::Size => "size".to_owned(),
            Self::Envelope => "envelope".to_owned(),
            Self::Algorithm => "algorithm".to_owned(),
            Self::SignatureLength => "signature_length".to_owned(),
            Self::Payload => "payload".to_owned(),
            Self::Fields => "fields".to_owned(),
            Self::Root => "root".to_owned(),
            Self::Certificate(position) => format!("certificate_{position}"),
            Self::CertifiedKey => "certified_key".to_owned(),
            Self::Time => "time".to_owned(),
            Self::Signature => "signature".to_owned(),
            Self::PcrsPresent => "pcrs_present".to_owned(),
            Self::DebugMode => "debug_mode".to_owned(),
            Self::Pcr(index) | Self::FurtherPcr(index) => format!("pcr_{index}"),
            Self::Nonce => "nonce".to_owned(),
            Self::PublicKey => "public_key".to_owned(),
            Self::UserData => "user_data".to_owned(),
            Self::Other => "other".to_owned(),
        }
    }

    /// What has to hold.
    pub(super) fn rule(self, question: &Question<'_>, inspection: Option<&Inspection>) -> String {
        let hsm = question.reference.class() == TrustClass::Hsm;
        let text = match self {
            Self::Anchor => "there is a root to hold evidence of this class against",
            Self::Size => "at most 16 KiB",
            Self::Envelope => {
                "envelope: strict CBOR, COSE_Sign1, nothing in the unprotected header"
            }
            Self::Algorithm => "protected header: ES384 and nothing more",
            Self::SignatureLength => "signature of 96 bytes",
            Self::Payload if hsm => {
                "payload: CBOR in its one encoding, known version, all fields there and within bounds"
            }
            Self::Payload => "payload: strict CBOR; PCRs of 48 bytes, indices up to 31",
            Self::Fields => "payload: mandatory fields there, SHA384, all lengths within bounds",
            Self::Root => "the certificate path begins with that root",
            Self::Certificate(position) => return certificate_rule(position, inspection),
            Self::CertifiedKey => "the last certificate is for the public key in the statement",
            Self::Time => {
                return format!(
                    "made within {} minutes of this machine's clock",
                    LIVE_SKEW / 60_000
                );
            }
            Self::Signature => "signature over the payload, by the last certificate's key",
            Self::PcrsPresent => "PCR 0, 1 and 2 are there",
            Self::DebugMode => "not in debug mode (none of PCR 0, 1 and 2 is zero)",
            Self::Pcr(index) => return format!("PCR {index} equals the reference value"),
            Self::Nonce => "nonce equals the expected one",
            Self::PublicKey => "public key equals the expected one",
            Self::UserData => "user data equal the expected ones",
            Self::FurtherPcr(index) => return format!("PCR {index} equals the expected value"),
            Self::Other => "a check that this program does not list",
        };
        text.to_owned()
    }

    /// What a check that passed found, or why another was not made.
    pub(super) fn note(
        self,
        question: &Question<'_>,
        inspection: Option<&Inspection>,
        document: &[u8],
    ) -> Option<String> {
        match self {
            Self::Size => Some(format!("{} bytes", document.len())),
            Self::Anchor => Some(match question.reference {
                Reference::Values(ReferenceValues::Hsm(roots)) => {
                    format!("{} of the organisation's HSMs", roots.len())
                }
                reference if reference.class() == TrustClass::Simulated => {
                    "SIMULATED: no hardware vouches for it".to_owned()
                }
                _ => "AWS Nitro Enclaves root G1".to_owned(),
            }),
            Self::Certificate(position) => {
                let der = inspection?.claimed_path.get(position)?;
                let certificate = Certificate::read(position, der);
                let at = question
                    .now
                    .or_else(|| inspection.map(|inspection| inspection.claimed_timestamp))?;
                Some(format!(
                    "valid {} to {}, judged at {}",
                    certificate.not_before?,
                    certificate.not_after?,
                    clock::show(at)
                ))
            }
            Self::Time if question.now.is_none() => {
                Some("archive: all is judged at the document's own time".to_owned())
            }
            Self::Pcr(_) if matches!(question.reference, Reference::AnyEnclave(_)) => {
                Some("NOT COMPARED with anything".to_owned())
            }
            _ => None,
        }
    }

    /// What was found and what was expected, for checks of values.
    pub(super) fn comparison(
        self,
        question: &Question<'_>,
        inspection: Option<&Inspection>,
    ) -> Option<String> {
        let inspection = inspection?;
        let hex_or_absent = |found: Option<&[u8]>| found.map_or("absent".to_owned(), hex::encode);
        let compare = |found: Option<&[u8]>, expected: Option<&[u8]>| {
            let expected = expected.filter(|expected| !expected.is_empty())?;
            Some(format!(
                "found {}, expected {}",
                hex_or_absent(found),
                hex::encode(expected)
            ))
        };
        match self {
            Self::Pcr(index) | Self::FurtherPcr(index) => {
                let found = inspection.claimed_pcrs.get(&index).map(|pcr| &pcr[..]);
                let expected = match (self, images(question)) {
                    (Self::FurtherPcr(_), _) => question.further_pcrs.get(&index),
                    (_, [one]) => pcr(one, index),
                    _ => None,
                };
                let expected = expected.map(|pcr| &pcr[..]);
                compare(found, expected)
            }
            Self::Nonce => compare(inspection.claimed_nonce.as_deref(), question.nonce),
            Self::PublicKey => compare(
                inspection.claimed_public_key.as_deref(),
                question.public_key,
            ),
            Self::UserData => compare(inspection.claimed_user_data.as_deref(), question.user_data),
            _ => None,
        }
    }
}

fn certificate_rule(position: usize, inspection: Option<&Inspection>) -> String {
    let Some(path) = inspection.map(|inspection| &inspection.claimed_path) else {
        return "certificates: each issued by the one before, valid, and allowed what it does"
            .to_owned();
    };
    let subject = path
        .get(position)
        .and_then(|der| Certificate::read(position, der).subject)
        .unwrap_or_else(|| "unreadable".to_owned());
    let rule = if position == 0 {
        "P-384, valid, may issue"
    } else if position.saturating_add(1) == path.len() {
        "issued by the one before, valid, may sign, may not issue"
    } else {
        "issued by the one before, valid, may issue"
    };
    format!("certificate {position} ({subject}): {rule}")
}

/// The first of PCR 0, 1 and 2 at which no reference value is left.
fn first_difference(question: &Question<'_>, inspection: Option<&Inspection>) -> u8 {
    let Some(found) = inspection.and_then(claimed) else {
        return 0;
    };
    let mut left: Vec<&Measurements> = images(question).iter().collect();
    for index in 0..=2 {
        left.retain(|reference| pcr(reference, index) == pcr(&found, index));
        if left.is_empty() {
            return index;
        }
    }
    0
}
