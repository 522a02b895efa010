//! The audit log: this party's as its peers see it, and theirs as this party witnesses them.
//!
//! What is in a log is decided where it happens and committed by `state.rs`, in the transaction of the state that it
//! belongs to. Here are the tree that the last transaction left, the keys that sign for it, and what travels with
//! the frames to the peers: checkpoints with proofs one way, cosignatures the other. See docs/audit-log.md.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, OnceLock},
};

use arca_attestation::{UnixMillis, binder::LogStatement};
use arca_audit::{
    Hash, Tree,
    checkpoint::Checkpoint,
    consistency_since,
    cosignature::cosign,
    entry::{Entry, LogPoint, Seen, origin, witness_name},
    leaf_hash,
    note::{KeyKind, KeyName, NoteSignature, SignedNote, VerifierKey},
    verify_consistency,
};
use arca_proto::v1 as wire;
use arca_wipe::wiped;
use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use sha2::Sha256;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use zeroize::Zeroizing;

use crate::{
    error::Error,
    lease::{BootId, Remembered},
    state::Owner,
    tags,
};

/// Leaf hashes at hand for proofs; a peer that is further behind is caught up from the host's tiles.
const WINDOW: usize = 1 << 15;
/// Checkpoints told that are remembered, with what came back.
const REMEMBERED: usize = 256;
/// Entries of one blob on the host, in bytes.
const BUNDLE: usize = 512 << 10;

const NOT_BEGUN: Error = Error::Bug("the log has no keys yet");

/// The keys of a party's log.
pub struct LogKeys {
    log: Box<SigningKey>,
    witness: Box<SigningKey>,
}

impl LogKeys {
    /// Both from one sealed seed.
    ///
    /// # Errors
    /// [`Error::Bug`]: never.
    pub fn derive(seed: &[u8; 32]) -> Result<Self, Error> {
        let key = |tag: &str| {
            let mut secret = Zeroizing::new([0; 32]);
            Hkdf::<Sha256>::new(None, seed)
                .expand(tag.as_bytes(), &mut secret[..])
                .map_err(|_| Error::Bug("32 bytes are not too many for HKDF"))?;
            Ok::<_, Error>(Box::new(SigningKey::from_bytes(&secret)))
        };
        wiped(|| {
            Ok(Self {
                log: key(tags::LOG_KEY)?,
                witness: key(tags::WITNESS_KEY)?,
            })
        })
    }

    /// Public key of the one that signs checkpoints.
    pub fn log_key(&self) -> [u8; 32] {
        self.log.verifying_key().to_bytes()
    }

    /// Public key of the one that cosigns.
    pub fn witness_key(&self) -> [u8; 32] {
        self.witness.verifying_key().to_bytes()
    }

    /// What the log evidence of this boot is bound to.
    pub fn statement(&self, owner: &Owner, boot_id: &[u8; 16], manifest: &[u8; 48]) -> [u8; 48] {
        LogStatement {
            cluster: &owner.cluster,
            party: &owner.party,
            boot_id,
            manifest_digest: manifest,
            log_key: &self.log_key(),
            witness_key: &self.witness_key(),
        }
        .digest()
    }
}

/// A checkpoint of a peer's log that this party took for the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenLog {
    /// Where it stands.
    pub point: LogPoint,
    /// As the peer signed it.
    pub note: Vec<u8>,
}

/// Why a peer's checkpoint is not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Objection {
    /// It says nothing that could be judged.
    Malformed(&'static str),
    /// It contradicts what this party took before.
    Conflict {
        /// The signed checkpoint from before.
        cosigned: String,
        /// The one that was shown now.
        shown: String,
    },
}

/// How far a peer was told of this party's log.
pub struct Told {
    number: u64,
    /// With its edge, the proof of what follows costs as much as there is of that, and no more.
    tree: Tree,
    /// The first is told even when it is no news: the peer answers with its cosignature.
    first: bool,
}

/// From where a peer is told.
pub enum Resume {
    /// From here on, with every frame.
    Told(Told),
    /// It is too far behind for what is at hand: it gets one checkpoint, with a proof that is read from the host, that
    /// the log has grown from this size, and is told from there on.
    Read {
        /// Entries.
        size: u64,
        /// Root over them.
        root: Hash,
    },
    /// The peer saw what this log is not.
    Contradicted,
}

