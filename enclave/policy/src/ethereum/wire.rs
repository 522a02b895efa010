//! RLP (Ethereum yellow paper, appendix B) with the rules that leave one encoding of each transaction.
//!
//! The headers are read by `alloy-rlp`, which refuses lengths and single bytes in other than their shortest form;
//! integers without leading zeros are ours.

use alloy_rlp::{Error, Header};

use super::U256;
use crate::Rejection;

/// The fields of a list, one after the other.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of a list that is all there is.
    pub(super) fn of(mut bytes: &'a [u8]) -> Result<Self, Rejection> {
        let rest = Header::decode_bytes(&mut bytes, true).map_err(|error| malformed("", error))?;
        if bytes.is_empty() {
            Ok(Self { rest })
        } else {
            Err(malformed_at("", "bytes follow the transaction"))
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn bytes(&mut self, field: &str) -> Result<&'a [u8], Rejection> {
        self.item(field, false)
    }

    pub(super) fn list(&mut self, field: &str) -> Result<Self, Rejection> {
        let rest = self.item(field, true)?;
        Ok(Self { rest })
    }

    pub(super) fn fixed<const N: usize>(&mut self, field: &str) -> Result<[u8; N], Rejection> {
        let bytes = self.bytes(field)?.try_into();
        bytes.map_err(|_| malformed_at(field, "is not of the length that it must have"))
    }

    /// A number below 2^256.
    pub(super) fn quantity(&mut self, field: &str) -> Result<U256, Rejection> {
        let bytes = self.bytes(field)?;
        if bytes.first() == Some(&0) {
            return Err(malformed_at(field, "has leading zeros"));
        }
        U256::from_be_slice(bytes).ok_or_else(|| malformed_at(field, "is 2^256 or more"))
    }

    /// A number below 2^64.
    pub(super) fn number(&mut self, field: &str) -> Result<u64, Rejection> {
        match self.quantity(field)?.to_be_bytes().split_last_chunk() {
            Some((high, low)) if high.iter().all(|byte| *byte == 0) => Ok(u64::from_be_bytes(*low)),
            _ => Err(malformed_at(field, "is 2^64 or more")),
        }
    }

    /// Nothing may be left of the list.
    pub(super) fn end(self, field: &str) -> Result<(), Rejection> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let detail = match field {
            "" => "has more fields than an unsigned transaction of its type: is it signed already?",
            _ => "has more fields than it must have",
        };
        Err(malformed_at(field, detail))
    }

    fn item(&mut self, field: &str, list: bool) -> Result<&'a [u8], Rejection> {
        if self.rest.is_empty() {
            return Err(malformed_at(field, "is missing"));
        }
        Header::decode_bytes(&mut self.rest, list).map_err(|error| malformed(field, error))
    }
}

/// Writes lists; each method appends one item.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        let is_its_own_encoding = matches!(bytes, [0..=0x7f]);
        if !is_its_own_encoding {
            self.header(false, bytes.len());
        }
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn number(self, number: u64) -> Self {
        self.quantity(number.into())
    }

    pub(super) fn quantity(self, number: U256) -> Self {
        let bytes = number.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        self.bytes(bytes.get(zeros..).unwrap_or_default())
    }

    pub(super) fn list(mut self, items: Self) -> Self {
        self.header(true, items.0.len());
        self.0.extend_from_slice(&items.0);
        self
    }

    pub(super) fn each<T>(self, items: &[T], each: impl Fn(Self, &T) -> Self) -> Self {
        self.list(items.iter().fold(Self::default(), each))
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn header(&mut self, list: bool, payload_length: usize) {
        let header = Header {
            list,
            payload_length,
        };
        header.encode(&mut self.0);
    }
}

pub(super) fn malformed_at(field: &str, detail: &'static str) -> Rejection {
    Rejection::malformed(name(field), detail)
}

pub(super) fn refused(field: &str, detail: &'static str) -> Rejection {
    Rejection::FieldRefused {
        field: name(field),
        detail,
    }
}

fn name(field: &str) -> String {
    match field {
        "" => "ethereum_transaction".to_owned(),
        field => format!("ethereum_transaction.{field}"),
    }
}

fn malformed(field: &str, error: Error) -> Rejection {
    let detail = match error {
        Error::InputTooShort => "ends too early",
        Error::NonCanonicalSingleByte | Error::NonCanonicalSize | Error::LeadingZero => {
            "is not in its shortest encoding"
        }
        Error::UnexpectedString => "is no list",
        Error::UnexpectedList => "is a list",
        _ => "is malformed",
    };
    malformed_at(field, detail)
}
