//! Links to the other enclaves, and which frame belongs to which session.
//!
//! One link per peer carries every session. Nothing here waits for a peer: a queue that is full drops the
//! session that filled it, so that one slow party cannot hold up the others.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use arca_attestation::UnixMillis;
use arca_proto::v1::{
    AbortSession, Frame, OpenSession, RecordRequest, RecordResponse, frame::Body,
};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    error::Error,
    lease::Anchor,
    log::{Log, Told},
    platform::Platform,
    state::LogPlace,
};

/// Frames waiting to be written to one peer.
pub const LINK_QUEUE: usize = 1024;
/// Frames that one session may have waiting: a round of 15 peers, one ahead, and some to spare.
const SESSION_QUEUE: usize = 64;
/// Sessions that one peer may have open here at a time.
const SESSIONS_PER_PEER: usize = 256;
/// Frames kept, per peer, for sessions whose opening has not arrived yet.
const EARLY_FRAMES: usize = 128;
/// Larger ones are not kept: no message of a first round comes near it.
const EARLY_FRAME_BYTES: usize = 1 << 17;
/// How long such a frame is kept.
const EARLY_AGE: Duration = Duration::from_secs(5);
/// Ended sessions that are remembered, so that late frames and replayed openings are dropped.
const TOMBSTONES: usize = 1 << 14;
/// How often a peer is told of this party's log with frames that go to it anyway, at most.
const TELL_LOG: Duration = Duration::from_millis(50);
/// Pings on their way at a time.
const PINGS: usize = 1 << 12;

/// 32 bytes that name one run of a protocol.
pub type SessionKey = [u8; 32];

/// What a peer's link is, for status and for choosing signers.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// Boot id that the peer proved.
    pub boot_id: [u8; 16],
    /// When its evidence was verified.
    pub verified_at: UnixMillis,
}

/// What a session finds in its inbox.
#[derive(Debug)]
pub enum Incoming {
    /// A frame from a peer whom the channel proved.
    Frame {
        /// The peer's name.
        from: String,
        /// The frame; `from`, `to` and `session` are checked.
        frame: Box<Frame>,
    },
    /// The link to this peer is gone.
    LinkDown(String),
}

/// What to do with a frame that opens a session.
pub struct Opening {
    /// Who opens it, as the channel proved.
    pub from: String,
    /// The opening frame.
    pub frame: Frame,
    /// Where the session's frames will arrive; the early ones are already in it.
    pub inbox: Registration,
}

impl Opening {
    /// The participants that the opener names.
    pub fn participants(&self) -> Vec<String> {
        self.open()
            .map(|open| open.participants.clone())
            .unwrap_or_default()
    }

    /// How long the opener gives the session.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.open().map_or(0, |open| u64::from(open.timeout_ms)))
    }

    /// Tells the opener why this party does not take part.
    pub fn refuse(&self, network: &Network, error: &Error) {
        let refusal = Frame {
            session: self.frame.session.clone(),
            key_epoch: self.frame.key_epoch,
            from: self.frame.to.clone(),
            to: self.from.clone(),
            sequence: 1,
            body: Some(Body::Abort(AbortSession {
                reason: error.reason().to_owned(),
                message: error.to_string(),
                culprits: Vec::new(),
            })),
            ..Frame::default()
        };
        // An opener that is gone needs no answer.
        let _ = network.send(refusal);
    }

    fn open(&self) -> Option<&OpenSession> {
        match &self.frame.body {
            Some(Body::Open(open)) => Some(open),
            _ => None,
        }
    }
}

/// All links and sessions of this enclave.
pub struct Network {
    inner: Mutex<Inner>,
    /// How far this party's state has come.
    anchor: watch::Receiver<Anchor>,
    /// This party's log, and what it cosigns of others'.
    log: Arc<Log>,
    /// For the time of cosignatures.
    platform: Arc<dyn Platform>,
    /// Counts link changes, for those who wait for a peer.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    links: HashMap<String, Link>,
    next_generation: u64,
    sessions: HashMap<SessionKey, Entry>,
    tombstones: HashSet<SessionKey>,
    tombstone_order: VecDeque<SessionKey>,
    early: VecDeque<Early>,
    pings: HashMap<u64, oneshot::Sender<()>>,
    /// Questions about a peer's log, by token: whom they went to, and who waits.
    asked: HashMap<u64, (String, oneshot::Sender<RecordResponse>)>,
    next_token: u64,
}

