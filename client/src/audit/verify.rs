//! An export, verified: each log by itself, then what the logs say of each other.
//!
//! Streaming: memory grows with the number of keys, starts and manifests, and not with that of signatures.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead};

use arca_audit::Hash;
use arca_audit::cosignature::CosignedCheckpoint;
use arca_audit::entry::{self, Entry};
use arca_audit::note::{KeyKind, KeyName, SignedNote, VerifierKey};

use super::chain::Chain;
use super::export::{self, Export};
use super::files::Files;
use super::finding::{Code, Finding, Findings, Severity};
use super::keys::Keys;
use super::ledger::Ledger;
use super::manifests::Manifests;
use super::questions::{Asked, Questions};
use super::record::Names;
use super::report::{Count, LogSummary, Report, Span, TimelineBuilder, Totals, WitnessSummary};
use super::shared::{LogFacts, Shared};
use super::source::Source;
use super::spool::Partitions;
use super::tiles::{LogFiles, Trouble};
use super::trust::Trust;
use super::{openings, sessions};
use crate::clock;
use crate::error::{Error, Result};

/// What beyond the export itself is asked for.
#[derive(Default)]
pub struct ExportPolicy {
    /// External witnesses that are trusted.
    pub witnesses: Vec<VerifierKey>,
    /// How many of those have to have cosigned each log's checkpoint.
    pub needed: usize,
    /// Signatures found on a chain, JSON lines: each is to be explained.
    pub chain: Option<Box<dyn BufRead>>,
    /// Whether to read no further once something is an error.
    pub fail_fast: bool,
}

/// Verifies an export. `progress` is told how many entries of how many have been read.
///
/// # Errors
/// [`Error::Config`] when there is no export, it is of another cluster, or temporary files cannot be written. What is wrong
/// with the export itself is a finding.
pub fn verify(
    source: &dyn Source,
    trust: &Trust,
    policy: ExportPolicy,
    mut progress: impl FnMut(u64, u64),
) -> Result<Report> {
    let export = read_export(source, trust)?;
    let mut findings = Findings::default();
    let mut files = Files::default();
    let parties: BTreeSet<&str> = export.logs.iter().map(|log| log.party.as_str()).collect();
    for party in &parties {
        files
            .collect(source, party, &mut findings)
            .map_err(unreadable)?;
    }
    let manifests = Manifests::judge(trust, &files.manifests, &mut findings);
    let entries = export
        .logs
        .iter()
        .flat_map(|log| &log.ranges)
        .map(|(from, to)| to.saturating_sub(*from))
        .fold(0, u64::saturating_add);
    let mut shared = Shared {
        trust,
        source,
        export: &export,
        files: &files,
        manifests: &manifests,
        findings,
        totals: Totals::default(),
        timeline: TimelineBuilder::new(),
        names: Names::default(),
        keys: Keys::default(),
        questions: Questions::default(),
        sessions: Partitions::new(entries),
        fault: None,
    };
    unexpected(&mut shared, &parties).map_err(unreadable)?;
    missing(&mut shared, &parties);

    let mut facts = Vec::new();
    let mut summaries = Vec::new();
    let mut roots = Vec::new();
    let fails =
        |shared: &Shared<'_>| policy.fail_fast && shared.findings.count(Severity::Error) > 0;
    for place in 0..export.logs.len() {
        if fails(&shared) {
            return finish(shared, summaries, Vec::new(), None);
        }
        let (log, root, summary) = one_log(&mut shared, place, |done| progress(done, entries))?;
        facts.push(log);
        roots.push(root);
        summaries.push(summary);
    }
    // Only now are all keys known.
    let mut cosigned = Vec::new();
    for ((log, root), summary) in facts.iter().zip(&roots).zip(&mut summaries) {
        let by = checkpoint(&mut shared, &facts, log, root.as_ref(), &policy, summary);
        cosigned.push(by);
    }
    if fails(&shared) {
        return finish(shared, summaries, Vec::new(), None);
    }
    let witnesses = cross(&mut shared, &facts, &roots, &cosigned)?;
    let mut chain = Chain::new(entries);
    if let Some(lines) = policy.chain {
        chain.read(lines)?;
        sessions::join(&mut shared, &facts, |digest| chain.log(digest)).map_err(temporary)?;
        let summary = chain.join(&mut shared.findings).map_err(temporary)?;
        return finish(shared, summaries, witnesses, Some(summary));
    }
    sessions::join(&mut shared, &facts, |_| Ok(())).map_err(temporary)?;
    finish(shared, summaries, witnesses, None)
}

