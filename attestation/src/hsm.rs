//! Evidence of a party whose identity key lives in an HSM: a statement signed with that key.
//!
//! COSE_Sign1 (RFC 9052), ES384, with [a domain tag](to_sign) as `external_aad`. The payload is a CBOR map in one
//! encoding only (RFC 8949: definite lengths, shortest heads) with these keys in this order:
//!
//! | key | type | value |
//! | --- | --- | --- |
//! | `version` | unsigned | 1 |
//! | `token` | map | `manufacturer`, `model`, `serial`, `firmware`: what the token says of itself, printable ASCII of at most 64 bytes each |
//! | `timestamp` | unsigned | milliseconds since 1970, not zero |
//! | `nonce` | bytes | the verifier's, at most 512 bytes |
//! | `user_data` | bytes | see [`binder`](crate::binder), at most 512 bytes |
//! | `public_key` | bytes | the identity key, SubjectPublicKeyInfo, DER |
//! | `certificate` | bytes | of the identity key, DER, at most 2048 bytes |
//! | `cabundle` | array of bytes | 1 to 8 authorities, DER, at most 2048 bytes each; root first, each followed by one that it issued |
//!
//! The whole has at most 16 KiB.
//!
//! # Security
//! It proves that whoever made it can use the identity key, and that the organisation's authority has certified that
//! key. It does not say which code runs, and what it says of the token is only what the code read there.

use std::fmt;

use p384::ecdsa::VerifyingKey;
use p384::pkcs8::EncodePublicKey as _;

use crate::cbor::{Reader, Writer};
use crate::cose::{self, Broken, Envelope, MAX_DOCUMENT};
use crate::document::{MAX_NONCE, MAX_PUBLIC_KEY, MAX_USER_DATA, within};
use crate::error::{CborFault, Error};
use crate::{UnixMillis, tags};

const VERSION: u64 = 1;
/// What [`document`] adds to a payload, at most.
const ENVELOPE: usize = 112;
const MAX_TEXT: usize = 64;
/// More than an NSM's have: organisations write long names and addresses into theirs.
pub(crate) const MAX_CERTIFICATE: usize = 2048;
/// Each certificate costs a signature verification.
const MAX_BUNDLE: usize = 8;

/// What a token says of itself. Nobody vouches for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    manufacturer: String,
    model: String,
    serial: String,
    firmware: String,
}

impl Token {
    /// From what PKCS#11 reports: blanks at the ends go, the rest is cut to 64 characters, and those that are not
    /// printable ASCII become `?`.
    pub fn new(manufacturer: &str, model: &str, serial: &str, firmware: &str) -> Self {
        let printable = |text: &str| {
            let characters = text.trim().chars().take(MAX_TEXT);
            characters
                .map(|c| if is_printable(c) { c } else { '?' })
                .collect()
        };
        Self {
            manufacturer: printable(manufacturer),
            model: printable(model),
            serial: printable(serial),
            firmware: printable(firmware),
        }
    }

    /// Who made it.
    pub fn manufacturer(&self) -> &str {
        &self.manufacturer
    }

    /// Which model it is.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Its serial number.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The version of its firmware.
    pub fn firmware(&self) -> &str {
        &self.firmware
    }

