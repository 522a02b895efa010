//! What can go wrong, to which object, and what to do about it.

use std::time::Duration;

use tonic_types::StatusExt;

/// Errors of this crate.
///
/// The message says what happened and to which object; [`advice`](Self::advice) says what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or setting on this machine cannot be used.
    #[error("{subject}: {problem}")]
    Config {
        /// The file or setting.
        subject: String,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        advice: String,
    },
    /// What the caller gave cannot be understood: a PSBT, a message, an address, a document.
    #[error("{subject}: {problem}")]
    Input {
        /// What was given.
        subject: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No connection to a party.
    #[error("party {party} at {endpoint} cannot be reached: {problem}")]
    Unreachable {
        /// The party's name.
        party: String,
        /// Where it was tried, host and port.
        endpoint: String,
        /// What the attempt ended with.
        problem: String,
    },
    /// No connection to any of the parties.
    #[error("no party of the cluster can be used: {}", list(attempts))]
    NoParty {
        /// What happened at each party.
        attempts: Vec<Error>,
    },
    /// A party answered, and did not prove what the profile and the manifest demand.
    #[error("party {party} at {endpoint} is not trusted: {problem}")]
    Untrusted {
        /// The party's name.
        party: String,
        /// Where it was tried, host and port.
        endpoint: String,
        /// Stable, in UPPER_SNAKE_CASE.
        reason: String,
        /// Which check failed.
        problem: String,
    },
    /// A document does not verify: evidence, manifest, signature or transaction.
    #[error("{object} does not verify: {problem}")]
    Unverified {
        /// The document.
        object: String,
        /// Which check failed.
        problem: String,
    },
    /// A party refused the connection or the request.
    #[error("{object}: {message} ({reason})")]
    Reject {
        /// What was asked for.
        object: String,
        /// The gRPC status code.
        code: tonic::Code,
        /// Stable, in UPPER_SNAKE_CASE.
        reason: String,
        /// The party's words.
        message: String,
    },
    /// Not asked for: every party decodes the payload with the same code as this program, and refuses it.
    #[error("{object}: {message} ({reason})")]
    Declined {
        /// What was to be signed, and with which key.
        object: String,
        /// Stable, in UPPER_SNAKE_CASE; as a party's would be.
        reason: &'static str,
        /// What is wrong.
        message: String,
    },
    /// An Ethereum node did not answer, or not as hoped for.
    #[error("Ethereum node {url}: {problem}")]
    Node {
        /// Where it was asked.
        url: String,
        /// What happened.
        problem: String,
        /// Whether the node itself said so.
        answered: bool,
    },
    /// A session or operation ended without its result.
    #[error("{object}: {message} ({reason}){}", name_culprits(culprits))]
    Abort {
        /// The operation or signing request.
        object: String,
        /// Stable, in UPPER_SNAKE_CASE.
        reason: String,
        /// The party's words.
        message: String,
        /// The parties that misbehaved, where the protocol can name them.
        culprits: Vec<String>,
    },
    /// The time given was over first. The work may still end at the parties.
    #[error("{object}: not finished after {:.1} s", waited.as_secs_f64())]
    Timeout {
        /// What was waited for.
        object: String,
        /// How long.
        waited: Duration,
    },
    /// A process of the local cluster failed.
    #[error("{program}: {problem}")]
    Process {
        /// Which process.
        program: String,
        /// What happened to it.
        problem: String,
        /// The last lines that it logged.
        log_tail: String,
        /// What to do.
        advice: String,
    },
    /// A party answered with something that the interface does not allow, or this program is wrong.
    #[error("bug: {0}")]
    Bug(String),
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn config(
        subject: impl ToString,
        problem: impl ToString,
        advice: impl ToString,
    ) -> Self {
        Self::Config {
            subject: subject.to_string(),
            problem: problem.to_string(),
            advice: advice.to_string(),
        }
    }

    pub(crate) fn input(subject: impl ToString, problem: impl ToString) -> Self {
        Self::Input {
            subject: subject.to_string(),
            problem: problem.to_string(),
        }
    }

    pub(crate) fn unverified(object: impl ToString, problem: impl ToString) -> Self {
        Self::Unverified {
            object: object.to_string(),
            problem: problem.to_string(),
        }
    }

    pub(crate) fn declined(object: impl ToString, rejection: &arca_policy::Rejection) -> Self {
        Self::Declined {
            object: object.to_string(),
            reason: rejection.reason(),
            message: rejection.to_string(),
        }
    }

    pub(crate) fn bug(what: impl ToString) -> Self {
        Self::Bug(what.to_string())
    }

    /// Reads a party's answer about `object`.
    pub(crate) fn from_status(object: impl ToString, status: &tonic::Status) -> Self {
        let reason = match status.get_details_error_info() {
            Some(info) if info.domain == DOMAIN => info.reason,
            _ => code_name(status.code()).to_owned(),
        };
        let object = object.to_string();
        // A party that names the object itself need not be told twice.
        let message = status.message();
        let message = message
            .strip_prefix(&format!("{object}: "))
            .unwrap_or(message)
            .to_owned();
        match status.code() {
            tonic::Code::Aborted => Self::Abort {
                object,
                reason,
                message,
                culprits: Vec::new(),
            },
            code => Self::Reject {
                object,
                code,
                reason,
                message,
            },
        }
    }

    /// Stable, in UPPER_SNAKE_CASE; the party's own where the error came from one.
    pub fn reason(&self) -> &str {
        match self {
            Self::Config { .. } => "CONFIG_INVALID",
            Self::Input { .. } => "INPUT_INVALID",
            Self::Unreachable { .. } => "PARTY_UNREACHABLE",
            Self::NoParty { .. } => "NO_PARTY_USABLE",
            Self::Untrusted { reason, .. }
            | Self::Reject { reason, .. }
            | Self::Abort { reason, .. } => reason,
            Self::Unverified { .. } => "NOT_VERIFIED",
            Self::Declined { reason, .. } => reason,
            Self::Node { answered: true, .. } => "NODE_REFUSED",
            Self::Node { .. } => "NODE_UNREACHABLE",
            Self::Timeout { .. } => "TIMEOUT",
            Self::Process { .. } => "PROCESS_FAILED",
            Self::Bug(_) => "BUG",
        }
    }

    /// What the caller can do about it.
    pub fn advice(&self) -> String {
        match self {
            Self::Config { advice, .. } | Self::Process { advice, .. } => advice.clone(),
            Self::Input { .. } => "correct the input and run the command again".to_owned(),
            Self::Unreachable { .. } | Self::NoParty { .. } => {
                "check that the hosts run and that the endpoints in the profile are right; `arca status` \
                 shows each party"
                    .to_owned()
            }
            Self::Untrusted { .. } => {
                "do not use this party: compare its measurements with the manifest's, and the manifest, \
                 root and administrators in the profile with what was agreed"
                    .to_owned()
            }
            Self::Unverified { .. } => "do not use it; ask whoever gave it to you".to_owned(),
            Self::Reject { code, reason, .. } => {
                advice_for_reason(reason).unwrap_or_else(|| advice_for_code(*code)).to_owned()
            }
            Self::Declined { reason, .. } => advice_for_reason(reason)
                .unwrap_or("correct what is to be signed, or use another key")
                .to_owned(),
            Self::Node { answered: true, .. } => {
                "correct the transaction, or whatever the node complains of, and run it again".to_owned()
            }
            Self::Node { .. } => {
                "check that the node runs and that the URL is right; only http:// is spoken here".to_owned()
            }
            Self::Abort { culprits, .. } if culprits.is_empty() => {
                "run the command again; `arca status` shows which parties are up".to_owned()
            }
            Self::Abort { culprits, .. } => format!(
                "find out what runs at {}; the other parties can sign without it as long as they are enough",
                culprits.join(", ")
            ),
            Self::Timeout { .. } => {
                "it may still end: run the same command with the same --request-id, or look at it with \
                 `arca sign show` or `arca key list`"
                    .to_owned()
            }
            Self::Bug(_) => "report it, with the command and this message".to_owned(),
        }
    }
}

