//! What a manifest may say.

use arca_attestation::manifest::{Administrators, Draft, Principal, Revocation, Role, parse};
use arca_attestation::{ClusterKind, Error, ReferenceValues, TrustClass};
use p256::pkcs8::EncodePublicKey as _;
use sha2::{Digest as _, Sha384};

use crate::common::*;

#[test]
fn a_signed_manifest_says_what_its_draft_says() {
    let draft = draft();
    let signed = signed(&draft, &[1, 2]);
    let manifest = signed.verify_first(NOW).unwrap();
    assert_eq!(manifest.cluster(), "sim-treasury");
    assert_eq!(manifest.kind(), ClusterKind::Simulated);
    assert_eq!(manifest.epoch(), 5);
    assert_eq!(manifest.parties(), &draft.parties);
    assert_eq!(manifest.principals(), &draft.principals);
    assert_eq!(manifest.administrators(), &draft.administrators);
    assert_eq!(manifest.policy_digest(), Some(&[8; 32]));
    assert_eq!(manifest.party("cto"), Some(&draft.parties[1]));
    assert_eq!(
        manifest.party_by_identity(&identity(3)).unwrap().name,
        "cloud"
    );
    assert_eq!(
        manifest.principal_by_identity(&identity(11)).unwrap().name,
        "treasury"
    );
    assert_eq!(
        manifest.principal("ops").unwrap().roles,
        [Role::Operator, Role::Auditor]
    );
    assert_eq!(
        manifest.reference_values("ceo"),
        Some(ReferenceValues::Simulated(vec![image(1), image(2)]))
    );
    assert!(manifest.hsm_roots().is_empty());
    assert_eq!(manifest.digest()[..], Sha384::digest(&signed.bytes)[..]);

    assert_eq!(manifest.party("treasury"), None);
    assert_eq!(manifest.party_by_identity(&identity(11)), None);
    assert_eq!(manifest.principal_by_identity(&identity(1)), None);
    assert_eq!(manifest.reference_values("nobody"), None);
}

fn problem(change: impl FnOnce(&mut Draft)) -> &'static str {
    let mut draft = draft();
    change(&mut draft);
    // Both ways in: what is written, and what is read.
    let written = draft.to_bytes().unwrap_err();
    let read = parse(&serde_json::to_vec(&draft).unwrap()).unwrap_err();
    assert_eq!(written, read);
    match read {
        Error::ManifestField { field, .. } => field,
        other => panic!("expected a broken rule, got {other:?}"),
    }
}

#[test]
fn names_are_short_and_plain() {
    let long = "a".repeat(33);
    for name in ["", "Ceo", "c_o", "c o", "ceo\n", "ce\u{f3}", &long] {
        let name = name.to_owned();
        assert_eq!(
            problem(|draft| draft.cluster = format!("sim-{name}!")),
            "cluster"
        );
        assert_eq!(
            problem(|draft| draft.parties[0].name = name.clone()),
            "party name"
        );
        assert_eq!(
            problem(|draft| draft.principals[0].name = name.clone()),
            "principal name"
        );
        assert_eq!(
            problem(|draft| draft.administrators.keys[0].name = name),
            "administrator name"
        );
    }
    let mut longest = draft();
    longest.parties[0].name = "a".repeat(32);
    longest.to_bytes().unwrap();
}

#[test]
fn names_and_keys_are_unique() {
    assert_eq!(
        problem(|draft| draft.parties[1].name = "ceo".to_owned()),
        "parties"
    );
    assert_eq!(
        problem(|draft| draft.principals[1].name = "treasury".to_owned()),
        "principals"
    );
    assert_eq!(
        problem(|draft| draft.parties[1].identity = identity(1)),
        "parties and principals"
    );
    assert_eq!(
        problem(|draft| draft.principals[1].identity = identity(11)),
        "parties and principals"
    );
    // Nobody is both a party and a principal.
    assert_eq!(
        problem(|draft| draft.principals[0].identity = identity(1)),
        "parties and principals"
    );
    let administrators = "administrators";
    assert_eq!(
        problem(|draft| draft.administrators.keys[1].name = "admin-1".to_owned()),
        administrators
    );
    let one = administrator_keys(&[1]).remove(0).public_key;
    assert_eq!(
        problem(|draft| draft.administrators.keys[1].public_key = one),
        administrators
    );
}

