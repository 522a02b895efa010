//! Sealed objects by name: what the enclave keeps on the host, and how an older state is found out.
//!
//! One sealed object, the *anchor*, stands for all others: it holds the root of the [index](crate::index), which
//! names the newest blob of each object, and the head of the state's history. Every change of any object makes the
//! next anchor, and both are stored in one transaction of the host. So within one anchor nothing can be exchanged,
//! withheld or replayed; and whether the anchor is the newest, the peers know (see `lease.rs`).
//!
//! The order of a change is: sealed and stored ("persist"), entered into the audit log ("log"), and only then
//! anything that follows from it leaves the enclave ("send"). The first two are one step here, and the third needs
//! a [`Footing`], which this module alone makes: no session with a peer runs without one. See docs/sealed-state.md
//! and docs/audit-log.md.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use arca_attestation::ClusterKind;
use arca_audit::{
    Tree,
    entry::{self, Entry, Event, Hex, Seen},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use zeroize::Zeroizing;

use crate::{
    anchor::AnchorContent,
    error::Error,
    index::{Digest, Index, Path, Update, Version},
    lease::{ANCHOR_OBJECT, Anchor, Lease, Remembered},
    log::{self, Draft, Log},
    platform::Platform,
    random::Randomness,
    sealing::{self, Header},
    storage::HostStorage,
    stripes::Stripes,
    tags,
};

/// Changes that wait for the host; more wait outside.
const QUEUE: usize = 1024;
/// Changes that share one transaction of the host, and their bytes.
const TOGETHER: (usize, usize) = (128, 4 << 20);
/// Transactions whose outcome is unknown that are remembered.
const UNSETTLED: usize = 64;
/// How often a piece or blob is asked for while it changes.
const TRIES: usize = 16;
/// How long a call waits for this instance's lease.
const PATIENCE: Duration = Duration::from_secs(5);
/// Events that wait to be noted; more are left out, and counted.
const NOTES: usize = 8192;
/// Of them, how many go into one transaction, and how many files.
const NOTES_TOGETHER: usize = 512;
const FILES_TOGETHER: usize = 16;
/// How long what is noted waits for a transaction that takes it along.
const LATER: Duration = Duration::from_millis(100);
/// The number of a party's log before any loss was accepted.
const FIRST_LOG: u64 = 1;
/// Name of the object that holds what is remembered of the peers, between two anchors.
const PEERS_OBJECT: &str = "peers";

/// To whom the objects belong: goes into every header.
#[derive(Clone, Debug, Default)]
pub struct Owner {
    /// Cluster id.
    pub cluster: String,
    /// Party name.
    pub party: String,
    /// SHA-384 of the manifest in force.
    pub manifest_digest: Option<[u8; 48]>,
    /// SHA-256 of the log evidence of this boot under that manifest.
    pub evidence: [u8; 32],
}

/// Proof that this instance holds its lease and that everything decided so far is on its disk and in its log.
/// Whatever leaves for a peer needs one.
#[derive(Clone, Copy, Debug)]
pub struct Footing(Option<LogPlace>);

impl Footing {
    /// Where the entry stands that was recorded for it, if one was.
    pub fn place(&self) -> Option<LogPlace> {
        self.0
    }
}

/// An entry's place in this party's logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPlace {
    /// The log's number.
    pub log: u64,
    /// The entry's index.
    pub index: u64,
}

/// The sealed objects of one enclave.
pub struct SealedState {
    inner: Arc<Inner>,
    submissions: mpsc::Sender<Submission>,
}

struct Inner {
    platform: Arc<dyn Platform>,
    storage: HostStorage,
    randomness: Arc<Randomness>,
    lease: Arc<Lease>,
    index: Mutex<Index>,
    anchor: watch::Sender<Anchor>,
    /// SHA-256 of the anchor's blob on the host.
    anchor_blob: Mutex<Option<Digest>>,
    /// The audit log.
    log: Arc<Log>,
    /// What nobody waits for: goes with the next transaction.
    notes: Mutex<Notes>,
    noted: Notify,
    writers: Stripes,
    outside: tokio::sync::Mutex<HashMap<String, Option<Version>>>,
}

