//! A signature certificate, verified step by step with the trust anchors alone.
//!
//! No I/O, no clock: the same bytes give the same report on every machine and in every year.

use std::collections::BTreeSet;

use arca_attestation::UnixMillis;
use arca_attestation::manifest::{Manifest, signing_bytes};
use arca_audit::bundle::TlogProof;
use arca_audit::certificate::{Certificate, Party};
use arca_audit::checkpoint::Checkpoint;
use arca_audit::cosignature::CosignedCheckpoint;
use arca_audit::entry::{self, Entry, Event, SigningIntent};
use arca_audit::leaf_hash;
use arca_audit::note::{KeyKind, KeyName, VerifierKey};
use arca_policy::Intent;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::files::{every_signature, signed_manifest};
use super::instance;
use super::request::{self, Problem};
use super::trust::Trust;
use crate::appraisal::{Check, Outcome};
use crate::clock;
use crate::resources::Key;

/// How far a party's clock may be behind the initiator's or the manifest's.
const CLOCK_SKEW_MS: u64 = 5 * 60 * 1000;

/// What beyond the certificate itself is asked for.
#[derive(Clone, Debug, Default)]
pub struct CertificatePolicy {
    /// External witnesses that are trusted.
    pub witnesses: Vec<VerifierKey>,
    /// How many of those have to have cosigned each checkpoint.
    pub needed: usize,
    /// The public key that has to have signed, as its scheme writes it: of the key itself, not of one below it.
    pub public_key: Option<Vec<u8>>,
}

/// What came of a certificate.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateReport {
    /// Whether every step passed.
    pub verified: bool,
    /// The step that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Every step, in the order in which they are made.
    pub checks: Vec<Check>,
    /// What was signed; only when every step passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<Signed>,
}

/// What a certificate shows.
#[derive(Clone, Debug, Serialize)]
pub struct Signed {
    /// The cluster.
    pub cluster: String,
    /// Who asked.
    pub initiator: String,
    /// What the payload does, in words.
    pub what: String,
    /// `keys/…`
    pub key: String,
    /// From that key to the one that signed.
    pub derivation_path: String,
    /// Each signature, hex.
    pub signatures: Vec<String>,
    /// The parties that signed, with what ran there.
    pub parties: Vec<SignedBy>,
}

/// One party that signed.
#[derive(Clone, Debug, Serialize)]
pub struct SignedBy {
    /// Its name.
    pub party: String,
    /// When its enclave logged the intent, RFC 3339.
    pub time: String,
    /// Its class: what its evidence proves.
    pub class: String,
    /// PCR 0, hex; an HSM has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcr0: Option<String>,
    /// Index of the intent in its log.
    pub index: u64,
    /// Size of the log under the checkpoint.
    pub size: u64,
    /// Who cosigned the checkpoint.
    pub cosigned: Vec<String>,
}

/// Verifies a certificate's bytes.
pub fn verify(bytes: &[u8], trust: &Trust, policy: &CertificatePolicy) -> CertificateReport {
    let mut steps = Steps::default();
    let signed = walk(&mut steps, bytes, trust, policy);
    CertificateReport {
        verified: !steps.failed && signed.is_some(),
        failed: steps
            .checks
            .iter()
            .find(|check| check.outcome == Outcome::Failed)
            .map(|check| check.check.clone()),
        signed: signed.filter(|_| !steps.failed),
        checks: steps.checks,
    }
}

/// The steps so far. After one that failed the others are listed and not made.
#[derive(Default)]
struct Steps {
    checks: Vec<Check>,
    failed: bool,
}

impl Steps {
    /// Makes a step, unless one failed before. `make` gives a value and what was found.
    fn step<T>(
        &mut self,
        name: impl Into<String>,
        rule: impl Into<String>,
        make: impl FnOnce() -> Result<(T, String), Problem>,
    ) -> Option<T> {
        let (outcome, detail, value) = if self.failed {
            (Outcome::NotReached, None, None)
        } else {
            match make() {
                Ok((value, detail)) => {
                    let detail = Some(detail).filter(|detail| !detail.is_empty());
                    (Outcome::Passed, detail, Some(value))
                }
                Err(problem) => (Outcome::Failed, Some(problem), None),
            }
        };
        self.failed |= outcome == Outcome::Failed;
        self.checks.push(Check {
            check: name.into(),
            rule: rule.into(),
            outcome,
            detail,
        });
        value
    }

    fn not_asked(&mut self, name: &str, rule: &str, detail: &str) {
        self.checks.push(Check {
            check: name.to_owned(),
            rule: rule.to_owned(),
            outcome: if self.failed {
                Outcome::NotReached
            } else {
                Outcome::NotAsked
            },
            detail: (!self.failed).then(|| detail.to_owned()),
        });
    }
}

