//! What the pairwise setup and the multiplications cost, beside one base-point and one variable-point
//! multiplication of the same run.
//!
//! All figures are processor time of one side, one thread, except the setup's, which is both sides'.

#![allow(clippy::print_stdout)]

use std::hint::black_box;

use arca_threshold::ecdsa::pairwise::{
    Multiply, PairSetup, PairSetupParams, alice_message_bytes, alice_respond, bob_finish,
    bob_message_bytes, bob_start, pair_setup,
};
use arca_threshold::ecdsa::{P256, Secp256k1};
use arca_threshold::{Outbox, Participant, Protocol, SessionId, Transition};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

const CONTEXT: [u8; 32] = [1; 32];

fn setup(rng: &mut ChaCha20Rng) -> (PairSetup, PairSetup, usize) {
    let [one, two] = [1, 2].map(|index| Participant::new(index).expect("not zero"));
    let start = |me, peer, rng: &mut ChaCha20Rng| {
        let params = PairSetupParams {
            session: SessionId::new([7; 32]),
            context: [3; 32],
            me,
            peer,
        };
        pair_setup(params, rng).expect("two sides")
    };
    let (mut low, mut to_high) = start(one, two, rng);
    let (mut high, mut to_low) = start(two, one, rng);
    let mut sent = 0;
    loop {
        let mut step = |run: Protocol<PairSetup>, from, outbox: Outbox| {
            let mut inbox = run.inbox();
            for (_, message) in outbox {
                sent += message.len();
                inbox.insert(from, message).expect("well formed");
            }
            run.advance(inbox, rng).expect("honest")
        };
        match (step(low, two, to_low), step(high, one, to_high)) {
            (Transition::Continue(l, to_h), Transition::Continue(h, to_l)) => {
                (low, high, to_high, to_low) = (l, h, to_h, to_l);
            }
            (Transition::Done(l, _), Transition::Done(h, _)) => return (l, h, sent / 2),
            _ => panic!("sides disagree on the number of rounds"),
        }
    }
}

fn multiplications<C: Multiply>(criterion: &mut Criterion, curve: &str) {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let (low, high, _) = setup(&mut rng);
    let mut group = criterion.benchmark_group(curve);
    let scalar = C::random(&mut rng);
    let point = C::base(&C::random(&mut rng));
    group.bench_function("base point", |bencher| {
        bencher.iter(|| C::base(black_box(&scalar)));
    });
    group.bench_function("variable point", |bencher| {
        bencher.iter(|| black_box(point) * black_box(scalar));
    });
    group.bench_function("scalar product", |bencher| {
        bencher.iter(|| black_box(scalar) * black_box(scalar));
    });
    for count in [1, 64] {
        let inputs: Vec<[C::Scalar; 2]> = (0..count)
            .map(|_| [C::random(&mut rng), C::random(&mut rng)])
            .collect();
        group.bench_function(format!("bob start, {count}"), |bencher| {
            bencher.iter(|| bob_start::<C>(&low, &CONTEXT, count, &mut rng));
        });
        let (_, message) = bob_start::<C>(&low, &CONTEXT, count, &mut rng).expect("honest");
        group.bench_function(format!("alice respond, {count}"), |bencher| {
            bencher.iter(|| alice_respond::<C>(&high, &CONTEXT, &inputs, &message, &mut rng));
        });
        group.bench_function(format!("bob finish, {count}"), |bencher| {
            let fresh = || {
                let mut rng = ChaCha20Rng::seed_from_u64(2);
                let (bob, message) =
                    bob_start::<C>(&low, &CONTEXT, count, &mut rng).expect("honest");
                let (_, answer) = alice_respond::<C>(&high, &CONTEXT, &inputs, &message, &mut rng)
                    .expect("honest");
                (bob, answer)
            };
            let finish = |(bob, answer): (_, Vec<u8>)| bob_finish::<C>(&low, bob, &answer);
            bencher.iter_batched(fresh, finish, BatchSize::LargeInput);
        });
    }
    group.finish();
}

fn all(criterion: &mut Criterion) {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let (_, _, sent) = setup(&mut rng);
    println!("setup: each side sends {sent} bytes");
    for count in [1, 64] {
        let (bob, alice) = (bob_message_bytes(count), alice_message_bytes(count));
        println!("{count} multiplications: Bob sends {bob} bytes, Alice {alice}");
    }
    criterion.bench_function("setup, both sides", |bencher| {
        bencher.iter(|| setup(&mut rng));
    });
    multiplications::<Secp256k1>(criterion, "secp256k1");
    multiplications::<P256>(criterion, "p256");
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = all
}
criterion_main!(benches);
