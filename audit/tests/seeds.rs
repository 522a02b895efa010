//! The seeds of the fuzz targets `audit_*` are what this crate writes. After a wanted change of a format,
//! `ARCA_WRITE_SEEDS=1 cargo test -p arca-audit --test seeds` writes them anew.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use arca_audit::bundle::TlogProof;
use arca_audit::checkpoint::Checkpoint;
use arca_audit::cosignature::cosign;
use arca_audit::note::{KeyKind, VerifierKey};
use arca_audit::tile::encode_entries;
use arca_audit::witness::AddCheckpoint;
use arca_audit::{Hash, consistency_proof, inclusion_proof, leaf_hash, root};
use ed25519_dalek::SigningKey;

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let log_key = SigningKey::from_bytes(&[1; 32]);
    let witness_key = SigningKey::from_bytes(&[2; 32]);
    let origin = "arca/simulated/treasury/ceo/1";
    let log = VerifierKey::of_signing_key(origin.parse().unwrap(), KeyKind::Ed25519, &log_key);
    let name = "arca/simulated/treasury/cto/witness".parse().unwrap();
    let witness = VerifierKey::of_signing_key(name, KeyKind::CosignatureV1, &witness_key);
    let entries: Vec<Vec<u8>> = (0..6_u8).map(|at| vec![at; at.into()]).collect();
    let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    let checkpoint = Checkpoint {
        origin: log.name().clone(),
        size: 6,
        root: root(&leaves),
    };
    let mut note = checkpoint.sign(&log_key);
    let signed = note.to_bytes();
    note.add(cosign(&checkpoint, 1_700_000_000, witness.name(), &witness_key).unwrap())
        .unwrap();
    let mut bundle = TlogProof {
        extra: Vec::new(),
        index: 2,
        proof: inclusion_proof(&leaves, 2).unwrap(),
        checkpoint: note.clone(),
    };
    let without_extra = bundle.to_bytes();
    bundle.extra = b"extra".to_vec();
    let request = AddCheckpoint {
        old_size: 3,
        proof: consistency_proof(&leaves, 3).unwrap(),
        note: checkpoint.sign(&log_key),
    };
    let first = AddCheckpoint {
        old_size: 0,
        proof: Vec::new(),
        note: checkpoint.sign(&log_key),
    };
    vec![
        ("audit_note/signed", signed),
        ("audit_note/cosigned", note.to_bytes()),
        ("audit_note/log_key", log.to_string().into_bytes()),
        ("audit_note/witness_key", witness.to_string().into_bytes()),
        ("audit_checkpoint/body", checkpoint.to_string().into_bytes()),
        ("audit_checkpoint/cosigned", note.to_bytes()),
        ("audit_tile_path/full", b"tile/0/x001/x234/067".to_vec()),
        ("audit_tile_path/partial", b"tile/3/000.p/255".to_vec()),
        (
            "audit_tile_path/entries",
            b"tile/entries/x001/234.p/5".to_vec(),
        ),
        ("audit_entry_bundle/six", encode_entries(&entries).unwrap()),
        ("audit_tlog_proof/plain", without_extra),
        ("audit_tlog_proof/with_extra", bundle.to_bytes()),
        ("audit_add_checkpoint/first", first.to_bytes()),
        ("audit_add_checkpoint/next", request.to_bytes()),
    ]
}

#[test]
fn the_seeds_are_what_is_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/seeds");
    for (name, bytes) in seeds() {
        let file = folder.join(name);
        if std::env::var_os("ARCA_WRITE_SEEDS").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &bytes).unwrap();
        }
        assert!(fs::read(&file).unwrap() == bytes, "{}", file.display());
    }
}