/// A change that waits for its transaction.
struct Submission {
    owner: Owner,
    kind: Kind,
    blobs: Vec<Sealed>,
    events: Vec<Event>,
    done: oneshot::Sender<Result<Footing, Error>>,
}

/// What nobody waits for.
#[derive(Default)]
struct Notes {
    events: VecDeque<(Owner, Event)>,
    /// Name and bytes of what entries name by digest.
    files: Vec<(String, Vec<u8>)>,
    /// Events that there was no room for.
    left_out: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Needs the lease.
    Ordinary,
    /// The first of a boot: its peers have granted.
    First,
    /// Goes on from another anchor, if the present one is still the one that the administrators named.
    Jump { from: Anchor, to: Anchor },
}

struct Sealed {
    object: String,
    version: Version,
    blob: Vec<u8>,
}

/// A transaction whose outcome is not known yet.
struct Prepared {
    anchor: Anchor,
    blob: Digest,
    update: Update,
    draft: Draft,
    /// Of each submission, where its first event stands.
    places: Vec<Option<LogPlace>>,
    /// How many notes it takes along, and files.
    noted: (usize, usize),
    remembered: BTreeMap<String, Remembered>,
}

impl SealedState {
    /// Nothing is read until it is asked for, so that start-up does not grow with the number of keys. Call it inside
    /// a runtime.
    pub fn new(
        platform: Arc<dyn Platform>,
        randomness: Arc<Randomness>,
        lease: Arc<Lease>,
        log: Arc<Log>,
    ) -> Self {
        let inner = Arc::new(Inner {
            storage: HostStorage::new(Arc::clone(&platform)),
            platform,
            randomness,
            lease,
            index: Mutex::new(Index::new(None)),
            anchor: watch::Sender::new(Anchor::default()),
            anchor_blob: Mutex::new(None),
            log,
            notes: Mutex::default(),
            noted: Notify::new(),
            writers: Stripes::default(),
            outside: tokio::sync::Mutex::default(),
        });
        let (submissions, queue) = mpsc::channel(QUEUE);
        tokio::spawn(Arc::clone(&inner).commit_all(queue));
        tokio::spawn(keep_noted(Arc::downgrade(&inner), submissions.downgrade()));
        Self { inner, submissions }
    }

    /// Finds the state on the host, and in it what was remembered of the peers.
    ///
    /// # Errors
    /// [`Error::Fault`] when the host does not answer or what it has does not unseal.
    pub async fn open(&self, owner: &Owner) -> Result<(), Error> {
        let inner = &self.inner;
        let mut start = Anchor::default();
        let mut log = (FIRST_LOG, Tree::new());
        if let Some(blob) = inner.storage.get(ANCHOR_OBJECT).await? {
            let (header, content) = inner.unseal(owner, ANCHOR_OBJECT, &blob).await?;
            let content = AnchorContent::decode(&content)
                .filter(|content| content.anchor.sequence == header.sequence)
                .ok_or_else(|| malformed(ANCHOR_OBJECT))?;
            start = content.anchor;
            log = content.log;
            inner.log.sealed(&content.remembered);
            *inner.index() = Index::new(content.root);
            *inner.anchor_blob() = Some(sealing::digest(&blob));
            inner.lease.set_start(start, content.remembered);
        }
        if let Some(content) = self.read_outside(owner, PEERS_OBJECT).await? {
            let remembered = AnchorContent::decode_remembered(&content)
                .ok_or_else(|| malformed(PEERS_OBJECT))?;
            inner.lease.set_start(start, remembered);
        }
        let kind = ClusterKind::of(&owner.cluster).to_string();
        inner.log.open(&kind, owner, log.0, log.1);
        inner.anchor.send_replace(start);
        Ok(())
    }

