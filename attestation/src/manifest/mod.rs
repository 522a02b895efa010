//! The cluster manifest: who the parties are, what code they may run, and who may change that.
//!
//! JSON, signed as exact bytes by a quorum of administrators (Ed25519). [`Draft`] is what stands in the JSON;
//! [`Manifest`] is a draft that is consistent and signed, and comes out of [`SignedManifest`] alone.

mod rules;
pub(crate) mod signed;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha384};

use crate::{ClusterKind, Error, Measurements, ReferenceValues, TrustClass, UnixMillis};

pub use signed::{AdministratorSignature, SignedManifest, signing_bytes};

/// A manifest in force: every rule holds, a quorum signed it, and what it revokes is gone from it.
#[derive(Clone, Debug)]
pub struct Manifest {
    draft: Draft,
    digest: [u8; 48],
}

impl Manifest {
    /// The cluster's id.
    pub fn cluster(&self) -> &str {
        &self.draft.cluster
    }

    /// Whether the cluster guards anything.
    pub fn kind(&self) -> ClusterKind {
        ClusterKind::of(&self.draft.cluster)
    }

    /// Counts from 1, and up with every manifest of this cluster.
    pub fn epoch(&self) -> u64 {
        self.draft.epoch
    }

    /// From when the manifest is valid.
    pub fn not_before(&self) -> UnixMillis {
        self.draft.not_before
    }

    /// Until when the manifest is valid.
    pub fn not_after(&self) -> UnixMillis {
        self.draft.not_after
    }

    /// The parties whose identity is not revoked, in the manifest's order.
    pub fn parties(&self) -> &[Party] {
        &self.draft.parties
    }

    /// The party with this name, unless its identity is revoked.
    pub fn party(&self, name: &str) -> Option<&Party> {
        self.parties().iter().find(|party| party.name == name)
    }

    /// The party with this identity (SubjectPublicKeyInfo, DER), unless it is revoked.
    pub fn party_by_identity(&self, identity: &[u8]) -> Option<&Party> {
        self.parties()
            .iter()
            .find(|party| party.identity == identity)
    }

    /// What evidence of the party with this name is appraised by: its class, and the images that it may run or the
    /// roots of HSMs. Nothing when there is no such party. When all of its images are revoked no evidence verifies.
    pub fn reference_values(&self, party: &str) -> Option<ReferenceValues> {
        let party = self.party(party)?;
        Some(match party.class {
            TrustClass::Nitro => ReferenceValues::Nitro(party.measurements.clone()),
            TrustClass::Simulated => ReferenceValues::Simulated(party.measurements.clone()),
            TrustClass::Hsm => ReferenceValues::Hsm(self.hsm_roots().to_vec()),
        })
    }

    /// The roots, DER, under which the identity keys of parties of class `hsm` are certified.
    pub fn hsm_roots(&self) -> &[Vec<u8>] {
        &self.draft.hsm_roots
    }

    /// The principals whose identity is not revoked, in the manifest's order.
    pub fn principals(&self) -> &[Principal] {
        &self.draft.principals
    }

    /// The principal with this name, unless its identity is revoked.
    pub fn principal(&self, name: &str) -> Option<&Principal> {
        self.principals()
            .iter()
            .find(|principal| principal.name == name)
    }

    /// The principal with this identity (SubjectPublicKeyInfo, DER), unless it is revoked.
    pub fn principal_by_identity(&self, identity: &[u8]) -> Option<&Principal> {
        self.principals()
            .iter()
            .find(|principal| principal.identity == identity)
    }

    /// Who may sign this cluster's next manifest.
    pub fn administrators(&self) -> &Administrators {
        &self.draft.administrators
    }

    /// SHA-256 of the custody policy in force, if there is one.
    pub fn policy_digest(&self) -> Option<&[u8; 32]> {
        self.draft.policy_digest.as_ref().map(|digest| &digest.0)
    }

    /// What the manifest revokes.
    pub fn revoked(&self) -> &[Revocation] {
        &self.draft.revoked
    }

    /// SHA-384 of the manifest's bytes, as `sha384sum` gives it, so that people can compare it.
    pub fn digest(&self) -> [u8; 48] {
        self.digest
    }

    /// From bytes whose signatures the caller has checked or is about to check.
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut draft = parse(bytes)?;
        draft.drop_revoked();
        Ok(Self {
            draft,
            digest: Sha384::digest(bytes).into(),
        })
    }
}

