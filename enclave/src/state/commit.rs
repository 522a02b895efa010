//! Transactions: what waits goes into one together, sealed, entered into the audit log, stored, and only then taken for
//! the state.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use arca_audit::entry::{self, Entry, Event, Hex, Seen};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, mpsc, oneshot};

use super::{Footing, Inner, LogPlace, Owner, Sealed, restless};
use crate::{
    anchor::AnchorContent,
    error::Error,
    index::{Digest, Path, Update},
    lease::{ANCHOR_OBJECT, Anchor, Remembered},
    log::{self, Draft},
    sealing::{self, Header},
    tags,
};

/// Changes that share one transaction of the host, and their bytes.
const TOGETHER: (usize, usize) = (128, 4 << 20);
/// Transactions whose outcome is unknown that are remembered.
const UNSETTLED: usize = 64;
/// Of what is noted, how many events go into one transaction, and how many files.
const NOTES_TOGETHER: usize = 512;
const FILES_TOGETHER: usize = 16;
/// How long what is noted waits for a transaction that takes it along.
const LATER: Duration = Duration::from_millis(100);

/// A change that waits for its transaction.
pub(super) struct Submission {
    owner: Owner,
    kind: Kind,
    blobs: Vec<Sealed>,
    events: Vec<Event>,
    done: oneshot::Sender<Result<Footing, Error>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Needs the lease.
    Ordinary,
    /// The first of a boot: its peers have granted.
    First,
    /// Goes on from another anchor, if the present one is still the one that the administrators named.
    Jump { from: Anchor, to: Anchor },
}

/// What a transaction enters into the log.
struct Entered {
    draft: Draft,
    /// Of each submission, where its first event stands.
    places: Vec<Option<LogPlace>>,
    /// How many events that were noted it takes along, and files.
    events: usize,
    files: usize,
}

/// A transaction whose outcome is not known yet.
pub(super) struct Prepared {
    anchor: Anchor,
    blob: Digest,
    update: Update,
    entered: Entered,
    remembered: BTreeMap<String, Remembered>,
}

pub(super) async fn submit(
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
    pub(super) async fn commit_all(self: Arc<Self>, mut queue: mpsc::Receiver<Submission>) {
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
                    let places = prepared.entered.places.clone();
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
    fn enter(&self, kind: Kind, together: &[Submission], seen: &[Seen]) -> Result<Entered, Error> {
        let mut draft = match kind {
            Kind::Ordinary | Kind::First => self.log.draft(),
            Kind::Jump { to, .. } => Draft::of(to.sequence),
        };
        let now = self.platform.now().0;
        let boot = Hex(self.log.boot_id()?);
        let left_out = self.log.is_left_out();
        let mut append = |owner: &Owner, event: &Event| {
            if left_out {
                return Ok(0);
            }
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
        let mut noted = 0;
        // Another log begins with what is submitted.
        if !matches!(kind, Kind::Jump { .. }) {
            let notes = self.notes();
            for (owner, event) in notes.events.iter().take(NOTES_TOGETHER) {
                noted += 1;
                // Nobody waits for it, so nobody else is to suffer.
                if let Err(error) = append(owner, event) {
                    tracing::error!(%error, "an event is left out of the audit log");
                }
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
        let log = draft.number;
        let places = first
            .into_iter()
            .map(|index| index.map(|index| LogPlace { log, index }))
            .collect();
        Ok(Entered {
            draft,
            places,
            events: noted,
            files: self.notes().files.len().min(FILES_TOGETHER),
        })
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
        let mut entered = self.enter(kind, together, &log::seen(&remembered))?;
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
                    head: head(&present.head, sequence, update.root(), &entered.draft),
                }
            }
        };
        let content = AnchorContent {
            anchor,
            root: update.root(),
            log: (entered.draft.number, entered.draft.tree.clone()),
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
        blobs.extend(entered.draft.take_blobs());
        blobs.extend(self.notes().files.iter().take(entered.files).cloned());
        let prepared = Prepared {
            anchor,
            blob: prepared_blob,
            update,
            entered,
            remembered: content.remembered,
        };
        Ok((prepared, blobs))
    }

    fn adopt(&self, prepared: Prepared) {
        {
            let mut notes = self.notes();
            notes.events.drain(..prepared.entered.events);
            notes.files.drain(..prepared.entered.files);
        }
        self.index().apply(prepared.update);
        self.log.adopt(prepared.entered.draft);
        self.log.anchored(&prepared.remembered);
        *self.anchor_blob() = Some(prepared.blob);
        self.anchor.send_replace(prepared.anchor);
    }
}

impl Submission {
    fn bytes(&self) -> usize {
        self.blobs.iter().map(|sealed| sealed.blob.len()).sum()
    }
}

/// Makes a transaction for what is noted, when none takes it along. Keeps nothing alive while it waits.
pub(super) async fn keep_noted(
    inner: Weak<Inner>,
    submissions: mpsc::WeakSender<Submission>,
    noted: Arc<Notify>,
) {
    // Whose the first of what is noted is, once it may be stored.
    let first = |inner: &Inner| {
        let notes = inner.notes();
        let owner = notes.events.front().map(|(owner, _)| owner.clone());
        owner.filter(|_| inner.lease.check().is_ok())
    };
    while let Some(state) = inner.upgrade() {
        let waits = first(&state).is_some();
        drop(state);
        if !waits {
            // Something is noted, or the lease was taken up, or nobody is there any more.
            let _ = tokio::time::timeout(LATER * 10, noted.notified()).await;
            continue;
        }
        tokio::time::sleep(LATER).await;
        let owner = inner.upgrade().and_then(|state| first(&state));
        let (Some(owner), Some(submissions)) = (owner, submissions.upgrade()) else {
            continue;
        };
        if let Err(error) = submit(&submissions, owner, Kind::Ordinary, vec![], vec![]).await {
            tracing::warn!(%error, "entries of the audit log wait to be stored");
            drop(submissions);
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
