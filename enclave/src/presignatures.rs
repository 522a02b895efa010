//! Presignatures: made ahead in the background, kept in memory, spent once.
//!
//! A presignature belongs to a key, its epoch, a set of signers and their running instances, and to the *owner*:
//! the one signer that may coordinate a signature with it. The owner keeps its part in a pool and takes from it;
//! the others keep theirs by name until the owner names it. Taking one removes it before anything else is
//! looked at, and nothing puts one back.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use arca_audit::entry::Event;
use arca_proto::v1::{OpenSession, Presign, open_session::Task};
use arca_threshold::{
    Participant, SessionId,
    ecdsa::{PairSetups, Presignature, PresigningParams, presign},
};
use rand_core::RngCore as _;
use tokio::{sync::Notify, time::Instant};
use tonic::Code;

use crate::{
    core::{Core, Membership},
    error::Error,
    key::{HeldKey, KeyRecord, Share},
    lane::Lane,
    names,
    network::{Opening, SessionKey},
    session::{Ended, MAX_SESSION, PEER_PROTOCOL, Roster, Session},
    tags,
};

/// A pool with less than this part of its high mark is filled up again.
const LOW_PART: usize = 4;
/// Presignatures made in one session: its largest message is some 650 kB.
const BATCH: usize = 16;
/// Pools of one owner; the one longest unused makes room for another.
const POOLS: usize = 64;
/// Presignatures kept for one owner; the oldest make room for new ones. Each is some 500 bytes.
const LENT: usize = 1 << 14;
/// How long a batch may take: it gives way to signing.
const PRESIGNING: Duration = Duration::from_secs(30);
/// How long a round of it may take.
const ROUND: Duration = Duration::from_secs(15);
/// Shortest and longest pause after a batch that failed; doubled each time.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Batches of one owner that are taken part in at a time.
const JOINED: usize = 2;
/// How long to wait for pairwise setups before a batch of another's, and before one of our own, behind which other
/// pools wait.
const GATHER: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(500));

/// Which presignatures can stand in for each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolName {
    /// Resource name of the key.
    pub key: String,
    /// Its epoch.
    pub epoch: u64,
    /// Who signs, in the order of the key's parties.
    pub signers: Vec<String>,
}

/// Named by 32 bytes, the same at all signers.
type Id = [u8; 32];

/// All presignatures of this enclave.
pub struct Presignatures {
    /// What a pool is filled up to; 0: nothing is made ahead.
    high: usize,
    inner: Mutex<Inner>,
    work: Notify,
}

#[derive(Default)]
struct Inner {
    own: HashMap<PoolName, Pool>,
    lent: HashMap<String, Lent>,
    /// How many batches of each owner are under way here.
    joined: HashMap<String, usize>,
}

/// A batch under way that another party owns.
struct Joined<'a> {
    of: &'a Presignatures,
    owner: String,
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        if let Some(joined) = self.of.lock().joined.get_mut(&self.owner) {
            *joined = joined.saturating_sub(1);
        }
    }
}

/// What this party may coordinate with.
struct Pool {
    ready: VecDeque<Presignature>,
    filling: bool,
    used: Instant,
    retry_at: Option<Instant>,
    /// Batches that failed since the last one that did not.
    failures: u32,
}

/// What another party may coordinate with.
#[derive(Default)]
struct Lent {
    by_id: HashMap<Id, Presignature>,
    order: VecDeque<Id>,
}

/// How full a pool is, for the metrics.
pub struct PoolLevel {
    /// Which pool.
    pub name: PoolName,
    /// Presignatures ready.
    pub level: usize,
}

impl Presignatures {
    /// Empty pools that are filled up to `high` presignatures each; 0 makes none.
    pub fn new(high: usize) -> Self {
        Self {
            high,
            inner: Mutex::default(),
            work: Notify::new(),
        }
    }

    /// What pools are filled up to.
    pub fn high(&self) -> usize {
        self.high
    }

    fn low(&self) -> usize {
        self.high.div_ceil(LOW_PART)
    }

