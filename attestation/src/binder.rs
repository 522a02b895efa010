//! What evidence is bound to.
//!
//! A platform signs three values that its caller chooses: a nonce, a public key and user data. The verifier's
//! nonce goes into `nonce`, the attester's own identity key into `public_key`, and one of the two digests here
//! into `user_data`. See `docs/attested-channel.md`.

use sha2::{Digest, Sha384};

use crate::tags;

/// TLS exporter label (RFC 5705, RFC 8446 section 7.5) of the evidence that the initiator sends.
pub const EXPORTER_INITIATOR: &[u8] = b"EXPORTER-arca/v1/evidence/initiator";
/// TLS exporter label of the evidence that the responder sends.
pub const EXPORTER_RESPONDER: &[u8] = b"EXPORTER-arca/v1/evidence/responder";

/// Version of the binder's composition.
const BINDER_VERSION: u8 = 1;

/// Which end of a channel made the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The side that connected.
    Initiator,
    /// The side that was connected to.
    Responder,
}

impl Role {
    /// The exporter label of evidence made in this role.
    pub fn exporter_label(self) -> &'static [u8] {
        match self {
            Self::Initiator => EXPORTER_INITIATOR,
            Self::Responder => EXPORTER_RESPONDER,
        }
    }

    /// The other end.
    pub fn peer(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Initiator => 1,
            Self::Responder => 2,
        }
    }
}

/// Binds evidence to one TLS connection, one direction, and to who is at both ends.
///
/// "Own" is the side that makes the evidence. Verifier and attester fill in the same values and compare digests.
#[derive(Clone, Copy, Debug)]
pub struct Binder<'a> {
    /// The attester's end.
    pub role: Role,
    /// Exporter of this TLS session under [`Role::exporter_label`] of `role`.
    pub exporter: &'a [u8; 32],
    /// The verifier's nonce.
    pub nonce: &'a [u8],
    /// The attester's SubjectPublicKeyInfo, DER.
    pub own_spki: &'a [u8],
    /// The verifier's SubjectPublicKeyInfo, DER: a TLS 1.3 exporter covers no client certificate.
    pub peer_spki: &'a [u8],
    /// Cluster id; empty before the attester holds a manifest.
    pub cluster: &'a str,
    /// The attester's party name; empty before it holds a manifest.
    pub party: &'a str,
    /// Drawn at each start of the attester's enclave.
    pub boot_id: &'a [u8; 16],
    /// Epoch of the attester's manifest; 0 before it holds one.
    pub manifest_epoch: u64,
}

impl Binder<'_> {
    /// SHA-384 over tag, version, role and all fields, each after its length.
    pub fn digest(&self) -> [u8; 48] {
        let mut hash = Sha384::new();
        tags::update_framed(
            &mut hash,
            &[
                tags::CHANNEL_BINDER.as_bytes(),
                &[BINDER_VERSION],
                &[self.role.byte()],
                self.exporter,
                self.nonce,
                self.own_spki,
                self.peer_spki,
                self.cluster.as_bytes(),
                self.party.as_bytes(),
                self.boot_id,
                &self.manifest_epoch.to_be_bytes(),
            ],
        );
        hash.finalize().into()
    }
}

/// What evidence says when somebody asks for it over a service instead of opening a channel with it.
///
/// # Security
/// It is bound to no connection: it shows that an enclave with this identity and state answered this nonce, and
/// not that it is the other end of anything.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'a> {
    /// The asker's nonce.
    pub nonce: &'a [u8],
    /// Cluster id; empty before the attester holds a manifest.
    pub cluster: &'a str,
    /// The attester's party name; empty before it holds a manifest.
    pub party: &'a str,
    /// Drawn at each start of the attester's enclave.
    pub boot_id: &'a [u8; 16],
    /// Epoch of the attester's manifest; 0 before it holds one.
    pub manifest_epoch: u64,
}

impl Statement<'_> {
    /// SHA-384 over tag, version and all fields, each after its length.
    pub fn digest(&self) -> [u8; 48] {
        let mut hash = Sha384::new();
        tags::update_framed(
            &mut hash,
            &[
                tags::EVIDENCE_STATEMENT.as_bytes(),
                &[BINDER_VERSION],
                self.nonce,
                self.cluster.as_bytes(),
                self.party.as_bytes(),
                self.boot_id,
                &self.manifest_epoch.to_be_bytes(),
            ],
        );
        hash.finalize().into()
    }
}

/// What evidence says that stands in a party's audit log: which keys sign for it, in which instance, under which
/// manifest. Its nonce is the boot id, which is never used twice.
///
/// # Security
/// It is made once a boot and manifest, and verified in archive mode. It says nothing about who shows it.
#[derive(Clone, Copy, Debug)]
pub struct LogStatement<'a> {
    /// Cluster id.
    pub cluster: &'a str,
    /// The attester's party name.
    pub party: &'a str,
    /// Drawn at each start of the attester's enclave.
    pub boot_id: &'a [u8; 16],
    /// SHA-384 of the manifest in force.
    pub manifest_digest: &'a [u8; 48],
    /// Ed25519 key that signs the log's checkpoints.
    pub log_key: &'a [u8; 32],
    /// Ed25519 key that cosigns the checkpoints of other parties.
    pub witness_key: &'a [u8; 32],
}

impl LogStatement<'_> {
    /// SHA-384 over tag, version and all fields, each after its length.
    pub fn digest(&self) -> [u8; 48] {
        let mut hash = Sha384::new();
        tags::update_framed(
            &mut hash,
            &[
                tags::LOG_EVIDENCE.as_bytes(),
                &[BINDER_VERSION],
                self.cluster.as_bytes(),
                self.party.as_bytes(),
                self.boot_id,
                self.manifest_digest,
                self.log_key,
                self.witness_key,
            ],
        );
        hash.finalize().into()
    }
}
