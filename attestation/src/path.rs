//! The path from a pinned root to the leaf, steps 4 and 5, after RFC 5280 section 6.
//!
//! Narrower than the RFC where the format allows: ECDSA over P-384 with SHA-384 and nothing else, every
//! certificate of the path counts towards a path length, and no critical extension but the two that are checked.

use der::asn1::ObjectIdentifier;
use der::oid::AssociatedOid;
use der::{Decode, Encode, Reader as _, SliceReader};
use p384::ecdsa::signature::Verifier as _;
use p384::ecdsa::{DerSignature, VerifyingKey};
use p384::pkcs8::DecodePublicKey;
use x509_cert::certificate::Version;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;

use crate::error::{CertificateFault, Error};
use crate::{TrustClass, UnixMillis};

/// RFC 5758, 3.2. Its parameters are absent.
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");

/// What a verified path says about its leaf.
pub(crate) struct Leaf {
    pub(crate) key: VerifyingKey,
    /// The earliest end of validity on the path, the leaf's own included.
    pub(crate) not_after: UnixMillis,
}

/// Verifies the path `bundle[0]`, …, `certificate` at the time `at`. The bundle is root first, and that root has to be
/// one of `roots`, those of `class`.
pub(crate) fn verify(
    class: TrustClass,
    roots: &[&[u8]],
    bundle: &[&[u8]],
    certificate: &[u8],
    at: UnixMillis,
) -> Result<Leaf, Error> {
    if !bundle.first().is_some_and(|first| roots.contains(first)) {
        return Err(Error::UntrustedRoot { class });
    }
    let refused = |position, fault| Error::Certificate { position, fault };

    let mut issuer: Option<Certificate<'_>> = None;
    let mut not_after = u64::MAX;
    for (position, bytes) in bundle.iter().enumerate() {
        let current = Certificate::parse(bytes).map_err(|fault| refused(position, fault))?;
        // How many authorities stand between this one and the leaf.
        let below = bundle.len().saturating_sub(position).saturating_sub(1);
        current
            .check_issued_by(issuer.as_ref())
            .and_then(|()| current.check_validity(at))
            .and_then(|()| current.check_authority(below))
            .map_err(|fault| refused(position, fault))?;
        not_after = not_after.min(current.not_after);
        issuer = Some(current);
    }
    let leaf = Certificate::parse(certificate)
        .and_then(|leaf| {
            leaf.check_issued_by(issuer.as_ref())?;
            leaf.check_validity(at)?;
            leaf.check_leaf()?;
            Ok(leaf)
        })
        .map_err(|fault| refused(bundle.len(), fault))?;
    let not_after = UnixMillis(not_after.min(leaf.not_after).saturating_mul(1000));
    Ok(Leaf {
        key: leaf.key,
        not_after,
    })
}

/// Whether `root` can be a root at all, at whatever time.
pub(crate) fn check_root(root: &[u8]) -> Result<(), CertificateFault> {
    Certificate::parse(root)?.check_authority(0)
}

/// A certificate that this verifier understands whole.
struct Certificate<'a> {
    /// The signed part, as it came.
    signed: &'a [u8],
    signature: DerSignature,
    issuer: Name,
    subject: Name,
    key: VerifyingKey,
    /// Seconds since 1970, both inclusive.
    not_before: u64,
    not_after: u64,
    basic_constraints: Option<BasicConstraints>,
    key_usage: Option<KeyUsage>,
}

