//! Every byte of a small certificate and a small export changed, one at a time: each change is found, or is one of those that
//! mean nothing, and nothing panics.

use std::collections::BTreeMap;

use arca_client::audit::certificate::{CertificatePolicy, verify};
use arca_client::audit::sample::{PACE_MS, Plan, Sample};
use arca_client::audit::{ExportPolicy, Memory, Trust, verify_export};

/// One bit, another one, or a whole other byte: which one is chosen by the place.
fn flip(place: usize) -> u8 {
    [0x01, 0x20, 0x80, 0x04, 0xff][place % 5]
}

#[test]
fn every_byte_of_a_certificate_counts() {
    let sample = Sample::new().unwrap();
    let trust = sample.trust().unwrap();
    let policy = CertificatePolicy::default();
    let bytes = sample.certificate(2).unwrap();
    assert!(verify(&bytes, &trust, &policy).verified);
    let mut passed: BTreeMap<usize, String> = BTreeMap::new();
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= flip(place);
        if verify(&changed, &trust, &policy).verified {
            let from = place.saturating_sub(60);
            passed.insert(
                place,
                String::from_utf8_lossy(&bytes[from..=place]).into_owned(),
            );
        }
    }
    // What names a cosigner that is none of the certificate's, and its cosignature: signed-note has unknown signatures
    // ignored. Here that is the third party.
    let text = String::from_utf8(bytes).unwrap();
    passed.retain(|place, _| !is_in_line_of_third(&text, *place));
    assert!(
        passed.is_empty(),
        "{} changes passed: {passed:#?}",
        passed.len()
    );
}

/// Whether a place is in the cosignature of the party that did not sign. In JSON a line ends with `\n`, two characters.
fn is_in_line_of_third(text: &str, place: usize) -> bool {
    text.match_indices("— arca/simulated/sim-sample/")
        .any(|(start, _)| {
            let line = &text[start..];
            let line = &line[..line.find("\\n").unwrap()];
            // The last of two sessions is signed by cloud and cto.
            line.contains("/ceo/witness ") && (start..start + line.len()).contains(&place)
        })
}

const TINY: Plan = Plan {
    sessions: 2,
    openings: true,
    restart_every: 0,
    pace_ms: PACE_MS,
};

fn passes(export: &Memory, trust: &Trust) -> bool {
    let policy = ExportPolicy {
        fail_fast: true,
        ..ExportPolicy::default()
    };
    verify_export(export, trust, policy, |_, _| ()).is_ok_and(|report| report.passed)
}

/// Places in an export at which a change means nothing.
fn is_meaningless(path: &str, content: &[u8], place: usize) -> bool {
    let start = content[..place]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let line = content[start..]
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap();
    let line = String::from_utf8_lossy(line);
    match path {
        // Nobody signs it, and nothing is believed because it stands there: who exported, when, and up to where the logs had
        // settled.
        "export.json" => {
            ["exporter", "began_ms", "settled"]
                .iter()
                .any(|field| line.contains(field))
                || content[place].is_ascii_whitespace()
        }
        // One of two cosigners: an unknown signature is ignored, and the other is enough.
        path if path.ends_with("/checkpoint") => line.contains("/witness"),
        _ => false,
    }
}

#[test]
fn every_byte_of_an_export_counts() {
    let sample = Sample::new().unwrap();
    let trust = sample.trust().unwrap();
    let mut export = sample.export(&TINY).unwrap();
    assert!(passes(&export, &trust));
    // The other parties' files are alike. This party's are the first to be read, so that most changes are found early.
    let paths: Vec<String> = export
        .0
        .keys()
        .filter(|path| path.starts_with("ceo/") || *path == "export.json")
        .cloned()
        .collect();
    let mut counted = 0;
    for path in paths {
        let sound = export.0[&path].clone();
        for place in 0..sound.len() {
            if is_meaningless(&path, &sound, place) {
                continue;
            }
            export.0.get_mut(&path).unwrap()[place] ^= flip(place);
            assert!(
                !passes(&export, &trust),
                "{path}, byte {place}: {:?}",
                String::from_utf8_lossy(
                    &sound[place.saturating_sub(20)..sound.len().min(place + 20)]
                )
            );
            export.0.get_mut(&path).unwrap()[place] = sound[place];
            counted += 1;
        }
    }
    assert!(counted > 8_000, "only {counted} bytes were changed");
}

#[test]
fn what_means_nothing_is_still_no_panic() {
    let sample = Sample::new().unwrap();
    let trust = sample.trust().unwrap();
    let mut export = sample.export(&TINY).unwrap();
    for path in ["export.json", "ceo/1/checkpoint"] {
        let sound = export.0[path].clone();
        for place in (0..sound.len())
            .filter(|place| is_meaningless(path, &sound, *place))
            .step_by(7)
        {
            export.0.get_mut(path).unwrap()[place] ^= flip(place);
            passes(&export, &trust);
            export.0.get_mut(path).unwrap()[place] = sound[place];
        }
    }
}

#[test]
fn sampled_bytes_of_a_large_export_count() {
    let sample = Sample::new().unwrap();
    let trust = sample.trust().unwrap();
    let plan = Plan {
        sessions: 600,
        openings: false,
        restart_every: 200,
        pace_ms: PACE_MS,
    };
    let mut export = sample.export(&plan).unwrap();
    let paths: Vec<String> = export
        .0
        .keys()
        .filter(|path| path.contains("/tile/"))
        .cloned()
        .collect();
    assert!(paths.len() > 15);
    // A linear congruential sequence: the same places at each run.
    let mut next = 12_345_usize;
    for round in 0..60 {
        next = next
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let path = &paths[round % paths.len()];
        let content = export.0.get_mut(path).unwrap();
        let place = (next >> 16) % content.len();
        content[place] ^= flip(next >> 40);
        assert!(!passes(&export, &trust), "{path}, byte {place}");
        let content = export.0.get_mut(path).unwrap();
        content[place] ^= flip(next >> 40);
    }
}
