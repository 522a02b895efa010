//! Every change of one byte, byte by byte and value by value: what was signed or hashed no longer verifies, or the
//! change is one that the specifications ignore. And nothing panics.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use arca_audit::bundle::TlogProof;
use arca_audit::checkpoint::Checkpoint;
use arca_audit::cosignature::{CosignedCheckpoint, cosign};
use arca_audit::note::{KeyKind, SignedNote, VerifierKey};
use arca_audit::reader::TileReader;
use arca_audit::tile::{TileKind, TilePath, decode_entries, encode_entries};
use arca_audit::witness::{AddCheckpoint, Witness};
use arca_audit::writer::{TileWriter, Tiles};
use arca_audit::{Error, Hash, Tree, inclusion_proof, leaf_hash, root, verify_inclusion};
use ed25519_dalek::SigningKey;

struct World {
    leaves: Vec<Hash>,
    log_key: SigningKey,
    log: VerifierKey,
    witnesses: [VerifierKey; 2],
    checkpoint: Checkpoint,
    /// Signed by the log, cosigned by both witnesses.
    note: SignedNote,
}

fn world() -> World {
    let leaves: Vec<Hash> = (0..6_u8).map(|at| leaf_hash(&[at])).collect();
    let log_key = SigningKey::from_bytes(&[1; 32]);
    let log = VerifierKey::of_signing_key("a/log".parse().unwrap(), KeyKind::Ed25519, &log_key);
    let checkpoint = Checkpoint {
        origin: log.name().clone(),
        size: 6,
        root: root(&leaves),
    };
    let mut note = checkpoint.sign(&log_key);
    let witnesses = [2, 3].map(|seed| {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let name = format!("w/{seed}").parse().unwrap();
        let line = cosign(&checkpoint, 1_700_000_000, &name, &key).unwrap();
        note.add(line).unwrap();
        VerifierKey::of_signing_key(name, KeyKind::CosignatureV1, &key)
    });
    World {
        leaves,
        log_key,
        log,
        witnesses,
        checkpoint,
        note,
    }
}

/// Calls with each other value of each byte, and where it stands; then with each byte left out, and with a newline
/// put before it.
fn every_change(bytes: &[u8], mut check: impl FnMut(usize, &[u8])) {
    let mut changed = bytes.to_vec();
    for at in 0..bytes.len() {
        for value in (0..=255).filter(|value| *value != bytes[at]) {
            changed[at] = value;
            check(at, &changed);
        }
        changed[at] = bytes[at];
    }
    for at in 0..bytes.len() {
        let mut shorter = bytes.to_vec();
        shorter.remove(at);
        if shorter != bytes {
            check(at, &shorter);
        }
        let mut longer = bytes.to_vec();
        longer.insert(at, b'\n');
        check(at, &longer);
    }
}

/// Where a part of a text stands.
fn span(whole: &[u8], part: &str) -> std::ops::Range<usize> {
    let start = whole
        .windows(part.len())
        .position(|window| window == part.as_bytes())
        .unwrap();
    start..start + part.len()
}

#[test]
fn no_change_of_a_signed_checkpoint_verifies() {
    let world = world();
    let bytes = world.checkpoint.sign(&world.log_key).to_bytes();
    assert_eq!(
        Checkpoint::verify(&bytes, &world.log).unwrap(),
        world.checkpoint
    );
    every_change(&bytes, |at, changed| {
        let result = Checkpoint::verify(changed, &world.log);
        assert!(result.is_err(), "byte {at}: {changed:02x?}");
    });
}

#[test]
fn a_change_of_a_cosigned_checkpoint_does_not_verify_or_takes_a_cosignature_away() {
    let world = world();
    let bytes = world.note.to_bytes();
    let lines: Vec<_> = world
        .note
        .signatures()
        .iter()
        .map(ToString::to_string)
        .collect();
    // A key is known by the name and the four bytes of its id: six characters of base64, of the sixth two bits.
    let named = |line: &str| {
        let span = span(&bytes, line);
        let base64 = line.rfind(' ').unwrap() + 1;
        span.start..span.start + base64 + 6
    };
    let names = [named(&lines[1]), named(&lines[2])];
    let mut ignored = 0;
    every_change(&bytes, |at, changed| {
        let Ok(cosigned) = CosignedCheckpoint::verify(changed, &world.log, &world.witnesses) else {
            return;
        };
        assert_eq!(*cosigned.checkpoint(), world.checkpoint);
        // The name or id of one cosignature is another now: of an unknown key, which is to be ignored.
        let without = names.iter().position(|span| span.contains(&at));
        let without = without.unwrap_or_else(|| panic!("byte {at}: {changed:02x?}"));
        assert_eq!(cosigned.cosignatures().len(), 1);
        assert_ne!(cosigned.cosignatures()[0].key, world.witnesses[without]);
        ignored += 1;
    });
    assert!(ignored > 0);
}

#[test]
fn a_change_of_a_note_reads_as_another_note_or_not_at_all() {
    let bytes = world().note.to_bytes();
    every_change(&bytes, |_, changed| {
        if let Ok(note) = SignedNote::parse(changed) {
            assert_eq!(note.to_bytes(), changed);
        }
    });
}

