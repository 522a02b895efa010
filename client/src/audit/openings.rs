//! Openings: what a commitment stands for, and that the signatures are of that.

use arca_attestation::UnixMillis;
use arca_audit::certificate::Opening;
use arca_audit::entry::{Entry, Event};
use sha2::{Digest as _, Sha256};

use super::finding::{Code, Finding};
use super::ledger::Ledger;
use super::record::What;
use super::request;
use super::shared::Shared;
use crate::clock;

/// Looks at a bundle's openings. `entries` are those of the bundle that could be read, by index.
pub(super) fn check(
    shared: &mut Shared<'_>,
    ledger: &Ledger<'_>,
    (party, log): (&str, u64),
    lines: &[u8],
    entries: &[(u64, Entry)],
) {
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let parsed = parse(line);
        let index = parsed.as_ref().map_or(0, |opening| opening.index);
        let outcome = parsed
            .and_then(|opening| open(shared, &opening, entries).map(|digests| (opening, digests)));
        match outcome {
            Ok((opening, digests)) => {
                ledger.record(
                    shared,
                    opening.session.0,
                    opening.index,
                    What::Opened(digests),
                );
            }
            Err(why) => {
                shared.find(Finding::new(Code::Opening, why).of(party, log).at(index));
            }
        }
    }
}

/// One form of each, as everywhere.
fn parse(line: &[u8]) -> Result<Opening, String> {
    let opening: Opening =
        serde_json::from_slice(line).map_err(|_| "it is not the JSON of an opening".to_owned())?;
    let mut canonical = serde_json::to_vec(&opening).map_err(|cause| cause.to_string())?;
    canonical.push(b'\n');
    if canonical == line {
        Ok(opening)
    } else {
        Err("it is not in canonical form".to_owned())
    }
}

/// Gives the digest of each signature.
fn open(
    shared: &Shared<'_>,
    opening: &Opening,
    entries: &[(u64, Entry)],
) -> Result<Vec<[u8; 32]>, String> {
    let entry = entries
        .iter()
        .find(|(index, _)| *index == opening.index)
        .map(|(_, entry)| entry)
        .ok_or("it is in the wrong file: its entry is not in this bundle")?;
    let Event::SigningIntent(intent) = &entry.event else {
        return Err("its entry announces no signature".to_owned());
    };
    if intent.session != opening.session {
        return Err("its entry is of another session".to_owned());
    }
    if intent.request.0 != request::commitment(shared.trust.cluster(), &opening.request) {
        return Err("its entry commits to another request".to_owned());
    }
    if intent.key != opening.key.name
        || intent.epoch != opening.key.epoch
        || intent.key_record.0 != opening.key.digest()
        || !shared.keys.is(&opening.key)
    {
        return Err("its key is not the one that the logs tell of".to_owned());
    }
    let manifest = shared
        .manifests
        .get(&entry.manifest.0)
        .ok_or("the manifest of its entry is not here, or nobody vouches for it")?;
    request::authorized(manifest, &opening.request)?;
    const CLOCK_SKEW_MS: u64 = 60 * 1000;
    if entry.time_ms > opening.request.expire_ms.saturating_add(CLOCK_SKEW_MS) {
        return Err(format!(
            "it was announced {}, after it had expired",
            clock::show(UnixMillis(entry.time_ms))
        ));
    }
    let key = request::key(&opening.key)?;
    let decoded = request::decode(&key, &opening.request)?;
    if !opening.signatures.is_empty() {
        request::signed(&key, &opening.request, &decoded, &opening.signatures)?;
    }
    Ok(opening
        .signatures
        .iter()
        .map(|signature| Sha256::digest(signature.signature.0).into())
        .collect())
}
