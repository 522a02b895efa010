//! Two sides make a setup and multiply with it, honestly and not.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod pair;

use arca_threshold::ecdsa::pairwise::{
    Bob, Failure, MAX_MULTIPLICATIONS, Multiply, PairSetup, Shares, alice_message_bytes,
    alice_respond, bob_finish, bob_message_bytes, bob_start,
};
use arca_threshold::ecdsa::{Curve, P256, Secp256k1};
use arca_threshold::{AbortReason, Error, Participant, Reject, Transition};
use k256::elliptic_curve::Field as _;
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use sha2::{Digest as _, Sha256};

use self::pair::{Run, setup};

const CONTEXT: [u8; 32] = [1; 32];

/// Random inputs, and now and then the extreme ones.
fn inputs<C: Curve>(count: usize, rng: &mut ChaCha20Rng) -> Vec<[C::Scalar; 2]> {
    let one = C::Scalar::ONE;
    (0..count)
        .map(|index| match index % 4 {
            1 => [C::Scalar::ZERO, one],
            3 => [-one, C::random(rng)],
            _ => [C::random(rng), C::random(rng)],
        })
        .collect()
}

fn check_products<C: Curve>(
    inputs: &[[C::Scalar; 2]],
    b: &[C::Scalar],
    c: &Shares<C>,
    d: &Shares<C>,
) {
    assert_eq!([b.len(), c.len(), d.len()], [inputs.len(); 3]);
    for (((a, b), c), d) in inputs.iter().zip(b).zip(c.iter()).zip(d.iter()) {
        for k in 0..2 {
            assert_eq!(c[k] + d[k], a[k] * b);
        }
    }
}

fn multiply<C: Multiply>(
    bobs: &PairSetup,
    alices: &PairSetup,
    count: usize,
    rng: &mut ChaCha20Rng,
) {
    let inputs = inputs::<C>(count, rng);
    let (bob, message) = bob_start::<C>(bobs, &CONTEXT, count, rng).unwrap();
    assert_eq!(message.len(), bob_message_bytes(count));
    let b = bob.inputs().to_vec();
    let (c, answer) = alice_respond::<C>(alices, &CONTEXT, &inputs, &message, rng).unwrap();
    assert_eq!(answer.len(), alice_message_bytes(count));
    let d = bob_finish::<C>(bobs, bob, &answer).unwrap();
    check_products::<C>(&inputs, &b, &c, &d);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn shares_add_up_to_products(seed in any::<u64>(), count in 1_usize..12) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (low, high) = setup(seed);
        for (bobs, alices) in [(&low, &high), (&high, &low)] {
            multiply::<Secp256k1>(bobs, alices, count, &mut rng);
            multiply::<P256>(bobs, alices, count, &mut rng);
        }
    }

    #[test]
    fn zero_shares_add_up_to_zero(seed in any::<u64>(), context in any::<[u8; 32]>()) {
        fn check<C: Curve>(seed: u64, context: &[u8; 32]) {
            let ((low12, high12), (low13, high13), (low23, high23)) =
                (setup(seed), setup(seed ^ 1), setup(seed ^ 2));
            let share = |setups: [&PairSetup; 2], context| {
                let mut shares = vec![C::Scalar::ZERO; 3];
                for setup in setups {
                    setup.add_zero_shares::<C>(context, &mut shares);
                }
                shares
            };
            let all = [[&low12, &low13], [&high12, &low23], [&high13, &high23]];
            let shares = all.map(|setups| share(setups, context));
            let other = all.map(|setups| share(setups, &[0x77; 32]));
            for index in 0..3 {
                let sum = |shares: &[Vec<C::Scalar>; 3]| shares.iter().map(|s| s[index]).sum::<C::Scalar>();
                assert_eq!(sum(&shares), C::Scalar::ZERO);
                assert_eq!(sum(&other), C::Scalar::ZERO);
                for (share, other) in shares.iter().zip(&other) {
                    assert!(!bool::from(share[index].is_zero()));
                    assert_ne!(share[index], other[index]);
                    assert_ne!(share[index], share[(index + 1) % 3]);
                }
            }
        }
        check::<Secp256k1>(seed, &context);
        check::<P256>(seed, &context);
    }
}

