//! Steps 1 to 3 of evidence of HSMs: envelope, encoding, fields.

use arca_attestation::hsm::Token;
use arca_attestation::{CborFault, Error, UnixMillis};
use ciborium::Value;

use super::hsm_forge::{HsmForge, map, roots, token, verify};
use crate::forge::{NOW, bytes, encode};

#[test]
fn the_envelope_is_the_one_that_the_crate_writes() {
    let forge = HsmForge::new();
    let refused = |document: &[u8]| {
        let roots = roots(&forge.root_der());
        verify(document, &roots, &forge.identity(), NOW).unwrap_err()
    };
    let honest = forge.document();
    // Tag 18, which an NSM's document may have.
    assert_eq!(
        refused(&[&[0xd2], &honest[..]].concat()),
        Error::NotCanonical
    );
    let elements = Value::Array(forge.envelope(&forge.payload()).into());
    let Value::Array(parts) = &elements else {
        unreachable!()
    };
    // An array of indefinite length, around the same bytes.
    let mut indefinite = vec![0x9f];
    for part in parts {
        indefinite.extend(encode(part, false));
    }
    indefinite.push(0xff);
    assert_eq!(refused(&indefinite), Error::NotCanonical);
    assert_eq!(
        refused(&[&honest[..], &[0]].concat()),
        Error::Cbor {
            part: "envelope",
            offset: honest.len(),
            fault: CborFault::Trailing
        }
    );
    let huge = vec![0; 16 * 1024 + 1];
    assert!(matches!(refused(&huge), Error::DocumentTooLarge { .. }));
    assert_eq!(refused(b"\x01"), Error::NotCoseSign1);
}

#[test]
fn the_headers_say_es384_and_nothing_more() {
    // ES256, an extra entry, no entry, and ES384 in a longer encoding.
    for protected in ["a10126", "a2013822024100", "a0", "", "a101390022"] {
        let error = HsmForge::refusal(|forge| forge.protected = hex::decode(protected).unwrap());
        let expected = if protected == "a101390022" {
            Error::NotCanonical
        } else {
            Error::ProtectedHeader
        };
        assert_eq!(error, expected, "{protected}");
    }
    let kid = Value::Map(vec![(Value::from(4), bytes(b"kid"))]);
    let error = HsmForge::refusal(|forge| forge.unprotected = kid);
    assert_eq!(error, Error::UnprotectedHeader);
}

#[test]
fn every_field_stands_in_its_place() {
    let key_fault = |error: &Error| {
        matches!(
            error,
            Error::Cbor {
                fault: CborFault::Key,
                ..
            }
        )
    };
    for place in 0..8 {
        let error = HsmForge::refusal(|forge| drop(forge.fields.remove(place)));
        // Where the last is missing, nothing stands in its place.
        assert!(
            key_fault(&error) || error == Error::MissingField { field: "cabundle" },
            "{place}: {error}"
        );
        let error = HsmForge::refusal(|forge| {
            let twice = forge.fields[place].clone();
            forge.fields.insert(place, twice);
        });
        assert!(key_fault(&error), "{place}: {error}");
        let error = HsmForge::refusal(|forge| forge.fields[place].1 = Value::Bool(true));
        assert!(
            matches!(
                error,
                Error::Cbor {
                    fault: CborFault::Type,
                    ..
                }
            ),
            "{place}: {error}"
        );
    }
    for place in 0..7 {
        let error = HsmForge::refusal(|forge| forge.fields.swap(place, place + 1));
        assert!(key_fault(&error), "{place}: {error}");
    }
    let error = HsmForge::refusal(|forge| forge.fields.push(("more", Value::from(1))));
    assert!(key_fault(&error), "{error}");
}

#[test]
fn the_payload_has_one_encoding() {
    let error = HsmForge::refusal(|forge| forge.indefinite = true);
    assert_eq!(error, Error::NotCanonical);

    // "version": 1 with the 1 in two bytes, then "token".
    let forge = HsmForge::new();
    let payload = forge.payload();
    let roots = roots(&forge.root_der());
    assert_eq!(&payload[..10], b"\xa8\x67version\x01");
    let longer = [&payload[..9], &[0x18, 0x01], &payload[10..]].concat();
    let error = verify(&forge.document_of(&longer), &roots, &forge.identity(), NOW);
    assert_eq!(error.unwrap_err(), Error::NotCanonical);
    let trailing = [&payload[..], &[0xf6]].concat();
    let error = verify(
        &forge.document_of(&trailing),
        &roots,
        &forge.identity(),
        NOW,
    );
    assert!(matches!(
        error.unwrap_err(),
        Error::Cbor {
            fault: CborFault::Trailing,
            ..
        }
    ));
}

