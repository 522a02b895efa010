//! One log's entries, in order: what each may say after those before it.

use std::collections::{BTreeMap, BTreeSet};

use arca_attestation::UnixMillis;
use arca_audit::entry::{Entry, Event, InstanceStarted, KeyCreated, Outcome, SigningIntent};
use sha2::{Digest as _, Sha256};

use super::export::ExportedLog;
use super::finding::{Code, Finding};
use super::questions::Question;
use super::record::{Record, What};
use super::report::InstanceSummary;
use super::shared::{LONGEST_TAIL_MS, LogFacts, Shared};
use super::{describe, files, instance, loss};
use crate::clock;

/// How far time may run back: an enclave's clock is set by its platform.
const CLOCK_SKEW_MS: u64 = 60 * 1000;
/// How far an instance's evidence may be from its first entry.
const EVIDENCE_SKEW_MS: u64 = 5 * 60 * 1000;
/// Instances shown from the beginning of a log, and from its end.
const SHOWN: usize = 50;

/// Reads one log.
pub(super) struct Ledger<'e> {
    exported: &'e ExportedLog,
    /// Its place among all logs.
    place: u32,
    me: Option<u8>,
    log_key: Option<[u8; 32]>,
    witness_key: Option<[u8; 32]>,
    boot: Option<Boot>,
    boots: u32,
    ended: BTreeSet<[u8; 16]>,
    /// Entries before the first start that is here are not judged by it.
    is_gap: bool,
    next_index: u64,
    epoch: u64,
    max_ms: u64,
    first_ms: Option<u64>,
    last_ms: u64,
    settled_ms: Option<u64>,
    loss_accepted: bool,
    pub kinds: BTreeMap<&'static str, u64>,
    pub first_instances: Vec<InstanceSummary>,
    pub last_instances: std::collections::VecDeque<InstanceSummary>,
    pub instance_count: u64,
    /// The evidence was looked at once for each document.
    verified: u64,
}

/// The instance that writes.
struct Boot {
    id: [u8; 16],
    /// Manifest and evidence that its starts introduced.
    introduced: Vec<([u8; 48], [u8; 32])>,
    /// Of the newest manifest: from when to when it is valid.
    valid: Option<(u64, u64)>,
    is_outdated: bool,
}

impl<'e> Ledger<'e> {
    pub fn new(exported: &'e ExportedLog, place: u32, shared: &mut Shared<'_>) -> Self {
        Self {
            exported,
            place,
            me: shared.names.place(&exported.party),
            log_key: None,
            witness_key: None,
            boot: None,
            boots: 0,
            ended: BTreeSet::new(),
            is_gap: false,
            next_index: 0,
            epoch: 0,
            max_ms: 0,
            first_ms: None,
            last_ms: 0,
            settled_ms: None,
            loss_accepted: false,
            kinds: BTreeMap::new(),
            first_instances: Vec::new(),
            last_instances: std::collections::VecDeque::new(),
            instance_count: 0,
            verified: 0,
        }
    }

    fn finding(&self, code: Code, index: u64, message: impl Into<String>) -> Finding {
        Finding::new(code, message)
            .of(&self.exported.party, self.exported.log)
            .at(index)
    }

    /// The next entry. Gives it back decoded.
    pub fn entry(&mut self, shared: &mut Shared<'_>, index: u64, bytes: &[u8]) -> Option<Entry> {
        if index != self.next_index {
            self.is_gap = true;
            if let Some(boot) = self.boot.take() {
                self.ended.insert(boot.id);
            }
        }
        self.next_index = index.saturating_add(1);
        shared.totals.entries += 1;
        let entry = match Entry::decode(bytes) {
            Ok(entry) => entry,
            Err(cause) => {
                shared.find(self.finding(Code::EntryMalformed, index, cause.to_string()));
                return None;
            }
        };
        self.time(shared, index, entry.time_ms);
        let kind = describe::kind(&entry.event);
        *self.kinds.entry(kind).or_default() += 1;
        if let Event::InstanceStarted(started) = &entry.event {
            self.started(shared, index, &entry, started);
        } else {
            self.introduced(shared, index, &entry);
            self.goes_on(entry.time_ms);
        }
        self.valid(shared, index, entry.time_ms);
        self.event(shared, index, &entry);
        shared.timeline.add(
            (
                entry.time_ms,
                &self.exported.party,
                self.exported.log,
                index,
            ),
            kind,
            describe::is_rare(&entry.event),
            || describe::text(&entry.event),
        );
        Some(entry)
    }

