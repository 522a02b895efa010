//! What two enclaves need before they sign ECDSA together: a pairwise setup, made when they meet.
//!
//! It belongs to two live instances (boot ids) and lives in memory. The first failed check spoils it, at both: it
//! is thrown away with every presignature that rests on it, and made anew before anything else. A party that
//! makes checks fail again and again is quarantined.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use arca_proto::v1::{MakePairSetup, OpenSession, open_session::Task};
use arca_threshold::{
    Participant, SessionId,
    ecdsa::pairwise::{PairSetup, PairSetupParams, pair_setup},
};
use rand_core::RngCore as _;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tonic::Code;

use crate::{
    core::{Core, Membership},
    error::Error,
    lane::Lane,
    names,
    network::{Opening, SessionKey},
    session::{Ended, MAX_SESSION, PEER_PROTOCOL, Roster, Session},
    state::Footing,
    tags,
};

/// How long a setup may take: four rounds of some ten milliseconds.
const SETUP: Duration = Duration::from_secs(15);
/// How often the parties without a setup are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How long the party whose name comes second waits for the other to begin.
const PRECEDENCE: Duration = Duration::from_secs(2);
/// So many failed checks by one party within [`MEMORY`] quarantine it for [`QUARANTINE`].
const FAILURES: usize = 3;
/// How long a failed check counts.
const MEMORY: Duration = Duration::from_secs(600);
/// How long a quarantine lasts.
const QUARANTINE: Duration = Duration::from_secs(600);
/// Setups with a peer in a minute, whoever begins them: each costs tens of milliseconds.
const OPENINGS: usize = 20;

