//! Who has to sign a manifest, and when it is accepted.

use arca_attestation::manifest::{Administrators, SignedManifest};
use arca_attestation::{Error, UnixMillis};
use ed25519_dalek::Signer as _;

use crate::common::*;

#[test]
fn a_quorum_of_different_administrators_has_to_sign() {
    let draft = draft();
    for signers in [&[1, 2][..], &[3, 1], &[1, 2, 3]] {
        signed(&draft, signers).verify_first(NOW).unwrap();
    }
    let too_few = |signed| Error::NoQuorum {
        whose: "own",
        signed,
        needed: 2,
    };
    assert_eq!(
        signed(&draft, &[]).verify_first(NOW).unwrap_err(),
        too_few(0)
    );
    assert_eq!(
        signed(&draft, &[1]).verify_first(NOW).unwrap_err(),
        too_few(1)
    );
    // The same administrator twice, and somebody who is none.
    assert_eq!(
        signed(&draft, &[1, 1, 1]).verify_first(NOW).unwrap_err(),
        too_few(1)
    );
    assert_eq!(
        signed(&draft, &[1, 9]).verify_first(NOW).unwrap_err(),
        too_few(1)
    );
    signed(&draft, &[1, 9, 2]).verify_first(NOW).unwrap();
}

#[test]
fn a_forged_signature_refuses_even_beside_a_quorum() {
    let honest = signed(&draft(), &[1, 2, 3]);
    for position in 0..3 {
        let mut forged = honest.clone();
        forged.signatures[position].1[40] ^= 1;
        let administrator = format!("admin-{}", position + 1);
        assert_eq!(
            forged.verify_first(NOW).unwrap_err(),
            Error::AdministratorSignature { administrator }
        );
    }
    let mut doubled = honest;
    let (key, _) = doubled.signatures[0];
    doubled.signatures.push((key, [0; 64]));
    assert!(matches!(
        doubled.verify_first(NOW),
        Err(Error::AdministratorSignature { .. })
    ));
}

#[test]
fn signatures_cover_every_byte_and_nothing_but_manifests() {
    let honest = signed(&draft(), &[1, 2]);
    let refused = |manifest: &SignedManifest| {
        let error = manifest.verify_first(NOW).unwrap_err();
        assert!(
            matches!(error, Error::AdministratorSignature { .. }),
            "{error:?}"
        );
    };
    let mut spaced = honest.clone();
    spaced.bytes.push(b'\n');
    refused(&spaced);

    let mut bare = honest;
    for (number, signature) in [1, 2].into_iter().zip(&mut bare.signatures) {
        signature.1 = administrator(number).sign(&bare.bytes).to_bytes();
    }
    refused(&bare);
}

#[test]
fn non_canonical_signatures_are_refused() {
    // s + L signs the same under a lax verifier.
    let order = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
    let order: [u8; 32] = hex::decode(order).unwrap().try_into().unwrap();
    let mut lax = signed(&draft(), &[1, 2]);
    let mut carry = 0u16;
    for (byte, add) in lax.signatures[0].1[32..].iter_mut().zip(order) {
        carry += u16::from(*byte) + u16::from(add);
        *byte = u8::try_from(carry & 0xff).unwrap();
        carry >>= 8;
    }
    assert_eq!(carry, 0);
    assert!(matches!(
        lax.verify_first(NOW),
        Err(Error::AdministratorSignature { .. })
    ));
}

#[test]
fn a_pinned_key_of_small_order_signs_nothing() {
    // Under the neutral point as the key, a lax verifier takes R = neutral, s = 0 for every message.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut forgery = [0; 64];
    forgery[0] = 1;
    let mut manifest = signed(&draft(), &[1, 2]);
    manifest.signatures.push((neutral, forgery));
    let error = manifest.verify_pinned(&[neutral], 1, NOW).unwrap_err();
    let administrator = hex::encode(neutral);
    assert_eq!(error, Error::AdministratorSignature { administrator });
}

#[test]
fn signatures_are_bounded() {
    let many: Vec<u8> = (1..=65).collect();
    let error = signed(&draft(), &many).verify_first(NOW).unwrap_err();
    assert_eq!(error, Error::TooManySignatures { count: 65, max: 64 });
    signed(&draft(), &many[..64]).verify_first(NOW).unwrap();
}

// Time.

#[test]
fn a_manifest_is_accepted_within_its_validity_only() {
    let draft = draft();
    let signed = signed(&draft, &[1, 2]);
    let at = |now| {
        signed
            .verify_first(UnixMillis(now))
            .map(|manifest| manifest.epoch())
    };
    assert_eq!(at(draft.not_before.0), Ok(5));
    assert_eq!(at(draft.not_after.0), Ok(5));
    assert_eq!(at(draft.not_before.0 - 1), Err(Error::ManifestNotYetValid));
    assert_eq!(at(draft.not_after.0 + 1), Err(Error::ManifestExpired));
    // What an enclave sealed itself is read back at any time, so that it can say that it has expired.
    signed.verify_stored().unwrap();
}

// The next manifest.

