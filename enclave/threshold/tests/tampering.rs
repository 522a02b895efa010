//! Every bit-flipped field of every message of every round, and every message left out, replayed or
//! exchanged: the run ends with the right participant blamed, never with a wrong result.

// A panic is how a test fails.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use arca_threshold::{AbortReason, Participant, Scheme};
use rand_chacha::ChaCha20Rng;

use support::*;

/// A protocol of three participants in which 1 deviates, as the same seed always runs it.
trait Case {
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

struct KeyGeneration(Scheme);

impl Case for KeyGeneration {
    type Output = arca_threshold::KeyPackage;
    const ROUNDS: u32 = 4;

    fn starts(&self, rng: &mut ChaCha20Rng) -> Vec<Start<Self::Output>> {
        dkg_starts(self.0, &set([1, 2, 3]), 2, rng)
    }

    fn result(&self, key: &Self::Output) -> Vec<u8> {
        key.to_bytes().unwrap().to_vec()
    }
}

/// Signing of two messages by 1, 2 and 3.
struct Signing<'a> {
    keys: &'a Keys,
    coordinator: u16,
}

impl Case for Signing<'_> {
    type Output = arca_threshold::Signed;
    const ROUNDS: u32 = 2;

    fn starts(&self, rng: &mut ChaCha20Rng) -> Vec<Start<Self::Output>> {
        let messages = messages(self.keys[&p(1)].scheme(), 2);
        let signers = set([1, 2, 3]);
        sign_starts(self.keys, &signers, p(self.coordinator), &messages, rng)
    }

    fn result(&self, signed: &Self::Output) -> Vec<u8> {
        format!("{signed:?}").into_bytes()
    }
}

/// Runs the same test body on key generation and on signing with 2 as coordinator, in both schemes.
macro_rules! for_every_case {
    (|$case:ident| $body:block) => {
        for scheme in SCHEMES {
            let $case = KeyGeneration(scheme);
            $body
            let keys = generate(scheme, 2, 3, &mut rng(1));
            let $case = Signing { keys: &keys, coordinator: 2 };
            $body
        }
    };
}

fn culprit(reason: AbortReason, culprit: u16) -> Blame {
    Blame {
        reason,
        culprits: vec![culprit],
        suspects: vec![],
    }
}

fn suspects(reason: AbortReason, suspects: &[u16]) -> Blame {
    Blame {
        reason,
        culprits: vec![],
        suspects: suspects.to_vec(),
    }
}