#[test]
fn the_largest_batch() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let (low, high) = setup(1);
    multiply::<Secp256k1>(&low, &high, MAX_MULTIPLICATIONS, &mut rng);
    for count in [0, MAX_MULTIPLICATIONS + 1] {
        let started = bob_start::<Secp256k1>(&low, &CONTEXT, count, &mut rng);
        assert!(matches!(started, Err(Failure::Bug(_))));
        let inputs = vec![[k256::Scalar::ONE; 2]; count];
        let answered = alice_respond::<Secp256k1>(&high, &CONTEXT, &inputs, &[], &mut rng);
        assert!(matches!(answered, Err(Failure::Bug(_))));
    }
}

#[test]
fn runs_of_one_setup_can_overlap() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let (low, high) = setup(2);
    let inputs = inputs::<Secp256k1>(2, &mut rng);
    let (bob1, message1) = bob_start::<Secp256k1>(&low, &[1; 32], 2, &mut rng).unwrap();
    let (bob2, message2) = bob_start::<Secp256k1>(&low, &[2; 32], 2, &mut rng).unwrap();
    let (b1, b2) = (bob1.inputs().to_vec(), bob2.inputs().to_vec());
    assert_ne!(b1, b2);
    let respond = |context, message: &[u8], rng: &mut ChaCha20Rng| {
        alice_respond::<Secp256k1>(&high, context, &inputs, message, rng).unwrap()
    };
    let (c2, answer2) = respond(&[2; 32], &message2, &mut rng);
    let (c1, answer1) = respond(&[1; 32], &message1, &mut rng);
    let d1 = bob_finish(&low, bob1, &answer1).unwrap();
    let d2 = bob_finish(&low, bob2, &answer2).unwrap();
    check_products::<Secp256k1>(&inputs, &b1, &c1, &d1);
    check_products::<Secp256k1>(&inputs, &b2, &c2, &d2);
}

/// One honest run, of which a test changes something.
struct Scene {
    low: PairSetup,
    high: PairSetup,
    inputs: Vec<[k256::Scalar; 2]>,
    rng: ChaCha20Rng,
}

const COUNT: usize = 2;

impl Scene {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (low, high) = setup(seed);
        let inputs = inputs::<Secp256k1>(COUNT, &mut rng);
        Self {
            low,
            high,
            inputs,
            rng,
        }
    }

    fn start(&mut self) -> (Bob<Secp256k1>, Vec<u8>) {
        bob_start(&self.low, &CONTEXT, COUNT, &mut self.rng).unwrap()
    }

    fn respond(&mut self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let Self {
            high, inputs, rng, ..
        } = self;
        alice_respond::<Secp256k1>(high, &CONTEXT, inputs, message, rng).map(|(_, answer)| answer)
    }
}

/// Bytes of the setup's id at the front of Bob's message.
const ID: usize = 32;

/// Changes one byte in each field and at random places; the setup is poisoned each time.
#[test]
fn any_change_of_bobs_message_aborts_alice() {
    let honest = Scene::new(3).start().1;
    let tail = honest.len() - 48;
    let fields = [
        ID,
        ID + 31,
        ID + 32,
        ID + 32 + 512,
        tail - 1,
        tail,
        tail + 15,
        tail + 16,
        tail + 47,
    ];
    let random = (0..12).map(|i| ID + (i * 7919) % (honest.len() - ID));
    for at in fields.into_iter().chain(random) {
        let mut scene = Scene::new(3);
        let (_, mut message) = scene.start();
        message[at] ^= 1 << (at % 8);
        let reason = AbortReason::ConsistencyCheck;
        assert_eq!(
            scene.respond(&message),
            Err(Failure::Abort(reason)),
            "byte {at}"
        );
        assert!(scene.high.is_poisoned());
    }
}

#[test]
fn any_change_of_alices_message_aborts_bob() {
    let mut scene = Scene::new(4);
    let (_, message) = scene.start();
    let len = scene.respond(&message).unwrap().len();
    let answers = len - 32 - 32 * COUNT;
    let fields = [
        0,
        31,
        32,
        32 + 95,
        answers - 1,
        answers,
        answers + 63,
        len - 32,
        len - 1,
    ];
    let random = (0..24).map(|i| (i * 7919) % len);
    for at in fields.into_iter().chain(random) {
        let mut scene = Scene::new(4);
        let (bob, message) = scene.start();
        let mut answer = scene.respond(&message).unwrap();
        answer[at] ^= 1 << (at % 8);
        let failure = bob_finish(&scene.low, bob, &answer).unwrap_err();
        let reason = AbortReason::ConsistencyCheck;
        assert_eq!(failure, Failure::Abort(reason), "byte {at}");
        assert!(scene.low.is_poisoned());
    }
}

