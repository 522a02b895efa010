//! COSE_Sign1 (RFC 9052, section 4.2) as evidence uses it: ES384 and nothing else. Steps 1 and 2 of the verifier.

use p384::ecdsa::signature::Verifier as _;
use p384::ecdsa::{Signature, VerifyingKey};

use crate::cbor::{Reader, Writer};
use crate::error::{CborFault, Error};

/// The longest document that is read. Real ones of an NSM have some 5 KiB.
pub(crate) const MAX_DOCUMENT: usize = 16 * 1024;

/// `{1: -35}` in its shortest encoding.
pub(crate) const ES384_HEADER: &[u8] = &[0xa1, 0x01, 0x38, 0x22];

/// r and s of ES384, 48 bytes each.
const SIGNATURE: usize = 96;
const TAG_COSE_SIGN1: u64 = 18;
const HEADER_ALGORITHM: i64 = 1;
const ES384: i64 = -35;

/// A document's envelope, which borrows from its bytes. Its header says ES384; nothing is verified yet.
pub(crate) struct Envelope<'a> {
    /// The protected header's bytes, as signed.
    protected: &'a [u8],
    /// The payload's bytes, as signed.
    pub(crate) payload: &'a [u8],
    /// r and s.
    pub(crate) signature: &'a [u8; SIGNATURE],
}

impl<'a> Envelope<'a> {
    pub(crate) fn parse(document: &'a [u8]) -> Result<Self, Error> {
        if document.len() > MAX_DOCUMENT {
            return Err(Error::DocumentTooLarge {
                size: document.len(),
                max: MAX_DOCUMENT,
            });
        }
        let mut reader = Reader::new(document);
        let [protected, payload, signature] = read(&mut reader).map_err(|error| match error {
            Broken::Refused(error) => error,
            Broken::Cbor(CborFault::Type) => Error::NotCoseSign1,
            Broken::Cbor(fault) => Error::Cbor {
                part: "envelope",
                offset: reader.offset(),
                fault,
            },
        })?;
        check_protected_header(protected)?;
        Ok(Self {
            protected,
            payload,
            signature: signature.try_into().map_err(|_| Error::SignatureLength {
                size: signature.len(),
            })?,
        })
    }

    /// Whether `key` signed this payload together with `external_aad`.
    pub(crate) fn verify(&self, key: &VerifyingKey, external_aad: &[u8]) -> Result<(), Error> {
        let signature = Signature::from_slice(self.signature).map_err(|_| Error::Signature)?;
        let signed = signed_bytes(self.protected, external_aad, self.payload);
        key.verify(&signed, &signature)
            .map_err(|_| Error::Signature)
    }
}

/// The three elements that matter: protected header, payload, signature.
fn read<'a>(reader: &mut Reader<'a>) -> Result<[&'a [u8]; 3], Broken> {
    reader.skip_tag(TAG_COSE_SIGN1)?;
    let mut left = reader.array()?;
    let mut element = |reader: &mut Reader<'a>| match reader.more(&mut left)? {
        true => Ok(()),
        false => Err(Broken::Refused(Error::NotCoseSign1)),
    };
    element(reader)?;
    let protected = reader.bytes()?;
    element(reader)?;
    let mut unprotected = reader.map()?;
    if reader.more(&mut unprotected)? {
        return Err(Error::UnprotectedHeader.into());
    }
    element(reader)?;
    let payload = reader.bytes()?;
    element(reader)?;
    let signature = reader.bytes()?;
    if reader.more(&mut left)? {
        return Err(Error::NotCoseSign1.into());
    }
    reader.end()?;
    Ok([protected, payload, signature])
}

/// `Sig_structure` of RFC 9052, section 4.4: `["Signature1", protected, external_aad, payload]`, over the bytes as
/// they came.
pub(crate) fn signed_bytes(protected: &[u8], external_aad: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.array(4);
    writer.text("Signature1");
    writer.bytes(protected);
    writer.bytes(external_aad);
    writer.bytes(payload);
    writer.finish()
}

/// Why reading stopped: the encoding, or what it says.
pub(crate) enum Broken {
    Cbor(CborFault),
    Refused(Error),
}

impl From<CborFault> for Broken {
    fn from(fault: CborFault) -> Self {
        Self::Cbor(fault)
    }
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Exactly `{1: -35}`. The algorithm is the verifier's choice; the header must agree with it.
fn check_protected_header(header: &[u8]) -> Result<(), Error> {
    let read = || {
        let mut reader = Reader::new(header);
        let mut left = reader.map()?;
        let one = reader.more(&mut left)?
            && reader.signed()? == HEADER_ALGORITHM
            && reader.signed()? == ES384
            && !reader.more(&mut left)?;
        reader.end()?;
        Ok::<bool, CborFault>(one)
    };
    if read() == Ok(true) {
        Ok(())
    } else {
        Err(Error::ProtectedHeader)
    }
}