/// `domain` of every `google.rpc.ErrorInfo` from a party.
pub const DOMAIN: &str = "arca";

fn list(errors: &[Error]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

fn name_culprits(culprits: &[String]) -> String {
    if culprits.is_empty() {
        String::new()
    } else {
        format!("; misbehaved: {}", culprits.join(", "))
    }
}

/// Where the reason says more than the status code.
fn advice_for_reason(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "RAW_DIGEST_NOT_ALLOWED" => {
            "send the transaction itself, or use a key made with --allow-raw-digest"
        }
        "SCHEME_MISMATCH" => {
            "use a bip340 key for taproot, an ecdsa-secp256k1 key for Ethereum and P2WPKH, an ed25519 key for \
             Solana; an ecdsa-p256 key signs raw digests alone"
        }
        "DERIVATION_PATH" => {
            "only ecdsa-secp256k1 keys have keys below them; leave --path out for the key itself"
        }
        "ETHEREUM_NO_CHAIN_ID" => {
            "make the transaction with its chain's id (EIP-155): without one it would be valid on every chain"
        }
        "PSBT_NO_INPUT_OF_KEY" => {
            "compare the inputs with `arca key address`; an ECDSA key signs those of --path, and those whose \
             bip32_derivation names its fingerprint (`arca key show`)"
        }
        "PSBT_UNPROVEN_AMOUNT" => {
            "have the wallet put the previous transactions into the PSBT (non_witness_utxo); Bitcoin Core's \
             utxoupdatepsbt does"
        }
        "KEY_PENDING" => "wait until every party of the key is up, and run it again",
        "STORAGE_FULL" => "have the party's operator raise `quota_bytes` or make room on its disk",
        "SEALED_BLOB_NOT_AUTHENTIC"
        | "SEALED_BLOB_MALFORMED"
        | "SEALED_BLOB_MISPLACED"
        | "SEALED_STATE_ROLLED_BACK" => {
            "the party's host does not give back what was stored: have its operator look into it, and use \
             another party meanwhile"
        }
        "LEASE_NOT_HELD" => {
            "start the parties that it waits for; where one is gone for good, see `arca party accept-loss --help`"
        }
        "STATE_ROLLED_BACK" | "STATE_FORKED" => {
            "have its operator restore the newest storage and restart it; where there is none, find out why, and see \
             `arca party accept-loss --help`"
        }
        "FENCED" => {
            "a newer instance of this party serves: stop this one, or stop that one and restart this one"
        }
        "STORAGE_CONFLICT" => {
            "stop the second enclave that uses this host's storage, and restart this one"
        }
        "LOSS_ACCEPTANCE_REFUSED" => {
            "it is good for one state, once: make a new draft with `arca party accept-loss draft`"
        }
        "NOTHING_LOST" => "nothing is to be done: the party serves",
        "NOT_ENROLLED" => {
            "have the administrators hand this party its manifest: `arca party enroll apply`"
        }
        "UNKNOWN_PRINCIPAL" | "NOT_A_PRINCIPAL" => {
            "have the administrators add this key to the manifest, or name the right key in the profile"
        }
        "EXPIRED" => {
            "run it again with a longer --timeout, and compare this machine's clock with the parties'"
        }
        "MANIFEST_EPOCH" | "MANIFEST_NOT_VALID" | "MANIFEST_EXPIRED" => {
            "get the current manifest from the administrators and name it in the profile"
        }
        _ => return None,
    })
}