    fn time(&mut self, shared: &mut Shared<'_>, index: u64, time: u64) {
        if time.saturating_add(CLOCK_SKEW_MS) < self.max_ms {
            let message = format!(
                "{}, after an entry of {}",
                clock::show(UnixMillis(time)),
                clock::show(UnixMillis(self.max_ms))
            );
            shared.find(self.finding(Code::TimeBack, index, message));
        }
        self.max_ms = self.max_ms.max(time);
        self.first_ms.get_or_insert(time);
        self.last_ms = time;
        if index >= self.exported.settled {
            self.settled_ms.get_or_insert(time);
        }
    }

    /// The instance that writes is there at least until now.
    fn goes_on(&mut self, time: u64) {
        if let Some(current) = self
            .last_instances
            .back_mut()
            .or(self.first_instances.last_mut())
        {
            current.end_ms = current.end_ms.max(time);
        }
    }

    fn started(
        &mut self,
        shared: &mut Shared<'_>,
        index: u64,
        entry: &Entry,
        started: &InstanceStarted,
    ) {
        let boot = entry.boot.0;
        if self.boot.as_ref().is_none_or(|current| current.id != boot) {
            if let Some(before) = self.boot.take() {
                self.ended.insert(before.id);
            }
            if self.ended.contains(&boot) {
                let message = format!("boot {} starts again after another one", entry.boot);
                shared.find(self.finding(Code::TwoInstances, index, message));
            }
            self.boots = self.boots.saturating_add(1);
        }
        let keys = (started.log_key.0, started.witness_key.0);
        let before = (
            *self.log_key.get_or_insert(keys.0),
            *self.witness_key.get_or_insert(keys.1),
        );
        if before != keys {
            let message =
                "this start names another log key or witness key than the first one of this log";
            shared.find(self.finding(Code::KeyChanged, index, message));
        }
        let manifest = shared.manifests.get(&entry.manifest.0);
        let epoch = manifest.map_or(0, arca_attestation::manifest::Manifest::epoch);
        if manifest.is_some() && epoch < self.epoch {
            let message = format!("from epoch {} to {epoch}", self.epoch);
            shared.find(self.finding(Code::ManifestBack, index, message));
        }
        self.epoch = self.epoch.max(epoch);
        let introduced = (entry.manifest.0, entry.evidence.0);
        let valid = manifest.map(|manifest| (manifest.not_before().0, manifest.not_after().0));
        match &mut self.boot {
            Some(current) => {
                current.introduced.push(introduced);
                current.valid = valid;
                current.is_outdated = false;
            }
            None => {
                self.boot = Some(Boot {
                    id: boot,
                    introduced: vec![introduced],
                    valid,
                    is_outdated: false,
                });
            }
        }
        let facts = self.evidence(shared, index, entry, started);
        let summary = InstanceSummary {
            index,
            boot: entry.boot.to_string(),
            start: clock::show(UnixMillis(entry.time_ms)),
            start_ms: entry.time_ms,
            end_ms: entry.time_ms,
            epoch,
            evidence: entry.evidence.to_string(),
            pcr0: facts
                .as_ref()
                .and_then(|facts| facts.measurements())
                .map(|measurements| hex::encode(measurements.pcr0)),
            verified: facts.is_some(),
        };
        self.instance_count += 1;
        if self.first_instances.len() < SHOWN {
            self.first_instances.push(summary);
        } else {
            self.last_instances.push_back(summary);
            if self.last_instances.len() > SHOWN {
                self.last_instances.pop_front();
            }
        }
        loss::follows(shared, self.place, self.exported, index, started);
    }

