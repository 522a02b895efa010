//! Two sides' setup, driven by hand.

use arca_threshold::ecdsa::pairwise::{PairSetup, PairSetupParams, pair_setup};
use arca_threshold::{Error, Outbox, Participant, Protocol, SessionId, Transition};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

/// An honest setup: the low side's and the high side's.
pub fn setup(seed: u64) -> (PairSetup, PairSetup) {
    let [low, high] = Run::new(seed).finish();
    (low.unwrap(), high.unwrap())
}

pub fn params(me: Participant, peer: Participant, session: [u8; 32]) -> PairSetupParams {
    PairSetupParams {
        session: SessionId::new(session),
        context: [3; 32],
        me,
        peer,
    }
}

/// Gets the low side's message, and what the high side sends in the same round.
type Tamper<'a> = Box<dyn FnOnce(&mut Vec<u8>, &[u8]) + 'a>;

/// Both sides of a setup; one message from the low side to the high side may be changed on its way.
pub struct Run<'a> {
    sides: [Side; 2],
    tamper: Option<(usize, Tamper<'a>)>,
    rng: ChaCha20Rng,
}

struct Side {
    peer: Participant,
    state: State,
}

enum State {
    Running(Protocol<PairSetup>, Outbox),
    Ended(Result<PairSetup, Error>),
}

impl<'a> Run<'a> {
    pub fn new(seed: u64) -> Self {
        Self::with_session(seed, [7; 32])
    }

    pub fn with_session(seed: u64, session: [u8; 32]) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let [one, two] = [1, 2].map(|index| Participant::new(index).unwrap());
        let sides = [(one, two), (two, one)].map(|(me, peer)| Side {
            peer,
            state: start(params(me, peer, session), &mut rng),
        });
        Self {
            sides,
            tamper: None,
            rng,
        }
    }

    /// Changes the low side's message of this round.
    pub fn tamper(&mut self, round: usize, change: impl FnOnce(&mut Vec<u8>) + 'a) {
        self.tamper = Some((round, Box::new(|message, _| change(message))));
    }

    /// Puts something made of the high side's own message in the place of the low side's in this round.
    pub fn reflect(&mut self, round: usize, reflected: impl FnOnce(&[u8]) -> Vec<u8> + 'a) {
        let change = |message: &mut Vec<u8>, theirs: &[u8]| *message = reflected(theirs);
        self.tamper = Some((round, Box::new(change)));
    }

    /// What the low side sends in this round.
    pub fn record(mut self, round: usize) -> Vec<u8> {
        for _ in 1..round {
            self.step(1);
        }
        let [low, _] = self.sides;
        let State::Running(_, outbox) = low.state else {
            panic!("ended before this round");
        };
        outbox.into_iter().next().unwrap().1.to_vec()
    }

    pub fn finish(mut self) -> [Result<PairSetup, Error>; 2] {
        for round in 1..=4 {
            self.step(round);
        }
        self.sides.map(|side| match side.state {
            State::Ended(result) => result,
            State::Running(..) => panic!("more than four rounds"),
        })
    }

    /// One round. A side that has aborted sends nothing, so the other aborts too.
    fn step(&mut self, round: usize) {
        let mut outboxes = [Vec::new(), Vec::new()];
        let mut runs = Vec::new();
        for (side, sent) in self.sides.iter_mut().zip(&mut outboxes) {
            let state = std::mem::replace(&mut side.state, State::Ended(Err(Error::Bug("ended"))));
            runs.push(match state {
                State::Running(run, outbox) => {
                    sent.extend(outbox.into_iter().map(|(_, message)| message.to_vec()));
                    Ok(run)
                }
                State::Ended(result) => Err(State::Ended(result)),
            });
        }
        if let Some((_, change)) = self.tamper.take_if(|(at, _)| *at == round)
            && let [low, high] = &mut outboxes
            && let (Some(message), Some(theirs)) = (low.first_mut(), high.first())
        {
            change(message, theirs);
        }
        outboxes.reverse();
        for ((side, run), received) in self.sides.iter_mut().zip(runs).zip(outboxes) {
            side.state = match run {
                Ok(run) => advance(run, side.peer, received, &mut self.rng),
                Err(ended) => ended,
            };
        }
    }
}

fn start(params: PairSetupParams, rng: &mut ChaCha20Rng) -> State {
    let (run, outbox) = pair_setup(params, rng).unwrap();
    State::Running(run, outbox)
}

fn advance(
    run: Protocol<PairSetup>,
    from: Participant,
    received: Vec<Vec<u8>>,
    rng: &mut ChaCha20Rng,
) -> State {
    let mut inbox = run.inbox();
    for message in received {
        if let Err(error) = inbox.insert(from, message) {
            return State::Ended(Err(error));
        }
    }
    match run.advance(inbox, rng) {
        Ok(Transition::Continue(run, outbox)) => State::Running(run, outbox),
        Ok(Transition::Done(setup, _)) => State::Ended(Ok(setup)),
        Err(error) => State::Ended(Err(error)),
    }
}
