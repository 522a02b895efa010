//! Tiles and bundles: their paths, what a growing log makes of them, and proofs from them.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

use std::sync::LazyLock;

use arca_audit::reader::TileReader;
use arca_audit::tile::{TileKind, TilePath, decode_entries, encode_entries};
use arca_audit::writer::{BundleWriter, TileWriter, Tiles};
use arca_audit::{
    Error, Growth, Hash, Tree, consistency_proof, consistency_since, inclusion_proof, leaf_hash,
    older_tree, root, verify_consistency, verify_inclusion,
};
use proptest::prelude::*;

/// Larger than two full tiles of level 1.
const LARGE: usize = (1 << 17) + 300;

static LEAVES: LazyLock<Vec<Hash>> = LazyLock::new(|| {
    (0..LARGE)
        .map(|index| leaf_hash(&index.to_be_bytes()))
        .collect()
});

/// All tiles of the largest log, full and partial.
static TILES: LazyLock<Tiles> = LazyLock::new(|| {
    let mut writer = TileWriter::new();
    let mut tiles: Tiles = writer.append(LEAVES.iter().copied()).into_iter().collect();
    tiles.extend(writer.partial());
    tiles
});

/// Roots at many sizes, each computed by another code than what is tested: leaf by leaf.
fn roots_at(sizes: &[usize]) -> Vec<Hash> {
    let mut tree = Tree::new();
    let mut roots = Vec::new();
    for size in sizes {
        tree.extend(LEAVES[tree.size() as usize..*size].iter().copied());
        roots.push(tree.root());
    }
    roots
}

/// 2^k - 1, 2^k and 2^k + 1, and around full tiles; ascending.
fn sizes() -> Vec<usize> {
    let mut sizes: Vec<usize> = (0..18)
        .flat_map(|power| {
            let size = 1_usize << power;
            [size - 1, size, size + 1]
        })
        .chain([255 * 256, 255 * 256 + 1, 300 * 256 - 1, 300 * 256, LARGE])
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn hashes(level: u8, index: u64, width: u16) -> TilePath {
    TilePath::new(TileKind::Hashes { level }, index, width).unwrap()
}

/// The tiles that a reader asks for, as the log of that size has them: no wider.
fn exactly(reader: &TileReader) -> Tiles {
    reader
        .needed()
        .into_iter()
        .map(|path| {
            let (_, content) = TILES.range(path..=path.full()).next().unwrap();
            (path, path.narrow(content).unwrap().to_vec())
        })
        .collect()
}

#[test]
fn paths_of_the_specification() {
    // Source: C2SP/C2SP, tlog-tiles.md at 0ad71eb1f1b99acf18deb575978c9205e24860cc: index 1234067, and the log of
    // 70,000 entries.
    assert_eq!(
        hashes(0, 1_234_067, 256).to_string(),
        "tile/0/x001/x234/067"
    );
    let row = |level| {
        let row: Vec<_> = TilePath::row(TileKind::Hashes { level }, 0, 70_000).collect();
        let full = row.iter().filter(|path| path.is_full()).count();
        (full, row.last().map(ToString::to_string))
    };
    assert_eq!(row(0), (273, Some("tile/0/273.p/112".to_owned())));
    assert_eq!(row(1), (1, Some("tile/1/001.p/17".to_owned())));
    assert_eq!(row(2), (0, Some("tile/2/000.p/1".to_owned())));
    assert_eq!(row(3), (0, None));
    let all: Vec<_> = TilePath::between(0, 256)
        .map(|path| path.to_string())
        .collect();
    assert_eq!(all, ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]);
}

