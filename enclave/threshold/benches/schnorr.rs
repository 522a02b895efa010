//! Processor time per party of key generation and signing, 2 of 3, beside the curves' own costs.
//!
//! All parties run in this one thread, so a party's share is the time of a run divided by their number.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arca_threshold::{
    DkgParams, KeyPackage, Outbox, Participant, Protocol, Scheme, SessionId, Signable, Signed,
    SigningParams, Transition, Tweak, dkg, sign,
};
use criterion::{Criterion, criterion_group, criterion_main};
use frost_core::{Ciphersuite, Group};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

type Starts<O> = Vec<(Participant, Protocol<O>, Outbox)>;

fn set(indices: impl IntoIterator<Item = u16>) -> BTreeSet<Participant> {
    indices.into_iter().filter_map(Participant::new).collect()
}

fn run<O>(starts: Starts<O>, rng: &mut ChaCha20Rng) -> BTreeMap<Participant, O> {
    let mut outputs = BTreeMap::new();
    let (mut running, mut letters) = (Vec::new(), Vec::new());
    for (me, protocol, outbox) in starts {
        letters.extend(outbox.into_iter().map(|(to, bytes)| (me, to, bytes)));
        running.push((me, protocol));
    }
    while !running.is_empty() {
        let (mut next, mut posted) = (Vec::new(), Vec::new());
        for (me, protocol) in running {
            let mut inbox = protocol.inbox();
            for (from, _, bytes) in letters.iter().filter(|(_, to, _)| *to == me) {
                inbox
                    .insert(*from, bytes.clone())
                    .expect("an honest message");
            }
            let outbox = match protocol.advance(inbox, rng).expect("an honest run") {
                Transition::Continue(protocol, outbox) => {
                    next.push((me, protocol));
                    outbox
                }
                Transition::Done(output, outbox) => {
                    outputs.insert(me, output);
                    outbox
                }
            };
            posted.extend(outbox.into_iter().map(|(to, bytes)| (me, to, bytes)));
        }
        (running, letters) = (next, posted);
    }
    outputs
}

fn generate(scheme: Scheme, rng: &mut ChaCha20Rng) -> BTreeMap<Participant, Arc<KeyPackage>> {
    let participants = set(1..=3);
    let start = |me: &Participant| {
        let params = DkgParams {
            scheme,
            session: SessionId::new([1; 32]),
            context: [0; 32],
            me: *me,
            participants: participants.clone(),
            threshold: 2,
        };
        let (protocol, outbox) = dkg(params, rng).expect("served parameters");
        (*me, protocol, outbox)
    };
    let starts = participants.iter().map(start).collect();
    let keys = run(starts, rng);
    keys.into_iter()
        .map(|(me, key)| (me, Arc::new(key)))
        .collect()
}

fn sign_all(
    keys: &BTreeMap<Participant, Arc<KeyPackage>>,
    messages: &[Signable],
    rng: &mut ChaCha20Rng,
) -> BTreeMap<Participant, Signed> {
    let signers = set([1, 3]);
    let params = SigningParams {
        session: SessionId::new([2; 32]),
        context: [0; 32],
        coordinator: *signers.first().expect("two signers"),
        signers,
        messages: messages.to_vec(),
    };
    let start = |me: &Participant| {
        let key = Arc::clone(keys.get(me).expect("a key for every signer"));
        let (protocol, outbox) = sign(key, params.clone(), rng).expect("served parameters");
        (*me, protocol, outbox)
    };
    let starts = params.signers.iter().map(start).collect();
    run(starts, rng)
}

/// Time of `iterations` of a run, divided by its parties.
fn per_party(iterations: u64, parties: u32, mut one: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..iterations {
        one();
    }
    start.elapsed() / parties
}

fn baseline<C: Ciphersuite>(c: &mut Criterion, name: &str) {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let scalar = <<C::Group as Group>::Field as frost_core::Field>::random(&mut rng);
    let point = C::Group::generator() * scalar;
    c.bench_function(&format!("{name}/base-point multiplication"), |b| {
        b.iter(|| C::Group::generator() * black_box(scalar));
    });
    c.bench_function(&format!("{name}/variable-point multiplication"), |b| {
        b.iter(|| black_box(point) * black_box(scalar));
    });
}

fn schnorr(c: &mut Criterion) {
    baseline::<frost_secp256k1_tr::Secp256K1Sha256TR>(c, "bip340");
    baseline::<frost_ed25519::Ed25519Sha512>(c, "ed25519");
    for (scheme, name, tweak) in [
        (Scheme::Bip340, "bip340", Tweak::TaprootKeyPath),
        (Scheme::Ed25519, "ed25519", Tweak::None),
    ] {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        c.bench_function(&format!("{name}/key generation 2 of 3, per party"), |b| {
            b.iter_custom(|n| per_party(n, 3, || drop(black_box(generate(scheme, &mut rng)))));
        });
        let keys = generate(scheme, &mut rng);
        let message = vec![7; 32];
        for batch in [1, 64] {
            let messages = vec![
                Signable {
                    message: message.clone(),
                    tweak
                };
                batch
            ];
            let id = format!("{name}/signing 2 of 3, batch of {batch}, per party");
            c.bench_function(&id, |b| {
                b.iter_custom(|n| {
                    per_party(n, 2, || {
                        drop(black_box(sign_all(&keys, &messages, &mut rng)))
                    })
                });
            });
        }
        let bytes = keys.values().next().and_then(|key| key.to_bytes().ok());
        let bytes = bytes.expect("a key package encodes");
        c.bench_function(&format!("{name}/reading a key package 2 of 3"), |b| {
            b.iter(|| KeyPackage::from_bytes(black_box(&bytes)));
        });
    }
}

criterion_group!(benches, schnorr);
criterion_main!(benches);
