//! What can go wrong between the enclave and KMS, and what the operator should do.

use arca_enclave::platform::PlatformError;

use super::recipient::OpenError;

/// A request to KMS that gave nothing. No variant carries a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KmsError {
    /// The host's relay, the network behind it, or KMS itself.
    #[error(
        "KMS cannot be reached through the host: {0}; see the host's log, [kms] in host.toml and the route to KMS"
    )]
    Unreachable(String),
    /// KMS is overloaded or in trouble.
    #[error("KMS is busy or failing: {0}")]
    Busy(String),
    /// The host has no credentials to sign with.
    #[error(
        "the host gives no AWS credentials: {0}; see [kms] in host.toml and the role of the instance"
    )]
    Credentials(String),
    /// TLS did not come about.
    #[error(
        "what answers for KMS does not prove to be KMS: {0}; see kms.endpoint in host.toml, and that nothing on \
         the way ends TLS"
    )]
    Tls(String),
    /// KMS refuses.
    #[error("KMS refuses: {kind}{request_id}; {}", remedy(kind))]
    Refused {
        /// The type of AWS' error.
        kind: String,
        /// In brackets, for a search in CloudTrail.
        request_id: String,
    },
    /// The ciphertext is not of this key and encryption context.
    #[error("KMS does not open it: it was altered, or is of another key or encryption context")]
    NotAuthentic,
    /// The enclave could not make the request, or not open the answer.
    #[error("in the enclave itself: {0}")]
    Enclave(String),
    /// KMS answers with something that it should not.
    #[error("KMS' answer is refused: {0}")]
    Answer(String),
}

impl KmsError {
    /// Whether the same request may succeed in a moment.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Busy(_) | Self::Credentials(_) => true,
            Self::Tls(_)
            | Self::Refused { .. }
            | Self::NotAuthentic
            | Self::Enclave(_)
            | Self::Answer(_) => false,
        }
    }

    pub(crate) fn into_platform(self, operation: &'static str) -> PlatformError {
        let cause = self.to_string();
        match self {
            Self::NotAuthentic => PlatformError::NotAuthentic,
            _ if self.passes() => PlatformError::Unavailable { operation, cause },
            _ => PlatformError::Failed { operation, cause },
        }
    }

    /// From the type in an error's body.
    pub(crate) fn of_aws(status: u16, kind: &str, request_id: String) -> Self {
        match kind {
            "InvalidCiphertextException" | "IncorrectKeyException" => Self::NotAuthentic,
            "ThrottlingException"
            | "Throttling"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "LimitExceededException"
            | "KMSInternalException"
            | "DependencyTimeoutException"
            | "KeyUnavailableException"
            | "ServiceUnavailableException"
            | "InternalFailure" => Self::Busy(format!("{kind}{request_id}")),
            _ if status == 429 || status >= 500 => {
                Self::Busy(format!("{status} {kind}{request_id}"))
            }
            _ => Self::Refused {
                kind: kind.to_owned(),
                request_id,
            },
        }
    }
}

impl From<OpenError> for KmsError {
    fn from(error: OpenError) -> Self {
        Self::Answer(error.to_string())
    }
}

/// What an operator should look at.
fn remedy(kind: &str) -> &'static str {
    match kind {
        "AccessDeniedException" => {
            "compare the key policy's conditions with PCR0 and PCR8 of this image, and see that it allows the \
             host's role kms:GenerateDataKey and kms:Decrypt"
        }
        "NotFoundException" => {
            "check kms.key in this image's configuration: no such key in this region"
        }
        "DisabledException" | "KMSInvalidStateException" => {
            "enable the key, or cancel its deletion: without it everything sealed under it is lost"
        }
        "InvalidKeyUsageException" => "the key has to be symmetric, for encryption and decryption",
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "IncompleteSignatureException"
        | "MissingAuthenticationTokenException"
        | "ExpiredTokenException"
        | "SignatureDoesNotMatch" => "see the host's credentials ([kms] in host.toml)",
        _ => "see CloudTrail for the request",
    }
}
