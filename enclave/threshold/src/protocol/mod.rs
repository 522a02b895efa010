//! The round abstraction that every protocol of this crate runs on.
//!
//! Every round is all to all: each participant sends each other one message, which holds a part that
//! is the same for all (the *broadcast*) and a part for that recipient alone (the *direct* part);
//! either may be empty. From the second round on a message also carries, for each participant, the
//! digest of the broadcast its sender received from it in the round before. A broadcast on which two
//! participants do not agree ends the run before anything is computed from the next round. The last
//! messages of a run may go to some participants only.
//!
//! Lengths of all parts follow from the parameters, so a message has exactly one valid length, and
//! there is nothing to parse but fixed fields.

mod echo;
mod inbox;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use arca_wipe::wiped;
use rand_core::CryptoRngCore;
use zeroize::Zeroizing;

use crate::{AbortReason, Error, Participant, SessionId};

use self::echo::Echo;
use self::wire::Header;

pub use self::inbox::Inbox;
pub(crate) use self::wire::Kind;

/// One protocol run at one participant, waiting for the messages of one round.
///
/// It moves: stepping consumes it, and it can be neither cloned nor serialised, so no state is ever
/// used twice. Dropping it erases its secrets.
///
/// ```compile_fail,E0382
/// # fn step<O>(run: arca_threshold::Protocol<O>, rng: &mut dyn rand_core::CryptoRngCore) {
/// let (first, second) = (run.inbox(), run.inbox());
/// let _ = run.advance(first, rng);
/// let _ = run.advance(second, rng); // the run has moved
/// # }
/// ```
pub struct Protocol<O> {
    header: Header,
    participants: BTreeSet<Participant>,
    /// The broadcasts of the round before this one, as this participant received them.
    previous: Option<Echo>,
    /// This participant's own broadcast of this round.
    own_broadcast: Vec<u8>,
    state: Box<dyn Round<O>>,
}

/// What a step leads to.
#[derive(Debug)]
pub enum Transition<O> {
    /// Another round: send these messages, then wait for the others' of the same round.
    Continue(Protocol<O>, Outbox),
    /// The result. There may be a last message for others, who still wait for it.
    Done(O, Outbox),
}

/// The messages of one round, at most one for each other participant.
///
/// # Security
///
/// They may hold secrets: send each over a confidential, authenticated channel to its recipient only.
#[derive(Default)]
pub struct Outbox(BTreeMap<Participant, Zeroizing<Vec<u8>>>);

impl<O> Protocol<O> {
    /// The round whose messages are awaited, from 1. The outbox that came with this value belongs to
    /// the same round.
    pub fn round(&self) -> u32 {
        u32::from(self.header.round)
    }

    /// An empty inbox for this round.
    pub fn inbox(&self) -> Inbox {
        let senders = self.others().collect();
        let shape = self.state.shape();
        let echo = self.previous.as_ref().map_or(0, Echo::wire_len);
        Inbox::new(self.header, senders, echo, shape)
    }

    /// Takes the step that this round's messages allow.
    ///
    /// `rng` must be a cryptographic generator; the outcome depends on nothing but it, the state and
    /// the messages.
    ///
    /// # Errors
    ///
    /// [`Error::Abort`] when a participant deviated, or its message is missing: closing a round at its
    /// deadline with an incomplete inbox names those who are late.
    /// [`Reject::SetupPoisoned`](crate::Reject::SetupPoisoned) when another run has spent a pairwise setup
    /// that this one rests on. [`Error::Bug`] when the inbox is of another run or round.
    pub fn advance(
        self,
        inbox: Inbox,
        rng: &mut dyn CryptoRngCore,
    ) -> Result<Transition<O>, Error> {
        wiped(|| self.step(inbox, rng))
    }

    fn step(self, inbox: Inbox, rng: &mut dyn CryptoRngCore) -> Result<Transition<O>, Error> {
        if *inbox.header() != self.header {
            return Err(Error::Bug("inbox of another run or round"));
        }
        let missing = inbox.missing();
        if !missing.is_empty() {
            return Err(Error::abort_all(AbortReason::Missing, missing));
        }
        let received = inbox.received();
        if let Some(previous) = &self.previous {
            previous.check(self.header.me, &received)?;
        }

        let broadcasts = received
            .iter()
            .map(|(from, parts)| (*from, parts.broadcast))
            .chain([(self.header.me, self.own_broadcast.as_slice())]);
        let echo = Echo::new(&self.header, broadcasts);

        let header = self.header.next_round()?;
        let recipients = self.others().collect();
        match self.state.next(&received, rng)? {
            Next::Continue(outgoing, state) => {
                let outbox = outgoing.seal(&header, Some(&echo), &recipients);
                let next = Protocol {
                    header,
                    participants: self.participants,
                    previous: Some(echo),
                    own_broadcast: outgoing.broadcast,
                    state,
                };
                Ok(Transition::Continue(next, outbox))
            }
            Next::Done(output, outgoing) => {
                let outbox = outgoing
                    .map(|outgoing| outgoing.seal(&header, Some(&echo), &recipients))
                    .unwrap_or_default();
                Ok(Transition::Done(output, outbox))
            }
        }
    }

