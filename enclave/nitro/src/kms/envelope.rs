//! Reads what KMS returns as `CiphertextForRecipient`: CMS EnvelopedData (RFC 5652, section 6).
//!
//! KMS writes BER. The outer structures have indefinite length, the inner ones definite length, and the content
//! may come in chunks; so both are read here, for this one structure and nothing else:
//!
//! ```text
//! ContentInfo { envelopedData, [0] EnvelopedData {
//!   version 2,
//!   { KeyTransRecipientInfo { version 2, [0] subjectKeyIdentifier, rsaesOaep(SHA-256, MGF1 of SHA-256), key } },
//!   { data, aes256-CBC(iv), [0] content }
//! } }
//! ```
//!
//! Whatever else the syntax allows is refused: more recipients, other identifiers, other algorithms, attributes.
//! Uses nothing but the standard library.

/// Longest envelope: the content is a key, and a key of 4096 bits transports it.
pub const MAX_ENVELOPE: usize = 4096;
/// An AES block.
const BLOCK: usize = 16;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const NULL: u8 = 0x05;
const OID: u8 = 0x06;
/// `[0]`, of a primitive and of a constructed value.
const TAGGED_0: u8 = 0x80;
const CONSTRUCTED_0: u8 = 0xa0;
const CONSTRUCTED_1: u8 = 0xa1;
/// This bit of a tag says that the contents are values again.
const CONSTRUCTED: u8 = 0x20;
const INDEFINITE: u8 = 0x80;
const END_OF_CONTENTS: [u8; 2] = [0, 0];

/// 1.2.840.113549.1.7.3
const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
/// 1.2.840.113549.1.7.1
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// 1.2.840.113549.1.1.7
const RSAES_OAEP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07];
/// 1.2.840.113549.1.1.8
const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
/// 2.16.840.1.101.3.4.2.1
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// 2.16.840.1.101.3.4.1.42
const AES256_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];

/// An envelope that was read, and not opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Names the recipient's key; KMS gives 32 bytes whose origin it does not document, so nobody compares them.
    pub key_identifier: &'a [u8],
    /// The content key, under the recipient's RSA key.
    pub encrypted_key: &'a [u8],
    /// Of AES-256-CBC.
    pub iv: [u8; BLOCK],
    /// The content under the content key, with its padding.
    pub content: Vec<u8>,
}

/// What is wrong with an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Longer than [`MAX_ENVELOPE`].
    TooLong,
    /// A value ends before its length says, or has bytes left over.
    Length,
    /// A length or a number is not in its shortest form.
    NotShortest,
    /// Another type than this place has.
    Type,
    /// Another version, content type or algorithm.
    Unexpected,
    /// A key identifier, key, IV or content of a length that cannot be.
    Size,
}

/// Reads one envelope and nothing after it.
///
/// # Errors
/// The first [`Fault`] there is.
pub fn read(bytes: &[u8]) -> Result<Envelope<'_>, Fault> {
    if bytes.len() > MAX_ENVELOPE {
        return Err(Fault::TooLong);
    }
    let mut reader = Reader(bytes);
    let envelope = reader.constructed(SEQUENCE, |content_info| {
        content_info.exactly(OID, ENVELOPED_DATA)?;
        content_info.constructed(CONSTRUCTED_0, |tagged| {
            tagged.constructed(SEQUENCE, enveloped_data)
        })
    })?;
    reader.end()?;
    Ok(envelope)
}

fn enveloped_data<'a>(reader: &mut Reader<'a>) -> Result<Envelope<'a>, Fault> {
    reader.exactly(INTEGER, &[2])?;
    let (key_identifier, encrypted_key) = reader.constructed(SET, |recipients| {
        recipients.constructed(SEQUENCE, |recipient| {
            recipient.exactly(INTEGER, &[2])?;
            let key_identifier = recipient.primitive(TAGGED_0)?;
            recipient.constructed(SEQUENCE, oaep)?;
            Ok((key_identifier, recipient.primitive(OCTET_STRING)?))
        })
    })?;
    let (iv, content) = reader.constructed(SEQUENCE, |encrypted| {
        encrypted.exactly(OID, DATA)?;
        let iv = encrypted.constructed(SEQUENCE, |algorithm| {
            algorithm.exactly(OID, AES256_CBC)?;
            algorithm.primitive(OCTET_STRING)
        })?;
        Ok((iv, encrypted_content(encrypted)?))
    })?;
    if key_identifier.is_empty() || encrypted_key.is_empty() {
        return Err(Fault::Size);
    }
    if content.is_empty() || content.len() % BLOCK != 0 {
        return Err(Fault::Size);
    }
    Ok(Envelope {
        key_identifier,
        encrypted_key,
        iv: iv.try_into().map_err(|_| Fault::Size)?,
        content,
    })
}

/// RSAES-OAEP with SHA-256 for both, and no label (RFC 4055, section 4.1).
fn oaep(reader: &mut Reader<'_>) -> Result<(), Fault> {
    reader.exactly(OID, RSAES_OAEP)?;
    reader.constructed(SEQUENCE, |parameters| {
        parameters.constructed(CONSTRUCTED_0, sha256)?;
        parameters.constructed(CONSTRUCTED_1, |mask| {
            mask.constructed(SEQUENCE, |mask| {
                mask.exactly(OID, MGF1)?;
                sha256(mask)
            })
        })
    })
}

/// The parameters of a hash are NULL or absent, both mean the same (RFC 4055, section 2.1).
fn sha256(reader: &mut Reader<'_>) -> Result<(), Fault> {
    reader.constructed(SEQUENCE, |algorithm| {
        algorithm.exactly(OID, SHA256)?;
        match algorithm.next() {
            Some(NULL) => algorithm.exactly(NULL, &[]),
            _ => Ok(()),
        }
    })
}