    /// Takes `count` presignatures for good, or none if there are not so many. The pool is filled up from now
    /// on.
    ///
    /// `binding` is that of the signers' instances now; presignatures of earlier ones are thrown away.
    pub fn take(
        &self,
        name: &PoolName,
        binding: &[u8; 32],
        count: usize,
    ) -> Option<Vec<Presignature>> {
        if self.high == 0 {
            return None;
        }
        let mut inner = self.lock();
        let pool = inner.pool(name);
        pool.used = Instant::now();
        let taken = pool.take(binding, count);
        if pool.ready.len() < self.low() {
            pool.filling = true;
            self.work.notify_one();
        }
        taken
    }

    /// Fills the pools of a new key, so that its first signature finds presignatures: for as many sets of signers
    /// as there are other parties.
    pub fn want(&self, me: &str, record: &KeyRecord) {
        let others: Vec<&String> = record.parties.iter().filter(|party| *party != me).collect();
        let needed = usize::from(record.threshold).saturating_sub(1);
        if self.high == 0 {
            return;
        }
        let mut inner = self.lock();
        for turn in 0..others.len() {
            let mut others = others.clone();
            others.rotate_left(turn);
            others.truncate(needed);
            let signs = |party: &&String| *party == me || others.contains(party);
            let signers: Vec<String> = record.parties.iter().filter(signs).cloned().collect();
            inner.pool(&pool_name(record, &signers)).filling = true;
        }
        self.work.notify_one();
    }

    /// How many are ready.
    pub fn level(&self, name: &PoolName) -> usize {
        self.lock().own.get(name).map_or(0, |pool| pool.ready.len())
    }

    /// Takes what `owner` names, for good: those that are there, in the order of `ids`.
    pub fn take_lent(&self, owner: &str, ids: &[Vec<u8>]) -> Vec<Presignature> {
        let mut inner = self.lock();
        let Some(lent) = inner.lent.get_mut(owner) else {
            return Vec::new();
        };
        let taken = ids.iter().filter_map(|id| {
            let id = Id::try_from(id.as_slice()).ok()?;
            lent.by_id.remove(&id)
        });
        taken.collect()
    }

    /// Throws away what rests on a pairwise setup that is spoiled.
    pub fn purge(&self) {
        let mut inner = self.lock();
        for pool in inner.own.values_mut() {
            pool.ready
                .retain(|presignature| !presignature.is_poisoned());
        }
        for lent in inner.lent.values_mut() {
            lent.by_id
                .retain(|_, presignature| !presignature.is_poisoned());
            lent.order.retain(|id| lent.by_id.contains_key(id));
        }
    }

    /// Throws a whole pool away, when another signer has not what it should.
    pub fn clear(&self, name: &PoolName) {
        if let Some(pool) = self.lock().own.get_mut(name) {
            pool.ready.clear();
        }
    }

    /// How full every pool is.
    pub fn levels(&self) -> Vec<PoolLevel> {
        let inner = self.lock();
        let levels = inner.own.iter().map(|(name, pool)| PoolLevel {
            name: name.clone(),
            level: pool.ready.len(),
        });
        levels.collect()
    }

    fn put_own(&self, name: &PoolName, made: Vec<Presignature>) {
        let mut inner = self.lock();
        let pool = inner.pool(name);
        (pool.retry_at, pool.failures) = (None, 0);
        pool.ready.extend(made);
        if pool.ready.len() >= self.high {
            pool.filling = false;
        }
    }

    fn put_lent(&self, owner: &str, made: Vec<Presignature>) {
        let mut inner = self.lock();
        let lent = inner.lent.entry(owner.to_owned()).or_default();
        for presignature in made {
            let id = *presignature.id().as_bytes();
            if lent.by_id.insert(id, presignature).is_none() {
                lent.order.push_back(id);
            }
        }
        // Names of what was taken stay in the order until they come to the front.
        while lent.order.len() > LENT {
            if let Some(oldest) = lent.order.pop_front() {
                lent.by_id.remove(&oldest);
            }
        }
    }

    /// Puts the next batch off. Whether it is the first that failed.
    fn failed(&self, name: &PoolName) -> bool {
        let mut inner = self.lock();
        let Some(pool) = inner.own.get_mut(name) else {
            return false;
        };
        let pause = RETRY.0.saturating_mul(1 << pool.failures.min(10));
        pool.retry_at = Some(Instant::now() + pause.min(RETRY.1));
        pool.failures += 1;
        pool.failures == 1
    }

