//! ECDSA: every field of every message of every round changed, and every message left out, resized, sent
//! twice, replayed or exchanged. The run ends with the right participant blamed where the protocol can
//! know it, and never with a wrong result.

// A panic is how a test fails.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use arca_threshold::ecdsa::pairwise::{PairSetup, alice_message_bytes, bob_message_bytes};
use arca_threshold::ecdsa::{CurveId, KeyPackage, Presignature, Signed};
use arca_threshold::{AbortReason, Participant};
use rand_chacha::ChaCha20Rng;

use support::ecdsa::*;
use support::tamper::*;
use support::*;

const POINT: usize = 33;
const SCALAR: usize = 32;
/// Presignatures of a run.
const COUNT: usize = 2;
/// Where the parts start from round 2 on, after the echo of three broadcasts.
const AFTER_ECHO: usize = field::HEADER_END + 3 * 32;

struct KeyGeneration(CurveId);

impl Case for KeyGeneration {
    type Output = KeyPackage;
    const ROUNDS: u32 = 4;

    fn starts(&self, rng: &mut ChaCha20Rng) -> Vec<Start<Self::Output>> {
        dkg_starts(self.0, &set([1, 2, 3]), 2, rng)
    }

    fn result(&self, key: &Self::Output) -> Vec<u8> {
        key.to_bytes().to_vec()
    }
}

/// The setup of 1 and 2 with each other.
struct PairwiseSetup;

impl Case for PairwiseSetup {
    type Output = PairSetup;
    const ROUNDS: u32 = 4;

    fn starts(&self, rng: &mut ChaCha20Rng) -> Vec<Start<Self::Output>> {
        pair_starts(p(1), p(2), rng)
    }

    fn result(&self, setup: &Self::Output) -> Vec<u8> {
        setup.id().to_vec()
    }
}

/// A key and setups that a failed check spends: the same ones are made again then.
struct Cluster {
    keys: Keys,
    setups: RefCell<Setups>,
}

impl Cluster {
    fn new(curve: CurveId) -> Self {
        let keys = generate(curve, 2, 3, &mut rng(1));
        let setups = RefCell::new(pair_up(3, &mut rng(2)));
        Self { keys, setups }
    }

    fn setups(&self) -> Setups {
        let is_poisoned = |setups: &Setups| {
            setups
                .values()
                .flat_map(|s| s.values())
                .any(|s| s.is_poisoned())
        };
        if is_poisoned(&self.setups.borrow()) {
            *self.setups.borrow_mut() = pair_up(3, &mut rng(2));
        }
        self.setups.borrow().clone()
    }
}

/// Presigning by 1, 2 and 3.
struct Presigning<'a>(&'a Cluster);

impl Case for Presigning<'_> {
    type Output = Vec<Presignature>;
    const ROUNDS: u32 = 3;

    fn starts(&self, rng: &mut ChaCha20Rng) -> Vec<Start<Self::Output>> {
        let Cluster { keys, .. } = self.0;
        presign_starts(keys, &self.0.setups(), &set([1, 2, 3]), COUNT, rng)
    }

    fn result(&self, presignatures: &Self::Output) -> Vec<u8> {
        format!("{presignatures:?}").into_bytes()
    }
}

/// Signing by 1, 2 and 3, with 2 as coordinator.
struct FullSigning<'a>(&'a Cluster);

impl Case for FullSigning<'_> {
    type Output = Signed;
    const ROUNDS: u32 = 3;

    fn starts(&self, rng: &mut ChaCha20Rng) -> Vec<Start<Self::Output>> {
        let Cluster { keys, .. } = self.0;
        let messages = messages(keys, COUNT);
        let params = signing_params(&set([1, 2, 3]), p(2), &messages, rng);
        sign_starts(keys, &self.0.setups(), &params, rng)
    }

    fn result(&self, signed: &Self::Output) -> Vec<u8> {
        format!("{signed:?}").into_bytes()
    }
}