/// What a step before has given. Steps after a failed one are not made, so it is there.
fn given<T>(value: Option<&T>) -> Result<&T, Problem> {
    value.ok_or_else(|| "a step before has failed".to_owned())
}

fn walk(
    steps: &mut Steps,
    bytes: &[u8],
    trust: &Trust,
    policy: &CertificatePolicy,
) -> Option<Signed> {
    let certificate = steps.step("decode", "a certificate in its one canonical form", || {
        let certificate = Certificate::decode(bytes).map_err(|cause| cause.to_string())?;
        Ok((certificate, format!("{} bytes", bytes.len())))
    });
    let certificate = certificate.as_ref();
    let manifest = steps.step(
        "manifest",
        format!(
            "manifest of cluster {:?} ({}), signed by {} of the {} pinned administrators and by its own quorum",
            trust.cluster(),
            trust.kind(),
            trust.quorum(),
            trust.administrators().len()
        ),
        || {
            let signed = signed_manifest(&given(certificate)?.manifest);
            every_signature(&signing_bytes(&signed.bytes), &signed.signatures)?;
            let manifest = trust.pinned(&signed)?;
            let detail = format!("epoch {}, {} signatures", manifest.epoch(), signed.signatures.len());
            Ok((manifest, detail))
        },
    );
    let manifest = manifest.as_ref();
    steps.step(
        "authorization",
        "an initiator of that manifest has signed the request",
        || {
            Ok((
                (),
                request::authorized(given(manifest)?, &given(certificate)?.request)?,
            ))
        },
    );
    let key = steps.step("key", "the key is one of its scheme", || {
        let key = request::key(&given(certificate)?.key)?;
        let detail = format!(
            "{}, {}, {} of {}, public key {}",
            key.name,
            key.scheme.as_str(),
            key.threshold,
            key.parties.join(", "),
            hex::encode(key.public_key.as_bytes())
        );
        Ok((key, detail))
    });
    let key = key.as_ref();
    const EXPECTED_KEY: &str = "its public key is the expected one";
    match &policy.public_key {
        None => steps.not_asked(
            "public_key",
            EXPECTED_KEY,
            "compare it with what you know of the key, such as its address",
        ),
        Some(expected) => {
            steps.step("public_key", EXPECTED_KEY, || {
                if given(key)?.public_key.as_bytes() == expected.as_slice() {
                    Ok(((), String::new()))
                } else {
                    Err(format!("expected {}", hex::encode(expected)))
                }
            });
        }
    }
    let intent = steps.step(
        "payload",
        "every party's decoder understands the payload for this key",
        || {
            let intent = request::decode(given(key)?, &given(certificate)?.request)?;
            let summary = intent.summary().to_owned();
            Ok((intent, summary))
        },
    );
    let intent = intent.as_ref();
    steps.step(
        "signatures",
        "one signature for each thing to sign, each valid under the key at the request's path",
        || {
            let certificate = given(certificate)?;
            request::signed(
                given(key)?,
                &certificate.request,
                given(intent)?,
                &certificate.signatures,
            )?;
            Ok(((), format!("{}", certificate.signatures.len())))
        },
    );
    steps.step(
        "threshold",
        "as many different parties of the key as it needs have signed",
        || threshold(given(certificate)?, given(key)?, given(manifest)?),
    );
    let names = certificate.map(|certificate| certificate.parties.iter());
    let mut parties = Vec::new();
    let mut first_intent = None;
    for party in names.into_iter().flatten() {
        let signed_by = walk_party(
            steps,
            &mut first_intent,
            party,
            trust,
            policy,
            certificate,
            manifest,
        );
        parties.extend(signed_by);
    }
    signed(certificate?, manifest?, intent?, parties)
}

fn threshold(
    certificate: &Certificate,
    key: &Key,
    manifest: &Manifest,
) -> Result<((), String), Problem> {
    if let Some(name) = key
        .parties
        .iter()
        .find(|name| manifest.party(name).is_none())
    {
        return Err(format!("the manifest names no party {name:?}"));
    }
    let names: Vec<&str> = certificate
        .parties
        .iter()
        .map(|party| party.party.as_str())
        .collect();
    let different: BTreeSet<&str> = names.iter().copied().collect();
    if different.len() != names.len() {
        return Err("a party is there twice".to_owned());
    }
    if let Some(other) = names
        .iter()
        .find(|name| !key.parties.iter().any(|party| party == *name))
    {
        return Err(format!("{other:?} holds no share of the key"));
    }
    let enough = usize::try_from(key.threshold).is_ok_and(|threshold| names.len() >= threshold);
    if enough {
        Ok(((), names.join(", ")))
    } else {
        Err(format!(
            "{} of the {} that the key needs",
            names.len(),
            key.threshold
        ))
    }
}

