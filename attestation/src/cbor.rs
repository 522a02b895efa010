//! A strict reader of the little CBOR (RFC 8949) that attestation documents use, and a writer of it.
//!
//! The reader borrows from the input, allocates nothing, and never recurses deeper than [`MAX_DEPTH`]. Arrays and maps
//! may have definite or indefinite length, since real documents come in both shapes; strings in chunks are
//! refused, as is every head that the RFC reserves.

use std::collections::BTreeSet;

use crate::error::CborFault;

/// How deep an item that nobody reads may be nested.
const MAX_DEPTH: usize = 8;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

const NULL: u64 = 22;
const BREAK: u8 = 0xff;

/// Reads items one after the other.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    input: &'a [u8],
    rest: &'a [u8],
}

/// The first bytes of an item: its major type and its argument, `None` for indefinite length.
struct Head {
    major: u8,
    argument: Option<u64>,
}

/// What is left of an array or map: see [`Reader::more`]. A count is what the input claims; nothing is set aside
/// for it.
pub(crate) enum Left {
    Known(u64),
    UntilBreak,
}

impl From<Option<u64>> for Left {
    fn from(argument: Option<u64>) -> Self {
        argument.map_or(Self::UntilBreak, Self::Known)
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { input, rest: input }
    }

    /// How many bytes have been read.
    pub(crate) fn offset(&self) -> usize {
        self.input.len().saturating_sub(self.rest.len())
    }

