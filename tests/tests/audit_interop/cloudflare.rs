//! Cloudflare's crates from crates.io.

use std::collections::HashMap;

use arca_audit::checkpoint::Checkpoint;
use arca_audit::cosignature::CosignedCheckpoint;
use arca_audit::note::{SignedNote, VerifierKey};
use arca_audit::reader::TileReader;
use arca_audit::tile::{TileKind, TilePath};
use arca_audit::writer::Tiles;
use arca_audit::{Tree, verify_consistency, verify_inclusion};
use ed25519_dalek::Verifier as _;
use signed_note::{Note, StandardSigner, StandardVerifier, Verifier, VerifierList};
use tlog_tiles::{Hash, HashReader, Tile, TileHashReader};

use crate::world::{Log, SIZES, TIME, entry, log};

/// They leave cosignatures to others; this is what the specification has a verifier do, written from it.
struct Cosigner {
    name: String,
    id: u32,
    key: ed25519_dalek::VerifyingKey,
}

impl Verifier for Cosigner {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.id
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        let time = u64::from_be_bytes(signature[..8].try_into().unwrap());
        let mut message = format!("cosignature/v1\ntime {time}\n").into_bytes();
        message.extend(text);
        let signature = ed25519_dalek::Signature::from_slice(&signature[8..]).unwrap();
        time == TIME && self.key.verify(&message, &signature).is_ok()
    }
}

fn cosigner(key: &VerifierKey) -> Box<Cosigner> {
    let mut typed = vec![0x04];
    typed.extend(key.key());
    Box::new(Cosigner {
        name: key.name().to_string(),
        // Their own computation of it.
        id: signed_note::key_id(key.name().as_str(), &typed),
        key: ed25519_dalek::VerifyingKey::from_bytes(key.key()).unwrap(),
    })
}

#[test]
fn they_open_our_checkpoints_and_cosignatures() {
    let log = log(300);
    let theirs = Note::from_bytes(&log.note.to_bytes()).unwrap();
    let verifier = || Box::new(StandardVerifier::new(&log.verifier.to_string()).unwrap());
    let known = VerifierList::new(vec![verifier(), cosigner(&log.witness)]);
    let (verified, unverified) = theirs.verify(&known).unwrap();
    assert_eq!((verified.len(), unverified.len()), (2, 0));
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(theirs.text()).unwrap();
    assert_eq!(checkpoint.origin(), log.checkpoint.origin.as_str());
    assert_eq!(checkpoint.size(), 300);
    assert_eq!(checkpoint.hash().0, log.checkpoint.root);
    assert_eq!(checkpoint.extension(), "");

    // What they write back is the same bytes.
    assert_eq!(theirs.to_bytes(), log.note.to_bytes());
    assert_eq!(
        checkpoint.to_bytes(),
        log.checkpoint.to_string().into_bytes()
    );

    // And they refuse what we would refuse.
    let mut changed = log.note.to_bytes();
    let size = changed
        .windows(3)
        .position(|digits| digits == b"300")
        .unwrap();
    changed[size] = b'4';
    assert!(Note::from_bytes(&changed).unwrap().verify(&known).is_err());
}

#[test]
fn we_open_what_they_sign() {
    let (secret, public) = signed_note::generate_key(&mut rand_core::OsRng, "example.com/log");
    let key: VerifierKey = public.parse().unwrap();
    assert_eq!(key.to_string(), public);
    let root = log(300).checkpoint.root;
    let theirs = tlog_tiles::Checkpoint::new("example.com/log", 300, Hash(root), "").unwrap();
    let mut note = Note::new(&theirs.to_bytes(), &[]).unwrap();
    note.add_sigs(&[&StandardSigner::new(&secret).unwrap()])
        .unwrap();
    let checkpoint = Checkpoint::verify(&note.to_bytes(), &key).unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (300, root));
    let ours = SignedNote::parse(&note.to_bytes()).unwrap();
    let cosigned = CosignedCheckpoint::verify_note(&ours, &key, &[]).unwrap();
    assert_eq!(*cosigned.checkpoint(), checkpoint);
}

/// Our tiles as theirs are asked for.
struct Served<'a>(&'a Log);

