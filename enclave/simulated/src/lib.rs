//! The simulated platform: a local NSM, a key-encryption key in a file, Unix sockets.
//!
//! Everything above the platform is what runs in production; what is simulated is the hardware alone. Nothing
//! here protects a secret from whoever controls the machine, and all that this platform's evidence proves is
//! that somebody holds the local root. Its trust class says so, and no production binary links this crate.

#![forbid(unsafe_code)]

mod config;
mod files;
pub mod nsm;
mod platform;

pub use config::{Config, ConfigError, EXAMPLE};
pub use files::FileError;
pub use platform::{SimulatedPlatform, StartError, measure_myself, measure_program};
