//! Damaged documents never verify, and nothing panics over them.

use arca_attestation::{
    ArchiveExpected, Expectation, Expected, ReferenceValues, TrustAnchors, inspect, verify_archive,
    verify_live,
};
use ciborium::Value;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::forge::{EXPECTED, Forge, MEASUREMENTS, NOW, bytes, encode, pcr_map};
use crate::vectors;

#[test]
fn a_document_cut_short_anywhere_is_refused() {
    let forge = Forge::new();
    let (document, anchors) = (forge.document(), forge.anchors());
    for length in 0..document.len() {
        assert!(
            verify_live(&document[..length], &anchors, &EXPECTED, NOW).is_err(),
            "at {length}"
        );
        assert!(inspect(&document[..length]).is_err(), "at {length}");
    }
}

#[test]
fn a_document_with_any_byte_damaged_is_refused() {
    let mut forge = Forge::new();
    forge.path.drain(1..3);
    forge.path[1].tbs.issuer = forge.path[0].tbs.subject.clone();
    let pcrs = [MEASUREMENTS.pcr0, MEASUREMENTS.pcr1, MEASUREMENTS.pcr2];
    forge.set("pcrs", pcr_map(pcrs.into_iter().enumerate()));
    let (document, anchors) = (forge.document(), forge.anchors());
    verify_live(&document, &anchors, &EXPECTED, NOW).unwrap();
    for position in 0..document.len() {
        let mut damaged = document.clone();
        damaged[position] ^= 1 << (position % 8);
        assert!(
            verify_live(&damaged, &anchors, &EXPECTED, NOW).is_err(),
            "at {position}"
        );
    }
}

#[test]
fn a_real_document_damaged_in_one_place_of_many_is_refused() {
    let document = vectors::PRODUCTION_2025;
    let (anchors, references) = (
        TrustAnchors::production(),
        ReferenceValues::Nitro(vec![vectors::measurements()]),
    );
    let expected = vectors::whatever_is_bound(&references);
    verify_archive(document, &anchors, &expected).unwrap();
    // A path of five certificates is slow to verify without optimisation, so this takes samples.
    for position in (0..document.len()).step_by(29) {
        let mut damaged = document.to_vec();
        damaged[position] ^= 1 << (position % 8);
        assert!(
            verify_archive(&damaged, &anchors, &expected).is_err(),
            "at {position}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_format_allows_verifies_and_comes_out_as_it_went_in(
        nonce in vec(any::<u8>(), 16..=512),
        user_data in vec(any::<u8>(), 1..=512),
        public_key in vec(any::<u8>(), 1..=1024),
        others in proptest::collection::btree_map(3..32u8, any::<[u8; 24]>(), 0..=29),
        extra in option::of("[a-z]{20}"),
        indefinite: bool,
        order in Just((0..7usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut forge = Forge::new();
        let first = [MEASUREMENTS.pcr0, MEASUREMENTS.pcr1, MEASUREMENTS.pcr2].into_iter().enumerate();
        let others = others.iter().map(|(index, half)| (usize::from(*index), <[u8; 48]>::try_from([*half; 2].concat()).unwrap()));
        let pcrs: Vec<_> = first.chain(others).collect();
        forge.set("pcrs", pcr_map(pcrs.iter().copied()));
        forge.set("nonce", bytes(&nonce));
        forge.set("user_data", bytes(&user_data));
        forge.set("public_key", bytes(&public_key));
        forge.fields = order.iter().map(|place| forge.fields[*place].clone()).collect();
        if let Some(extra) = &extra {
            forge.set(extra, Value::from(7));
        }
        forge.indefinite = indefinite;

        let expected = Expected { nonce: &nonce, user_data: &user_data, public_key: &public_key, ..*EXPECTED };
        let evidence = verify_live(&forge.document(), &forge.anchors(), &expected, NOW).unwrap();
        prop_assert_eq!(evidence.nonce(), Some(&nonce[..]));
        prop_assert_eq!(evidence.user_data(), Some(&user_data[..]));
        prop_assert_eq!(evidence.public_key(), Some(&public_key[..]));
        let reported: Vec<_> = evidence.pcrs().unwrap().iter().map(|(index, pcr)| (usize::from(*index), *pcr)).collect();
        prop_assert_eq!(reported, pcrs);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_are_refused(document in vec(any::<u8>(), 0..400)) {
        let anchors = TrustAnchors::production();
        let references = ReferenceValues::Nitro(vec![MEASUREMENTS]);
        let expected = ArchiveExpected {
            reference: &references,
            nonce: Expectation::NotCompared,
            public_key: Expectation::NotCompared,
            user_data: Expectation::NotCompared,
        };
        prop_assert!(verify_archive(&document, &anchors, &expected).is_err());
    }

    #[test]
    fn arbitrary_payloads_in_an_honest_envelope_are_refused(payload in vec(any::<u8>(), 0..200)) {
        let document = Value::Array(vec![
            bytes(&[0xa1, 0x01, 0x38, 0x22]),
            Value::Map(Vec::new()),
            Value::Bytes(payload),
            Value::Bytes(vec![1; 96]),
        ]);
        prop_assert!(inspect(&encode(&document, false)).is_err());
    }
}