    /// How far the state has come; changes with it.
    pub fn anchor(&self) -> watch::Receiver<Anchor> {
        self.inner.anchor.subscribe()
    }

    /// What a session needs that sends nothing that has to be stored before.
    ///
    /// # Errors
    /// Why this instance does not hold its lease.
    pub fn footing(&self) -> Result<Footing, Error> {
        self.inner.lease.check()?;
        Ok(Footing(None))
    }

    /// Reads and unseals an object.
    ///
    /// # Errors
    /// [`Error::Fault`] when the host does not answer, or what it returns is not the newest blob of this object; and
    /// why this instance does not hold its lease.
    pub async fn read(
        &self,
        owner: &Owner,
        object: &str,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        self.inner.lease.wait(PATIENCE).await?;
        self.inner.read(owner, object).await
    }

    /// Seals an object and stores it, as the successor of what is there, with the anchor that says so.
    ///
    /// Returns when the host says that it is durable. A failure leaves the object as it was, or stored.
    ///
    /// # Errors
    /// [`Error::Fault`] from the platform or the host; and why this instance does not hold its lease.
    pub async fn write(
        &self,
        owner: &Owner,
        object: &str,
        key_epoch: u64,
        content: &[u8],
    ) -> Result<Footing, Error> {
        self.write_with(owner, object, key_epoch, content, vec![])
            .await
    }

    /// [`write`](Self::write), and in the same transaction what the log says of it.
    ///
    /// # Errors
    /// The same.
    pub async fn write_with(
        &self,
        owner: &Owner,
        object: &str,
        key_epoch: u64,
        content: &[u8],
        events: Vec<Event>,
    ) -> Result<Footing, Error> {
        self.inner.lease.wait(PATIENCE).await?;
        let inner = Arc::clone(&self.inner);
        let submissions = self.submissions.clone();
        let (owner, object) = (owner.clone(), object.to_owned());
        let content = Zeroizing::new(content.to_vec());
        // On its own, so that a caller who goes away leaves no change half submitted.
        let writing = tokio::spawn(async move {
            let _writing = inner.writers.lock(&object).await;
            let sealed = inner.seal(&owner, object, key_epoch, &content).await?;
            submit(&submissions, owner, Kind::Ordinary, vec![sealed], events).await
        });
        writing
            .await
            .map_err(|_| Error::Bug("a write of sealed state panicked"))?
    }