#[test]
fn another_version_is_refused() {
    for version in [0, 2] {
        let error = HsmForge::refusal(|forge| forge.set("version", Value::from(version)));
        assert_eq!(error, Error::EvidenceVersion { version });
    }
}

#[test]
fn fields_are_within_their_bounds() {
    let long = |length| Value::Bytes(vec![7; length]);
    let many = |count| Value::Array(vec![long(100); count]);
    let cases = [
        ("nonce", long(513), 513),
        ("user_data", long(513), 513),
        ("public_key", long(0), 0),
        ("public_key", long(1025), 1025),
        ("certificate", long(0), 0),
        ("certificate", long(2049), 2049),
        ("cabundle", many(0), 0),
        ("cabundle", many(9), 9),
        ("cabundle", Value::Array(vec![long(2049)]), 2049),
        ("cabundle", Value::Array(vec![long(0)]), 0),
    ];
    for (field, value, size) in cases {
        let error = HsmForge::refusal(|forge| forge.set(field, value));
        assert_eq!(error, Error::FieldBounds { field, size });
    }
    let error = HsmForge::refusal(|forge| forge.set("timestamp", Value::from(0)));
    assert_eq!(error, Error::Timestamp);
    // Each within its bounds, and the whole too long.
    let error = HsmForge::refusal(|forge| {
        forge.set("cabundle", Value::Array(vec![long(2048); 8]));
    });
    assert!(matches!(error, Error::DocumentTooLarge { .. }), "{error}");
}

#[test]
fn what_a_token_says_of_itself_is_printable_and_short() {
    for field in ["manufacturer", "model", "serial", "firmware"] {
        let with = |text: &str| {
            let mut token = token();
            let mut entries = token.iter_mut();
            entries.find(|(key, _)| *key == field).unwrap().1 = Value::from(text);
            HsmForge::refusal(|forge| forge.set("token", map(token)))
        };
        assert_eq!(
            with(&"x".repeat(65)),
            Error::FieldBounds { field, size: 65 }
        );
        for text in ["tab\t", "\u{1b}[31m", "é", "\u{202e}"] {
            assert_eq!(with(text), Error::NotPrintable { field });
        }
    }
    for place in 0..4 {
        let mut short = token();
        short.remove(place);
        let error = HsmForge::refusal(|forge| forge.set("token", map(short)));
        assert!(
            matches!(error, Error::Cbor { .. } | Error::MissingField { .. }),
            "{error}"
        );
    }
    let mut more = token();
    more.push(("label", Value::from("treasury")));
    let error = HsmForge::refusal(|forge| forge.set("token", map(more)));
    assert!(matches!(
        error,
        Error::Cbor {
            fault: CborFault::Key,
            ..
        }
    ));

    // What PKCS#11 reports is padded, and in whatever characters the vendor likes.
    let token = Token::new("Gerätebau\u{1b} ", " 7  ", &"1".repeat(70), "\0\0");
    assert_eq!(token.manufacturer(), "Ger?tebau?");
    assert_eq!(token.model(), "7");
    assert_eq!(token.serial(), "1".repeat(64));
    assert_eq!(token.firmware(), "??");
}

#[test]
fn nobody_can_write_what_no_verifier_reads() {
    let forge = HsmForge::new();
    let (identity, path) = (forge.identity(), forge.certificates());
    let honest = forge.statement(&identity, &path);
    let long = [7; 2049];
    let mut broken = vec![honest.clone(); 7];
    broken[0].nonce = &long[..513];
    broken[1].user_data = &long[..513];
    broken[2].public_key = &[];
    broken[3].certificate = &long;
    broken[4].cabundle.clear();
    broken[5].cabundle = vec![&long[..2048]; 8];
    broken[6].timestamp = UnixMillis(0);
    assert!(honest.payload().is_ok());
    for statement in broken {
        assert!(statement.payload().is_err(), "{statement:?}");
    }
}