#[allow(clippy::too_many_arguments)]
fn walk_party(
    steps: &mut Steps,
    first_intent: &mut Option<SigningIntent>,
    party: &Party,
    trust: &Trust,
    policy: &CertificatePolicy,
    certificate: Option<&Certificate>,
    manifest: Option<&Manifest>,
) -> Option<SignedBy> {
    let name = &party.party;
    let entry = steps.step(
        format!("entry_{name}"),
        format!("{name}: a log entry in its one form that announces this request, key, session and these signers"),
        || {
            let certificate = given(certificate)?;
            let entry = Entry::decode(party.entry.as_bytes()).map_err(|cause| cause.to_string())?;
            let intent = announces(&entry, certificate, trust.cluster(), name)?;
            agree(first_intent, intent)?;
            let detail = format!("made {}", clock::show_precisely(UnixMillis(entry.time_ms)));
            Ok((entry, detail))
        },
    );
    let entry = entry.as_ref();
    steps.step(
        format!("time_{name}"),
        format!("{name}: made while manifest and request were valid"),
        || {
            let time = given(entry)?.time_ms;
            let (manifest, request) = (given(manifest)?, &given(certificate)?.request);
            let later = |limit: u64| time > limit.saturating_add(CLOCK_SKEW_MS);
            if time.saturating_add(CLOCK_SKEW_MS) < manifest.not_before().0
                || later(manifest.not_after().0)
            {
                return Err("the manifest was not valid then".to_owned());
            }
            if later(request.expire_ms) {
                return Err("the request had expired".to_owned());
            }
            Ok(((), String::new()))
        },
    );
    let facts = steps.step(
        format!("evidence_{name}"),
        format!("{name}: evidence of an enclave or HSM that the manifest allows, for this instance and its log's keys"),
        || {
            let (entry, manifest) = (given(entry)?, given(manifest)?);
            if entry.manifest.0 != manifest.digest() {
                return Err("its entry was made under another manifest".to_owned());
            }
            if entry.evidence.0 != <[u8; 32]>::from(Sha256::digest(&party.evidence.0)) {
                return Err("its entry names other evidence".to_owned());
            }
            let claim = instance::Claim {
                party: name,
                boot: &entry.boot.0,
                log_key: &party.log_key.0,
                witness_key: &party.witness_key.0,
            };
            let facts = instance::verify(trust, manifest, claim, &party.evidence.0)?;
            let pcr0 = facts.measurements().map_or_else(
                || "an HSM: custody of the key, not which code runs".to_owned(),
                |measurements| format!("PCR 0 {}", hex::encode(measurements.pcr0)),
            );
            let detail = format!("class {}, {pcr0}", facts.class());
            Ok((facts, detail))
        },
    );
    let proof = steps.step(
        format!("log_{name}"),
        format!("{name}: the entry is in its log, under a checkpoint that the log's key signed"),
        || {
            let bundle =
                TlogProof::parse(party.proof.as_bytes()).map_err(|cause| cause.to_string())?;
            if !bundle.extra.is_empty() {
                return Err("the proof has extra data, which nobody vouches for".to_owned());
            }
            let key = log_key(trust, party, &bundle)?;
            let leaf = leaf_hash(party.entry.as_bytes());
            let verified = bundle
                .verify(&leaf, &key, &[])
                .map_err(|cause| cause.to_string())?;
            let (index, checkpoint) = (bundle.index, verified.checkpoint());
            let detail = format!(
                "entry {index} of {}, {}",
                checkpoint.size, checkpoint.origin
            );
            Ok(((bundle, key, checkpoint.size), detail))
        },
    );
    let cosigned = steps.step(
        format!("witnessed_{name}"),
        format!("{name}: the checkpoint is cosigned by another party of this certificate"),
        || {
            let (bundle, key, _) = given(proof.as_ref())?;
            let others = given(certificate)?
                .parties
                .iter()
                .filter(|other| other.party != *name);
            let keys = others
                .map(|other| witness_key(trust, other))
                .collect::<Result<Vec<_>, _>>()?;
            let names = cosigners(bundle, key, &keys)?;
            if names.is_empty() && !keys.is_empty() {
                return Err("nobody else vouches for this history of the log".to_owned());
            }
            let detail = names.join(", ");
            Ok((names, detail))
        },
    );
    if !policy.witnesses.is_empty() || policy.needed > 0 {
        steps.step(
            format!("external_{name}"),
            format!(
                "{name}: cosigned by {} of the {} external witnesses",
                policy.needed,
                policy.witnesses.len()
            ),
            || {
                let (bundle, key, _) = given(proof.as_ref())?;
                let names = cosigners(bundle, key, &policy.witnesses)?;
                if names.len() < policy.needed {
                    return Err(format!("by {}: {}", names.len(), names.join(", ")));
                }
                Ok(((), names.join(", ")))
            },
        );
    }
    let (bundle, _, size) = proof?;
    let facts = facts?;
    Some(SignedBy {
        party: name.clone(),
        time: clock::show_precisely(UnixMillis(entry?.time_ms)),
        class: facts.class().to_string(),
        pcr0: facts
            .measurements()
            .map(|measurements| hex::encode(measurements.pcr0)),
        index: bundle.index,
        size,
        cosigned: cosigned?,
    })
}

