//! One live instance of each party, and no state but the newest.
//!
//! A party's disk is its host's, and a host can copy it or go back to yesterday's. What it cannot change is what
//! the other parties remember: how far each party's state had come when they last dealt with it, and which
//! instance (boot id) that was. So an instance asks its peers when it starts, and serves when more than half of
//! them take it for the only one. A peer that takes a newer instance never deals with the older one again.
//!
//! This module decides; `state.rs` commits nothing without its word, `grpc/peers.rs` carries the messages.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use arca_proto::v1 as wire;
use tokio::sync::watch;
use tonic::Code;

use arca_audit::entry::{Event, Hex};

use crate::{core::Core, error::Error, log::SeenLog};

/// Fenced instances of one peer that are remembered.
const FENCED: usize = 16;
/// Between two attempts to take up a lease, and two looks at what there is to seal.
const RETRY: Duration = Duration::from_secs(1);
/// How long peers may not know of a change that no other frame tells them.
const TELL: Duration = Duration::from_millis(50);

/// A point in the history of a party's sealed state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anchor {
    /// Counts the changes of the state; 0 before the first.
    pub sequence: u64,
    /// Covers the whole state and all of its history.
    pub head: [u8; 32],
}

/// 16 bytes, drawn at each start.
pub type BootId = [u8; 16];

/// What this party remembers of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The instance that this party deals with.
    pub boot_id: BootId,
    /// Counts the peer's instances that were granted.
    pub grants: u64,
    /// The furthest that the peer's state was seen.
    pub anchor: Anchor,
    /// Instances that this party never deals with again, the newest last.
    pub fenced: Vec<BootId>,
    /// The newest checkpoint of the peer's log.
    pub log: Option<SeenLog>,
}

/// Why a peer does not deal with an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objection {
    /// It started with less than the peer saw.
    RolledBack,
    /// Its state is another one than the peer saw, at the same sequence.
    Forked,
    /// The peer has granted a newer instance.
    Fenced,
}

/// An objection, and the last that the peer saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub objection: Objection,
    /// What the peer remembers.
    pub known: Anchor,
}

impl Objection {
    /// Stable, in UPPER_SNAKE_CASE.
    pub fn reason(self) -> &'static str {
        match self {
            Self::RolledBack => "STATE_ROLLED_BACK",
            Self::Forked => "STATE_FORKED",
            Self::Fenced => "FENCED",
        }
    }

    /// The inverse of [`reason`](Self::reason).
    pub fn of(reason: &str) -> Option<Self> {
        [Self::RolledBack, Self::Forked, Self::Fenced]
            .into_iter()
            .find(|objection| objection.reason() == reason)
    }
}