fn unreadable(cause: io::Error) -> Error {
    Error::config(
        "export",
        format!("cannot be read: {cause}"),
        "name the folder that `arca audit export` wrote",
    )
}

fn temporary(cause: io::Error) -> Error {
    Error::config(
        "temporary files",
        cause,
        "make room, or name another folder with TMPDIR",
    )
}

fn read_export(source: &dyn Source, trust: &Trust) -> Result<Export> {
    let wrong = |problem: String| {
        Error::config(
            export::FILE,
            problem,
            "name the folder that `arca audit export` wrote",
        )
    };
    let bytes = source
        .read(export::FILE, export::MAX_BYTES)
        .map_err(unreadable)?
        .ok_or_else(|| wrong("is not there".to_owned()))?;
    let export: Export = serde_json::from_slice(&bytes)
        .map_err(|cause| wrong(format!("cannot be read: {cause}")))?;
    if export.version != Export::VERSION {
        return Err(wrong(format!(
            "is of version {}, which is not known here",
            export.version
        )));
    }
    if export.cluster != trust.cluster() || export.kind != trust.kind().to_string() {
        return Err(wrong(format!(
            "is of cluster {:?} ({}); the trust file is for {:?} ({})",
            export.cluster,
            export.kind,
            trust.cluster(),
            trust.kind()
        )));
    }
    let mut names: Vec<(&str, u64)> = Vec::new();
    for log in &export.logs {
        let name = (log.party.as_str(), log.log);
        let is_name = !log.party.is_empty()
            && log
                .party
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !is_name || !log.is_consistent() || names.contains(&name) {
            return Err(wrong(format!(
                "has a log that cannot be: {:?}, log {}",
                log.party, log.log
            )));
        }
        names.push(name);
    }
    if !export
        .logs
        .is_sorted_by(|a, b| (&a.party, a.log) < (&b.party, b.log))
    {
        return Err(wrong("has its logs out of order".to_owned()));
    }
    Ok(export)
}

/// Files and folders that are none of an export's.
fn unexpected(shared: &mut Shared<'_>, parties: &BTreeSet<&str>) -> io::Result<()> {
    const MOST: usize = 20;
    let mut found = Vec::new();
    for name in shared.source.list("")? {
        if name != export::FILE && !parties.contains(name.as_str()) {
            found.push(name);
        }
    }
    for party in parties {
        let numbers: Vec<String> = shared
            .export
            .logs
            .iter()
            .filter(|log| log.party == **party)
            .map(|log| log.log.to_string())
            .collect();
        for name in shared.source.list(party)? {
            if name != "files" && name != "openings" && !numbers.contains(&name) {
                found.push(format!("{party}/{name}"));
            }
        }
    }
    for name in found.into_iter().take(MOST) {
        shared.find(Finding::new(Code::Unexpected, name));
    }
    Ok(())
}

