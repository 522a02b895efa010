//! The verifier of attestation documents.
//!
//! - `format`, `path`, `appraisal`: one broken thing at a time, in the order of the verifier's steps.
//! - `hsm`: the same for evidence of HSMs, and where the two formats meet.
//! - `vectors`: documents that AWS made. `nsm`: the simulated NSM.
//! - `damage`: documents cut short, damaged or random. `binding`: what evidence is bound to.

// Clippy lets test functions do this, and not what they share.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod appraisal;
mod binding;
mod damage;
mod forge;
mod format;
mod hsm;
mod nsm;
mod path;
mod vectors;
