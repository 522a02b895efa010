//! The manifests that an export holds, and who vouches for each.

use std::collections::BTreeMap;

use arca_attestation::UnixMillis;
use arca_attestation::manifest::{Manifest, SignedManifest};

use super::finding::{Code, Finding, Findings};
use super::report::ManifestSummary;
use super::trust::Trust;
use crate::clock;

/// Manifests by SHA-384, those alone that are vouched for.
#[derive(Default)]
pub(super) struct Manifests {
    known: BTreeMap<[u8; 48], Known>,
}

struct Known {
    manifest: Manifest,
    vouched_by: String,
}

impl Manifests {
    /// Finds out which of `found` are the cluster's: those that the pinned administrators have signed, and those that a
    /// manifest before has handed over to. Two of one epoch are a finding.
    pub fn judge(
        trust: &Trust,
        found: &BTreeMap<[u8; 48], Vec<SignedManifest>>,
        findings: &mut Findings,
    ) -> Self {
        let mut by_epoch: Vec<(u64, [u8; 48])> = Vec::new();
        let mut stored: BTreeMap<[u8; 48], &Vec<SignedManifest>> = BTreeMap::new();
        for (digest, copies) in found {
            match copies.iter().find_map(|copy| copy.verify_stored().ok()) {
                Some(manifest) => {
                    by_epoch.push((manifest.epoch(), *digest));
                    stored.insert(*digest, copies);
                }
                None => refuse(findings, digest, "its own quorum has not signed it"),
            }
        }
        by_epoch.sort_unstable();
        let mut manifests = Self::default();
        let mut last: Option<Manifest> = None;
        for (epoch, digest) in by_epoch {
            let copies = stored
                .get(&digest)
                .map_or(&[][..], |copies| copies.as_slice());
            let pinned = copies.iter().find_map(|copy| trust.pinned(copy).ok());
            let judged = match (pinned, &last) {
                (Some(manifest), _) => Some((manifest, "the pinned administrators".to_owned())),
                (None, Some(before)) => next(before, copies).map(|manifest| {
                    let by = format!("the administrators of epoch {}", before.epoch());
                    (manifest, by)
                }),
                (None, None) => None,
            };
            let Some((manifest, vouched_by)) = judged else {
                refuse(
                    findings,
                    &digest,
                    "neither the pinned administrators nor those of the manifest before have signed it",
                );
                continue;
            };
            if last.as_ref().is_some_and(|last| last.epoch() == epoch) {
                refuse(
                    findings,
                    &digest,
                    "there are two different ones of this epoch",
                );
            }
            last = Some(manifest.clone());
            manifests.known.insert(
                digest,
                Known {
                    manifest,
                    vouched_by,
                },
            );
        }
        manifests
    }

    pub fn get(&self, digest: &[u8; 48]) -> Option<&Manifest> {
        self.known.get(digest).map(|known| &known.manifest)
    }

    /// The one with the highest epoch.
    pub fn latest(&self) -> Option<&Manifest> {
        self.known
            .values()
            .map(|known| &known.manifest)
            .max_by_key(|manifest| manifest.epoch())
    }

    pub fn summaries(&self) -> Vec<ManifestSummary> {
        let mut known: Vec<&Known> = self.known.values().collect();
        known.sort_by_key(|known| known.manifest.epoch());
        known.into_iter().map(summary).collect()
    }
}

fn next(before: &Manifest, copies: &[SignedManifest]) -> Option<Manifest> {
    copies.iter().find_map(|copy| {
        // Judged at a time at which it is valid; that entries were made then is looked at with each of them.
        let own = copy.verify_stored().ok()?;
        copy.verify_next(before, own.not_before()).ok()
    })
}

fn refuse(findings: &mut Findings, digest: &[u8; 48], why: &str) {
    findings.add(Finding::new(
        Code::ManifestRefused,
        format!("manifest {}: {why}", hex::encode(digest)),
    ));
}

fn summary(known: &Known) -> ManifestSummary {
    let manifest = &known.manifest;
    let time = |time: UnixMillis| clock::show(time);
    ManifestSummary {
        epoch: manifest.epoch(),
        digest: hex::encode(manifest.digest()),
        not_before: time(manifest.not_before()),
        not_after: time(manifest.not_after()),
        vouched_by: known.vouched_by.clone(),
        parties: manifest
            .parties()
            .iter()
            .map(|party| format!("{} ({})", party.name, party.class))
            .collect(),
        quorum: format!(
            "{} of {}",
            manifest.administrators().quorum,
            manifest.administrators().keys.len()
        ),
    }
}