#[test]
fn no_change_of_a_proof_bundle_verifies_but_of_what_nothing_protects() {
    let world = world();
    let bundle = TlogProof {
        extra: b"extra".to_vec(),
        index: 2,
        proof: inclusion_proof(&world.leaves, 2).unwrap(),
        checkpoint: world
            .note
            .only(&[world.log.clone(), world.witnesses[0].clone()])
            .unwrap(),
    };
    let bytes = bundle.to_bytes();
    let verify = |bytes: &[u8]| {
        let bundle = TlogProof::parse(bytes)?;
        let cosigned = bundle.verify(&world.leaves[2], &world.log, &world.witnesses)?;
        Ok::<_, Error>((bundle, cosigned))
    };
    assert_eq!(verify(&bytes).unwrap().0, bundle);
    let extra = span(&bytes, "extra ZXh0cmE=\n");
    let cosignature = span(&bytes, &bundle.checkpoint.signatures()[1].to_string());
    let (mut of_extra, mut of_cosignature) = (0, 0);
    every_change(&bytes, |at, changed| {
        let Ok((read, cosigned)) = verify(changed) else {
            return;
        };
        assert_eq!(*cosigned.checkpoint(), world.checkpoint);
        assert_eq!((read.index, &read.proof), (bundle.index, &bundle.proof));
        if read.extra == bundle.extra {
            assert!(cosignature.contains(&at), "byte {at}: {changed:02x?}");
            assert!(cosigned.cosignatures().is_empty());
            of_cosignature += 1;
        } else {
            assert!(extra.contains(&at), "byte {at}: {changed:02x?}");
            of_extra += 1;
        }
    });
    assert!(of_extra > 0 && of_cosignature > 0);
}

#[test]
fn no_change_of_an_add_checkpoint_request_is_accepted() {
    let world = world();
    let older: Tree = world.leaves[..3].iter().copied().collect();
    let first = Checkpoint {
        origin: world.log.name().clone(),
        size: 3,
        root: older.root(),
    };
    let mut witness = Witness::new([world.log.clone()]);
    let first = AddCheckpoint {
        old_size: 0,
        proof: Vec::new(),
        note: first.sign(&world.log_key),
    };
    let accepted = witness.judge(&first).unwrap();
    witness.accept(accepted).unwrap();
    let request = AddCheckpoint {
        old_size: 3,
        proof: arca_audit::consistency_since(&older, &world.leaves[3..]),
        note: world.checkpoint.sign(&world.log_key),
    };
    let bytes = request.to_bytes();
    witness
        .judge(&AddCheckpoint::parse(&bytes).unwrap())
        .unwrap();
    every_change(&bytes, |at, changed| {
        if let Ok(request) = AddCheckpoint::parse(changed) {
            assert_eq!(request.to_bytes(), changed);
            witness
                .judge(&request)
                .expect_err(&format!("byte {at}: {changed:02x?}"));
        }
    });
}

#[test]
fn no_change_of_a_verifier_key_is_read() {
    let key = world().witnesses[0].to_string();
    every_change(key.as_bytes(), |at, changed| {
        let Ok(changed) = std::str::from_utf8(changed) else {
            return;
        };
        assert!(
            changed.parse::<VerifierKey>().is_err(),
            "byte {at}: {changed}"
        );
    });
}

#[test]
fn no_change_of_a_tile_proves_anything_but_the_truth() {
    let leaves: Vec<Hash> = (0..300_u16)
        .map(|at| leaf_hash(&at.to_be_bytes()))
        .collect();
    let tree_root = root(&leaves);
    let mut writer = TileWriter::new();
    let mut tiles: Tiles = writer.append(leaves.iter().copied()).into_iter().collect();
    tiles.extend(writer.partial());
    let reader = TileReader::inclusion(290, 300).unwrap();
    let proof = reader.make(&tiles).unwrap();
    for path in reader.needed() {
        let content = tiles[&path].clone();
        let (mut harmless, mut wrong) = (0, 0);
        // Of a hash, one bit is as good as another.
        for at in 0..content.len() {
            let mut changed = tiles.clone();
            changed.get_mut(&path).unwrap()[at] ^= 1 << (at % 8);
            let made = reader.make(&changed).unwrap();
            if made == proof {
                harmless += 1;
                // Not a hash that the proof is made of: the entry's own.
                assert_eq!((path.index(), at / 32), (1, 290 - 256));
            } else {
                verify_inclusion(&tree_root, 300, 290, &leaves[290], &made).unwrap_err();
                wrong += 1;
            }
        }
        for length in [content.len() - 1, content.len() - 32, 0] {
            let mut changed = tiles.clone();
            changed.get_mut(&path).unwrap().truncate(length);
            reader.make(&changed).unwrap_err();
        }
        assert!(wrong > 0 && harmless <= 32, "{path}");
    }
}

#[test]
fn no_change_of_a_bundle_of_entries_has_the_hashes_of_its_tile() {
    let entries: [&[u8]; 4] = [b"one", b"", b"three\0", &[0, 1, 0]];
    let bytes = encode_entries(&entries).unwrap();
    let tile: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    let path = TilePath::new(TileKind::Entries, 0, 4).unwrap();
    let mut readable = 0;
    every_change(&bytes, |at, changed| {
        if let Ok(read) = path.entries(changed) {
            readable += 1;
            let hashes: Vec<Hash> = read.iter().map(|entry| leaf_hash(entry)).collect();
            assert_ne!(hashes, tile, "byte {at}: {changed:02x?}");
        }
        if let Ok(read) = decode_entries(changed) {
            assert_eq!(encode_entries(&read).unwrap(), changed);
        }
    });
    assert!(readable > 0);
}

#[test]
fn a_change_of_a_tile_path_is_another_tile_or_none() {
    for path in ["tile/0/x001/234.p/57", "tile/entries/067", "tile/3/000.p/1"] {
        every_change(path.as_bytes(), |_, changed| {
            let Ok(changed) = std::str::from_utf8(changed) else {
                return;
            };
            if let Ok(read) = changed.parse::<TilePath>() {
                assert_eq!(read.to_string(), changed);
            }
        });
    }
}
