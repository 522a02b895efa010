//! Which root evidence has to lead to.

use std::fmt;

use crate::{Error, TrustClass, path};

/// A pinned root certificate and the class of the evidence under it.
///
/// # Security
/// The anchors decide what evidence can mean. Take them from the binary (production) or from what this user or
/// enclave was set up with, never from what a peer says.
#[derive(Clone)]
pub struct TrustAnchors {
    class: TrustClass,
    root: Vec<u8>,
}

/// AWS Nitro Enclaves root G1, as AWS publishes it. SHA-256 of these bytes:
/// `641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b`.
const AWS_NITRO_ROOT_G1: &[u8] = include_bytes!("aws_nitro_root_g1.der");

impl TrustAnchors {
    /// The AWS Nitro Enclaves root G1.
    pub fn production() -> Self {
        Self {
            class: TrustClass::Nitro,
            root: AWS_NITRO_ROOT_G1.to_vec(),
        }
    }

    /// The root of a local NSM, as a DER certificate.
    ///
    /// # Errors
    /// [`Error::SimulatedRoot`] when it is no P-384 certificate authority,
    /// [`Error::ProductionRootAsSimulated`] when it is the AWS root.
    pub fn simulated(root_der: &[u8]) -> Result<Self, Error> {
        if root_der == AWS_NITRO_ROOT_G1 {
            return Err(Error::ProductionRootAsSimulated);
        }
        path::check_root(root_der).map_err(|fault| Error::SimulatedRoot { fault })?;
        Ok(Self {
            class: TrustClass::Simulated,
            root: root_der.to_vec(),
        })
    }

    /// The class of evidence that verifies under these anchors.
    pub fn class(&self) -> TrustClass {
        self.class
    }

    pub(crate) fn root(&self) -> &[u8] {
        &self.root
    }
}

impl fmt::Debug for TrustAnchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustAnchors")
            .field("class", &self.class)
            .finish_non_exhaustive()
    }
}