    fn fields(&self) -> [(&'static str, &str); 4] {
        [
            ("manufacturer", &self.manufacturer),
            ("model", &self.model),
            ("serial", &self.serial),
            ("firmware", &self.firmware),
        ]
    }

    fn write(&self, writer: &mut Writer) {
        let fields = self.fields();
        writer.map(fields.len());
        for (key, text) in fields {
            writer.text(key);
            writer.text(text);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Broken> {
        let mut entries = Entries::of(reader)?;
        let mut text = |reader: &mut Reader<'_>, key| {
            entries.key(reader, key)?;
            let text = reader.text()?;
            within(key, text.len(), 0..=MAX_TEXT)?;
            if text.chars().all(is_printable) {
                Ok(text.to_owned())
            } else {
                Err(Broken::Refused(Error::NotPrintable { field: key }))
            }
        };
        let token = Self {
            manufacturer: text(reader, "manufacturer")?,
            model: text(reader, "model")?,
            serial: text(reader, "serial")?,
            firmware: text(reader, "firmware")?,
        };
        entries.end(reader)?;
        Ok(token)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut token = f.debug_struct("Token");
        for (key, text) in self.fields() {
            token.field(key, &text);
        }
        token.finish()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            manufacturer,
            model,
            serial,
            firmware,
        } = self;
        write!(
            f,
            "{manufacturer} {model}, serial {serial}, firmware {firmware}"
        )
    }
}

/// What an HSM's evidence says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// The token that holds the key.
    pub token: Token,
    /// When the statement is made; not zero.
    pub timestamp: UnixMillis,
    /// The verifier's nonce, at most 512 bytes.
    pub nonce: &'a [u8],
    /// What the evidence is bound to, at most 512 bytes: see [`binder`](crate::binder).
    pub user_data: &'a [u8],
    /// The identity key, P-384, SubjectPublicKeyInfo in DER.
    pub public_key: &'a [u8],
    /// The identity key's certificate, DER, 1 to 2048 bytes.
    pub certificate: &'a [u8],
    /// 1 to 8 authorities, DER, 1 to 2048 bytes each: the root first, and last the one that issued `certificate`.
    pub cabundle: Vec<&'a [u8]>,
}

impl<'a> Statement<'a> {
    /// The payload's bytes.
    ///
    /// # Errors
    /// [`Error::FieldBounds`], [`Error::Timestamp`] or [`Error::DocumentTooLarge`] when no verifier would read them.
    pub fn payload(&self) -> Result<Vec<u8>, Error> {
        self.check_bounds()?;
        let mut writer = Writer::default();
        writer.map(8);
        writer.text("version");
        writer.unsigned(VERSION);
        writer.text("token");
        self.token.write(&mut writer);
        writer.text("timestamp");
        writer.unsigned(self.timestamp.0);
        writer.text("nonce");
        writer.bytes(self.nonce);
        writer.text("user_data");
        writer.bytes(self.user_data);
        writer.text("public_key");
        writer.bytes(self.public_key);
        writer.text("certificate");
        writer.bytes(self.certificate);
        writer.text("cabundle");
        writer.array(self.cabundle.len());
        for authority in &self.cabundle {
            writer.bytes(authority);
        }
        let payload = writer.finish();
        let size = payload.len().saturating_add(ENVELOPE);
        if size > MAX_DOCUMENT {
            return Err(Error::DocumentTooLarge {
                size,
                max: MAX_DOCUMENT,
            });
        }
        Ok(payload)
    }

    /// The inverse of [`payload`](Self::payload): whatever that does not make is refused.
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(payload);
        let statement = Self::read(&mut reader).map_err(|error| match error {
            Broken::Refused(error) => error,
            Broken::Cbor(fault) => Error::Cbor {
                part: "payload",
                offset: reader.offset(),
                fault,
            },
        })?;
        if statement.payload()? != payload {
            return Err(Error::NotCanonical);
        }
        Ok(statement)
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Broken> {
        let mut entries = Entries::of(reader)?;
        entries.key(reader, "version")?;
        let version = reader.unsigned()?;
        if version != VERSION {
            return Err(Error::EvidenceVersion { version }.into());
        }
        entries.key(reader, "token")?;
        let token = Token::read(reader)?;
        entries.key(reader, "timestamp")?;
        let timestamp = UnixMillis(reader.unsigned()?);
        entries.key(reader, "nonce")?;
        let nonce = reader.bytes()?;
        entries.key(reader, "user_data")?;
        let user_data = reader.bytes()?;
        entries.key(reader, "public_key")?;
        let public_key = reader.bytes()?;
        entries.key(reader, "certificate")?;
        let certificate = reader.bytes()?;
        entries.key(reader, "cabundle")?;
        let mut cabundle = Vec::new();
        let mut left = reader.array()?;
        while reader.more(&mut left)? {
            cabundle.push(reader.bytes()?);
        }
        entries.end(reader)?;
        reader.end()?;
        Ok(Self {
            token,
            timestamp,
            nonce,
            user_data,
            public_key,
            certificate,
            cabundle,
        })
    }

