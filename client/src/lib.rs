//! The client of an Arca cluster: attested connections, keys, signatures, and what is needed to trust them.
//!
//! ```no_run
//! # async fn run() -> arca_client::Result<()> {
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! let profile = arca_client::Profile::load(&arca_client::Profile::default_path()?)?;
//! let cluster = arca_client::Cluster::new(Arc::new(profile))?;
//! let party = cluster.any(None).await?;
//! for key in party.keys().await? {
//!     println!("{} {}", key.name, key.display_name);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Security
//! Whom to trust stands in the [`Profile`] alone: kind of cluster, trust anchors, administrators. Every
//! connection, and every reconnection, verifies the party's evidence before a request is sent.

#![forbid(unsafe_code)]

pub mod address;
pub mod appraisal;
pub mod audit;
mod authorizer;
mod client;
pub mod clock;
mod cluster;
mod connect;
mod ecdsa;
pub mod enroll;
mod error;
pub mod ethereum;
mod fetched;
mod group_key;
pub mod hsm;
pub mod keyfile;
pub mod local;
pub mod loss_file;
pub mod manifest_file;
pub mod party_files;
mod path;
mod patience;
mod profile;
pub mod psbt;
mod resources;
pub mod solana;
mod state;
pub mod verify;

pub use client::{Client, NewKey, Payload};
pub use cluster::{Cluster, candidate};
pub use error::{DOMAIN, Error, Result};
pub use fetched::{Answer, Evidence, Protection};
pub use group_key::GroupKey;
pub use path::DerivationPath;
pub use profile::{
    Administrators, Kind, Principal, Profile, ProfileFile, PublicKey, check_endpoint,
    has_simulated_parties, read_simulated_root,
};
pub use resources::{
    Connection, EcdsaSigner, Failure, Key, KeyRef, KeyState, Parties, PartyStatus, Scheme,
    Signature, SigningRequest, State,
};
pub use state::{PartyState, PeerState, Standing, StateAnchor, Word};