struct Link {
    generation: u64,
    outgoing: mpsc::Sender<Frame>,
    info: LinkInfo,
    /// The last sequence of this party's state that the peer was told.
    told: u64,
    /// How far it was told of this party's log; `None`: it is not to be told, as it saw another one.
    told_log: Option<Told>,
    /// When it was told last.
    told_log_at: Option<Instant>,
}

struct Entry {
    opened_by: String,
    participants: Vec<String>,
    inbox: mpsc::Sender<Incoming>,
}

struct Early {
    from: String,
    arrived: Instant,
    frame: Frame,
}

/// A session's place in the table; leaving it behind ends the session for good.
pub struct Registration {
    network: Arc<Network>,
    session: SessionKey,
    /// The session's frames.
    pub inbox: mpsc::Receiver<Incoming>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.network.lock().bury(self.session);
    }
}

impl Network {
    /// Without links. Every frame says how far the state of `anchor` and the log have come, where that is news to the
    /// peer, and brings this party's cosignature.
    pub fn new(
        anchor: watch::Receiver<Anchor>,
        log: Arc<Log>,
        platform: Arc<dyn Platform>,
    ) -> Self {
        Self {
            inner: Mutex::default(),
            anchor,
            log,
            platform,
            changes: watch::Sender::new(0),
        }
    }

    /// Takes a verified link into use; one that the same peer had before is closed.
    ///
    /// Returns the generation to [`detach`](Self::detach) it with.
    pub fn attach(
        &self,
        peer: &str,
        info: LinkInfo,
        told_log: Option<Told>,
        outgoing: mpsc::Sender<Frame>,
    ) -> u64 {
        let generation = {
            let mut inner = self.lock();
            inner.next_generation += 1;
            let generation = inner.next_generation;
            let link = Link {
                generation,
                outgoing,
                info,
                told: 0,
                told_log,
                told_log_at: None,
            };
            if inner.links.insert(peer.to_owned(), link).is_some() {
                inner.end_sessions_of(peer);
            }
            generation
        };
        self.changes.send_modify(|count| *count += 1);
        generation
    }