    /// The evidence that a start names, held against the manifest of its time.
    fn evidence(
        &mut self,
        shared: &mut Shared<'_>,
        index: u64,
        entry: &Entry,
        started: &InstanceStarted,
    ) -> Option<arca_attestation::ArchivedEvidence> {
        let party = &self.exported.party;
        let refuse = |shared: &mut Shared<'_>, this: &Self, why: String| {
            let message = format!("boot {}: {why}", entry.boot);
            shared.find(this.finding(Code::Evidence, index, message));
            None
        };
        let Some(manifest) = shared.manifests.get(&entry.manifest.0) else {
            let why = format!(
                "its manifest {} is not here, or nobody vouches for it",
                entry.manifest
            );
            return refuse(shared, self, why);
        };
        let identity = manifest
            .party(party)
            .map(|party| Sha256::digest(&party.identity).into());
        if identity != Some(started.identity.0) {
            return refuse(
                shared,
                self,
                "it names another identity than the manifest".to_owned(),
            );
        }
        let Some(document) = files::read(shared.source, party, &entry.evidence.0) else {
            let why = format!(
                "its evidence {} is not here, or another file is in its place",
                entry.evidence
            );
            return refuse(shared, self, why);
        };
        let claim = instance::Claim {
            party,
            boot: &entry.boot.0,
            log_key: &started.log_key.0,
            witness_key: &started.witness_key.0,
        };
        match instance::verify(shared.trust, manifest, claim, &document) {
            Ok(facts) => {
                if facts.timestamp().0.abs_diff(entry.time_ms) > EVIDENCE_SKEW_MS {
                    let message = format!(
                        "evidence of {} for a start at {}",
                        clock::show(facts.timestamp()),
                        clock::show(UnixMillis(entry.time_ms))
                    );
                    shared.find(self.finding(Code::EvidenceTime, index, message));
                }
                self.verified += 1;
                shared.totals.evidence += 1;
                Some(facts)
            }
            Err(why) => refuse(shared, self, why),
        }
    }

    /// Whether a start has introduced the instance, manifest and evidence that an entry names.
    fn introduced(&mut self, shared: &mut Shared<'_>, index: u64, entry: &Entry) {
        let Some(boot) = &self.boot else {
            if !self.is_gap {
                let message = "no instance has started before it";
                shared.find(self.finding(Code::NotIntroduced, index, message));
            }
            return;
        };
        if boot.id != entry.boot.0 {
            let (code, what) = if self.ended.contains(&entry.boot.0) {
                (Code::TwoInstances, "ended before this entry")
            } else {
                (Code::NotIntroduced, "has not started")
            };
            let message = format!("boot {} {what}", entry.boot);
            shared.find(self.finding(code, index, message));
        } else if boot.introduced.last() != Some(&(entry.manifest.0, entry.evidence.0)) {
            // A new manifest begins with a start, so nothing of the one before follows it.
            let message = "its manifest and evidence are not those of the start before it";
            shared.find(self.finding(Code::NotIntroduced, index, message));
        }
    }

    fn valid(&mut self, shared: &mut Shared<'_>, index: u64, time: u64) {
        let Some(boot) = &mut self.boot else {
            return;
        };
        let outside = boot.valid.is_some_and(|(from, to)| {
            time.saturating_add(CLOCK_SKEW_MS) < from || time > to.saturating_add(CLOCK_SKEW_MS)
        });
        if outside && !boot.is_outdated {
            // Once for each instance.
            boot.is_outdated = true;
            let message = format!(
                "at {}, under a manifest that is not valid then",
                clock::show(UnixMillis(time))
            );
            shared.find(self.finding(Code::ManifestTime, index, message));
        }
    }

    fn event(&mut self, shared: &mut Shared<'_>, index: u64, entry: &Entry) {
        match &entry.event {
            Event::ManifestAccepted { epoch, digest } => {
                let known = shared.manifests.get(&digest.0);
                let fits = known.is_some_and(|manifest| manifest.epoch() == *epoch);
                if *digest != entry.manifest || !fits {
                    let message =
                        format!("epoch {epoch}: it is not the manifest of this entry, or not here");
                    shared.find(self.finding(Code::ManifestRefused, index, message));
                }
            }
            Event::LeaseHeld { boot } if *boot != entry.boot => {
                let message = format!("a lease of boot {boot}, which is another instance");
                shared.find(self.finding(Code::NotIntroduced, index, message));
            }
            Event::EvidenceVerified {
                peer, measurement, ..
            } => {
                let manifest = shared.manifests.get(&entry.manifest.0);
                if !manifest.is_none_or(|manifest| allows(manifest, peer, measurement.map(|m| m.0)))
                {
                    let message =
                        format!("what ran at {peer:?} is none of what the manifest allows it");
                    shared.find(self.finding(Code::Measurement, index, message));
                }
            }
            Event::KeyCreated(created) => self.key(shared, index, entry.time_ms, created),
            Event::SigningIntent(intent) => self.intent(shared, index, entry.time_ms, intent),
            Event::SigningOutcome { session, result } => {
                let what = match result {
                    Outcome::Signed { signatures } => {
                        What::Signed(signatures.iter().map(|digest| digest.0).collect())
                    }
                    Outcome::Released => What::Released,
                    // An outcome that this program does not know ended without signatures that it knows.
                    _ => What::Failed,
                };
                self.record(shared, session.0, index, what);
            }
            Event::Refused { .. } => shared.totals.refusals += 1,
            Event::LossAccepted {
                acceptance,
                found,
                resumed,
            } => {
                let at = loss::At {
                    party: &self.exported.party,
                    log: self.exported.log,
                    manifest: &entry.manifest.0,
                };
                match loss::accepted(shared, &at, &acceptance.0, (*found, *resumed)) {
                    Ok(()) => self.loss_accepted = true,
                    Err(why) => shared.find(self.finding(Code::LossUnexplained, index, why)),
                }
            }
            Event::LogConflict { peer, log, .. } => {
                let message =
                    format!("log {log} of {peer:?} contradicts what this party had cosigned");
                shared.find(self.finding(Code::Conflict, index, message));
            }
            _ => {}
        }
    }

    fn key(&self, shared: &mut Shared<'_>, index: u64, time_ms: u64, created: &KeyCreated) {
        if !shared.keys.create(created, time_ms) {
            let message = format!("{}: another party says otherwise of it", created.key);
            shared.find(self.finding(Code::KeyDiffers, index, message));
        }
    }

    fn intent(
        &mut self,
        shared: &mut Shared<'_>,
        index: u64,
        time_ms: u64,
        intent: &SigningIntent,
    ) {
        let signers = shared.names.mask(&intent.signers);
        let coordinator = shared.names.place(&intent.coordinator);
        let takes_part =
            |mask: u64, place: Option<u8>| place.is_some_and(|place| mask >> place & 1 == 1);
        let (signers, coordinator) = match (signers, coordinator) {
            (Some(mask), Some(coordinator))
                if takes_part(mask, self.me) && takes_part(mask, Some(coordinator)) =>
            {
                (mask, coordinator)
            }
            _ => {
                let message = "its signers are not different parties with this one and the coordinator among them";
                shared.find(self.finding(Code::SessionDiffers, index, message));
                return;
            }
        };
        let Some(key) = shared.keys.place(&intent.key) else {
            if !self.is_gap {
                let message = format!("{} is of no entry before", intent.key);
                shared.find(self.finding(Code::UnknownKey, index, message));
            }
            return;
        };
        let what = What::Intent {
            request: intent.request.0,
            key,
            epoch: intent.epoch,
            time_ms,
            boot: self.boots,
            coordinator,
            signers,
        };
        self.record(shared, intent.session.0, index, what);
        for seen in &intent.seen {
            if seen.party == self.exported.party {
                continue;
            }
            let question = Question {
                size: seen.size,
                root: seen.root.0,
                index,
            };
            match shared
                .questions
                .ask((seen.party.clone(), seen.log), self.place, question)
            {
                Ok(true) => {}
                Ok(false) => {
                    let message = format!("{} entries of {}, after more", seen.size, seen.party);
                    shared.find(self.finding(Code::SeenBack, index, message));
                }
                Err(fault) => shared.note(Err(fault)),
            }
        }
    }

    pub fn record(&self, shared: &mut Shared<'_>, session: [u8; 32], index: u64, what: What) {
        let record = Record {
            session,
            log: self.place,
            index,
            what,
        };
        let outcome = shared.sessions.write(&session, &record.encode());
        shared.note(outcome);
    }

    /// From when to when.
    pub fn span(&self) -> Option<(u64, u64)> {
        Some((self.first_ms?, self.max_ms))
    }

    pub fn facts(&self) -> LogFacts {
        let tail = self
            .settled_ms
            .map_or(0, |settled| self.last_ms.saturating_sub(settled));
        LogFacts {
            exported: self.exported.clone(),
            log_key: self.log_key,
            witness_key: self.witness_key,
            boots: self.boots,
            last_ms: self.last_ms,
            is_tail_short: tail <= LONGEST_TAIL_MS,
            loss_accepted: self.loss_accepted,
        }
    }
}

/// Whether the manifest allows what a peer was found to run.
fn allows(
    manifest: &arca_attestation::manifest::Manifest,
    peer: &str,
    measurement: Option<[u8; 32]>,
) -> bool {
    use arca_attestation::ReferenceValues;
    match (manifest.reference_values(peer), measurement) {
        (
            Some(ReferenceValues::Nitro(images) | ReferenceValues::Simulated(images)),
            Some(measurement),
        ) => images
            .iter()
            .any(|image| instance::measurement(image) == measurement),
        (Some(ReferenceValues::Hsm(_)), None) => true,
        _ => false,
    }
}
