//! A log of ours: entries, tiles, checkpoint, a witness' cosignature.

use arca_audit::checkpoint::Checkpoint;
use arca_audit::cosignature::cosign;
use arca_audit::note::{KeyKind, SignedNote, VerifierKey};
use arca_audit::writer::{BundleWriter, TileWriter, Tiles};
use arca_audit::{Hash, leaf_hash, root};
use ed25519_dalek::SigningKey;

pub const TIME: u64 = 1_700_000_000;

/// Around full tiles of two levels.
pub const SIZES: [usize; 9] = [1, 2, 3, 255, 256, 257, 511, 65_536, 70_000];

pub struct Log {
    pub leaves: Vec<Hash>,
    /// Hash tiles and entry bundles, partial ones included.
    pub tiles: Tiles,
    pub verifier: VerifierKey,
    pub witness: VerifierKey,
    pub checkpoint: Checkpoint,
    /// Signed and cosigned.
    pub note: SignedNote,
}

pub fn entry(index: usize) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

pub fn log(size: usize) -> Log {
    let mut writer = TileWriter::new();
    let mut bundles = BundleWriter::new();
    let leaves: Vec<Hash> = (0..size).map(|index| leaf_hash(&entry(index))).collect();
    let mut tiles: Tiles = writer.append(leaves.iter().copied()).into_iter().collect();
    tiles.extend(writer.partial());
    for index in 0..size {
        tiles.extend(bundles.append(&entry(index)).unwrap());
    }
    tiles.extend(bundles.partial());

    let key = SigningKey::from_bytes(&[1; 32]);
    let witness_key = SigningKey::from_bytes(&[2; 32]);
    let name = "arca/simulated/treasury/ceo/1".parse().unwrap();
    let verifier = VerifierKey::of_signing_key(name, KeyKind::Ed25519, &key);
    let name = "arca/simulated/treasury/cto/witness".parse().unwrap();
    let witness = VerifierKey::of_signing_key(name, KeyKind::CosignatureV1, &witness_key);
    let checkpoint = Checkpoint {
        origin: verifier.name().clone(),
        size: size as u64,
        root: root(&leaves),
    };
    let mut note = checkpoint.sign(&key);
    note.add(cosign(&checkpoint, TIME, witness.name(), &witness_key).unwrap())
        .unwrap();
    Log {
        leaves,
        tiles,
        verifier,
        witness,
        checkpoint,
        note,
    }
}