impl tlog_tiles::TileReader for Served<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        // They put the height into the path, which the C2SP format does not.
        let read = |tile: &Tile| {
            let path: TilePath = tile.path().replacen("tile/8/", "tile/", 1).parse().unwrap();
            path.narrow(&self.0.tiles[&path]).unwrap().to_vec()
        };
        Ok(tiles.iter().map(read).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

fn ours(proof: Vec<Hash>) -> Vec<arca_audit::Hash> {
    proof.into_iter().map(|hash| hash.0).collect()
}

fn theirs(proof: &[arca_audit::Hash]) -> Vec<Hash> {
    proof.iter().map(|hash| Hash(*hash)).collect()
}

#[test]
fn they_authenticate_our_tiles_and_make_the_same_proofs_of_them() {
    for size in SIZES {
        let log = log(size);
        let root = Hash(log.checkpoint.root);
        let count = size as u64;
        let served = Served(&log);
        let hashes = TileHashReader::new(count, root, &served);
        let places = [0, 1, 255, 256, size / 2, size.saturating_sub(2), size - 1];
        for index in places.into_iter().filter(|index| *index < size) {
            let at = index as u64;
            let proof = TileReader::inclusion(at, count)
                .unwrap()
                .make(&log.tiles)
                .unwrap();
            assert_eq!(
                ours(tlog_tiles::prove_record(count, at, &hashes).unwrap()),
                proof
            );
            let leaf = tlog_tiles::record_hash(&entry(index));
            tlog_tiles::check_record(&theirs(&proof), count, root, at, leaf).unwrap();
            tlog_tiles::check_record(&theirs(&proof), count, root, at, Hash([0; 32])).unwrap_err();

            let older = at + 1;
            let tree: Tree = log.leaves[..=index].iter().copied().collect();
            let proof = TileReader::consistency(older, count)
                .unwrap()
                .make(&log.tiles)
                .unwrap();
            assert_eq!(
                ours(tlog_tiles::prove_tree(count, older, &hashes).unwrap()),
                proof
            );
            tlog_tiles::check_tree(&theirs(&proof), count, root, older, Hash(tree.root())).unwrap();
        }
    }
}

#[test]
fn what_they_make_of_a_changed_tile_does_not_verify_here_either() {
    let mut log = log(70_000);
    let root = Hash(log.checkpoint.root);
    let path = TilePath::new(TileKind::Hashes { level: 0 }, 3, 256).unwrap();
    log.tiles.get_mut(&path).unwrap()[0] ^= 1;
    let served = Served(&log);
    let hashes = TileHashReader::new(70_000, root, &served);
    let index = 3 * 256 + 5;
    let leaf = log.leaves[index as usize];
    // Whether they find out from the tile alone depends on which else they read.
    if let Ok(proof) = tlog_tiles::prove_record(70_000, index, &hashes) {
        tlog_tiles::check_record(&proof, 70_000, root, index, Hash(leaf)).unwrap_err();
        verify_inclusion(&root.0, 70_000, index, &leaf, &ours(proof)).unwrap_err();
    }
    let proof = TileReader::inclusion(index, 70_000)
        .unwrap()
        .make(&log.tiles)
        .unwrap();
    tlog_tiles::check_record(&theirs(&proof), 70_000, root, index, Hash(leaf)).unwrap_err();
    verify_inclusion(&root.0, 70_000, index, &leaf, &proof).unwrap_err();
}

/// Their store of a log's hashes.
#[derive(Default)]
struct Stored(HashMap<u64, Hash>);

impl HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[index]).collect())
    }
}

#[test]
fn we_prove_from_their_tiles() {
    let mut stored = Stored::default();
    let mut size = 0;
    for newer in SIZES {
        for index in size..newer {
            let hashes = tlog_tiles::stored_hashes(index as u64, &entry(index), &stored).unwrap();
            let first = tlog_tiles::stored_hash_index(0, index as u64);
            stored.0.extend((first..).zip(hashes));
        }
        let root = tlog_tiles::tree_hash(newer as u64, &stored).unwrap().0;
        let older_root = tlog_tiles::tree_hash(size as u64, &stored).unwrap().0;

        // All tiles that they say a log of that size has.
        let mut tiles = Tiles::new();
        for tile in Tile::new_tiles(8, 0, newer as u64) {
            let path = tile.path().replacen("tile/8/", "tile/", 1).parse().unwrap();
            tiles.insert(path, tile.read_data(&stored).unwrap());
        }
        let expected: Vec<TilePath> = TilePath::between(0, newer as u64)
            .filter(|path| path.kind() != TileKind::Entries)
            .collect();
        assert_eq!(tiles.keys().copied().collect::<Vec<_>>(), expected);

        let (older, newer) = (size as u64, newer as u64);
        let proof = TileReader::consistency(older, newer)
            .unwrap()
            .make(&tiles)
            .unwrap();
        verify_consistency(older, &older_root, newer, &root, &proof).unwrap();
        for index in [older, newer - 1] {
            let proof = TileReader::inclusion(index, newer)
                .unwrap()
                .make(&tiles)
                .unwrap();
            let leaf = tlog_tiles::record_hash(&entry(index as usize)).0;
            verify_inclusion(&root, newer, index, &leaf, &proof).unwrap();
        }
        size = newer as usize;
    }
}

#[test]
fn we_read_the_same_paths() {
    for path in [
        "tile/8/0/x001/x234/067",
        "tile/8/3/000.p/255",
        "tile/8/7/000.p/1",
    ] {
        let theirs = Tile::from_path(path).unwrap();
        let ours: TilePath = path.replacen("tile/8/", "tile/", 1).parse().unwrap();
        assert_eq!(ours.index(), theirs.level_index());
        assert_eq!(u32::from(ours.width()), theirs.width());
        assert_eq!(
            ours.kind(),
            TileKind::Hashes {
                level: theirs.level()
            }
        );
    }
    for path in [
        "tile/8/0/001/234",
        "tile/8/0/x01/234",
        "tile/8/0/x000/001",
        "tile/8/00/001",
    ] {
        assert!(Tile::from_path(path).is_err(), "{path}");
        assert!(
            path.replacen("tile/8/", "tile/", 1)
                .parse::<TilePath>()
                .is_err(),
            "{path}"
        );
    }
}
