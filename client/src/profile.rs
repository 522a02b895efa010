//! The client's own configuration: whom it trusts, where the parties are, who it is.
//!
//! The kind of cluster and the trust anchors stand here and nowhere else. Nothing that a server says changes
//! them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arca_attestation::manifest::Manifest;
use arca_attestation::{ClusterKind, TrustAnchors, TrustClass};
use arca_channel::Identity;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock;
use crate::error::{Error, Result};
use crate::keyfile;
use crate::manifest_file::{self, write_new};

/// What a profile's file says. Paths in it are relative to its folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileFile {
    /// The cluster's id. `sim-` begins the id of a simulated cluster.
    pub cluster: String,
    /// What kind of cluster this is to its user. Has to agree with the id.
    pub kind: Kind,
    /// The signed manifest.
    pub manifest: PathBuf,
    /// The root of the simulated NSM, a DER certificate: for clusters with simulated parties, and only for simulated
    /// clusters. The roots of HSMs stand in the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulated_root: Option<PathBuf>,
    /// Who may sign manifests.
    pub administrators: Administrators,
    /// The principal that this client is. Without it, only what anybody may see can be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Principal>,
    /// Each party's address, host and port.
    pub parties: BTreeMap<String, String>,
}

impl ProfileFile {
    /// Writes the profile to a new file.
    ///
    /// # Errors
    /// [`Error::Config`] when it exists or cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string_pretty(self).map_err(Error::bug)?;
        write_new(path, text.as_bytes())
    }
}

/// Production or simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Hardware under the vendors' roots.
    Production,
    /// For trying out and testing.
    Simulated,
}

/// The administrators that this client has pinned.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Administrators {
    /// How many of them have to have signed the manifest.
    pub quorum: usize,
    /// Their Ed25519 public keys, 64 hex digits each.
    pub keys: Vec<PublicKey>,
}

/// An Ed25519 public key, in hex.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(#[serde(with = "hex::serde")] pub [u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The principal that this client is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// Its P-256 private key, PKCS#8 PEM, readable by nobody else.
    pub key: PathBuf,
}

/// A profile that was read, checked, and whose manifest the pinned administrators have signed.
#[derive(Clone, Debug)]
pub struct Profile {
    path: PathBuf,
    kind: ClusterKind,
    anchors: TrustAnchors,
    manifest: Arc<Manifest>,
    principal: Option<(String, Arc<Identity>)>,
    parties: BTreeMap<String, String>,
}

impl Profile {
    /// Where the profile is read from unless another place is named.
    ///
    /// # Errors
    /// [`Error::Config`] when there is no home directory.
    pub fn default_path() -> Result<PathBuf> {
        let folder = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        folder
            .or_else(|| std::env::home_dir().map(|home| home.join(".config")))
            .map(|folder| folder.join("arca").join("profile.toml"))
            .ok_or_else(|| {
                Error::config(
                    "profile",
                    "there is no home directory to look in",
                    "name it with --profile",
                )
            })
    }