/// The log that a transaction will leave.
pub struct Draft {
    /// Its number.
    pub number: u64,
    /// Its edge.
    pub tree: Tree,
    leaves: Vec<Hash>,
    bundles: Vec<(u64, Vec<u8>)>,
}

impl Draft {
    /// Another log, empty: where a loss was accepted.
    pub fn of(number: u64) -> Self {
        Self {
            number,
            tree: Tree::new(),
            leaves: Vec::new(),
            bundles: Vec::new(),
        }
    }

    /// Adds an entry and returns its index.
    ///
    /// # Errors
    /// [`Error::Bug`] when it is longer than entries are.
    pub fn append(&mut self, entry: &Entry) -> Result<u64, Error> {
        let bytes = entry
            .encode()
            .map_err(|_| Error::Bug("an entry is too long"))?;
        let length = u16::try_from(bytes.len()).map_err(|_| Error::Bug("an entry is too long"))?;
        let index = self.tree.size();
        let leaf = leaf_hash(&bytes);
        self.tree.append(leaf);
        self.leaves.push(leaf);
        let full = self
            .bundles
            .last()
            .is_none_or(|(_, bundle)| bundle.len() + bytes.len() > BUNDLE);
        if full {
            self.bundles.push((index, Vec::new()));
        }
        if let Some((_, bundle)) = self.bundles.last_mut() {
            bundle.extend_from_slice(&length.to_be_bytes());
            bundle.extend_from_slice(&bytes);
        }
        Ok(index)
    }

    /// Name and bytes of what the host has to store.
    pub fn take_blobs(&mut self) -> impl Iterator<Item = (String, Vec<u8>)> + use<> {
        let number = self.number;
        std::mem::take(&mut self.bundles)
            .into_iter()
            .map(move |(first, bundle)| (format!("log/{number}/entries/{first:020}"), bundle))
    }
}

/// How many questions of peers are answered at a time.
const ANSWERS: usize = 64;

struct Answers(Semaphore);

impl Default for Answers {
    fn default() -> Self {
        Self(Semaphore::new(ANSWERS))
    }
}

/// This party's log and what it knows of the others'.
#[derive(Default)]
pub struct Log {
    instance: OnceLock<(LogKeys, BootId)>,
    left_out: OnceLock<()>,
    /// Peers' questions that are being answered.
    answers: Answers,
    inner: Mutex<Inner>,
    /// There is a cosignature that a peer does not have yet.
    pub news: Notify,
    /// Counts the peers' cosignatures.
    cosigned: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    kind: String,
    cluster: String,
    party: String,
    number: u64,
    tree: Tree,
    /// The tree some while ago, and the leaves since, which together are `tree`.
    base: Tree,
    leaves: Vec<Hash>,
    /// The checkpoint of `tree`, once it was asked for.
    signed: Option<SignedNote>,
    /// By size: what was signed and told, and the cosignatures that came back.
    told: BTreeMap<u64, SignedNote>,
    cosignatures: BTreeMap<u64, BTreeMap<String, NoteSignature>>,
    peers: BTreeMap<String, PeerLog>,
    /// What this party's newest anchor holds of its peers' logs: what it may cosign. A host that takes the state back
    /// behind that is found out, so no peer is given another history later.
    anchored: BTreeMap<String, SeenLog>,
}

/// The keys of a peer that is connected.
struct PeerLog {
    number: u64,
    log_key: VerifierKey,
    witness_key: VerifierKey,
    /// The last point that it was given a cosignature for on this link.
    given: Option<(u64, u64)>,
}

impl Told {
    /// Up to this tree of this log.
    pub fn at(number: u64, tree: Tree) -> Self {
        Self {
            number,
            tree,
            first: false,
        }
    }
}

impl Log {
    /// The keys that sign for it, and which boot this is. Once, before anything is committed.
    pub fn begin(&self, keys: LogKeys, boot_id: BootId, danger_without: bool) {
        let _ = self.instance.set((keys, boot_id));
        if danger_without {
            tracing::warn!("the audit log is left out: this is a measurement");
            let _ = self.left_out.set(());
        }
    }

