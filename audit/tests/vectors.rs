//! The reference tree of eight entries that Certificate Transparency implementations share.
//!
//! Source: google/certificate-transparency, `cpp/merkletree/merkle_tree_test.cc`; today in
//! transparency-dev/merkle, `testonly/constants.go` and `testonly/reference_test.go`. The hash values
//! there are hexadecimal, as here.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use arca_audit::{
    Hash, Tree, consistency_proof, inclusion_proof, leaf_hash, node_hash, root, verify_consistency,
    verify_inclusion,
};

const ENTRIES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];

/// Root of the tree over the first 0, 1, … 8 entries.
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

/// Hashes of the eight leaves.
const LEAVES: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "0298d122906dcfc10892cb53a73992fc5b9f493ea4c9badb27b791b4127a7fe7",
    "07506a85fd9dd2f120eb694f86011e5bb4662e5c415a62917033d4a9624487e7",
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "4271a26be0d8a84f0bd54c8c302e7cb3a3b5d1fa6780a40bcce2873477dab658",
    "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
    "46f6ffadd3d06a09ff3c5860d2755c8b9819db7df44251788c7d8e3180de8eb1",
];

/// Index, size, proof.
const INCLUSION: [(u64, usize, &[&str]); 5] = [
    (0, 1, &[]),
    (0, 8, &[LEAVES[1], N23, N4567]),
    (5, 8, &[LEAVES[4], N67, N0123]),
    (2, 3, &[N01]),
    (1, 5, &[LEAVES[0], N23, LEAVES[4]]),
];

/// Older size, newer size, proof.
const CONSISTENCY: [(u64, usize, &[&str]); 5] = [
    (1, 1, &[]),
    (1, 8, &[LEAVES[1], N23, N4567]),
    (6, 8, &[N45, N67, N0123]),
    (2, 5, &[N23, LEAVES[4]]),
    (6, 7, &[N45, LEAVES[6], N0123]),
];

// Inner nodes, by the leaves under them.
const N01: &str = "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125";
const N23: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
const N45: &str = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
const N67: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
const N0123: &str = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7";
const N4567: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn hash(hex: &str) -> Hash {
    bytes(hex).try_into().unwrap()
}

fn hashes(hex: &[&str]) -> Vec<Hash> {
    hex.iter().map(|hex| hash(hex)).collect()
}

fn leaves() -> Vec<Hash> {
    ENTRIES
        .iter()
        .map(|entry| leaf_hash(&bytes(entry)))
        .collect()
}

#[test]
fn leaf_and_node_hashes() {
    assert_eq!(leaves(), hashes(&LEAVES));
    assert_eq!(node_hash(&hash(LEAVES[2]), &hash(LEAVES[3])), hash(N23));
    assert_eq!(node_hash(&hash(N01), &hash(N23)), hash(N0123));
}

#[test]
fn roots_grow_entry_by_entry() {
    let leaves = leaves();
    let mut tree = Tree::new();
    assert_eq!(tree.root(), hash(ROOTS[0]));
    for (before, leaf) in leaves.iter().enumerate() {
        tree.append(*leaf);
        assert_eq!(tree.root(), hash(ROOTS[before + 1]));
        assert_eq!(root(&leaves[..=before]), hash(ROOTS[before + 1]));
    }
    assert_eq!(tree.size(), 8);
}

#[test]
fn inclusion_proofs() {
    let leaves = leaves();
    for (index, size, proof) in INCLUSION {
        let proof = hashes(proof);
        assert_eq!(inclusion_proof(&leaves[..size], index).unwrap(), proof);
        let leaf = leaf_hash(&bytes(ENTRIES[usize::try_from(index).unwrap()]));
        verify_inclusion(&hash(ROOTS[size]), size as u64, index, &leaf, &proof).unwrap();
    }
}

#[test]
fn consistency_proofs() {
    let leaves = leaves();
    for (older, newer, proof) in CONSISTENCY {
        let proof = hashes(proof);
        assert_eq!(consistency_proof(&leaves[..newer], older).unwrap(), proof);
        let older_root = hash(ROOTS[usize::try_from(older).unwrap()]);
        verify_consistency(
            older,
            &older_root,
            newer as u64,
            &hash(ROOTS[newer]),
            &proof,
        )
        .unwrap();
    }
}
