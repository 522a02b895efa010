//! What can go wrong in the service, by whose doing, and how a caller is told.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{platform::PlatformError, sealing::SealError};

/// The domain of every `google.rpc.ErrorInfo` this service sends.
pub const ERROR_DOMAIN: &str = "arca";

/// An error of the service. No variant carries a secret or a peer's payload.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A peer misbehaved; the session ended without a result.
    #[error("{message}")]
    Abort {
        /// Stable, in UPPER_SNAKE_CASE.
        reason: String,
        /// For people.
        message: String,
        /// Names of the parties that misbehaved, where the protocol can tell.
        culprits: Vec<String>,
    },
    /// The request is refused as it stands.
    #[error("{message}")]
    Reject {
        /// Which gRPC code says it best.
        code: Code,
        /// Stable, in UPPER_SNAKE_CASE.
        reason: String,
        /// For people: what, which object, what to do.
        message: String,
    },
    /// Peers that are needed do not answer; the same request may succeed later.
    #[error("{message}")]
    Unavailable {
        /// Stable, in UPPER_SNAKE_CASE.
        reason: &'static str,
        /// For people.
        message: String,
        /// The parties that are missing.
        parties: Vec<String>,
    },
    /// The platform or the host failed.
    #[error("{message}")]
    Fault {
        /// Stable, in UPPER_SNAKE_CASE.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// A state that this code should not reach.
    #[error("internal error: {0}")]
    Bug(&'static str),
}

impl Error {
    /// A refusal for a malformed argument.
    pub fn invalid(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::reject(Code::InvalidArgument, reason, message)
    }

    /// A refusal because an object does not exist.
    pub fn not_found(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::reject(Code::NotFound, reason, message)
    }

    /// A refusal with a code of its own.
    pub fn reject(code: Code, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Reject {
            code,
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// The stable reason.
    pub fn reason(&self) -> &str {
        match self {
            Self::Abort { reason, .. } | Self::Reject { reason, .. } => reason,
            Self::Unavailable { reason, .. } | Self::Fault { reason, .. } => reason,
            Self::Bug(_) => "BUG",
        }
    }

    /// The parties that misbehaved.
    pub fn culprits(&self) -> &[String] {
        match self {
            Self::Abort { culprits, .. } => culprits,
            Self::Reject { .. } | Self::Unavailable { .. } | Self::Fault { .. } | Self::Bug(_) => {
                &[]
            }
        }
    }

    /// The gRPC code that a caller sees.
    pub fn code(&self) -> Code {
        match self {
            Self::Abort { .. } => Code::Aborted,
            Self::Reject { code, .. } => *code,
            Self::Unavailable { .. } => Code::Unavailable,
            Self::Fault {
                reason: "STORAGE_FULL",
                ..
            } => Code::ResourceExhausted,
            Self::Fault {
                reason: "STORAGE_UNAVAILABLE" | "PLATFORM_UNAVAILABLE",
                ..
            } => Code::Unavailable,
            Self::Fault { .. } | Self::Bug(_) => Code::Internal,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut metadata = HashMap::new();
        match &error {
            Error::Abort { culprits, .. } if !culprits.is_empty() => {
                metadata.insert("culprits".to_owned(), culprits.join(","));
            }
            Error::Unavailable { parties, .. } if !parties.is_empty() => {
                metadata.insert("parties".to_owned(), parties.join(","));
            }
            _ => {}
        }
        let details = ErrorDetails::with_error_info(error.reason(), ERROR_DOMAIN, metadata);
        Self::with_error_details(error.code(), error.to_string(), details)
    }
}

impl From<PlatformError> for Error {
    fn from(error: PlatformError) -> Self {
        let reason = match &error {
            PlatformError::Unavailable { .. } => "PLATFORM_UNAVAILABLE",
            PlatformError::Failed { .. } | PlatformError::NotAuthentic => "PLATFORM_FAILED",
        };
        Self::Fault {
            reason,
            message: error.to_string(),
        }
    }
}

impl From<arca_channel::Error> for Error {
    fn from(error: arca_channel::Error) -> Self {
        Self::Fault {
            reason: "CHANNEL_FAILED",
            message: error.to_string(),
        }
    }
}

impl From<SealError> for Error {
    fn from(error: SealError) -> Self {
        let message = format!("{error}; restore the host's storage from its newest copy");
        let reason = match error {
            SealError::Malformed { .. } => "SEALED_BLOB_MALFORMED",
            SealError::Misplaced { .. } => "SEALED_BLOB_MISPLACED",
            SealError::NotAuthentic { .. } => "SEALED_BLOB_NOT_AUTHENTIC",
            // Nothing is wrong with the blob.
            SealError::Platform(error) => return error.into(),
        };
        Self::Fault { reason, message }
    }
}