/// Takes up the lease as soon as enough peers have granted it.
pub async fn keep(core: Arc<Core>) {
    let mut membership = core.follow_membership();
    loop {
        let owner = membership
            .borrow_and_update()
            .as_ref()
            .map(|membership| membership.owner.clone());
        if let Some(owner) = owner
            && core.lease.standing() == Standing::Waiting
            && core.lease.is_granted()
        {
            let held = Event::LeaseHeld {
                boot: Hex(core.boot_id),
            };
            match core.state.record_first(&owner, held).await {
                Ok(_) => {
                    core.lease.hold();
                    tracing::info!(party = owner.party, "holds its lease");
                }
                Err(error) => tracing::warn!(%error, "the lease could not be taken up yet"),
            }
        }
        tokio::select! {
            () = core.leasing.notified() => {}
            changed = membership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Tells the peers how far this party's state and log have come, and gives them its cosignatures, where no other frame
/// does.
pub async fn keep_told(core: Arc<Core>) {
    let mut anchor = core.state.anchor();
    loop {
        tokio::select! {
            changed = anchor.changed() => if changed.is_err() { return },
            () = core.log.news.notified() => {}
        }
        tokio::time::sleep(TELL).await;
        if let Ok(membership) = core.membership() {
            core.network.tell_anchor(&membership.party);
        }
    }
}

/// Seals what is remembered of the peers, where no change of this party's own state does.
pub async fn keep_sealed(core: Arc<Core>) {
    loop {
        tokio::time::sleep(RETRY).await;
        let Ok(membership) = core.membership() else {
            continue;
        };
        // A checkpoint is cosigned once an anchor holds it. That makes no entry in the log, so nothing to cosign in turn.
        let unanchored = core.lease.standing() == Standing::Held
            && core.log.has_unanchored(&core.lease.remembered());
        let stored = if unanchored {
            core.state.anchor_remembered(&membership.owner).await
        } else if core.lease.has_unsealed() {
            core.state.store_remembered(&membership.owner).await
        } else {
            continue;
        };
        if let Err(error) = stored {
            tracing::warn!(%error, "what is remembered of the peers could not be sealed yet");
        }
    }
}

/// Whether this instance may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not enough peers have said yet that its state is the newest that they know of.
    Waiting,
    /// It may.
    Held,
    /// It may not, before it is restarted or its loss is accepted.
    Lost(Objection),
}

/// What a peer said of this instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It deals with this instance.
    Granted,
    /// It does not.
    Denied(Denial),
    /// The administrators said not to wait for it.
    Waived,
}

/// This instance's standing with its peers, and theirs with this party.
pub struct Lease {
    inner: Mutex<Inner>,
    standing: watch::Sender<Standing>,
}

#[derive(Default)]
struct Inner {
    me: String,
    peers: Vec<String>,
    start: Anchor,
    remembered: BTreeMap<String, Remembered>,
    unsealed: bool,
    /// Peers whose present instance was judged well and is not sealed as such yet.
    unsealed_grants: BTreeSet<String>,
    words: BTreeMap<String, Word>,
    /// The last instance of each peer that was denied, and why.
    denied: BTreeMap<String, (BootId, Objection)>,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            standing: watch::Sender::new(Standing::Waiting),
        }
    }
}

impl Lease {
    /// Whose instance this is, and which peers the manifest gives it.
    pub fn set_peers(&self, me: &str, peers: Vec<String>) {
        let mut inner = self.lock();
        me.clone_into(&mut inner.me);
        inner.peers = peers;
        inner.settle(&self.standing);
    }

    /// The state as this instance found it, and what it then remembered of its peers.
    pub fn set_start(&self, start: Anchor, remembered: BTreeMap<String, Remembered>) {
        let mut inner = self.lock();
        inner.start = start;
        for (peer, mut found) in remembered {
            if let Some(known) = inner.remembered.get_mut(&peer) {
                let further =
                    |log: &Option<SeenLog>| log.as_ref().map(|log| (log.point.log, log.point.size));
                if further(&known.log) > further(&found.log) {
                    found.log.clone_from(&known.log);
                }
                if (known.grants, known.anchor.sequence) > (found.grants, found.anchor.sequence) {
                    known.log = found.log;
                    continue;
                }
            }
            inner.remembered.insert(peer, found);
        }
    }

    /// The state as this instance found it at its start.
    pub fn start(&self) -> Anchor {
        self.lock().start
    }

    /// How many peers have to grant.
    pub fn needed(&self) -> usize {
        needed(self.lock().peers.len())
    }

    /// What is remembered of each peer.
    pub fn remembered(&self) -> BTreeMap<String, Remembered> {
        self.lock().remembered.clone()
    }

    /// What is remembered of each peer, to be sealed now; it counts as sealed until [`not_sealed`](Self::not_sealed).
    pub fn seal_remembered(&self) -> BTreeMap<String, Remembered> {
        let mut inner = self.lock();
        inner.unsealed = false;
        inner.remembered.clone()
    }

    /// Whether something is remembered that is not sealed.
    pub fn has_unsealed(&self) -> bool {
        self.lock().unsealed
    }

    /// What was to be sealed could not be.
    pub fn not_sealed(&self) {
        self.lock().unsealed = true;
    }

    /// What the peers said of this instance.
    pub fn words(&self) -> BTreeMap<String, Word> {
        self.lock().words.clone()
    }

