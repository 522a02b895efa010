//! One run of a protocol with peers: collects complete rounds, keeps the deadlines, tells the others.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use arca_proto::v1::{
    AbortSession, Frame, LogPlace as LogPlaceOnWire, OpenSession, RoundMessage, frame::Body,
};
use arca_threshold::{Inbox, Outbox, Participant, Protocol, Reject, Transition};
use tokio::time::{Instant, timeout_at};

use crate::{
    error::Error,
    lane::Lane,
    network::{Incoming, Network, Registration, SessionKey},
    random::Generator,
    state::{Footing, LogPlace},
};

/// A round that takes longer has lost somebody.
const ROUND_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest a session may ask for.
pub const MAX_SESSION: Duration = Duration::from_secs(60);
/// Version of the frames and what they mean.
pub const PEER_PROTOCOL: u32 = 1;

/// Why a session ended without a result.
#[derive(Debug)]
pub struct Ended {
    /// What to report.
    pub error: Error,
    /// The peers to leave out when it is tried again: silent, gone, refusing or cheating.
    pub without: Vec<String>,
    /// The peer that ended it and the reason it gave, if one did.
    pub ended_by: Option<Box<EndedBy>>,
}

/// A peer's end of a session.
#[derive(Clone, Debug)]
pub struct EndedBy {
    /// The peer.
    pub peer: String,
    /// The stable reason that it gave, made safe to print.
    pub reason: String,
}

impl Ended {
    /// The peer that ended the session, if it did so for one of these reasons.
    pub fn ended_by(&self, reasons: &[&str]) -> Option<&str> {
        let by = self.ended_by.as_deref()?;
        reasons
            .contains(&by.reason.as_str())
            .then_some(by.peer.as_str())
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        let without = match &error {
            Error::Abort { culprits, .. } => culprits.clone(),
            Error::Unavailable { parties, .. } => parties.clone(),
            Error::Reject { .. } | Error::Fault { .. } | Error::Bug(_) => Vec::new(),
        };
        Self {
            error,
            without,
            ended_by: None,
        }
    }
}

/// A session with its frames.
pub struct Session {
    network: Arc<Network>,
    id: SessionKey,
    me: String,
    key_epoch: u64,
    /// Name and share index of everybody, this party included.
    participants: BTreeMap<Participant, String>,
    frames: Registration,
    deadline: Instant,
    round_timeout: Duration,
    sent: u64,
    received: HashMap<String, u64>,
    /// Messages of the round after the one being collected.
    ahead: BTreeMap<Participant, Vec<u8>>,
    stored: BTreeMap<Participant, Vec<u8>>,
    /// Where this party's intent stands in its log, and the others' in theirs, as they say.
    intent: Option<LogPlace>,
    intents: BTreeMap<Participant, LogPlace>,
}

/// What a frame of a running session can say.
enum Message {
    Round(RoundMessage),
    Stored(Vec<u8>),
}

/// What a session is called and who is in it.
pub struct Roster {
    /// The session's id.
    pub id: SessionKey,
    /// This party's name.
    pub me: String,
    /// Epoch of the key in use.
    pub key_epoch: u64,
    /// Name and share index of everybody, this party included.
    pub participants: BTreeMap<Participant, String>,
    /// How long the whole session may take.
    pub timeout: Duration,
}

impl Session {
    /// Takes a registered session into use.
    pub fn new(network: Arc<Network>, roster: Roster, frames: Registration) -> Self {
        Self {
            network,
            id: roster.id,
            me: roster.me,
            key_epoch: roster.key_epoch,
            participants: roster.participants,
            frames,
            deadline: Instant::now() + roster.timeout.min(MAX_SESSION),
            round_timeout: ROUND_TIMEOUT,
            sent: 0,
            received: HashMap::new(),
            ahead: BTreeMap::new(),
            stored: BTreeMap::new(),
            intent: None,
            intents: BTreeMap::new(),
        }
    }

    /// Where each participant's intent stands in its log, as it says; this party's own among them.
    pub fn intents(&self) -> Vec<(String, LogPlace)> {
        let intents = self.intents.iter();
        let others = intents.map(|(participant, place)| (self.name_of(*participant), *place));
        let own = self.intent.map(|place| (self.me.clone(), place));
        others.chain(own).collect()
    }