    /// A place among the batches of `owner` that this party takes part in.
    fn join(&self, owner: &str) -> Result<Joined<'_>, Error> {
        let mut inner = self.lock();
        let joined = inner.joined.entry(owner.to_owned()).or_default();
        if *joined >= JOINED {
            return Err(Error::reject(
                Code::ResourceExhausted,
                "TOO_MANY_PRESIGNING_SESSIONS",
                format!("at most {JOINED} at a time"),
            ));
        }
        *joined += 1;
        Ok(Joined {
            of: self,
            owner: owner.to_owned(),
        })
    }

    /// The pool to fill next: the emptiest of those that want it. Or when to look again.
    fn next(&self) -> Result<PoolName, Option<Instant>> {
        let now = Instant::now();
        let inner = self.lock();
        let wanting = || inner.own.iter().filter(|(_, pool)| pool.filling);
        let due = wanting()
            .filter(|(_, pool)| pool.retry_at.is_none_or(|at| at <= now))
            .min_by_key(|(_, pool)| pool.ready.len());
        match due {
            Some((name, _)) => Ok(name.clone()),
            None => Err(wanting().filter_map(|(_, pool)| pool.retry_at).min()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Inner {
    fn pool(&mut self, name: &PoolName) -> &mut Pool {
        if !self.own.contains_key(name) && self.own.len() >= POOLS {
            let unused = self.own.iter().min_by_key(|(_, pool)| pool.used);
            if let Some(unused) = unused.map(|(name, _)| name.clone()) {
                self.own.remove(&unused);
            }
        }
        self.own.entry(name.clone()).or_insert_with(|| Pool {
            ready: VecDeque::new(),
            filling: false,
            used: Instant::now(),
            retry_at: None,
            failures: 0,
        })
    }
}

impl Pool {
    /// The oldest usable ones. Those that are not usable any more are let go of on the way.
    fn take(&mut self, binding: &[u8; 32], count: usize) -> Option<Vec<Presignature>> {
        let usable = |presignature: &Presignature| {
            presignature.binding() == binding && !presignature.is_poisoned()
        };
        while self.ready.front().is_some_and(|oldest| !usable(oldest)) {
            self.ready.pop_front();
        }
        if self.ready.len() < count {
            return None;
        }
        let taken: Vec<Presignature> = self.ready.drain(..count).filter(usable).collect();
        (taken.len() == count).then_some(taken)
    }
}

/// The pool of a key for these signers.
pub fn pool_name(record: &KeyRecord, signers: &[String]) -> PoolName {
    PoolName {
        key: record.name.clone(),
        epoch: record.epoch,
        signers: signers.to_vec(),
    }
}

/// What presignatures live and die with: cluster, key, epoch, and the signers' running instances.
///
/// # Errors
/// [`Error::Unavailable`] naming a signer that is not connected.
pub fn binding(
    core: &Core,
    membership: &Membership,
    record: &KeyRecord,
    signers: &[String],
) -> Result<[u8; 32], Error> {
    let instances = instances(core, membership, signers)?;
    let epoch = record.epoch.to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![
        membership.manifest.cluster().as_bytes(),
        record.name.as_bytes(),
        &epoch,
    ];
    for (party, boot_id) in &instances {
        parts.extend([party.as_bytes(), boot_id.as_slice()]);
    }
    Ok(names::tagged_digest(tags::PRESIGNATURE_BINDING, &parts))
}

/// The pairwise setups with all other signers, by share index.
///
/// # Errors
/// [`Error::Unavailable`] when there is none with one of them, nor in `limit`.
pub async fn setups(
    core: &Core,
    membership: &Membership,
    record: &KeyRecord,
    signers: &[String],
    limit: Duration,
) -> Result<PairSetups, Error> {
    let others: Vec<(String, [u8; 16])> = instances(core, membership, signers)?
        .into_iter()
        .filter(|(party, _)| *party != membership.party)
        .collect();
    let ready = core.pairs.wait_for(&others, limit).await?;
    let indices = others.iter().map(|(party, _)| {
        record
            .index_of(party)
            .ok_or(Error::Bug("a signer holds no share"))
    });
    indices
        .zip(ready)
        .map(|(index, setup)| Ok((index?, setup)))
        .collect()
}

/// Each signer with the boot id of its running instance, as the channels proved.
fn instances(
    core: &Core,
    membership: &Membership,
    signers: &[String],
) -> Result<Vec<(String, [u8; 16])>, Error> {
    let links = core.network.links();
    signers
        .iter()
        .map(|party| {
            let boot_id = if *party == membership.party {
                core.boot_id
            } else {
                links
                    .get(party)
                    .ok_or_else(|| crate::network::not_connected(party))?
                    .boot_id
            };
            Ok((party.clone(), boot_id))
        })
        .collect()
}

/// After a session that ended badly: whoever spoiled a setup is named, and what rests on it is gone.
pub fn clean_up(
    core: &Core,
    participants: &BTreeMap<Participant, String>,
    setups: &PairSetups,
    ended: &Ended,
) {
    // A peer that saw a check fail has thrown its side away, and one without a setup never had one.
    let without_setup = ended.ended_by(&[
        "CONSISTENCY_CHECK",
        "PAIR_SETUP_MISSING",
        "PAIR_SETUP_SPOILED",
    ]);
    // Two that do not mean the same setup would go on refusing each other.
    let only_two = setups.len() == 1;
    let disagree = ended.error.reason() == "CONTEXT_MISMATCH"
        || ended.ended_by(&["CONTEXT_MISMATCH"]).is_some();
    for (index, setup) in setups {
        let Some(peer) = participants.get(index) else {
            continue;
        };
        if setup.is_poisoned() || without_setup == Some(peer.as_str()) || (only_two && disagree) {
            let culprit = ended.error.culprits().contains(peer);
            core.pairs.discard(peer, setup, culprit);
            core.note(Event::SetupDiscarded {
                peer: peer.clone(),
                reason: ended.error.reason().to_owned(),
                culprits: ended.error.culprits().to_vec(),
            });
        }
    }
    core.presignatures.purge();
}

/// Fills the pools, one batch at a time.
pub async fn keep_filled(core: Arc<Core>) {
    loop {
        match core.presignatures.next() {
            Ok(name) => {
                if let Err(ended) = fill(&core, &name).await
                    && core.presignatures.failed(&name)
                {
                    tracing::info!(
                        key = name.key,
                        signers = name.signers.join(","),
                        error = %ended.error,
                        "no presignatures; trying again until there are"
                    );
                }
            }
            Err(at) => {
                let later = at.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
                tokio::select! {
                    () = core.presignatures.work.notified() => {}
                    () = tokio::time::sleep_until(later) => {}
                }
            }
        }
    }
}

/// One batch for a pool of this party's.
async fn fill(core: &Arc<Core>, name: &PoolName) -> Result<(), Ended> {
    let membership = core.membership()?;
    let held = core.key(&name.key).await?;
    if held.record.epoch != name.epoch {
        core.presignatures.lock().own.remove(name);
        return Ok(());
    }
    let mut session = SessionKey::default();
    core.randomness
        .generator(&*core.platform)
        .map_err(Error::from)?
        .fill_bytes(&mut session);
    let setups = setups(core, &membership, &held.record, &name.signers, GATHER.1).await?;
    let frames = core
        .network
        .open(session, &membership.party, &name.signers)?;
    let participants = held.record.indices(&name.signers)?;
    let mut run = Session::new(
        Arc::clone(&core.network),
        Roster {
            id: session,
            me: membership.party.clone(),
            key_epoch: held.record.epoch,
            participants: participants.clone(),
            timeout: PRESIGNING,
        },
        frames,
    )
    .with_round_timeout(ROUND);
    run.open(&OpenSession {
        version: PEER_PROTOCOL,
        participants: name.signers.clone(),
        timeout_ms: u32::try_from(PRESIGNING.as_millis()).unwrap_or(u32::MAX),
        task: Some(Task::Presign(Presign {
            key: name.key.clone(),
            public_key_package_digest: held.share.public_key_package_digest().to_vec(),
            count: u32::try_from(BATCH).unwrap_or(u32::MAX),
        })),
    })?;
    let made = run_presigning(
        core,
        &membership,
        &held,
        session,
        &name.signers,
        BATCH,
        setups,
        &mut run,
    )
    .await?;
    // Not before the others have theirs at hand.
    run.confirm_stored(names_of(&made), core.state.footing()?)
        .await?;
    core.presignatures.put_own(name, made);
    Ok(())
}

/// Takes part in a batch that a peer will coordinate with.
pub async fn participate(core: Arc<Core>, opening: Opening, task: Presign) {
    let from = opening.from.clone();
    if let Err(ended) = join(&core, opening, task).await {
        tracing::info!(owner = from, error = %ended.error, "no presignatures");
    }
}

async fn join(core: &Arc<Core>, opening: Opening, task: Presign) -> Result<(), Ended> {
    let signers = opening.participants();
    let count = usize::try_from(task.count).unwrap_or(usize::MAX);
    let checked = async {
        let place = core.presignatures.join(&opening.from)?;
        let membership = core.membership()?;
        let session = SessionKey::try_from(opening.frame.session.as_slice())
            .map_err(|_| Error::Bug("a session without an id was routed"))?;
        let held = core.key(&task.key).await?;
        let (record, share) = (&held.record, &held.share);
        if task.public_key_package_digest != share.public_key_package_digest()
            || opening.frame.key_epoch != record.epoch
        {
            return Err(Error::invalid(
                "OTHER_KEY",
                "the owner holds another key of this name",
            ));
        }
        let revoked = |signer: &String| membership.manifest.party(signer).is_none();
        if record.indices(&signers)?.len() != signers.len()
            || signers.len() < usize::from(record.threshold)
            || signers.iter().any(revoked)
            || !signers.contains(&membership.party)
            || !signers.contains(&opening.from)
            || !(1..=BATCH).contains(&count)
        {
            return Err(Error::invalid(
                "INVALID_OPENING",
                "the opening contradicts itself",
            ));
        }
        let setups = setups(core, &membership, record, &signers, GATHER.0).await?;
        // Only an owner that knows the key to be complete makes presignatures for it.
        let held = crate::keygen::enable(core, &held).await?;
        Ok((place, membership, session, held, setups))
    };
    let (_place, membership, session, held, setups) = match checked.await {
        Ok(checked) => checked,
        Err(error) => {
            opening.refuse(&core.network, &error);
            return Err(error.into());
        }
    };
    let owner = opening.from.clone();
    let mut run = Session::new(
        Arc::clone(&core.network),
        Roster {
            id: session,
            me: membership.party.clone(),
            key_epoch: held.record.epoch,
            participants: held.record.indices(&signers)?,
            timeout: opening.timeout().min(MAX_SESSION),
        },
        opening.inbox,
    )
    .with_round_timeout(ROUND);
    let made = run_presigning(
        core,
        &membership,
        &held,
        session,
        &signers,
        count,
        setups,
        &mut run,
    )
    .await?;
    let names = names_of(&made);
    core.presignatures.put_lent(&owner, made);
    run.confirm_stored(names, core.state.footing()?).await
}

/// The protocol itself, the same at every signer, behind everything else that the enclave does.
#[allow(
    clippy::too_many_arguments,
    reason = "a session's parts, from two callers"
)]
async fn run_presigning(
    core: &Arc<Core>,
    membership: &Membership,
    held: &HeldKey,
    session: SessionKey,
    signers: &[String],
    count: usize,
    setups: PairSetups,
    run: &mut Session,
) -> Result<Vec<Presignature>, Ended> {
    let Share::Ecdsa(package) = &held.share else {
        return Err(Error::invalid("SCHEME", "only ECDSA keys have presignatures").into());
    };
    let participants = held.record.indices(signers)?;
    let params = PresigningParams {
        session: SessionId::new(session),
        binding: binding(core, membership, &held.record, signers)?,
        signers: participants.keys().copied().collect(),
        count,
    };
    let lane = Lane::Background(&core.background);
    let mut rng = core
        .randomness
        .generator(&*core.platform)
        .map_err(Error::from)?;
    let (package, with) = (Arc::clone(package), setups.clone());
    let (start, rng) = lane
        .run(move || (presign(package, &with, params, &mut rng), rng))
        .await?;
    let outcome = run.run(start, rng, lane, core.state.footing()?).await;
    if let Err(ended) = &outcome {
        clean_up(core, &participants, &setups, ended);
    }
    outcome
}

/// Digest of a batch's names.
fn names_of(made: &[Presignature]) -> [u8; 32] {
    let ids: Vec<Id> = made.iter().map(|made| *made.id().as_bytes()).collect();
    names::tagged_digest(tags::PRESIGNATURE_NAMES, &[ids.as_flattened()])
}
