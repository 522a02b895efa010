//! Certificates and exports of a made-up cluster with real logs, verified, and broken in every way.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::time::Instant;

use arca_client::audit::certificate::{self, CertificatePolicy};
use arca_client::audit::finding::Severity;
use arca_client::audit::report::Report;
use arca_client::audit::sample::{Plan, Sample};
use arca_client::audit::{ExportPolicy, Memory, Trust, verify_export};

const SMALL: Plan = Plan {
    sessions: 6,
    openings: true,
    restart_every: 3,
};

fn audit(export: &Memory, trust: &Trust) -> Report {
    verify_export(export, trust, ExportPolicy::default(), |_, _| ()).unwrap()
}

/// Codes of errors, each once.
fn errors(report: &Report) -> Vec<&'static str> {
    let of = |count: &&arca_client::audit::report::Count| count.severity == Severity::Error;
    report
        .counts
        .iter()
        .filter(of)
        .map(|count| count.code)
        .collect()
}

#[test]
fn a_sound_export_passes_and_says_what_was_looked_at() {
    let sample = Sample::new().unwrap();
    let export = sample.export(&SMALL).unwrap();
    let started = Instant::now();
    let report = audit(&export, &sample.trust().unwrap());
    println!(
        "{:?}, {} bytes",
        started.elapsed(),
        export.0.values().map(Vec::len).sum::<usize>()
    );
    assert!(report.passed, "{:#?}", report.findings);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.totals.sessions, 6);
    assert_eq!(report.totals.signed, 6);
    assert_eq!(report.totals.verified, 6);
    assert_eq!(report.totals.signatures, 6);
    assert_eq!(report.totals.evidence, 6);
    assert_eq!(report.logs.len(), 3);
    assert!(report.totals.cross_checks > 0);
    assert!(
        report
            .witnesses
            .iter()
            .all(|witness| witness.holds && witness.cosigned)
    );
}

#[test]
fn a_sound_certificate_passes_every_step() {
    let sample = Sample::new().unwrap();
    let bytes = sample.certificate(3).unwrap();
    let report = certificate::verify(
        &bytes,
        &sample.trust().unwrap(),
        &CertificatePolicy::default(),
    );
    assert!(report.verified, "{report:#?}");
    println!("{} bytes", bytes.len());
}