    /// Decides about an instance of `peer` that claims to be its only one. Says whether this has to be sealed before the
    /// peer is told (see [`sealed_grant`](Self::sealed_grant)), and the link of an older one has to end.
    ///
    /// # Errors
    /// [`Denial`] when this party does not deal with it.
    pub fn judge(
        &self,
        peer: &str,
        boot_id: &BootId,
        start: Anchor,
        current: Anchor,
    ) -> Result<bool, Denial> {
        let mut inner = self.lock();
        let Some(known) = inner.remembered.get_mut(peer) else {
            let first = Remembered {
                boot_id: *boot_id,
                grants: 1,
                anchor: current,
                fenced: Vec::new(),
                log: None,
            };
            inner.remembered.insert(peer.to_owned(), first);
            inner.unsealed_grants.insert(peer.to_owned());
            return Ok(true);
        };
        if known.fenced.contains(boot_id) {
            return Err(known.denial(Objection::Fenced));
        }
        if known.boot_id == *boot_id {
            known.advance(current)?;
            return Ok(inner.unsealed_grants.contains(peer));
        }
        if start.sequence < known.anchor.sequence {
            return Err(known.denial(Objection::RolledBack));
        }
        if start.sequence == known.anchor.sequence && start.head != known.anchor.head {
            return Err(known.denial(Objection::Forked));
        }
        known.fence(known.boot_id);
        known.boot_id = *boot_id;
        known.grants = known.grants.saturating_add(1);
        if current.sequence > known.anchor.sequence {
            known.anchor = current;
        }
        inner.unsealed_grants.insert(peer.to_owned());
        Ok(true)
    }

    /// What [`judge`](Self::judge) decided for this instance of `peer` is sealed.
    pub fn sealed_grant(&self, peer: &str, boot_id: &BootId) {
        let mut inner = self.lock();
        let known = inner.remembered.get(peer);
        if known.is_some_and(|known| known.boot_id == *boot_id) {
            inner.unsealed_grants.remove(peer);
        }
    }

    /// Whether an instance of `peer` is denied for this reason for the first time in a row: it will ask again and again.
    pub fn is_news(&self, peer: &str, boot_id: &BootId, objection: Objection) -> bool {
        let mut inner = self.lock();
        let now = (*boot_id, objection);
        inner.denied.insert(peer.to_owned(), now) != Some(now)
    }

    /// Takes note of how far a peer's state has come.
    ///
    /// # Errors
    /// [`Denial`] when this party does not deal with that instance any more, or its state contradicts what was seen.
    pub fn observe(&self, peer: &str, boot_id: &BootId, current: Anchor) -> Result<(), Denial> {
        let mut inner = self.lock();
        let Some(known) = inner.remembered.get_mut(peer) else {
            return Ok(());
        };
        if known.boot_id != *boot_id || known.fenced.contains(boot_id) {
            return Err(known.denial(Objection::Fenced));
        }
        let advanced = known.advance(current);
        inner.unsealed |= advanced != Ok(false);
        advanced.map(drop)
    }

    /// What was seen of a peer's log.
    pub fn seen_log(&self, peer: &str) -> Option<SeenLog> {
        self.lock().remembered.get(peer)?.log.clone()
    }

    /// Takes a checkpoint of a peer's log for its newest. It was found to continue `before`.
    ///
    /// Says whether it was taken: not if another one was meanwhile, or that instance is not dealt with any more.
    pub fn saw_log(
        &self,
        peer: &str,
        boot_id: &BootId,
        before: Option<&SeenLog>,
        now: SeenLog,
    ) -> bool {
        let mut inner = self.lock();
        let Some(known) = inner.remembered.get_mut(peer) else {
            return false;
        };
        let current = known.boot_id == *boot_id && !known.fenced.contains(boot_id);
        if !current || known.log.as_ref() != before {
            return false;
        }
        if before != Some(&now) {
            known.log = Some(now);
            inner.unsealed = true;
        }
        true
    }

    /// An instance showed a log that contradicts what was seen. It is never dealt with again.
    pub fn contradicted(&self, peer: &str, boot_id: &BootId) {
        let mut inner = self.lock();
        if let Some(known) = inner.remembered.get_mut(peer) {
            known.fence(*boot_id);
            inner.unsealed = true;
        }
    }

