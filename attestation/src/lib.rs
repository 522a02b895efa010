//! Evidence, the cluster manifest and the verifier of both.
//!
//! Pure: no clock, no randomness, no files and no network. Time comes in as [`UnixMillis`], trust anchors as
//! [`TrustAnchors`], reference values out of the [manifest].
//!
//! - [`verify_live`] appraises evidence that a peer has just made for this verifier's nonce and returns
//!   [`Evidence`]; [`verify_archive`] appraises stored evidence at its own time and returns
//!   [`ArchivedEvidence`]. Neither result can be made in any other way, or used for the other.
//! - [`hsm`] writes the evidence of a party whose identity key lives in an HSM.
//! - [`manifest`] holds the document that administrators sign: who the parties are and what code they may run.
//! - [`loss`] holds what administrators sign when a party's newest state is gone.
//! - [`binder`] says what evidence is bound to: one channel, or one answer.
//!
//! Terms are those of RFC 9334.

#![forbid(unsafe_code)]

mod anchors;
mod authorization;
pub mod binder;
mod cbor;
mod cose;
mod document;
mod error;
mod facts;
pub mod hsm;
mod identity;
mod inspect;
pub mod loss;
pub mod manifest;
mod path;
mod reference;
mod tags;
mod types;
mod verify;

pub use anchors::TrustAnchors;
pub use authorization::{SigningAuthorization, request_commitment};
pub use error::{CborFault, CertificateFault, Error};
pub use facts::{ArchivedEvidence, Evidence, Facts};
pub use identity::{IdentityCurve, identity_curve};
pub use inspect::{Inspection, inspect};
pub use reference::ReferenceValues;
pub use types::{ClusterKind, Measurements, TrustClass, UnixMillis};
pub use verify::{ArchiveExpected, Expectation, Expected, LIVE_SKEW, verify_archive, verify_live};
