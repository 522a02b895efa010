//! Sessions joined over all logs: intents and outcomes, what each party was told, and what was signed.

use std::collections::{BTreeMap, HashMap};
use std::io;

use arca_attestation::UnixMillis;

use super::finding::{Code, Finding, Severity};
use super::record::{Record, What};
use super::shared::{LogFacts, Shared};
use super::spool::{Fields, Partitions};
use crate::clock;

/// An intent this near to the end of its log may still get its outcome.
const OPEN_MS: u64 = 60 * 1000;

/// Everything that is known of one session.
#[derive(Default)]
struct Session {
    intents: Vec<(u32, u64, Intent)>,
    signed: Vec<(u32, u64, Vec<[u8; 32]>)>,
    /// Logs with an outcome, and where.
    ended: Vec<(u32, u64, bool)>,
    opened: Vec<(u32, u64, Vec<[u8; 32]>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Intent {
    said: Said,
    time_ms: u64,
    boot: u32,
}

/// What all parties have to have been told alike.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Said {
    request: [u8; 32],
    key: u32,
    epoch: u64,
    coordinator: u8,
    signers: u64,
}

/// Joins what was put aside. `digest` is told the digest of every signature that an outcome names.
pub(super) fn join(
    shared: &mut Shared<'_>,
    logs: &[LogFacts],
    mut digest: impl FnMut(&[u8; 32]) -> io::Result<()>,
) -> io::Result<()> {
    let partitions = std::mem::replace(&mut shared.sessions, Partitions::new(0));
    for records in partitions.read() {
        let records = records?;
        let mut fields = Fields(&records);
        let mut sessions: HashMap<[u8; 32], Session> = HashMap::new();
        let mut order = Vec::new();
        while let Some(record) = Record::next(&mut fields) {
            let session = sessions.entry(record.session).or_insert_with(|| {
                order.push(record.session);
                Session::default()
            });
            session.take(record);
        }
        for id in order {
            if let Some(session) = sessions.remove(&id) {
                for (_, _, digests) in &session.signed {
                    digests.iter().try_for_each(&mut digest)?;
                }
                Judge { shared, logs, id }.judge(&session);
            }
        }
    }
    Ok(())
}

impl Session {
    fn take(&mut self, record: Record) {
        let Record {
            log, index, what, ..
        } = record;
        match what {
            What::Intent {
                request,
                key,
                epoch,
                time_ms,
                boot,
                coordinator,
                signers,
            } => {
                let said = Said {
                    request,
                    key,
                    epoch,
                    coordinator,
                    signers,
                };
                let intent = Intent {
                    said,
                    time_ms,
                    boot,
                };
                self.intents.push((log, index, intent));
            }
            What::Signed(digests) => {
                self.ended.push((log, index, true));
                self.signed.push((log, index, digests));
            }
            What::Released => self.ended.push((log, index, true)),
            What::Failed => self.ended.push((log, index, false)),
            What::Opened(digests) => self.opened.push((log, index, digests)),
        }
    }
}

struct Judge<'s, 'a> {
    shared: &'s mut Shared<'a>,
    logs: &'s [LogFacts],
    id: [u8; 32],
}

impl Judge<'_, '_> {
    fn log(&self, place: u32) -> Option<&LogFacts> {
        self.logs.get(usize::try_from(place).ok()?)
    }

    fn find(&mut self, code: Code, (log, index): (u32, u64), message: &str) {
        self.find_as(code, code.severity(), (log, index), message);
    }

    fn find_as(&mut self, code: Code, severity: Severity, (log, index): (u32, u64), message: &str) {
        let id = hex::encode(self.id);
        let id = id.get(..12).unwrap_or_default();
        let mut finding = Finding::new(code, format!("session {id}: {message}"))
            .as_severe_as(severity)
            .at(index);
        if let Some(log) = self.log(log) {
            finding = finding.of(&log.exported.party, log.exported.log);
        }
        self.shared.find(finding);
    }

    fn judge(&mut self, session: &Session) {
        let totals = &mut self.shared.totals;
        totals.sessions += u64::from(!session.intents.is_empty());
        totals.signed += u64::from(!session.signed.is_empty());
        let is_failed = session.signed.is_empty() && !session.ended.is_empty();
        totals.failed += u64::from(is_failed);
        for (_, _, digests) in &session.signed {
            totals.signatures += digests.len() as u64;
        }
        self.one_each(session);
        self.outcomes(session);
        self.agree(session);
        self.signers(session);
        self.openings(session);
        if let (Some((.., intent)), false) = (session.intents.first(), session.signed.is_empty()) {
            self.shared.keys.signed(intent.said.key);
        }
    }

    /// A session has one intent in a party's logs.
    fn one_each(&mut self, session: &Session) {
        let mut by_party: BTreeMap<&str, u32> = BTreeMap::new();
        let mut twice = Vec::new();
        for (log, index, _) in &session.intents {
            let Some(facts) = self.logs.get(usize::try_from(*log).unwrap_or(usize::MAX)) else {
                continue;
            };
            let count = by_party.entry(&facts.exported.party).or_default();
            *count += 1;
            if *count == 2 {
                twice.push((*log, *index));
            }
        }
        for at in twice {
            self.find(Code::TwoIntents, at, "this party announces it twice");
        }
    }