#[test]
fn paths_are_written_in_one_way() {
    for right in [
        "tile/0/000",
        "tile/0/000.p/1",
        "tile/7/000.p/127",
        "tile/3/x001/234.p/255",
        // The last entries of the largest log.
        "tile/entries/x036/x028/x797/x018/x963/967.p/255",
        "tile/entries/999",
    ] {
        assert_eq!(right.parse::<TilePath>().unwrap().to_string(), right);
    }
    for wrong in [
        "",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000",
        "tile/0/x000/001",
        "tile/0/001/234",
        "tile/0/x001/x234",
        "tile/0/x001/xx34",
        "tile/0/-01",
        "tile/0/+01",
        "tile/00/000",
        "tile/8/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/data/000",
        "tile/Entries/000",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/",
        "tile/0/000.p/1.p/1",
        "tile/0/000.p/1/",
        "tile/0/../000",
        "tile/7/001",
        // Just beyond 2^63 entries.
        "tile/entries/x036/x028/x797/x018/x963/967",
        "tile/entries/x036/x028/x797/x018/x963/968.p/1",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert!(
            matches!(wrong.parse::<TilePath>(), Err(Error::Malformed { .. })),
            "{wrong:?}"
        );
    }
    TilePath::new(TileKind::Entries, 0, 0).unwrap_err();
    TilePath::new(TileKind::Entries, 0, 257).unwrap_err();
    TilePath::new(TileKind::Entries, u64::MAX, 1).unwrap_err();
}

#[test]
fn every_tile_is_what_the_specification_says() {
    // The hash at index i of the row of a level is the root over 256^level leaves.
    for (path, content) in TILES.iter() {
        let TileKind::Hashes { level } = path.kind() else {
            panic!("{path}")
        };
        let leaves = 256_usize.pow(level.into());
        for (at, hash) in path.hashes(content).unwrap().iter().enumerate() {
            let first = (path.first() as usize + at) * leaves;
            assert_eq!(*hash, root(&LEAVES[first..first + leaves]), "{path} {at}");
        }
    }
    let expected: Vec<_> = TilePath::between(0, LARGE as u64)
        .filter(|path| path.kind() != TileKind::Entries)
        .collect();
    let made: Vec<_> = TILES.keys().copied().collect();
    assert_eq!(made, expected);
}

#[test]
fn a_log_grows_the_same_in_any_steps_and_after_a_stop() {
    for steps in [
        vec![1; 600],
        vec![255, 1, 1, 254, 256, 257, 70_000],
        vec![65_536, 1],
    ] {
        let mut writer = TileWriter::new();
        let mut stored = Tiles::new();
        let mut size = 0;
        for step in steps {
            let grown = writer.append(LEAVES[size..size + step].iter().copied());
            let before = size;
            size += step;
            let mut made: Vec<_> = grown.iter().map(|(path, _)| *path).collect();
            made.extend(writer.partial().iter().map(|(path, _)| *path));
            made.sort_unstable();
            // What it gives is what changed; unchanged partial tiles come again.
            for path in TilePath::between(before as u64, size as u64) {
                assert!(
                    path.kind() == TileKind::Entries || made.contains(&path),
                    "{path}"
                );
            }
            stored.extend(grown);
            stored.extend(writer.partial());

            // Stops here and goes on from what is stored.
            let again = TileWriter::resume(size as u64, &stored).unwrap();
            let tree: Tree = LEAVES[..size].iter().copied().collect();
            assert_eq!(again.tree(), tree);
            assert_eq!(again.tree(), writer.tree());
            writer = again;
        }
        for (path, content) in &stored {
            assert_eq!(path.narrow(&TILES[&full_or_last(*path)]).unwrap(), content);
        }
    }
    let missing = TileWriter::resume(300, &Tiles::new()).unwrap_err();
    assert_eq!(
        missing,
        Error::MissingTile {
            path: hashes(0, 1, 44)
        }
    );
    assert_eq!(
        TileWriter::resume(1 << 63, &Tiles::new()),
        Err(Error::TooLarge)
    );
}

/// The form in which the largest log has a tile.
fn full_or_last(path: TilePath) -> TilePath {
    TilePath::in_log(path.kind(), path.index(), LARGE as u64).unwrap()
}

