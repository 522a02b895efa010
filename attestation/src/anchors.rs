//! Which root an NSM's evidence has to lead to.

use std::fmt;

use crate::{ClusterKind, Error, TrustClass, path};

/// The pinned root of NSMs and the class of the evidence under it, or none at all.
///
/// The roots of HSMs are not here: each organisation has its own, and the administrators put it into the
/// [manifest](crate::manifest::Manifest::hsm_roots).
///
/// # Security
/// The anchors decide what evidence can mean. Take them from the binary (production) or from what this user or
/// enclave was set up with, never from what a peer says.
#[derive(Clone)]
pub struct TrustAnchors {
    nsm: Option<NsmRoot>,
}

#[derive(Clone)]
struct NsmRoot {
    class: TrustClass,
    der: Vec<u8>,
}

/// AWS Nitro Enclaves root G1, as AWS publishes it. SHA-256 of these bytes:
/// `641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b`.
const AWS_NITRO_ROOT_G1: &[u8] = include_bytes!("aws_nitro_root_g1.der");

impl TrustAnchors {
    /// The AWS Nitro Enclaves root G1.
    pub fn production() -> Self {
        Self {
            nsm: Some(NsmRoot {
                class: TrustClass::Nitro,
                der: AWS_NITRO_ROOT_G1.to_vec(),
            }),
        }
    }

    /// The root of a local NSM, as a DER certificate.
    ///
    /// # Errors
    /// [`Error::SimulatedRoot`] when it is no P-384 certificate authority,
    /// [`Error::ProductionRootAsSimulated`] when it is the AWS root.
    pub fn simulated(root_der: &[u8]) -> Result<Self, Error> {
        if is_production_root(root_der) {
            return Err(Error::ProductionRootAsSimulated);
        }
        path::check_root(root_der).map_err(|fault| Error::SimulatedRoot { fault })?;
        Ok(Self {
            nsm: Some(NsmRoot {
                class: TrustClass::Simulated,
                der: root_der.to_vec(),
            }),
        })
    }

    /// None: no evidence of any NSM verifies, and that of HSMs under the manifest's roots alone.
    pub fn hsm_only() -> Self {
        Self { nsm: None }
    }

    /// The class of an NSM's evidence that verifies under these anchors, if any does.
    pub fn nsm_class(&self) -> Option<TrustClass> {
        self.nsm.as_ref().map(|root| root.class)
    }

    /// Whether evidence of a party of `class` can verify here: of an HSM always, since its roots stand in the
    /// manifest.
    pub fn admit(&self, class: TrustClass) -> bool {
        class == TrustClass::Hsm || self.nsm_class() == Some(class)
    }

    /// Whether these anchors are for a cluster of this kind. A simulated root is for no cluster that guards
    /// anything; the others do no harm in a simulated one.
    pub fn suit(&self, kind: ClusterKind) -> bool {
        kind == ClusterKind::Simulated || self.nsm_class() != Some(TrustClass::Simulated)
    }

    /// The root of NSMs of `class`.
    pub(crate) fn nsm_root(&self, class: TrustClass) -> Result<&[u8], Error> {
        match &self.nsm {
            Some(root) if root.class == class => Ok(&root.der),
            _ => Err(Error::NoTrustAnchor { class }),
        }
    }
}

/// Whether this is the root that AWS keeps for its NSMs, which is nobody else's.
pub(crate) fn is_production_root(der: &[u8]) -> bool {
    der == AWS_NITRO_ROOT_G1
}

impl fmt::Debug for TrustAnchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustAnchors")
            .field("nsm_class", &self.nsm_class())
            .finish_non_exhaustive()
    }
}