    /// Every intent has an outcome, and every outcome an intent before it.
    fn outcomes(&mut self, session: &Session) {
        for (log, index, intent) in &session.intents {
            let ended = session
                .ended
                .iter()
                .any(|(of, at, _)| of == log && at > index);
            if !ended {
                self.without_outcome(*log, *index, intent);
            }
        }
        for (log, index, released) in &session.ended {
            let announced = session
                .intents
                .iter()
                .any(|(of, at, _)| of == log && at < index);
            let is_whole = self.log(*log).is_some_and(|log| log.exported.is_whole());
            if announced {
                continue;
            }
            match (*released, is_whole) {
                (_, false) => self.find(
                    Code::OutOfRange,
                    (*log, *index),
                    "it ends here, and its intent is before the range",
                ),
                (true, true) => self.find(
                    Code::NoIntent,
                    (*log, *index),
                    "a share or signature was released, and was not announced",
                ),
                // A session that fails before a share is to leave is announced by nothing.
                (false, true) => {}
            }
        }
    }

    fn without_outcome(&mut self, log: u32, index: u64, intent: &Intent) {
        let Some(facts) = self.log(log) else {
            return;
        };
        let is_followed = self.logs.iter().any(|other| {
            other.exported.party == facts.exported.party && other.exported.log > facts.exported.log
        });
        let has_ended = intent.boot < facts.boots || is_followed;
        let is_near_end = intent.time_ms.saturating_add(OPEN_MS) >= facts.last_ms;
        let is_in_range = facts
            .exported
            .ranges
            .last()
            .is_some_and(|(_, to)| *to == facts.exported.size)
            && facts.exported.is_whole();
        if has_ended {
            self.shared.totals.ended_by_restart += 1;
            self.find(
                Code::NoOutcomeRestart,
                (log, index),
                "the instance ended before its outcome",
            );
        } else if is_near_end {
            self.find(
                Code::NoOutcomeYet,
                (log, index),
                "the log ends within a minute of it",
            );
        } else if is_in_range {
            let message = format!(
                "announced {}, and nothing says how it ended",
                clock::show(UnixMillis(intent.time_ms))
            );
            self.find(Code::NoOutcome, (log, index), &message);
        } else {
            self.find(
                Code::OutOfRange,
                (log, index),
                "its outcome may be outside of the range",
            );
        }
    }

    /// All parties were told the same.
    fn agree(&mut self, session: &Session) {
        let Some((_, _, first)) = session.intents.first() else {
            return;
        };
        for (log, index, intent) in &session.intents {
            if intent.said != first.said {
                self.find(
                    Code::SessionDiffers,
                    (*log, *index),
                    "this party was told another request, key, coordinator or signers than another one",
                );
            }
        }
        for (log, index, _) in &session.signed {
            let party = self.log(*log).map(|log| log.exported.party.clone());
            let coordinator = self.shared.names.name(first.said.coordinator);
            if party.as_deref() != Some(coordinator) {
                self.find(
                    Code::SessionDiffers,
                    (*log, *index),
                    "another party than the coordinator has its signatures",
                );
            }
        }
    }

    /// Of a session that was signed, every signer has an intent.
    fn signers(&mut self, session: &Session) {
        let (Some((log, index, _)), Some((_, _, first))) =
            (session.signed.first(), session.intents.first())
        else {
            return;
        };
        let announced: Vec<&str> = session
            .intents
            .iter()
            .filter_map(|(log, ..)| {
                Some(
                    self.logs
                        .get(usize::try_from(*log).ok()?)?
                        .exported
                        .party
                        .as_str(),
                )
            })
            .collect();
        let silent: Vec<String> = self
            .shared
            .names
            .of(first.said.signers)
            .map(|(_, name)| name)
            .filter(|name| !announced.contains(name))
            .map(str::to_owned)
            .collect();
        for name in silent {
            let mut theirs = self
                .logs
                .iter()
                .filter(|log| log.exported.party == name)
                .peekable();
            let is_whole = theirs.peek().is_some() && theirs.all(|log| log.exported.is_whole());
            let is_lost = self
                .logs
                .iter()
                .any(|log| log.exported.party == name && log.loss_accepted);
            let is_tail = self.log(*log).is_some_and(|log| log.is_tail(*index));
            let (severity, why) = if is_tail {
                (
                    Severity::Warning,
                    "; it was made while the export was under way",
                )
            } else if is_lost {
                (
                    Severity::Warning,
                    "; that party lost entries, and the administrators accepted it",
                )
            } else if !is_whole {
                (Severity::Note, "; that party's log is not here as a whole")
            } else {
                (Severity::Error, "")
            };
            let message = format!("{name} signed, and its log does not announce it{why}");
            self.find_as(Code::SignerSilent, severity, (*log, *index), &message);
        }
    }

    /// Of a session that was signed, the opening's signatures are those that the outcome names.
    fn openings(&mut self, session: &Session) {
        if let [_, .., (log, index, _)] = session.opened.as_slice() {
            self.find(
                Code::OpeningTwice,
                (*log, *index),
                "it is opened more than once",
            );
        }
        match (session.signed.first(), session.opened.first()) {
            (Some((log, index, digests)), Some((_, _, opened))) => {
                if digests != opened {
                    self.find(
                        Code::OutcomeDiffers,
                        (*log, *index),
                        "the outcome names other signatures than the opening",
                    );
                } else {
                    self.shared.totals.verified += digests.len() as u64;
                }
            }
            (Some((log, index, _)), None) if self.shared.export.openings => {
                let is_tail = self.log(*log).is_some_and(|log| log.is_tail(*index));
                let (severity, message) = if is_tail {
                    (
                        Severity::Note,
                        "what was signed is not opened: it ended while the export was under way",
                    )
                } else {
                    (Severity::Warning, "what was signed is not opened")
                };
                self.find_as(Code::NoOpening, severity, (*log, *index), message);
            }
            (None, Some((log, index, opened))) if !opened.is_empty() => {
                self.find(
                    Code::Opening,
                    (*log, *index),
                    "it is opened with signatures, and no outcome names any",
                );
            }
            _ => {}
        }
    }
}
