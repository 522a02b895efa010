//! Whom an auditor trusts: a cluster's id, the roots of its hardware, its administrators. Nothing else.
//!
//! Unlike a [`Profile`](crate::Profile) it names no manifest and no addresses: an audit years later is made without
//! the cluster, and of manifests that have long expired.

use std::fs;
use std::path::{Path, PathBuf};

use arca_attestation::manifest::{Manifest, SignedManifest};
use arca_attestation::{ClusterKind, TrustAnchors};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::profile::{Administrators, Kind, ProfileFile, PublicKey, read_simulated_root};

/// What a trust file says, in TOML. Paths in it are relative to its folder. A profile is one as well: what an audit
/// does not need is not read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustFile {
    /// The cluster's id. `sim-` begins the id of a simulated cluster.
    pub cluster: String,
    /// Production or simulated. Has to agree with the id.
    pub kind: Kind,
    /// The root of the simulated NSM, a DER certificate; only for simulated clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulated_root: Option<PathBuf>,
    /// Who may sign manifests.
    pub administrators: Administrators,
}

impl From<ProfileFile> for TrustFile {
    fn from(profile: ProfileFile) -> Self {
        Self {
            cluster: profile.cluster,
            kind: profile.kind,
            simulated_root: profile.simulated_root,
            administrators: profile.administrators,
        }
    }
}

/// What an audit starts from.
#[derive(Clone, Debug)]
pub struct Trust {
    cluster: String,
    kind: ClusterKind,
    anchors: TrustAnchors,
    administrators: Vec<[u8; 32]>,
    quorum: usize,
}

impl Trust {
    /// Puts together what an auditor was told by people.
    ///
    /// # Errors
    /// [`Error::Config`] when the anchors are none for this kind of cluster, or the quorum is none of these administrators.
    pub fn new(
        cluster: &str,
        anchors: TrustAnchors,
        administrators: &[[u8; 32]],
        quorum: usize,
    ) -> Result<Self> {
        let wrong = |problem: &str, advice: &str| Err(Error::config("trust", problem, advice));
        let kind = ClusterKind::of(cluster);
        if !anchors.suit(kind) {
            return wrong(
                "has the root of a simulated NSM for a production cluster",
                "remove `simulated_root`",
            );
        }
        let mut administrators = administrators.to_vec();
        administrators.sort_unstable();
        administrators.dedup();
        if !(1..=administrators.len()).contains(&quorum) {
            return wrong(
                "has a quorum that its administrators cannot make",
                "correct [administrators]",
            );
        }
        Ok(Self {
            cluster: cluster.to_owned(),
            kind,
            anchors,
            administrators,
            quorum,
        })
    }

    /// Reads a trust file, or a profile.
    ///
    /// # Errors
    /// [`Error::Config`] for what is missing or does not fit together.
    pub fn load(path: &Path) -> Result<Self> {
        let wrong = |problem: String, advice: &str| Error::config(path.display(), problem, advice);
        let text = fs::read_to_string(path).map_err(|cause| {
            wrong(
                format!("cannot be read: {cause}"),
                "name a trust file with --trust, or a profile with --profile",
            )
        })?;
        let file = match toml::from_str::<ProfileFile>(&text) {
            Ok(profile) => TrustFile::from(profile),
            Err(_) => toml::from_str::<TrustFile>(&text).map_err(|cause| {
                wrong(
                    format!("is no trust file: {}", cause.to_string().trim_end()),
                    "it has `cluster`, `kind`, `simulated_root` where there is one, and [administrators]",
                )
            })?,
        };
        let kind = ClusterKind::of(&file.cluster);
        let stated = match file.kind {
            Kind::Production => ClusterKind::Production,
            Kind::Simulated => ClusterKind::Simulated,
        };
        if kind != stated {
            return Err(wrong(
                format!(
                    "cluster {:?} is {kind}, and the file says {stated}",
                    file.cluster
                ),
                "ids of simulated clusters, and no others, begin with `sim-`",
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
            (ClusterKind::Simulated, None) => TrustAnchors::hsm_only(),
            (ClusterKind::Simulated, Some(root)) => {
                let folder = path.parent().unwrap_or_else(|| Path::new(""));
                read_simulated_root(&folder.join(root))?
            }
        };
        let keys: Vec<[u8; 32]> = file.administrators.keys.iter().map(|key| key.0).collect();
        Self::new(&file.cluster, anchors, &keys, file.administrators.quorum)
    }

    /// The cluster's id.
    pub fn cluster(&self) -> &str {
        &self.cluster
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

    /// The pinned administrators.
    pub fn administrators(&self) -> Vec<PublicKey> {
        self.administrators.iter().copied().map(PublicKey).collect()
    }

    /// How many of them have to have signed.
    pub fn quorum(&self) -> usize {
        self.quorum
    }

    /// Judges a manifest: a quorum of the pinned administrators has signed it, and its own quorum as well; it is of this
    /// cluster. Whether it was valid at some time is another question.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn pinned(&self, signed: &SignedManifest) -> std::result::Result<Manifest, String> {
        // Judged at a time at which it is valid: its own.
        let own = signed.verify_stored().map_err(|cause| cause.to_string())?;
        let manifest = signed
            .verify_pinned(&self.administrators, self.quorum, own.not_before())
            .map_err(|cause| cause.to_string())?;
        if manifest.cluster() != self.cluster {
            return Err(format!(
                "it is of cluster {:?}, not of {:?}",
                manifest.cluster(),
                self.cluster
            ));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn load(text: &str) -> Result<Trust> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trust.toml");
        fs::write(&path, text).unwrap();
        Trust::load(&path)
    }

    #[test]
    fn a_trust_file_and_a_profile_say_the_same() {
        let administrators = format!("[administrators]\nquorum = 1\nkeys = [\"{KEY}\"]\n");
        let short = format!("cluster = \"acme\"\nkind = \"production\"\n{administrators}");
        let profile = format!(
            "cluster = \"acme\"\nkind = \"production\"\nmanifest = \"m.json\"\n{administrators}[parties]\nceo = \"a:1\"\n"
        );
        for text in [short, profile] {
            let trust = load(&text).unwrap();
            assert_eq!((trust.cluster(), trust.quorum()), ("acme", 1));
            assert_eq!(trust.administrators().len(), 1);
            assert!(!trust.is_simulated());
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let with = |cluster: &str, kind: &str, more: &str, quorum: u8| {
            load(&format!(
                "cluster = \"{cluster}\"\nkind = \"{kind}\"\n{more}[administrators]\nquorum = {quorum}\nkeys = [\"{KEY}\", \"{KEY}\"]\n"
            ))
        };
        for (outcome, problem) in [
            (with("acme", "simulated", "", 1), "the file says simulated"),
            (
                with("sim-a", "production", "", 1),
                "the file says production",
            ),
            (
                with("acme", "production", "simulated_root = \"r\"\n", 1),
                "simulated root",
            ),
            (with("acme", "production", "more = 1\n", 1), "unknown field"),
            // One key twice is one administrator.
            (with("acme", "production", "", 2), "quorum"),
            (with("acme", "production", "", 0), "quorum"),
        ] {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains(problem), "{problem}: {error}");
        }
    }
}