impl<'a> Certificate<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, CertificateFault> {
        let encoding = |_| CertificateFault::Encoding;
        let parsed = x509_cert::Certificate::from_der(bytes).map_err(encoding)?;
        let signed = signed_part(bytes).map_err(encoding)?;
        let tbs = parsed.tbs_certificate;
        if tbs.version != Version::V3 {
            return Err(CertificateFault::Encoding);
        }

        let algorithm = parsed.signature_algorithm;
        if algorithm != tbs.signature
            || algorithm.oid != ECDSA_WITH_SHA384
            || algorithm.parameters.is_some()
        {
            return Err(CertificateFault::Algorithm);
        }
        let signature = parsed.signature.as_bytes().unwrap_or_default();
        let signature =
            DerSignature::from_bytes(signature).map_err(|_| CertificateFault::Signature)?;

        // Refuses other algorithms and curves, and points that are not on this one.
        let key = tbs.subject_public_key_info.to_der().map_err(encoding)?;
        let key = VerifyingKey::from_public_key_der(&key).map_err(|_| CertificateFault::Key)?;

        let mut certificate = Self {
            signed,
            signature,
            issuer: tbs.issuer,
            subject: tbs.subject,
            key,
            not_before: tbs.validity.not_before.to_unix_duration().as_secs(),
            not_after: tbs.validity.not_after.to_unix_duration().as_secs(),
            basic_constraints: None,
            key_usage: None,
        };
        certificate.take_extensions(&tbs.extensions.unwrap_or_default())?;
        Ok(certificate)
    }

    fn take_extensions(&mut self, extensions: &[Extension]) -> Result<(), CertificateFault> {
        let mut seen = Vec::new();
        for extension in extensions {
            if seen.contains(&extension.extn_id) {
                return Err(CertificateFault::DuplicateExtension);
            }
            seen.push(extension.extn_id);
            let value = extension.extn_value.as_bytes();
            let encoding = |_| CertificateFault::Encoding;
            if extension.extn_id == BasicConstraints::OID {
                self.basic_constraints = Some(BasicConstraints::from_der(value).map_err(encoding)?);
            } else if extension.extn_id == KeyUsage::OID {
                self.key_usage = Some(KeyUsage::from_der(value).map_err(encoding)?);
            } else if extension.critical {
                return Err(CertificateFault::CriticalExtension);
            }
        }
        Ok(())
    }

    /// Without an issuer it is the root, which was compared with the pinned ones byte by byte.
    fn check_issued_by(&self, issuer: Option<&Certificate<'_>>) -> Result<(), CertificateFault> {
        let Some(issuer) = issuer else { return Ok(()) };
        if self.issuer != issuer.subject {
            return Err(CertificateFault::Issuer);
        }
        issuer
            .key
            .verify(self.signed, &self.signature)
            .map_err(|_| CertificateFault::Signature)
    }

    fn check_validity(&self, at: UnixMillis) -> Result<(), CertificateFault> {
        let at = at.0 / 1000;
        if at < self.not_before {
            Err(CertificateFault::NotYetValid)
        } else if at > self.not_after {
            Err(CertificateFault::Expired)
        } else {
            Ok(())
        }
    }

    /// `below`: how many further authorities follow.
    fn check_authority(&self, below: usize) -> Result<(), CertificateFault> {
        let constraints = self
            .basic_constraints
            .as_ref()
            .filter(|constraints| constraints.ca);
        let constraints = constraints.ok_or(CertificateFault::NotAnAuthority)?;
        if constraints
            .path_len_constraint
            .is_some_and(|allowed| below > usize::from(allowed))
        {
            return Err(CertificateFault::PathLength);
        }
        match &self.key_usage {
            Some(usage) if usage.key_cert_sign() => Ok(()),
            _ => Err(CertificateFault::KeyUsage),
        }
    }

    fn check_leaf(&self) -> Result<(), CertificateFault> {
        if self
            .basic_constraints
            .as_ref()
            .is_some_and(|constraints| constraints.ca)
        {
            return Err(CertificateFault::LeafIsAuthority);
        }
        match &self.key_usage {
            Some(usage) if usage.digital_signature() => Ok(()),
            _ => Err(CertificateFault::KeyUsage),
        }
    }
}

/// The bytes of `tbsCertificate`, so that what is verified is what was signed and not a re-encoding.
fn signed_part(certificate: &[u8]) -> der::Result<&[u8]> {
    let mut reader = SliceReader::new(certificate)?;
    reader.sequence(|reader| {
        let signed = reader.tlv_bytes()?;
        reader.tlv_bytes()?;
        reader.tlv_bytes()?;
        Ok(signed)
    })
}