fn advice_for_code(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::NotFound => {
            "check the name; `arca key list` and `arca sign list` show what there is. A signing request is \
             known to the party that coordinates it (--party)"
        }
        Code::AlreadyExists => "use another --request-id for another request",
        Code::PermissionDenied | Code::Unauthenticated => {
            "the manifest names who may do this; use a profile with such a principal's key"
        }
        Code::Unavailable => {
            "too few parties are up: `arca status` shows which; run it again once they are"
        }
        Code::ResourceExhausted => "wait and run it again; the limit is the party's",
        Code::FailedPrecondition => {
            "the object's state does not allow it yet; look at it and retry"
        }
        Code::InvalidArgument | Code::OutOfRange => "correct the request and run it again",
        Code::DeadlineExceeded => "run it again with a longer --timeout",
        Code::Unimplemented => "the party runs another version; `arca status` shows them",
        _ => "the party's log says more",
    }
}

fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn a_reason_counts_only_in_our_domain() {
        let details = ErrorDetails::with_error_info("KEY_UNKNOWN", DOMAIN, []);
        let ours = tonic::Status::with_error_details(tonic::Code::NotFound, "no such key", details);
        assert_eq!(Error::from_status("keys/1", &ours).reason(), "KEY_UNKNOWN");

        let details = ErrorDetails::with_error_info("KEY_UNKNOWN", "elsewhere", []);
        let other =
            tonic::Status::with_error_details(tonic::Code::NotFound, "no such key", details);
        assert_eq!(Error::from_status("keys/1", &other).reason(), "NOT_FOUND");
    }

    #[test]
    fn an_abort_names_its_culprits() {
        let error = Error::Abort {
            object: "signingRequests/1".to_owned(),
            reason: "SHARE_INVALID".to_owned(),
            message: "a signature share does not verify".to_owned(),
            culprits: vec!["cloud".to_owned()],
        };
        assert!(
            error
                .to_string()
                .ends_with("(SHARE_INVALID); misbehaved: cloud")
        );
        assert!(error.advice().contains("cloud"));
    }
}