    /// Refuses anything after the last item.
    pub(crate) fn end(&self) -> Result<(), CborFault> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(CborFault::Trailing)
        }
    }

    /// A non-negative integer.
    pub(crate) fn unsigned(&mut self) -> Result<u64, CborFault> {
        match self.head()? {
            Head {
                major: UNSIGNED,
                argument: Some(value),
            } => Ok(value),
            _ => Err(CborFault::Type),
        }
    }

    /// An integer that fits in 64 bits with its sign.
    pub(crate) fn signed(&mut self) -> Result<i64, CborFault> {
        let head = self.head()?;
        let value = head.argument.and_then(|value| i64::try_from(value).ok());
        match (head.major, value) {
            (UNSIGNED, Some(value)) => Ok(value),
            // RFC 8949, 3.1: major type 1 encodes -1 - argument.
            (NEGATIVE, Some(value)) => Ok(!value),
            _ => Err(CborFault::Type),
        }
    }

    /// A byte string.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], CborFault> {
        let head = self.head()?;
        if head.major != BYTES {
            return Err(CborFault::Type);
        }
        self.string(head.argument)
    }

    /// A byte string, or null.
    pub(crate) fn bytes_or_null(&mut self) -> Result<Option<&'a [u8]>, CborFault> {
        match self.head()? {
            Head {
                major: SIMPLE,
                argument: Some(NULL),
            } => Ok(None),
            Head {
                major: BYTES,
                argument,
            } => self.string(argument).map(Some),
            _ => Err(CborFault::Type),
        }
    }

    /// A text string.
    pub(crate) fn text(&mut self) -> Result<&'a str, CborFault> {
        let head = self.head()?;
        if head.major != TEXT {
            return Err(CborFault::Type);
        }
        std::str::from_utf8(self.string(head.argument)?).map_err(|_| CborFault::Utf8)
    }

    /// The beginning of an array; ask [`more`](Self::more) before each element.
    pub(crate) fn array(&mut self) -> Result<Left, CborFault> {
        self.collection(ARRAY)
    }

    /// The beginning of a map; ask [`more`](Self::more) before each key.
    pub(crate) fn map(&mut self) -> Result<Left, CborFault> {
        self.collection(MAP)
    }

    /// Whether another element or entry follows. Eats the break that ends an indefinite length.
    pub(crate) fn more(&mut self, left: &mut Left) -> Result<bool, CborFault> {
        match left {
            Left::Known(0) => Ok(false),
            Left::Known(count) => {
                *count = count.saturating_sub(1);
                Ok(true)
            }
            Left::UntilBreak => match self.rest.split_first() {
                None => Err(CborFault::Truncated),
                Some((&BREAK, rest)) => {
                    self.rest = rest;
                    *left = Left::Known(0);
                    Ok(false)
                }
                Some(_) => Ok(true),
            },
        }
    }

    /// Eats this tag if it comes next.
    pub(crate) fn skip_tag(&mut self, tag: u64) -> Result<bool, CborFault> {
        let mut ahead = self.clone();
        let head = ahead.head()?;
        let found = head.major == TAG && head.argument == Some(tag);
        if found {
            *self = ahead;
        }
        Ok(found)
    }

    /// Reads over one item of any type, refusing what is not well-formed.
    pub(crate) fn skip(&mut self) -> Result<(), CborFault> {
        self.skip_nested(MAX_DEPTH)
    }

    fn skip_nested(&mut self, depth: usize) -> Result<(), CborFault> {
        let depth = depth.checked_sub(1).ok_or(CborFault::TooDeep)?;
        let head = self.head()?;
        match head.major {
            UNSIGNED | NEGATIVE | SIMPLE => Ok(()),
            BYTES => self.string(head.argument).map(|_| ()),
            TEXT => {
                let text = self.string(head.argument)?;
                std::str::from_utf8(text)
                    .map(|_| ())
                    .map_err(|_| CborFault::Utf8)
            }
            ARRAY => {
                let mut left = Left::from(head.argument);
                while self.more(&mut left)? {
                    self.skip_nested(depth)?;
                }
                Ok(())
            }
            MAP => {
                let mut keys = BTreeSet::new();
                let mut left = Left::from(head.argument);
                while self.more(&mut left)? {
                    let before = self.rest;
                    self.skip_nested(depth)?;
                    let length = before.len().saturating_sub(self.rest.len());
                    if !keys.insert(before.get(..length)) {
                        return Err(CborFault::DuplicateKey);
                    }
                    self.skip_nested(depth)?;
                }
                Ok(())
            }
            _ => self.skip_nested(depth),
        }
    }

    fn collection(&mut self, major: u8) -> Result<Left, CborFault> {
        let head = self.head()?;
        if head.major != major {
            return Err(CborFault::Type);
        }
        Ok(Left::from(head.argument))
    }

    fn string(&mut self, length: Option<u64>) -> Result<&'a [u8], CborFault> {
        let length = length.ok_or(CborFault::Chunked)?;
        let length = usize::try_from(length).map_err(|_| CborFault::Truncated)?;
        self.take(length)
    }

    fn head(&mut self) -> Result<Head, CborFault> {
        let &[initial] = self.take_array()?;
        let major = initial >> 5;
        let argument = match initial & 0x1f {
            // A break stands only where `more` looks for it; it and the other simple values that take a byte
            // have no place in these documents.
            31 if matches!(major, BYTES..=MAP) => None,
            24 if major == SIMPLE => return Err(CborFault::Head),
            low @ 0..=23 => Some(u64::from(low)),
            24 => Some(u64::from(u8::from_be_bytes(*self.take_array()?))),
            25 => Some(u64::from(u16::from_be_bytes(*self.take_array()?))),
            26 => Some(u64::from(u32::from_be_bytes(*self.take_array()?))),
            27 => Some(u64::from_be_bytes(*self.take_array()?)),
            _ => return Err(CborFault::Head),
        };
        Ok(Head { major, argument })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], CborFault> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(CborFault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<&'a [u8; N], CborFault> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(CborFault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// Writes items one after the other: definite lengths and the shortest heads, as deterministic CBOR has them.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn unsigned(&mut self, value: u64) {
        self.head(UNSIGNED, value);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.head(BYTES, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.head(TEXT, text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// The beginning of an array; as many elements have to follow.
    pub(crate) fn array(&mut self, elements: usize) {
        self.head(ARRAY, elements as u64);
    }

    /// The beginning of a map; as many keys, each with its value, have to follow.
    pub(crate) fn map(&mut self, entries: usize) {
        self.head(MAP, entries as u64);
    }

    fn head(&mut self, major: u8, argument: u64) {
        let major = major << 5;
        let argument = argument.to_be_bytes();
        match argument {
            [0, 0, 0, 0, 0, 0, 0, low @ 0..=23] => self.0.push(major | low),
            [0, 0, 0, 0, 0, 0, 0, low] => self.0.extend_from_slice(&[major | 24, low]),
            [0, 0, 0, 0, 0, 0, a, b] => self.0.extend_from_slice(&[major | 25, a, b]),
            [0, 0, 0, 0, a, b, c, d] => self.0.extend_from_slice(&[major | 26, a, b, c, d]),
            _ => {
                self.0.push(major | 27);
                self.0.extend_from_slice(&argument);
            }
        }
    }
}