#[test]
fn the_next_manifest_has_a_greater_epoch_and_the_same_cluster() {
    let mut draft = draft();
    let current = in_force(&draft);
    for epoch in [1, 4, 5] {
        draft.epoch = epoch;
        let error = signed(&draft, &[1, 2])
            .verify_next(&current, NOW)
            .unwrap_err();
        assert_eq!(
            error,
            Error::ManifestEpoch {
                current: 5,
                offered: epoch
            }
        );
    }
    for epoch in [6, u64::MAX] {
        draft.epoch = epoch;
        assert_eq!(
            signed(&draft, &[1, 2])
                .verify_next(&current, NOW)
                .unwrap()
                .epoch(),
            epoch
        );
    }
    draft.cluster = "sim-other".to_owned();
    assert_eq!(
        signed(&draft, &[1, 2])
            .verify_next(&current, NOW)
            .unwrap_err(),
        Error::OtherCluster
    );
}

#[test]
fn the_next_manifest_needs_both_quorums() {
    let current = in_force(&draft());
    let mut next = draft();
    next.epoch = 6;
    next.administrators = Administrators {
        quorum: 2,
        keys: administrator_keys(&[3, 4, 5]),
    };
    let verify = |signers: &[u8]| {
        signed(&next, signers)
            .verify_next(&current, NOW)
            .map(|manifest| manifest.epoch())
    };
    assert_eq!(verify(&[1, 2, 4, 5]), Ok(6));
    // Administrator 3 counts in both.
    assert_eq!(verify(&[1, 3, 4]), Ok(6));
    assert_eq!(
        verify(&[4, 5]),
        Err(Error::NoQuorum {
            whose: "current",
            signed: 0,
            needed: 2
        })
    );
    assert_eq!(
        verify(&[3, 4, 5]),
        Err(Error::NoQuorum {
            whose: "current",
            signed: 1,
            needed: 2
        })
    );
    assert_eq!(
        verify(&[1, 2]),
        Err(Error::NoQuorum {
            whose: "own",
            signed: 0,
            needed: 2
        })
    );
    assert_eq!(
        verify(&[1, 2, 3]),
        Err(Error::NoQuorum {
            whose: "own",
            signed: 1,
            needed: 2
        })
    );
    // The new quorum alone satisfies an enclave that has no manifest: nothing else can govern it yet.
    signed(&next, &[4, 5]).verify_first(NOW).unwrap();
}

#[test]
fn the_next_manifest_is_valid_now() {
    let current = in_force(&draft());
    let mut next = draft();
    next.epoch = 6;
    let signed = signed(&next, &[1, 2]);
    let late = UnixMillis(next.not_after.0 + 1);
    assert_eq!(
        signed.verify_next(&current, late).unwrap_err(),
        Error::ManifestExpired
    );
    let pinned: Vec<_> = administrator_keys(&[1])
        .iter()
        .map(|key| key.public_key)
        .collect();
    assert_eq!(
        signed.verify_pinned(&pinned, 1, late).unwrap_err(),
        Error::ManifestExpired
    );
}

// Administrators that a client has pinned.

#[test]
fn a_client_relies_on_the_administrators_it_knows() {
    let pinned = |numbers: &[u8]| -> Vec<[u8; 32]> {
        administrator_keys(numbers)
            .iter()
            .map(|key| key.public_key)
            .collect()
    };
    let manifest = signed(&draft(), &[1, 2]);
    let verify = |numbers: &[u8], quorum| {
        manifest
            .verify_pinned(&pinned(numbers), quorum, NOW)
            .map(|manifest| manifest.epoch())
    };
    assert_eq!(verify(&[1, 2, 3], 2), Ok(5));
    assert_eq!(verify(&[2], 1), Ok(5));
    assert_eq!(
        verify(&[7, 8], 1),
        Err(Error::NoQuorum {
            whose: "pinned",
            signed: 0,
            needed: 1
        })
    );
    assert_eq!(
        verify(&[1, 3], 2),
        Err(Error::NoQuorum {
            whose: "pinned",
            signed: 1,
            needed: 2
        })
    );
    // A quorum of nobody, of more than there are, or of one key named twice.
    assert_eq!(
        verify(&[1, 2], 0),
        Err(Error::PinnedQuorum {
            quorum: 0,
            administrators: 2
        })
    );
    assert_eq!(
        verify(&[], 0),
        Err(Error::PinnedQuorum {
            quorum: 0,
            administrators: 0
        })
    );
    assert_eq!(
        verify(&[1], 2),
        Err(Error::PinnedQuorum {
            quorum: 2,
            administrators: 1
        })
    );
    assert_eq!(
        verify(&[1, 1], 2),
        Err(Error::PinnedQuorum {
            quorum: 2,
            administrators: 1
        })
    );

    // The manifest's own quorum is needed as well.
    let half = signed(&draft(), &[1]);
    let error = half.verify_pinned(&pinned(&[1]), 1, NOW).unwrap_err();
    assert_eq!(
        error,
        Error::NoQuorum {
            whose: "own",
            signed: 1,
            needed: 2
        }
    );
}