#[test]
fn a_flipped_bit_anywhere_in_key_generation_names_the_sender() {
    flip_everything(&KeyGeneration(CurveId::Secp256k1), |round| match round {
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

/// Flips a bit of a message from 1 to 2. What 2 ends with, unless all is as in an honest run.
fn flip<C: Case>(
    case: &C,
    honest: &BTreeMap<Participant, Vec<u8>>,
    round: u32,
    offset: usize,
    bit: u8,
) -> Option<Blame> {
    let outcomes = case.run(|now, letters| {
        let hit = |l: &&mut Letter| now == round && l.from == p(1) && l.to == p(2);
        for letter in letters.iter_mut().filter(hit) {
            letter.bytes[offset] ^= 1 << bit;
        }
    });
    case.assert_no_wrong_result(honest, &outcomes);
    let outcome = &outcomes[&p(2)];
    outcome.is_err().then(|| blame(outcome))
}

/// Flips bits all over a field: at both ends and in between. `None` stands for an honest outcome.
fn flip_field<C: Case>(
    case: &C,
    round: u32,
    field: &Range<usize>,
    samples: usize,
    expected: &[Option<Blame>],
) {
    let honest = case.honest();
    let step = (field.len() / samples).max(1);
    let inner = field.clone().step_by(step).chain([field.end - 1]);
    for (i, offset) in inner.enumerate() {
        let blame = flip(case, &honest, round, offset, (i % 8) as u8);
        assert!(
            expected.contains(&blame),
            "round {round}, {field:?}, offset {offset}: {blame:?}"
        );
    }
}

/// Header and echo are the same for all protocols.
fn flip_header_and_echo<C: Case>(case: &C, rounds: &[u32]) {
    let honest = case.honest();
    for round in rounds {
        let parts = if *round == 1 {
            field::HEADER_END
        } else {
            AFTER_ECHO
        };
        for offset in (0..parts).step_by(7).chain([0, 1, 34, 35, 37]) {
            let expected = header_or_echo_blame(*round, offset);
            assert_eq!(
                flip(case, &honest, *round, offset, 2),
                expected,
                "round {round}, {offset}"
            );
        }
    }
}

/// The rounds that presigning and signing have in common, field by field.
fn flip_presigning_rounds<C: Case>(case: &C, psi: &[Option<Blame>]) {
    let one = |reason| Some(culprit(reason, 1));
    let malformed = one(AbortReason::Malformed);
    let check = one(AbortReason::ConsistencyCheck);

    let commitment = field::HEADER_END..field::HEADER_END + 32;
    flip_field(case, 1, &commitment, 3, &[one(AbortReason::Equivocation)]);
    let setup = commitment.end..commitment.end + 32;
    let other = suspects(AbortReason::ContextMismatch, &[1]);
    flip_field(case, 1, &setup, 2, &[Some(other)]);
    // A flip where the receiver's secret bit is zero changes nothing for it, and 1, who knows what it
    // sent, refuses the answer.
    let bob = setup.end..commitment.end + bob_message_bytes(COUNT);
    let late = one(AbortReason::Missing);
    flip_field(
        case,
        1,
        &bob,
        8,
        &[check.clone(), malformed.clone(), late, None],
    );

    let nonces = AFTER_ECHO..AFTER_ECHO + COUNT * POINT;
    flip_field(case, 2, &nonces, 3, &[one(AbortReason::CommitmentMismatch)]);
    let keys = nonces.end..nonces.end + COUNT * POINT;
    flip_field(case, 2, &keys, 3, &[check.clone(), malformed.clone()]);
    let alice = keys.end..keys.end + alice_message_bytes(COUNT);
    flip_field(case, 2, &alice, 8, &[check.clone(), malformed.clone()]);
    let mut start = alice.end;
    for _ in 0..COUNT {
        for _ in 0..2 {
            let gamma = start..start + POINT;
            flip_field(case, 2, &gamma, 2, &[check.clone(), malformed.clone()]);
            start = gamma.end;
        }
        flip_field(case, 2, &(start..start + SCALAR), 1, psi);
        start += SCALAR;
    }
}

#[test]
fn a_flipped_bit_in_presigning_names_the_sender() {
    let cluster = Cluster::new(CurveId::Secp256k1);
    let case = Presigning(&cluster);
    flip_header_and_echo(&case, &[1, 2, 3]);
    // Nothing but the signature itself can show a wrong ψ: see `a_wrong_psi_gives_no_signature`.
    flip_presigning_rounds(&case, &[None]);
}

#[test]
fn a_flipped_bit_in_signing_names_the_sender_or_the_suspects() {
    for curve in CURVES {
        let cluster = Cluster::new(curve);
        let case = FullSigning(&cluster);
        let invalid = Some(suspects(AbortReason::InvalidSignatureShare, &[1, 3]));
        flip_presigning_rounds(&case, std::slice::from_ref(&invalid));
        flip_header_and_echo(&case, &[3]);
        for i in 0..COUNT * 2 {
            let share = AFTER_ECHO + i * SCALAR..AFTER_ECHO + (i + 1) * SCALAR;
            flip_field(&case, 3, &share, 2, std::slice::from_ref(&invalid));
        }
    }
}

/// The parts of a setup's messages have a test of their own, in `pairwise.rs`.
#[test]
fn a_flipped_bit_in_the_header_or_echo_of_a_setup_names_the_sender() {
    let case = PairwiseSetup;
    let honest = case.honest();
    for round in 1..=4 {
        let echo = if round == 1 { 0 } else { 2 * 32 };
        for offset in (0..field::HEADER_END + echo).step_by(3) {
            let expected = header_or_echo_blame(round, offset);
            let blame = flip(&case, &honest, round, offset, 2);
            assert_eq!(blame, expected, "round {round}, offset {offset}");
        }
    }
}

/// All products of a peer are checked in one sum: what is wrong in one equation and made good in another is
/// found, be it within a presignature or between two.
#[test]
fn wrong_products_do_not_make_each_other_good() {
    use k256::elliptic_curve::sec1::ToEncodedPoint as _;
    fn add(message: &mut [u8], at: usize, point: k256::ProjectivePoint) {
        let bytes = &mut message[at..at + POINT];
        let old = k256::PublicKey::from_sec1_bytes(bytes).unwrap();
        let new = (old.to_projective() + point).to_affine();
        bytes.copy_from_slice(new.to_encoded_point(true).as_bytes());
    }
    let cluster = Cluster::new(CurveId::Secp256k1);
    let first = AFTER_ECHO + 2 * COUNT * POINT + alice_message_bytes(COUNT);
    let second = first + 2 * POINT + SCALAR;
    for (one, other) in [
        (first, first + POINT),
        (first, second),
        (first + POINT, second),
        (second, second + POINT),
    ] {
        let outcomes = Presigning(&cluster).run(|now, letters| {
            let hit = |l: &&mut Letter| now == 2 && l.from == p(1) && l.to == p(2);
            for letter in letters.iter_mut().filter(hit) {
                add(&mut letter.bytes, one, k256::ProjectivePoint::GENERATOR);
                add(&mut letter.bytes, other, -k256::ProjectivePoint::GENERATOR);
            }
        });
        assert_culprits(&outcomes[&p(2)], AbortReason::ConsistencyCheck, &[1]);
    }
}

/// Scalars and points that no signer can mean.
#[test]
fn values_out_of_range_name_the_sender() {
    let cluster = Cluster::new(CurveId::Secp256k1);
    let case = FullSigning(&cluster);
    let keys = AFTER_ECHO + COUNT * POINT;
    let gamma = keys + COUNT * POINT + alice_message_bytes(COUNT);
    let psi = gamma + 2 * POINT;
    for (round, offset, len, byte) in [
        (2, keys, POINT, 0),
        (2, keys, POINT, 0xff),
        (2, gamma, POINT, 0),
        (2, gamma + POINT, POINT, 0xff),
        (2, psi, SCALAR, 0xff),
        (3, AFTER_ECHO, SCALAR, 0xff),
        (3, AFTER_ECHO + SCALAR, SCALAR, 0xff),
    ] {
        let outcomes = case.run(|now, letters| {
            let hit = |l: &&mut Letter| now == round && l.from == p(1) && l.to == p(2);
            for letter in letters.iter_mut().filter(hit) {
                letter.bytes[offset..offset + len].fill(byte);
            }
        });
        assert_culprits(&outcomes[&p(2)], AbortReason::Malformed, &[1]);
    }
}

/// All-zero shares are well formed.
#[test]
fn shares_of_zero_give_no_signature() {
    let cluster = Cluster::new(CurveId::Secp256k1);
    let outcomes = FullSigning(&cluster).run(|round, letters| {
        for letter in letters.iter_mut().filter(|_| round == 3) {
            letter.bytes[AFTER_ECHO..].fill(0);
        }
    });
    let expected = suspects(AbortReason::InvalidSignatureShare, &[1, 3]);
    assert_eq!(blame(&outcomes[&p(2)]), expected);
}

/// Runs the same test body on every protocol.
macro_rules! for_every_case {
    (|$case:ident| $body:expr) => {
        for curve in CURVES {
            let $case = KeyGeneration(curve);
            $body;
        }
        let $case = PairwiseSetup;
        $body;
        let cluster = Cluster::new(CurveId::Secp256k1);
        let $case = Presigning(&cluster);
        $body;
        let $case = FullSigning(&cluster);
        $body;
    };
}

#[test]
fn a_message_left_out_names_its_sender() {
    for_every_case!(|case| leave_each_out(&case));
}

#[test]
fn messages_of_another_length_name_their_sender() {
    for_every_case!(|case| resize_each(&case));
}

#[test]
fn two_messages_for_one_round_name_their_sender() {
    for_every_case!(|case| send_each_twice(&case));
}

#[test]
fn exchanged_messages_are_refused() {
    for_every_case!(|case| exchange_each(&case));
}

#[test]
fn messages_of_other_sessions_protocols_and_rounds_name_their_sender() {
    let cluster = Cluster::new(CurveId::Secp256k1);
    let generation = KeyGeneration(CurveId::Secp256k1);
    let presigning = Presigning(&cluster);
    let signing = FullSigning(&cluster);

    fn other_session<C: Case>(case: &C) -> Vec<Letter> {
        let mut all = Vec::new();
        run_with(case.starts(&mut rng(99)), &mut rng(5), |_, letters| {
            all.extend(letters.clone());
        });
        all
    }
    let session = AbortReason::WrongSession;
    assert_replays_are_refused(&generation, &other_session(&generation), session);
    assert_replays_are_refused(&presigning, &other_session(&presigning), session);
    assert_replays_are_refused(&signing, &other_session(&signing), session);
    assert_replays_are_refused(&presigning, &signing.letters(), session);
    assert_replays_are_refused(&signing, &presigning.letters(), session);
    assert_replays_are_refused(&generation, &signing.letters(), session);
    let setup = PairwiseSetup;
    assert_replays_are_refused(&setup, &other_session(&setup), session);
    assert_replays_are_refused(&setup, &generation.letters(), session);

    fn one_round_later<C: Case>(case: &C) {
        let mut earlier = case.letters();
        for letter in &mut earlier {
            letter.round += 1;
        }
        assert_replays_are_refused(case, &earlier, AbortReason::WrongRound);
    }
    one_round_later(&generation);
    one_round_later(&presigning);
    one_round_later(&signing);
    one_round_later(&setup);
}

/// The parts of two messages exchanged, under headers that fit: what a signer sends to one peer is of no
/// use at another, nor what it sent in another session.
#[test]
fn transplanted_parts_are_refused() {
    let cluster = Cluster::new(CurveId::Secp256k1);
    let case = Presigning(&cluster);
    let mut other_session = Vec::new();
    run_with(case.starts(&mut rng(99)), &mut rng(5), |_, letters| {
        other_session.extend(letters.clone());
    });
    for round in [1, 2] {
        let parts = if round == 1 {
            // Commitment, setup.
            field::HEADER_END + 2 * 32
        } else {
            AFTER_ECHO + 2 * COUNT * POINT
        };
        for donor in [case.letters(), other_session.clone()] {
            let is_other = donor == other_session;
            let donated = donor
                .iter()
                .find(|l| l.round == round && l.from == p(1) && (is_other == (l.to == p(2))))
                .unwrap();
            let outcomes = case.run(|now, letters| {
                let hit = |l: &&mut Letter| now == round && l.from == p(1) && l.to == p(2);
                for letter in letters.iter_mut().filter(hit) {
                    letter.bytes[parts..].copy_from_slice(&donated.bytes[parts..]);
                }
            });
            assert_culprits(&outcomes[&p(2)], AbortReason::ConsistencyCheck, &[1]);
        }
    }
}
