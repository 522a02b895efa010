//! What holds for any manifest.

use arca_attestation::manifest::{Administrators, PolicyDigest, Revocation, parse};
use proptest::prelude::*;

use crate::common::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_quorum_is_a_matter_of_how_many_different_administrators_sign(
        keys in 1..=6u8, quorum in 1..=6u16, signers in proptest::collection::vec(1..=8u8, 0..10),
    ) {
        prop_assume!(quorum <= u16::from(keys));
        let mut draft = draft();
        draft.administrators = Administrators { quorum, keys: administrator_keys(&(1..=keys).collect::<Vec<_>>()) };
        let different: std::collections::BTreeSet<_> = signers.iter().filter(|signer| **signer <= keys).collect();
        let verified = signed(&draft, &signers).verify_first(NOW).is_ok();
        prop_assert_eq!(verified, different.len() >= usize::from(quorum));
    }

    #[test]
    fn drafts_come_back_from_their_bytes(
        epoch in 1..u64::MAX, parties in 1..10u8, policy: Option<[u8; 32]>, revoked: [u8; 32],
    ) {
        let mut draft = draft();
        draft.epoch = epoch;
        draft.parties = (1..=parties).map(|number| party(&format!("party-{number}"), number + 20)).collect();
        draft.policy_digest = policy.map(PolicyDigest);
        draft.revoked = vec![Revocation::Identity(revoked.to_vec())];
        prop_assert_eq!(parse(&draft.to_bytes().unwrap()).unwrap(), draft);
    }

    #[test]
    fn damaged_bytes_are_refused(position: prop::sample::Index, bit in 0..8u8) {
        let mut manifest = signed(&draft(), &[1, 2]);
        let position = position.index(manifest.bytes.len());
        manifest.bytes[position] ^= 1 << bit;
        prop_assert!(manifest.verify_first(NOW).is_err());
        prop_assert!(manifest.verify_stored().is_err());
    }
}
