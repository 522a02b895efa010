//! The attested channel under attack: real TLS, real documents of a local NSM, and somebody in the middle.

// Helpers outside `#[test]` functions, which clippy's exception for tests does not reach.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod bytes;
#[allow(dead_code, reason = "the verifier's tests use all of it")]
#[path = "../attestation/forge.rs"]
mod forge;
mod grpc;
mod hardware;
mod hsm;
mod lifetime;
mod meeting;
mod middle;
mod proofs;
mod raw;
mod refusals;
mod tls;
mod world;
