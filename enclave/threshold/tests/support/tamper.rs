//! Changing every message of a run, for any protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use arca_threshold::{AbortReason, Participant};
use rand_chacha::ChaCha20Rng;

use super::*;

/// A protocol of three participants in which 1 deviates, as the same seed always runs it.
pub trait Case {
    type Output: Debug;
    const ROUNDS: u32;

    fn starts(&self, rng: &mut ChaCha20Rng) -> Vec<Start<Self::Output>>;

    /// What nobody may end with unless the run was honest.
    fn result(&self, output: &Self::Output) -> Vec<u8>;

    fn run(&self, adversary: impl FnMut(u32, &mut Vec<Letter>)) -> Outcomes<Self::Output> {
        let mut rng = rng(42);
        run_with(self.starts(&mut rng), &mut rng, adversary)
    }

    /// Every letter of an honest run.
    fn letters(&self) -> Vec<Letter> {
        let mut all = Vec::new();
        self.run(|_, letters| all.extend(letters.clone()));
        all
    }

    /// What the participants of an honest run end with.
    fn honest(&self) -> BTreeMap<Participant, Vec<u8>> {
        let outcomes = self.run(|_, _| {});
        let results = outcomes
            .iter()
            .map(|(me, o)| (*me, self.result(o.as_ref().unwrap())));
        results.collect()
    }

    /// Nobody ends with anything else than in an honest run.
    fn assert_no_wrong_result(
        &self,
        honest: &BTreeMap<Participant, Vec<u8>>,
        outcomes: &Outcomes<Self::Output>,
    ) {
        for (me, outcome) in outcomes {
            if let Ok(output) = outcome {
                assert_eq!(self.result(output), honest[me]);
            }
        }
    }
}

pub fn culprit(reason: AbortReason, culprit: u16) -> Blame {
    Blame {
        reason,
        culprits: vec![culprit],
        suspects: vec![],
    }
}

pub fn suspects(reason: AbortReason, suspects: &[u16]) -> Blame {
    Blame {
        reason,
        culprits: vec![],
        suspects: suspects.to_vec(),
    }
}

/// What 2 must say when 1 flips a bit at `offset` of its message to it.
pub fn header_or_echo_blame(round: u32, offset: usize) -> Option<Blame> {
    let header = match offset {
        o if field::VERSION.contains(&o) => culprit(AbortReason::Malformed, 1),
        o if field::PROTOCOL.contains(&o) => culprit(AbortReason::WrongSession, 1),
        o if field::SESSION.contains(&o) => culprit(AbortReason::WrongSession, 1),
        o if field::ROUND.contains(&o) => culprit(AbortReason::WrongRound, 1),
        o if field::FROM.contains(&o) => culprit(AbortReason::Misaddressed, 1),
        o if field::TO.contains(&o) => culprit(AbortReason::Misaddressed, 1),
        o if field::CONTEXT.contains(&o) => suspects(AbortReason::ContextMismatch, &[1]),
        _ => {
            return match (offset - field::HEADER_END) / 32 {
                _ if round == 1 => None,
                // What 1 itself broadcast, or what 2 did: 1 lies about it to 2's face.
                0 | 1 => Some(culprit(AbortReason::Equivocation, 1)),
                2 => Some(suspects(AbortReason::Equivocation, &[1, 3])),
                _ => None,
            };
        }
    };
    Some(header)
}

/// Flips every byte of every message that 1 sends in every round, in turn to 2 alone and to all alike.
pub fn flip_everything<C: Case>(case: &C, part_blames: impl Fn(u32) -> Vec<Blame>) {
    let honest = case.honest();
    let letters = case.letters();
    for round in 1..=C::ROUNDS {
        let to_two = |l: &&Letter| l.round == round && l.from == p(1) && l.to == p(2);
        for offset in 0..letters.iter().find(to_two).unwrap().bytes.len() {
            let to_all = (offset + round as usize).is_multiple_of(2);
            let outcomes = case.run(|now, letters| {
                let hit =
                    |l: &&mut Letter| now == round && l.from == p(1) && (to_all || l.to == p(2));
                for letter in letters.iter_mut().filter(hit) {
                    letter.bytes[offset] ^= 1 << (offset % 8);
                }
            });
            case.assert_no_wrong_result(&honest, &outcomes);
            let blame = blame(&outcomes[&p(2)]);
            match header_or_echo_blame(round, offset) {
                Some(expected) => assert_eq!(blame, expected, "round {round}, offset {offset}"),
                None => assert!(
                    part_blames(round).contains(&blame),
                    "round {round}, offset {offset}: {blame:?}"
                ),
            }
        }
    }
}

