//! The cluster manifest: what it may say, who has to sign it, and what its revocations do.

// Clippy lets test functions do this, and not what they share.
#![allow(clippy::unwrap_used)]

mod common;
mod json;
mod loss;
mod properties;
mod revocation;
mod rules;
mod signatures;