    /// Gives each round more or less time than usual.
    pub fn with_round_timeout(mut self, round_timeout: Duration) -> Self {
        self.round_timeout = round_timeout;
        self
    }

    /// Asks every other participant to join.
    ///
    /// # Errors
    /// When one of them is not connected.
    pub fn open(&mut self, open: &OpenSession) -> Result<(), Ended> {
        for to in self.others() {
            self.send(to, Body::Open(open.clone()))?;
        }
        Ok(())
    }

    /// Runs a protocol to its end; on failure the others are told. No message of it leaves before what `stored` says.
    ///
    /// # Errors
    /// [`Ended`] names whom to leave out next time.
    pub async fn run<O: Send + 'static>(
        &mut self,
        start: Result<(Protocol<O>, Outbox), arca_threshold::Error>,
        rng: Generator,
        lane: Lane<'_>,
        stored: Footing,
    ) -> Result<O, Ended> {
        let start = start.map(|(protocol, outbox)| Transition::Continue(protocol, outbox));
        self.run_from(start, rng, lane, stored).await
    }

    /// [`run`](Self::run) for a protocol that may have ended with its first messages.
    ///
    /// # Errors
    /// The same.
    pub async fn run_from<O: Send + 'static>(
        &mut self,
        start: Result<Transition<O>, arca_threshold::Error>,
        rng: Generator,
        lane: Lane<'_>,
        stored: Footing,
    ) -> Result<O, Ended> {
        self.intent = stored.place();
        let outcome = self.run_rounds(start, rng, lane).await;
        if let Err(ended) = &outcome {
            self.abort(&ended.error);
        }
        outcome
    }

    async fn run_rounds<O: Send + 'static>(
        &mut self,
        start: Result<Transition<O>, arca_threshold::Error>,
        mut rng: Generator,
        lane: Lane<'_>,
    ) -> Result<O, Ended> {
        let mut step = start;
        let mut round = 0_u32;
        loop {
            round = round.saturating_add(1);
            match step.map_err(|error| self.threshold_error(&error))? {
                Transition::Continue(protocol, outbox) => {
                    self.send_round(round, outbox)?;
                    let inbox = self.collect(round, protocol.inbox()).await?;
                    (step, rng) = lane
                        .run(move || (protocol.advance(inbox, &mut rng), rng))
                        .await?;
                }
                Transition::Done(output, outbox) => {
                    self.send_round(round, outbox)?;
                    return Ok(output);
                }
            }
        }
    }

    /// Tells the others that this party holds what the session made, and waits for the same from them.
    ///
    /// `digest` names it: that of the public key package once the share is sealed and stored, or that of the names of
    /// presignatures.
    ///
    /// # Errors
    /// When one of them does not say so in time, or holds another key.
    pub async fn confirm_stored(
        &mut self,
        digest: [u8; 32],
        _stored: Footing,
    ) -> Result<(), Ended> {
        let outcome = self.exchange_stored(digest).await;
        if let Err(ended) = &outcome {
            self.abort(&ended.error);
        }
        outcome
    }

    async fn exchange_stored(&mut self, digest: [u8; 32]) -> Result<(), Ended> {
        for to in self.others() {
            self.send(to, Body::Stored(digest.to_vec()))?;
        }
        let until = self.deadline;
        loop {
            let missing = self.not_stored();
            if missing.is_empty() {
                break;
            }
            match self.receive(until, &missing).await? {
                Some((sender, Message::Stored(theirs))) => {
                    self.stored.entry(sender).or_insert(theirs);
                }
                Some((_, Message::Round(_))) | None => {}
            }
        }
        for (participant, theirs) in &self.stored {
            if theirs.as_slice() != digest {
                return Err(self
                    .cheated(*participant, "holds something else than was made")
                    .into());
            }
        }
        Ok(())
    }

    /// Tells the others that this session is over, and why. They may not listen any more.
    pub fn abort(&mut self, error: &Error) {
        let body = Body::Abort(AbortSession {
            reason: error.reason().to_owned(),
            message: error.to_string(),
            culprits: error.culprits().to_vec(),
        });
        for to in self.others() {
            let _ = self.send(to, body.clone());
        }
    }

    /// Waits until every participant has sent its message of this round. One round may run ahead.
    async fn collect(&mut self, round: u32, mut inbox: Inbox) -> Result<Inbox, Ended> {
        let until = self.deadline.min(Instant::now() + self.round_timeout);
        for (sender, body) in std::mem::take(&mut self.ahead) {
            self.insert(&mut inbox, sender, body)?;
        }
        loop {
            let missing = inbox.missing();
            if missing.is_empty() {
                return Ok(inbox);
            }
            let missing: Vec<String> = missing
                .into_iter()
                .map(|participant| self.name_of(participant))
                .collect();
            match self.receive(until, &missing).await? {
                Some((sender, Message::Round(message))) if message.round == round => {
                    self.insert(&mut inbox, sender, message.body)?;
                }
                Some((sender, Message::Round(message))) if message.round == round + 1 => {
                    let first = self.ahead.insert(sender, message.body);
                    if first.is_some() {
                        let error = self.cheated(sender, "sent two messages for one round");
                        return Err(error.into());
                    }
                }
                Some((sender, Message::Round(_))) => {
                    return Err(self
                        .cheated(sender, "sent a message of a distant round")
                        .into());
                }
                Some((sender, Message::Stored(digest))) => {
                    self.stored.entry(sender).or_insert(digest);
                }
                None => {}
            }
        }
    }

    fn insert(&self, inbox: &mut Inbox, from: Participant, body: Vec<u8>) -> Result<(), Ended> {
        inbox
            .insert(from, body)
            .map_err(|error| self.threshold_error(&error).into())
    }

    /// Takes in one frame. `None` for one that changes nothing.
    async fn receive(
        &mut self,
        until: Instant,
        missing: &[String],
    ) -> Result<Option<(Participant, Message)>, Ended> {
        let incoming = match timeout_at(until, self.frames.inbox.recv()).await {
            Ok(Some(incoming)) => incoming,
            Ok(None) => {
                return Err(Error::Unavailable {
                    reason: "SESSION_OVERFLOW",
                    message: "the session was sent more than it can hold".to_owned(),
                    parties: Vec::new(),
                }
                .into());
            }
            Err(_) => {
                return Err(Error::Unavailable {
                    reason: "PEER_TIMEOUT",
                    message: format!("no answer in time from {}", missing.join(", ")),
                    parties: missing.to_vec(),
                }
                .into());
            }
        };
        let (from, frame) = match incoming {
            Incoming::LinkDown(peer) => return Err(crate::network::not_connected(&peer).into()),
            Incoming::Frame { from, frame } => (from, frame),
        };
        let Some(sender) = self.index_of(&from) else {
            return Ok(None);
        };
        if frame.key_epoch != self.key_epoch {
            return Err(self
                .cheated(sender, "sent a frame of another key epoch")
                .into());
        }
        // A link delivers in order, so a frame that does not count on is a copy; copies are dropped.
        let last = self.received.entry(from.clone()).or_default();
        if frame.sequence <= *last {
            return Ok(None);
        }
        *last = frame.sequence;
        match frame.body {
            Some(Body::Round(message)) => {
                if let Some(place) = message.intent {
                    let LogPlaceOnWire { log, index } = place;
                    self.intents
                        .entry(sender)
                        .or_insert(LogPlace { log, index });
                }
                Ok(Some((sender, Message::Round(message))))
            }
            Some(Body::Stored(digest)) => Ok(Some((sender, Message::Stored(digest)))),
            Some(Body::Abort(abort)) => Err(peer_ended(from, &abort)),
            Some(
                Body::Open(_)
                | Body::Ping(_)
                | Body::Pong(_)
                | Body::Claim(_)
                | Body::Grant(_)
                | Body::Denial(_)
                | Body::RecordRequest(_)
                | Body::RecordResponse(_),
            )
            | None => Ok(None),
        }
    }

    fn send_round(&mut self, round: u32, outbox: Outbox) -> Result<(), Ended> {
        for (to, mut body) in outbox {
            let name = self.name_of(to);
            let body = std::mem::take(&mut *body);
            let intent = self.intent.filter(|_| round == 1);
            let intent = intent.map(|LogPlace { log, index }| LogPlaceOnWire { log, index });
            let message = RoundMessage {
                round,
                body,
                intent,
            };
            self.send(name, Body::Round(message))?;
        }
        Ok(())
    }

    fn send(&mut self, to: String, body: Body) -> Result<(), Error> {
        self.sent += 1;
        self.network.send(Frame {
            session: self.id.to_vec(),
            key_epoch: self.key_epoch,
            from: self.me.clone(),
            to,
            sequence: self.sent,
            body: Some(body),
            ..Frame::default()
        })
    }

    fn others(&self) -> Vec<String> {
        self.participants
            .values()
            .filter(|name| **name != self.me)
            .cloned()
            .collect()
    }

    fn not_stored(&self) -> Vec<String> {
        self.participants
            .iter()
            .filter(|(index, name)| **name != self.me && !self.stored.contains_key(index))
            .map(|(_, name)| name.clone())
            .collect()
    }

    fn index_of(&self, name: &str) -> Option<Participant> {
        self.participants
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(index, _)| *index)
    }

    fn name_of(&self, participant: Participant) -> String {
        self.participants
            .get(&participant)
            .cloned()
            .unwrap_or_else(|| participant.to_string())
    }

    fn cheated(&self, culprit: Participant, how: &str) -> Error {
        let name = self.name_of(culprit);
        Error::Abort {
            reason: "PEER_CHEATED".to_owned(),
            message: format!("{name} {how}"),
            culprits: vec![name],
        }
    }

    fn threshold_error(&self, error: &arca_threshold::Error) -> Error {
        match error {
            arca_threshold::Error::Abort {
                reason,
                culprits,
                suspects,
            } => {
                let names = |of: &[Participant]| -> Vec<String> {
                    of.iter()
                        .map(|participant| self.name_of(*participant))
                        .collect()
                };
                let culprits = names(culprits);
                let message = match (culprits.as_slice(), suspects.as_slice()) {
                    ([], []) => reason.to_string(),
                    ([], suspects) => format!("{reason}; one of {}", names(suspects).join(", ")),
                    (culprits, _) => format!("{reason}; by {}", culprits.join(", ")),
                };
                Error::Abort {
                    reason: reason.code().to_owned(),
                    message,
                    culprits,
                }
            }
            // What was made ahead is of no use any more; without it, or with what is made anew, it works.
            arca_threshold::Error::Reject(
                Reject::SetupPoisoned | Reject::PairSetup | Reject::Presignature,
            ) => Error::Unavailable {
                reason: "PAIR_SETUP_SPOILED",
                message: error.to_string(),
                parties: Vec::new(),
            },
            arca_threshold::Error::Reject { .. } => {
                Error::invalid("PROTOCOL_REFUSED", error.to_string())
            }
            arca_threshold::Error::Bug(_) | _ => {
                Error::Bug("the threshold protocol reached a state it should not")
            }
        }
    }
}

