//! What an audit of an export comes to: for the terminal, as JSON, and as a page ([`crate::audit::html`]).

use std::collections::BTreeMap;

use serde::Serialize;

use super::finding::{Finding, Severity};
use crate::clock;

/// The whole.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether no finding is an error.
    pub passed: bool,
    /// The cluster's id.
    pub cluster: String,
    /// `production` or `simulated`.
    pub kind: String,
    /// The first and the last entry's time, RFC 3339; absent when there is no entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// What was looked at.
    pub totals: Totals,
    /// Findings by severity and code, the worst first, all counted.
    pub counts: Vec<Count>,
    /// The findings themselves, the worst first; of each code the first hundred.
    pub findings: Vec<Finding>,
    /// Manifests, by epoch.
    pub manifests: Vec<ManifestSummary>,
    /// Logs, by party and number.
    pub logs: Vec<LogSummary>,
    /// Keys, by name.
    pub keys: Vec<KeySummary>,
    /// Who cosigned whose checkpoints, and how often one saw the other's log.
    pub witnesses: Vec<WitnessSummary>,
    /// The signatures of the chain that were to be explained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainSummary>,
    /// What happened when.
    pub timeline: Timeline,
}

/// From when to when, RFC 3339.
#[derive(Clone, Debug, Serialize)]
pub struct Span {
    /// The first.
    pub from: String,
    /// The last.
    pub to: String,
}

impl Span {
    /// From milliseconds since 1970.
    pub fn new(from: u64, to: u64) -> Self {
        Self {
            from: clock::show(arca_attestation::UnixMillis(from)),
            to: clock::show(arca_attestation::UnixMillis(to)),
        }
    }
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Entries of all logs.
    pub entries: u64,
    /// Hash tiles that were compared.
    pub tiles: u64,
    /// Evidence documents that verify.
    pub evidence: u64,
    /// Sessions with an intent.
    pub sessions: u64,
    /// Of those, that ended with signatures.
    pub signed: u64,
    /// Of those, that failed.
    pub failed: u64,
    /// Intents without an outcome because the instance ended.
    pub ended_by_restart: u64,
    /// Signatures that the logs know of.
    pub signatures: u64,
    /// Of those, that were opened and verify under their keys.
    pub verified: u64,
    /// Requests and sessions that were refused.
    pub refusals: u64,
    /// Checkpoints of peers that entries name, and that were compared with those peers' logs.
    pub cross_checks: u64,
}

/// How many findings there are of one code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How bad they are.
    pub severity: Severity,
    /// Which.
    pub code: &'static str,
    /// How many.
    pub count: u64,
}

/// A manifest.
#[derive(Clone, Debug, Serialize)]
pub struct ManifestSummary {
    /// Its epoch.
    pub epoch: u64,
    /// SHA-384, hex.
    pub digest: String,
    /// From when it is valid, RFC 3339.
    pub not_before: String,
    /// Until when.
    pub not_after: String,
    /// Who vouches for it: the pinned administrators, or those of the manifest before.
    pub vouched_by: String,
    /// Its parties with their classes.
    pub parties: Vec<String>,
    /// Its administrators' quorum, `2 of 3`.
    pub quorum: String,
}

/// One log.
#[derive(Clone, Debug, Serialize)]
pub struct LogSummary {
    /// Whose.
    pub party: String,
    /// Which of its logs.
    pub log: u64,
    /// As in its checkpoints.
    pub origin: String,
    /// What evidence of this party says, by the manifest: `nitro`, `hsm` or `simulated`.
    pub class: String,
    /// Entries under the checkpoint.
    pub size: u64,
    /// Root, hex.
    pub root: String,
    /// The range of entries that was exported and looked at: from, to.
    pub range: (u64, u64),
    /// From when to when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// Who cosigned the checkpoint, by their names in notes, and when (RFC 3339).
    pub cosigned: Vec<(String, String)>,
    /// Entries by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Its instances, in order; of more than a hundred the first and the last fifty.
    pub instances: Vec<InstanceSummary>,
    /// How many there are.
    pub instance_count: u64,
}

/// One start of an enclave, or one manifest within.
#[derive(Clone, Debug, Serialize)]
pub struct InstanceSummary {
    /// The entry.
    pub index: u64,
    /// Boot id, hex.
    pub boot: String,
    /// When, RFC 3339.
    pub start: String,
    /// The same in milliseconds since 1970.
    pub start_ms: u64,
    /// The last entry's time.
    pub end_ms: u64,
    /// Epoch of the manifest, 0 when it is not known.
    pub epoch: u64,
    /// SHA-256 of the evidence.
    pub evidence: String,
    /// PCR 0, hex; absent for an HSM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcr0: Option<String>,
    /// Whether the evidence verifies.
    pub verified: bool,
}

/// One key.
#[derive(Clone, Debug, Serialize)]
pub struct KeySummary {
    /// `keys/…`
    pub key: String,
    /// What it signs with.
    pub scheme: String,
    /// Hex.
    pub public_key: String,
    /// `2 of 3`.
    pub threshold: String,
    /// Who holds shares.
    pub parties: Vec<String>,
    /// When the first party logged it, RFC 3339.
    pub created: String,
    /// Sessions of this key that ended with signatures.
    pub signed: u64,
}

/// How one party witnesses another's log.
#[derive(Clone, Debug, Serialize)]
pub struct WitnessSummary {
    /// The log's party.
    pub of: String,
    /// Which of its logs.
    pub log: u64,
    /// The party that saw it.
    pub by: String,
    /// Checkpoints of it that entries of `by` name.
    pub seen: u64,
    /// Different ones, each compared.
    pub compared: u64,
    /// The largest.
    pub largest: u64,
    /// Whether `by` cosigned the exported checkpoint.
    pub cosigned: bool,
    /// Whether every one is a point of the log.
    pub holds: bool,
}

