//! The pairwise setup: both sides in both roles at once, in four rounds.
//!
//! | round | message | what the receiver checks |
//! | --- | --- | --- |
//! | 1 offer | base transfers' sender key `A`; commitment to half of the zero-sharing seed | context |
//! | 2 choose | base transfers' receiver message for `A`; opening of the commitment | commitment, group elements |
//! | 3 grow | the trees' sums and check values | the trees' check |
//! | 4 confirm | digest over all that both sent | equality with one's own |
//!
//! Everything from round 2 on is bound by hashes to the session and both messages of round 1, in which
//! both sides have fresh randomness. Round 4 ends a setup that one side finds good and the other not, and
//! one whose messages were changed on the way where it did not matter to the trees.

use std::sync::atomic::AtomicBool;

use arca_wipe::wiped;
use rand_core::CryptoRngCore;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::bytes::take;
use crate::protocol::{Kind, Next, Outgoing, Protocol, Received, Round, Setup, Shape};
use crate::{AbortReason, Error, Outbox, Participant, Reject, SessionId, tags};

use super::base::{self, Key};
use super::tree::{self, AllSeeds, PuncturedSeeds};
use super::{PairSetup, Side};

const OFFER_BYTES: usize = base::SENDER_BYTES + 32;
/// Half a seed and what hides it in its commitment.
const OPENING_BYTES: usize = 64;

/// What a setup is about. All but `me` and `peer` must be the same at both.
#[derive(Debug, Clone)]
pub struct PairSetupParams {
    /// This run. Never used before.
    pub session: SessionId,
    /// Digest of whatever else the two must agree on: their names and boot ids. A difference ends the
    /// run in round 1.
    pub context: [u8; 32],
    /// This side. Which of the two indices is lower decides the roles; they need not be those of a key.
    pub me: Participant,
    /// The other side.
    pub peer: Participant,
}

/// Starts a setup: four rounds between two.
///
/// # Errors
///
/// [`Error::Reject`] when `me` is `peer`.
pub fn pair_setup(
    params: PairSetupParams,
    rng: &mut dyn CryptoRngCore,
) -> Result<(Protocol<PairSetup>, Outbox), Error> {
    let PairSetupParams {
        session,
        context,
        me,
        peer,
    } = params;
    if me == peer {
        return Err(Reject::Participants.into());
    }
    let run = Run {
        side: Side::of(me, peer),
        peer,
        digest: context_digest(session, &context, me, peer),
    };
    Ok(wiped(|| start(session, me, run, rng)))
}

fn start(
    session: SessionId,
    me: Participant,
    run: Run,
    rng: &mut dyn CryptoRngCore,
) -> (Protocol<PairSetup>, Outbox) {
    let base = base::Sender::new(rng);
    let mut opening = Zeroizing::new([0; OPENING_BYTES]);
    rng.fill_bytes(&mut *opening);
    let mut offer = base.message().to_vec();
    offer.extend_from_slice(&run.commitment(run.side, &opening));
    let setup = Setup {
        kind: Kind::PairSetup,
        session,
        context: run.digest,
        me,
        participants: [me, run.peer].into_iter().collect(),
    };
    let state = Offer {
        run,
        base,
        opening,
        offer: offer.clone(),
    };
    setup.start(Outgoing::broadcast(offer), Box::new(state))
}

fn context_digest(
    session: SessionId,
    context: &[u8; 32],
    me: Participant,
    peer: Participant,
) -> [u8; 32] {
    let [low, high] = Side::of(me, peer).order(me.to_bytes(), peer.to_bytes());
    let kind = [Kind::PairSetup as u8];
    let depth = (tree::DEPTH as u64).to_be_bytes();
    tags::hash(
        tags::CONTEXT,
        &[&kind, &depth, session.as_bytes(), context, &low, &high],
    )
}

/// What stays the same from round to round.
struct Run {
    side: Side,
    peer: Participant,
    digest: [u8; 32],
}

impl Run {
    fn commitment(&self, side: Side, opening: &[u8; OPENING_BYTES]) -> [u8; 32] {
        tags::hash(
            tags::PAIR_SEED_COMMITMENT,
            &[&self.digest, &[side.to_byte()], opening],
        )
    }