#[test]
fn bundles_hold_the_entries() {
    let entries: Vec<Vec<u8>> = (0..600_usize).map(|at| vec![at as u8; at % 5]).collect();
    let mut writer = BundleWriter::new();
    let mut stored = Tiles::new();
    for (at, entry) in entries.iter().enumerate() {
        stored.extend(writer.append(entry).unwrap());
        if at % 7 == 0 {
            stored.extend(writer.partial());
            writer = BundleWriter::resume(at as u64 + 1, &stored).unwrap();
        }
    }
    stored.extend(writer.partial());
    for path in TilePath::row(TileKind::Entries, 0, 600) {
        let first = path.first() as usize;
        let expected: Vec<&[u8]> = entries[first..first + usize::from(path.width())]
            .iter()
            .map(Vec::as_slice)
            .collect();
        assert_eq!(path.entries(&stored[&path]).unwrap(), expected);
    }
    // A wider form answers for a narrower one, not the other way round.
    let (full, narrow) = (
        TilePath::new(TileKind::Entries, 1, 256).unwrap(),
        TilePath::new(TileKind::Entries, 1, 3).unwrap(),
    );
    let three = narrow.narrow(&stored[&full]).unwrap();
    assert_eq!(three, encode_entries(&entries[256..259]).unwrap());
    full.narrow(three).unwrap_err();

    let mut writer = BundleWriter::new();
    writer.append(&[0; 65_535]).unwrap();
    writer.append(&[0; 65_536]).unwrap_err();
    assert_eq!(writer.size(), 1);
}

#[test]
fn what_is_no_bundle_or_tile_is_refused() {
    assert_eq!(decode_entries(&[]).unwrap(), Vec::<&[u8]>::new());
    assert_eq!(decode_entries(&[0, 0, 0, 1, 9]).unwrap(), [&[][..], &[9]]);
    for wrong in [&[0][..], &[0, 1], &[0, 0, 0], &[0, 2, 9], &[255, 255, 0]] {
        decode_entries(wrong).unwrap_err();
    }
    let one = TilePath::new(TileKind::Entries, 0, 1).unwrap();
    one.entries(&[0, 0].repeat(256)).unwrap();
    one.entries(&[0, 0].repeat(257)).unwrap_err();
    one.entries(&[]).unwrap_err();
    // Even in what was not asked for.
    one.entries(&[0, 0, 0]).unwrap_err();
    one.hashes(&[0; 32]).unwrap_err();

    let two = hashes(0, 0, 2);
    two.hashes(&[0; 64]).unwrap();
    two.hashes(&[0; 256 * 32]).unwrap();
    for wrong in [0, 32, 63, 65, 257 * 32] {
        two.hashes(&vec![0; wrong]).unwrap_err();
    }
    two.entries(&[0; 64]).unwrap_err();
}

#[test]
fn proofs_from_tiles_are_those_from_all_leaves() {
    let sizes = sizes();
    let roots = roots_at(&sizes);
    for (at, size) in sizes.iter().copied().enumerate().skip(1) {
        let indices = [
            0,
            1,
            size / 2,
            size.saturating_sub(257),
            size.saturating_sub(2),
            size - 1,
        ];
        for index in indices.into_iter().filter(|index| *index < size) {
            let reader = TileReader::inclusion(index as u64, size as u64).unwrap();
            let proof = reader.make(&exactly(&reader)).unwrap();
            // From all leaves it takes a while.
            if size < 5000 || index == size / 2 {
                assert_eq!(
                    proof,
                    inclusion_proof(&LEAVES[..size], index as u64).unwrap()
                );
            }
            let leaf = &LEAVES[index];
            verify_inclusion(&roots[at], size as u64, index as u64, leaf, &proof).unwrap();
        }
        for older in [at - 1, at / 2, at] {
            let older = sizes[older];
            let reader = TileReader::consistency(older as u64, size as u64).unwrap();
            let proof = reader.make(&exactly(&reader)).unwrap();
            if size < 5000 || older * 2 > size {
                assert_eq!(
                    proof,
                    consistency_proof(&LEAVES[..size], older as u64).unwrap()
                );
            }
        }
    }
}

