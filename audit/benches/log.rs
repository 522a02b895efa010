//! A log of a million entries: appended, signed, proved from tiles, verified. Throughput is in entries, proofs or
//! checkpoints per second.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use arca_audit::bundle::TlogProof;
use arca_audit::checkpoint::Checkpoint;
use arca_audit::cosignature::{CosignedCheckpoint, cosign};
use arca_audit::note::{KeyKind, VerifierKey};
use arca_audit::reader::TileReader;
use arca_audit::writer::{BundleWriter, TileWriter, Tiles};
use arca_audit::{Growth, Hash, Tree, leaf_hash, verify_consistency, verify_inclusion};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ed25519_dalek::SigningKey;

const SIZE: u64 = 1_000_000;
/// As long as an entry of the audit log is.
const ENTRY: [u8; 600] = [b'x'; 600];

/// Any place in the log, another at each call.
struct Places(u64);

impl Places {
    fn next(&mut self, below: u64) -> u64 {
        // A linear congruential generator (Knuth, MMIX); its upper bits.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 20) % below
    }
}

fn leaves(size: u64) -> Vec<Hash> {
    (0..size).map(|at| leaf_hash(&at.to_be_bytes())).collect()
}

fn append(c: &mut Criterion) {
    const BATCH: u64 = 1000;
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("600-byte entries to tree", |b| {
        let mut tree = Tree::new();
        b.iter(|| {
            for _ in 0..BATCH {
                tree.append(leaf_hash(black_box(&ENTRY)));
            }
        });
        black_box(tree.root());
    });
    group.bench_function("600-byte entries to tiles and bundles", |b| {
        let (mut tiles, mut bundles) = (TileWriter::new(), BundleWriter::new());
        b.iter(|| {
            for _ in 0..BATCH {
                black_box(tiles.append([leaf_hash(black_box(&ENTRY))]));
                black_box(bundles.append(&ENTRY).unwrap());
            }
        });
    });
    group.finish();
}

fn prove(c: &mut Criterion) {
    let leaves = leaves(SIZE);
    let mut writer = TileWriter::new();
    let mut tiles: Tiles = writer.append(leaves.iter().copied()).into_iter().collect();
    tiles.extend(writer.partial());
    let root = writer.tree().root();
    let mut places = Places(1);
    let mut group = c.benchmark_group("a million entries");
    group.throughput(Throughput::Elements(1));
    group.bench_function("prove inclusion from tiles", |b| {
        b.iter(|| {
            let reader = TileReader::inclusion(places.next(SIZE), SIZE).unwrap();
            black_box(reader.make(&tiles).unwrap())
        });
    });
    group.bench_function("prove consistency from tiles", |b| {
        b.iter(|| {
            let reader = TileReader::consistency(1 + places.next(SIZE), SIZE).unwrap();
            black_box(reader.make(&tiles).unwrap())
        });
    });
    let (index, older) = (654_321_u64, 765_432_u64);
    let leaf = leaf_hash(&index.to_be_bytes());
    let proof = TileReader::inclusion(index, SIZE)
        .unwrap()
        .make(&tiles)
        .unwrap();
    group.bench_function("verify inclusion", |b| {
        b.iter(|| verify_inclusion(&root, SIZE, index, black_box(&leaf), &proof).unwrap());
    });
    let proof = TileReader::consistency(older, SIZE)
        .unwrap()
        .make(&tiles)
        .unwrap();
    let count = usize::try_from(older).unwrap();
    let older_root = leaves.iter().take(count).copied().collect::<Tree>().root();
    group.bench_function("verify consistency", |b| {
        b.iter(|| {
            verify_consistency(older, black_box(&older_root), SIZE, &root, &proof).unwrap();
        });
    });
    // As a party does for its peers after each write: 64 entries more, over what it remembers.
    let mut growth = Growth::new(leaves.iter().copied().take(count).collect());
    growth.extend(leaves.iter().copied().skip(count).take(1024));
    group.bench_function("prove consistency over 64 entries from memory", |b| {
        b.iter(|| black_box(growth.consistency(older + 960, older + 1024).unwrap()));
    });
    group.finish();
}

fn sign(c: &mut Criterion) {
    let leaves = leaves(1000);
    let log_key = SigningKey::from_bytes(&[1; 32]);
    let witness_key = SigningKey::from_bytes(&[2; 32]);
    let origin = "arca/production/treasury/ceo/1".parse().unwrap();
    let log = VerifierKey::of_signing_key(origin, KeyKind::Ed25519, &log_key);
    let name = "arca/production/treasury/cto/witness".parse().unwrap();
    let witness = VerifierKey::of_signing_key(name, KeyKind::CosignatureV1, &witness_key);
    let checkpoint = Checkpoint {
        origin: log.name().clone(),
        size: 1000,
        root: leaves.iter().copied().collect::<Tree>().root(),
    };
    let mut note = checkpoint.sign(&log_key);
    note.add(cosign(&checkpoint, 1_700_000_000, witness.name(), &witness_key).unwrap())
        .unwrap();
    let bytes = note.to_bytes();
    let witnesses = [witness.clone()];
    let proof = arca_audit::inclusion_proof(&leaves, 345).unwrap();
    let bundle = TlogProof {
        extra: Vec::new(),
        index: 345,
        proof,
        checkpoint: note,
    };
    let bundle_bytes = bundle.to_bytes();
    let leaf = leaf_hash(&345_u64.to_be_bytes());

    let mut group = c.benchmark_group("checkpoint");
    group.throughput(Throughput::Elements(1));
    group.bench_function("sign", |b| {
        b.iter(|| black_box(checkpoint.sign(&log_key)));
    });
    group.bench_function("cosign", |b| {
        b.iter(|| black_box(cosign(&checkpoint, 7, witness.name(), &witness_key).unwrap()));
    });
    group.bench_function("verify with one cosignature", |b| {
        b.iter(|| black_box(CosignedCheckpoint::verify(&bytes, &log, &witnesses).unwrap()));
    });
    group.bench_function("verify a proof bundle with one cosignature", |b| {
        b.iter(|| {
            let bundle = TlogProof::parse(black_box(&bundle_bytes)).unwrap();
            black_box(bundle.verify(&leaf, &log, &witnesses).unwrap())
        });
    });
    group.finish();
}

criterion_group!(benches, append, prove, sign);
criterion_main!(benches);