/// In place of each letter, one of `foreign` between the same two participants in the same round.
pub fn assert_replays_are_refused<C: Case>(case: &C, foreign: &[Letter], reason: AbortReason) {
    let honest = case.honest();
    for letter in foreign.iter().filter(|l| l.round <= C::ROUNDS) {
        let same_place =
            |l: &&mut Letter| l.round == letter.round && l.from == letter.from && l.to == letter.to;
        let mut replaced = false;
        let outcomes = case.run(|_, letters| {
            for target in letters.iter_mut().filter(same_place) {
                target.bytes = letter.bytes.clone();
                replaced = true;
            }
        });
        if replaced {
            case.assert_no_wrong_result(&honest, &outcomes);
            assert_culprits(&outcomes[&letter.to], reason, &[letter.from.get()]);
        }
    }
}

/// Leaves out each message in turn.
pub fn leave_each_out<C: Case>(case: &C) {
    let honest = case.honest();
    for dropped in case.letters() {
        let outcomes = case.run(|_, letters| letters.retain(|l| *l != dropped));
        case.assert_no_wrong_result(&honest, &outcomes);
        let sender = dropped.from.get();
        assert_culprits(&outcomes[&dropped.to], AbortReason::Missing, &[sender]);
    }
}

/// Gives each message in turn other lengths.
pub fn resize_each<C: Case>(case: &C) {
    let honest = case.honest();
    for target in case.letters() {
        let len = target.bytes.len();
        for new_len in [0, 1, field::HEADER_END, len - 1, len + 1, len + 32, 1 << 20] {
            let outcomes = case.run(|_, letters| {
                for letter in letters.iter_mut().filter(|l| **l == target) {
                    letter.bytes.resize(new_len, 0);
                }
            });
            case.assert_no_wrong_result(&honest, &outcomes);
            let sender = target.from.get();
            assert_culprits(&outcomes[&target.to], AbortReason::Malformed, &[sender]);
        }
    }
}

/// Sends each message in turn a second time, with one bit changed.
pub fn send_each_twice<C: Case>(case: &C) {
    let honest = case.honest();
    for target in case.letters() {
        let outcomes = case.run(|_, letters| {
            if letters.contains(&target) {
                let mut second = target.clone();
                *second.bytes.last_mut().unwrap() ^= 1;
                letters.push(second);
            }
        });
        case.assert_no_wrong_result(&honest, &outcomes);
        let sender = target.from.get();
        assert_culprits(&outcomes[&target.to], AbortReason::Conflicting, &[sender]);
    }
}

/// Exchanges each two messages of one round.
pub fn exchange_each<C: Case>(case: &C) {
    let honest = case.honest();
    let letters = case.letters();
    for (i, one) in letters.iter().enumerate() {
        let same_round = letters[i + 1..].iter().filter(|l| l.round == one.round);
        for other in same_round {
            let outcomes = case.run(|_, letters| {
                let place = |of: &Letter| letters.iter().position(|l| l == of);
                if let (Some(a), Some(b)) = (place(one), place(other)) {
                    letters[a].bytes = other.bytes.clone();
                    letters[b].bytes = one.bytes.clone();
                }
            });
            case.assert_no_wrong_result(&honest, &outcomes);
            // Whichever of the two arrives first at a recipient is blamed there.
            let senders: BTreeSet<Participant> = [one.from, other.from].into();
            for to in [one.to, other.to] {
                let blame = blame(&outcomes[&to]);
                assert_eq!(blame.reason, AbortReason::Misaddressed);
                assert!(blame.culprits.iter().all(|c| senders.contains(&p(*c))));
                assert_eq!(blame.culprits.len(), 1);
            }
        }
    }
}