/// Every party of the newest manifest has a log here. That none before its newest one is missing follows from what the
/// first entry of each says that it follows.
fn missing(shared: &mut Shared<'_>, parties: &BTreeSet<&str>) {
    let mut findings = Vec::new();
    match shared.manifests.latest() {
        None => findings.push(Finding::new(
            Code::FileMissing,
            "no manifest that anybody vouches for is here",
        )),
        Some(manifest) => {
            let without = manifest
                .parties()
                .iter()
                .filter(|party| !parties.contains(party.name.as_str()));
            findings.extend(without.map(|party| {
                Finding::new(
                    Code::FileMissing,
                    format!("no log of party {} is here", party.name),
                )
            }));
        }
    }
    if !shared.export.complete {
        findings.push(Finding::new(
            Code::FileMissing,
            "the export was interrupted, and not gone on with",
        ));
    }
    findings
        .into_iter()
        .for_each(|finding| shared.find(finding));
}

/// Reads one log: entries, tiles, openings.
fn one_log(
    shared: &mut Shared<'_>,
    place: usize,
    mut progress: impl FnMut(u64),
) -> Result<(LogFacts, Option<Hash>, LogSummary)> {
    let export = shared.export;
    let exported = export
        .logs
        .get(place)
        .ok_or_else(|| Error::bug("a log that is not there"))?;
    let files = LogFiles {
        source: shared.source,
        party: &exported.party,
        log: exported.log,
        size: exported.size,
    };
    let place = u32::try_from(place).map_err(Error::bug)?;
    let mut ledger = Ledger::new(exported, place, shared);
    let outcome = files.read(
        |index| exported.has(index),
        |bundle, bytes| {
            let first = bundle.saturating_mul(256);
            let entries: Vec<(u64, Entry)> = (first..)
                .zip(bytes)
                .filter_map(|(index, bytes)| Some((index, ledger.entry(shared, index, bytes)?)))
                .collect();
            match files.openings(bundle) {
                Ok(None) => {}
                Ok(Some(lines)) => {
                    let log = (exported.party.as_str(), exported.log);
                    openings::check(shared, &ledger, log, &lines, &entries);
                }
                Err(cause) => shared.find(
                    Finding::new(
                        Code::FileMalformed,
                        format!("openings of bundle {bundle}: {cause}"),
                    )
                    .of(&exported.party, exported.log),
                ),
            }
            progress(shared.totals.entries);
        },
    );
    if let Some(fault) = shared.fault.take() {
        return Err(temporary(fault));
    }
    let root = match outcome {
        Ok(read) => {
            shared.totals.tiles += read.tiles;
            Some(read.root)
        }
        Err(trouble) => {
            let (code, message) = match trouble {
                Trouble::Missing(path) => (Code::FileMissing, path),
                Trouble::Malformed(path) => (Code::FileMalformed, path),
                Trouble::Io(message) => (Code::FileMalformed, message),
                Trouble::Differs(path) => (
                    Code::TileMismatch,
                    format!("{path}: its hashes are not those of what lies under it"),
                ),
            };
            shared.find(Finding::new(code, message).of(&exported.party, exported.log));
            None
        }
    };
    let facts = ledger.facts();
    let class = shared
        .manifests
        .latest()
        .and_then(|manifest| manifest.party(&exported.party))
        .map_or_else(|| "unknown".to_owned(), |party| party.class.to_string());
    let mut instances = std::mem::take(&mut ledger.first_instances);
    instances.extend(std::mem::take(&mut ledger.last_instances));
    let summary = LogSummary {
        party: exported.party.clone(),
        log: exported.log,
        origin: origin(shared.trust, &exported.party, exported.log),
        class,
        size: exported.size,
        root: root.map(hex::encode).unwrap_or_default(),
        range: (
            exported.ranges.first().map_or(0, |range| range.0),
            exported.ranges.last().map_or(0, |range| range.1),
        ),
        span: ledger.span().map(|(from, to)| Span::new(from, to)),
        cosigned: Vec::new(),
        kinds: std::mem::take(&mut ledger.kinds),
        instance_count: ledger.instance_count,
        instances,
    };
    if exported.log > 1 && exported.has(0) && !facts.loss_accepted {
        shared.find(
            Finding::new(
                Code::LossUnexplained,
                "no entry of this log shows an accepted loss that verifies",
            )
            .of(&exported.party, exported.log),
        );
    }
    Ok((facts, root, summary))
}