/// A session that a peer ended. What the peer says of others is passed on as its words and blames nobody.
fn peer_ended(peer: String, abort: &AbortSession) -> Ended {
    let message = format!(
        "{peer} ended the session: {}: {}",
        printable(&abort.reason, 64),
        printable(&abort.message, 300)
    );
    let ended_by = Some(Box::new(EndedBy {
        peer: peer.clone(),
        reason: printable(&abort.reason, 64),
    }));
    let unavailable = |reason| Ended {
        error: Error::Unavailable {
            reason,
            message: message.clone(),
            parties: Vec::new(),
        },
        without: Vec::new(),
        ended_by: ended_by.clone(),
    };
    match abort.reason.as_str() {
        "PEER_NOT_CONNECTED" | "PEER_TIMEOUT" | "PEER_SLOW" => unavailable("PEER_LOST_ANOTHER"),
        // It lacks what was made ahead, and would sign without.
        "PRESIGNATURE_UNKNOWN"
        | "PAIR_SETUP_MISSING"
        | "PAIR_SETUP_SPOILED"
        | "PAIR_SETUP_UNDER_WAY" => unavailable("PEER_NOT_READY"),
        _ => Ended {
            error: Error::Abort {
                reason: "PEER_ABORTED".to_owned(),
                message,
                culprits: Vec::new(),
            },
            without: vec![peer],
            ended_by,
        },
    }
}

/// A peer's text, made safe to print and to store.
fn printable(text: &str, limit: usize) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(limit)
        .collect()
}