    /// A peer said something of this instance.
    pub fn hear(&self, peer: &str, word: Word) {
        let mut inner = self.lock();
        let said = inner.words.insert(peer.to_owned(), word);
        if let (Word::Denied(denial), true) = (word, said != Some(word)) {
            tracing::error!(
                peer,
                reason = denial.objection.reason(),
                "{}",
                inner.objection(peer, denial)
            );
            let granted_before = matches!(said, Some(Word::Granted));
            if denial.objection != Objection::Fenced && granted_before {
                // A peer that dealt with this boot knows better than to say so; it is not believed.
                inner.words.insert(peer.to_owned(), Word::Granted);
            }
        }
        inner.settle(&self.standing);
    }

    /// The administrators accepted this state and gave it a new anchor; nothing that was said before counts.
    pub fn accept(&self, start: Anchor, waived: &[String]) {
        let mut inner = self.lock();
        inner.start = start;
        inner.words.clear();
        for peer in waived {
            inner.words.insert(peer.clone(), Word::Waived);
        }
        self.standing.send_replace(Standing::Waiting);
        inner.settle(&self.standing);
    }

    /// Whether enough peers grant, so that the first commit of this boot may be made.
    pub fn is_granted(&self) -> bool {
        let inner = self.lock();
        !matches!(*self.standing.borrow(), Standing::Lost(_)) && inner.is_granted()
    }

    /// The first commit of this boot is made.
    pub fn hold(&self) {
        let inner = self.lock();
        if inner.is_granted() {
            self.standing.send_if_modified(|standing| {
                let waited = *standing == Standing::Waiting;
                if waited {
                    *standing = Standing::Held;
                }
                waited
            });
        }
    }

