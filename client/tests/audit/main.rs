//! Certificates and exports of a made-up cluster with real logs: verified, attacked, and broken byte by byte.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod attacks;
mod certificates;
mod mutations;
mod program;
mod reports;

use std::io::Cursor;

use arca_client::audit::finding::Severity;
use arca_client::audit::report::Report;
use arca_client::audit::sample::{PACE_MS, Plan, Sample};
use arca_client::audit::{ExportPolicy, Memory, Trust, verify_export};

/// Two boots of each party, each session opened.
const SMALL: Plan = Plan {
    sessions: 6,
    openings: true,
    restart_every: 3,
    pace_ms: PACE_MS,
};

fn audit(export: &Memory, trust: &Trust) -> Report {
    verify_export(export, trust, ExportPolicy::default(), |_, _| ()).unwrap()
}

fn audit_with_chain(export: &Memory, trust: &Trust, lines: &str) -> Report {
    let policy = ExportPolicy {
        chain: Some(Box::new(Cursor::new(lines.to_owned()))),
        ..ExportPolicy::default()
    };
    verify_export(export, trust, policy, |_, _| ()).unwrap()
}

/// Codes of the findings of a severity.
fn codes(report: &Report, severity: Severity) -> Vec<&'static str> {
    let of = report
        .counts
        .iter()
        .filter(|count| count.severity == severity);
    of.map(|count| count.code).collect()
}

fn errors(report: &Report) -> Vec<&'static str> {
    assert_eq!(report.passed, report.count(Severity::Error) == 0);
    codes(report, Severity::Error)
}

#[test]
fn a_sound_export_passes_and_says_what_was_looked_at() {
    let sample = Sample::new().unwrap();
    let export = sample.export(&SMALL).unwrap();
    let mut steps = Vec::new();
    let report = verify_export(
        &export,
        &sample.trust().unwrap(),
        ExportPolicy::default(),
        |done, total| steps.push((done, total)),
    )
    .unwrap();
    assert!(
        report.passed && report.findings.is_empty(),
        "{:#?}",
        report.findings
    );
    let totals = &report.totals;
    assert_eq!((totals.sessions, totals.signed, totals.failed), (6, 6, 0));
    assert_eq!((totals.signatures, totals.verified), (6, 6));
    assert_eq!(totals.evidence, 6);
    assert!(totals.tiles >= 3 && totals.cross_checks > 0);
    assert_eq!(steps.last(), Some(&(totals.entries, totals.entries)));
    assert_eq!(report.logs.len(), 3);
    for log in &report.logs {
        assert_eq!(log.instance_count, 2);
        assert_eq!(log.cosigned.len(), 2);
        assert_eq!(log.kinds.values().sum::<u64>(), log.size);
    }
    assert!(
        report
            .witnesses
            .iter()
            .all(|witness| witness.holds && witness.cosigned)
    );
    assert_eq!(report.keys.len(), 1);
    assert_eq!(report.keys[0].signed, 6);
    assert_eq!(report.manifests.len(), 1);
}

#[test]
fn many_bundles_and_many_partitions_pass_too() {
    let sample = Sample::new().unwrap();
    let plan = Plan {
        sessions: 700,
        openings: false,
        restart_every: 250,
        pace_ms: PACE_MS,
    };
    let report = audit(&sample.export(&plan).unwrap(), &sample.trust().unwrap());
    assert!(report.passed, "{:#?}", report.findings);
    assert_eq!(report.totals.sessions, 700);
    assert!(report.logs.iter().all(|log| log.size > 2 * 256));
}
