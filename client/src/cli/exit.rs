//! Exit codes.

use arca_client::Error;

/// Anything else.
pub(crate) const OTHER: u8 = 1;
/// A file or setting on this machine. (2 is clap's, for arguments.)
pub(crate) const CONFIG: u8 = 3;
/// No connection.
pub(crate) const UNREACHABLE: u8 = 4;
/// Something does not verify.
pub(crate) const UNVERIFIED: u8 = 5;
/// Refused: by a party, by a node, or here because every party would.
pub(crate) const REFUSED: u8 = 6;
/// An operation or signing request ended without its result.
pub(crate) const ABORTED: u8 = 7;
/// Out of time.
pub(crate) const TIMEOUT: u8 = 8;
/// Ctrl-C, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// The end of `arca --help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0    done
  1    something else failed
  2    the arguments are wrong
  3    a file, the profile or the input is wrong
  4    a party or node cannot be reached, or no party can
  5    something does not verify: evidence, a manifest, a signature, a transaction
  6    refused: by a party, by a node, or here because every party would
  7    a signing request or operation ended without its result
  8    not finished in time; it may still end
  130  interrupted

Environment:
  ARCA_PROFILE  the profile, as --profile
  ARCA_BIN_DIR  folder of arca, arca-host and arca-enclave-simulated, for `demo` and `bench`
  ARCA_ANVIL    the Ethereum node that `demo` starts [default: anvil on the PATH]
  ARCA_LOG      diagnostics on standard error, such as `debug`
  NO_COLOR      no colour

Everything printed about a simulated cluster says `simulated`.
With --output json, standard output is one object, and an error is one object on standard error.";

/// The code that an error ends with.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    if error.is::<Interrupted>() {
        return INTERRUPTED;
    }
    error.downcast_ref::<Error>().map_or(OTHER, of)
}

/// Ctrl-C, or a request to stop.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

fn of(error: &Error) -> u8 {
    match error {
        Error::Config { .. } | Error::Input { .. } => CONFIG,
        Error::Unreachable { .. } => UNREACHABLE,
        // When every party answered and none could be used, the first one's answer tells more.
        Error::NoParty { attempts } => attempts
            .iter()
            .map(of)
            .reduce(|first, next| if next == UNREACHABLE { next } else { first })
            .unwrap_or(UNREACHABLE),
        Error::Untrusted { .. } | Error::Unverified { .. } => UNVERIFIED,
        Error::Reject { .. } | Error::Declined { .. } | Error::Node { answered: true, .. } => {
            REFUSED
        }
        Error::Node { .. } => UNREACHABLE,
        Error::Abort { .. } => ABORTED,
        Error::Timeout { .. } => TIMEOUT,
        _ => OTHER,
    }
}