/// What 2 must say when 1 flips a bit at `offset` of its message to it.
fn header_or_echo_blame(round: u32, offset: usize) -> Option<Blame> {
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
fn flip_everything<C: Case>(case: &C, part_blames: impl Fn(u32) -> Vec<Blame>) {
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

fn flip_everything_in_key_generation(scheme: Scheme) {
    flip_everything(&KeyGeneration(scheme), |round| match round {
        // The sender echoes what it committed to, and 2 received something else.
        1 => vec![culprit(AbortReason::Equivocation, 1)],
        2 => vec![culprit(AbortReason::CommitmentMismatch, 1)],
        3 => vec![
            culprit(AbortReason::Malformed, 1),
            culprit(AbortReason::InvalidShare, 1),
        ],
        _ => vec![culprit(AbortReason::KeyMismatch, 1)],
    });
}

#[test]
fn a_flipped_bit_anywhere_in_key_generation_names_the_sender_bip340() {
    flip_everything_in_key_generation(Scheme::Bip340);
}

#[test]
fn a_flipped_bit_anywhere_in_key_generation_names_the_sender_ed25519() {
    flip_everything_in_key_generation(Scheme::Ed25519);
}

#[test]
fn a_flipped_bit_anywhere_in_signing_names_the_sender_at_the_coordinator() {
    for scheme in SCHEMES {
        let keys = generate(scheme, 2, 3, &mut rng(1));
        let case = Signing {
            keys: &keys,
            coordinator: 2,
        };
        flip_everything(&case, |round| match round {
            // Another valid point is not what its sender says in the echo that it broadcast.
            1 => vec![
                culprit(AbortReason::Malformed, 1),
                culprit(AbortReason::Equivocation, 1),
            ],
            _ => vec![
                culprit(AbortReason::Malformed, 1),
                culprit(AbortReason::InvalidSignatureShare, 1),
            ],
        });
    }
}

/// 2 is a signer like 1 and gets a false commitment from it; the coordinator 3 must not blame 2 alone
/// for a share that does not verify.
#[test]
fn a_flipped_bit_between_two_signers_does_not_blame_the_honest_one() {
    for scheme in SCHEMES {
        let keys = generate(scheme, 2, 3, &mut rng(1));
        let case = Signing {
            keys: &keys,
            coordinator: 3,
        };
        let honest = case.honest();
        let mut caught = 0;
        for offset in field::HEADER_END..field::HEADER_END + 40 {
            let outcomes = case.run(|round, letters| {
                let hit = |l: &&mut Letter| round == 1 && l.from == p(1) && l.to == p(2);
                for letter in letters.iter_mut().filter(hit) {
                    letter.bytes[offset] ^= 1;
                }
            });
            case.assert_no_wrong_result(&honest, &outcomes);
            if outcomes[&p(2)].is_ok() {
                let expected = suspects(AbortReason::Equivocation, &[1, 2]);
                assert_eq!(blame(&outcomes[&p(3)]), expected);
                caught += 1;
            } else {
                assert_culprits(&outcomes[&p(2)], AbortReason::Malformed, &[1]);
                assert_culprits(&outcomes[&p(3)], AbortReason::Missing, &[2]);
            }
        }
        assert!(caught > 0);
    }
}

#[test]
fn a_message_left_out_names_its_sender() {
    for_every_case!(|case| {
        let honest = case.honest();
        for dropped in case.letters() {
            let outcomes = case.run(|_, letters| letters.retain(|l| *l != dropped));
            case.assert_no_wrong_result(&honest, &outcomes);
            let sender = dropped.from.get();
            assert_culprits(&outcomes[&dropped.to], AbortReason::Missing, &[sender]);
        }
    });
}

#[test]
fn messages_of_another_length_name_their_sender() {
    for_every_case!(|case| {
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
    });
}

#[test]
fn two_messages_for_one_round_name_their_sender() {
    for_every_case!(|case| {
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
    });
}

#[test]
fn messages_of_other_sessions_protocols_and_rounds_name_their_sender() {
    for scheme in SCHEMES {
        let generation = KeyGeneration(scheme);
        let keys = generate(scheme, 2, 3, &mut rng(1));
        let signing = Signing {
            keys: &keys,
            coordinator: 2,
        };
        // The same protocol and participants under another session id.
        let replayed = |starts: Vec<Start<arca_threshold::KeyPackage>>| {
            let mut all = Vec::new();
            run_with(starts, &mut rng(5), |_, letters| {
                all.extend(letters.clone())
            });
            all
        };
        let other_generation = replayed(generation.starts(&mut rng(99)));
        let mut other_signing = Vec::new();
        run_with(signing.starts(&mut rng(99)), &mut rng(5), |_, letters| {
            other_signing.extend(letters.clone());
        });

        for foreign in [&other_generation, &other_signing] {
            assert_replays_are_refused(&generation, foreign, AbortReason::WrongSession);
            assert_replays_are_refused(&signing, foreign, AbortReason::WrongSession);
        }
        assert_replays_are_refused(&generation, &signing.letters(), AbortReason::WrongSession);
        for shift in 1..KeyGeneration::ROUNDS {
            let mut earlier = generation.letters();
            for letter in &mut earlier {
                letter.round += shift;
            }
            assert_replays_are_refused(&generation, &earlier, AbortReason::WrongRound);
        }
    }
}

/// In place of each letter, one of `foreign` between the same two participants in the same round.
fn assert_replays_are_refused<C: Case>(case: &C, foreign: &[Letter], reason: AbortReason) {
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

#[test]
fn exchanged_messages_are_refused() {
    for_every_case!(|case| {
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
    });
}