    /// Enters an event into the log, durably.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn record(&self, owner: &Owner, event: Event) -> Result<Footing, Error> {
        let kind = Kind::Ordinary;
        submit(&self.submissions, owner.clone(), kind, vec![], vec![event]).await
    }

    /// The first commit of this boot.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn record_first(&self, owner: &Owner, event: Event) -> Result<Footing, Error> {
        let kind = Kind::First;
        submit(&self.submissions, owner.clone(), kind, vec![], vec![event]).await
    }

    /// Enters an event into the log with the next transaction, which is made before long. Nothing may follow from it.
    pub fn note(&self, owner: &Owner, event: Event) {
        let mut notes = self.inner.notes();
        if notes.events.len() < NOTES {
            notes.events.push_back((owner.clone(), event));
        } else {
            notes.left_out += 1;
            if notes.left_out.is_power_of_two() {
                tracing::warn!(
                    count = notes.left_out,
                    "events are left out of the audit log: there are more of them than can be stored"
                );
            }
        }
        drop(notes);
        self.inner.noted.notify_one();
    }

    /// Stores a file that entries name by its digest, with the next transaction.
    pub fn keep_file(&self, digest: &[u8], content: Vec<u8>) {
        let name = format!("log/files/{}", hex::encode(digest));
        self.inner.notes().files.push((name, content));
        self.inner.noted.notify_one();
    }

    /// Goes on from another anchor, as the administrators said; the objects are what they are. Another log begins.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`Error::Reject`] when the state is not at `from` any more.
    pub async fn jump(
        &self,
        owner: &Owner,
        (from, to): (Anchor, Anchor),
        events: Vec<Event>,
    ) -> Result<(), Error> {
        let kind = Kind::Jump { from, to };
        submit(&self.submissions, owner.clone(), kind, vec![], events).await?;
        Ok(())
    }

    /// Reads an object that the anchor does not cover: it is needed before there is a lease. Within one boot the host
    /// cannot go back on it.
    ///
    /// # Errors
    /// [`Error::Fault`] when the host does not answer, the blob does not unseal, or it is an older one.
    pub async fn read_outside(
        &self,
        owner: &Owner,
        object: &str,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        let mut known = self.inner.outside.lock().await;
        self.inner.read_outside(&mut known, owner, object).await
    }

    /// Seals and stores an object that the anchor does not cover.
    ///
    /// # Errors
    /// [`Error::Fault`] from the platform or the host.
    pub async fn write_outside(
        &self,
        owner: &Owner,
        object: &str,
        content: &[u8],
    ) -> Result<(), Error> {
        let inner = &self.inner;
        let mut known = inner.outside.lock().await;
        if !known.contains_key(object) {
            inner.read_outside(&mut known, owner, object).await?;
        }
        let present = known.get(object).copied().flatten();
        let (header, blob) = inner
            .seal_after(owner, object.to_owned(), 0, present, content)
            .await?;
        let version = Version {
            sequence: header.sequence,
            digest: sealing::digest(&blob),
        };
        inner
            .storage
            .put(vec![(object.to_owned(), blob)], None)
            .await?;
        known.insert(object.to_owned(), Some(version));
        Ok(())
    }

    /// Seals what is remembered of the peers now.
    ///
    /// # Errors
    /// [`Error::Fault`] from the platform or the host; it is then still to be sealed.
    pub async fn store_remembered(&self, owner: &Owner) -> Result<(), Error> {
        let remembered = self.inner.lease.seal_remembered();
        let content = AnchorContent::encode_remembered(&remembered);
        let stored = self.write_outside(owner, PEERS_OBJECT, &content).await;
        match &stored {
            Ok(()) => self.inner.log.sealed(&remembered),
            Err(_) => self.inner.lease.not_sealed(),
        }
        stored
    }

    /// The host that holds the blobs.
    pub fn storage(&self) -> &HostStorage {
        &self.inner.storage
    }

    /// Names of the objects with a prefix, as the host tells them: some may be missing.
    ///
    /// # Errors
    /// [`Error::Fault`] when the host does not answer.
    pub async fn list(&self, prefix: &str, after: &str, limit: u32) -> Result<Vec<String>, Error> {
        self.inner.lease.wait(PATIENCE).await?;
        self.inner.storage.list(prefix, after, limit).await
    }
}

