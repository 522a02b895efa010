//! Whom a channel proved.

use std::sync::Arc;

use arca_attestation::manifest::Role;
use arca_attestation::{Evidence, UnixMillis};

/// Who is at the other end of a channel. Only a finished handshake makes one.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A party of this side's manifest, in an enclave that runs what the manifest allows.
    Party(Attested),
    /// An enclave that runs what the caller expects, under names that it gave itself.
    ///
    /// # Security
    /// It is nobody in particular. Good for showing an administrator whom to write into a manifest.
    Candidate(Attested),
    /// Somebody whom this side's manifest names as a principal.
    Principal(Principal),
    /// Somebody with a key that means nothing here.
    Visitor(Visitor),
}

impl Peer {
    /// The other side's public key, DER `SubjectPublicKeyInfo`; it proved that it holds the secret half.
    pub fn identity(&self) -> &[u8] {
        match self {
            Self::Party(peer) | Self::Candidate(peer) => peer.identity(),
            Self::Principal(peer) => &peer.identity,
            Self::Visitor(peer) => &peer.identity,
        }
    }

    /// The party, if this is one.
    pub fn party(&self) -> Option<&Attested> {
        match self {
            Self::Party(peer) => Some(peer),
            Self::Candidate(_) | Self::Principal(_) | Self::Visitor(_) => None,
        }
    }

    /// The principal, if this is one.
    pub fn principal(&self) -> Option<&Principal> {
        match self {
            Self::Principal(peer) => Some(peer),
            Self::Party(_) | Self::Candidate(_) | Self::Visitor(_) => None,
        }
    }
}

/// An enclave whose evidence was verified on this channel.
#[derive(Clone, Debug)]
pub struct Attested(pub(crate) Arc<AttestedFacts>);

#[derive(Debug)]
pub(crate) struct AttestedFacts {
    pub cluster: String,
    pub name: String,
    pub identity: Vec<u8>,
    pub boot_id: [u8; 16],
    pub manifest_epoch: u64,
    pub evidence: Evidence,
    pub verified_at: UnixMillis,
}

impl Attested {
    /// Cluster id; of a [`Peer::Candidate`] as it says, and empty when it holds no manifest.
    pub fn cluster(&self) -> &str {
        &self.0.cluster
    }

    /// Party name; of a [`Peer::Candidate`] as it says, and empty when it holds no manifest.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its identity key, DER `SubjectPublicKeyInfo`.
    pub fn identity(&self) -> &[u8] {
        &self.0.identity
    }

    /// Drawn when its enclave started.
    pub fn boot_id(&self) -> &[u8; 16] {
        &self.0.boot_id
    }

    /// Epoch of the manifest it holds; 0 when it holds none. Between two parties always equal; a client may
    /// meet a party that is ahead or behind.
    pub fn manifest_epoch(&self) -> u64 {
        self.0.manifest_epoch
    }

    /// What was verified.
    pub fn evidence(&self) -> &Evidence {
        &self.0.evidence
    }

    /// When, by this side's clock.
    pub fn verified_at(&self) -> UnixMillis {
        self.0.verified_at
    }
}

/// A principal of the manifest.
#[derive(Clone, Debug)]
pub struct Principal {
    pub(crate) name: Arc<str>,
    pub(crate) roles: Arc<[Role]>,
    pub(crate) identity: Arc<[u8]>,
}

impl Principal {
    /// Its name in the manifest.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the manifest lets it do.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// Its key, DER `SubjectPublicKeyInfo`.
    pub fn identity(&self) -> &[u8] {
        &self.identity
    }
}

/// Somebody with a key that means nothing here.
#[derive(Clone, Debug)]
pub struct Visitor {
    pub(crate) identity: Arc<[u8]>,
}