    fn others(&self) -> impl Iterator<Item = Participant> + '_ {
        let me = self.header.me;
        self.participants.iter().copied().filter(move |p| *p != me)
    }
}

impl<O> fmt::Debug for Protocol<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protocol")
            .field("kind", &self.header.kind)
            .field("session", &self.header.session)
            .field("me", &self.header.me)
            .field("round", &self.header.round)
            .finish_non_exhaustive()
    }
}

impl Outbox {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for Outbox {
    type Item = (Participant, Zeroizing<Vec<u8>>);
    type IntoIter = std::collections::btree_map::IntoIter<Participant, Zeroizing<Vec<u8>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outbox")
            .field(&self.0.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// One round of a protocol: the state after sending this round's messages.
pub(crate) trait Round<O>: Send {
    /// Lengths of this round's incoming parts.
    fn shape(&self) -> Shape;

    /// Takes the step. `received` holds every other participant, with parts of exactly this shape.
    fn next(
        self: Box<Self>,
        received: &Received<'_>,
        rng: &mut dyn CryptoRngCore,
    ) -> Result<Next<O>, Error>;
}

/// Lengths in bytes of the two parts of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) broadcast: usize,
    pub(crate) direct: usize,
}

/// A complete round of messages: one from each other participant.
pub(crate) type Received<'a> = BTreeMap<Participant, Parts<'a>>;

/// One message's parts.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    echo: &'a [u8],
    pub(crate) broadcast: &'a [u8],
    pub(crate) direct: &'a [u8],
}

/// What follows a round.
pub(crate) enum Next<O> {
    Continue(Outgoing, Box<dyn Round<O>>),
    Done(O, Option<Outgoing>),
}

/// What a participant sends in one round.
pub(crate) struct Outgoing {
    broadcast: Vec<u8>,
    /// `None`: the broadcast to everyone. Otherwise these recipients only, each with its direct part.
    direct: Option<BTreeMap<Participant, Zeroizing<Vec<u8>>>>,
}

impl Outgoing {
    pub(crate) fn broadcast(broadcast: Vec<u8>) -> Self {
        Self {
            broadcast,
            direct: None,
        }
    }

    pub(crate) fn direct(direct: BTreeMap<Participant, Zeroizing<Vec<u8>>>) -> Self {
        Self {
            broadcast: Vec::new(),
            direct: Some(direct),
        }
    }

    pub(crate) fn both(
        broadcast: Vec<u8>,
        direct: BTreeMap<Participant, Zeroizing<Vec<u8>>>,
    ) -> Self {
        Self {
            broadcast,
            direct: Some(direct),
        }
    }

    pub(crate) fn nothing() -> Self {
        Self::direct(BTreeMap::new())
    }

    fn seal(
        &self,
        header: &Header,
        echo: Option<&Echo>,
        everyone: &BTreeSet<Participant>,
    ) -> Outbox {
        let recipients = match &self.direct {
            None => everyone.iter().map(|to| (*to, [].as_slice())).collect(),
            Some(direct) => direct
                .iter()
                .map(|(to, part)| (*to, part.as_slice()))
                .collect::<Vec<_>>(),
        };
        let message = |(to, direct)| {
            let message = wire::encode(header, to, echo, &self.broadcast, direct);
            (to, Zeroizing::new(message))
        };
        Outbox(recipients.into_iter().map(message).collect())
    }
}

/// What a run is: the part of its start that all protocols share.
pub(crate) struct Setup {
    pub(crate) kind: Kind,
    pub(crate) session: SessionId,
    /// Digest of everything the participants must agree on.
    pub(crate) context: [u8; 32],
    pub(crate) me: Participant,
    pub(crate) participants: BTreeSet<Participant>,
}

impl Setup {
    /// The run waiting for the first round's messages, and its own messages of that round.
    pub(crate) fn start<O>(
        self,
        outgoing: Outgoing,
        state: Box<dyn Round<O>>,
    ) -> (Protocol<O>, Outbox) {
        let header = self.header();
        let mut protocol = Protocol {
            header,
            participants: self.participants,
            previous: None,
            own_broadcast: Vec::new(),
            state,
        };
        let recipients = protocol.others().collect();
        let outbox = outgoing.seal(&header, None, &recipients);
        protocol.own_broadcast = outgoing.broadcast;
        (protocol, outbox)
    }

    /// The first round's messages of a participant whose part ends with them.
    pub(crate) fn send_only(self, outgoing: &Outgoing) -> Outbox {
        let header = self.header();
        outgoing.seal(&header, None, &self.participants)
    }

    fn header(&self) -> Header {
        Header {
            kind: self.kind,
            session: self.session,
            round: 1,
            me: self.me,
            context: self.context,
        }
    }
}
