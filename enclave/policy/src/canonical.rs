//! The canonical encoding that intents are hashed in.

use sha2::{Digest, Sha256};

/// Hashes a sequence of fields so that no two different sequences give the same input.
///
/// Numbers are 8 bytes big-endian, booleans and variants one byte, byte strings and texts are preceded by their length as
/// a number, lists by their count.
pub(crate) struct Encoder(Sha256);

impl Encoder {
    pub(crate) fn new(tag: &str) -> Self {
        Self(Sha256::new()).bytes(tag.as_bytes())
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    pub(crate) fn number(mut self, number: impl Into<u64>) -> Self {
        self.0.update(number.into().to_be_bytes());
        self
    }

    pub(crate) fn flag(self, flag: bool) -> Self {
        self.variant(u8::from(flag))
    }

    /// Which of several forms follows.
    pub(crate) fn variant(mut self, variant: u8) -> Self {
        self.0.update([variant]);
        self
    }

    pub(crate) fn list<T>(self, items: &[T], each: impl Fn(Self, &T) -> Self) -> Self {
        items.iter().fold(self.number(items.len() as u64), each)
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}
