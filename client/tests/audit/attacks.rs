//! Exports in which something is withheld, forked, replaced or false: each shows, by its code.

use std::collections::BTreeMap;

use arca_audit::entry::{Entry, Event, Hex, Outcome};
use arca_client::audit::export::Export;
use arca_client::audit::finding::Severity;
use arca_client::audit::report::Report;
use arca_client::audit::sample::{PACE_MS, Plan, Sample};
use arca_client::audit::{ExportPolicy, Memory, verify_export};

use super::{SMALL, audit, audit_with_chain, codes, errors};

/// Logs of more than a bundle.
const LONG: Plan = Plan {
    sessions: 240,
    openings: false,
    restart_every: 0,
    pace_ms: PACE_MS,
};

/// What an audit says of logs that a party's enclave wrote falsely.
fn falsely(plan: &Plan, mut tamper: impl FnMut(&str, &mut Entry) -> bool) -> Report {
    let sample = Sample::new().unwrap();
    let export = sample.export_false(plan, &mut tamper).unwrap();
    audit(&export, &sample.trust().unwrap())
}

fn is_outcome(entry: &Entry) -> bool {
    matches!(entry.event, Event::SigningOutcome { .. })
}

fn is_intent(entry: &Entry) -> bool {
    matches!(entry.event, Event::SigningIntent(_))
}

/// Puts one party's log of `from` in the place of that of `to`.
fn replace_log(to: &mut Memory, from: &Memory, party: &str) {
    let prefix = format!("{party}/");
    to.0.retain(|path, _| !path.starts_with(&prefix));
    let theirs = from.0.iter().filter(|(path, _)| path.starts_with(&prefix));
    to.0.extend(theirs.map(|(path, content)| (path.clone(), content.clone())));
    let logs =
        |export: &Memory| -> Export { serde_json::from_slice(&export.0["export.json"]).unwrap() };
    let (mut export, other) = (logs(to), logs(from));
    let theirs = other
        .logs
        .into_iter()
        .find(|log| log.party == party)
        .unwrap();
    *export
        .logs
        .iter_mut()
        .find(|log| log.party == party)
        .unwrap() = theirs;
    to.0.insert(
        "export.json".to_owned(),
        serde_json::to_vec(&export).unwrap(),
    );
}

#[test]
fn a_host_that_truncates_a_log_is_found_out() {
    let sample = Sample::new().unwrap();
    let trust = sample.trust().unwrap();
    let mut export = sample.export(&LONG).unwrap();
    let earlier = Plan {
        sessions: 120,
        ..LONG
    };
    // Sound by itself: the checkpoint was signed and cosigned.
    replace_log(&mut export, &sample.export(&earlier).unwrap(), "ceo");
    let report = audit(&export, &trust);
    let mut errors = errors(&report);
    errors.sort_unstable();
    assert_eq!(errors, ["log-truncated", "signer-without-intent"]);
}

#[test]
fn a_host_that_shows_another_history_is_found_out() {
    let sample = Sample::new().unwrap();
    let trust = sample.trust().unwrap();
    let mut export = sample.export(&LONG).unwrap();
    let mut count = 0;
    let forked = sample
        .export_false(&LONG, &mut |party, entry| {
            // Signed by the same key, and nothing in it contradicts anything else.
            if party == "cloud" && is_outcome(entry) {
                count += 1;
                if count == 50 {
                    entry.time_ms += 1;
                }
            }
            true
        })
        .unwrap();
    replace_log(&mut export, &forked, "cloud");
    let report = audit(&export, &trust);
    assert_eq!(errors(&report), ["log-forked"]);
    // The others saw it otherwise, each of which says so once, and it saw the others otherwise.
    let by = |party: &str, of: &str| {
        report.findings.iter().any(|finding| {
            finding.party.as_deref() == Some(party)
                && finding.message.contains(&format!("of {of}:"))
        })
    };
    assert!(by("ceo", "cloud") && by("cto", "cloud") && by("cloud", "ceo"));
    assert_eq!(report.findings.len(), 4);
    let mut of_cloud = report
        .witnesses
        .iter()
        .filter(|witness| witness.of == "cloud");
    assert!(of_cloud.all(|witness| !witness.holds && witness.compared > 1));
}

