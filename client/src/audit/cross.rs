//! What the logs say of each other, held against those logs.

use std::collections::BTreeSet;

use arca_audit::Hash;

use super::finding::{Code, Finding, Severity};
use super::questions::Asked;
use super::report::WitnessSummary;
use super::shared::{LogFacts, Shared};
use super::tiles::LogFiles;
use super::verify::temporary;
use crate::error::Result;

/// Every point of a log that another log names is one of that log.
pub(super) fn compare_all(
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