#[test]
fn every_pair_of_sizes_is_proved_from_tiles() {
    let sizes = sizes();
    let roots = roots_at(&sizes);
    for (newer, newer_root) in sizes.iter().zip(&roots) {
        for (older, older_root) in sizes
            .iter()
            .zip(&roots)
            .filter(|(older, _)| *older <= newer)
        {
            let (older, newer) = (*older as u64, *newer as u64);
            let reader = TileReader::consistency(older, newer).unwrap();
            let proof = reader.make(&TILES).unwrap();
            verify_consistency(older, older_root, newer, newer_root, &proof).unwrap();

            // The edge that the older log had, checked with the newer root alone.
            let edge = TileReader::edge(older, newer)
                .unwrap()
                .make(&TILES)
                .unwrap();
            let tree = older_tree(older, edge.clone(), newer, newer_root, &proof).unwrap();
            assert_eq!(tree.root(), *older_root);
            assert_eq!(tree.edge(), edge);
            for at in 0..edge.len() {
                let mut wrong = edge.clone();
                wrong[at][0] ^= 1;
                let result = older_tree(older, wrong, newer, newer_root, &proof);
                assert_eq!(result, Err(Error::Root));
            }
        }
    }
}

#[test]
fn a_tile_may_be_wider_than_asked_and_not_narrower() {
    let reader = TileReader::inclusion(3, 300).unwrap();
    let needed = reader.needed();
    assert_eq!(needed, [hashes(0, 0, 256), hashes(0, 1, 44)]);
    let exact = exactly(&reader);
    let proof = reader.make(&exact).unwrap();

    // Under the path that was asked for, and under its own.
    let wide = TILES[&hashes(0, 1, 256)].clone();
    let mut tiles = exact.clone();
    tiles.insert(needed[1], wide.clone());
    assert_eq!(reader.make(&tiles).unwrap(), proof);
    tiles.remove(&needed[1]);
    tiles.insert(hashes(0, 1, 50), wide[..50 * 32].to_vec());
    assert_eq!(reader.make(&tiles).unwrap(), proof);

    tiles.remove(&hashes(0, 1, 50));
    tiles.insert(hashes(0, 1, 43), wide[..43 * 32].to_vec());
    let missing = Error::MissingTile { path: needed[1] };
    assert_eq!(reader.make(&tiles), Err(missing));
    tiles.insert(needed[1], wide[..43 * 32].to_vec());
    assert!(matches!(reader.make(&tiles), Err(Error::Malformed { .. })));
}

#[test]
fn a_proof_needs_few_tiles() {
    // Of a million entries: at most one tile a level, and the last ones.
    for index in [0, 999_999, 500_000] {
        let needed = TileReader::inclusion(index, 1_000_000).unwrap().needed();
        assert!(needed.len() <= 5, "{needed:?}");
    }
}

#[test]
fn sizes_that_no_log_has_are_refused() {
    let most = (1 << 63) - 1;
    TileReader::inclusion(most - 1, most).unwrap().needed();
    TileReader::consistency(most - 1, most).unwrap().needed();
    TileReader::edge(most, most).unwrap().needed();
    assert_eq!(TileReader::inclusion(0, most + 1), Err(Error::TooLarge));
    assert_eq!(TileReader::consistency(1, u64::MAX), Err(Error::TooLarge));
    assert_eq!(TileReader::edge(1, u64::MAX), Err(Error::TooLarge));
    assert_eq!(
        TileReader::edge(2, 1),
        Err(Error::Shrunk { older: 2, newer: 1 })
    );
    assert_eq!(
        TileReader::consistency(2, 1),
        Err(Error::Shrunk { older: 2, newer: 1 })
    );
    assert_eq!(
        TileReader::inclusion(1, 1),
        Err(Error::BeyondTree { index: 1, size: 1 })
    );
    assert_eq!(
        TileReader::inclusion(0, 0),
        Err(Error::BeyondTree { index: 0, size: 0 })
    );
    assert_eq!(
        Tree::from_edge(u64::MAX, vec![[0; 32]; 64]),
        Err(Error::TooLarge)
    );
    assert_eq!(
        Tree::from_edge(3, vec![[0; 32]; 3]),
        Err(Error::Length { found: 3 })
    );
    assert_eq!(
        Tree::from_edge(3, vec![[0; 32]; 1]),
        Err(Error::Length { found: 1 })
    );
}