async fn submit(
    submissions: &mpsc::Sender<Submission>,
    owner: Owner,
    kind: Kind,
    blobs: Vec<Sealed>,
    events: Vec<Event>,
) -> Result<Footing, Error> {
    let (done, answer) = oneshot::channel();
    let submission = Submission {
        owner,
        kind,
        blobs,
        events,
        done,
    };
    let gone = || Error::Bug("nobody commits sealed state any more");
    submissions.send(submission).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

impl Inner {
    /// Takes what waits, commits it as one transaction of the host, answers everybody.
    async fn commit_all(self: Arc<Self>, mut queue: mpsc::Receiver<Submission>) {
        let mut unsettled = Vec::new();
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(first) => first,
                None => match queue.recv().await {
                    Some(first) => first,
                    None => return,
                },
            };
            let mut bytes = first.bytes();
            let kind = first.kind;
            let mut together = vec![first];
            while kind == Kind::Ordinary && together.len() < TOGETHER.0 && bytes < TOGETHER.1 {
                let Ok(submission) = queue.try_recv() else {
                    break;
                };
                if submission.kind != kind {
                    next = Some(submission);
                    break;
                }
                bytes += submission.bytes();
                together.push(submission);
            }
            let outcome = self.commit(&mut together, &mut unsettled).await;
            if outcome.is_err() {
                self.lease.not_sealed();
            }
            let mut places = match &outcome {
                Ok(places) => places.clone(),
                Err(_) => Vec::new(),
            }
            .into_iter();
            for submission in together {
                let outcome = match &outcome {
                    Ok(_) => Ok(Footing(places.next().flatten())),
                    Err(error) => Err(error.clone()),
                };
                // A caller that stopped waiting does not need the answer.
                let _ = submission.done.send(outcome);
            }
        }
    }

    async fn commit(
        &self,
        together: &mut [Submission],
        unsettled: &mut Vec<Prepared>,
    ) -> Result<Vec<Option<LogPlace>>, Error> {
        let Some(kind) = together.first().map(|first| first.kind) else {
            return Ok(Vec::new());
        };
        match kind {
            Kind::Ordinary => self.lease.check()?,
            Kind::First if self.lease.is_granted() => {}
            Kind::First => return Err(Error::Bug("a first commit without a lease")),
            Kind::Jump { .. } => {}
        }
        if !unsettled.is_empty() {
            self.settle(unsettled).await?;
        }
        loop {
            let (prepared, mut blobs) = self.prepare(kind, together).await?;
            for submission in together.iter() {
                let copies = submission.blobs.iter();
                blobs.extend(copies.map(|sealed| (sealed.object.clone(), sealed.blob.clone())));
            }
            // The anchor's last: its name stands in what the host says.
            blobs.rotate_left(1);
            let follows = *self.anchor_blob();
            let stored = self.storage.put(blobs, Some((ANCHOR_OBJECT, follows)));
            match stored.await {
                Ok(()) => {
                    unsettled.clear();
                    let places = prepared.places.clone();
                    self.adopt(prepared);
                    return Ok(places);
                }
                Err(error) if error.reason() == "STORAGE_FULL" => return Err(error),
                Err(error) if error.reason() == "STORAGE_CONFLICT" => {
                    // One that was given up has come through after all, or somebody else writes here.
                    if unsettled.is_empty() {
                        return Err(error);
                    }
                    self.settle(unsettled).await?;
                    if !unsettled.is_empty() {
                        return Err(error);
                    }
                }
                Err(error) => {
                    if unsettled.len() >= UNSETTLED {
                        unsettled.remove(0);
                    }
                    unsettled.push(prepared);
                    return Err(error);
                }
            }
        }
    }

    /// Finds out whether one of the transactions of unknown outcome came through.
    async fn settle(&self, unsettled: &mut Vec<Prepared>) -> Result<(), Error> {
        let blob = self.storage.get(ANCHOR_OBJECT).await?;
        let there = blob.as_deref().map(sealing::digest);
        if let Some(position) = unsettled
            .iter()
            .position(|prepared| Some(prepared.blob) == there)
        {
            let prepared = unsettled.swap_remove(position);
            unsettled.clear();
            self.adopt(prepared);
        }
        Ok(())
    }

    /// Writes the log's entries: first what was noted, then of each submission what it enters.
    fn enter(
        &self,
        kind: Kind,
        together: &[Submission],
        seen: &[Seen],
    ) -> Result<(Draft, Vec<Option<LogPlace>>, (usize, usize)), Error> {
        let mut draft = match kind {
            Kind::Ordinary | Kind::First => self.log.draft(),
            Kind::Jump { to, .. } => Draft::of(to.sequence),
        };
        let now = self.platform.now().0;
        let boot = Hex(self.log.boot_id()?);
        let mut append = |owner: &Owner, event: &Event| {
            let mut event = event.clone();
            if let Event::SigningIntent(intent) = &mut event {
                intent.seen = seen.to_vec();
            }
            draft.append(&Entry {
                version: entry::VERSION,
                time_ms: now,
                boot,
                manifest: Hex(owner.manifest_digest.unwrap_or([0; 48])),
                evidence: Hex(owner.evidence),
                event,
            })
        };
        let mut noted = (0, 0);
        // Another log begins with what is submitted.
        if !matches!(kind, Kind::Jump { .. }) {
            let notes = self.notes();
            for (owner, event) in notes.events.iter().take(NOTES_TOGETHER) {
                append(owner, event)?;
                noted.0 += 1;
            }
        }
        let mut first = Vec::with_capacity(together.len());
        for submission in together {
            let mut place = None;
            for event in &submission.events {
                let index = append(&submission.owner, event)?;
                place.get_or_insert(index);
            }
            first.push(place);
        }
        noted.1 = self.notes().files.len().min(FILES_TOGETHER);
        let log = draft.number;
        let places = first
            .into_iter()
            .map(|index| index.map(|index| LogPlace { log, index }))
            .collect();
        Ok((draft, places, noted))
    }

    /// What has to be stored beside the objects' own blobs: the anchor first.
    async fn prepare(
        &self,
        kind: Kind,
        together: &[Submission],
    ) -> Result<(Prepared, Vec<(String, Vec<u8>)>), Error> {
        let versions: Vec<_> = together
            .iter()
            .flat_map(|submission| &submission.blobs)
            .map(|sealed| (Path::of(&sealed.object), sealed.version))
            .collect();
        for (sealed, (path, version)) in together
            .iter()
            .flat_map(|submission| &submission.blobs)
            .zip(&versions)
        {
            let present = self.look_up(|index| index.get(path)).await?;
            if present.map_or(0, |present| present.sequence) + 1 != version.sequence {
                // A transaction that was given up changed it after all.
                return Err(restless(&sealed.object));
            }
        }
        let update = self.look_up(|index| index.with(&versions)).await?;
        let present = *self.anchor.borrow();
        let remembered = self.lease.seal_remembered();
        let (mut draft, places, noted) = self.enter(kind, together, &log::seen(&remembered))?;
        let anchor = match kind {
            Kind::Jump { from, to } if from == present => to,
            Kind::Jump { .. } => {
                return Err(Error::reject(
                    tonic::Code::FailedPrecondition,
                    "LOSS_ACCEPTANCE_REFUSED",
                    "found_sequence: the state has changed meanwhile; make a new draft",
                ));
            }
            Kind::Ordinary | Kind::First => {
                let sequence = present
                    .sequence
                    .checked_add(1)
                    .ok_or(Error::Bug("the state's sequence has no successor"))?;
                Anchor {
                    sequence,
                    head: head(&present.head, sequence, update.root(), &draft),
                }
            }
        };
        let content = AnchorContent {
            anchor,
            root: update.root(),
            log: (draft.number, draft.tree.clone()),
            remembered,
        };
        let owner = together
            .last()
            .map(|last| last.owner.clone())
            .unwrap_or_default();
        let header = Header {
            class: self.platform.class(),
            cluster: owner.cluster,
            party: owner.party,
            object: ANCHOR_OBJECT.to_owned(),
            key_epoch: 0,
            sequence: anchor.sequence,
            predecessor: self.anchor_blob().unwrap_or_default(),
            manifest_digest: owner.manifest_digest.unwrap_or([0; 48]),
        };
        let mut rng = self.randomness.generator(&*self.platform)?;
        let blob = sealing::seal(&*self.platform, &header, &content.encode(), &mut rng).await?;
        let prepared_blob = sealing::digest(&blob);
        let mut blobs = vec![(ANCHOR_OBJECT.to_owned(), blob)];
        blobs.extend(update.blobs());
        blobs.extend(draft.take_blobs());
        blobs.extend(self.notes().files.iter().take(noted.1).cloned());
        let prepared = Prepared {
            anchor,
            blob: prepared_blob,
            update,
            draft,
            places,
            noted,
            remembered: content.remembered,
        };
        Ok((prepared, blobs))
    }

    fn adopt(&self, prepared: Prepared) {
        {
            let mut notes = self.notes();
            notes.events.drain(..prepared.noted.0);
            notes.files.drain(..prepared.noted.1);
        }
        self.index().apply(prepared.update);
        self.log.adopt(prepared.draft);
        self.log.sealed(&prepared.remembered);
        *self.anchor_blob() = Some(prepared.blob);
        self.anchor.send_replace(prepared.anchor);
    }

    async fn read(&self, owner: &Owner, object: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        for _ in 0..TRIES {
            let Some(version) = self.version(object).await? else {
                return Ok(None);
            };
            let blob = self.storage.get(object).await?;
            if let Some(blob) = &blob
                && sealing::digest(blob) == version.digest
            {
                let (_, content) = self.unseal(owner, object, blob).await?;
                return Ok(Some(content));
            }
            if self.version(object).await? != Some(version) {
                continue;
            }
            let found = match blob {
                Some(blob) => self.unseal(owner, object, &blob).await?.0.sequence,
                None => return Err(gone(object, version.sequence)),
            };
            return Err(rolled_back(object, version.sequence, found));
        }
        Err(restless(object))
    }

    /// The newest version of an object, by the index.
    async fn version(&self, object: &str) -> Result<Option<Version>, Error> {
        let path = Path::of(object);
        self.look_up(|index| index.get(&path)).await
    }

    /// Asks the index, and the host for what of it is not at hand.
    async fn look_up<T>(
        &self,
        ask: impl Fn(&Index) -> Result<T, crate::index::Missing>,
    ) -> Result<T, Error> {
        let mut refused = None;
        let mut tries = 0;
        loop {
            let missing = match ask(&self.index()) {
                Ok(answer) => return Ok(answer),
                Err(missing) => missing,
            };
            let object = missing.place.object();
            // The piece may have changed between the question and the host's answer; then another one is missing now.
            if refused.as_ref() == Some(&missing) {
                return Err(Error::Fault {
                    reason: "SEALED_STATE_ROLLED_BACK",
                    message: format!(
                        "{object}: what the host returned is not what object {ANCHOR_OBJECT}, sequence {}, says it \
                         is; restore the host's newest storage",
                        self.anchor.borrow().sequence
                    ),
                });
            }
            let blob = self.storage.get(&object).await?.unwrap_or_default();
            if !self.index().insert(&missing, &blob) {
                refused = Some(missing);
                tries += 1;
                if tries > TRIES {
                    return Err(restless(&object));
                }
            }
        }
    }

    async fn seal(
        &self,
        owner: &Owner,
        object: String,
        key_epoch: u64,
        content: &[u8],
    ) -> Result<Sealed, Error> {
        let present = self.version(&object).await?;
        let (header, blob) = self
            .seal_after(owner, object, key_epoch, present, content)
            .await?;
        Ok(Sealed {
            object: header.object,
            version: Version {
                sequence: header.sequence,
                digest: sealing::digest(&blob),
            },
            blob,
        })
    }

    /// Seals content as the successor of a blob, or as the first.
    async fn seal_after(
        &self,
        owner: &Owner,
        object: String,
        key_epoch: u64,
        present: Option<Version>,
        content: &[u8],
    ) -> Result<(Header, Vec<u8>), Error> {
        let (sequence, predecessor) = match present {
            Some(version) => (version.sequence.saturating_add(1), version.digest),
            None => (1, [0; 32]),
        };
        let header = Header {
            class: self.platform.class(),
            cluster: owner.cluster.clone(),
            party: owner.party.clone(),
            object,
            key_epoch,
            sequence,
            predecessor,
            manifest_digest: owner.manifest_digest.unwrap_or([0; 48]),
        };
        let mut rng = self.randomness.generator(&*self.platform)?;
        let blob = sealing::seal(&*self.platform, &header, content, &mut rng).await?;
        Ok((header, blob))
    }

    async fn unseal(
        &self,
        owner: &Owner,
        object: &str,
        blob: &[u8],
    ) -> Result<(Header, Zeroizing<Vec<u8>>), Error> {
        Ok(sealing::unseal(&*self.platform, &owner.cluster, &owner.party, object, blob).await?)
    }

    async fn read_outside(
        &self,
        known: &mut HashMap<String, Option<Version>>,
        owner: &Owner,
        object: &str,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        let blob = self.storage.get(object).await?;
        let newest = known.get(object).copied().flatten();
        let Some(blob) = blob else {
            if let Some(version) = newest {
                return Err(gone(object, version.sequence));
            }
            known.insert(object.to_owned(), None);
            return Ok(None);
        };
        let (header, content) = self.unseal(owner, object, &blob).await?;
        let found = Version {
            sequence: header.sequence,
            digest: sealing::digest(&blob),
        };
        if let Some(version) = newest
            && (found.sequence < version.sequence
                || (found.sequence == version.sequence && found != version))
        {
            return Err(rolled_back(object, version.sequence, found.sequence));
        }
        known.insert(object.to_owned(), Some(found));
        Ok(Some(content))
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn anchor_blob(&self) -> MutexGuard<'_, Option<Digest>> {
        self.anchor_blob
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Submission {
    fn bytes(&self) -> usize {
        self.blobs.iter().map(|sealed| sealed.blob.len()).sum()
    }
}

/// Makes a transaction for what is noted, when none takes it along.
async fn keep_noted(inner: Weak<Inner>, submissions: mpsc::WeakSender<Submission>) {
    loop {
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let owner = {
            let notes = inner.notes();
            notes.events.front().map(|(owner, _)| owner.clone())
        };
        let owner = owner.filter(|_| inner.lease.check().is_ok());
        let Some(owner) = owner else {
            // Something is noted, or the lease was taken up, or nobody is there any more.
            let _ = tokio::time::timeout(LATER * 10, inner.noted.notified()).await;
            if submissions.upgrade().is_none() {
                return;
            }
            continue;
        };
        tokio::time::sleep(LATER).await;
        if inner.notes().events.is_empty() {
            continue;
        }
        drop(inner);
        let Some(submissions) = submissions.upgrade() else {
            return;
        };
        if let Err(error) = submit(&submissions, owner, Kind::Ordinary, vec![], vec![]).await {
            tracing::warn!(%error, "entries of the audit log wait to be stored");
            tokio::time::sleep(LATER * 10).await;
        }
    }
}

fn head(previous: &Digest, sequence: u64, root: Option<Digest>, draft: &Draft) -> Digest {
    Sha256::new()
        .chain_update(tags::STATE_HEAD)
        .chain_update([0])
        .chain_update(previous)
        .chain_update(sequence.to_be_bytes())
        .chain_update(root.unwrap_or_default())
        .chain_update(draft.number.to_be_bytes())
        .chain_update(draft.tree.size().to_be_bytes())
        .chain_update(draft.tree.root())
        .finalize()
        .into()
}

fn rolled_back(object: &str, known: u64, found: u64) -> Error {
    Error::Fault {
        reason: "SEALED_STATE_ROLLED_BACK",
        message: format!(
            "{object}: the host returned the blob with sequence {found}, but the newest one has sequence {known}; \
             restore the host's newest storage"
        ),
    }
}

fn gone(object: &str, known: u64) -> Error {
    Error::Fault {
        reason: "SEALED_STATE_ROLLED_BACK",
        message: format!(
            "{object}: the host has no such blob, but there is one with sequence {known}; restore the host's newest \
             storage"
        ),
    }
}

fn malformed(object: &str) -> Error {
    Error::Fault {
        reason: "SEALED_BLOB_MALFORMED",
        message: format!("{object}: unseals to something that this version does not know"),
    }
}

fn restless(object: &str) -> Error {
    Error::Fault {
        reason: "STORAGE_UNAVAILABLE",
        message: format!("{object}: it changed each time that it was read; try again"),
    }
}

#[cfg(test)]
mod tests;
