//! Reading this party's own log back from the host, which is believed nothing: whatever comes out of here was
//! checked against the tree that the enclave keeps.

use std::{sync::Arc, time::Duration};

use arca_audit::{
    Hash,
    bundle::TlogProof,
    certificate::{Base64, Party},
    checkpoint::Checkpoint,
    entry::{Entry, Event, Hex, LogPoint},
    leaf_hash,
    note::SignedNote,
    older_tree,
    reader::TileReader,
    tile::{TileKind, TilePath},
    verify_inclusion,
    writer::Tiles,
};
use arca_proto::v1 as wire;

use crate::{
    core::Core,
    error::Error,
    log::{Resume, Told},
    state::LogPlace,
};

/// How long a checkpoint waits for the cosignatures of all peers that are connected.
const WITNESSED: Duration = Duration::from_secs(2);
/// How often a checkpoint is published, at most.
const PUBLISHED: Duration = Duration::from_secs(1);
/// How long an entry's proof waits for the cosignatures of those who are asked for.
const COSIGNATURES: Duration = Duration::from_secs(5);

/// From where a peer is told that remembers this much of this party's log, and what it has to be told first.
///
/// # Errors
/// Why it cannot be told anything.
pub async fn resume(
    core: &Core,
    remembered: Option<LogPoint>,
) -> Result<(Told, Option<wire::LogCheckpoint>), String> {
    let (size, root) = match core.log.resume(remembered) {
        Resume::Told(told) => return Ok((told, None)),
        Resume::Contradicted => return Err("it remembers a log that is not this one".to_owned()),
        Resume::Read { size, root } => (size, root),
    };
    let (number, tree, note) = core.log.snapshot().ok_or("an empty log")?;
    let read = async {
        let proof = TileReader::consistency(size, tree.size()).map_err(unproven)?;
        let proof = read(core, number, &proof).await?;
        let edge = TileReader::edge(size, tree.size()).map_err(unproven)?;
        let edge = read(core, number, &edge).await?;
        let older = older_tree(size, edge, tree.size(), &tree.root(), &proof).map_err(unproven)?;
        Ok::<_, Error>((proof, older))
    };
    let (proof, older) = read.await.map_err(|error| error.to_string())?;
    if older.root() != root {
        return Err("it remembers a log that is not this one".to_owned());
    }
    let first = wire::LogCheckpoint {
        log: number,
        note: note.to_bytes(),
        consistency: proof.iter().map(|hash| hash.to_vec()).collect(),
    };
    Ok((Told::at(number, tree), Some(first)))
}

/// A log, its tree and its newest cosigned checkpoint: the current one from memory, an older one as the host has it.
///
/// # Errors
/// [`Error::Reject`] when there is none; [`Error::Fault`] when the host does not answer.
pub async fn checkpoint(core: &Core, number: u64) -> Result<(u64, SignedNote, Checkpoint), Error> {
    let (current, log_key, _) = core
        .log
        .verifier_keys()
        .ok_or(Error::Bug("a log without keys"))?;
    let none = || {
        Error::not_found(
            "LOG_NOT_FOUND",
            format!("this party has no entries in log {number}"),
        )
    };
    if number == 0 || number == current {
        let note = newest(core).await.ok_or_else(none)?;
        let checkpoint = Checkpoint::verify_note(&note, &log_key).map_err(unproven)?;
        return Ok((current, note, checkpoint));
    }
    let path = format!("{number}/checkpoint");
    let bytes = core.state.storage().log_file(&path).await?;
    let note = SignedNote::parse(&bytes.ok_or_else(none)?).map_err(unproven)?;
    let log_key = core
        .log
        .key_of(number)
        .ok_or(Error::Bug("a log without keys"))?;
    let checkpoint = Checkpoint::verify_note(&note, &log_key).map_err(unproven)?;
    Ok((number, note, checkpoint))
}

/// The newest checkpoint, or a newer one, as soon as all connected peers have cosigned it; without waiting long.
async fn newest(core: &Core) -> Option<SignedNote> {
    let size = core.log.point().size;
    let peers: Vec<String> = core.network.links().into_keys().collect();
    let find = || core.log.cosigned_over(size.saturating_sub(1), &peers);
    let mut changes = core.log.follow_cosignatures();
    let complete = changes.wait_for(|_| find().is_some_and(|(_, _, all)| all));
    let _ = tokio::time::timeout(WITNESSED, complete).await;
    let note = match find() {
        Some((_, note, _)) => note,
        None => core.log.newest()?,
    };
    Some(with_witnesses(core, note).await)
}