    fn check_bounds(&self) -> Result<(), Error> {
        within("nonce", self.nonce.len(), 0..=MAX_NONCE)?;
        within("user_data", self.user_data.len(), 0..=MAX_USER_DATA)?;
        within("public_key", self.public_key.len(), 1..=MAX_PUBLIC_KEY)?;
        within("certificate", self.certificate.len(), 1..=MAX_CERTIFICATE)?;
        within("cabundle", self.cabundle.len(), 1..=MAX_BUNDLE)?;
        for authority in &self.cabundle {
            within("cabundle", authority.len(), 1..=MAX_CERTIFICATE)?;
        }
        if self.timestamp.0 == 0 {
            return Err(Error::Timestamp);
        }
        Ok(())
    }
}

/// What the identity key signs, ECDSA with SHA-384: the `Sig_structure` of RFC 9052, section 4.4, with the domain
/// tag `arca/v1/hsm-evidence` as `external_aad`.
pub fn to_sign(payload: &[u8]) -> Vec<u8> {
    cose::signed_bytes(cose::ES384_HEADER, external_aad(), payload)
}

/// The evidence: an untagged COSE_Sign1 of this payload. `signature` is r and s, 48 bytes each, big-endian.
pub fn document(payload: &[u8], signature: &[u8; 96]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.array(4);
    writer.bytes(cose::ES384_HEADER);
    writer.map(0);
    writer.bytes(payload);
    writer.bytes(signature);
    writer.finish()
}

/// The inverse of [`document`]: whatever that does not make is refused. Nothing is verified yet.
pub(crate) fn parse(document: &[u8]) -> Result<(Envelope<'_>, Statement<'_>), Error> {
    let envelope = Envelope::parse(document)?;
    let statement = Statement::parse(envelope.payload)?;
    if self::document(envelope.payload, envelope.signature) != document {
        return Err(Error::NotCanonical);
    }
    Ok((envelope, statement))
}

/// Whether the payload begins as no NSM's does, for the choice between two error messages.
pub(crate) fn looks_like_one(document: &[u8]) -> bool {
    let begins = |payload: &[u8]| {
        let mut reader = Reader::new(payload);
        let mut left = reader.map().ok()?;
        reader.more(&mut left).ok()?;
        reader.text().ok().map(|key| key == "version")
    };
    Envelope::parse(document).is_ok_and(|envelope| begins(envelope.payload) == Some(true))
}

/// Whether `spki` is the DER encoding of `key`.
pub(crate) fn is_spki_of(spki: &[u8], key: &VerifyingKey) -> bool {
    key.to_public_key_der()
        .is_ok_and(|encoded| encoded.as_bytes() == spki)
}

pub(crate) fn external_aad() -> &'static [u8] {
    tags::HSM_EVIDENCE.as_bytes()
}

fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~')
}

/// A map whose keys are known, in their order.
struct Entries(crate::cbor::Left);

impl Entries {
    fn of(reader: &mut Reader<'_>) -> Result<Self, CborFault> {
        reader.map().map(Self)
    }

    fn key(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Result<(), Broken> {
        if !reader.more(&mut self.0)? {
            return Err(Error::MissingField { field: key }.into());
        }
        if reader.text()? == key {
            Ok(())
        } else {
            Err(CborFault::Key.into())
        }
    }

    fn end(mut self, reader: &mut Reader<'_>) -> Result<(), CborFault> {
        if reader.more(&mut self.0)? {
            Err(CborFault::Key)
        } else {
            Ok(())
        }
    }
}