    /// Forgets a link and ends the sessions that needed it, unless a newer one has taken its place.
    pub fn detach(&self, peer: &str, generation: u64) {
        let removed = {
            let mut inner = self.lock();
            let current = inner
                .links
                .get(peer)
                .is_some_and(|link| link.generation == generation);
            if current {
                inner.links.remove(peer);
                inner.end_sessions_of(peer);
            }
            current
        };
        if removed {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Whether frames of this link still count.
    pub fn is_current(&self, peer: &str, generation: u64) -> bool {
        let inner = self.lock();
        let link = inner.links.get(peer);
        link.is_some_and(|link| link.generation == generation)
    }

    /// Forgets a peer's link, whichever it is, and ends the sessions that needed it.
    pub fn drop_link(&self, peer: &str) {
        let generation = {
            let inner = self.lock();
            inner.links.get(peer).map(|link| link.generation)
        };
        if let Some(generation) = generation {
            self.detach(peer, generation);
        }
    }

    /// Tells every peer how far this party's state and log have come, and what it cosigned, that was not told with another
    /// frame.
    pub fn tell_anchor(&self, me: &str) {
        let sequence = self.anchor.borrow().sequence;
        let awaiting = self.log.awaiting_cosignature();
        let behind: Vec<String> = {
            let inner = self.lock();
            let links = inner.links.iter();
            let behind = links.filter(|(peer, link)| {
                let log_is_news = |told| self.log.is_news(told);
                link.told < sequence
                    || link.told_log.as_ref().is_some_and(log_is_news)
                    || awaiting.contains(peer)
            });
            behind.map(|(peer, _)| peer.clone()).collect()
        };
        for peer in behind {
            let frame = Frame {
                from: me.to_owned(),
                to: peer,
                ..Frame::default()
            };
            // A peer that does not read its link is told when it connects again.
            let _ = self.send_now(frame, true);
        }
    }

    /// Ends every link and every session.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.links.clear();
        inner.sessions.clear();
    }

    /// The peers that are connected now.
    pub fn links(&self) -> HashMap<String, LinkInfo> {
        let inner = self.lock();
        inner
            .links
            .iter()
            .map(|(name, link)| (name.clone(), link.info.clone()))
            .collect()
    }

    /// Changes whenever a link comes or goes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits until `needed` of `peers` are connected.
    ///
    /// # Errors
    /// [`Error::Unavailable`] listing those that are not, when `limit` has passed.
    pub async fn wait_for(
        &self,
        peers: &[String],
        needed: usize,
        limit: Duration,
    ) -> Result<(), Error> {
        let mut changes = self.changes();
        let enough = changes.wait_for(|_| self.missing(peers).len() + needed <= peers.len());
        if let Ok(Ok(_)) = tokio::time::timeout(limit, enough).await {
            return Ok(());
        }
        let missing = self.missing(peers);
        Err(Error::Unavailable {
            reason: "TOO_FEW_PARTIES",
            message: format!(
                "{} of {} other parties are needed and these are not connected: {}; see that their hosts and \
                 enclaves run",
                needed,
                peers.len(),
                missing.join(", ")
            ),
            parties: missing,
        })
    }

    fn missing(&self, peers: &[String]) -> Vec<String> {
        let inner = self.lock();
        peers
            .iter()
            .filter(|peer| !inner.links.contains_key(*peer))
            .cloned()
            .collect()
    }

    /// Queues a frame for the peer that it names.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the peer is not connected or does not read.
    pub fn send(&self, frame: Frame) -> Result<(), Error> {
        self.send_now(frame, false)
    }

    fn send_now(&self, mut frame: Frame, tell_log: bool) -> Result<(), Error> {
        let mut inner = self.lock();
        let to = frame.to.clone();
        let Some(link) = inner.links.get_mut(&to) else {
            return Err(not_connected(&to));
        };
        let anchor = *self.anchor.borrow();
        if anchor.sequence > link.told {
            frame.state = Some(anchor.into());
            link.told = anchor.sequence;
        }
        // Under load there is news with every frame, and a checkpoint costs three signatures until it is cosigned.
        let due = link
            .told_log_at
            .is_none_or(|told_at| told_at.elapsed() >= TELL_LOG);
        if (due || tell_log)
            && let Some(told) = &mut link.told_log
        {
            frame.checkpoint = self.log.tell(told);
            if frame.checkpoint.is_some() {
                link.told_log_at = Some(Instant::now());
            }
        }
        frame.cosignature = self.log.cosignature(&to, self.platform.now());
        link.outgoing
            .try_send(frame)
            .map_err(|_| Error::Unavailable {
                reason: "PEER_SLOW",
                message: format!("{to} does not read what it is sent; see its host's log"),
                parties: vec![to],
            })
    }

    /// Opens a session of our own.
    ///
    /// # Errors
    /// [`Error::Bug`] if the id was used before.
    pub fn open(
        self: &Arc<Self>,
        session: SessionKey,
        me: &str,
        participants: &[String],
    ) -> Result<Registration, Error> {
        self.lock()
            .register(session, me, participants)
            .map(|inbox| Registration {
                network: self.clone(),
                session,
                inbox,
            })
            .ok_or(Error::Bug("a session id was drawn twice"))
    }

    /// Takes in one frame from `peer`, whom the channel proved, at the party `me`.
    ///
    /// Returns an opening when the frame asks for a new session; every other frame goes where it belongs or
    /// is dropped.
    pub fn route(self: &Arc<Self>, me: &str, peer: &str, frame: Frame) -> Option<Opening> {
        if frame.from != peer || frame.to != me {
            tracing::warn!(
                peer,
                "dropped a frame that names another sender or receiver"
            );
            return None;
        }
        match frame.body {
            None => None,
            Some(Body::Ping(token)) => {
                let pong = Frame {
                    from: me.to_owned(),
                    to: peer.to_owned(),
                    body: Some(Body::Pong(token)),
                    ..Frame::default()
                };
                // A peer that does not read its link gets no answer; its own deadline tells it.
                let _ = self.send(pong);
                None
            }
            Some(Body::Pong(ref token)) => {
                let token = <[u8; 8]>::try_from(token.as_slice()).ok()?;
                let waiting = self.lock().pings.remove(&u64::from_be_bytes(token));
                if let Some(waiting) = waiting {
                    let _ = waiting.send(());
                }
                None
            }
            Some(Body::RecordResponse(response)) => {
                let token = <[u8; 8]>::try_from(response.token.as_slice()).ok()?;
                let token = u64::from_be_bytes(token);
                let mut inner = self.lock();
                if inner.asked.get(&token).is_some_and(|(of, _)| of == peer)
                    && let Some((_, waiting)) = inner.asked.remove(&token)
                {
                    let _ = waiting.send(response);
                }
                None
            }
            // Answered by whoever reads the link.
            Some(Body::RecordRequest(_)) => None,
            Some(Body::Open(ref open)) => {
                let session = SessionKey::try_from(frame.session.as_slice()).ok()?;
                let participants = open.participants.clone();
                let mut inner = self.lock();
                let open_now = inner
                    .sessions
                    .values()
                    .filter(|entry| entry.opened_by == peer)
                    .count();
                if open_now >= SESSIONS_PER_PEER {
                    tracing::warn!(peer, "refused a session: it has too many open");
                    return None;
                }
                let inbox = inner.register(session, peer, &participants)?;
                inner.deliver_early(session);
                drop(inner);
                let inbox = Registration {
                    network: self.clone(),
                    session,
                    inbox,
                };
                Some(Opening {
                    from: peer.to_owned(),
                    frame,
                    inbox,
                })
            }
            // Said once, before a link is in use.
            Some(Body::Claim(_) | Body::Grant(_) | Body::Denial(_)) => None,
            Some(Body::Round(_) | Body::Abort(_) | Body::Stored(_)) => {
                let session = SessionKey::try_from(frame.session.as_slice()).ok()?;
                self.lock().deliver(session, peer, frame);
                None
            }
        }
    }

    /// Sends a ping to `peer` and waits for the answer.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the peer is not connected or does not answer in time.
    pub async fn ping(&self, me: &str, peer: &str, deadline: Duration) -> Result<(), Error> {
        let (answered, answer) = oneshot::channel();
        let token = {
            let mut inner = self.lock();
            if inner.pings.len() >= PINGS {
                inner.pings.retain(|_, waiting| !waiting.is_closed());
            }
            inner.next_token += 1;
            let token = inner.next_token;
            inner.pings.insert(token, answered);
            token
        };
        self.send(Frame {
            from: me.to_owned(),
            to: peer.to_owned(),
            body: Some(Body::Ping(token.to_be_bytes().to_vec())),
            ..Frame::default()
        })?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                self.lock().pings.remove(&token);
                Err(Error::Unavailable {
                    reason: "PEER_TIMEOUT",
                    message: format!("{peer} did not answer within {} ms", deadline.as_millis()),
                    parties: vec![peer.to_owned()],
                })
            }
        }
    }

    /// Asks a peer for what shows that its intent for a session stands in its log: the JSON of a certificate's party.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the peer is not connected, does not answer in time, or cannot.
    pub async fn ask_record(
        &self,
        me: &str,
        peer: &str,
        place: LogPlace,
        session: &SessionKey,
        deadline: Duration,
    ) -> Result<Vec<u8>, Error> {
        let (answered, answer) = oneshot::channel();
        let token = {
            let mut inner = self.lock();
            inner.asked.retain(|_, (_, waiting)| !waiting.is_closed());
            inner.next_token += 1;
            let token = inner.next_token;
            inner.asked.insert(token, (peer.to_owned(), answered));
            token
        };
        self.send(Frame {
            from: me.to_owned(),
            to: peer.to_owned(),
            body: Some(Body::RecordRequest(RecordRequest {
                token: token.to_be_bytes().to_vec(),
                log: place.log,
                index: place.index,
                session: session.to_vec(),
            })),
            ..Frame::default()
        })?;
        let unavailable = |reason, message| Error::Unavailable {
            reason,
            message,
            parties: vec![peer.to_owned()],
        };
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(response)) if !response.party.is_empty() => Ok(response.party),
            Ok(Ok(response)) => {
                let said = format!("{}: {}", response.reason, response.message);
                let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
                let message = format!("{peer} could not give its part of the certificate: {said}");
                Err(unavailable("PEER_RECORD_UNAVAILABLE", message))
            }
            Ok(Err(_)) | Err(_) => {
                self.lock().asked.remove(&token);
                let message = format!("{peer} did not answer within {} ms", deadline.as_millis());
                Err(unavailable("PEER_TIMEOUT", message))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Inner {
    fn register(
        &mut self,
        session: SessionKey,
        opened_by: &str,
        participants: &[String],
    ) -> Option<mpsc::Receiver<Incoming>> {
        if self.sessions.contains_key(&session) || self.tombstones.contains(&session) {
            return None;
        }
        let (sender, receiver) = mpsc::channel(SESSION_QUEUE);
        self.sessions.insert(
            session,
            Entry {
                opened_by: opened_by.to_owned(),
                participants: participants.to_vec(),
                inbox: sender,
            },
        );
        Some(receiver)
    }

    fn bury(&mut self, session: SessionKey) {
        self.sessions.remove(&session);
        if self.tombstones.insert(session) {
            self.tombstone_order.push_back(session);
        }
        if self.tombstone_order.len() > TOMBSTONES
            && let Some(oldest) = self.tombstone_order.pop_front()
        {
            self.tombstones.remove(&oldest);
        }
    }

    fn deliver(&mut self, session: SessionKey, from: &str, frame: Frame) {
        if let Some(entry) = self.sessions.get(&session) {
            if !entry.participants.iter().any(|name| name == from) {
                tracing::warn!(
                    peer = from,
                    "dropped a frame for a session that it is no part of"
                );
                return;
            }
            let incoming = Incoming::Frame {
                from: from.to_owned(),
                frame: Box::new(frame),
            };
            if entry.inbox.try_send(incoming).is_err() {
                // The session sees its inbox close and ends; nobody else waits.
                tracing::warn!(peer = from, "ended a session whose inbox is full");
                self.bury(session);
            }
        } else if !self.tombstones.contains(&session) {
            self.keep_early(from, frame);
        }
    }

    /// Keeps a frame that overtook the opening of its session on another link.
    fn keep_early(&mut self, from: &str, frame: Frame) {
        self.early
            .retain(|early| early.arrived.elapsed() < EARLY_AGE);
        if frame.encoded_len() <= EARLY_FRAME_BYTES
            && self.early.iter().filter(|early| early.from == from).count() < EARLY_FRAMES
        {
            self.early.push_back(Early {
                from: from.to_owned(),
                arrived: Instant::now(),
                frame,
            });
        }
    }

    fn deliver_early(&mut self, session: SessionKey) {
        let (mine, others): (VecDeque<_>, VecDeque<_>) = self
            .early
            .drain(..)
            .partition(|early| early.frame.session == session);
        self.early = others;
        for early in mine {
            self.deliver(session, &early.from, early.frame);
        }
    }

    fn end_sessions_of(&mut self, peer: &str) {
        for entry in self.sessions.values() {
            if entry.participants.iter().any(|name| name == peer) {
                // A full inbox ends the session anyway.
                let _ = entry.inbox.try_send(Incoming::LinkDown(peer.to_owned()));
            }
        }
    }
}

/// The error for a peer without a link.
pub fn not_connected(peer: &str) -> Error {
    Error::Unavailable {
        reason: "PEER_NOT_CONNECTED",
        message: format!("{peer} is not connected; see that its host and enclave run"),
        parties: vec![peer.to_owned()],
    }
}
