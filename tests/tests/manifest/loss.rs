//! What administrators sign to accept that a party's newest state is lost.

use arca_attestation::loss::{
    BootId, Draft, LossAcceptance, SignedLossAcceptance, parse, signing_bytes,
};
use arca_attestation::manifest::{self, Manifest, SignedManifest};
use arca_attestation::{Error, manifest::Revocation};
use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256, Sha384};

use crate::common::{NOW, administrator, draft, identity, in_force};

fn acceptance() -> Draft {
    Draft {
        version: Draft::VERSION,
        cluster: "sim-treasury".into(),
        manifest_epoch: 5,
        party: "ceo".into(),
        lost_sequence: 120,
        found_sequence: 117,
        found_head: [7; 32],
        waived_peers: vec!["cloud".into()],
        boot_id: Some(BootId([9; 16])),
        reason: "the disk of 12 March is gone; the backup is of the 11th".into(),
    }
}

fn sign(bytes: Vec<u8>, signers: &[u8]) -> SignedLossAcceptance {
    let message = signing_bytes(&bytes);
    let signature = |number: &u8| {
        let key = administrator(*number);
        let signature = key.sign(&message).to_bytes();
        (key.verifying_key().to_bytes(), signature)
    };
    SignedLossAcceptance {
        signatures: signers.iter().map(signature).collect(),
        bytes,
    }
}

fn signed(acceptance: &Draft) -> SignedLossAcceptance {
    sign(acceptance.to_bytes().unwrap(), &[1, 2])
}

fn manifest() -> Manifest {
    in_force(&draft())
}

fn verified(acceptance: &Draft) -> LossAcceptance {
    signed(acceptance).verify(&manifest()).unwrap()
}