/// Adds what witnesses outside of the cluster have cosigned, as far as the host has it for this very checkpoint.
/// Whether it is theirs is for whoever has their keys to say.
async fn with_witnesses(core: &Core, mut note: SignedNote) -> SignedNote {
    let path = format!("{}/checkpoint", core.log.point().log);
    let Ok(Some(published)) = core.state.storage().log_file(&path).await else {
        return note;
    };
    if let Ok(published) = SignedNote::parse(&published)
        && published.text() == note.text()
    {
        let lines = published.signatures().iter();
        let new: Vec<_> = lines
            .filter(|line| {
                !note
                    .signatures()
                    .iter()
                    .any(|had| had.name() == line.name())
            })
            .cloned()
            .collect();
        for line in new {
            // Too many signatures for one note: those of the peers are there.
            let _ = note.add(line);
        }
    }
    note
}

/// Hands the newest cosigned checkpoint to the host, which publishes it with the tiles below it.
pub async fn keep_published(core: Arc<Core>) {
    let mut cosigned = core.log.follow_cosignatures();
    let mut published = None;
    loop {
        // An empty log has no checkpoint, and one that no peer has cosigned yet can wait for a while.
        let _ = tokio::time::timeout(PUBLISHED * 5, cosigned.changed()).await;
        tokio::time::sleep(PUBLISHED).await;
        cosigned.mark_unchanged();
        let note = core.log.publishable();
        if note.is_none() || note == published || core.lease.check().is_err() {
            continue;
        }
        let Some((number, note)) = note else {
            continue;
        };
        let blob = (format!("log/{number}/checkpoint"), note.to_bytes());
        match core.state.storage().put(vec![blob], None).await {
            Ok(()) => published = Some((number, note)),
            Err(error) => tracing::warn!(%error, "the log's checkpoint waits to be published"),
        }
    }
}

/// Entries from `from` on, at most to the end of their bundle, checked against a root.
///
/// # Errors
/// [`Error::Fault`] when the host does not have them, or other ones.
pub async fn entries(
    core: &Core,
    number: u64,
    checkpoint: &Checkpoint,
    from: u64,
) -> Result<Vec<Vec<u8>>, Error> {
    let (size, width) = (checkpoint.size, u64::from(arca_audit::tile::TILE_WIDTH));
    if from >= size {
        return Ok(Vec::new());
    }
    let bundle = from / width;
    let path = TilePath::in_log(TileKind::Entries, bundle, size).ok_or(NO_TILE)?;
    let content = tile(core, number, path).await?;
    let entries = path.entries(&content).map_err(unproven)?;
    let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    check_tile(core, number, checkpoint, bundle, &leaves).await?;
    let skip = usize::try_from(from % width).map_err(|_| NO_TILE)?;
    Ok(entries.into_iter().skip(skip).map(<[u8]>::to_vec).collect())
}

/// Proves a whole tile of leaves: each of its entries' proofs differs within the tile alone, so the proof of its
/// first, with the siblings inside of it computed here, speaks for all.
async fn check_tile(
    core: &Core,
    number: u64,
    checkpoint: &Checkpoint,
    bundle: u64,
    leaves: &[Hash],
) -> Result<(), Error> {
    let width = u64::from(arca_audit::tile::TILE_WIDTH);
    let first = bundle * width;
    let leaf = leaves.first().ok_or(NO_TILE)?;
    let reader = TileReader::inclusion(first, checkpoint.size).map_err(unproven)?;
    let mut tiles = Tiles::new();
    for path in reader.needed() {
        let own = path.kind() == TileKind::Hashes { level: 0 } && path.index() == bundle;
        let content = if own {
            leaves.concat()
        } else {
            tile(core, number, path).await?
        };
        tiles.insert(path, content);
    }
    let proof = reader.make(&tiles).map_err(unproven)?;
    verify_inclusion(&checkpoint.root, checkpoint.size, first, leaf, &proof).map_err(unproven)
}

/// An entry and its proof in a checkpoint.
///
/// # Errors
/// [`Error::Reject`] when the checkpoint does not reach so far; [`Error::Fault`] as in [`entries`].
pub async fn prove(
    core: &Core,
    number: u64,
    note: &SignedNote,
    checkpoint: &Checkpoint,
    index: u64,
) -> Result<(Vec<u8>, TlogProof), Error> {
    if index >= checkpoint.size {
        return Err(Error::not_found(
            "ENTRY_NOT_FOUND",
            format!("index: the log has {} entries", checkpoint.size),
        ));
    }
    let width = u64::from(arca_audit::tile::TILE_WIDTH);
    let path =
        TilePath::in_log(TileKind::Entries, index / width, checkpoint.size).ok_or(NO_TILE)?;
    let content = tile(core, number, path).await?;
    let within = usize::try_from(index % width).map_err(|_| NO_TILE)?;
    let bundle = path.entries(&content).map_err(unproven)?;
    let entry = bundle.get(within).ok_or(NO_TILE)?.to_vec();
    let reader = TileReader::inclusion(index, checkpoint.size).map_err(unproven)?;
    let proof = read(core, number, &reader).await?;
    let leaf = leaf_hash(&entry);
    verify_inclusion(&checkpoint.root, checkpoint.size, index, &leaf, &proof).map_err(unproven)?;
    let proof = TlogProof {
        extra: Vec::new(),
        index,
        proof,
        checkpoint: note.clone(),
    };
    Ok((entry, proof))
}

