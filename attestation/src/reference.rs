//! What a verifier expects an attester to be.

use crate::{ClusterKind, Measurements, TrustClass};

/// Which class of attester is expected, and what of that class is trusted.
///
/// # Security
/// The verifier's side decides it: the manifest of a party, or the caller who asks an enclave that stands in none.
/// Nothing in the evidence has a say in how it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReferenceValues {
    /// An AWS Nitro enclave with one of these measurements. None at all refuses all evidence.
    Nitro(Vec<Measurements>),
    /// An enclave under a local NSM with one of these measurements. None at all refuses all evidence.
    Simulated(Vec<Measurements>),
    /// A party whose identity key is certified under one of these roots (DER). None at all refuses all evidence.
    Hsm(Vec<Vec<u8>>),
}

impl ReferenceValues {
    /// Of an enclave under an NSM in a cluster of this kind: one of these measurements.
    pub fn enclave(kind: ClusterKind, measurements: Vec<Measurements>) -> Self {
        match kind {
            ClusterKind::Production => Self::Nitro(measurements),
            ClusterKind::Simulated => Self::Simulated(measurements),
        }
    }

    /// The class that is expected.
    pub fn class(&self) -> TrustClass {
        match self {
            Self::Nitro(_) => TrustClass::Nitro,
            Self::Simulated(_) => TrustClass::Simulated,
            Self::Hsm(_) => TrustClass::Hsm,
        }
    }
}