#[test]
fn scalars_beyond_the_order_are_refused() {
    let len = alice_message_bytes(COUNT);
    for at in [32, len - 32 - 32 * COUNT, len - 64] {
        let mut scene = Scene::new(5);
        let (bob, message) = scene.start();
        let mut answer = scene.respond(&message).unwrap();
        answer[at..at + 32].fill(0xff);
        let failure = bob_finish(&scene.low, bob, &answer).unwrap_err();
        assert_eq!(failure, Failure::Abort(AbortReason::Malformed));
        assert!(scene.low.is_poisoned());
    }
}

#[test]
fn messages_of_other_lengths_are_refused() {
    let malformed = Failure::Abort(AbortReason::Malformed);
    let change: [fn(&mut Vec<u8>); 6] = [
        |m| m.clear(),
        |m| m.push(0),
        |m| m.truncate(m.len() - 1),
        |m| m.truncate(m.len() - 32),
        |m| m.extend([0; 32]),
        |m| m.extend([0; 96]),
    ];
    for change in change {
        let mut scene = Scene::new(6);
        let (_, mut message) = scene.start();
        change(&mut message);
        assert_eq!(scene.respond(&message), Err(malformed));

        let mut scene = Scene::new(6);
        let (bob, message) = scene.start();
        let mut answer = scene.respond(&message).unwrap();
        change(&mut answer);
        assert_eq!(bob_finish(&scene.low, bob, &answer).unwrap_err(), malformed);
    }
}

/// What belongs to another context, direction, curve, number, setup or run is refused.
#[test]
fn messages_of_other_runs_are_refused() {
    let failed = Failure::Abort(AbortReason::ConsistencyCheck);
    let mut rng = ChaCha20Rng::seed_from_u64(7);

    // Another context.
    let mut scene = Scene::new(7);
    let (_bob, message) = bob_start::<Secp256k1>(&scene.low, &[2; 32], COUNT, &mut rng).unwrap();
    assert_eq!(scene.respond(&message), Err(failed));

    // The other curve.
    let mut scene = Scene::new(7);
    let (_bob, message) = bob_start::<P256>(&scene.low, &CONTEXT, COUNT, &mut rng).unwrap();
    assert_eq!(scene.respond(&message), Err(failed));

    // One's own message, come back.
    let mut scene = Scene::new(7);
    let (_bob, message) = bob_start::<Secp256k1>(&scene.high, &CONTEXT, COUNT, &mut rng).unwrap();
    assert_eq!(scene.respond(&message), Err(failed));

    // Another setup: nobody is to blame for that, so nothing is poisoned.
    let mut scene = Scene::new(7);
    let (_bob, message) = Scene::new(8).start();
    assert_eq!(scene.respond(&message), Err(Failure::OtherSetup));
    assert!(!scene.high.is_poisoned());

    // The same under this setup's id.
    let forged = [scene.high.id().as_slice(), &message[ID..]].concat();
    assert_eq!(scene.respond(&forged), Err(failed));
    assert!(scene.high.is_poisoned());

    // Another run's answer under the same context.
    let mut scene = Scene::new(7);
    let (bob, _) = scene.start();
    let (_bob, message) = scene.start();
    let answer = scene.respond(&message).unwrap();
    assert_eq!(bob_finish(&scene.low, bob, &answer).unwrap_err(), failed);

    // A state of another setup is the caller's mistake.
    for other in [Scene::new(7).high, Scene::new(8).low] {
        let mut scene = Scene::new(7);
        let (bob, message) = scene.start();
        let answer = scene.respond(&message).unwrap();
        let failure = bob_finish(&other, bob, &answer).unwrap_err();
        assert!(matches!(failure, Failure::Bug(_)));
        assert!(!other.is_poisoned());
    }
}