/// A certificate's part of this party: that its intent for a session stands in its log, under a checkpoint that
/// `witnesses` have cosigned, or as many of them as have in time.
///
/// # Errors
/// [`Error::Reject`] when there is no such intent there, [`Error::Unavailable`] when nobody has cosigned it yet.
pub async fn party(
    core: &Arc<Core>,
    place: LogPlace,
    session: &[u8; 32],
    witnesses: &[String],
) -> Result<Party, Error> {
    let membership = core.membership()?;
    let (number, log_key, _) = core
        .log
        .verifier_keys()
        .ok_or(Error::Bug("a log without keys"))?;
    let (note, checkpoint) = if place.log == number {
        let mut changes = core.log.follow_cosignatures();
        let complete = changes.wait_for(|_| {
            let found = core.log.cosigned_over(place.index, witnesses);
            found.is_some_and(|(_, _, all)| all)
        });
        let _ = tokio::time::timeout(COSIGNATURES, complete).await;
        let found = core.log.cosigned_over(place.index, witnesses);
        let (_, note, _) = found.ok_or_else(|| Error::Unavailable {
            reason: "NOT_WITNESSED",
            message: format!(
                "no peer has cosigned {}'s log yet as far as entry {}; try again when its peers are connected",
                membership.party, place.index
            ),
            parties: witnesses.to_vec(),
        })?;
        let checkpoint = Checkpoint::verify_note(&note, &log_key).map_err(unproven)?;
        (with_witnesses(core, note).await, checkpoint)
    } else {
        let (_, note, checkpoint) = checkpoint(core, place.log).await?;
        (note, checkpoint)
    };
    let (bytes, proof) = prove(core, place.log, &note, &checkpoint, place.index).await?;
    let entry = Entry::decode(&bytes).map_err(|_| Error::Bug("an entry of ours is malformed"))?;
    let is_intent =
        matches!(&entry.event, Event::SigningIntent(intent) if intent.session.0 == *session);
    if !is_intent {
        return Err(Error::not_found(
            "INTENT_NOT_FOUND",
            "that entry is not the intent of that session",
        ));
    }
    let evidence = format!("files/{}", entry.evidence);
    let evidence = core.state.storage().log_file(&evidence).await?;
    let evidence = evidence.filter(|evidence| {
        use sha2::Digest as _;
        entry.evidence == Hex(sha2::Sha256::digest(evidence).into())
    });
    let evidence = evidence.ok_or_else(|| Error::Fault {
        reason: "LOG_DAMAGED",
        message: format!(
            "the host does not return the evidence {} that the log names; restore the host's archive",
            entry.evidence
        ),
    })?;
    let keys = core.log.keys()?;
    Ok(Party {
        party: membership.party.clone(),
        log_key: Hex(keys.log_key()),
        witness_key: Hex(keys.witness_key()),
        evidence: Base64(evidence),
        entry: String::from_utf8(bytes).map_err(|_| Error::Bug("an entry of ours is malformed"))?,
        proof: String::from_utf8(proof.to_bytes())
            .map_err(|_| Error::Bug("a proof of ours is malformed"))?,
    })
}

async fn read(core: &Core, number: u64, reader: &TileReader) -> Result<Vec<Hash>, Error> {
    let mut tiles = Tiles::new();
    for path in reader.needed() {
        tiles.insert(path, tile(core, number, path).await?);
    }
    reader.make(&tiles).map_err(unproven)
}

/// A tile as the host has it.
pub async fn tile(core: &Core, number: u64, path: TilePath) -> Result<Vec<u8>, Error> {
    let path = format!("{number}/{path}");
    let content = core.state.storage().log_file(&path).await?;
    content.ok_or_else(|| Error::Fault {
        reason: "LOG_DAMAGED",
        message: format!("the host has no {path} of the audit log; restore the host's archive"),
    })
}

const NO_TILE: Error = Error::Bug("a log has no such tile");

/// What the host returned is not what the log's root says.
fn unproven(error: arca_audit::Error) -> Error {
    Error::Fault {
        reason: "LOG_DAMAGED",
        message: format!(
            "what the host returned of the audit log is not what was logged: {error}; restore the host's archive"
        ),
    }
}