/// The setups with all peers.
pub struct Pairs {
    pairs: Mutex<HashMap<String, Pair>>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Pair {
    /// The peer's instance that `state` is about.
    boot_id: [u8; 16],
    state: State,
    /// Counts the attempts, so that one that was overtaken changes nothing.
    attempt: u64,
    /// Since when there is none, for a party that gives the other precedence.
    missing_since: Option<Instant>,
    openings: VecDeque<Instant>,
    failures: VecDeque<Instant>,
    quarantined_until: Option<Instant>,
    discarded: u64,
}

#[derive(Default)]
enum State {
    #[default]
    Missing,
    Making {
        own: bool,
    },
    Ready(Arc<PairSetup>),
}

/// How a pair stands, for the metrics.
pub struct PairLevel {
    /// The peer's name.
    pub peer: String,
    /// Whether there is a setup.
    pub ready: bool,
    /// Setups thrown away since the start.
    pub discarded: u64,
    /// Whether the peer is left alone for now.
    pub quarantined: bool,
}

impl Default for Pairs {
    fn default() -> Self {
        Self {
            pairs: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Pairs {
    /// The setups with these peers' running instances, waiting for those that are being made.
    ///
    /// # Errors
    /// [`Error::Unavailable`] naming those that are missing when `limit` has passed, and at once one that is
    /// quarantined.
    pub async fn wait_for(
        &self,
        peers: &[(String, [u8; 16])],
        limit: Duration,
    ) -> Result<Vec<Arc<PairSetup>>, Error> {
        let until = Instant::now() + limit;
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let mut missing = Vec::new();
            let mut ready = Vec::new();
            for (peer, boot_id) in peers {
                self.check_quarantine(peer)?;
                match self.ready(peer, boot_id) {
                    Some(setup) => ready.push(setup),
                    None => missing.push(peer.clone()),
                }
            }
            if missing.is_empty() {
                return Ok(ready);
            }
            if !matches!(timeout_at(until, changes.changed()).await, Ok(Ok(()))) {
                return Err(Error::Unavailable {
                    reason: "PAIR_SETUP_MISSING",
                    message: format!(
                        "no pairwise setup for ECDSA with {} yet; it is made when the enclaves meet",
                        missing.join(", ")
                    ),
                    parties: missing,
                });
            }
        }
    }

    /// The setup with a peer's running instance.
    pub fn ready(&self, peer: &str, boot_id: &[u8; 16]) -> Option<Arc<PairSetup>> {
        match self.lock().get(peer)? {
            Pair {
                boot_id: of,
                state: State::Ready(setup),
                ..
            } if of == boot_id && !setup.is_poisoned() => Some(Arc::clone(setup)),
            _ => None,
        }
    }

    /// Refuses a party that made too many checks fail.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub fn check_quarantine(&self, peer: &str) -> Result<(), Error> {
        if !self.is_quarantined(peer) {
            return Ok(());
        }
        Err(Error::Unavailable {
            reason: "PEER_QUARANTINED",
            message: format!(
                "{peer} failed {FAILURES} consistency checks and is left alone for {} minutes; its enclave is \
                 broken or was tampered with",
                QUARANTINE.as_secs() / 60
            ),
            parties: vec![peer.to_owned()],
        })
    }

    /// Whether a party made too many checks fail of late.
    pub fn is_quarantined(&self, peer: &str) -> bool {
        self.lock()
            .get(peer)
            .is_some_and(|pair| pair.is_quarantined(Instant::now()))
    }

    /// Throws a setup away, for good and with everything that rests on it. `culprit`: a check on what the peer
    /// sent has failed, and not only on the peer's word.
    pub fn discard(&self, peer: &str, setup: &Arc<PairSetup>, culprit: bool) {
        setup.poison();
        let mut pairs = self.lock();
        let pair = pairs.entry(peer.to_owned()).or_default();
        if matches!(&pair.state, State::Ready(ready) if Arc::ptr_eq(ready, setup)) {
            pair.state = State::Missing;
            pair.missing_since = None;
            pair.discarded += 1;
            tracing::warn!(peer, culprit, "threw the pairwise setup away");
        }
        if culprit {
            pair.blame(peer);
        }
        drop(pairs);
        self.changed();
    }

    /// How all pairs stand.
    pub fn levels(&self) -> Vec<PairLevel> {
        let now = Instant::now();
        let pairs = self.lock();
        let levels = pairs.iter().map(|(peer, pair)| PairLevel {
            peer: peer.clone(),
            ready: matches!(pair.state, State::Ready(_)),
            discarded: pair.discarded,
            quarantined: pair.is_quarantined(now),
        });
        levels.collect()
    }

    /// Whether this party should begin a setup with the peer's instance now. `first`: this party's name comes
    /// before the peer's, so the peer waits for it.
    fn is_due(&self, peer: &str, boot_id: &[u8; 16], first: bool) -> bool {
        let now = Instant::now();
        let mut pairs = self.lock();
        let pair = pairs.entry(peer.to_owned()).or_default();
        pair.meet(boot_id);
        let since = *pair.missing_since.get_or_insert(now);
        forget(&mut pair.openings, now, Duration::from_secs(60));
        pair.openings.len() < OPENINGS
            && matches!(pair.state, State::Missing)
            && !pair.is_quarantined(now)
            && (first || now.duration_since(since) >= PRECEDENCE)
    }

    /// Begins an attempt of our own, unless one is under way.
    fn begin_own(self: &Arc<Self>, peer: &str, boot_id: &[u8; 16]) -> Option<Attempt> {
        let mut pairs = self.lock();
        let pair = pairs.entry(peer.to_owned()).or_default();
        pair.meet(boot_id);
        if !matches!(pair.state, State::Missing) {
            return None;
        }
        pair.openings.push_back(Instant::now());
        Some(self.begin(peer, pair, true))
    }

    /// Begins the peer's attempt in place of whatever there is. Of two that begin at once, that of the party whose
    /// name comes first counts.
    fn begin_theirs(
        self: &Arc<Self>,
        me: &str,
        peer: &str,
        boot_id: &[u8; 16],
    ) -> Result<Attempt, Error> {
        self.check_quarantine(peer)?;
        let now = Instant::now();
        let mut pairs = self.lock();
        let pair = pairs.entry(peer.to_owned()).or_default();
        pair.meet(boot_id);
        if me < peer && matches!(pair.state, State::Making { own: true }) {
            return Err(Error::reject(
                Code::Aborted,
                "PAIR_SETUP_UNDER_WAY",
                "this party has begun a setup, and its name comes first",
            ));
        }
        forget(&mut pair.openings, now, Duration::from_secs(60));
        if pair.openings.len() >= OPENINGS {
            return Err(Error::reject(
                Code::ResourceExhausted,
                "TOO_MANY_PAIR_SETUPS",
                format!("at most {OPENINGS} setups in a minute"),
            ));
        }
        pair.openings.push_back(now);
        if let State::Ready(old) = &pair.state {
            // The peer has none any more, so nothing that rests on it can be used.
            old.poison();
            pair.discarded += 1;
        }
        Ok(self.begin(peer, pair, false))
    }

    fn begin(self: &Arc<Self>, peer: &str, pair: &mut Pair, own: bool) -> Attempt {
        pair.attempt += 1;
        pair.state = State::Making { own };
        Attempt {
            pairs: Arc::clone(self),
            peer: peer.to_owned(),
            number: pair.attempt,
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Pair>> {
        self.pairs
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Pair {
    /// Takes notice of the peer's running instance: what was made with an earlier one is gone.
    fn meet(&mut self, boot_id: &[u8; 16]) {
        if self.boot_id == *boot_id {
            if matches!(&self.state, State::Ready(setup) if setup.is_poisoned()) {
                self.state = State::Missing;
                self.discarded += 1;
            }
            return;
        }
        if let State::Ready(old) = &self.state {
            old.poison();
        }
        self.boot_id = *boot_id;
        self.state = State::Missing;
        self.attempt += 1;
        self.missing_since = None;
    }

    fn is_quarantined(&self, now: Instant) -> bool {
        self.quarantined_until.is_some_and(|until| now < until)
    }

    fn blame(&mut self, peer: &str) {
        let now = Instant::now();
        forget(&mut self.failures, now, MEMORY);
        self.failures.push_back(now);
        if self.failures.len() >= FAILURES && !self.is_quarantined(now) {
            self.failures.clear();
            self.quarantined_until = Some(now + QUARANTINE);
            tracing::error!(
                peer,
                minutes = QUARANTINE.as_secs() / 60,
                "quarantined: its messages fail consistency checks again and again"
            );
        }
    }
}

fn forget(times: &mut VecDeque<Instant>, now: Instant, memory: Duration) {
    while times
        .front()
        .is_some_and(|time| now.duration_since(*time) > memory)
    {
        times.pop_front();
    }
}

/// A setup under way. Dropped without a result, it leaves the pair without a setup.
struct Attempt {
    pairs: Arc<Pairs>,
    peer: String,
    number: u64,
}

impl Attempt {
    fn finish(self, setup: PairSetup) {
        self.end(State::Ready(Arc::new(setup)));
    }

    fn end(&self, state: State) {
        let mut pairs = self.pairs.lock();
        if let Some(pair) = pairs.get_mut(&self.peer)
            && pair.attempt == self.number
            && matches!(pair.state, State::Making { .. })
        {
            pair.state = state;
            pair.missing_since = None;
        }
        drop(pairs);
        self.pairs.changed();
    }

    fn blame(&self) {
        if let Some(pair) = self.pairs.lock().get_mut(&self.peer) {
            pair.blame(&self.peer);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // After a result this finds another state and changes nothing.
        self.end(State::Missing);
    }
}

/// Makes setups with all connected peers, whenever one is missing.
pub async fn keep(core: Arc<Core>) {
    let mut links = core.network.changes();
    let mut pairs = core.pairs.changes.subscribe();
    let mut making = JoinSet::new();
    loop {
        while making.try_join_next().is_some() {}
        core.presignatures.purge();
        // Before it holds its lease, an instance takes part in nothing: an attempt would end at once, and use up those
        // of this minute.
        if let Ok(membership) = core.membership()
            && let Ok(stored) = core.state.footing()
        {
            for (peer, link) in core.network.links() {
                let first = membership.party < peer;
                if core.pairs.is_due(&peer, &link.boot_id, first)
                    && let Some(attempt) = core.pairs.begin_own(&peer, &link.boot_id)
                {
                    let (core, membership) = (Arc::clone(&core), Arc::clone(&membership));
                    making.spawn(async move {
                        let made = make(&core, &membership, attempt, link.boot_id, stored);
                        if let Err(ended) = made.await {
                            tracing::info!(peer, error = %ended.error, "no pairwise setup; trying again");
                        }
                    });
                }
            }
        }
        // A failed attempt is tried again at the next tick at the earliest, not at once.
        tokio::select! {
            _ = links.changed() => {}
            _ = pairs.changed() => tokio::time::sleep(TICK / 10).await,
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

async fn make(
    core: &Arc<Core>,
    membership: &Membership,
    attempt: Attempt,
    boot_id: [u8; 16],
    stored: Footing,
) -> Result<(), Ended> {
    let mut session = SessionKey::default();
    core.randomness
        .generator(&*core.platform)
        .map_err(Error::from)?
        .fill_bytes(&mut session);
    let participants = both(&membership.party, &attempt.peer);
    let frames = core
        .network
        .open(session, &membership.party, &participants)?;
    let mut run = Session::new(
        Arc::clone(&core.network),
        roster(membership, session, &participants, SETUP),
        frames,
    );
    run.open(&OpenSession {
        version: PEER_PROTOCOL,
        participants: participants.to_vec(),
        timeout_ms: u32::try_from(SETUP.as_millis()).unwrap_or(u32::MAX),
        task: Some(Task::MakePairSetup(MakePairSetup {})),
    })?;
    run_setup(core, membership, session, attempt, boot_id, run, stored).await
}

/// Takes part in a setup that a peer began.
pub async fn participate(core: Arc<Core>, opening: Opening) {
    let from = opening.from.clone();
    if let Err(ended) = join(&core, opening).await {
        tracing::info!(peer = from, error = %ended.error, "no pairwise setup");
    }
}

async fn join(core: &Arc<Core>, opening: Opening) -> Result<(), Ended> {
    let checked = || {
        let membership = core.membership()?;
        let session = SessionKey::try_from(opening.frame.session.as_slice())
            .map_err(|_| Error::Bug("a session without an id was routed"))?;
        let participants = both(&membership.party, &opening.from);
        if membership.manifest.party(&opening.from).is_none()
            || opening.participants() != participants
            || opening.frame.key_epoch != 0
        {
            return Err(Error::invalid(
                "INVALID_OPENING",
                "the opening contradicts itself",
            ));
        }
        let link = core.network.links().remove(&opening.from);
        let boot_id = link
            .ok_or_else(|| crate::network::not_connected(&opening.from))?
            .boot_id;
        let stored = core.state.footing()?;
        let attempt = core
            .pairs
            .begin_theirs(&membership.party, &opening.from, &boot_id)?;
        Ok((membership, session, participants, attempt, boot_id, stored))
    };
    let (membership, session, participants, attempt, boot_id, stored) = match checked() {
        Ok(checked) => checked,
        Err(error) => {
            opening.refuse(&core.network, &error);
            return Err(error.into());
        }
    };
    let timeout = opening.timeout().min(MAX_SESSION);
    let run = Session::new(
        Arc::clone(&core.network),
        roster(&membership, session, &participants, timeout),
        opening.inbox,
    );
    run_setup(core, &membership, session, attempt, boot_id, run, stored).await
}

/// The protocol itself, the same at both.
async fn run_setup(
    core: &Arc<Core>,
    membership: &Membership,
    session: SessionKey,
    attempt: Attempt,
    boot_id: [u8; 16],
    mut run: Session,
    stored: Footing,
) -> Result<(), Ended> {
    let me_first = membership.party < attempt.peer;
    let [first, second] = [1, 2].map(Participant::new);
    let (me, peer) = if me_first {
        (first, second)
    } else {
        (second, first)
    };
    let (me, peer) = me.zip(peer).ok_or(Error::Bug("1 and 2 are indices"))?;
    let (mine, theirs) = (
        (membership.party.as_bytes(), &core.boot_id),
        (attempt.peer.as_bytes(), &boot_id),
    );
    let (low, high) = if me_first {
        (mine, theirs)
    } else {
        (theirs, mine)
    };
    let params = PairSetupParams {
        session: SessionId::new(session),
        context: names::tagged_digest(
            tags::PAIR_SETUP,
            &[
                membership.manifest.cluster().as_bytes(),
                low.0,
                low.1,
                high.0,
                high.1,
            ],
        ),
        me,
        peer,
    };
    let mut rng = core
        .randomness
        .generator(&*core.platform)
        .map_err(Error::from)?;
    let (start, rng) = Lane::Apart
        .run(move || (pair_setup(params, &mut rng), rng))
        .await?;
    match run.run(start, rng, Lane::Apart, stored).await {
        Ok(setup) => {
            tracing::info!(peer = attempt.peer, "made a pairwise setup for ECDSA");
            attempt.finish(setup);
            Ok(())
        }
        Err(ended) => {
            if ended.error.culprits().contains(&attempt.peer) {
                attempt.blame();
            }
            Err(ended)
        }
    }
}

/// Both names in order, which is that of the share indices.
fn both(me: &str, peer: &str) -> [String; 2] {
    let mut both = [me.to_owned(), peer.to_owned()];
    both.sort();
    both
}

fn roster(
    membership: &Membership,
    id: SessionKey,
    participants: &[String; 2],
    timeout: Duration,
) -> Roster {
    Roster {
        id,
        me: membership.party.clone(),
        key_epoch: 0,
        participants: (1..)
            .filter_map(Participant::new)
            .zip(participants.iter().cloned())
            .collect(),
        timeout,
    }
}

#[cfg(test)]
mod tests {
    use arca_threshold::{Protocol, Transition};
    use rand_core::OsRng;

    use super::*;

    const PEER: &str = "cto";
    const BOOT: [u8; 16] = [1; 16];

    /// Both sides' setup, one as good as another.
    fn setup() -> PairSetup {
        let [one, two] = [1, 2].map(|index| Participant::new(index).unwrap());
        let start = |me, peer| {
            let params = PairSetupParams {
                session: SessionId::new([7; 32]),
                context: [0; 32],
                me,
                peer,
            };
            pair_setup(params, &mut OsRng).unwrap()
        };
        let (mut low, mut to_high) = start(one, two);
        let (mut high, mut to_low) = start(two, one);
        let step = |run: Protocol<PairSetup>, from, outbox: arca_threshold::Outbox| {
            let mut inbox = run.inbox();
            for (_, message) in outbox {
                inbox.insert(from, message).unwrap();
            }
            run.advance(inbox, &mut OsRng).unwrap()
        };
        loop {
            match (step(low, two, to_low), step(high, one, to_high)) {
                (Transition::Continue(l, to_h), Transition::Continue(h, to_l)) => {
                    (low, high, to_high, to_low) = (l, h, to_h, to_l);
                }
                (Transition::Done(setup, _), Transition::Done(..)) => return setup,
                _ => unreachable!("both take four rounds"),
            }
        }
    }

    fn ready(pairs: &Arc<Pairs>) -> Arc<PairSetup> {
        pairs.begin_own(PEER, &BOOT).unwrap().finish(setup());
        pairs.ready(PEER, &BOOT).unwrap()
    }

    #[test]
    fn a_setup_belongs_to_one_instance_and_goes_with_it() {
        let pairs = Arc::new(Pairs::default());
        let setup = ready(&pairs);
        assert!(pairs.ready(PEER, &[2; 16]).is_none());
        assert!(!pairs.is_due(PEER, &BOOT, true));
        assert!(pairs.is_due(PEER, &[2; 16], true), "a new instance");
        assert!(setup.is_poisoned(), "what rests on the old one is gone");
        assert!(pairs.ready(PEER, &BOOT).is_none());
    }

    #[test]
    fn of_two_that_begin_at_once_that_of_the_first_name_counts() {
        let pairs = Arc::new(Pairs::default());
        let own = pairs.begin_own(PEER, &BOOT).unwrap();
        let refused = pairs.begin_theirs("ceo", PEER, &BOOT).err().unwrap();
        assert_eq!(refused.reason(), "PAIR_SETUP_UNDER_WAY");
        // At the other party the same meeting ends the other way, and its own attempt changes nothing any more.
        let theirs = pairs.begin_theirs("z", PEER, &BOOT).unwrap();
        own.finish(setup());
        assert!(pairs.ready(PEER, &BOOT).is_none());
        theirs.finish(setup());
        assert!(pairs.ready(PEER, &BOOT).is_some());
    }

    #[test]
    fn an_attempt_that_fails_leaves_the_way_free() {
        let pairs = Arc::new(Pairs::default());
        drop(pairs.begin_own(PEER, &BOOT));
        assert!(pairs.is_due(PEER, &BOOT, true));
        assert!(pairs.begin_own(PEER, &BOOT).is_some());
    }

    #[test]
    fn a_peer_that_begins_anew_ends_what_there_was() {
        let pairs = Arc::new(Pairs::default());
        let old = ready(&pairs);
        let attempt = pairs.begin_theirs("ceo", PEER, &BOOT).unwrap();
        assert!(old.is_poisoned());
        assert!(pairs.ready(PEER, &BOOT).is_none());
        drop(attempt);
        // And not as often as it likes.
        for _ in 2..OPENINGS {
            drop(pairs.begin_theirs("ceo", PEER, &BOOT).unwrap());
        }
        let refused = pairs.begin_theirs("ceo", PEER, &BOOT).err().unwrap();
        assert_eq!(refused.reason(), "TOO_MANY_PAIR_SETUPS");
    }

    #[tokio::test(start_paused = true)]
    async fn three_failed_checks_quarantine_for_a_while_and_a_peers_word_does_not() {
        let pairs = Arc::new(Pairs::default());
        for _ in 0..5 {
            let setup = ready(&pairs);
            pairs.discard(PEER, &setup, false);
        }
        assert!(!pairs.is_quarantined(PEER));
        for failure in 1..=FAILURES {
            let setup = ready(&pairs);
            pairs.discard(PEER, &setup, true);
            assert!(setup.is_poisoned());
            assert_eq!(pairs.is_quarantined(PEER), failure == FAILURES);
        }
        assert!(!pairs.is_due(PEER, &BOOT, true));
        let refused = pairs.begin_theirs("ceo", PEER, &BOOT).err().unwrap();
        assert_eq!(refused.reason(), "PEER_QUARANTINED");
        let refused = pairs
            .wait_for(&[(PEER.to_owned(), BOOT)], Duration::from_secs(3600))
            .await;
        assert_eq!(refused.err().unwrap().reason(), "PEER_QUARANTINED");
        tokio::time::advance(QUARANTINE).await;
        assert!(!pairs.is_quarantined(PEER));
        assert!(pairs.is_due(PEER, &BOOT, true));
    }

    #[tokio::test(start_paused = true)]
    async fn failed_checks_long_ago_do_not_count() {
        let pairs = Arc::new(Pairs::default());
        for _ in 0..5 {
            let setup = ready(&pairs);
            pairs.discard(PEER, &setup, true);
            tokio::time::advance(MEMORY / 2 + Duration::from_secs(1)).await;
        }
        assert!(!pairs.is_quarantined(PEER));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_needs_a_setup_waits_for_it() {
        let pairs = Arc::new(Pairs::default());
        let wanted = [(PEER.to_owned(), BOOT)];
        let missing = pairs.wait_for(&wanted, Duration::from_secs(1)).await;
        assert_eq!(missing.err().unwrap().reason(), "PAIR_SETUP_MISSING");
        let attempt = pairs.begin_own(PEER, &BOOT).unwrap();
        let waiting = pairs.wait_for(&wanted, Duration::from_secs(3600));
        let making = async {
            tokio::task::yield_now().await;
            attempt.finish(setup());
        };
        let (found, ()) = tokio::join!(waiting, making);
        assert_eq!(found.unwrap().len(), 1);
    }
}
