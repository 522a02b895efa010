//! Every bit-flipped field of every message of every round, and every message left out, replayed or
//! exchanged: the run ends with the right participant blamed, never with a wrong result.

// A panic is how a test fails.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

mod support;

use arca_threshold::{AbortReason, Scheme};
use rand_chacha::ChaCha20Rng;

use support::schnorr::*;
use support::tamper::*;
use support::*;

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
        leave_each_out(&case);
    });
}

#[test]
fn messages_of_another_length_name_their_sender() {
    for_every_case!(|case| {
        resize_each(&case);
    });
}

#[test]
fn two_messages_for_one_round_name_their_sender() {
    for_every_case!(|case| {
        send_each_twice(&case);
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

#[test]
fn exchanged_messages_are_refused() {
    for_every_case!(|case| {
        exchange_each(&case);
    });
}