    /// A place for the answer to a peer's question; none when too many are asked.
    pub fn answer(&self) -> Option<SemaphorePermit<'_>> {
        self.answers.0.try_acquire().ok()
    }

    /// Whether nothing is entered into it.
    pub fn is_left_out(&self) -> bool {
        self.left_out.get().is_some()
    }

    /// The keys that sign for it.
    ///
    /// # Errors
    /// [`Error::Bug`] before [`begin`](Self::begin).
    pub fn keys(&self) -> Result<&LogKeys, Error> {
        let (keys, _) = self.instance.get().ok_or(NOT_BEGUN)?;
        Ok(keys)
    }

    /// Drawn at this start.
    ///
    /// # Errors
    /// [`Error::Bug`] before [`begin`](Self::begin).
    pub fn boot_id(&self) -> Result<BootId, Error> {
        let (_, boot_id) = self.instance.get().ok_or(NOT_BEGUN)?;
        Ok(*boot_id)
    }

    /// Whose it is, and what of it was found at the start.
    pub fn open(&self, kind: &str, owner: &Owner, number: u64, tree: Tree) {
        let mut inner = self.lock();
        kind.clone_into(&mut inner.kind);
        inner.cluster.clone_from(&owner.cluster);
        inner.party.clone_from(&owner.party);
        inner.start(number, tree);
    }

    /// Where it stands.
    pub fn point(&self) -> LogPoint {
        let inner = self.lock();
        point(inner.number, &inner.tree)
    }

    /// What the next transaction adds to.
    pub fn draft(&self) -> Draft {
        let inner = self.lock();
        Draft {
            number: inner.number,
            tree: inner.tree.clone(),
            leaves: Vec::new(),
            bundles: Vec::new(),
        }
    }

    /// The transaction is stored.
    pub fn adopt(&self, draft: Draft) {
        let mut inner = self.lock();
        if draft.number != inner.number {
            inner.start(draft.number, Tree::new());
        }
        if draft.leaves.is_empty() {
            return;
        }
        inner.leaves.extend(draft.leaves);
        inner.tree = draft.tree;
        inner.signed = None;
        if inner.leaves.len() > 2 * WINDOW {
            let older: Vec<Hash> = inner.leaves.drain(..WINDOW).collect();
            inner.base.extend(older);
        }
    }

    /// The newest anchor holds this of the peers' logs.
    pub fn anchored(&self, remembered: &BTreeMap<String, Remembered>) {
        let mut inner = self.lock();
        let mut news = false;
        for (peer, known) in remembered {
            let Some(seen) = &known.log else {
                continue;
            };
            let place = |seen: &SeenLog| (seen.point.log, seen.point.size);
            let before = inner.anchored.get(peer).map(place);
            if before < Some(place(seen)) {
                inner.anchored.insert(peer.clone(), seen.clone());
                news = true;
            }
        }
        drop(inner);
        if news {
            self.news.notify_one();
        }
    }

    /// Whether something is remembered of a peer's log that no anchor holds, and that waits to be cosigned.
    pub fn has_unanchored(&self, remembered: &BTreeMap<String, Remembered>) -> bool {
        let inner = self.lock();
        remembered.iter().any(|(peer, known)| {
            known.log.is_some() && inner.anchored.get(peer) != known.log.as_ref()
        })
    }

    /// A peer is connected, with these keys. What it remembers of this party's log says how far it was told.
    ///
    /// # Errors
    /// Why its claim is not one.
    pub fn meet(&self, peer: &str, claim: &wire::Claim) -> Result<(), &'static str> {
        let mut inner = self.lock();
        let key = |name: String, kind, key: &[u8]| {
            let name = name.parse::<KeyName>().ok()?;
            VerifierKey::new(name, kind, key.try_into().ok()?).ok()
        };
        let (kind, cluster) = (&inner.kind, &inner.cluster);
        let log_key = key(
            origin(kind, cluster, peer, claim.log),
            KeyKind::Ed25519,
            &claim.log_key,
        );
        let witness_key = key(
            witness_name(kind, cluster, peer),
            KeyKind::CosignatureV1,
            &claim.witness_key,
        );
        let known = PeerLog {
            number: claim.log,
            log_key: log_key.ok_or("a malformed log key")?,
            witness_key: witness_key.ok_or("a malformed witness key")?,
            given: None,
        };
        inner.peers.insert(peer.to_owned(), known);
        Ok(())
    }

    /// From where a peer goes on that remembers this much of this party's log.
    pub fn resume(&self, remembered: Option<LogPoint>) -> Resume {
        let inner = self.lock();
        let told = |tree| {
            Resume::Told(Told {
                number: inner.number,
                tree,
                first: true,
            })
        };
        match remembered {
            None => told(Tree::new()),
            Some(seen) if seen.log < inner.number || seen.size == 0 => told(Tree::new()),
            Some(seen) if seen.log > inner.number || seen.size > inner.tree.size() => {
                Resume::Contradicted
            }
            Some(seen) => match inner.tree_at(seen.size) {
                None => Resume::Read {
                    size: seen.size,
                    root: seen.root.0,
                },
                Some(tree) if tree.root() == seen.root.0 => told(tree),
                Some(_) => Resume::Contradicted,
            },
        }
    }

    /// The tree that the last transaction left, with its number and checkpoint; `None` for an empty log.
    pub fn snapshot(&self) -> Option<(u64, Tree, SignedNote)> {
        let mut inner = self.lock();
        let note = inner.checkpoint(self.keys().ok()?)?;
        Some((inner.number, inner.tree.clone(), note))
    }

    /// Whether there is something to tell to a peer that was told so far.
    pub fn is_news(&self, told: &Told) -> bool {
        let inner = self.lock();
        let size = inner.tree.size();
        size > 0 && (told.first || (told.number, told.tree.size()) != (inner.number, size))
    }

    /// The newest checkpoint, if it is news to a peer that was told so far, with the proof.
    pub fn tell(&self, told: &mut Told) -> Option<wire::LogCheckpoint> {
        let mut inner = self.lock();
        if told.number != inner.number {
            *told = Told {
                number: inner.number,
                tree: Tree::new(),
                first: true,
            };
        }
        let size = inner.tree.size();
        if size == 0 || (told.tree.size() == size && !told.first) {
            return None;
        }
        let consistency = if told.tree.size() == 0 || told.tree.size() == size {
            Vec::new()
        } else {
            let behind = told.tree.size().checked_sub(inner.base.size())?;
            let leaves = inner.leaves.get(usize::try_from(behind).ok()?..)?;
            consistency_since(&told.tree, leaves)
        };
        let note = inner.checkpoint(self.keys().ok()?)?;
        told.tree = inner.tree.clone();
        told.first = false;
        Some(wire::LogCheckpoint {
            log: inner.number,
            note: note.to_bytes(),
            consistency: consistency.iter().map(|hash| hash.to_vec()).collect(),
        })
    }

    /// Whether a peer's checkpoint continues what was seen of its log.
    ///
    /// # Errors
    /// [`Objection`].
    pub fn witness(
        &self,
        peer: &str,
        shown: &wire::LogCheckpoint,
        seen: Option<&SeenLog>,
    ) -> Result<SeenLog, Objection> {
        let (number, log_key) = {
            let inner = self.lock();
            let known = inner.peers.get(peer);
            let known = known.ok_or(Objection::Malformed("a checkpoint before a claim"))?;
            (known.number, known.log_key.clone())
        };
        if shown.log != number {
            return Err(Objection::Malformed(
                "a checkpoint of another log than it claimed",
            ));
        }
        // What is remembered, sealed and logged of it has one signature and so a bounded length, whatever came.
        let unsigned = |_| Objection::Malformed("a checkpoint that its log key did not sign");
        let note = SignedNote::parse(&shown.note)
            .and_then(|note| note.only(std::slice::from_ref(&log_key)))
            .map_err(unsigned)?;
        let checkpoint = Checkpoint::verify_note(&note, &log_key).map_err(unsigned)?;
        let note = note.to_bytes();
        let proof: Vec<Hash> = shown
            .consistency
            .iter()
            .map(|hash| Hash::try_from(hash.as_slice()))
            .collect::<Result<_, _>>()
            .map_err(|_| Objection::Malformed("a malformed consistency proof"))?;
        let now = SeenLog {
            point: LogPoint {
                log: number,
                size: checkpoint.size,
                root: arca_audit::entry::Hex(checkpoint.root),
            },
            note,
        };
        let Some(before) = seen else {
            return Ok(now);
        };
        let continues = match before.point.log.cmp(&number) {
            // It began another log, after a loss that its administrators accepted.
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => verify_consistency(
                before.point.size,
                &before.point.root.0,
                checkpoint.size,
                &checkpoint.root,
                &proof,
            )
            .is_ok(),
        };
        if continues {
            return Ok(now);
        }
        let text = |note: &[u8]| String::from_utf8_lossy(note).into_owned();
        Err(Objection::Conflict {
            cosigned: text(&before.note),
            shown: text(&now.note),
        })
    }

    /// This party's cosignature of what it has sealed of a peer's log, if the peer does not have it.
    pub fn cosignature(&self, peer: &str, now: UnixMillis) -> Option<wire::LogCosignature> {
        let mut inner = self.lock();
        let point = inner.anchored.get(peer)?.point;
        let known = inner.peers.get_mut(peer)?;
        if known.number != point.log || known.given == Some((point.log, point.size)) {
            return None;
        }
        known.given = Some((point.log, point.size));
        let checkpoint = Checkpoint {
            origin: known.log_key.name().clone(),
            size: point.size,
            root: point.root.0,
        };
        let name = witness_name(&inner.kind, &inner.cluster, &inner.party);
        let keys = self.keys().ok()?;
        let name = name.parse().ok()?;
        let line = wiped(|| cosign(&checkpoint, now.0 / 1000, &name, &keys.witness));
        Some(wire::LogCosignature {
            log: point.log,
            size: point.size,
            line: line.ok()?.to_string(),
        })
    }

    /// The peers that a cosignature waits for.
    pub fn awaiting_cosignature(&self) -> Vec<String> {
        let inner = self.lock();
        let waits = |peer: &&String| {
            let (Some(seen), Some(known)) = (inner.anchored.get(*peer), inner.peers.get(*peer))
            else {
                return false;
            };
            known.number == seen.point.log && known.given != Some((seen.point.log, seen.point.size))
        };
        inner.peers.keys().filter(waits).cloned().collect()
    }

    /// Takes in a peer's cosignature.
    ///
    /// # Errors
    /// Why it is none.
    pub fn heard(
        &self,
        peer: &str,
        cosignature: &wire::LogCosignature,
    ) -> Result<(), &'static str> {
        let mut inner = self.lock();
        if cosignature.log != inner.number {
            return Ok(());
        }
        // One of a checkpoint that is not remembered any more is no use, and no offence.
        let Some(note) = inner.told.get(&cosignature.size) else {
            return Ok(());
        };
        let known = inner
            .peers
            .get(peer)
            .ok_or("a cosignature before a claim")?;
        let line: NoteSignature = cosignature
            .line
            .parse()
            .map_err(|_| "a malformed cosignature")?;
        known
            .witness_key
            .verify(note.text(), &line)
            .map_err(|_| "a cosignature that does not verify")?;
        inner
            .cosignatures
            .entry(cosignature.size)
            .or_default()
            .insert(peer.to_owned(), line);
        drop(inner);
        self.cosigned.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Changes with every cosignature.
    pub fn follow_cosignatures(&self) -> watch::Receiver<u64> {
        self.cosigned.subscribe()
    }

    /// The checkpoint with more than `index` entries that as many as possible of `wanted` have cosigned, then of all
    /// others; with its cosignatures, and whether all of `wanted` are among them. `None`: nobody has.
    pub fn cosigned_over(&self, index: u64, wanted: &[String]) -> Option<(u64, SignedNote, bool)> {
        let inner = self.lock();
        let (size, lines) = inner
            .cosignatures
            .range(index.saturating_add(1)..)
            .max_by_key(|(size, lines)| {
                let of = wanted
                    .iter()
                    .filter(|peer| lines.contains_key(*peer))
                    .count();
                (of, lines.len(), **size)
            })?;
        let mut note = inner.told.get(size)?.clone();
        for line in lines.values() {
            note.add(line.clone()).ok()?;
        }
        let all = wanted.iter().all(|peer| lines.contains_key(peer));
        Some((*size, note, all))
    }

    /// The newest checkpoint that a peer has cosigned, or just the newest if none has; with the log's number.
    pub fn publishable(&self) -> Option<(u64, SignedNote)> {
        let number = self.point().log;
        match self.cosigned_over(0, &[]) {
            None => Some((number, self.newest()?)),
            Some(_) => {
                let inner = self.lock();
                let (size, lines) = inner.cosignatures.last_key_value()?;
                let mut note = inner.told.get(size)?.clone();
                for line in lines.values() {
                    note.add(line.clone()).ok()?;
                }
                Some((number, note))
            }
        }
    }

    /// The newest checkpoint with the cosignatures it has; `None` for an empty log.
    pub fn newest(&self) -> Option<SignedNote> {
        let mut inner = self.lock();
        let note = inner.checkpoint(self.keys().ok()?)?;
        let lines = inner.cosignatures.get(&inner.tree.size()).cloned();
        let mut note = note;
        for line in lines.unwrap_or_default().into_values() {
            note.add(line).ok()?;
        }
        Some(note)
    }

    /// Verifier key of a log of this party.
    pub fn key_of(&self, number: u64) -> Option<VerifierKey> {
        let inner = self.lock();
        let name = origin(&inner.kind, &inner.cluster, &inner.party, number);
        let name = name.parse::<KeyName>().ok()?;
        VerifierKey::new(name, KeyKind::Ed25519, &self.keys().ok()?.log_key()).ok()
    }

    /// Verifier keys of this log and of this party's cosignatures, and the log's number.
    pub fn verifier_keys(&self) -> Option<(u64, VerifierKey, VerifierKey)> {
        let inner = self.lock();
        let log = origin(&inner.kind, &inner.cluster, &inner.party, inner.number);
        let witness = witness_name(&inner.kind, &inner.cluster, &inner.party);
        let keys = self.keys().ok()?;
        let key = |name: String, kind, key: &[u8; 32]| {
            VerifierKey::new(name.parse::<KeyName>().ok()?, kind, key).ok()
        };
        Some((
            inner.number,
            key(log, KeyKind::Ed25519, &keys.log_key())?,
            key(witness, KeyKind::CosignatureV1, &keys.witness_key())?,
        ))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Inner {
    fn start(&mut self, number: u64, tree: Tree) {
        self.number = number;
        self.base = tree.clone();
        self.tree = tree;
        self.leaves.clear();
        self.signed = None;
        self.told.clear();
        self.cosignatures.clear();
    }

    /// The tree as it was, where that is at hand.
    fn tree_at(&self, size: u64) -> Option<Tree> {
        let more = usize::try_from(size.checked_sub(self.base.size())?).ok()?;
        let mut tree = self.base.clone();
        tree.extend(self.leaves.get(..more)?.iter().copied());
        Some(tree)
    }

    /// Signs the tree, once for each size.
    fn checkpoint(&mut self, keys: &LogKeys) -> Option<SignedNote> {
        let size = self.tree.size();
        if size == 0 {
            return None;
        }
        if self.signed.is_none() {
            let origin = origin(&self.kind, &self.cluster, &self.party, self.number);
            let checkpoint = Checkpoint {
                origin: origin.parse().ok()?,
                size,
                root: self.tree.root(),
            };
            let note = wiped(|| checkpoint.sign(&keys.log));
            self.told.insert(size, note.clone());
            while self.told.len() > REMEMBERED
                && let Some((size, _)) = self.told.pop_first()
            {
                self.cosignatures.remove(&size);
            }
            self.signed = Some(note);
        }
        self.signed.clone()
    }
}

/// A log and its size and root.
pub fn point(number: u64, tree: &Tree) -> LogPoint {
    LogPoint {
        log: number,
        size: tree.size(),
        root: arca_audit::entry::Hex(tree.root()),
    }
}

/// What an intent says of the peers' logs: what is sealed with it.
pub fn seen(remembered: &BTreeMap<String, Remembered>) -> Vec<Seen> {
    let seen = remembered.iter().filter_map(|(party, known)| {
        let point = known.log.as_ref()?.point;
        Some(Seen {
            party: party.clone(),
            log: point.log,
            size: point.size,
            root: point.root,
        })
    });
    seen.collect()
}
