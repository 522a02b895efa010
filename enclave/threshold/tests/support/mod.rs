//! A seeded in-memory network of participants, and what the tests do with it.

// Each test binary uses its part of this module.
#![allow(dead_code)]

pub mod ecdsa;
pub mod schnorr;
pub mod tamper;

use std::collections::{BTreeMap, BTreeSet};

use arca_threshold::{AbortReason, Error, Outbox, Participant, Protocol, SessionId, Transition};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

/// Where the fields of a message start; see the crate's `protocol/wire.rs`.
pub mod field {
    use std::ops::Range;

    pub const VERSION: Range<usize> = 0..1;
    pub const PROTOCOL: Range<usize> = 1..2;
    pub const SESSION: Range<usize> = 2..34;
    pub const ROUND: Range<usize> = 34..35;
    pub const FROM: Range<usize> = 35..37;
    pub const TO: Range<usize> = 37..39;
    pub const CONTEXT: Range<usize> = 39..71;
    /// Echo or, in round 1, the parts.
    pub const HEADER_END: usize = 71;
}

/// A message on the network. `from` is what the channel proves, not what the message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    pub round: u32,
    pub from: Participant,
    pub to: Participant,
    pub bytes: Vec<u8>,
}

/// One participant's start of a protocol.
pub type Start<O> = (Participant, Protocol<O>, Outbox);
/// How the run ended for each participant.
pub type Outcomes<O> = BTreeMap<Participant, Result<O, Error>>;

pub fn p(index: u16) -> Participant {
    Participant::new(index).unwrap()
}

pub fn set(indices: impl IntoIterator<Item = u16>) -> BTreeSet<Participant> {
    indices.into_iter().map(p).collect()
}

pub fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

pub fn session(rng: &mut ChaCha20Rng) -> SessionId {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    SessionId::new(bytes)
}

/// Runs to the end, delivering each round's letters in a random order.
pub fn run<O>(starts: Vec<Start<O>>, rng: &mut ChaCha20Rng) -> Outcomes<O> {
    run_with(starts, rng, |_, _| {})
}

/// Runs to the end. The adversary sees and changes each round's letters before they are delivered.
pub fn run_with<O>(
    starts: Vec<Start<O>>,
    rng: &mut ChaCha20Rng,
    mut adversary: impl FnMut(u32, &mut Vec<Letter>),
) -> Outcomes<O> {
    let mut outcomes = BTreeMap::new();
    let mut running = BTreeMap::new();
    let mut letters = Vec::new();
    for (me, protocol, outbox) in starts {
        post(&mut letters, me, 1, outbox);
        running.insert(me, protocol);
    }
    for round in 1.. {
        if running.is_empty() {
            break;
        }
        adversary(round, &mut letters);
        shuffle(&mut letters, rng);
        let mut next = BTreeMap::new();
        let mut posted = Vec::new();
        for (me, protocol) in running {
            assert_eq!(protocol.round(), round);
            let mut inbox = protocol.inbox();
            let mut mine = letters.iter().filter(|letter| letter.to == me);
            let delivered =
                mine.try_for_each(|letter| inbox.insert(letter.from, letter.bytes.clone()));
            let step = delivered.and_then(|()| protocol.advance(inbox, rng));
            match step {
                Ok(Transition::Continue(protocol, outbox)) => {
                    post(&mut posted, me, round + 1, outbox);
                    next.insert(me, protocol);
                }
                Ok(Transition::Done(output, outbox)) => {
                    post(&mut posted, me, round + 1, outbox);
                    outcomes.insert(me, Ok(output));
                }
                Err(error) => {
                    outcomes.insert(me, Err(error));
                }
            }
        }
        running = next;
        letters = posted;
    }
    outcomes
}

fn post(letters: &mut Vec<Letter>, from: Participant, round: u32, outbox: Outbox) {
    letters.extend(outbox.into_iter().map(|(to, bytes)| Letter {
        round,
        from,
        to,
        bytes: bytes.to_vec(),
    }));
}

fn shuffle(letters: &mut [Letter], rng: &mut ChaCha20Rng) {
    for i in (1..letters.len()).rev() {
        letters.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
    }
}

/// What an abort says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    pub reason: AbortReason,
    pub culprits: Vec<u16>,
    pub suspects: Vec<u16>,
}

pub fn blame<O: std::fmt::Debug>(outcome: &Result<O, Error>) -> Blame {
    match outcome {
        Err(Error::Abort {
            reason,
            culprits,
            suspects,
        }) => Blame {
            reason: *reason,
            culprits: culprits.iter().map(|p| p.get()).collect(),
            suspects: suspects.iter().map(|p| p.get()).collect(),
        },
        other => panic!("not an abort: {other:?}"),
    }
}

/// Asserts an abort for `reason` by exactly these culprits.
pub fn assert_culprits<O: std::fmt::Debug>(
    outcome: &Result<O, Error>,
    reason: AbortReason,
    culprits: &[u16],
) {
    let expected = Blame {
        reason,
        culprits: culprits.to_vec(),
        suspects: vec![],
    };
    assert_eq!(blame(outcome), expected);
}
