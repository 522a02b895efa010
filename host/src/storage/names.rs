//! Names of blobs, as `arca/v1/host.proto` has them.

/// Longest name, in bytes.
const MAX_NAME: usize = 256;

/// A whole name: 1 to 256 bytes of `[a-z0-9/._-]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlobName(String);

/// The beginning of a name, or a name to go on from: 0 to 256 bytes of the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameFragment(String);

/// Why a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("is empty")]
    Empty,
    #[error("is {0} bytes long, the most is {MAX_NAME}")]
    Long(usize),
    #[error("has the byte 0x{byte:02x} at offset {at}; only a-z, 0-9 and / . _ - may stand in it")]
    Byte { byte: u8, at: usize },
}

impl BlobName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl NameFragment {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for BlobName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        NameFragment::try_from(name).map(|NameFragment(name)| Self(name))
    }
}

impl TryFrom<String> for NameFragment {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        if name.len() > MAX_NAME {
            return Err(NameError::Long(name.len()));
        }
        let allowed =
            |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-');
        match name.bytes().enumerate().find(|(_, byte)| !allowed(*byte)) {
            Some((at, byte)) => Err(NameError::Byte { byte, at }),
            None => Ok(Self(name)),
        }
    }
}