/// How signatures on a chain are explained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChainSummary {
    /// Signatures that were given.
    pub given: u64,
    /// Of those, that an outcome names.
    pub explained: u64,
    /// Signatures that the logs know and that were not among those given.
    pub unused: u64,
}

/// What happened when: each event, or counts by day where there are more than five thousand.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Timeline {
    /// Every event, in order of time.
    Events(Vec<Event>),
    /// Counts by day, with what is rare in full.
    Days {
        /// By day, party and kind.
        days: Vec<Day>,
        /// Everything that is not a signature or a connection, up to two thousand.
        rare: Vec<Event>,
    },
}

/// One entry, to be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// Whose log.
    pub party: String,
    /// Which of its logs.
    pub log: u64,
    /// Which entry.
    pub index: u64,
    /// Its kind, as in the log.
    pub kind: &'static str,
    /// A line for people.
    pub text: String,
}

/// How many entries of a kind a party made on a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Day {
    /// `2026-11-25`, UTC.
    pub day: String,
    /// Whose log.
    pub party: String,
    /// Their kind.
    pub kind: &'static str,
    /// How many.
    pub count: u64,
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const MOST_EVENTS: usize = 5000;
const MOST_RARE: usize = 2000;

/// Collects a [`Timeline`] in bounded memory.
#[derive(Debug, Default)]
pub struct TimelineBuilder {
    /// None once there are too many.
    events: Option<Vec<Event>>,
    rare: Vec<Event>,
    days: BTreeMap<(u64, String, &'static str), u64>,
}

impl TimelineBuilder {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            events: Some(Vec::new()),
            ..Self::default()
        }
    }

    /// Adds an event; `text` is only asked for when it is kept.
    pub fn add(
        &mut self,
        (time_ms, party, log, index): (u64, &str, u64, u64),
        kind: &'static str,
        is_rare: bool,
        text: impl FnOnce() -> String,
    ) {
        let day = time_ms / DAY_MS;
        // The party's name is only copied for a new day.
        let key = (day, party.to_owned(), kind);
        let count = self.days.entry(key).or_default();
        *count = count.saturating_add(1);
        let keep_rare = is_rare && self.rare.len() < MOST_RARE;
        if self.events.is_none() && !keep_rare {
            return;
        }
        let event = Event {
            time_ms,
            party: party.to_owned(),
            log,
            index,
            kind,
            text: text(),
        };
        if keep_rare {
            self.rare.push(event.clone());
        }
        if let Some(events) = &mut self.events {
            events.push(event);
            if events.len() > MOST_EVENTS {
                self.events = None;
            }
        }
    }

    /// What was collected.
    pub fn finish(self) -> Timeline {
        let in_order = |mut events: Vec<Event>| {
            events.sort_by(|a, b| {
                (a.time_ms, &a.party, a.log, a.index).cmp(&(b.time_ms, &b.party, b.log, b.index))
            });
            events
        };
        match self.events {
            Some(events) => Timeline::Events(in_order(events)),
            None => Timeline::Days {
                days: self
                    .days
                    .into_iter()
                    .map(|((day, party, kind), count)| Day {
                        day: date(day),
                        party,
                        kind,
                        count,
                    })
                    .collect(),
                rare: in_order(self.rare),
            },
        }
    }
}

fn date(day: u64) -> String {
    let text = clock::show(arca_attestation::UnixMillis(day.saturating_mul(DAY_MS)));
    text.get(..10).unwrap_or(&text).to_owned()
}

impl Report {
    /// How many findings there are of a severity.
    pub fn count(&self, severity: Severity) -> u64 {
        self.counts
            .iter()
            .filter(|count| count.severity == severity)
            .map(|count| count.count)
            .sum()
    }

    /// The sentence that everything comes to.
    pub fn sentence(&self) -> String {
        let Totals {
            entries,
            signatures,
            verified,
            ..
        } = self.totals;
        let errors = self.count(Severity::Error);
        if errors == 0 {
            format!(
                "{} entries of {} logs hold together; {verified} of {signatures} signatures verify under their keys",
                entries,
                self.logs.len()
            )
        } else {
            format!(
                "{errors} {} in {entries} entries of {} logs",
                if errors == 1 { "error" } else { "errors" },
                self.logs.len()
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(count: u64) -> Timeline {
        let mut builder = TimelineBuilder::new();
        for index in 0..count {
            // Backwards, ten a day.
            let time = (count - index) * DAY_MS / 10;
            builder.add(
                (time, "ceo", 1, index),
                "signing-intent",
                index % 100 == 0,
                || index.to_string(),
            );
        }
        builder.finish()
    }

    #[test]
    fn few_events_are_kept_in_order_of_time() {
        let Timeline::Events(events) = fill(5000) else {
            panic!("aggregated");
        };
        assert_eq!(events.len(), 5000);
        assert!(events.is_sorted_by_key(|event| event.time_ms));
    }

    #[test]
    fn many_are_counted_by_day() {
        let Timeline::Days { days, rare } = fill(5001) else {
            panic!("not aggregated");
        };
        assert_eq!(days.iter().map(|day| day.count).sum::<u64>(), 5001);
        assert_eq!(days[1].count, 10);
        assert_eq!(days[1].day, "1970-01-02");
        assert_eq!(rare.len(), 51);
    }
}
