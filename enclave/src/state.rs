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

mod commit;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use arca_attestation::ClusterKind;
use arca_audit::{Tree, entry::Event};
use tokio::sync::{Notify, mpsc, watch};
use zeroize::Zeroizing;

use commit::{Kind, Submission, keep_noted, submit};

use crate::{
    anchor::AnchorContent,
    error::Error,
    index::{Digest, Index, Path, Version},
    lease::{ANCHOR_OBJECT, Anchor, Lease},
    log::Log,
    platform::Platform,
    random::Randomness,
    sealing::{self, Header},
    storage::HostStorage,
    stripes::Stripes,
};

/// Changes that wait for the host; more wait outside.
const QUEUE: usize = 1024;
/// How often a piece or blob is asked for while it changes.
const TRIES: usize = 16;
/// How long a call waits for this instance's lease.
const PATIENCE: Duration = Duration::from_secs(5);
/// Events that wait to be noted; more are left out, and counted.
const NOTES: usize = 8192;
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
    noted: Arc<Notify>,
    writers: Stripes,
    outside: tokio::sync::Mutex<HashMap<String, Option<Version>>>,
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

struct Sealed {
    object: String,
    version: Version,
    blob: Vec<u8>,
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
            noted: Arc::default(),
            writers: Stripes::default(),
            outside: tokio::sync::Mutex::default(),
        });
        let (submissions, queue) = mpsc::channel(QUEUE);
        tokio::spawn(Arc::clone(&inner).commit_all(queue));
        tokio::spawn(keep_noted(
            Arc::downgrade(&inner),
            submissions.downgrade(),
            Arc::clone(&inner.noted),
        ));
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
            inner.log.anchored(&content.remembered);
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

    /// Makes another anchor, with what is remembered of the peers, and changes nothing else.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn anchor_remembered(&self, owner: &Owner) -> Result<(), Error> {
        let kind = Kind::Ordinary;
        submit(&self.submissions, owner.clone(), kind, vec![], vec![]).await?;
        Ok(())
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

impl Inner {
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
