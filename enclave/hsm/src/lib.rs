//! The HSM platform: a party's key-encryption key and identity key in a PKCS#11 token.
//!
//! Read in this order: [`Config`]; `module`, the library and the token in it; `keys`, how the two keys are made and
//! judged; `pool`, how calls reach the module and what happens when the token is lost; [`HsmPlatform`], what the
//! enclave is given. `ceremony` and `request` are done once, by people; `probe` says what a module can do. `docs/hsm.md`
//! is the operator's side.
//!
//! # Security
//! The token keeps the two keys from being copied. It does not know which program asks it, so it says nothing about
//! the code that runs, and it cannot tell yesterday's sealed state from today's.

#![forbid(unsafe_code)]

mod ceremony;
mod certificates;
pub mod cli;
mod config;
mod ec;
mod error;
mod keys;
mod module;
mod pin;
mod platform;
mod pool;
mod probe;
mod request;

pub use ceremony::{Keys, init, probe, request};
pub use config::{Config, ConfigError, EXAMPLE, ModuleNeeds, TokenChoice};
pub use error::HsmError;
pub use pin::{Pin, PinSource};
pub use platform::HsmPlatform;
pub use probe::{Check, Outcome, Report};