#[test]
fn files_that_are_withheld_or_swapped_are_found_out() {
    let sample = Sample::new().unwrap();
    let trust = sample.trust().unwrap();
    let sound = sample.export(&LONG).unwrap();
    let bundle = "cto/1/tile/entries/000";
    type Change<'c> = &'c dyn Fn(&mut Memory);
    let cases: [(&str, Change<'_>); 8] = [
        ("file-missing", &|export| drop(export.0.remove(bundle))),
        ("file-missing", &|export| {
            drop(export.0.remove("cto/1/tile/0/000"))
        }),
        ("file-missing", &|export| {
            drop(export.0.remove("cto/1/checkpoint"))
        }),
        ("evidence-refused", &|export| {
            export.0.retain(|path, content| {
                // Evidence is CBOR, a manifest is JSON.
                !path.starts_with("cto/files/") || content.starts_with(b"{")
            });
        }),
        ("tile-mismatch", &|export| {
            let other = export.0["ceo/1/tile/entries/000"].clone();
            export.0.insert(bundle.to_owned(), other);
        }),
        ("tile-mismatch", &|export| {
            let other = export.0["ceo/1/tile/0/000"].clone();
            export.0.insert("cto/1/tile/0/000".to_owned(), other);
        }),
        ("checkpoint-unsigned", &|export| {
            let other = export.0["ceo/1/checkpoint"].clone();
            export.0.insert("cto/1/checkpoint".to_owned(), other);
        }),
        ("file-missing", &|export| {
            export.0.retain(|path, _| !path.starts_with("cto/"));
            let mut file: Export = serde_json::from_slice(&export.0["export.json"]).unwrap();
            file.logs.retain(|log| log.party != "cto");
            export
                .0
                .insert("export.json".to_owned(), serde_json::to_vec(&file).unwrap());
        }),
    ];
    for (expected, change) in cases {
        let mut export = sound.clone();
        change(&mut export);
        let report = audit(&export, &trust);
        assert!(
            errors(&report).contains(&expected),
            "{expected}: {:?}",
            errors(&report)
        );
    }
}

#[test]
fn an_older_checkpoint_over_newer_files_is_found_out() {
    let sample = Sample::new().unwrap();
    let mut export = sample.export(&LONG).unwrap();
    let earlier = sample
        .export(&Plan {
            sessions: 200,
            ..LONG
        })
        .unwrap();
    export.0.insert(
        "ceo/1/checkpoint".to_owned(),
        earlier.0["ceo/1/checkpoint"].clone(),
    );
    assert_eq!(
        errors(&audit(&export, &sample.trust().unwrap())),
        ["tile-mismatch"]
    );
}

#[test]
fn an_intent_without_an_outcome_is_found_and_a_restart_explains_it() {
    let plan = Plan {
        sessions: 150,
        openings: false,
        restart_every: 100,
        pace_ms: 1000,
    };
    let mut dropped = 0;
    let without = |at: u64| {
        move |party: &str, entry: &mut Entry, seen: &mut u64| {
            let is_it = party == "cloud"
                && matches!(
                    &entry.event,
                    Event::SigningOutcome {
                        result: Outcome::Released,
                        ..
                    }
                );
            *seen += u64::from(is_it);
            !(is_it && *seen == at)
        }
    };
    // Less than a minute before the end of the log, in the last boot.
    let late = without(45);
    let report = falsely(&plan, |party, entry| late(party, entry, &mut dropped));
    assert_eq!(errors(&report), Vec::<&str>::new());
    assert!(codes(&report, Severity::Note).contains(&"intent-pending"));

    let plan = Plan {
        sessions: 300,
        restart_every: 0,
        ..plan
    };
    let (mut dropped, early) = (0, without(20));
    let report = falsely(&plan, |party, entry| early(party, entry, &mut dropped));
    assert_eq!(errors(&report), ["intent-without-outcome"]);

    let plan = Plan {
        restart_every: 250,
        ..plan
    };
    let (mut dropped, early) = (0, without(20));
    let report = falsely(&plan, |party, entry| early(party, entry, &mut dropped));
    assert_eq!(errors(&report), Vec::<&str>::new());
    assert_eq!(report.totals.ended_by_restart, 1);
}

#[test]
fn a_share_that_was_not_announced_is_found() {
    let report = falsely(&SMALL, |party, entry| party != "cloud" || !is_intent(entry));
    let errors = errors(&report);
    assert!(errors.contains(&"outcome-without-intent"), "{errors:?}");
    assert!(errors.contains(&"signer-without-intent"), "{errors:?}");

    // One whose log knows nothing at all.
    let report = falsely(&SMALL, |party, entry| {
        party != "cloud"
            || !(is_intent(entry)
                || matches!(
                    &entry.event,
                    Event::SigningOutcome {
                        result: Outcome::Released,
                        ..
                    }
                ))
    });
    assert!(super::errors(&report).contains(&"signer-without-intent"));
}

#[test]
fn a_coordinator_that_tells_parties_different_things_is_found() {
    type Change = fn(&mut arca_audit::entry::SigningIntent);
    let changes: [Change; 3] = [
        |intent| intent.request = Hex([1; 32]),
        |intent| intent.epoch = 2,
        |intent| intent.coordinator = "cloud".to_owned(),
    ];
    for change in changes {
        let plan = Plan {
            openings: false,
            ..SMALL
        };
        let report = falsely(&plan, |party, entry| {
            if let (Event::SigningIntent(intent), "cloud") = (&mut entry.event, party) {
                change(intent);
            }
            true
        });
        let errors = errors(&report);
        assert!(errors.contains(&"session-differs"), "{errors:?}");
    }
}

#[test]
fn what_an_entry_may_not_say_is_found() {
    type Change = fn(&str, &mut Entry);
    let cases: [(&str, Change); 8] = [
        ("not-introduced", |_, entry| {
            if is_outcome(entry) {
                entry.boot = Hex([9; 16]);
            }
        }),
        ("not-introduced", |_, entry| {
            if is_outcome(entry) {
                entry.evidence = Hex([9; 32]);
            }
        }),
        ("log-key-changed", |_, entry| {
            if let Event::InstanceStarted(started) = &mut entry.event
                && !started.first
            {
                started.log_key = Hex([9; 32]);
            }
        }),
        ("evidence-refused", |_, entry| {
            if let Event::InstanceStarted(started) = &mut entry.event {
                started.identity = Hex([9; 32]);
            }
        }),
        ("evidence-refused", |_, entry| {
            if let Event::InstanceStarted(_) = &entry.event {
                entry.manifest = Hex([9; 48]);
            }
        }),
        ("measurement-unknown", |_, entry| {
            if let Event::EvidenceVerified { measurement, .. } = &mut entry.event {
                *measurement = Some(Hex([9; 32]));
            }
        }),
        ("key-differs", |party, entry| {
            if let (Event::KeyCreated(created), "cto") = (&mut entry.event, party) {
                created.public_key = vec![9; 32];
            }
        }),
        ("key-unknown", |_, entry| {
            if let Event::SigningIntent(intent) = &mut entry.event {
                intent.key = "keys/99".to_owned();
            }
        }),
    ];
    for (expected, change) in cases {
        let report = falsely(&SMALL, |party, entry| {
            change(party, entry);
            true
        });
        let errors = errors(&report);
        assert!(errors.contains(&expected), "{expected}: {errors:?}");
    }
}

#[test]
fn an_instance_that_writes_after_a_later_one_is_found() {
    let mut first = BTreeMap::new();
    let report = falsely(&SMALL, |party, entry| {
        let boot = *first.entry(party.to_owned()).or_insert(entry.boot);
        if is_outcome(entry) {
            entry.boot = boot;
        }
        true
    });
    assert!(
        errors(&report).contains(&"two-instances"),
        "{:?}",
        errors(&report)
    );
}

#[test]
fn time_that_runs_back_is_found() {
    let report = falsely(&SMALL, |_, entry| {
        if is_outcome(entry) {
            entry.time_ms -= 120_000;
        }
        true
    });
    assert_eq!(errors(&report), Vec::<&str>::new());
    assert!(codes(&report, Severity::Warning).contains(&"time-back"));
}

#[test]
fn what_a_peer_saw_does_not_go_back() {
    let report = falsely(&SMALL, |party, entry| {
        if let (Event::SigningIntent(intent), "ceo") = (&mut entry.event, party)
            && let Some(seen) = intent.seen.first_mut()
        {
            seen.size = 100 - seen.size;
        }
        true
    });
    assert!(
        errors(&report).contains(&"seen-back"),
        "{:?}",
        errors(&report)
    );
}

#[test]
fn openings_are_held_against_the_log() {
    let sample = Sample::new().unwrap();
    let trust = sample.trust().unwrap();
    let sound = sample.export(&SMALL).unwrap();
    let path = "ceo/openings/1/000.jsonl";
    let text = String::from_utf8(sound.0[path].clone()).unwrap();
    let with = |text: String| {
        let mut export = sound.clone();
        export.0.insert(path.to_owned(), text.into_bytes());
        audit(&export, &trust)
    };
    for (from, to) in [
        (
            "\"request_id\":\"request-0\"",
            "\"request_id\":\"request-1\"",
        ),
        ("\"threshold\":2", "\"threshold\":1"),
        ("\"input\":0", "\"input\":1"),
        ("{\"index\"", "{ \"index\""),
        ("\"initiator\":\"treasury\"", "\"initiator\":\"treasurer\""),
    ] {
        assert!(text.contains(from));
        let report = with(text.replacen(from, to, 1));
        assert_eq!(errors(&report), ["opening-refused"], "{from}");
    }
    // Left out: nobody can say what was signed.
    let (_, rest) = text.split_once('\n').unwrap();
    let report = with(rest.to_owned());
    assert!(report.passed);
    assert_eq!(codes(&report, Severity::Warning), ["signature-not-opened"]);
    assert_eq!(report.totals.verified, 5);
}

#[test]
fn an_outcome_that_names_other_signatures_is_found() {
    let report = falsely(&SMALL, |_, entry| {
        if let Event::SigningOutcome {
            result: Outcome::Signed { signatures },
            ..
        } = &mut entry.event
        {
            signatures[0] = Hex([9; 32]);
        }
        true
    });
    assert_eq!(errors(&report), ["outcome-differs"]);
    assert_eq!(report.totals.verified, 0);
}

#[test]
fn a_chain_signature_that_no_log_explains_is_found() {
    let sample = Sample::new().unwrap();
    let trust = sample.trust().unwrap();
    let export = sample.export(&SMALL).unwrap();
    let known: Vec<String> = ["ceo", "cloud", "cto"]
        .iter()
        .filter_map(|party| export.0.get(&format!("{party}/openings/1/000.jsonl")))
        .flat_map(|lines| lines.split(|byte| *byte == b'\n'))
        .filter(|line| !line.is_empty())
        .map(|line| {
            let opening: serde_json::Value = serde_json::from_slice(line).unwrap();
            let signature = opening["signatures"][0]["signature"]
                .as_str()
                .unwrap()
                .to_owned();
            format!("{{\"signature\":\"{signature}\"}}\n")
        })
        .collect();
    assert_eq!(known.len(), 6);
    let report = audit_with_chain(&export, &trust, &known.concat());
    assert!(report.passed, "{:#?}", report.findings);
    assert_eq!(report.chain.unwrap().explained, 6);

    let foreign = format!("{}{{\"signature\":\"{}\"}}\n", known[0], "ab".repeat(64));
    let report = audit_with_chain(&export, &trust, &foreign);
    assert_eq!(errors(&report), ["chain-signature-unexplained"]);
    let chain = report.chain.unwrap();
    assert_eq!((chain.given, chain.explained, chain.unused), (2, 1, 5));
}

#[test]
fn administrators_that_are_not_pinned_vouch_for_nothing() {
    let (sample, other) = (Sample::new().unwrap(), Sample::new().unwrap());
    let report = audit(&sample.export(&SMALL).unwrap(), &other.trust().unwrap());
    let errors = errors(&report);
    assert!(
        errors.contains(&"manifest-refused") && errors.contains(&"evidence-refused"),
        "{errors:?}"
    );
}

#[test]
fn a_witness_that_is_needed_and_missing_is_found() {
    use arca_audit::note::{KeyKind, VerifierKey};
    let sample = Sample::new().unwrap();
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let witness =
        VerifierKey::of_signing_key("w.example/1".parse().unwrap(), KeyKind::CosignatureV1, &key);
    let policy = ExportPolicy {
        witnesses: vec![witness],
        needed: 1,
        ..ExportPolicy::default()
    };
    let export = sample.export(&SMALL).unwrap();
    let report = verify_export(&export, &sample.trust().unwrap(), policy, |_, _| ()).unwrap();
    assert_eq!(errors(&report), ["witness-missing"]);
}

#[test]
fn an_interrupted_export_is_not_taken_for_a_whole_one() {
    let sample = Sample::new().unwrap();
    let mut export = sample.export(&SMALL).unwrap();
    let file = String::from_utf8(export.0["export.json"].clone()).unwrap();
    let file = file.replace("\"complete\": true", "\"complete\": false");
    export.0.insert("export.json".to_owned(), file.into_bytes());
    assert_eq!(
        errors(&audit(&export, &sample.trust().unwrap())),
        ["file-missing"]
    );
}

#[test]
fn a_range_is_verified_as_far_as_it_goes() {
    let sample = Sample::new().unwrap();
    let trust = sample.trust().unwrap();
    let plan = Plan {
        sessions: 1000,
        ..LONG
    };
    let mut export = sample.export(&plan).unwrap();
    let mut file: Export = serde_json::from_slice(&export.0["export.json"]).unwrap();
    for log in &mut file.logs {
        log.ranges = vec![(0, 256), (768, log.size)];
        for hidden in ["001", "002"] {
            export
                .0
                .remove(&format!("{}/1/tile/entries/{hidden}", log.party))
                .unwrap();
            export
                .0
                .remove(&format!("{}/1/tile/0/{hidden}", log.party))
                .unwrap();
        }
    }
    export
        .0
        .insert("export.json".to_owned(), serde_json::to_vec(&file).unwrap());
    let report = audit(&export, &trust);
    assert!(report.passed, "{:#?}", report.findings);
    assert!(codes(&report, Severity::Note).contains(&"out-of-range"));
    // What is not there is still bound by the hashes above it.
    let tile = export.0.get_mut("ceo/1/tile/1/000.p/5").unwrap();
    tile[40] ^= 1;
    assert_eq!(
        errors(&audit(&export, &trust)).first(),
        Some(&"tile-mismatch")
    );
}
