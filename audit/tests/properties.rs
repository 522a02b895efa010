//! What must hold of every tree, and that nothing else does.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

use arca_audit::{
    Error, Hash, Tree, consistency_proof, inclusion_proof, leaf_hash, root, verify_consistency,
    verify_inclusion,
};
use proptest::prelude::*;

fn leaves(size: usize) -> Vec<Hash> {
    (0..size)
        .map(|index| leaf_hash(&index.to_be_bytes()))
        .collect()
}

/// Every proof that is like this one but for one change: a bit, a hash more, less or elsewhere.
fn altered(proof: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = Vec::new();
    for at in 0..proof.len() {
        let mut flipped = proof.to_vec();
        flipped[at][at % 32] ^= 1 << (at % 8);
        all.push(flipped);
        let mut shorter = proof.to_vec();
        shorter.remove(at);
        all.push(shorter);
        let mut swapped = proof.to_vec();
        swapped.swap(at, 0);
        if swapped != proof {
            all.push(swapped);
        }
    }
    for at in 0..=proof.len() {
        let mut longer = proof.to_vec();
        longer.insert(at, [0; 32]);
        all.push(longer);
    }
    all
}

/// Every index of every tree, and every pair of trees, up to a size that has every shape of right edge.
const SIZES: usize = 34;

#[test]
fn every_entry_of_every_small_tree_is_proved_and_only_there() {
    let leaves = leaves(SIZES);
    for size in 1..=SIZES {
        let tree = &leaves[..size];
        let (size, root) = (size as u64, root(tree));
        for index in 0..size {
            let leaf = leaves[index as usize];
            let proof = inclusion_proof(tree, index).unwrap();
            verify_inclusion(&root, size, index, &leaf, &proof).unwrap();
            for other in (0..size).filter(|other| *other != index) {
                verify_inclusion(&root, size, other, &leaf, &proof).unwrap_err();
            }
            for altered in altered(&proof) {
                verify_inclusion(&root, size, index, &leaf, &altered).unwrap_err();
            }
            verify_inclusion(&root, size, index, &leaf_hash(b"other"), &proof).unwrap_err();
            verify_inclusion(&leaf_hash(b"other"), size, index, &leaf, &proof).unwrap_err();
        }
        let beyond = Error::BeyondTree { index: size, size };
        assert_eq!(inclusion_proof(tree, size).unwrap_err(), beyond);
        assert_eq!(
            verify_inclusion(&root, size, size, &root, &[]).unwrap_err(),
            beyond
        );
    }
}

#[test]
fn every_small_tree_continues_all_smaller_ones_and_no_others() {
    let leaves = leaves(SIZES);
    let roots: Vec<Hash> = (0..=SIZES).map(|size| root(&leaves[..size])).collect();
    let other = leaf_hash(b"other");
    for newer in 0..=SIZES {
        for older in 0..=newer {
            let proof = consistency_proof(&leaves[..newer], older as u64).unwrap();
            let (older_root, newer_root) = (roots[older], roots[newer]);
            let verify = |older_root: &Hash, newer_root: &Hash, proof: &[Hash]| {
                verify_consistency(older as u64, older_root, newer as u64, newer_root, proof)
            };
            verify(&older_root, &newer_root, &proof).unwrap();
            verify(&other, &newer_root, &proof).unwrap_err();
            if older > 0 {
                verify(&older_root, &other, &proof).unwrap_err();
            }
            for altered in altered(&proof) {
                verify(&older_root, &newer_root, &altered).unwrap_err();
            }
            for wrong in (0..=newer).filter(|wrong| *wrong != older) {
                let (wrong, newer) = (wrong as u64, newer as u64);
                verify_consistency(wrong, &older_root, newer, &newer_root, &proof).unwrap_err();
            }
        }
        let (older, newer) = (newer as u64 + 1, newer as u64);
        let shrunk = Error::Shrunk { older, newer };
        assert_eq!(
            consistency_proof(&leaves[..newer as usize], older).unwrap_err(),
            shrunk
        );
        assert_eq!(
            verify_consistency(older, &other, newer, &other, &[]).unwrap_err(),
            shrunk
        );
    }
}

#[test]
fn an_inner_node_does_not_pass_for_an_entry() {
    // The tree over two entries has the same root as a tree of one entry would have, whose bytes are the
    // two hashes, if leaves and nodes were hashed alike.
    let (left, right) = (leaf_hash(b"left"), leaf_hash(b"right"));
    let forged = leaf_hash(&[left, right].concat());
    verify_inclusion(&root(&[left, right]), 1, 0, &forged, &[]).unwrap_err();
}

#[test]
fn the_largest_sizes_neither_overflow_nor_pass() {
    let hash = leaf_hash(b"");
    for proof_length in [0, 1, 63, 64, 65, 200] {
        let proof = vec![hash; proof_length];
        for index in [0, 1, u64::MAX / 2, u64::MAX - 1] {
            verify_inclusion(&hash, u64::MAX, index, &hash, &proof).unwrap_err();
        }
        for older in [1, 2, (1 << 63) - 1, 1 << 63, u64::MAX - 1] {
            verify_consistency(older, &hash, u64::MAX, &hash, &proof).unwrap_err();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn growing_and_hashing_whole_agree(entries in prop::collection::vec(any::<Vec<u8>>(), 0..300)) {
        let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let tree: Tree = leaves.iter().copied().collect();
        prop_assert_eq!(tree.root(), root(&leaves));
        prop_assert_eq!(tree.size(), leaves.len() as u64);
    }

    #[test]
    fn proofs_hold_in_large_trees(size in 1_usize..2000, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let leaves = leaves(size);
        let tree_root = root(&leaves);
        let index = a.index(size);
        let proof = inclusion_proof(&leaves, index as u64).unwrap();
        verify_inclusion(&tree_root, size as u64, index as u64, &leaves[index], &proof).unwrap();

        let older = b.index(size + 1);
        let proof = consistency_proof(&leaves, older as u64).unwrap();
        let older_root = root(&leaves[..older]);
        verify_consistency(older as u64, &older_root, size as u64, &tree_root, &proof).unwrap();
    }

    #[test]
    fn a_changed_entry_cannot_be_continued(size in 2_usize..200, at in any::<prop::sample::Index>(), older in any::<prop::sample::Index>()) {
        let honest = leaves(size);
        let older = 1 + older.index(size - 1);
        let changed = at.index(older);
        let mut forged = honest.clone();
        forged[changed] = leaf_hash(b"rewritten history");
        let proof = consistency_proof(&forged, older as u64).unwrap();
        let result = verify_consistency(
            older as u64, &root(&honest[..older]), size as u64, &root(&forged), &proof,
        );
        prop_assert_eq!(result.unwrap_err(), Error::Root);
    }

    #[test]
    fn garbage_is_refused_without_panic(
        older in any::<u64>(), newer in any::<u64>(), proof in prop::collection::vec(any::<Hash>(), 0..70),
        a in any::<Hash>(), b in any::<Hash>(),
    ) {
        prop_assume!(older != 0 && older != newer);
        prop_assert!(verify_consistency(older, &a, newer, &b, &proof).is_err());
        prop_assert!(verify_inclusion(&a, newer, older, &b, &proof).is_err());
    }
}
