//! The untrusted host of one party: forwards bytes between the network and its enclave, keeps the
//! enclave's sealed blobs, shows metrics.
//!
//! ```text
//! clients, peers ──TCP──▶ listen ──▶ enclave.sock        (inbound)
//! peers ◀──TCP── dial by name ◀── dial.sock              (outbound)
//! enclave ──gRPC──▶ storage.sock ──▶ one redb file; its own metrics; AWS credentials
//! the audit log ──▶ tlog-tiles in a folder or a bucket; its checkpoints ──▶ witnesses
//! KMS ◀──TCP── relay ◀── kms.sock                        (an enclave that seals under AWS KMS)
//! operator ──HTTP──▶ /metrics, /healthz, /readyz
//! ```
//!
//! Each socket is a vsock port where the enclave is a machine of its own.
//!
//! Nothing here is trusted with a secret and nothing here is security: TLS ends inside the enclave,
//! and what the storage returns counts for nothing until the enclave unsealed it. What this crate does
//! owe is availability: it bounds what the network can take from the enclave, never loses a blob it
//! acknowledged, and survives the restart of either side.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let config = arca_host::Config::load("host.toml".as_ref())?;
//! let host = arca_host::Host::start(config).await?;
//! println!("listening on {}", host.listen_address());
//! host.shutdown().await;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod admission;
mod archive;
mod config;
mod credentials;
mod dial;
mod enclave;
mod error;
mod host;
mod inbound;
mod kms;
mod metrics;
mod pages;
mod pipe;
mod reported;
mod sockets;
mod stop;
mod storage;
mod tls;

pub use config::{
    ArchiveConfig, ArchivePlace, BucketConfig, BucketCredentials, Config, ConfigError,
    CredentialSource, EXAMPLE, KmsConfig, Limits, StorageConfig, Transport, VsockConfig,
    WitnessConfig,
};
pub use error::Error;
pub use host::{Handle, Host};
pub use sockets::{DIAL_SOCKET, ENCLAVE_SOCKET, KMS_SOCKET, STORAGE_SOCKET};
