//! A log's checkpoint: of the root that its files come to, signed, and witnessed.

use std::collections::{BTreeMap, BTreeSet};

use arca_audit::Hash;
use arca_audit::cosignature::CosignedCheckpoint;
use arca_audit::entry;
use arca_audit::note::{KeyKind, KeyName, SignedNote, VerifierKey};

use super::finding::{Code, Finding};
use super::report::LogSummary;
use super::shared::{LogFacts, Shared};
use super::tiles::LogFiles;
use super::trust::Trust;
use super::verify::ExportPolicy;
use crate::clock;

/// The checkpoint is that of the root that was computed, signed by the log's key, and witnessed. Gives the parties that
/// cosigned.
pub(super) fn check(
    shared: &mut Shared<'_>,
    facts: &[LogFacts],
    log: &LogFacts,
    root: Option<&Hash>,
    policy: &ExportPolicy,
    summary: &mut LogSummary,
) -> BTreeSet<String> {
    let (party, number) = (log.exported.party.clone(), log.exported.log);
    let finding = |code: Code, message: String| Finding::new(code, message).of(&party, number);
    let files = LogFiles {
        source: shared.source,
        party: &party,
        log: number,
        size: log.exported.size,
    };
    let Some(log_key) = log.log_key else {
        if root.is_none() {
            // It could not be read, and that has been said.
            return BTreeSet::new();
        }
        let message = "no start of this log is here, so its key is not known".to_owned();
        shared.find(finding(Code::CheckpointUnsigned, message));
        return BTreeSet::new();
    };
    let note = match files.checkpoint() {
        Ok(Some(note)) => note,
        Ok(None) => {
            shared.find(finding(
                Code::FileMissing,
                "its checkpoint is not here".to_owned(),
            ));
            return BTreeSet::new();
        }
        Err(cause) => {
            shared.find(finding(
                Code::FileMalformed,
                format!("its checkpoint: {cause}"),
            ));
            return BTreeSet::new();
        }
    };
    let others: Vec<(String, VerifierKey)> = witness_keys(shared.trust, facts)
        .into_iter()
        .filter(|(name, _)| *name != party)
        .collect();
    let name = origin(shared.trust, &party, number);
    let verified = key(&name, KeyKind::Ed25519, &log_key).and_then(|log_key| {
        let note = SignedNote::parse(&note).map_err(|cause| cause.to_string())?;
        let parties: Vec<VerifierKey> = others.iter().map(|(_, key)| key.clone()).collect();
        let by_parties = CosignedCheckpoint::verify_note(&note, &log_key, &parties)
            .map_err(|cause| cause.to_string())?;
        let external = CosignedCheckpoint::verify_note(&note, &log_key, &policy.witnesses)
            .map_err(|cause| cause.to_string())?;
        Ok((by_parties, external))
    });
    let (by_parties, external) = match verified {
        Ok(verified) => verified,
        Err(why) => {
            shared.find(finding(Code::CheckpointUnsigned, why));
            return BTreeSet::new();
        }
    };
    let signed = by_parties.checkpoint();
    if signed.size != log.exported.size || root.is_some_and(|root| signed.root != *root) {
        let message = format!(
            "the checkpoint is of {} entries with another root than these files",
            signed.size
        );
        shared.find(finding(Code::TileMismatch, message));
    }
    let cosignatures = by_parties
        .cosignatures()
        .iter()
        .chain(external.cosignatures());
    summary.cosigned = cosignatures
        .map(|cosignature| {
            let time = arca_attestation::UnixMillis(cosignature.time.saturating_mul(1000));
            (cosignature.key.name().to_string(), clock::show(time))
        })
        .collect();
    if by_parties.cosignatures().is_empty() && !others.is_empty() {
        let message = "no other party has cosigned the checkpoint".to_owned();
        shared.find(finding(Code::Unwitnessed, message));
    }
    if external.cosignatures().len() < policy.needed {
        let message = format!(
            "{} of the {} external witnesses have cosigned, {} are needed",
            external.cosignatures().len(),
            policy.witnesses.len(),
            policy.needed
        );
        shared.find(finding(Code::WitnessMissing, message));
    }
    let cosigned = |key: &VerifierKey| by_parties.cosignatures().iter().any(|by| by.key == *key);
    others
        .iter()
        .filter(|(_, key)| cosigned(key))
        .map(|(name, _)| name.clone())
        .collect()
}

fn key(name: &str, kind: KeyKind, key: &[u8; 32]) -> std::result::Result<VerifierKey, String> {
    let name: KeyName = name
        .parse()
        .map_err(|cause: arca_audit::Error| cause.to_string())?;
    VerifierKey::new(name, kind, key).map_err(|cause| cause.to_string())
}

/// Each party's witness key, of its newest log.
fn witness_keys(trust: &Trust, facts: &[LogFacts]) -> BTreeMap<String, VerifierKey> {
    facts
        .iter()
        .filter_map(|log| {
            let party = &log.exported.party;
            let name = entry::witness_name(&trust.kind().to_string(), trust.cluster(), party);
            let key = key(&name, KeyKind::CosignatureV1, &log.witness_key?).ok()?;
            Some((party.clone(), key))
        })
        .collect()
}

/// The name of a party's log in notes.
pub(super) fn origin(trust: &Trust, party: &str, log: u64) -> String {
    entry::origin(&trust.kind().to_string(), trust.cluster(), party, log)
}
