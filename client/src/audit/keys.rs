//! The keys that the logs tell of.

use std::collections::BTreeMap;

use arca_audit::certificate::KeyRecord;
use arca_audit::entry::KeyCreated;

use super::report::KeySummary;
use crate::clock;

/// All keys, each with a place.
#[derive(Default)]
pub(super) struct Keys {
    places: BTreeMap<String, u32>,
    keys: Vec<Known>,
}

struct Known {
    created: KeyCreated,
    time_ms: u64,
    signed: u64,
}

impl Keys {
    /// Takes note of a key that a party holds a share of. False when another party said otherwise of it.
    pub fn create(&mut self, created: &KeyCreated, time_ms: u64) -> bool {
        if let Some(known) = self
            .place(&created.key)
            .and_then(|place| self.known_mut(place))
        {
            known.time_ms = known.time_ms.min(time_ms);
            // A later epoch has new shares, and may have other parties; the key is the same.
            return if known.created.epoch == created.epoch {
                known.created == *created
            } else {
                known.created.scheme == created.scheme
                    && known.created.public_key == created.public_key
            };
        }
        if let Ok(place) = u32::try_from(self.keys.len()) {
            self.places.insert(created.key.clone(), place);
            self.keys.push(Known {
                created: created.clone(),
                time_ms,
                signed: 0,
            });
        }
        true
    }

    pub fn place(&self, key: &str) -> Option<u32> {
        self.places.get(key).copied()
    }

    fn known_mut(&mut self, place: u32) -> Option<&mut Known> {
        self.keys.get_mut(usize::try_from(place).ok()?)
    }

    /// A session of this key ended with signatures.
    pub fn signed(&mut self, place: u32) {
        if let Some(known) = self.known_mut(place) {
            known.signed = known.signed.saturating_add(1);
        }
    }

    /// Whether an opening's key is the one that the logs tell of.
    pub fn is(&self, record: &KeyRecord) -> bool {
        let known = self
            .place(&record.name)
            .and_then(|place| self.keys.get(usize::try_from(place).ok()?));
        known.is_some_and(|Known { created, .. }| {
            created.scheme == record.scheme
                && created.public_key == record.public_key
                && (created.epoch != record.epoch
                    || (created.threshold == record.threshold && created.parties == record.parties))
        })
    }

    pub fn summaries(&self) -> Vec<KeySummary> {
        let keys = self.places.values().filter_map(|place| {
            let known = self.keys.get(usize::try_from(*place).ok()?)?;
            let created = &known.created;
            Some(KeySummary {
                key: created.key.clone(),
                scheme: created.scheme.clone(),
                public_key: hex::encode(&created.public_key),
                threshold: format!("{} of {}", created.threshold, created.parties.len()),
                parties: created.parties.clone(),
                created: clock::show(arca_attestation::UnixMillis(known.time_ms)),
                signed: known.signed,
            })
        });
        const MOST: usize = 10_000;
        keys.take(MOST).collect()
    }
}