    /// The one message of a round.
    fn only<'a>(&self, received: &'a Received<'_>) -> Result<(&'a [u8], &'a [u8]), Error> {
        let parts = received.get(&self.peer);
        let parts = parts.ok_or(Error::Bug("every round has the same sender"))?;
        Ok((parts.broadcast, parts.direct))
    }

    fn to_peer(&self, message: Vec<u8>) -> Outgoing {
        Outgoing::direct([(self.peer, Zeroizing::new(message))].into_iter().collect())
    }

    fn abort(&self, reason: AbortReason) -> Error {
        Error::abort(reason, self.peer)
    }
}

/// Round 1: awaits the peer's offer.
struct Offer {
    run: Run,
    base: base::Sender,
    opening: Zeroizing<[u8; OPENING_BYTES]>,
    offer: Vec<u8>,
}

impl Round<PairSetup> for Offer {
    fn shape(&self) -> Shape {
        Shape {
            broadcast: OFFER_BYTES,
            direct: 0,
        }
    }

    fn next(
        self: Box<Self>,
        received: &Received<'_>,
        rng: &mut dyn CryptoRngCore,
    ) -> Result<Next<PairSetup>, Error> {
        let Self {
            run,
            base,
            opening,
            offer,
        } = *self;
        let (theirs, _) = run.only(received)?;
        let (mut rest, malformed) = (theirs, run.abort(AbortReason::Malformed));
        let Some(sender) = take::<{ base::SENDER_BYTES }>(&mut rest) else {
            return Err(malformed);
        };
        let Some(commitment) = take::<32>(&mut rest) else {
            return Err(malformed);
        };
        let [low, high] = run.side.order(offer.as_slice(), theirs);
        let offers = tags::hash(tags::PAIR_OFFERS, &[&run.digest, low, high]);
        let sending = direction(&offers, run.side);
        let receiving = direction(&offers, run.side.other());

        let mut delta = Zeroizing::new([0; 16]);
        rng.fill_bytes(&mut *delta);
        let delta = Zeroizing::new(u128::from_le_bytes(*delta));
        let choices = Zeroizing::new(PuncturedSeeds::choices(*delta));
        let Some((choice, keys)) = base::receive(&receiving, sender, *choices, rng) else {
            return Err(malformed);
        };
        // One allocation: growing would leave copies behind.
        let mut message = Vec::with_capacity(base::RECEIVER_BYTES + OPENING_BYTES);
        message.extend_from_slice(&choice);
        message.extend_from_slice(&*opening);
        let state = Choose {
            commitment: *commitment,
            opening,
            base,
            sending,
            receiving,
            offers,
            delta,
            keys,
            sent: message_digest(&message),
            run,
        };
        let outgoing = state.run.to_peer(message);
        Ok(Next::Continue(outgoing, Box::new(state)))
    }
}

/// Round 2: awaits the peer's choice.
struct Choose {
    run: Run,
    commitment: [u8; 32],
    opening: Zeroizing<[u8; OPENING_BYTES]>,
    base: base::Sender,
    sending: [u8; 32],
    receiving: [u8; 32],
    /// Digest of round 1's messages.
    offers: [u8; 32],
    delta: Zeroizing<u128>,
    keys: Zeroizing<Vec<Key>>,
    /// Digest of one's own message.
    sent: [u8; 32],
}

impl Round<PairSetup> for Choose {
    fn shape(&self) -> Shape {
        Shape {
            broadcast: 0,
            direct: base::RECEIVER_BYTES + OPENING_BYTES,
        }
    }

