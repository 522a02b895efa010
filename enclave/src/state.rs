//! Sealed objects by name: what the enclave keeps on the host, and how an older state is found out.
//!
//! One sealed object, the *anchor*, stands for all others: it holds the root of the [index](crate::index), which
//! names the newest blob of each object, and the head of the state's history. Every change of any object makes the
//! next anchor, and both are stored in one transaction of the host. So within one anchor nothing can be exchanged,
//! withheld or replayed; and whether the anchor is the newest, the peers know (see `lease.rs`).
//!
//! The order of a change is: sealed and stored ("persist"), made part of the history ("log"), and only then
//! anything that follows from it leaves the enclave ("send"). The first two are one step here, and the third needs
//! a [`Footing`], which this module alone makes: no session with a peer runs without one. See docs/sealed-state.md.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot, watch};
use zeroize::Zeroizing;

use crate::{
    anchor::AnchorContent,
    error::Error,
    index::{Digest, Index, Path, Update, Version},
    lease::{ANCHOR_OBJECT, Anchor, BootId, Lease},
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
}

/// Proof that this instance holds its lease and that everything decided so far is on its disk and in its history.
/// Whatever leaves for a peer needs one.
#[derive(Clone, Copy, Debug)]
pub struct Footing(());

/// Something that happened and changes no object.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// This instance got its lease.
    Lease(&'a BootId),
    /// A share of a signature is about to leave, in this session, for what this digest covers.
    SigningIntent {
        /// The session.
        session: &'a [u8; 32],
        /// What is signed, for whom, under which request.
        digest: &'a [u8; 32],
    },
    /// The administrators accepted that later state is lost.
    LossAccepted(&'a [u8; 48]),
}

impl Entry<'_> {
    fn digest(&self) -> Digest {
        let (kind, parts): (u8, [&[u8]; 2]) = match self {
            Self::Lease(boot_id) => (1, [&boot_id[..], &[]]),
            Self::SigningIntent { session, digest } => (2, [&session[..], &digest[..]]),
            Self::LossAccepted(acceptance) => (3, [&acceptance[..], &[]]),
        };
        Sha256::new()
            .chain_update(tags::STATE_ENTRY)
            .chain_update([0, kind])
            .chain_update(parts[0])
            .chain_update(parts[1])
            .finalize()
            .into()
    }
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
    writers: Stripes,
    outside: tokio::sync::Mutex<HashMap<String, Option<Version>>>,
}

/// A change that waits for its transaction.
struct Submission {
    owner: Owner,
    kind: Kind,
    blobs: Vec<Sealed>,
    entries: Vec<Digest>,
    done: oneshot::Sender<Result<Footing, Error>>,
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
}

impl SealedState {
    /// Nothing is read until it is asked for, so that start-up does not grow with the number of keys. Call it inside
    /// a runtime.
    pub fn new(
        platform: Arc<dyn Platform>,
        randomness: Arc<Randomness>,
        lease: Arc<Lease>,
    ) -> Self {
        let inner = Arc::new(Inner {
            storage: HostStorage::new(Arc::clone(&platform)),
            platform,
            randomness,
            lease,
            index: Mutex::new(Index::new(None)),
            anchor: watch::Sender::new(Anchor::default()),
            anchor_blob: Mutex::new(None),
            writers: Stripes::default(),
            outside: tokio::sync::Mutex::default(),
        });
        let (submissions, queue) = mpsc::channel(QUEUE);
        tokio::spawn(Arc::clone(&inner).commit_all(queue));
        Self { inner, submissions }
    }

