//! Who takes part, and in which session.

use std::fmt;
use std::num::NonZeroU16;

/// Most participants of one key. Tests cover every number up to it.
pub const MAX_PARTICIPANTS: usize = 16;

/// A share index: the point at which this participant's polynomial share is evaluated. Never zero,
/// because the value at zero is the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Participant(NonZeroU16);

impl Participant {
    /// `None` for zero.
    pub fn new(index: u16) -> Option<Self> {
        NonZeroU16::new(index).map(Self)
    }

    /// The index, 1 or more.
    pub fn get(self) -> u16 {
        self.0.get()
    }

    pub(crate) fn to_bytes(self) -> [u8; 2] {
        self.get().to_be_bytes()
    }
}

impl fmt::Debug for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Participant({})", self.0)
    }
}

impl fmt::Display for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies one run of one protocol among its participants.
///
/// # Security
///
/// Never use one twice: take 32 fresh random bytes. Every message is bound to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; 32]);

impl SessionId {
    /// Wraps the caller's 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(")?;
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}
