//! What a manifest may say, and what its revocations take out of it.

use std::collections::BTreeSet;

use ed25519_dalek::VerifyingKey;

use super::{Administrators, Draft, Party, Principal, Revocation};
use crate::{ClusterKind, Error, IdentityCurve, TrustClass, anchors, hsm, identity_curve, path};

/// The longest manifest that is read, in bytes.
pub(super) const MAX_BYTES: usize = 64 * 1024;

const MAX_NAME: usize = 32;
const MAX_PARTIES: usize = 32;
const MAX_HSM_ROOTS: usize = 4;
const MAX_MEASUREMENTS: usize = 16;
const MAX_ADMINISTRATORS: usize = 32;
const MAX_PRINCIPALS: usize = 128;
const MAX_REVOKED: usize = 256;

impl Draft {
    /// Every rule that needs no signature, no clock and no earlier manifest.
    pub(super) fn check(&self) -> Result<(), Error> {
        rule(
            self.version == Self::VERSION,
            "version",
            "is not one that this program knows",
        )?;
        rule(is_name(&self.cluster), "cluster", NAME_RULE)?;
        rule(self.epoch >= 1, "epoch", "counts from 1")?;
        rule(
            self.not_before < self.not_after,
            "not_after",
            "is not later than not_before",
        )?;

        let count = self.parties.len();
        rule(
            (1..=MAX_PARTIES).contains(&count),
            "parties",
            "are none, or more than 32",
        )?;
        rule(
            self.principals.len() <= MAX_PRINCIPALS,
            "principals",
            "are more than 128",
        )?;
        rule(
            self.revoked.len() <= MAX_REVOKED,
            "revoked",
            "are more than 256",
        )?;

        self.check_hsm_roots()?;
        let kind = ClusterKind::of(&self.cluster);
        for party in &self.parties {
            party.check(kind)?;
        }
        for principal in &self.principals {
            principal.check()?;
        }
        rule(
            distinct(self.parties.iter().map(|party| &party.name)),
            "parties",
            "share a name",
        )?;
        let principals = self.principals.iter();
        rule(
            distinct(principals.clone().map(|principal| &principal.name)),
            "principals",
            "share a name",
        )?;
        let identities = self.parties.iter().map(|party| &party.identity);
        let identities = identities.chain(principals.map(|principal| &principal.identity));
        rule(
            distinct(identities),
            "parties and principals",
            "share an identity",
        )?;
        self.administrators.check()
    }

    /// A root that nobody needs would stand for nothing but a mistake.
    fn check_hsm_roots(&self) -> Result<(), Error> {
        let field = "hsm_roots";
        rule(
            self.hsm_roots.len() <= MAX_HSM_ROOTS,
            field,
            "are more than 4",
        )?;
        rule(
            distinct(self.hsm_roots.iter()),
            field,
            "name one root twice",
        )?;
        for root in &self.hsm_roots {
            rule(
                !anchors::is_production_root(root),
                field,
                "name the AWS Nitro root, which certifies no HSM",
            )?;
            rule(
                root.len() <= hsm::MAX_CERTIFICATE && path::check_root(root).is_ok(),
                field,
                "name something else than the DER certificate of a P-384 authority, at most 2048 bytes long",
            )?;
        }
        let of_hsm = |party: &Party| party.class == TrustClass::Hsm;
        match (self.parties.iter().any(of_hsm), self.hsm_roots.is_empty()) {
            (true, true) => rule(false, field, "are none, and there is a party of class hsm"),
            (false, false) => rule(
                false,
                field,
                "are for parties of class hsm, and there is none",
            ),
            _ => Ok(()),
        }
    }

    /// Takes out every party and principal whose identity is revoked, and every revoked measurement.
    pub(super) fn drop_revoked(&mut self) {
        let identity_stands = |identity: &Vec<u8>| {
            !self
                .revoked
                .iter()
                .any(|entry| matches!(entry, Revocation::Identity(key) if key == identity))
        };
        let image_stands = |pcr0: &[u8; 48]| {
            !self
                .revoked
                .iter()
                .any(|entry| matches!(entry, Revocation::Pcr0(image) if image == pcr0))
        };
        self.parties
            .retain(|party| identity_stands(&party.identity));
        self.principals
            .retain(|principal| identity_stands(&principal.identity));
        for party in &mut self.parties {
            party
                .measurements
                .retain(|measurements| image_stands(&measurements.pcr0));
        }
    }
}

impl Party {
    fn check(&self, kind: ClusterKind) -> Result<(), Error> {
        rule(is_name(&self.name), "party name", NAME_RULE)?;
        rule(
            kind.admits(self.class),
            "party class",
            "does not belong in a cluster of this kind",
        )?;
        rule(
            identity_curve(&self.identity).is_some(),
            "party identity",
            IDENTITY_RULE,
        )?;
        let count = self.measurements.len();
        match self.class {
            TrustClass::Nitro | TrustClass::Simulated => {
                rule(
                    (1..=MAX_MEASUREMENTS).contains(&count),
                    "measurements",
                    "are none, or more than 16",
                )?;
            }
            TrustClass::Hsm => {
                rule(
                    count == 0,
                    "measurements",
                    "mean nothing for a party of class hsm",
                )?;
                rule(
                    identity_curve(&self.identity) == Some(IdentityCurve::P384),
                    "party identity",
                    "is no P-384 key, and the party's class is hsm",
                )?;
            }
        }
        let debug = self
            .measurements
            .iter()
            .any(|measurements| measurements.is_debug());
        rule(
            !debug,
            "measurements",
            "are those of an enclave in debug mode",
        )
    }
}

impl Principal {
    fn check(&self) -> Result<(), Error> {
        rule(is_name(&self.name), "principal name", NAME_RULE)?;
        rule(
            identity_curve(&self.identity).is_some(),
            "principal identity",
            IDENTITY_RULE,
        )?;
        rule(!self.roles.is_empty(), "roles", "are none")?;
        rule(distinct(self.roles.iter()), "roles", "are named twice")
    }
}

impl Administrators {
    fn check(&self) -> Result<(), Error> {
        let count = self.keys.len();
        rule(
            (1..=MAX_ADMINISTRATORS).contains(&count),
            "administrators",
            "are none, or more than 32",
        )?;
        for administrator in &self.keys {
            rule(
                is_name(&administrator.name),
                "administrator name",
                NAME_RULE,
            )?;
            let usable =
                VerifyingKey::from_bytes(&administrator.public_key).is_ok_and(|key| !key.is_weak());
            rule(
                usable,
                "administrator public_key",
                "is no Ed25519 key of full order",
            )?;
        }
        let keys = self.keys.iter();
        rule(
            distinct(keys.clone().map(|key| &key.name)),
            "administrators",
            "share a name",
        )?;
        rule(
            distinct(keys.map(|key| &key.public_key)),
            "administrators",
            "share a key",
        )?;
        let reachable = (1..=count).contains(&usize::from(self.quorum));
        rule(
            reachable,
            "administrators' quorum",
            "is 0, or more than there are administrators",
        )
    }
}

const NAME_RULE: &str = "is not 1 to 32 of a-z, 0-9 and -";
const IDENTITY_RULE: &str = "is not the canonical SubjectPublicKeyInfo of a P-256 or P-384 key";

fn rule(holds: bool, field: &'static str, problem: &'static str) -> Result<(), Error> {
    if holds {
        Ok(())
    } else {
        Err(Error::ManifestField { field, problem })
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

fn distinct<T: Ord>(items: impl Iterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    let mut items = items;
    items.all(|item| seen.insert(item))
}