/// The entry is an intent for exactly what the certificate shows.
fn announces<'a>(
    entry: &'a Entry,
    certificate: &Certificate,
    cluster: &str,
    party: &str,
) -> Result<&'a SigningIntent, Problem> {
    let Event::SigningIntent(intent) = &entry.event else {
        return Err("it announces no signature".to_owned());
    };
    let differs = |what: &str| Err(format!("it is for another {what}"));
    if intent.request.0 != request::commitment(cluster, &certificate.request) {
        return differs("request");
    }
    if intent.session != certificate.session {
        return differs("session");
    }
    if intent.key != certificate.key.name
        || intent.epoch != certificate.key.epoch
        || intent.key_record.0 != certificate.key.digest()
    {
        return differs("key");
    }
    let signers: BTreeSet<&str> = intent.signers.iter().map(String::as_str).collect();
    let parties: BTreeSet<&str> = certificate
        .parties
        .iter()
        .map(|party| party.party.as_str())
        .collect();
    if signers != parties || signers.len() != intent.signers.len() {
        return differs("set of signers");
    }
    if !signers.contains(party) || !signers.contains(intent.coordinator.as_str()) {
        return differs("party");
    }
    Ok(intent)
}

/// All parties were told the same of the session.
fn agree(first: &mut Option<SigningIntent>, intent: &SigningIntent) -> Result<(), Problem> {
    let first = first.get_or_insert_with(|| intent.clone());
    if first.coordinator == intent.coordinator && first.signers == intent.signers {
        Ok(())
    } else {
        Err("it names another coordinator or order of signers than the first party's".to_owned())
    }
}

/// The log's key under the origin that the checkpoint names, which has to be one of this party's.
fn log_key(trust: &Trust, party: &Party, bundle: &TlogProof) -> Result<VerifierKey, Problem> {
    let claimed: Result<Checkpoint, _> = bundle.checkpoint.text().parse();
    let checkpoint = claimed.map_err(|cause: arca_audit::Error| cause.to_string())?;
    let origin = checkpoint.origin.as_str();
    let kind = trust.kind().to_string();
    let number = origin
        .rsplit_once('/')
        .and_then(|(_, number)| number.parse::<u64>().ok())
        .filter(|number| {
            *number > 0 && entry::origin(&kind, trust.cluster(), &party.party, *number) == origin
        });
    if number.is_none() {
        return Err(format!("the checkpoint is of another log: {origin:?}"));
    }
    VerifierKey::new(
        checkpoint.origin.clone(),
        KeyKind::Ed25519,
        &party.log_key.0,
    )
    .map_err(|cause| cause.to_string())
}

fn witness_key(trust: &Trust, party: &Party) -> Result<VerifierKey, Problem> {
    let name = entry::witness_name(&trust.kind().to_string(), trust.cluster(), &party.party);
    let name: KeyName = name
        .parse()
        .map_err(|cause: arca_audit::Error| cause.to_string())?;
    VerifierKey::new(name, KeyKind::CosignatureV1, &party.witness_key.0)
        .map_err(|cause| cause.to_string())
}

/// The names of those of `keys` that cosigned.
fn cosigners(
    bundle: &TlogProof,
    log_key: &VerifierKey,
    keys: &[VerifierKey],
) -> Result<Vec<String>, Problem> {
    let cosigned = CosignedCheckpoint::verify_note(&bundle.checkpoint, log_key, keys)
        .map_err(|cause| cause.to_string())?;
    Ok(cosigned
        .cosignatures()
        .iter()
        .map(|cosignature| cosignature.key.name().to_string())
        .collect())
}

fn signed(
    certificate: &Certificate,
    manifest: &Manifest,
    intent: &Intent,
    parties: Vec<SignedBy>,
) -> Option<Signed> {
    (parties.len() == certificate.parties.len()).then(|| Signed {
        cluster: manifest.cluster().to_owned(),
        initiator: certificate.request.initiator.clone(),
        what: intent.summary().to_owned(),
        key: certificate.key.name.clone(),
        derivation_path: certificate
            .request
            .derivation_path
            .iter()
            .fold("m".to_owned(), |path, step| format!("{path}/{step}")),
        signatures: certificate
            .signatures
            .iter()
            .map(|signature| signature.signature.to_string())
            .collect(),
        parties,
    })
}
