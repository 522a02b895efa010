//! Why a host does not start or does not stop cleanly.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::ConfigError;

/// Why a host does not start or does not stop cleanly. Every message says what to do about it.
///
/// What goes wrong with a single connection or a single blob while the host runs is not here: it is
/// answered to whoever asked, counted and logged, and the host goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// A TCP address could not be bound.
    #[error(
        "cannot listen on {address} ({field}): {source}. Is another program using this address?"
    )]
    Listen {
        /// Field of the configuration.
        field: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },

    /// A Unix socket, or the folder of the sockets, cannot be used.
    #[error("{path}: {problem}. {remedy}")]
    Socket {
        /// The socket or its folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },

    /// A vsock port cannot be used.
    #[error(
        "cannot listen on vsock port {port} ({field}): {source}. Is another program using it, and is this \
         a machine that has enclaves (/dev/vsock)?"
    )]
    Vsock {
        /// Field of the configuration.
        field: &'static str,
        /// The port.
        port: u32,
        /// The system's reason.
        source: io::Error,
    },

    /// The storage file cannot be used.
    #[error("storage.path {path}: {problem}. {remedy}")]
    Storage {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },

    /// The archive of the audit log cannot be used.
    #[error("archive {place}: {problem}. {remedy}")]
    Archive {
        /// The folder or bucket.
        place: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },

    /// The metrics registry could not be set up.
    #[error("metrics: {0}")]
    Metrics(String),

    /// A part of the host ended by itself, which none of them ever does.
    #[error("bug: {part} ended by itself")]
    Ended {
        /// Which part.
        part: &'static str,
    },
}
