//! The AWS Nitro platform: evidence of the NSM, sealing under AWS KMS, vsock to the host.
//!
//! [`NitroPlatform::start`] is what production runs. Read in this order:
//!
//! - [`nsm`]: the device; measurements that are fixed and locked, randomness, evidence.
//! - `clock`: time, from the NSM's documents.
//! - [`transport`]: the way to the host.
//! - `sealing`, [`kms`]: how data keys are wrapped, and what KMS is asked for that.
//! - [`NitroPlatform`]: all of it together.
//!
//! What the measurements are, the key's policy and what is not protected stand in `docs/nitro.md`.

#![forbid(unsafe_code)]

mod clock;
pub mod config;
pub mod kms;
pub mod nsm;
mod platform;
mod sealing;
mod tags;
pub mod transport;

pub use config::{Config, ConfigError, EXAMPLE};
pub use platform::{Machine, NitroPlatform, StartError};
