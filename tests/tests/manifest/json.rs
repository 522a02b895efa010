//! How a manifest is written down.

use arca_attestation::Error;
use arca_attestation::manifest::{Revocation, parse};
use serde_json::{Value, json};

use crate::common::*;

fn changed(change: impl FnOnce(&mut Value)) -> Error {
    let mut json: Value = serde_json::from_slice(&draft().to_bytes().unwrap()).unwrap();
    change(&mut json);
    parse(&serde_json::to_vec(&json).unwrap()).unwrap_err()
}

#[test]
fn unknown_missing_and_repeated_fields_are_refused() {
    let syntax = |error| assert!(matches!(error, Error::ManifestSyntax { .. }), "{error:?}");
    for place in [
        "",
        "/parties/0",
        "/administrators",
        "/administrators/keys/0",
        "/principals/0",
        "/parties/0/measurements/0",
    ] {
        let object = |json: &mut Value| {
            json.pointer_mut(place)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .clone()
        };
        let mut whole = serde_json::to_value(draft()).unwrap();
        for field in object(&mut whole).keys() {
            if field == "policy_digest" {
                continue;
            }
            syntax(changed(|json| {
                json.pointer_mut(place)
                    .unwrap()
                    .as_object_mut()
                    .unwrap()
                    .remove(field);
            }));
        }
        syntax(changed(|json| {
            json.pointer_mut(place).unwrap()["note"] = json!(1)
        }));
    }
    let text = String::from_utf8(draft().to_bytes().unwrap()).unwrap();
    let twice = text.replacen("\"epoch\": 5,", "\"epoch\": 5, \"epoch\": 6,", 1);
    assert_ne!(text, twice);
    syntax(parse(twice.as_bytes()).unwrap_err());
}

#[test]
fn values_of_the_wrong_type_or_size_are_refused() {
    for (place, value) in [
        ("/epoch", json!(-1)),
        ("/epoch", json!(1.5)),
        ("/epoch", json!("1")),
        ("/not_after", json!("2030-01-01")),
        ("/parties/0/class", json!("Simulated")),
        ("/parties/0/class", json!("none")),
        ("/parties/0/identity", json!("xyz")),
        ("/parties/0/measurements/0/pcr0", json!("00")),
        ("/parties/0/measurements/0/pcr0", json!("00".repeat(49))),
        ("/administrators/quorum", json!(65_537)),
        ("/principals/0/roles/0", json!("root")),
        ("/policy_digest", json!("00".repeat(31))),
        ("/revoked", json!([{ "name": "ceo" }])),
        (
            "/revoked",
            json!([{ "pcr0": "00".repeat(48), "identity": "00" }]),
        ),
    ] {
        let error = changed(|json| *json.pointer_mut(place).unwrap() = value.clone());
        assert!(
            matches!(error, Error::ManifestSyntax { .. }),
            "{place} {value}: {error:?}"
        );
    }
}

#[test]
fn what_is_not_one_json_text_of_64_kib_is_refused() {
    let bytes = draft().to_bytes().unwrap();
    let syntax = |bytes: &[u8]| assert!(matches!(parse(bytes), Err(Error::ManifestSyntax { .. })));
    syntax(b"");
    syntax(b"null");
    syntax("[".repeat(60_000).as_bytes());
    syntax(&[&bytes[..], b"{}"].concat());
    syntax(&[&bytes[..], &[0]].concat());

    let mut padded = bytes;
    padded.resize(64 * 1024, b' ');
    parse(&padded).unwrap();
    padded.push(b' ');
    assert_eq!(
        parse(&padded).unwrap_err(),
        Error::ManifestTooLarge {
            size: 65_537,
            max: 65_536
        }
    );
}

#[test]
fn a_syntax_error_says_where_it_is() {
    let error = parse(b"{\n  \"version\": x\n}").unwrap_err();
    assert_eq!(
        error,
        Error::ManifestSyntax {
            line: 2,
            column: 14
        }
    );
}

#[test]
fn the_format_is_the_documented_one() {
    let json: Value = serde_json::from_slice(&draft().to_bytes().unwrap()).unwrap();
    assert_eq!(json["version"], 1);
    assert_eq!(json["parties"][0]["class"], "simulated");
    assert_eq!(json["parties"][0]["identity"], hex::encode(identity(1)));
    assert_eq!(
        json["parties"][0]["measurements"][0]["pcr0"],
        "01".repeat(48)
    );
    assert_eq!(json["administrators"]["quorum"], 2);
    assert_eq!(
        json["principals"][1]["roles"],
        json!(["operator", "auditor"])
    );
    assert_eq!(json["policy_digest"], "08".repeat(32));
    let revoked =
        serde_json::to_value([Revocation::Pcr0([1; 48]), Revocation::Identity(vec![2])]).unwrap();
    assert_eq!(
        revoked,
        json!([{ "pcr0": "01".repeat(48) }, { "identity": "02" }])
    );
}

#[test]
fn the_fuzzers_seeds_are_manifests() {
    for seed in [
        &include_bytes!("../../fuzz/seeds/manifest/treasury.json")[..],
        include_bytes!("../../fuzz/seeds/manifest/revocations_and_an_hsm.json"),
    ] {
        parse(seed).unwrap();
    }
}
