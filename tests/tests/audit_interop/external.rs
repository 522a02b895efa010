//! Programs in other languages, where they can be had: `tools.sh` gets them ready and says why not.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arca_audit::cosignature::CosignedCheckpoint;
use arca_audit::note::VerifierKey;
use arca_audit::reader::TileReader;
use arca_audit::tile::{TileKind, TilePath};
use arca_audit::writer::Tiles;
use arca_audit::{Tree, leaf_hash, verify_consistency, verify_inclusion};

use crate::world::{Log, SIZES, TIME, entry, log};

/// The command that reads our log and writes one of its own; none when it cannot be had.
fn tool(what: &str) -> Option<Vec<String>> {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audit_interop/tools.sh");
    let output = Command::new(script).arg(what).arg(tools).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    eprint!("{error}");
    let words: Vec<_> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    (!words.is_empty()).then_some(words)
}

/// Runs it over the log in one folder, with another for its own.
fn run(tool: &[String], ours: &Path, theirs: &Path) -> Output {
    Command::new(&tool[0])
        .args(&tool[1..])
        .args([ours, theirs])
        .output()
        .unwrap()
}

/// Writes our log as the host keeps it, with keys and proofs.
fn write(log: &Log, folder: &Path) {
    fs::create_dir(folder).unwrap();
    for (path, content) in &log.tiles {
        // A log serves each tile as wide as it is.
        let file = folder.join(path.to_string());
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    fs::write(folder.join("checkpoint"), log.note.to_bytes()).unwrap();
    fs::write(
        folder.join("keys"),
        format!("{}\n{}\n", log.verifier, log.witness),
    )
    .unwrap();
    fs::write(folder.join("proofs"), proofs(log)).unwrap();
}

fn proofs(log: &Log) -> String {
    let size = log.leaves.len();
    let mut places = vec![0, 1, 255, 256, size / 2, size.saturating_sub(2), size - 1];
    places.retain(|place| *place < size);
    let mut lines = String::new();
    for at in places {
        let proof = TileReader::inclusion(at as u64, size as u64)
            .unwrap()
            .make(&log.tiles)
            .unwrap();
        write!(
            lines,
            "inclusion {at} {size} {}",
            hex::encode(log.leaves[at])
        )
        .unwrap();
        proof
            .iter()
            .for_each(|hash| write!(lines, " {}", hex::encode(hash)).unwrap());
        let older = at + 1;
        let tree: Tree = log.leaves[..older].iter().copied().collect();
        let proof = TileReader::consistency(older as u64, size as u64)
            .unwrap()
            .make(&log.tiles)
            .unwrap();
        write!(
            lines,
            "\nconsistency {older} {size} {}",
            hex::encode(tree.root())
        )
        .unwrap();
        proof
            .iter()
            .for_each(|hash| write!(lines, " {}", hex::encode(hash)).unwrap());
        lines.push('\n');
    }
    lines
}

/// Reads a log that they wrote: keys, checkpoint with a cosignature, tiles; entries when there are bundles.
fn read(folder: &Path, size: usize) {
    let keys = fs::read_to_string(folder.join("keys")).unwrap();
    let keys: Vec<VerifierKey> = keys.lines().map(|key| key.parse().unwrap()).collect();
    let note = fs::read(folder.join("checkpoint")).unwrap();
    let cosigned = CosignedCheckpoint::verify(&note, &keys[0], &keys[1..]).unwrap();
    assert_eq!(cosigned.cosignatures().len(), 1);
    assert_eq!(cosigned.cosignatures()[0].time, TIME);
    let checkpoint = cosigned.checkpoint();
    let count = size as u64;
    assert_eq!(checkpoint.size, count);

    let file = |path: TilePath| fs::read(folder.join(path.to_string()));
    let mut tiles = Tiles::new();
    for path in TilePath::between(0, count) {
        match file(path) {
            Ok(content) => _ = tiles.insert(path, content),
            Err(_) => assert_eq!(path.kind(), TileKind::Entries, "{path}"),
        }
    }
    let leaf = |at: u64| leaf_hash(&entry(usize::try_from(at).unwrap()));
    for (path, content) in tiles
        .iter()
        .filter(|(path, _)| path.kind() == TileKind::Entries)
    {
        for (at, entry) in (path.first()..).zip(path.entries(content).unwrap()) {
            assert_eq!(leaf_hash(entry), leaf(at));
        }
    }
    for at in [0, count / 2, count - 1] {
        let proof = TileReader::inclusion(at, count)
            .unwrap()
            .make(&tiles)
            .unwrap();
        verify_inclusion(&checkpoint.root, count, at, &leaf(at), &proof).unwrap();
        let older: Tree = (0..=at).map(leaf).collect();
        let proof = TileReader::consistency(at + 1, count)
            .unwrap()
            .make(&tiles)
            .unwrap();
        verify_consistency(at + 1, &older.root(), count, &checkpoint.root, &proof).unwrap();
    }
}

fn both_ways(what: &str) {
    let Some(tool) = tool(what) else { return };
    let folder = tempfile::tempdir().unwrap();
    for size in SIZES {
        let ours = folder.path().join(format!("ours-{size}"));
        let theirs = folder.path().join(format!("theirs-{size}"));
        write(&log(size), &ours);
        let output = run(&tool, &ours, &theirs);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}, {size} entries: {error}");
        read(&theirs, size);
    }

    // And it looks: none of these passes.
    for file in [
        "checkpoint",
        "proofs",
        "keys",
        "tile/0/001",
        "tile/1/000.p/2",
    ] {
        let ours = folder
            .path()
            .join(format!("changed-{}", file.replace('/', "-")));
        write(&log(515), &ours);
        let path = ours.join(file);
        let mut bytes = fs::read(&path).unwrap();
        // Of the checkpoint, within the cosignature.
        let at = bytes.len() - 10;
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        fs::write(&path, bytes).unwrap();
        let output = run(&tool, &ours, &PathBuf::from("/nonexistent/theirs"));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{what}, {file} was changed");
        assert!(!error.contains("nonexistent"), "{what}, {file}: {error}");
    }
}

#[test]
fn aics_tlog_in_python() {
    both_ways("python");
}

#[test]
fn sumdb_note_and_tlog_in_go() {
    both_ways("go");
}
