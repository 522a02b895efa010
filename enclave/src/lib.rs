//! The trusted service: keys, sessions, sealing, attested gRPC.
//!
//! [`serve`] runs it on a [`Platform`](platform::Platform), of which there is one crate each for the simulated
//! platform, AWS Nitro and PKCS#11. Read in this order:
//!
//! - [`platform`]: what the hardware gives; `server`: how connections come in and links are kept.
//! - `core`: which party this is, under which manifest, and its keys.
//! - `access`: who may call what. `grpc`: the calls themselves.
//! - `keygen`, `signing`, `admission`, `quorum`: making keys and signatures, at the coordinator and at
//!   the other parties.
//! - `pairs`, `presignatures`: what ECDSA signatures need ahead, made in the background.
//! - `network`, `session`, `lane`: frames between enclaves, one run of a protocol, and where it is computed.
//! - `report`: numbers for the host to show.
//! - [`process`]: the process around it all.
//! - [`sealing`], `index`, `anchor`, `state`, `storage`: what is kept on the host. `lease`: that it is the newest, and
//!   this the only live instance. `random`: where randomness comes from.

#![forbid(unsafe_code)]

mod access;
mod admission;
mod anchor;
mod certificate;
mod core;
mod error;
mod grpc;
mod index;
mod key;
mod keygen;
mod lane;
mod lease;
mod log;
mod names;
mod network;
mod operations;
mod pairs;
pub mod platform;
mod presignatures;
pub mod process;
mod quorum;
mod random;
mod records;
mod report;
pub mod sealing;
mod server;
mod session;
mod signing;
mod state;
mod storage;
mod stripes;
mod tags;
#[cfg(test)]
mod test_platform;
pub mod unix;

/// Overwrites whatever is freed, in every program that links this crate. Libraries leave secrets in buffers that
/// they free (frost-core in each nonce it makes, say), and growing a buffer leaves the old one.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

pub use error::{ERROR_DOMAIN, Error};
pub use random::Generator;
pub use server::serve;

/// What the process hands to the service. What whoever runs it may choose is not about security.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What the process around the service got from the kernel, to tell who asks for evidence.
    pub protections: Vec<process::Protection>,
    /// ECDSA presignatures that a pool (a key with one set of signers) is filled up to, and again when it has less
    /// than a quarter. 0: none are made; every signature takes three rounds.
    pub presignatures: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            protections: Vec::new(),
            presignatures: 256,
        }
    }
}