fn origin(trust: &Trust, party: &str, log: u64) -> String {
    entry::origin(&trust.kind().to_string(), trust.cluster(), party, log)
}

/// The checkpoint is that of the root that was computed, signed by the log's key, and witnessed. Gives the parties that
/// cosigned.
fn checkpoint(
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

/// Every point of a log that another log names is one of that log.
fn cross(
    shared: &mut Shared<'_>,
    facts: &[LogFacts],
    roots: &[Option<Hash>],
    cosigned: &[BTreeSet<String>],
) -> Result<Vec<WitnessSummary>> {
    let mut summaries = Vec::new();
    let questions = std::mem::take(&mut shared.questions);
    for ((party, number), by) in questions.into_logs() {
        let target = facts
            .iter()
            .position(|log| log.exported.party == party && log.exported.log == number);
        let mut rows = Vec::new();
        let mut asked = Vec::new();
        for (place, seen) in by {
            let Some(asker) = usize::try_from(place)
                .ok()
                .and_then(|place| facts.get(place))
            else {
                continue;
            };
            rows.push(WitnessSummary {
                of: party.clone(),
                log: number,
                by: asker.exported.party.clone(),
                seen: seen.times,
                compared: 0,
                largest: seen.largest,
                cosigned: target
                    .and_then(|target| cosigned.get(target))
                    .is_some_and(|by| by.contains(&asker.exported.party)),
                holds: target.is_some(),
            });
            asked.push((asker, Asked::new(seen).map_err(temporary)?));
        }
        match target.and_then(|target| Some((facts.get(target)?, roots.get(target)?))) {
            None => {
                let message =
                    format!("log {number} of {party} is not here, and other logs name it");
                if is_given_up(facts, &party, number) {
                    let message = format!("{message}; the administrators accepted the loss");
                    shared.find(Finding::new(Code::Lost, message));
                } else {
                    shared.find(Finding::new(Code::FileMissing, message));
                }
            }
            // A log that could not be read has its finding already.
            Some((_, None)) => rows.iter_mut().for_each(|row| row.holds = false),
            Some((target, Some(root))) => {
                compare(shared, facts, target, root, &mut asked, &mut rows)?;
            }
        }
        summaries.extend(rows);
    }
    Ok(summaries)
}

fn compare(
    shared: &mut Shared<'_>,
    facts: &[LogFacts],
    target: &LogFacts,
    expected: &Hash,
    asked: &mut [(&LogFacts, Asked)],
    rows: &mut [WitnessSummary],
) -> Result<()> {
    let exported = &target.exported;
    let files = LogFiles {
        source: shared.source,
        party: &exported.party,
        log: exported.log,
        size: exported.size,
    };
    let mut skipped = 0_u64;
    let mut findings = Vec::new();
    let mut compared = 0_u64;
    let grown = files.grow(
        |index| exported.has(index),
        |roots| {
            let size = roots.size();
            for ((asker, asked), row) in asked.iter_mut().zip(rows.iter_mut()) {
                while let Some(question) = asked.up_to(size)? {
                    if question.size != size {
                        // Within a tile whose leaves are not here, or of no entries at all.
                        skipped += u64::from(question.size > 0);
                        continue;
                    }
                    row.compared += 1;
                    compared += 1;
                    // The first one says it all: no later point of another history is one of this log.
                    if question.root != roots.root() && std::mem::replace(&mut row.holds, false) {
                        let message = format!(
                            "it saw another history of log {} of {}: at {size} entries the root {}",
                            exported.log,
                            exported.party,
                            hex::encode(question.root)
                        );
                        findings.push(
                            Finding::new(Code::Fork, message)
                                .of(&asker.exported.party, asker.exported.log)
                                .at(question.index),
                        );
                    }
                }
            }
            Ok(())
        },
    );
    shared.totals.cross_checks += compared;
    findings
        .into_iter()
        .for_each(|finding| shared.find(finding));
    if !matches!(grown, Ok(root) if root == *expected) {
        // The files were changed while they were read.
        let message = "its tiles are others than when they were first read".to_owned();
        shared.find(Finding::new(Code::TileMismatch, message).of(&exported.party, exported.log));
        return Ok(());
    }
    if skipped > 0 {
        let message = format!("{skipped} points that other logs name are not in the range");
        shared.find(Finding::new(Code::OutOfRange, message).of(&exported.party, exported.log));
    }
    for ((asker, asked), row) in asked.iter_mut().zip(rows.iter_mut()) {
        beyond(shared, facts, target, asker, asked, row)?;
    }
    Ok(())
}

/// Whether a party went on with another log, after a loss that was accepted.
fn is_given_up(facts: &[LogFacts], party: &str, log: u64) -> bool {
    facts.iter().any(|later| {
        later.exported.party == party && later.exported.log > log && later.loss_accepted
    })
}

/// What is left was seen of the log beyond its end here.
fn beyond(
    shared: &mut Shared<'_>,
    facts: &[LogFacts],
    target: &LogFacts,
    asker: &LogFacts,
    asked: &mut Asked,
    row: &mut WitnessSummary,
) -> Result<()> {
    let exported = &target.exported;
    let mut first = None;
    let mut count = 0_u64;
    let mut largest = 0;
    while let Some(question) = asked.up_to(u64::MAX).map_err(temporary)? {
        first.get_or_insert(question.index);
        count += 1;
        largest = question.size;
    }
    let Some(first) = first else {
        return Ok(());
    };
    let is_lost = is_given_up(facts, &exported.party, exported.log);
    let missing = largest.saturating_sub(exported.size);
    let what = format!(
        "it saw up to {missing} entries more of log {} of {} than are here, in {count} entries",
        exported.log, exported.party
    );
    let finding = if is_lost {
        Finding::new(
            Code::Lost,
            format!("{what}; the administrators accepted the loss"),
        )
    } else if asker.is_tail(first) {
        Finding::new(
            Code::Truncated,
            format!("{what}; those were made while the export was under way"),
        )
        .as_severe_as(Severity::Warning)
    } else {
        row.holds = false;
        Finding::new(Code::Truncated, what)
    };
    shared.find(
        finding
            .of(&asker.exported.party, asker.exported.log)
            .at(first),
    );
    Ok(())
}

fn finish(
    shared: Shared<'_>,
    logs: Vec<LogSummary>,
    witnesses: Vec<WitnessSummary>,
    chain: Option<super::report::ChainSummary>,
) -> Result<Report> {
    if let Some(fault) = shared.fault {
        return Err(temporary(fault));
    }
    let counts: Vec<Count> = shared
        .findings
        .counts()
        .map(|(severity, code, count)| Count {
            severity,
            code,
            count,
        })
        .collect();
    let spans = logs.iter().filter_map(|log| log.span.as_ref());
    let span = spans.fold(None, |all: Option<Span>, span| {
        // RFC 3339 in UTC sorts as its times do.
        Some(all.map_or_else(
            || span.clone(),
            |all| Span {
                from: all.from.min(span.from.clone()),
                to: all.to.max(span.to.clone()),
            },
        ))
    });
    Ok(Report {
        passed: shared.findings.count(Severity::Error) == 0,
        cluster: shared.trust.cluster().to_owned(),
        kind: shared.trust.kind().to_string(),
        span,
        totals: shared.totals,
        counts,
        manifests: shared.manifests.summaries(),
        logs,
        keys: shared.keys.summaries(),
        witnesses,
        chain,
        timeline: shared.timeline.finish(),
        findings: shared.findings.into_sorted(),
    })
}