#[test]
fn a_poisoned_setup_does_nothing_more() {
    let mut scene = Scene::new(9);
    let (waiting, message) = scene.start();
    let answer = scene.respond(&message).unwrap();
    let (bob, message) = scene.start();
    let mut wrong = scene.respond(&message).unwrap();
    wrong[100] ^= 1;
    bob_finish(&scene.low, bob, &wrong).unwrap_err();

    // Neither a run that was under way nor a new one, in neither role.
    let poisoned = Failure::Poisoned;
    assert_eq!(
        bob_finish(&scene.low, waiting, &answer).unwrap_err(),
        poisoned
    );
    let Scene {
        low,
        high,
        inputs,
        rng,
    } = &mut scene;
    assert_eq!(
        bob_start::<Secp256k1>(low, &CONTEXT, 1, rng).unwrap_err(),
        poisoned
    );
    assert_eq!(
        bob_start::<P256>(low, &CONTEXT, 1, rng).unwrap_err(),
        poisoned
    );
    let (_bob, message) = bob_start::<Secp256k1>(high, &CONTEXT, COUNT, rng).unwrap();
    let responded = alice_respond::<Secp256k1>(low, &CONTEXT, inputs, &message, rng);
    assert_eq!(responded.unwrap_err(), poisoned);

    let peer = Participant::new(2).unwrap();
    assert_eq!(poisoned.by(peer), Error::Reject(Reject::SetupPoisoned));
    let failure = Failure::Abort(AbortReason::ConsistencyCheck);
    let Error::Abort { culprits, .. } = failure.by(peer) else {
        panic!("an abort");
    };
    assert_eq!(culprits, [peer]);
    let expected = Error::Abort {
        reason: AbortReason::ContextMismatch,
        culprits: vec![],
        suspects: vec![peer],
    };
    assert_eq!(Failure::OtherSetup.by(peer), expected);
}

/// Offset of a message's body: header, then from round 2 on the echo of two digests.
fn body(round: usize) -> usize {
    71 + if round > 1 { 64 } else { 0 }
}

/// Changes a byte in each field of each message of the setup. Whoever gets it aborts, at the latest
/// when the other confirms.
#[test]
fn any_change_of_a_setup_message_ends_it() {
    let tree = 3 * 32 + 32;
    let fields: [&[usize]; 4] = [
        // Base key; commitment.
        &[0, 31, 32, 63],
        // First and last transfer's two elements; the two halves of the opening.
        &[0, 33, 127 * 64, 127 * 64 + 63, 8192, 8192 + 63],
        // Sums, one on each side; check value; last tree; digest.
        &[0, 16, 40, 95, 96, 127, 31 * tree, 32 * tree, 32 * tree + 31],
        &[0, 31],
    ];
    for (round, fields) in (1..).zip(fields) {
        for (index, at) in fields.iter().enumerate() {
            let mut run = Run::new(10);
            run.tamper(round, |message| {
                message[body(round) + at] ^= 1 << (index % 8)
            });
            let [low, high] = run.finish();
            let low = low.err();
            let Err(Error::Abort {
                culprits, reason, ..
            }) = high
            else {
                // The confirmation came too early to show it, so the other side must see it.
                assert!(low.is_some(), "round {round}, byte {at}");
                continue;
            };
            assert_eq!(
                culprits,
                [Participant::new(1).unwrap()],
                "round {round}, byte {at}"
            );
            if round == 2 && *at >= 8192 {
                assert_eq!(reason, AbortReason::CommitmentMismatch);
            }
            assert!(
                matches!(
                    reason,
                    AbortReason::Malformed
                        | AbortReason::CommitmentMismatch
                        | AbortReason::ConsistencyCheck
                        | AbortReason::Equivocation
                ),
                "{reason}"
            );
        }
    }
}

#[test]
fn setup_messages_of_another_session_are_refused() {
    for round in 1..=4 {
        let recorded = Run::with_session(11, [8; 32]).record(round);
        let mut run = Run::new(11);
        run.tamper(round, |message| *message = recorded);
        let [_, high] = run.finish();
        let Err(Error::Abort { culprits, .. }) = high else {
            panic!("an abort");
        };
        assert_eq!(culprits, [Participant::new(1).unwrap()]);
    }
}

/// The bodies of another session's messages under this one's headers.
#[test]
fn setup_bodies_of_another_session_are_refused() {
    for round in 1..=4 {
        let recorded = Run::with_session(12, [8; 32]).record(round);
        let mut run = Run::new(13);
        let at = body(round);
        run.tamper(round, |message| {
            message.truncate(at);
            message.extend_from_slice(&recorded[at..]);
        });
        let results = run.finish();
        assert!(results.iter().any(Result::is_err), "round {round}");
    }
}