    fn next(
        self: Box<Self>,
        received: &Received<'_>,
        _: &mut dyn CryptoRngCore,
    ) -> Result<Next<PairSetup>, Error> {
        let run = self.run;
        let (_, theirs) = run.only(received)?;
        let malformed = run.abort(AbortReason::Malformed);
        let Some((choice, opening)) = theirs.split_last_chunk::<OPENING_BYTES>() else {
            return Err(malformed);
        };
        if run.commitment(run.side.other(), opening) != self.commitment {
            return Err(run.abort(AbortReason::CommitmentMismatch));
        }
        let Some(keys) = self.base.keys(&self.sending, choice) else {
            return Err(malformed);
        };
        let (all_seeds, message) = AllSeeds::grow(&self.sending, &keys);
        let [low, high] = run.side.order(self.opening.as_slice(), opening);
        let zero_seed = tags::hash(tags::PAIR_SEED, &[&run.digest, low, high]);
        let state = Grow {
            zero_seed: Box::new(Zeroizing::new(zero_seed)),
            all_seeds,
            receiving: self.receiving,
            offers: self.offers,
            delta: self.delta,
            keys: self.keys,
            chosen: run.side.order(self.sent, message_digest(theirs)),
            sent: message_digest(&message),
            run,
        };
        let outgoing = state.run.to_peer(message);
        Ok(Next::Continue(outgoing, Box::new(state)))
    }
}

/// Round 3: awaits the peer's trees.
struct Grow {
    run: Run,
    zero_seed: Box<Zeroizing<[u8; 32]>>,
    all_seeds: AllSeeds,
    receiving: [u8; 32],
    /// Digest of round 1's messages.
    offers: [u8; 32],
    delta: Zeroizing<u128>,
    keys: Zeroizing<Vec<Key>>,
    /// Digests of round 2's messages, the low side's first.
    chosen: [[u8; 32]; 2],
    /// Digest of one's own message of this round.
    sent: [u8; 32],
}

impl Round<PairSetup> for Grow {
    fn shape(&self) -> Shape {
        Shape {
            broadcast: 0,
            direct: tree::MESSAGE_BYTES,
        }
    }

    fn next(
        self: Box<Self>,
        received: &Received<'_>,
        _: &mut dyn CryptoRngCore,
    ) -> Result<Next<PairSetup>, Error> {
        let run = self.run;
        let (_, theirs) = run.only(received)?;
        let punctured = PuncturedSeeds::follow(&self.receiving, *self.delta, &self.keys, theirs);
        let Some(punctured_seeds) = punctured else {
            return Err(run.abort(AbortReason::ConsistencyCheck));
        };
        let [low, high] = self.chosen;
        let grown = run.side.order(self.sent, message_digest(theirs));
        let parts: [&[u8]; 4] = [&self.offers, &low, &high, grown.as_flattened()];
        let setup = PairSetup {
            id: tags::hash(tags::PAIR_SETUP, &parts),
            side: run.side,
            zero_seed: self.zero_seed,
            all_seeds: self.all_seeds,
            punctured_seeds,
            poisoned: AtomicBool::new(false),
        };
        let confirmation = confirmation(&setup.id, run.side);
        let outgoing = run.to_peer(confirmation.to_vec());
        Ok(Next::Continue(outgoing, Box::new(Confirm { run, setup })))
    }
}

/// Round 4: awaits the peer's confirmation.
struct Confirm {
    run: Run,
    setup: PairSetup,
}

impl Round<PairSetup> for Confirm {
    fn shape(&self) -> Shape {
        Shape {
            broadcast: 0,
            direct: 32,
        }
    }

    fn next(
        self: Box<Self>,
        received: &Received<'_>,
        _: &mut dyn CryptoRngCore,
    ) -> Result<Next<PairSetup>, Error> {
        let (_, theirs) = self.run.only(received)?;
        let expected = confirmation(&self.setup.id, self.run.side.other());
        if !bool::from(expected.as_slice().ct_eq(theirs)) {
            return Err(self.run.abort(AbortReason::ConsistencyCheck));
        }
        Ok(Next::Done(self.setup, None))
    }
}

/// What the transfers are bound to in which `sender` sends.
fn direction(offers: &[u8; 32], sender: Side) -> [u8; 32] {
    tags::hash(tags::PAIR_SESSION, &[offers, &[sender.to_byte()]])
}

fn message_digest(message: &[u8]) -> [u8; 32] {
    tags::hash(tags::PAIR_MESSAGE, &[message])
}

fn confirmation(id: &[u8; 32], side: Side) -> [u8; 32] {
    tags::hash(tags::PAIR_CONFIRM, &[id, &[side.to_byte()]])
}
