//! An export, verified: each log by itself, then what the logs say of each other.
//!
//! Streaming: memory grows with the number of keys, starts and manifests, and not with that of signatures.

use std::collections::BTreeSet;
use std::io::{self, BufRead};

use arca_audit::Hash;
use arca_audit::entry::Entry;
use arca_audit::note::VerifierKey;

use super::chain::Chain;
use super::export::{self, Export};
use super::files::Files;
use super::finding::{Code, Finding, Findings, Severity};
use super::keys::Keys;
use super::ledger::Ledger;
use super::manifests::Manifests;
use super::questions::Questions;
use super::record::Names;
use super::report::{Count, LogSummary, Report, Span, TimelineBuilder, Totals, WitnessSummary};
use super::shared::{LogFacts, Shared};
use super::source::Source;
use super::spool::Partitions;
use super::tiles::{LogFiles, Trouble};
use super::trust::Trust;
use super::{checkpoint, cross, openings, sessions};
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
        let by = checkpoint::check(&mut shared, &facts, log, root.as_ref(), &policy, summary);
        cosigned.push(by);
    }
    if fails(&shared) {
        return finish(shared, summaries, Vec::new(), None);
    }
    let witnesses = cross::compare_all(&mut shared, &facts, &roots, &cosigned)?;
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

pub(super) fn temporary(cause: io::Error) -> Error {
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
        origin: checkpoint::origin(shared.trust, &exported.party, exported.log),
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