#[test]
fn recent_growth_is_proved_without_tiles() {
    // Every base, every pair of sizes above it, every entry.
    const MOST: usize = 34;
    let sizes: Vec<_> = (0..=MOST).collect();
    let roots = roots_at(&sizes);
    for base in 0..=MOST {
        let tree: Tree = LEAVES[..base].iter().copied().collect();
        let tree = Tree::from_edge(tree.size(), tree.edge().to_vec()).unwrap();
        let mut growth = Growth::new(tree.clone());
        growth.extend(LEAVES[base..MOST].iter().copied());
        assert_eq!(growth.size(), MOST as u64);
        for newer in base..=MOST {
            let since = consistency_since(&tree, &LEAVES[base..newer]);
            verify_consistency(
                base as u64,
                &roots[base],
                newer as u64,
                &roots[newer],
                &since,
            )
            .unwrap();
            assert_eq!(growth.tree(newer as u64).unwrap().root(), roots[newer]);
            for older in base..=newer {
                let proof = growth.consistency(older as u64, newer as u64).unwrap();
                let expected = consistency_proof(&LEAVES[..newer], older as u64).unwrap();
                assert_eq!(proof, expected, "{base} {older} {newer}");
            }
            for index in base..newer {
                let proof = growth.inclusion(index as u64, newer as u64).unwrap();
                let expected = inclusion_proof(&LEAVES[..newer], index as u64).unwrap();
                assert_eq!(proof, expected, "{base} {index} {newer}");
            }
        }
        if base > 0 {
            let (asked, from) = (base as u64 - 1, base as u64);
            let forgotten = Error::Forgotten { asked, from };
            assert_eq!(growth.consistency(asked, MOST as u64), Err(forgotten));
            assert_eq!(growth.inclusion(asked, MOST as u64), Err(forgotten));
            assert_eq!(growth.tree(asked), Err(forgotten));
        }
        growth
            .consistency(base as u64, MOST as u64 + 1)
            .unwrap_err();
        growth.inclusion(base as u64, MOST as u64 + 1).unwrap_err();
        growth.tree(MOST as u64 + 1).unwrap_err();

        growth.forget_before(20);
        assert_eq!(growth.from(), base.max(20) as u64);
        assert_eq!(growth.tree(MOST as u64).unwrap().root(), roots[MOST]);
        growth.forget_before(u64::MAX);
        assert_eq!(growth.from(), MOST as u64);
        assert_eq!(growth.tree(MOST as u64).unwrap().root(), roots[MOST]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_proof_from_tiles_verifies(size in 1..LARGE, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let (index, older) = (a.index(size), b.index(size + 1));
        let roots = roots_at(&[older, size]);
        let reader = TileReader::inclusion(index as u64, size as u64).unwrap();
        let proof = reader.make(&exactly(&reader)).unwrap();
        verify_inclusion(&roots[1], size as u64, index as u64, &LEAVES[index], &proof).unwrap();
        let reader = TileReader::consistency(older as u64, size as u64).unwrap();
        let proof = reader.make(&exactly(&reader)).unwrap();
        verify_consistency(older as u64, &roots[0], size as u64, &roots[1], &proof).unwrap();
        let growth = consistency_since(&LEAVES[..older].iter().copied().collect(), &LEAVES[older..size]);
        prop_assert_eq!(growth, proof);
    }

    #[test]
    fn any_bundle_is_read_again(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..256)) {
        let bytes = encode_entries(&entries).unwrap();
        prop_assert_eq!(decode_entries(&bytes).unwrap(), entries);
    }

    #[test]
    fn bytes_that_are_a_bundle_are_written_again(bytes in prop::collection::vec(0_u8..4, 0..40)) {
        if let Ok(entries) = decode_entries(&bytes) {
            prop_assert_eq!(encode_entries(&entries).unwrap(), bytes);
        }
    }
}
