//! What can go wrong between this program and its token.

use std::{io, path::Path, time::Duration};

use arca_enclave::platform::PlatformError;

/// Why the token could not do what was asked, or why the platform does not start.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HsmError {
    /// The shared library cannot be loaded or initialised.
    #[error(
        "module {path}: {cause}; check `module` in the configuration and what the vendor's library needs"
    )]
    Module {
        /// Which library.
        path: String,
        /// What the loader or the module said.
        cause: String,
    },
    /// A process has one module, once.
    #[error(
        "this process has loaded a PKCS#11 module already; a second one needs a process of its own"
    )]
    AlreadyLoaded,
    /// No slot holds the token.
    #[error(
        "no token with {wanted} is present ({found}); is it plugged in, reachable and initialised?"
    )]
    NoToken {
        /// What was looked for.
        wanted: String,
        /// What is there instead.
        found: String,
    },
    /// The choice is not unique.
    #[error("{count} tokens have {wanted}; name one by `token = {{ serial = \"…\" }}`: {found}")]
    ManyTokens {
        /// What was looked for.
        wanted: String,
        /// How many have it.
        count: usize,
        /// Which ones.
        found: String,
    },
    /// The token does not accept the PIN, or trying would be dangerous. Nothing tries again in this process.
    #[error("{token}: {cause}. Nothing tries again until this program is restarted: {remedy}")]
    Pin {
        /// Which token.
        token: String,
        /// What it said of the PIN.
        cause: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The PIN cannot be read.
    #[error("{source_name}: {what}")]
    PinSource {
        /// File or descriptor.
        source_name: String,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// An object that the platform needs is not in the token.
    #[error("token {token} has no {class} labelled `{label}`{id}; {remedy}")]
    MissingObject {
        /// Which token.
        token: String,
        /// Which class of object.
        class: &'static str,
        /// Its label.
        label: String,
        /// Its CKA_ID, once it is known: ` with CKA_ID …`.
        id: String,
        /// What to do.
        remedy: &'static str,
    },
    /// More than one object answers to the description.
    #[error(
        "token {token} has {count} objects of class {class} labelled `{label}`; move or rename all but the one this party was enrolled with"
    )]
    ManyObjects {
        /// Which token.
        token: String,
        /// Which class of object.
        class: &'static str,
        /// Their label.
        label: String,
        /// How many.
        count: usize,
    },
    /// `init` never replaces a key.
    #[error(
        "token {token} already has an object labelled `{label}`; a key is never replaced: take another `key_label`, or another token"
    )]
    ObjectExists {
        /// Which token.
        token: String,
        /// Its label.
        label: String,
    },
    /// A key is not protected as it has to be.
    #[error(
        "key `{label}` is refused: {attribute} is {is}, and must be {must}; keys are made in the token by `init`, never imported"
    )]
    Attribute {
        /// Which key.
        label: String,
        /// The attribute's PKCS#11 name.
        attribute: &'static str,
        /// What it is.
        is: String,
        /// What it must be.
        must: &'static str,
    },
    /// The token computes something other than it should.
    #[error("key `{label}`: {what}")]
    WrongResult {
        /// Which key.
        label: String,
        /// What was wrong.
        what: &'static str,
    },
    /// A certificate file cannot be used.
    #[error("certificates: {0}")]
    Certificates(String),
    /// The module took too long.
    #[error("{operation}: the module did not answer within {} s", after.as_secs_f32())]
    Timeout {
        /// What it was asked for.
        operation: &'static str,
        /// For how long it was waited.
        after: Duration,
    },
    /// More calls wait for the module than are worth waiting for.
    #[error("{operation}: too many calls wait for the module already; it is too slow, or hangs")]
    Busy {
        /// What it was to be asked for.
        operation: &'static str,
    },
    /// A call failed.
    #[error("{operation}: {cause}")]
    Call {
        /// What the module was asked for.
        operation: &'static str,
        /// What it answered.
        cause: String,
    },
    /// The token was lost, and is not back.
    #[error("the token is lost ({cause}); it is looked for again in {} ms", again_in.as_millis())]
    Lost {
        /// What failed when it was last looked for.
        cause: String,
        /// When it is looked for again.
        again_in: Duration,
    },
    /// A wrapped key does not authenticate.
    #[error("a wrapped key does not authenticate under this token's key-encryption key")]
    NotAuthentic,
    /// A file or socket.
    #[error("{path}: {cause}")]
    File {
        /// Which one.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// Evidence cannot be written.
    #[error("evidence: {0}")]
    Evidence(#[from] arca_attestation::Error),
    /// Not reachable as far as we know.
    #[error("bug: {0}")]
    Bug(&'static str),
}

impl HsmError {
    pub(crate) fn file(path: &Path, cause: &io::Error) -> Self {
        Self::File {
            path: path.display().to_string(),
            cause: cause.to_string(),
        }
    }

    /// Whether it is about the PIN, so that a supervisor should not start this program again by itself.
    pub fn is_about_pin(&self) -> bool {
        matches!(self, Self::Pin { .. })
    }

    /// As the enclave knows it.
    pub(crate) fn into_platform(self, operation: &'static str) -> PlatformError {
        match self {
            Self::NotAuthentic => PlatformError::NotAuthentic,
            other => PlatformError::Failed {
                operation,
                cause: other.to_string(),
            },
        }
    }
}