/// What a manifest says, before anybody signed it. The field names are the JSON's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// Version of this format: [`Draft::VERSION`].
    pub version: u32,
    /// The cluster's id: `[a-z0-9-]{1,32}`; begins with `sim-` in simulated clusters and no others.
    pub cluster: String,
    /// Counts from 1, and up with every manifest of this cluster.
    pub epoch: u64,
    /// Milliseconds since 1970, inclusive.
    pub not_before: UnixMillis,
    /// Milliseconds since 1970, inclusive.
    pub not_after: UnixMillis,
    /// 1 to 32, with different names and identities.
    pub parties: Vec<Party>,
    /// Certificates, DER, of the organisation's own authorities, under which its HSMs' identity keys are certified: 1
    /// to 4 when there is a party of class `hsm`, and none otherwise. Hexadecimal in JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "hex_list")]
    pub hsm_roots: Vec<Vec<u8>>,
    /// Who may sign this manifest and the next one.
    pub administrators: Administrators,
    /// At most 128, with different names and identities, none of which is a party's.
    pub principals: Vec<Principal>,
    /// SHA-256 of the custody policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_digest: Option<PolicyDigest>,
    /// At most 256. Wins over everything else in the manifest.
    pub revoked: Vec<Revocation>,
}

impl Draft {
    /// The format's version.
    pub const VERSION: u32 = 1;

    /// The bytes to sign, distribute and store: JSON for people to read.
    ///
    /// # Errors
    /// [`Error::ManifestField`] or [`Error::ManifestTooLarge`] when no verifier would accept them.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|_| Error::ManifestSyntax { line: 0, column: 0 })?;
        parse(&bytes)?;
        Ok(bytes)
    }
}

/// Reads a manifest that nobody may have signed yet, for administrators to look at before they do.
///
/// # Errors
/// [`Error::ManifestTooLarge`], [`Error::ManifestSyntax`] or [`Error::ManifestField`].
pub fn parse(bytes: &[u8]) -> Result<Draft, Error> {
    if bytes.len() > rules::MAX_BYTES {
        return Err(Error::ManifestTooLarge {
            size: bytes.len(),
            max: rules::MAX_BYTES,
        });
    }
    let draft: Draft = serde_json::from_slice(bytes).map_err(|error| Error::ManifestSyntax {
        line: error.line(),
        column: error.column(),
    })?;
    draft.check()?;
    Ok(draft)
}

/// One party: an enclave or HSM-sealed process that holds key shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// `[a-z0-9-]{1,32}`.
    pub name: String,
    /// How its evidence is to be understood.
    pub class: TrustClass,
    /// Its identity key, which is its TLS key: SubjectPublicKeyInfo, DER, P-256 or P-384; of class `hsm` P-384.
    /// Hexadecimal in JSON.
    #[serde(with = "hex::serde")]
    pub identity: Vec<u8>,
    /// Images that it may run: 1 to 16, or none for `hsm`, whose evidence does not say which code runs.
    pub measurements: Vec<Measurements>,
}

/// Who may change a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Administrators {
    /// How many have to sign: 1 to the number of keys.
    pub quorum: u16,
    /// 1 to 32, with different names and keys.
    pub keys: Vec<Administrator>,
}

/// One administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Administrator {
    /// `[a-z0-9-]{1,32}`.
    pub name: String,
    /// Ed25519 public key. Hexadecimal in JSON.
    #[serde(with = "hex::serde")]
    pub public_key: [u8; 32],
}

/// Somebody who is no party and may ask parties for something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// `[a-z0-9-]{1,32}`.
    pub name: String,
    /// Its TLS key: SubjectPublicKeyInfo, DER, P-256 or P-384. Hexadecimal in JSON.
    #[serde(with = "hex::serde")]
    pub identity: Vec<u8>,
    /// What it may ask for: at least one, each once.
    pub roles: Vec<Role>,
}

/// What a principal may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Create and change keys.
    Operator,
    /// Ask for signatures.
    Initiator,
    /// Read everything, change nothing.
    Auditor,
}

/// SHA-256 of a custody policy. Hexadecimal in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PolicyDigest(#[serde(with = "hex::serde")] pub [u8; 32]);

/// Byte strings, each in hexadecimal.
mod hex_list {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Hex(#[serde(with = "hex::serde")] Vec<u8>);

    pub(super) fn serialize<S: Serializer>(list: &[Vec<u8>], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().map(hex::encode))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Vec<u8>>, D::Error> {
        let list = Vec::<Hex>::deserialize(from)?;
        Ok(list.into_iter().map(|hex| hex.0).collect())
    }
}

/// Something that is no longer trusted, wherever else the manifest names it. Hexadecimal in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Revocation {
    /// An identity key of a party or principal: SubjectPublicKeyInfo, DER.
    Identity(#[serde(with = "hex::serde")] Vec<u8>),
    /// An image, whole: its PCR 0.
    Pcr0(#[serde(with = "hex::serde")] [u8; 48]),
}