#[test]
fn counts_are_bounded() {
    assert_eq!(problem(|draft| draft.parties.clear()), "parties");
    assert_eq!(
        problem(|draft| draft.parties = (1..=33).map(|n| party(&format!("p{n}"), n)).collect()),
        "parties"
    );
    assert_eq!(
        problem(|draft| draft.parties[0].measurements.clear()),
        "measurements"
    );
    assert_eq!(
        problem(|draft| draft.parties[0].measurements = vec![image(1); 17]),
        "measurements"
    );
    assert_eq!(
        problem(|draft| draft.administrators.keys.clear()),
        "administrators"
    );
    let many: Vec<_> = (1..=33).collect();
    assert_eq!(
        problem(|draft| draft.administrators.keys = administrator_keys(&many)),
        "administrators"
    );
    assert_eq!(
        problem(|draft| draft.revoked = vec![Revocation::Pcr0([1; 48]); 257]),
        "revoked"
    );
    assert_eq!(problem(|draft| draft.principals[0].roles.clear()), "roles");
    assert_eq!(
        problem(|draft| draft.principals[0].roles = vec![Role::Auditor; 2]),
        "roles"
    );
}

#[test]
fn a_hundred_and_twenty_eight_principals_fit() {
    let principals = |count| {
        let principal = |number: u8| Principal {
            name: format!("principal-{number}"),
            identity: identity(100 + number),
            roles: vec![Role::Initiator],
        };
        (0..count).map(principal).collect()
    };
    let mut largest = draft();
    largest.principals = principals(128);
    assert_eq!(in_force(&largest).principals().len(), 128);
    assert_eq!(
        problem(|draft| draft.principals = principals(129)),
        "principals"
    );
}

#[test]
fn thirty_two_parties_and_as_many_administrators_fit() {
    let mut draft = draft();
    draft.parties = (1..=32).map(|n| party(&format!("p{n}"), n)).collect();
    draft.principals.clear();
    draft.administrators = Administrators {
        quorum: 32,
        keys: administrator_keys(&(1..=32).collect::<Vec<_>>()),
    };
    signed(&draft, &(1..=32).collect::<Vec<_>>())
        .verify_first(NOW)
        .unwrap();
}

#[test]
fn the_quorum_can_be_reached_and_is_not_nothing() {
    assert_eq!(
        problem(|draft| draft.administrators.quorum = 0),
        "administrators' quorum"
    );
    assert_eq!(
        problem(|draft| draft.administrators.quorum = 4),
        "administrators' quorum"
    );
}

#[test]
fn version_epoch_and_validity_make_sense() {
    assert_eq!(problem(|draft| draft.version = 2), "version");
    assert_eq!(problem(|draft| draft.epoch = 0), "epoch");
    assert_eq!(
        problem(|draft| draft.not_after = draft.not_before),
        "not_after"
    );
}

#[test]
fn the_clusters_kind_and_its_parties_classes_agree() {
    assert_eq!(
        problem(|draft| draft.cluster = "treasury".to_owned()),
        "party class"
    );
    assert_eq!(
        problem(|draft| draft.parties[2].class = TrustClass::Nitro),
        "party class"
    );

    let mut production = draft();
    production.cluster = "treasury".to_owned();
    production
        .parties
        .iter_mut()
        .for_each(|party| party.class = TrustClass::Nitro);
    assert_eq!(in_force(&production).kind(), ClusterKind::Production);
}

/// A draft of this kind whose first party is of class `hsm`.
fn mixed(class: TrustClass) -> Draft {
    let mut mixed = draft();
    if class == TrustClass::Nitro {
        mixed.cluster = "treasury".to_owned();
    }
    mixed
        .parties
        .iter_mut()
        .for_each(|party| party.class = class);
    if let Some(first) = mixed.parties.first_mut() {
        first.class = TrustClass::Hsm;
        first.identity = identity_384(1);
        first.measurements.clear();
    }
    mixed.hsm_roots = vec![authority(1), authority(2)];
    mixed
}

#[test]
fn hsm_parties_belong_in_both_kinds_and_are_appraised_by_the_roots() {
    for class in [TrustClass::Nitro, TrustClass::Simulated] {
        let mixed = mixed(class);
        let manifest = in_force(&mixed);
        assert_eq!(manifest.hsm_roots(), mixed.hsm_roots);
        assert_eq!(
            manifest.reference_values("ceo"),
            Some(ReferenceValues::Hsm(mixed.hsm_roots.clone()))
        );
        assert_eq!(
            manifest.reference_values("cto").unwrap().class(),
            class,
            "the others have none of it"
        );
        let json = String::from_utf8(mixed.to_bytes().unwrap()).unwrap();
        assert!(json.contains(&hex::encode(authority(2))));
        assert_eq!(parse(json.as_bytes()).unwrap(), mixed);
    }
}

