//! The small vocabulary that everything here shares.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a party's evidence is to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrustClass {
    /// An AWS Nitro enclave: the hardware says which code runs.
    Nitro,
    /// A key held by a PKCS#11 HSM: proves custody of the key, and not which code runs.
    Hsm,
    /// A local NSM under a local root. Proves nothing about hardware.
    Simulated,
}

impl fmt::Display for TrustClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nitro => "nitro",
            Self::Hsm => "hsm",
            Self::Simulated => "simulated",
        })
    }
}

/// Whether a cluster guards anything. The cluster's id decides: see [`ClusterKind::of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClusterKind {
    /// Parties are `nitro` or `hsm`.
    Production,
    /// Parties are `simulated`, or `hsm` under a test root.
    Simulated,
}

impl ClusterKind {
    /// Simulated clusters, and no others, have an id that begins with `sim-`.
    pub fn of(cluster: &str) -> Self {
        if cluster.starts_with("sim-") {
            Self::Simulated
        } else {
            Self::Production
        }
    }

    /// Whether a cluster of this kind may have a party of `class`.
    pub fn admits(self, class: TrustClass) -> bool {
        match (self, class) {
            (_, TrustClass::Hsm) => true,
            (Self::Production, TrustClass::Nitro) => true,
            (Self::Simulated, TrustClass::Simulated) => true,
            (Self::Production, TrustClass::Simulated) | (Self::Simulated, TrustClass::Nitro) => {
                false
            }
        }
    }
}

impl fmt::Display for ClusterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Production => "production",
            Self::Simulated => "simulated",
        })
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

/// PCR 0, 1 and 2 of an enclave image: the whole image, kernel and bootstrap, application.
///
/// In JSON, lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurements {
    /// The enclave image file.
    #[serde(with = "hex::serde")]
    pub pcr0: [u8; 48],
    /// Linux kernel and bootstrap.
    #[serde(with = "hex::serde")]
    pub pcr1: [u8; 48],
    /// Application.
    #[serde(with = "hex::serde")]
    pub pcr2: [u8; 48],
}

impl Measurements {
    /// Whether any of the three is all zero, which is how an enclave in debug mode reports itself.
    pub fn is_debug(&self) -> bool {
        [self.pcr0, self.pcr1, self.pcr2].contains(&[0; 48])
    }
}

impl fmt::Debug for Measurements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measurements")
            .field("pcr0", &hex::encode(self.pcr0))
            .field("pcr1", &hex::encode(self.pcr1))
            .field("pcr2", &hex::encode(self.pcr2))
            .finish()
    }
}
