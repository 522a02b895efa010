"""Reads a log of ours with aics-tlog, checks our proofs, and leaves a log of its own for us to read.

    audit.py OURS THEIRS

OURS/ has the log as tlog-tiles, OURS/keys the verifier keys of log and witness, OURS/proofs our proofs, one a line in hex:

    inclusion INDEX SIZE LEAF HASH...
    consistency OLDER NEWER ROOT HASH...
"""

import sys
from pathlib import Path

from aics_tlog import (
    Checkpoint,
    DirectoryTileStore,
    FileSystemTileReader,
    IncrementalTileWriter,
    Note,
    VerifiedTileReader,
    audit_tiles,
    consistency_proof_from_tiles,
    cosignature_vkey,
    format_vkey,
    inclusion_proof_from_tiles,
    leaf_hash,
    parse_checkpoint,
    parse_note,
    parse_vkey,
    sign_checkpoint,
    sign_cosignature,
    verify_checkpoint,
    verify_consistency,
    verify_inclusion,
    vkey_from_ed25519,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

TIME = 1_700_000_000


def require(condition, what):
    if not condition:
        sys.exit(f"refused: {what}")


def read(ours):
    log_key, witness_key = map(parse_vkey, (ours / "keys").read_text().split())
    note = parse_note((ours / "checkpoint").read_bytes())
    result = verify_checkpoint(
        note, log_key, [witness_key], quorum=1, expected_origin=log_key.name
    )
    require(result.ok, f"checkpoint: {result}")
    checkpoint = parse_checkpoint(note.text)
    require(note.to_bytes() == (ours / "checkpoint").read_bytes(), "another way to write it")

    # Every tile and every entry, against the signed root.
    files = FileSystemTileReader(ours)
    audit_tiles(files, checkpoint.size, checkpoint.root)
    tiles = VerifiedTileReader(files, checkpoint.size, checkpoint.root)
    for line in (ours / "proofs").read_text().splitlines():
        kind, at, size, *hashes = line.split(" ")
        at, size = int(at), int(size)
        first, *proof = map(bytes.fromhex, hashes)
        require(size == checkpoint.size, "proof of another size")
        if kind == "inclusion":
            require(first == leaf_hash(tiles.entry(at)), line)
            require(verify_inclusion(first, at, size, proof, checkpoint.root), line)
            require(proof == inclusion_proof_from_tiles(tiles, at, size), line)
        else:
            require(verify_consistency(at, size, first, checkpoint.root, proof), line)
            require(proof == consistency_proof_from_tiles(tiles, at, size), line)
    return checkpoint.size


def write(theirs, size):
    log_key, witness_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    log, witness = "example.com/python/log", "example.com/python/witness"
    theirs.mkdir()
    store = DirectoryTileStore(theirs, fsync=False)
    writer = IncrementalTileWriter(store)
    writer.append(f"entry {index}".encode() for index in range(size))
    root = writer.root()
    note = sign_checkpoint(Checkpoint(log, size, root), log_key, log)
    _, line = sign_cosignature(witness_key, witness, TIME, log, size, root)
    store.write_checkpoint(Note(text=note.text, signatures=(*note.signatures, line)).to_bytes())
    keys = [
        format_vkey(vkey_from_ed25519(log, log_key.public_key())),
        format_vkey(cosignature_vkey(witness, witness_key.public_key())),
    ]
    (theirs / "keys").write_text("\n".join(keys) + "\n")


if __name__ == "__main__":
    ours, theirs = map(Path, sys.argv[1:])
    write(theirs, read(ours))
