//! Steps 1 to 3, one broken thing at a time: bounds and encoding, COSE_Sign1, fields.

use arca_attestation::{CborFault, Error, Expectation, Expected, verify_archive, verify_live};
use ciborium::Value;

use crate::forge::{
    EXPECTED, EXPECTED_OF_ARCHIVE, Forge, NOW, bytes, encode, pcr_map, refused_document,
};

fn cbor(part: &'static str, error: Error) -> CborFault {
    match error {
        Error::Cbor {
            part: found, fault, ..
        } if found == part => fault,
        other => panic!("expected a fault of the {part}, got {other:?}"),
    }
}

// Step 1: bounds and encoding.

#[test]
fn documents_above_16_kib_are_not_parsed() {
    let document = vec![0; 16 * 1024 + 1];
    assert_eq!(
        refused_document(&document),
        Error::DocumentTooLarge {
            size: 16 * 1024 + 1,
            max: 16 * 1024
        }
    );
}

#[test]
fn bytes_after_the_document_refuse_it() {
    let mut document = Forge::new().document();
    document.push(0);
    assert_eq!(
        cbor("envelope", refused_document(&document)),
        CborFault::Trailing
    );
}

#[test]
fn bytes_after_the_payload_map_refuse_it() {
    let forge = Forge::new();
    let mut payload = forge.payload();
    payload.push(0xf6);
    let document = encode(&Value::Array(forge.envelope(payload).into()), false);
    assert_eq!(
        cbor("payload", refused_document(&document)),
        CborFault::Trailing
    );
}

#[test]
fn a_key_that_stands_twice_refuses_the_payload() {
    for key in ["module_id", "pcrs", "nonce", "from-the-future"] {
        let error = Forge::refusal(|forge| {
            let twice = forge
                .fields
                .iter()
                .find(|(found, _)| found.as_text() == Some(key))
                .cloned();
            let twice = twice.unwrap_or((Value::from(key), Value::from(1)));
            forge
                .fields
                .retain(|(found, _)| found.as_text() != Some(key));
            forge.fields.extend([twice.clone(), twice]);
        });
        assert_eq!(cbor("payload", error), CborFault::DuplicateKey, "{key}");
    }
}

#[test]
fn a_pcr_that_stands_twice_refuses_the_payload() {
    let error = Forge::refusal(|forge| {
        forge.set("pcrs", pcr_map([(0, [1u8; 48]), (0, [1; 48])].into_iter()))
    });
    assert_eq!(cbor("payload", error), CborFault::DuplicateKey);
}

#[test]
fn a_pcr_index_that_stands_twice_in_two_encodings_refuses_the_payload() {
    let forge = Forge::new();
    let honest = forge.payload();
    // The index 15, once more in two bytes instead of PCR 14.
    let place = honest
        .windows(3)
        .position(|bytes| bytes == [14, 0x58, 48])
        .unwrap();
    let mut payload = honest[..place].to_vec();
    payload.extend([0x18, 15]);
    payload.extend(&honest[place + 1..]);
    let document = encode(&Value::Array(forge.envelope(payload).into()), false);
    assert_eq!(
        cbor("payload", refused_document(&document)),
        CborFault::DuplicateKey
    );
}

#[test]
fn fields_of_the_future_are_read_over_but_not_when_nested_too_deep() {
    let mut forge = Forge::new();
    forge.set(
        "from-the-future",
        Value::Array(vec![Value::Map(vec![(Value::from(1), Value::from("x"))])]),
    );
    forge.verify().unwrap();

    let deep = (0..8).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    let error = Forge::refusal(|forge| forge.set("from-the-future", deep));
    assert_eq!(cbor("payload", error), CborFault::TooDeep);
}