    /// Reads and checks the profile at `path`, and everything that it names.
    ///
    /// # Errors
    /// [`Error::Config`] for what is missing or does not fit together, [`Error::Unverified`] for a manifest
    /// that the pinned administrators have not signed.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|cause| {
            Error::config(
                path.display(),
                format!("the profile cannot be read: {cause}"),
                "name it with --profile or ARCA_PROFILE; `arca party enroll apply --write-profile` makes one",
            )
        })?;
        let file: ProfileFile = toml::from_str(&text).map_err(|cause| {
            Error::config(
                path.display(),
                format!("is no profile: {}", cause.to_string().trim_end()),
                "correct the file; `arca config check` reads it again",
            )
        })?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        Self::assemble(path, folder, file)
    }

    fn assemble(path: &Path, folder: &Path, file: ProfileFile) -> Result<Self> {
        let wrong = |problem: String, advice: &str| Error::config(path.display(), problem, advice);
        let kind = ClusterKind::of(&file.cluster);
        let stated = match file.kind {
            Kind::Production => ClusterKind::Production,
            Kind::Simulated => ClusterKind::Simulated,
        };
        if kind != stated {
            return Err(wrong(
                format!(
                    "cluster {:?} is {kind}, and the profile says {stated}",
                    file.cluster
                ),
                "ids of simulated clusters, and no others, begin with `sim-`; correct `cluster` or `kind`",
            ));
        }
        let pinned: Vec<[u8; 32]> = file.administrators.keys.iter().map(|key| key.0).collect();
        let manifest_path = folder.join(&file.manifest);
        let manifest = manifest_file::read(&manifest_path)?
            .verify_pinned(&pinned, file.administrators.quorum, clock::now())
            .map_err(|cause| Error::unverified(manifest_path.display(), cause))?;
        if manifest.cluster() != file.cluster {
            return Err(wrong(
                format!(
                    "is for cluster {:?}, its manifest for {:?}",
                    file.cluster,
                    manifest.cluster()
                ),
                "name the manifest of the same cluster",
            ));
        }
        let anchors = match (kind, &file.simulated_root) {
            (ClusterKind::Production, None) => TrustAnchors::production(),
            (ClusterKind::Production, Some(_)) => {
                return Err(wrong(
                    "names a simulated root for a production cluster".to_owned(),
                    "remove `simulated_root`",
                ));
            }
            // HSM parties verify under the roots in the manifest.
            (ClusterKind::Simulated, None) if !has_simulated_parties(&manifest) => {
                TrustAnchors::hsm_only()
            }
            (ClusterKind::Simulated, None) => {
                return Err(wrong(
                    "names no root for its cluster's simulated parties".to_owned(),
                    "set `simulated_root` to the root.der that `arca-enclave-simulated make-root` wrote",
                ));
            }
            (ClusterKind::Simulated, Some(root)) => read_simulated_root(&folder.join(root))?,
        };
        if file.parties.is_empty() {
            return Err(wrong(
                "names no party".to_owned(),
                "add them under [parties]",
            ));
        }
        for (name, endpoint) in &file.parties {
            if manifest.party(name).is_none() {
                return Err(wrong(
                    format!("names party {name:?}, which the manifest does not"),
                    "correct [parties] or fetch the current manifest",
                ));
            }
            check_endpoint(endpoint).map_err(|problem| {
                wrong(
                    format!("party {name}: {problem}"),
                    "write it as `host:port`",
                )
            })?;
        }
        let principal = match &file.principal {
            None => None,
            Some(principal) => Some(read_identity(&folder.join(&principal.key), &manifest)?),
        };
        Ok(Self {
            path: path.to_owned(),
            kind,
            anchors,
            manifest: Arc::new(manifest),
            principal,
            parties: file.parties,
        })
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the cluster guards anything.
    pub fn kind(&self) -> ClusterKind {
        self.kind
    }

    /// Whether the cluster is simulated.
    pub fn is_simulated(&self) -> bool {
        self.kind == ClusterKind::Simulated
    }

    /// The root that evidence has to lead to.
    pub fn anchors(&self) -> &TrustAnchors {
        &self.anchors
    }

    /// The manifest, as the pinned administrators signed it.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The principal's name in the manifest and its key.
    pub fn principal(&self) -> Option<(&str, &Arc<Identity>)> {
        self.principal
            .as_ref()
            .map(|(name, identity)| (name.as_str(), identity))
    }

    /// Addresses by party.
    pub fn parties(&self) -> &BTreeMap<String, String> {
        &self.parties
    }
}

/// Whether evidence of some party needs the root of a simulated NSM.
pub fn has_simulated_parties(manifest: &Manifest) -> bool {
    let mut parties = manifest.parties().iter();
    parties.any(|party| party.class == TrustClass::Simulated)
}

/// Reads the root certificate of a simulated cluster.
///
/// # Errors
/// [`Error::Config`] when it cannot be read or cannot be such a root.
pub fn read_simulated_root(path: &Path) -> Result<TrustAnchors> {
    let advice = "name the root.der that `arca-enclave-simulated make-root` wrote";
    let der = fs::read(path).map_err(|cause| {
        Error::config(path.display(), format!("cannot be read: {cause}"), advice)
    })?;
    TrustAnchors::simulated(&der).map_err(|cause| Error::config(path.display(), cause, advice))
}

fn read_identity(path: &Path, manifest: &Manifest) -> Result<(String, Arc<Identity>)> {
    let key = keyfile::read_principal(path)?;
    let scalar = Zeroizing::new(key.to_bytes().into());
    let identity = Identity::from_scalar(&scalar).map_err(Error::bug)?;
    let principal = manifest
        .principal_by_identity(identity.spki())
        .ok_or_else(|| {
            Error::config(
                path.display(),
                "is no key of a principal in the manifest",
                "have the administrators add its public key, or name the right key",
            )
        })?;
    Ok((principal.name.clone(), Arc::new(identity)))
}

/// Whether this is `host:port`, where host is a name, an IPv4 address, or an IPv6 address in brackets.
///
/// # Errors
/// What is wrong with it, for people.
pub fn check_endpoint(endpoint: &str) -> std::result::Result<(), String> {
    let (host, port) = endpoint
        .rsplit_once(':')
        .ok_or_else(|| format!("{endpoint:?} has no port"))?;
    if host.is_empty() || (host.contains(':') && !(host.starts_with('[') && host.ends_with(']'))) {
        return Err(format!("{endpoint:?} has no valid host"));
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err(format!("{endpoint:?} has no valid port")),
    }
}