/// `[0] IMPLICIT OCTET STRING`: whole, or in chunks.
fn encrypted_content(reader: &mut Reader<'_>) -> Result<Vec<u8>, Fault> {
    if reader.next() == Some(TAGGED_0) {
        return reader.primitive(TAGGED_0).map(<[u8]>::to_vec);
    }
    reader.constructed(CONSTRUCTED_0, |chunks| {
        let mut content = Vec::new();
        while chunks.next() == Some(OCTET_STRING) {
            content.extend_from_slice(chunks.primitive(OCTET_STRING)?);
        }
        Ok(content)
    })
}

/// What is left to be read of some value's contents.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn end(&self) -> Result<(), Fault> {
        match self.0 {
            [] => Ok(()),
            _ => Err(Fault::Length),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Fault::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        let (byte, rest) = self.0.split_first().ok_or(Fault::Length)?;
        self.0 = rest;
        Ok(*byte)
    }

    fn tag(&mut self, expected: u8) -> Result<(), Fault> {
        if self.byte()? == expected {
            Ok(())
        } else {
            Err(Fault::Type)
        }
    }

    /// A definite length in its shortest form, of which `first` has been read.
    fn length(&mut self, first: u8) -> Result<usize, Fault> {
        match first {
            0..=0x7f => Ok(usize::from(first)),
            0x81 => match self.byte()? {
                0..=0x7f => Err(Fault::NotShortest),
                length => Ok(usize::from(length)),
            },
            0x82 => match u16::from_be_bytes([self.byte()?, self.byte()?]) {
                0..=0xff => Err(Fault::NotShortest),
                length => Ok(usize::from(length)),
            },
            // Indefinite where it may not be, reserved, or more than fits.
            _ => Err(Fault::Length),
        }
    }

    /// The contents of a primitive value.
    fn primitive(&mut self, tag: u8) -> Result<&'a [u8], Fault> {
        debug_assert_eq!(tag & CONSTRUCTED, 0, "a tag of a primitive value");
        self.tag(tag)?;
        let first = self.byte()?;
        let length = self.length(first)?;
        self.take(length)
    }

    /// A primitive value that is known beforehand.
    fn exactly(&mut self, tag: u8, contents: &[u8]) -> Result<(), Fault> {
        if self.primitive(tag)? == contents {
            Ok(())
        } else {
            Err(Fault::Unexpected)
        }
    }

    /// What `read` makes of the contents of a constructed value, all of which it has to read.
    fn constructed<T>(
        &mut self,
        tag: u8,
        read: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        debug_assert_ne!(tag & CONSTRUCTED, 0, "a tag of a constructed value");
        self.tag(tag)?;
        match self.byte()? {
            INDEFINITE => {
                let value = read(self)?;
                match self.take(END_OF_CONTENTS.len())? {
                    end if end == END_OF_CONTENTS => Ok(value),
                    _ => Err(Fault::Length),
                }
            }
            first => {
                let length = self.length(first)?;
                let mut contents = Self(self.take(length)?);
                let value = read(&mut contents)?;
                contents.end()?;
                Ok(value)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As KMS wrote it; the source stands beside it.
    const REAL: &[u8] =
        include_bytes!("../../../../tests/vectors/kms/ciphertext_for_recipient_2025.ber");

    #[test]
    fn a_real_reply_is_read() {
        let envelope = read(REAL).unwrap();
        assert_eq!(envelope.key_identifier.len(), 32);
        assert_eq!(envelope.key_identifier[..4], [0x71, 0x0d, 0x33, 0x5f]);
        assert_eq!(envelope.encrypted_key.len(), 256);
        assert_eq!(envelope.encrypted_key[..4], [0x29, 0xcf, 0xfe, 0xb1]);
        assert_eq!(envelope.iv[..4], [0x37, 0x34, 0x3d, 0xf1]);
        assert_eq!(envelope.content.len(), 16);
        assert_eq!(envelope.content[..4], [0xcc, 0x74, 0xad, 0xf6]);
    }

    #[test]
    fn a_reply_that_is_cut_or_longer_is_refused() {
        for length in 0..REAL.len() {
            assert!(read(&REAL[..length]).is_err(), "{length}");
        }
        assert_eq!(read(&[REAL, &[0]].concat()), Err(Fault::Length));
        assert_eq!(read(&vec![0x30; MAX_ENVELOPE + 1]), Err(Fault::TooLong));
    }

    /// A changed byte is refused, unless it is one of those that the encodings leave open.
    #[test]
    fn every_byte_of_the_structure_is_checked() {
        let honest = read(REAL).unwrap();
        let open: Vec<std::ops::Range<usize>> = [
            honest.key_identifier,
            honest.encrypted_key,
            &honest.iv,
            &honest.content,
        ]
        .iter()
        .map(|field| {
            let start = REAL
                .windows(field.len())
                .position(|window| window == *field)
                .unwrap();
            start..start + field.len()
        })
        .collect();
        let mut refused = 0;
        for at in 0..REAL.len() {
            for bit in 0..8 {
                let mut changed = REAL.to_vec();
                changed[at] ^= 1 << bit;
                match read(&changed) {
                    Ok(envelope) => {
                        assert!(open.iter().any(|range| range.contains(&at)), "{at} {bit}");
                        assert_ne!(envelope, honest);
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        let field_bytes: usize = open.iter().map(ExactSizeIterator::len).sum();
        assert_eq!(refused, (REAL.len() - field_bytes) * 8);
    }
}