/// The other side's message that has the same body as one's own.
fn reflected(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let (from, to) = message[35..39].split_at_mut(2);
    from.swap_with_slice(to);
    message
}

/// What a side ends with when it gets, in each round, what `peer` makes of its own message and of what it
/// got before.
fn against_itself(mut peer: impl FnMut(usize, &[u8]) -> Vec<u8>) -> (usize, Error) {
    let mut rng = ChaCha20Rng::seed_from_u64(15);
    let [one, two] = [1, 2].map(|index| Participant::new(index).unwrap());
    let params = pair::params(one, two, [7; 32]);
    let (mut run, mut outbox) =
        arca_threshold::ecdsa::pairwise::pair_setup(params, &mut rng).unwrap();
    for round in 1.. {
        let (_, mine) = outbox.into_iter().next().unwrap();
        let mut inbox = run.inbox();
        let inserted = inbox.insert(two, peer(round, &mine));
        (run, outbox) = match inserted.and_then(|()| run.advance(inbox, &mut rng)) {
            Ok(Transition::Continue(run, outbox)) => (run, outbox),
            Ok(Transition::Done(..)) => panic!("a setup with oneself"),
            Err(error) => return (round, error),
        };
    }
    unreachable!("a setup ends");
}

/// A peer that has nothing but what it is sent.
#[test]
fn a_reflected_setup_is_refused() {
    let two = Participant::new(2).unwrap();
    let abort = |reason| Error::Abort {
        reason,
        culprits: vec![two],
        suspects: vec![],
    };
    // The commitment is not its own.
    let ended = against_itself(|_, mine| reflected(mine));
    assert_eq!(ended, (2, abort(AbortReason::CommitmentMismatch)));

    // With a commitment of its own, the transfers are those of the other direction.
    let opening = [9; 64];
    let ended = against_itself(|round, mine| {
        let mut message = reflected(mine);
        let len = message.len();
        match round {
            1 => {
                let commitment = Sha256::new()
                    .chain_update(frame(b"arca/v1/threshold/pair/seed-commitment"))
                    .chain_update(frame(&mine[39..71]))
                    .chain_update(frame(&[1]))
                    .chain_update(frame(&opening));
                message[len - 32..].copy_from_slice(&commitment.finalize());
            }
            2 => message[len - 64..].copy_from_slice(&opening),
            _ => (),
        }
        message
    });
    assert_eq!(ended, (3, abort(AbortReason::ConsistencyCheck)));
}

/// A part of a hash's input, with its length before it.
fn frame(part: &[u8]) -> Vec<u8> {
    [(part.len() as u64).to_be_bytes().as_slice(), part].concat()
}

/// A peer that never confirms, and sends back one's own confirmation.
#[test]
fn a_reflected_confirmation_is_refused() {
    let mut run = Run::new(16);
    run.reflect(4, reflected);
    let [low, high] = run.finish();
    assert!(low.is_ok());
    let expected = Error::Abort {
        reason: AbortReason::ConsistencyCheck,
        culprits: vec![Participant::new(1).unwrap()],
        suspects: vec![],
    };
    assert_eq!(high.unwrap_err(), expected);
}

#[test]
fn a_setup_with_oneself_is_refused() {
    let one = Participant::new(1).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let params = pair::params(one, one, [7; 32]);
    let started = arca_threshold::ecdsa::pairwise::pair_setup(params, &mut rng);
    assert_eq!(started.unwrap_err(), Error::Reject(Reject::Participants));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever arrives, the outcome is an abort and no panic.
    #[test]
    fn arbitrary_messages_are_refused(
        message in proptest::collection::vec(any::<u8>(), 0..4000),
        right_length in any::<bool>(),
    ) {
        let mut scene = Scene::new(14);
        let (bob, honest) = scene.start();
        let fit = |len| match right_length {
            true => message.iter().copied().chain([0]).cycle().take(len).collect(),
            false => message.clone(),
        };
        prop_assert!(scene.respond(&fit(honest.len())).is_err());
        let answer: Vec<u8> = fit(alice_message_bytes(COUNT));
        prop_assert!(bob_finish(&scene.low, bob, &answer).is_err());
    }
}
