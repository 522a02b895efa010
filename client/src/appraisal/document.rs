//! What a document says, to be shown.

use std::collections::BTreeMap;

use arca_attestation::Inspection;
use serde::Serialize;
use sha2::{Digest, Sha256};
use x509_cert::der::Decode as _;

use crate::clock;

/// Every field of a document. Bytes are in hexadecimal.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// Names the enclave and its parent instance; only in documents of an NSM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module_id: Option<String>,
    /// What the token says of itself; only in evidence of an HSM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// When it was made, by the attester's clock: RFC 3339, to the millisecond.
    pub time: String,
    /// The same, in milliseconds since 1970.
    pub timestamp: u64,
    /// What PCRs are digests of, where there are any; no other is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<&'static str>,
    /// By index, 0 to 31; none in evidence of an HSM.
    pub pcrs: BTreeMap<u8, String>,
    /// Absent when the field is absent or null; that holds for the next two as well.
    pub public_key: Option<String>,
    /// What the attester had included.
    pub user_data: Option<String>,
    /// The verifier's, if it gave one.
    pub nonce: Option<String>,
    /// From the root to the one whose key signed.
    pub certificates: Vec<Certificate>,
}

/// What a token says of itself. Nobody vouches for it.
#[derive(Clone, Debug, Serialize)]
pub struct Token {
    /// Who made it.
    pub manufacturer: String,
    /// Which model it is.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// The version of its firmware.
    pub firmware: String,
}

impl From<&arca_attestation::hsm::Token> for Token {
    fn from(token: &arca_attestation::hsm::Token) -> Self {
        Self {
            manufacturer: token.manufacturer().to_owned(),
            model: token.model().to_owned(),
            serial: token.serial().to_owned(),
            firmware: token.firmware().to_owned(),
        }
    }
}

/// A certificate of a document's path. Values are absent when it cannot be read.
#[derive(Clone, Debug, Serialize)]
pub struct Certificate {
    /// 0 is the root.
    pub position: usize,
    /// In the form of RFC 4514.
    pub subject: Option<String>,
    /// In the form of RFC 4514.
    pub issuer: Option<String>,
    /// In hexadecimal.
    pub serial: Option<String>,
    /// From when it is valid.
    pub not_before: Option<String>,
    /// Until when it is valid.
    pub not_after: Option<String>,
    /// Of the DER, as `sha256sum` gives it.
    pub sha256: String,
}

impl From<Inspection> for Document {
    fn from(inspection: Inspection) -> Self {
        let hexadecimal = |bytes: Option<Vec<u8>>| bytes.map(hex::encode);
        Self {
            digest: inspection.claimed_module_id.as_ref().map(|_| "SHA384"),
            module_id: inspection.claimed_module_id.as_deref().map(one_line),
            token: inspection.claimed_token.as_ref().map(Token::from),
            time: clock::show_precisely(inspection.claimed_timestamp),
            timestamp: inspection.claimed_timestamp.0,
            pcrs: inspection
                .claimed_pcrs
                .iter()
                .map(|(index, pcr)| (*index, hex::encode(pcr)))
                .collect(),
            public_key: hexadecimal(inspection.claimed_public_key),
            user_data: hexadecimal(inspection.claimed_user_data),
            nonce: hexadecimal(inspection.claimed_nonce),
            certificates: inspection
                .claimed_path
                .iter()
                .enumerate()
                .map(|(position, der)| Certificate::read(position, der))
                .collect(),
        }
    }
}

impl Certificate {
    /// Reads what there is to show. Nothing is verified.
    pub fn read(position: usize, der: &[u8]) -> Self {
        let read = x509_cert::Certificate::from_der(der).ok();
        let tbs = read
            .as_ref()
            .map(|certificate| &certificate.tbs_certificate);
        let time = |time: &x509_cert::time::Time| {
            let seconds = time.to_unix_duration().as_secs();
            clock::show(arca_attestation::UnixMillis(seconds.saturating_mul(1000)))
        };
        Self {
            position,
            subject: tbs.map(|tbs| one_line(&tbs.subject.to_string())),
            issuer: tbs.map(|tbs| one_line(&tbs.issuer.to_string())),
            serial: tbs.map(|tbs| serial(tbs.serial_number.as_bytes())),
            not_before: tbs.map(|tbs| time(&tbs.validity.not_before)),
            not_after: tbs.map(|tbs| time(&tbs.validity.not_after)),
            sha256: hex::encode(Sha256::digest(der)),
        }
    }
}

/// Without the zero that DER puts before a number whose first bit is set.
fn serial(number: &[u8]) -> String {
    hex::encode(number.strip_prefix(&[0]).unwrap_or(number))
}

/// A name that could write further lines into a report would be believed to be part of it.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_on_its_line() {
        assert_eq!(
            one_line("CN=x\n  ok   signature"),
            "CN=x\u{fffd}  ok   signature"
        );
    }

    #[test]
    fn what_is_no_certificate_is_shown_as_unreadable() {
        let certificate = Certificate::read(1, b"no certificate");
        assert_eq!(certificate.subject, None);
        assert_eq!(certificate.sha256.len(), 64);
    }
}
