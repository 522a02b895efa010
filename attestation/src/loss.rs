//! What administrators sign when a party's newest sealed state is gone, or when a peer whose word it waits for is.
//!
//! Without it, a party that starts with less than its peers saw does not serve: its host may have gone back to an
//! older state on purpose. JSON, signed as exact bytes by the quorum of the manifest in force (Ed25519).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha384};

use crate::Error;
use crate::manifest::Manifest;
use crate::manifest::signed::{check_count, check_quorum_of, framed};
use crate::tags::{self, update_framed};

/// The longest acceptance that is read, in bytes.
const MAX_BYTES: usize = 16 * 1024;
const MAX_REASON: usize = 200;

/// What an acceptance says. The field names are the JSON's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// Version of this format: [`Draft::VERSION`].
    pub version: u32,
    /// The cluster's id.
    pub cluster: String,
    /// Epoch of the manifest in force.
    pub manifest_epoch: u64,
    /// The party whose later state is given up.
    pub party: String,
    /// The highest sequence that any peer saw of it: everything after `found_sequence` up to here is lost.
    pub lost_sequence: u64,
    /// The sequence of the state that the party has; at most `lost_sequence`.
    pub found_sequence: u64,
    /// The head of that state: 32 bytes, hexadecimal in JSON.
    #[serde(with = "hex::serde")]
    pub found_head: [u8; 32],
    /// Peers whose word the party need not wait for in this one boot, because they are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waived_peers: Vec<String>,
    /// The boot that `waived_peers` is for: 16 bytes, hexadecimal in JSON. Present when there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<BootId>,
    /// For those who read it later: 1 to 200 printable characters.
    pub reason: String,
}

/// Drawn by an enclave at its start. Hexadecimal in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(#[serde(with = "hex::serde")] pub [u8; 16]);

impl Draft {
    /// The format's version.
    pub const VERSION: u32 = 1;

    /// The bytes to sign: JSON for people to read.
    ///
    /// # Errors
    /// [`Error::LossAcceptance`] when no enclave would accept them.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|_| malformed())?;
        parse(&bytes)?;
        Ok(bytes)
    }

    fn check(&self) -> Result<(), Error> {
        rule(self.version == Self::VERSION, "version", "is not known")?;
        rule(
            self.found_sequence <= self.lost_sequence,
            "found_sequence",
            "is above lost_sequence: nothing is lost",
        )?;
        rule(
            self.lost_sequence < u64::MAX,
            "lost_sequence",
            "has no successor",
        )?;
        let mut waived: Vec<_> = self.waived_peers.iter().collect();
        waived.sort();
        waived.dedup();
        rule(
            waived.len() == self.waived_peers.len() && !waived.contains(&&self.party),
            "waived_peers",
            "name a party twice, or the party itself",
        )?;
        rule(
            self.boot_id.is_some() != self.waived_peers.is_empty(),
            "boot_id",
            "belongs with waived_peers, and only there",
        )?;
        let length = self.reason.chars().count();
        let printable = self.reason.chars().all(is_printable);
        rule(
            (1..=MAX_REASON).contains(&length) && printable,
            "reason",
            "is not 1 to 200 printable characters",
        )
    }
}

/// Reads an acceptance that nobody may have signed yet, for administrators to look at before they do.
///
/// # Errors
/// [`Error::LossAcceptance`].
pub fn parse(bytes: &[u8]) -> Result<Draft, Error> {
    rule(bytes.len() <= MAX_BYTES, "length", "is above 16 KiB")?;
    let draft: Draft = serde_json::from_slice(bytes).map_err(|_| malformed())?;
    draft.check()?;
    Ok(draft)
}

/// What administrators sign (Ed25519) to accept a loss.
pub fn signing_bytes(acceptance: &[u8]) -> Vec<u8> {
    framed(tags::LOSS_ACCEPTANCE, acceptance)
}

/// An acceptance's exact bytes and signatures over them. Nothing is verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedLossAcceptance {
    /// JSON.
    pub bytes: Vec<u8>,
    /// Ed25519 public keys of administrators, and their signatures over [`signing_bytes`].
    pub signatures: Vec<([u8; 32], [u8; 64])>,
}

impl SignedLossAcceptance {
    /// A quorum of the administrators of the manifest in force has signed it, for a party of that cluster.
    ///
    /// # Errors
    /// See [`Error`]: shape, signatures, quorum, cluster, epoch, or party.
    ///
    /// # Security
    /// Says nothing about which state the party has: the party compares that itself, so that an acceptance is good
    /// for one state, once.
    pub fn verify(&self, manifest: &Manifest) -> Result<LossAcceptance, Error> {
        check_count(&self.signatures)?;
        let draft = parse(&self.bytes)?;
        let message = signing_bytes(&self.bytes);
        check_quorum_of("current", manifest, &message, &self.signatures)?;
        rule(
            draft.cluster == manifest.cluster(),
            "cluster",
            "is another one",
        )?;
        rule(
            draft.manifest_epoch == manifest.epoch(),
            "manifest_epoch",
            "is not that of the manifest in force",
        )?;
        let known = |name: &String| manifest.party(name).is_some();
        rule(known(&draft.party), "party", "is not in the manifest")?;
        rule(
            draft.waived_peers.iter().all(known),
            "waived_peers",
            "are not in the manifest",
        )?;
        Ok(LossAcceptance {
            draft,
            digest: Sha384::digest(&self.bytes).into(),
        })
    }
}

/// An acceptance that a quorum signed. Comes out of [`SignedLossAcceptance`] alone.
#[derive(Clone, Debug)]
pub struct LossAcceptance {
    draft: Draft,
    digest: [u8; 48],
}

impl LossAcceptance {
    /// What it says.
    pub fn draft(&self) -> &Draft {
        &self.draft
    }

    /// SHA-384 of its bytes.
    pub fn digest(&self) -> [u8; 48] {
        self.digest
    }

    /// The sequence that the party goes on from: above all that its peers saw.
    pub fn resumed_sequence(&self) -> u64 {
        // `check` has refused the greatest number.
        self.draft.lost_sequence.saturating_add(1)
    }

    /// The head that the party goes on from. Names the state that was found and the acceptance.
    pub fn resumed_head(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let tag = tags::RESUMED_HEAD.as_bytes();
        update_framed(&mut hash, &[tag, &self.draft.found_head, &self.digest]);
        hash.finalize().into()
    }
}

/// Administrators read the reason before they sign, so nothing in it may change how the rest is shown: no control
/// characters, and none that turn the direction of writing.
fn is_printable(c: char) -> bool {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !turns
}

fn malformed() -> Error {
    Error::LossAcceptance {
        field: "JSON",
        problem: "is not of the expected shape",
    }
}

fn rule(holds: bool, field: &'static str, problem: &'static str) -> Result<(), Error> {
    if holds {
        Ok(())
    } else {
        Err(Error::LossAcceptance { field, problem })
    }
}