/// Which field the rules refuse after this change.
fn field(change: impl FnOnce(&mut Draft)) -> &'static str {
    let mut draft = acceptance();
    change(&mut draft);
    // With `to_bytes` refusing it, whoever is to be fooled gets it otherwise.
    let bytes = serde_json::to_vec(&draft).unwrap();
    let refused = sign(bytes.clone(), &[1, 2]).verify(&manifest());
    match refused {
        Err(Error::LossAcceptance { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_acceptance_that_a_quorum_signed_says_what_its_draft_says() {
    let draft = acceptance();
    let bytes = draft.to_bytes().unwrap();
    assert_eq!(parse(&bytes).unwrap(), draft);
    for signers in [&[1, 2][..], &[3, 1], &[1, 2, 3, 9]] {
        let accepted = sign(bytes.clone(), signers).verify(&manifest()).unwrap();
        assert_eq!(accepted.draft(), &draft);
        assert_eq!(accepted.digest()[..], Sha384::digest(&bytes)[..]);
    }
}

#[test]
fn the_party_goes_on_above_everything_that_was_seen_and_names_what_it_goes_on_from() {
    let draft = acceptance();
    let accepted = verified(&draft);
    assert_eq!(accepted.resumed_sequence(), 121);
    // The tag, the head that was found and the digest of the signed bytes, each after its length.
    let mut hash = Sha256::new();
    let digest = Sha384::digest(draft.to_bytes().unwrap());
    let parts = [&b"arca/v1/resumed-head"[..], &[7; 32], &digest];
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    assert_eq!(accepted.resumed_head()[..], hash.finalize()[..]);
    // Another acceptance of the same state is another head, so that two of them never look like one history.
    let mut another = draft.clone();
    another.reason.push('.');
    assert_ne!(verified(&another).resumed_head(), accepted.resumed_head());

    // Nothing is lost but the certainty: the state is the newest that anybody saw.
    let mut newest = draft;
    newest.found_sequence = newest.lost_sequence;
    assert_eq!(verified(&newest).resumed_sequence(), 121);
}

#[test]
fn every_byte_that_was_signed_counts() {
    let honest = signed(&acceptance());
    let changes: [fn(&mut Draft); 9] = [
        |draft| draft.cluster = "sim-other".into(),
        |draft| draft.manifest_epoch = 6,
        |draft| draft.party = "cto".into(),
        |draft| draft.lost_sequence += 1,
        |draft| draft.found_sequence -= 1,
        |draft| draft.found_head[0] ^= 1,
        |draft| draft.waived_peers = vec!["cto".into()],
        |draft| draft.boot_id = Some(BootId([8; 16])),
        |draft| draft.reason = "fine".into(),
    ];
    for change in changes {
        let mut draft = acceptance();
        change(&mut draft);
        let tampered = SignedLossAcceptance {
            bytes: draft.to_bytes().unwrap(),
            ..honest.clone()
        };
        let refused = tampered.verify(&manifest()).unwrap_err();
        assert!(
            matches!(refused, Error::AdministratorSignature { .. }),
            "{refused}"
        );
    }
    // White space too: the bytes were signed, not what they mean.
    let mut spaced = honest;
    spaced.bytes.push(b'\n');
    assert!(spaced.verify(&manifest()).is_err());
}

#[test]
fn a_quorum_of_the_manifest_in_force_signs() {
    let bytes = acceptance().to_bytes().unwrap();
    for (signers, count) in [
        (&[][..], 0),
        (&[1], 1),
        (&[1, 1, 1], 1),
        (&[1, 9], 1),
        (&[8, 9], 0),
    ] {
        let refused = sign(bytes.clone(), signers).verify(&manifest());
        assert_eq!(
            refused.unwrap_err(),
            Error::NoQuorum {
                whose: "current",
                signed: count,
                needed: 2
            }
        );
    }
    let mut forged = sign(bytes.clone(), &[1, 2, 3]);
    forged.signatures.last_mut().unwrap().1[40] ^= 1;
    let administrator = "admin-3".to_owned();
    assert_eq!(
        forged.verify(&manifest()).unwrap_err(),
        Error::AdministratorSignature { administrator }
    );
    let crowd = sign(bytes, &[1; 65]);
    assert!(matches!(
        crowd.verify(&manifest()),
        Err(Error::TooManySignatures { count: 65, .. })
    ));
}

/// Administrators who sign one thing have not signed the other, whatever its bytes.
#[test]
fn a_signature_under_a_manifest_accepts_no_loss_and_the_other_way_round() {
    let bytes = acceptance().to_bytes().unwrap();
    let message = manifest::signing_bytes(&bytes);
    let signatures = [1, 2].map(|number| {
        let key = administrator(number);
        let signature = key.sign(&message).to_bytes();
        (key.verifying_key().to_bytes(), signature)
    });
    let as_manifest = SignedLossAcceptance {
        bytes,
        signatures: signatures.into(),
    };
    assert!(matches!(
        as_manifest.verify(&manifest()),
        Err(Error::AdministratorSignature { .. })
    ));

    let as_loss = sign(draft().to_bytes().unwrap(), &[1, 2]);
    let next = SignedManifest {
        bytes: as_loss.bytes,
        signatures: as_loss.signatures,
    };
    assert!(matches!(
        next.verify_first(NOW),
        Err(Error::AdministratorSignature { .. })
    ));
}

#[test]
fn it_is_for_one_cluster_one_manifest_and_a_party_of_it() {
    assert_eq!(field(|draft| draft.cluster = "sim-other".into()), "cluster");
    for epoch in [0, 4, 6] {
        assert_eq!(
            field(|draft| draft.manifest_epoch = epoch),
            "manifest_epoch"
        );
    }
    assert_eq!(field(|draft| draft.party = "nobody".into()), "party");
    assert_eq!(field(|draft| draft.party = "treasury".into()), "party");
    // Whoever is revoked is no party any more.
    let mut revoking = draft();
    revoking.revoked = vec![Revocation::Identity(identity(1))];
    let refused = signed(&acceptance()).verify(&in_force(&revoking));
    assert!(matches!(
        refused,
        Err(Error::LossAcceptance { field: "party", .. })
    ));
}

#[test]
fn what_is_lost_is_above_what_is_found() {
    assert_eq!(field(|draft| draft.found_sequence = 121), "found_sequence");
    assert_eq!(field(|draft| draft.lost_sequence = 116), "found_sequence");
    assert_eq!(
        field(|draft| draft.lost_sequence = u64::MAX),
        "lost_sequence"
    );
    let mut last = acceptance();
    last.lost_sequence = u64::MAX - 1;
    assert_eq!(verified(&last).resumed_sequence(), u64::MAX);
    assert_eq!(field(|draft| draft.version = 2), "version");
}

#[test]
fn peers_are_waived_for_one_boot_by_name() {
    for waived in [
        &["cloud", "cloud"][..],
        &["ceo"],
        &["cloud", "ceo"],
        &["nobody"],
        &["treasury"],
        &[""],
    ] {
        let waived = waived.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(field(|draft| draft.waived_peers = waived), "waived_peers");
    }
    assert_eq!(field(|draft| draft.boot_id = None), "boot_id");
    assert_eq!(field(|draft| draft.waived_peers.clear()), "boot_id");
    let mut none = acceptance();
    none.waived_peers.clear();
    none.boot_id = None;
    assert_eq!(verified(&none).draft().boot_id, None);
}

#[test]
fn the_reason_can_be_read() {
    for reason in [
        String::new(),
        "x".repeat(201),
        "two\nlines".into(),
        "\u{1b}[2J".into(),
        "sdrawkcab \u{202e}".into(),
        "\u{2066}hidden".into(),
    ] {
        assert_eq!(field(|draft| draft.reason = reason), "reason");
    }
    let mut full = acceptance();
    full.reason = "é".repeat(200);
    verified(&full);
}

#[test]
fn anything_but_the_shape_is_refused() {
    let honest = acceptance().to_bytes().unwrap();
    let text = String::from_utf8(honest).unwrap();
    let head = hex::encode([7; 32]);
    for wrong in [
        String::new(),
        "[]".into(),
        text.replacen("\"reason\"", "\"reasons\"", 1),
        text.replacen('{', "{\"more\": 1,", 1),
        text.replacen(
            "\"party\": \"ceo\"",
            "\"party\": \"ceo\", \"party\": \"cto\"",
            1,
        ),
        text.replacen(&head, &head[2..], 1),
        text.replacen("120", "-1", 1),
        text.replacen("120", "18446744073709551616", 1),
        text.replacen("0909", "09", 1),
        format!("{text} {text}"),
    ] {
        let refused = sign(wrong.clone().into_bytes(), &[1, 2]).verify(&manifest());
        assert!(
            matches!(refused, Err(Error::LossAcceptance { field: "JSON", .. })),
            "{wrong}: {refused:?}"
        );
    }
    let long = vec![b' '; 16 * 1024 + 1];
    assert!(matches!(
        parse(&long),
        Err(Error::LossAcceptance {
            field: "length",
            ..
        })
    ));
}