#[test]
fn nesting_in_the_thousands_is_refused_and_not_followed() {
    let forge = Forge::new();
    for opener in [0x81u8, 0x9f, 0xc6, 0xa1, 0xbf] {
        let mut payload = vec![0xbf, 0x61, b'x'];
        payload.extend(std::iter::repeat_n(opener, 15_000));
        let document = encode(&Value::Array(forge.envelope(payload).into()), false);
        assert_eq!(
            cbor("payload", refused_document(&document)),
            CborFault::TooDeep,
            "{opener:#x}"
        );
    }
}

#[test]
fn strings_in_chunks_and_reserved_heads_refuse_the_payload() {
    let forge = Forge::new();
    for (head, fault) in [
        (0x5f, CborFault::Chunked),
        (0x7f, CborFault::Chunked),
        (0x1c, CborFault::Head),
        (0x1f, CborFault::Head),
        (0xf8, CborFault::Head),
        (0xff, CborFault::Head),
    ] {
        let payload = vec![0xa1, 0x61, b'x', head, 0x40, 0xff];
        let document = encode(&Value::Array(forge.envelope(payload).into()), false);
        assert_eq!(
            cbor("payload", refused_document(&document)),
            fault,
            "{head:#x}"
        );
    }
}

#[test]
fn counts_that_the_input_does_not_hold_are_refused() {
    let forge = Forge::new();
    for payload in [
        vec![0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0xa1, 0x7b, 0xff, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let document = encode(&Value::Array(forge.envelope(payload).into()), false);
        assert_eq!(
            cbor("payload", refused_document(&document)),
            CborFault::Truncated
        );
    }
}

#[test]
fn both_shapes_of_the_payload_verify() {
    let mut forge = Forge::new();
    assert_eq!(forge.payload()[0], 0xa9);
    forge.verify().unwrap();
    forge.indefinite = true;
    assert_eq!(forge.payload()[0], 0xbf);
    forge.verify().unwrap();
}

#[test]
fn an_indefinite_map_without_its_end_is_refused() {
    let forge = Forge::new();
    let mut payload = encode(&Value::Map(Vec::new()), true);
    payload.pop();
    let document = encode(&Value::Array(forge.envelope(payload).into()), false);
    assert_eq!(
        cbor("payload", refused_document(&document)),
        CborFault::Truncated
    );
}

// Step 2: COSE_Sign1.

#[test]
fn tag_18_is_optional_and_no_other_tag_is_known() {
    let forge = Forge::new();
    let document = forge.document();
    let tagged = |head: &[u8]| [head, &document].concat();
    verify_live(&tagged(&[0xd2]), &forge.anchors(), &EXPECTED, NOW).unwrap();
    assert_eq!(refused_document(&tagged(&[0xd1])), Error::NotCoseSign1);
    assert_eq!(
        refused_document(&tagged(&[0xd2, 0xd2])),
        Error::NotCoseSign1
    );
    assert_eq!(refused_document(&tagged(&[0xd8, 61])), Error::NotCoseSign1);
}

#[test]
fn anything_but_four_elements_of_the_right_types_is_no_cose_sign1() {
    let forge = Forge::new();
    let envelope = forge.envelope(forge.payload());
    let refused =
        |elements: &[Value]| refused_document(&encode(&Value::Array(elements.to_vec()), false));
    assert_eq!(refused(&envelope[..3]), Error::NotCoseSign1);
    assert_eq!(
        refused(&[&envelope[..], &[Value::Null]].concat()),
        Error::NotCoseSign1
    );
    for position in 0..4 {
        let mut broken = envelope.clone();
        broken[position] = Value::Null;
        assert_eq!(refused(&broken), Error::NotCoseSign1, "element {position}");
    }
    assert_eq!(
        refused_document(&encode(&Value::Map(Vec::new()), false)),
        Error::NotCoseSign1
    );
}

#[test]
fn the_protected_header_is_exactly_es384() {
    let header = |entries: Vec<(Value, Value)>| encode(&Value::Map(entries), false);
    let entry = |key: i64, value: i64| (Value::from(key), Value::from(value));
    for protected in [
        Vec::new(),
        header(Vec::new()),
        header(vec![entry(1, -7)]),
        header(vec![entry(1, -1)]),
        header(vec![entry(2, -35)]),
        header(vec![entry(1, -35), entry(4, 0)]),
        header(vec![entry(1, -35), entry(1, -35)]),
        [header(vec![entry(1, -35)]), vec![0]].concat(),
        header(vec![(Value::from(1), Value::from("ES384"))]),
    ] {
        assert_eq!(
            Forge::refusal(|forge| forge.protected = protected.clone()),
            Error::ProtectedHeader
        );
    }
}

#[test]
fn the_algorithm_is_not_taken_from_the_unprotected_header() {
    let algorithm = Value::Map(vec![(Value::from(1), Value::from(-35))]);
    assert_eq!(
        Forge::refusal(|forge| forge.unprotected = algorithm.clone()),
        Error::UnprotectedHeader
    );
    let error = Forge::refusal(|forge| {
        forge.unprotected = algorithm.clone();
        forge.protected = vec![0xa0];
    });
    assert_eq!(error, Error::UnprotectedHeader);
}

#[test]
fn signatures_have_96_bytes() {
    let forge = Forge::new();
    let mut envelope = forge.envelope(forge.payload());
    for size in [0, 95, 97, 104] {
        envelope[3] = Value::Bytes(vec![1; size]);
        let document = encode(&Value::Array(envelope.to_vec()), false);
        assert_eq!(refused_document(&document), Error::SignatureLength { size });
    }
}

// Step 3: fields.

#[test]
fn every_mandatory_field_is_demanded() {
    for field in ["module_id", "digest", "timestamp", "pcrs"] {
        assert_eq!(
            Forge::refusal(|forge| forge.remove(field)),
            Error::MissingField { field }
        );
    }
    for field in ["certificate", "cabundle"] {
        let forge = Forge::new();
        let Value::Map(mut fields) = ciborium::from_reader(&forge.payload()[..]).unwrap() else {
            panic!()
        };
        fields.retain(|(key, _)| key.as_text() != Some(field));
        let payload = encode(&Value::Map(fields), false);
        let document = encode(&Value::Array(forge.envelope(payload).into()), false);
        assert_eq!(refused_document(&document), Error::MissingField { field });
    }
}

#[test]
fn a_document_of_another_product_under_the_same_format_is_refused() {
    // NitroTPM documents carry `nitrotpm_pcrs` where enclaves carry `pcrs`.
    let error = Forge::refusal(|forge| {
        let pcrs = forge
            .fields
            .iter_mut()
            .find(|(key, _)| key.as_text() == Some("pcrs"))
            .unwrap();
        pcrs.0 = Value::from("nitrotpm_pcrs");
    });
    assert_eq!(error, Error::MissingField { field: "pcrs" });
}

#[test]
fn fields_of_the_wrong_type_are_refused() {
    for field in [
        "module_id",
        "digest",
        "timestamp",
        "pcrs",
        "certificate",
        "cabundle",
        "public_key",
        "user_data",
        "nonce",
    ] {
        for wrong in [Value::from(-1), Value::Bool(true), Value::from(1.5)] {
            let error = Forge::refusal(|forge| forge.set(field, wrong.clone()));
            assert_eq!(cbor("payload", error), CborFault::Type, "{field} {wrong:?}");
        }
    }
    for field in [
        "module_id",
        "digest",
        "timestamp",
        "pcrs",
        "certificate",
        "cabundle",
    ] {
        let error = Forge::refusal(|forge| forge.set(field, Value::Null));
        assert_eq!(cbor("payload", error), CborFault::Type, "{field}");
    }
}

#[test]
fn fields_outside_their_bounds_are_refused() {
    let big = |size| bytes(&vec![1; size]);
    for (field, value, size) in [
        ("module_id", Value::from(""), 0),
        ("pcrs", Value::Map(Vec::new()), 0),
        ("certificate", big(0), 0),
        ("certificate", big(1025), 1025),
        ("cabundle", Value::Array(Vec::new()), 0),
        ("cabundle", Value::Array(vec![big(1), big(0)]), 0),
        ("cabundle", Value::Array(vec![big(1), big(1025)]), 1025),
        ("cabundle", Value::Array(vec![big(1); 17]), 17),
        ("public_key", big(1025), 1025),
        ("user_data", big(513), 513),
        ("nonce", big(513), 513),
    ] {
        let error = Forge::refusal(|forge| forge.set(field, value));
        assert_eq!(error, Error::FieldBounds { field, size });
    }
}

#[test]
fn fields_at_their_bounds_verify() {
    let mut forge = Forge::new();
    let (nonce, user_data, public_key) = (vec![1; 512], vec![2; 512], vec![3; 1024]);
    forge.set("nonce", bytes(&nonce));
    forge.set("user_data", bytes(&user_data));
    forge.set("public_key", bytes(&public_key));
    let expected = Expected {
        nonce: &nonce,
        user_data: &user_data,
        public_key: &public_key,
        ..*EXPECTED
    };
    verify_live(&forge.document(), &forge.anchors(), &expected, NOW).unwrap();
}

#[test]
fn the_digest_is_sha384() {
    for digest in ["SHA256", "SHA512", "sha384", ""] {
        let error = Forge::refusal(|forge| forge.set("digest", Value::from(digest)));
        assert_eq!(error, Error::DigestAlgorithm);
    }
}

#[test]
fn a_timestamp_of_zero_is_refused() {
    assert_eq!(
        Forge::refusal(|forge| forge.set("timestamp", Value::from(0))),
        Error::Timestamp
    );
}

#[test]
fn pcrs_have_an_index_below_32_and_48_bytes() {
    for index in [32, 255, 256, usize::MAX] {
        let pcrs = pcr_map([(0, [1u8; 48]), (index, [1; 48])].into_iter());
        assert_eq!(
            Forge::refusal(|forge| forge.set("pcrs", pcrs)),
            Error::PcrIndex
        );
    }
    let error = Forge::refusal(|forge| forge.set("pcrs", pcr_map([(5, [1u8; 32])].into_iter())));
    assert_eq!(error, Error::PcrLength { index: 5, size: 32 });
}

#[test]
fn thirty_two_pcrs_verify() {
    let mut forge = Forge::new();
    let reported = |index| u8::try_from(index + 1).unwrap();
    forge.set(
        "pcrs",
        pcr_map((0..32).map(|index| (index, [reported(index); 48]))),
    );
    assert_eq!(forge.verify().unwrap().pcrs().unwrap().len(), 32);
}

#[test]
fn optional_fields_may_be_absent_null_or_empty_where_nobody_expects_them() {
    for empty in [None, Some(Value::Null), Some(bytes(b""))] {
        for field in ["public_key", "user_data", "nonce"] {
            let mut forge = Forge::new();
            match empty.clone() {
                None => forge.remove(field),
                Some(value) => forge.set(field, value),
            }
            let mut expected = *EXPECTED_OF_ARCHIVE;
            let (compared, error) = match field {
                "public_key" => (&mut expected.public_key, Error::PublicKeyMismatch),
                "user_data" => (&mut expected.user_data, Error::UserDataMismatch),
                _ => (&mut expected.nonce, Error::NonceMissing),
            };
            *compared = Expectation::NotCompared;
            let (document, anchors) = (forge.document(), forge.anchors());
            verify_archive(&document, &anchors, &expected).unwrap();

            assert_eq!(
                verify_archive(&document, &anchors, &EXPECTED_OF_ARCHIVE).unwrap_err(),
                error
            );
            assert_eq!(
                verify_live(&document, &anchors, &EXPECTED, NOW).unwrap_err(),
                error
            );
        }
    }
}
