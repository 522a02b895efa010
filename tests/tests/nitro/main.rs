//! The Nitro platform on an NSM in software, against a stand-in for AWS KMS.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

#[allow(dead_code)]
#[path = "../attestation/forge.rs"]
mod forge;

mod device;
mod nsm;
mod party;
mod replies;
mod sealing;
mod standin;
mod world;