    /// Finds the state on the host, and in it what was remembered of the peers.
    ///
    /// # Errors
    /// [`Error::Fault`] when the host does not answer or what it has does not unseal.
    pub async fn open(&self, owner: &Owner) -> Result<(), Error> {
        let inner = &self.inner;
        let mut start = Anchor::default();
        if let Some(blob) = inner.storage.get(ANCHOR_OBJECT).await? {
            let (header, content) = inner.unseal(owner, ANCHOR_OBJECT, &blob).await?;
            let content = AnchorContent::decode(&content)
                .filter(|content| content.anchor.sequence == header.sequence)
                .ok_or_else(|| malformed(ANCHOR_OBJECT))?;
            start = content.anchor;
            *inner.index() = Index::new(content.root);
            *inner.anchor_blob() = Some(sealing::digest(&blob));
            inner.lease.set_start(start, content.remembered);
        }
        if let Some(content) = self.read_outside(owner, PEERS_OBJECT).await? {
            let remembered = AnchorContent::decode_remembered(&content)
                .ok_or_else(|| malformed(PEERS_OBJECT))?;
            inner.lease.set_start(start, remembered);
        }
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
        Ok(Footing(()))
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
        self.inner.lease.wait(PATIENCE).await?;
        let inner = Arc::clone(&self.inner);
        let submissions = self.submissions.clone();
        let (owner, object) = (owner.clone(), object.to_owned());
        let content = Zeroizing::new(content.to_vec());
        // On its own, so that a caller who goes away leaves no change half submitted.
        let writing = tokio::spawn(async move {
            let _writing = inner.writers.lock(&object).await;
            let sealed = inner.seal(&owner, object, key_epoch, &content).await?;
            submit(&submissions, owner, Kind::Ordinary, vec![sealed], vec![]).await
        });
        writing
            .await
            .map_err(|_| Error::Bug("a write of sealed state panicked"))?
    }

    /// Makes an entry part of the state's history, durably.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn record(&self, owner: &Owner, entry: Entry<'_>) -> Result<Footing, Error> {
        let kind = match entry {
            Entry::Lease(_) => Kind::First,
            Entry::SigningIntent { .. } | Entry::LossAccepted(_) => Kind::Ordinary,
        };
        let entries = vec![entry.digest()];
        submit(&self.submissions, owner.clone(), kind, vec![], entries).await
    }

    /// Goes on from another anchor, as the administrators said; the objects are what they are.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`Error::Reject`] when the state is not at `from` any more.
    pub async fn jump(
        &self,
        owner: &Owner,
        (from, to): (Anchor, Anchor),
        acceptance: &[u8; 48],
    ) -> Result<(), Error> {
        let entries = vec![Entry::LossAccepted(acceptance).digest()];
        let kind = Kind::Jump { from, to };
        submit(&self.submissions, owner.clone(), kind, vec![], entries).await?;
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
        if stored.is_err() {
            self.inner.lease.not_sealed();
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
    entries: Vec<Digest>,
) -> Result<Footing, Error> {
    let (done, answer) = oneshot::channel();
    let submission = Submission {
        owner,
        kind,
        blobs,
        entries,
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
            for submission in together {
                let outcome = match &outcome {
                    Ok(()) => Ok(Footing(())),
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
    ) -> Result<(), Error> {
        let Some(kind) = together.first().map(|first| first.kind) else {
            return Ok(());
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
                    self.adopt(prepared);
                    return Ok(());
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
                let entries = together.iter().flat_map(|submission| &submission.entries);
                Anchor {
                    sequence,
                    head: head(&present.head, sequence, update.root(), entries),
                }
            }
        };
        let content = AnchorContent {
            anchor,
            root: update.root(),
            remembered: self.lease.seal_remembered(),
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
        let prepared = Prepared {
            anchor,
            blob: prepared_blob,
            update,
        };
        Ok((prepared, blobs))
    }

    fn adopt(&self, prepared: Prepared) {
        self.index().apply(prepared.update);
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

fn head<'a>(
    previous: &Digest,
    sequence: u64,
    root: Option<Digest>,
    entries: impl Iterator<Item = &'a Digest>,
) -> Digest {
    let mut hash = Sha256::new()
        .chain_update(tags::STATE_HEAD)
        .chain_update([0])
        .chain_update(previous)
        .chain_update(sequence.to_be_bytes())
        .chain_update(root.unwrap_or_default());
    for entry in entries {
        hash.update(entry);
    }
    hash.finalize().into()
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