    /// Whether this instance may act.
    pub fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// Changes with the standing, and with what peers say while it is awaited.
    pub fn follow(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Whether this instance may act now.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn check(&self) -> Result<(), Error> {
        match self.standing() {
            Standing::Held => Ok(()),
            Standing::Waiting | Standing::Lost(_) => Err(self.refusal()),
        }
    }

    /// Waits for a standing that is not to be waited for.
    ///
    /// # Errors
    /// As [`check`](Self::check), when `limit` has passed too.
    pub async fn wait(&self, limit: Duration) -> Result<(), Error> {
        let mut follow = self.follow();
        let settled = follow.wait_for(|standing| *standing != Standing::Waiting);
        // Whatever came of it stands in the lease.
        let _ = tokio::time::timeout(limit, settled).await;
        self.check()
    }

    /// Why this instance does not act, for people; empty when it does.
    pub fn explanation(&self) -> String {
        match self.check() {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    fn refusal(&self) -> Error {
        let inner = self.lock();
        let denied: Vec<(&String, Denial)> = inner.denials().collect();
        let said = denied.first().map(|(_, denial)| denial.objection);
        let reason = match (self.standing(), said) {
            (Standing::Lost(objection), _) | (_, Some(objection)) => objection.reason(),
            (Standing::Waiting | Standing::Held, None) => {
                if inner.is_granted() {
                    return Error::Unavailable {
                        reason: "LEASE_NOT_HELD",
                        message: format!(
                            "{}'s peers have granted its lease, and the change of its state that takes it up is not \
                             stored yet; if this lasts, see that its host runs and has room (the enclave's log \
                             says what it answers)",
                            inner.me
                        ),
                        parties: Vec::new(),
                    };
                }
                let missing = inner.silent();
                return Error::Unavailable {
                    reason: "LEASE_NOT_HELD",
                    message: format!(
                        "{} does not serve before {} of its {} peers have said that its state is the newest they \
                         know of; nothing was heard from {}: see that their hosts and enclaves run and are \
                         enrolled (if one is gone for good: arca party accept-loss --help)",
                        inner.me,
                        needed(inner.peers.len()),
                        inner.peers.len(),
                        missing.join(", ")
                    ),
                    parties: missing,
                };
            }
        };
        let said: Vec<String> = denied
            .iter()
            .map(|(peer, denial)| inner.objection(peer, *denial))
            .collect();
        Error::reject(Code::FailedPrecondition, reason, said.join("; "))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// More than half: two instances of a party cannot both have that many of its peers.
fn needed(peers: usize) -> usize {
    if peers == 0 { 0 } else { peers / 2 + 1 }
}

impl Inner {
    fn is_granted(&self) -> bool {
        let granted = self
            .peers
            .iter()
            .filter(|peer| matches!(self.words.get(*peer), Some(Word::Granted | Word::Waived)))
            .count();
        !self.me.is_empty() && granted >= needed(self.peers.len())
    }

    fn denials(&self) -> impl Iterator<Item = (&String, Denial)> {
        self.peers
            .iter()
            .filter_map(|peer| match self.words.get(peer) {
                Some(Word::Denied(denial)) => Some((peer, *denial)),
                Some(Word::Granted | Word::Waived) | None => None,
            })
    }

    fn silent(&self) -> Vec<String> {
        self.peers
            .iter()
            .filter(|peer| !self.words.contains_key(*peer))
            .cloned()
            .collect()
    }

    /// A peer that saw more stops this instance. That a newer instance was granted stops it once that one may have
    /// enough grants to serve: one peer alone cannot stop it so.
    fn settle(&self, standing: &watch::Sender<Standing>) {
        let stale = self
            .denials()
            .find(|(_, denial)| denial.objection != Objection::Fenced);
        let fenced = self.denials().count() >= needed(self.peers.len()).max(1);
        standing.send_modify(|standing| match (stale, fenced) {
            _ if matches!(*standing, Standing::Lost(_)) => {}
            (Some((_, denial)), _) => *standing = Standing::Lost(denial.objection),
            (None, true) => *standing = Standing::Lost(Objection::Fenced),
            (None, false) => {}
        });
    }

    fn objection(&self, peer: &str, denial: Denial) -> String {
        let me = &self.me;
        let (ours, theirs) = (self.start.sequence, denial.known.sequence);
        match denial.objection {
            Objection::RolledBack => format!(
                "{me}'s sealed state is not its newest: object {ANCHOR_OBJECT} has sequence {ours} here, and {peer} saw \
                 sequence {theirs}; restore the newest storage of {me}'s host and restart the enclave, or, if it is \
                 lost, have the administrators accept the loss (arca party accept-loss --help)"
            ),
            Objection::Forked => format!(
                "{me}'s sealed state is not the one that {peer} saw: object {ANCHOR_OBJECT} has sequence {ours} here \
                 and {theirs} there, with another history; two enclaves of {me} have run on copies of one storage: \
                 keep the one whose storage is the newest and restart it, or have the administrators accept the \
                 loss (arca party accept-loss --help)"
            ),
            Objection::Fenced => format!(
                "a newer enclave of {me} is in service at {peer}; this one does not serve any more: stop it, or, if it \
                 is the right one, stop the other and restart this one (object {ANCHOR_OBJECT} had sequence {ours} \
                 when this one started, and has {theirs} at {peer})"
            ),
        }
    }
}

/// The object that the state hangs on; see `state.rs`.
pub const ANCHOR_OBJECT: &str = "anchor";

impl Remembered {
    fn denial(&self, objection: Objection) -> Denial {
        Denial {
            objection,
            known: self.anchor,
        }
    }

    /// Never deals with an instance again.
    fn fence(&mut self, boot_id: BootId) {
        if self.fenced.len() >= FENCED {
            self.fenced.remove(0);
        }
        self.fenced.push(boot_id);
    }

    /// Takes the further of two points; they may arrive out of order. Says whether something changed. An instance that
    /// contradicts itself is two: a memory image that was resumed twice, say. Neither is dealt with again.
    fn advance(&mut self, current: Anchor) -> Result<bool, Denial> {
        if current.sequence == self.anchor.sequence && current.head != self.anchor.head {
            self.fence(self.boot_id);
            return Err(self.denial(Objection::Forked));
        }
        let further = current.sequence > self.anchor.sequence;
        if further {
            self.anchor = current;
        }
        Ok(further)
    }
}

impl From<Anchor> for wire::StateAnchor {
    fn from(anchor: Anchor) -> Self {
        Self {
            sequence: anchor.sequence,
            head: anchor.head.to_vec(),
        }
    }
}

impl TryFrom<wire::StateAnchor> for Anchor {
    type Error = ();

    fn try_from(anchor: wire::StateAnchor) -> Result<Self, ()> {
        Ok(Self {
            sequence: anchor.sequence,
            head: anchor.head.try_into().map_err(|_| ())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A1: BootId = [1; 16];
    const A2: BootId = [2; 16];

    fn at(sequence: u64) -> Anchor {
        Anchor {
            sequence,
            head: [u8::try_from(sequence).unwrap(); 32],
        }
    }

    fn other(sequence: u64) -> Anchor {
        Anchor {
            sequence,
            head: [0xee; 32],
        }
    }

    fn denied(objection: Objection, known: Anchor) -> Denial {
        Denial { objection, known }
    }

    /// One that has dealt with A1 up to sequence 7.
    fn peer() -> Lease {
        let lease = Lease::default();
        assert_eq!(lease.judge("ceo", &A1, at(3), at(4)), Ok(true));
        lease.sealed_grant("ceo", &A1);
        assert_eq!(lease.observe("ceo", &A1, at(7)), Ok(()));
        lease
    }

    #[test]
    fn the_same_instance_comes_back_and_its_frames_may_be_late() {
        let lease = peer();
        assert_eq!(lease.judge("ceo", &A1, at(3), at(7)), Ok(false));
        assert_eq!(lease.observe("ceo", &A1, at(5)), Ok(()));
        assert_eq!(lease.remembered()["ceo"].anchor, at(7));
    }

    #[test]
    fn a_grant_that_could_not_be_sealed_has_to_be_sealed_the_next_time() {
        let lease = peer();
        assert_eq!(lease.judge("ceo", &A2, at(7), at(7)), Ok(true));
        // Nothing was stored, and the instance connects again; that another one was sealed counts for nothing.
        lease.sealed_grant("ceo", &A1);
        assert_eq!(lease.judge("ceo", &A2, at(7), at(7)), Ok(true));
        lease.sealed_grant("ceo", &A2);
        assert_eq!(lease.judge("ceo", &A2, at(7), at(7)), Ok(false));
    }

    #[test]
    fn a_newer_instance_with_all_of_the_state_fences_the_older_one_for_good() {
        let lease = peer();
        assert_eq!(lease.judge("ceo", &A2, at(7), at(7)), Ok(true));
        let fenced = Err(denied(Objection::Fenced, at(7)));
        assert_eq!(lease.observe("ceo", &A1, at(9)), fenced);
        assert_eq!(
            lease.judge("ceo", &A1, at(9), at(9)),
            Err(denied(Objection::Fenced, at(7)))
        );
        assert_eq!(lease.remembered()["ceo"].grants, 2);
    }

    #[test]
    fn an_instance_that_starts_with_less_is_denied_however_far_it_goes_on_alone() {
        let lease = peer();
        for current in [at(6), at(7), at(200)] {
            assert_eq!(
                lease.judge("ceo", &A2, at(6), current),
                Err(denied(Objection::RolledBack, at(7)))
            );
        }
        assert_eq!(lease.judge("ceo", &A1, at(3), at(8)), Ok(false));
    }

    #[test]
    fn another_history_of_the_same_length_is_denied() {
        let lease = peer();
        let forked = denied(Objection::Forked, at(7));
        assert_eq!(lease.judge("ceo", &A2, other(7), other(7)), Err(forked));
        assert_eq!(lease.remembered()["ceo"].boot_id, A1);
    }

    #[test]
    fn an_instance_that_contradicts_itself_is_never_dealt_with_again() {
        let forked = denied(Objection::Forked, at(7));
        let fenced = denied(Objection::Fenced, at(7));
        let lease = peer();
        assert_eq!(lease.observe("ceo", &A1, other(7)), Err(forked));
        assert_eq!(lease.observe("ceo", &A1, at(8)), Err(fenced));
        assert_eq!(lease.judge("ceo", &A1, at(3), at(9)), Err(fenced));
        assert!(lease.has_unsealed());
        let lease = peer();
        assert_eq!(lease.judge("ceo", &A1, at(3), other(7)), Err(forked));
        assert_eq!(lease.judge("ceo", &A1, at(3), at(9)), Err(fenced));
        assert_eq!(lease.judge("ceo", &A2, at(7), at(7)), Ok(true));
    }

    fn started(peers: &[&str]) -> Lease {
        let lease = Lease::default();
        let peers = peers.iter().map(|peer| (*peer).to_owned()).collect();
        lease.set_peers("ceo", peers);
        lease.set_start(at(6), BTreeMap::new());
        lease
    }

    #[test]
    fn more_than_half_of_the_peers_have_to_grant() {
        for (peers, enough) in [
            (vec![], 0),
            (vec!["b"], 1),
            (vec!["b", "c"], 2),
            (vec!["b", "c", "d"], 2),
            (vec!["b", "c", "d", "e"], 3),
        ] {
            let lease = started(&peers);
            assert_eq!(lease.needed(), enough);
            // Somebody who is no peer of the manifest does not count.
            lease.hear("stranger", Word::Granted);
            for (count, peer) in peers.iter().enumerate() {
                assert_eq!(lease.is_granted(), count >= enough);
                lease.hear(peer, Word::Granted);
            }
            lease.hold();
            assert_eq!(lease.standing(), Standing::Held);
        }
    }

    #[test]
    fn one_peer_that_saw_more_stops_a_start_and_says_both_numbers() {
        let lease = started(&["b", "c", "d", "e"]);
        for peer in ["b", "c", "d"] {
            lease.hear(peer, Word::Granted);
        }
        lease.hear("e", Word::Denied(denied(Objection::RolledBack, at(9))));
        lease.hold();
        assert_eq!(lease.standing(), Standing::Lost(Objection::RolledBack));
        let error = lease.check().unwrap_err();
        assert_eq!(error.reason(), "STATE_ROLLED_BACK");
        for part in ["sequence 6", "sequence 9", "anchor", "accept-loss"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn a_peer_that_granted_this_boot_cannot_call_it_rolled_back_later() {
        let lease = started(&["b", "c"]);
        lease.hear("b", Word::Granted);
        lease.hear("c", Word::Granted);
        lease.hold();
        lease.hear("c", Word::Denied(denied(Objection::RolledBack, at(99))));
        assert_eq!(lease.standing(), Standing::Held);
    }

    #[test]
    fn fenced_by_as_many_as_the_other_needs_it_stops() {
        let lease = started(&["b", "c"]);
        lease.hear("b", Word::Granted);
        lease.hear("c", Word::Granted);
        lease.hold();
        let fenced = Word::Denied(denied(Objection::Fenced, at(9)));
        lease.hear("b", fenced);
        assert_eq!(lease.standing(), Standing::Held);
        lease.hear("c", fenced);
        assert_eq!(lease.standing(), Standing::Lost(Objection::Fenced));
        assert_eq!(lease.check().unwrap_err().reason(), "FENCED");
        lease.hear("b", Word::Granted);
        lease.hold();
        assert_eq!(lease.standing(), Standing::Lost(Objection::Fenced));
    }

    #[test]
    fn an_accepted_loss_starts_over_and_a_waived_peer_counts() {
        let lease = started(&["b", "c"]);
        lease.hear("b", Word::Denied(denied(Objection::RolledBack, at(9))));
        lease.accept(at(10), &["c".to_owned()]);
        assert_eq!(lease.standing(), Standing::Waiting);
        assert!(!lease.is_granted());
        lease.hear("b", Word::Granted);
        lease.hold();
        assert_eq!(lease.standing(), Standing::Held);
    }

    #[test]
    fn of_two_memories_the_further_one_counts() {
        let older = Remembered {
            boot_id: A1,
            grants: 1,
            anchor: at(9),
            fenced: vec![],
            log: None,
        };
        let newer = Remembered {
            boot_id: A2,
            grants: 2,
            anchor: at(9),
            fenced: vec![A1],
            log: None,
        };
        for (first, second) in [(&older, &newer), (&newer, &older)] {
            let lease = Lease::default();
            for memory in [first, second] {
                lease.set_start(at(1), [("ceo".to_owned(), memory.clone())].into());
            }
            assert_eq!(lease.remembered()["ceo"], newer);
        }
    }
}