#[test]
fn hsm_parties_have_no_measurements_and_a_p384_identity() {
    let refused = |change: fn(&mut Draft)| {
        let mut draft = mixed(TrustClass::Simulated);
        change(&mut draft);
        match draft.to_bytes() {
            Err(Error::ManifestField { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    };
    let measured = refused(|draft| draft.parties[0].measurements = vec![image(1)]);
    assert_eq!(measured, "measurements");
    let p256 = refused(|draft| draft.parties[0].identity = identity(1));
    assert_eq!(p256, "party identity");
}

#[test]
fn roots_of_hsms_are_authorities_that_somebody_needs() {
    let refused = |roots: Vec<Vec<u8>>| {
        let mut draft = mixed(TrustClass::Simulated);
        draft.hsm_roots = roots;
        match draft.to_bytes() {
            Err(Error::ManifestField { field, problem }) => {
                assert_eq!(field, "hsm_roots");
                problem
            }
            other => panic!("{other:?}"),
        }
    };
    let none = refused(Vec::new());
    assert!(none.contains("are none"), "{none}");
    let twice = refused(vec![authority(1), authority(1)]);
    assert!(twice.contains("twice"), "{twice}");
    let five = refused((1..=5).map(authority).collect());
    assert!(five.contains("more than 4"), "{five}");
    let aws = include_bytes!("../../../attestation/src/aws_nitro_root_g1.der");
    let aws = refused(vec![authority(1), aws.to_vec()]);
    assert!(aws.contains("AWS"), "{aws}");
    let mut trailing = authority(1);
    trailing.push(0);
    for wrong in [b"root".to_vec(), identity_384(1), Vec::new(), trailing] {
        let problem = refused(vec![wrong]);
        assert!(problem.contains("P-384 authority"), "{problem}");
    }

    let mut needless = draft();
    needless.hsm_roots = vec![authority(1)];
    let Err(Error::ManifestField { field, problem }) = needless.to_bytes() else {
        panic!("taken");
    };
    assert_eq!(field, "hsm_roots");
    assert!(problem.contains("there is none"), "{problem}");
}

#[test]
fn measurements_of_debug_mode_are_no_reference_values() {
    for zero in 0..3 {
        assert_eq!(
            problem(|draft| {
                let measurements = &mut draft.parties[1].measurements[1];
                *[
                    &mut measurements.pcr0,
                    &mut measurements.pcr1,
                    &mut measurements.pcr2,
                ][zero] = [0; 48];
            }),
            "measurements"
        );
    }
}

#[test]
fn identities_are_the_one_encoding_of_a_p256_or_p384_key() {
    let p384 = p384::SecretKey::from_slice(&[5; 48]).unwrap().public_key();
    let mut draft = draft();
    draft.parties[0].identity = p384.to_public_key_der().unwrap().into_vec();
    draft.to_bytes().unwrap();

    let honest = identity(1);
    // The same key as a compressed point: head, algorithm, then 02 or 03 and x.
    let point = p256::SecretKey::from_slice(&[1; 32]).unwrap().public_key();
    let point = p256::elliptic_curve::sec1::ToEncodedPoint::to_encoded_point(&point, true);
    let compressed = [
        &[0x30, 0x39],
        &honest[2..23],
        &[0x03, 0x22, 0x00],
        point.as_bytes(),
    ]
    .concat();
    p256::PublicKey::try_from(spki::SubjectPublicKeyInfoRef::try_from(&compressed[..]).unwrap())
        .expect("this is a key, in another encoding");
    let mut off_curve = honest.clone();
    *off_curve.last_mut().unwrap() ^= 1;
    let trailing = [&honest[..], &[0]].concat();
    let ed25519 = hex::decode("302a300506032b6570032100").unwrap();
    let ed25519 = [&ed25519[..], administrator(1).verifying_key().as_bytes()].concat();
    for identity in [
        Vec::new(),
        compressed,
        off_curve,
        trailing,
        honest[..90].to_vec(),
        ed25519,
    ] {
        assert_eq!(
            problem(|draft| draft.parties[0].identity = identity.clone()),
            "party identity"
        );
        assert_eq!(
            problem(|draft| draft.principals[0].identity = identity),
            "principal identity"
        );
    }
}

#[test]
fn administrators_keys_are_of_full_order() {
    // The identity, and a point of order 8 (both are valid encodings).
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let eight = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
    let mut off_curve = [0; 32];
    off_curve[0] = 2;
    for key in [
        neutral,
        hex::decode(eight).unwrap().try_into().unwrap(),
        off_curve,
    ] {
        let field = problem(|draft| draft.administrators.keys[0].public_key = key);
        assert_eq!(field, "administrator public_key");
    }
}
