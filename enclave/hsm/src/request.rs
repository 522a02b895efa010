//! The certification request (PKCS#10, RFC 2986) for the identity key.

use std::str::FromStr as _;

use der::{
    Decode as _, Encode as _, EncodePem as _,
    asn1::{BitString, ObjectIdentifier},
    pem::LineEnding,
};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::{
    name::RdnSequence,
    request::{CertReq, CertReqInfo, Version},
};

use crate::HsmError;

/// ecdsa-with-SHA384, RFC 5758.
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");

/// A request in PEM; `sign` signs what is to be signed, ECDSA with SHA-384, in DER.
pub(crate) fn request(
    cluster: &str,
    party: &str,
    spki: &[u8],
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, HsmError>,
) -> Result<String, HsmError> {
    let bad = |error: der::Error| HsmError::Certificates(format!("the request: {error}"));
    for (what, name) in [("cluster", cluster), ("party", party)] {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(HsmError::Certificates(format!(
                "the request: {what} `{}` is no name of at most 64 letters, digits, `-`, `_` or `.`",
                name.escape_default()
            )));
        }
    }
    let subject = RdnSequence::from_str(&format!("CN={party},OU={cluster},O=Arca")).map_err(bad)?;
    let info = CertReqInfo {
        version: Version::V1,
        subject,
        public_key: SubjectPublicKeyInfoOwned::from_der(spki).map_err(bad)?,
        attributes: Default::default(),
    };
    let signature = sign(&info.to_der().map_err(bad)?)?;
    let request = CertReq {
        info,
        algorithm: AlgorithmIdentifierOwned {
            oid: ECDSA_SHA384,
            parameters: None,
        },
        signature: BitString::from_bytes(&signature).map_err(bad)?,
    };
    request.to_pem(LineEnding::LF).map_err(bad)
}
