//! Processor time per party of ECDSA, 2 of 3 with two signers, beside the curves' own costs, and the bytes
//! each party sends.
//!
//! All parties run in this one thread, so a party's share is the time of a run divided by their number.
//! Time is this thread's on the processor, so a busy machine changes little.

// Maps are indexed by those who take part.
#![allow(clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use arca_threshold::ecdsa::pairwise::{PairSetupParams, pair_setup};
use arca_threshold::ecdsa::{
    Curve, CurveId, DkgParams, KeyPackage, P256, PairSetups, Path, Presignature, PresigningParams,
    Secp256k1, Signable, Signed, SigningParams, dkg, presign, sign, sign_online,
};
use arca_threshold::{Outbox, Participant, Protocol, SessionId, Transition};
use bitcoin::secp256k1 as libsecp256k1;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, criterion_group, criterion_main};
use nix::time::{ClockId, clock_gettime};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};

type Bench = Criterion<ProcessorTime>;

/// This thread's time on the processor.
struct ProcessorTime;

impl ProcessorTime {
    fn now() -> Duration {
        let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock");
        now.into()
    }
}

impl Measurement for ProcessorTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        Self::now()
    }

    fn end(&self, start: Duration) -> Duration {
        Self::now() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_secs_f64() * 1e9
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

type Starts<O> = Vec<(Participant, Protocol<O>, Outbox)>;
type Keys = BTreeMap<Participant, Arc<KeyPackage>>;
type Setups = BTreeMap<Participant, PairSetups>;
type Pools = BTreeMap<Participant, Vec<Presignature>>;

fn set(indices: impl IntoIterator<Item = u16>) -> BTreeSet<Participant> {
    indices.into_iter().filter_map(Participant::new).collect()
}

/// Runs to the end. The results, and the bytes that all parties sent.
fn run<O>(starts: Starts<O>, rng: &mut ChaCha20Rng) -> (BTreeMap<Participant, O>, usize) {
    let (mut outputs, mut sent) = (BTreeMap::new(), 0);
    let (mut running, mut letters) = (Vec::new(), Vec::new());
    for (me, protocol, outbox) in starts {
        letters.extend(outbox.into_iter().map(|(to, bytes)| (me, to, bytes)));
        running.push((me, protocol));
    }
    while !running.is_empty() {
        sent += letters
            .iter()
            .map(|(_, _, bytes)| bytes.len())
            .sum::<usize>();
        let (mut next, mut posted) = (Vec::new(), Vec::new());
        for (me, protocol) in running {
            let mut inbox = protocol.inbox();
            let (mine, others): (Vec<_>, Vec<_>) =
                letters.into_iter().partition(|(_, to, _)| *to == me);
            letters = others;
            for (from, _, bytes) in mine {
                inbox.insert(from, bytes).expect("an honest message");
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
    (outputs, sent)
}

fn fresh(rng: &mut ChaCha20Rng) -> [u8; 32] {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn generate(curve: CurveId, rng: &mut ChaCha20Rng) -> (Keys, usize) {
    let participants = set(1..=3);
    let session = SessionId::new(fresh(rng));
    let start = |me: &Participant| {
        let params = DkgParams {
            curve,
            session,
            context: [0; 32],
            me: *me,
            participants: participants.clone(),
            threshold: 2,
        };
        let (protocol, outbox) = dkg(params, rng).expect("served parameters");
        (*me, protocol, outbox)
    };
    let starts = participants.iter().map(start).collect();
    let (keys, sent) = run(starts, rng);
    let keys = keys.into_iter().map(|(me, key)| (me, Arc::new(key)));
    (keys.collect(), sent)
}

fn pair_up(signers: &BTreeSet<Participant>, rng: &mut ChaCha20Rng) -> (Setups, usize) {
    let session = SessionId::new(fresh(rng));
    let start = |(me, peer): (&Participant, &Participant)| {
        let params = PairSetupParams {
            session,
            context: [0; 32],
            me: *me,
            peer: *peer,
        };
        let (protocol, outbox) = pair_setup(params, rng).expect("served parameters");
        (*me, protocol, outbox)
    };
    let pairs = signers.iter().zip(signers.iter().rev());
    let (setups, sent) = run(pairs.map(start).collect(), rng);
    let mut peers = signers.iter().rev();
    let setups = setups.into_iter().map(|(me, setup)| {
        let peer = *peers.next().expect("two signers");
        (me, PairSetups::from([(peer, Arc::new(setup))]))
    });
    (setups.collect(), sent)
}

/// Two signers with a key and a setup.
struct Cluster {
    signers: BTreeSet<Participant>,
    keys: Keys,
    setups: Setups,
}

impl Cluster {
    fn new(curve: CurveId, rng: &mut ChaCha20Rng) -> Self {
        let signers = set([1, 3]);
        Self {
            keys: generate(curve, rng).0,
            setups: pair_up(&signers, rng).0,
            signers,
        }
    }

    fn each<O>(
        &self,
        mut start: impl FnMut(Arc<KeyPackage>, &PairSetups) -> (Protocol<O>, Outbox),
    ) -> Starts<O> {
        let start = |me: &Participant| {
            let (protocol, outbox) = start(Arc::clone(&self.keys[me]), &self.setups[me]);
            (*me, protocol, outbox)
        };
        self.signers.iter().map(start).collect()
    }

    fn presign(&self, count: usize, rng: &mut ChaCha20Rng) -> (Pools, usize) {
        let params = PresigningParams {
            session: SessionId::new(fresh(rng)),
            binding: [0; 32],
            signers: self.signers.clone(),
            count,
        };
        let starts = self.each(|key, setups| {
            presign(key, setups, params.clone(), rng).expect("served parameters")
        });
        run(starts, rng)
    }

    fn params(&self, batch: usize, rng: &mut ChaCha20Rng) -> SigningParams {
        let coordinator = *self.signers.first().expect("two signers");
        let path = Path::new(vec![44, 60, 0, 0, 7]).expect("a path");
        let key = self.keys[&coordinator]
            .derive(&path)
            .expect("a derived key");
        SigningParams {
            session: SessionId::new(fresh(rng)),
            context: [0; 32],
            signers: self.signers.clone(),
            coordinator,
            entropy: fresh(rng),
            messages: vec![
                Signable {
                    digest: [7; 32],
                    key
                };
                batch
            ],
        }
    }

    fn sign(&self, params: &SigningParams, rng: &mut ChaCha20Rng) -> usize {
        let starts = self
            .each(|key, setups| sign(key, setups, params.clone(), rng).expect("served parameters"));
        run(starts, rng).1
    }

    fn release(
        &self,
        me: Participant,
        pool: Vec<Presignature>,
        params: SigningParams,
    ) -> Transition<Signed> {
        sign_online(Arc::clone(&self.keys[&me]), &[0; 32], pool, params).expect("an honest run")
    }
}

/// Time of `iterations` of a run, divided by its parties.
fn per_party(iterations: u64, parties: u32, mut one: impl FnMut()) -> Duration {
    let start = ProcessorTime::now();
    for _ in 0..iterations {
        one();
    }
    (ProcessorTime::now() - start) / parties
}

fn baseline<C: Curve>(c: &mut Bench, name: &str) {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let scalar = C::random(&mut rng);
    let point = C::base(&scalar);
    c.bench_function(&format!("{name}/base-point multiplication"), |b| {
        b.iter(|| C::base(black_box(&scalar)));
    });
    c.bench_function(&format!("{name}/variable-point multiplication"), |b| {
        b.iter(|| black_box(point) * black_box(scalar));
    });
}

fn libsecp256k1_verification(c: &mut Bench) {
    let secp = libsecp256k1::Secp256k1::new();
    let secret = libsecp256k1::SecretKey::from_slice(&[3; 32]).expect("a scalar");
    let (key, message) = (
        libsecp256k1::PublicKey::from_secret_key(&secp, &secret),
        libsecp256k1::Message::from_digest([7; 32]),
    );
    let signature = secp.sign_ecdsa(&message, &secret);
    c.bench_function("secp256k1/verification by libsecp256k1", |b| {
        b.iter(|| secp.verify_ecdsa(black_box(&message), &signature, &key));
    });
}

fn curve<C: Curve>(c: &mut Bench, name: &str) {
    baseline::<C>(c, name);
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    c.bench_function(&format!("{name}/key generation 2 of 3, per party"), |b| {
        b.iter_custom(|n| per_party(n, 3, || drop(black_box(generate(C::ID, &mut rng)))));
    });
    let cluster = Cluster::new(C::ID, &mut rng);
    c.bench_function(&format!("{name}/pairwise setup, per party"), |b| {
        b.iter_custom(|n| {
            per_party(n, 2, || {
                drop(black_box(pair_up(&cluster.signers, &mut rng)))
            })
        });
    });
    let params = cluster.params(1, &mut rng);
    c.bench_function(&format!("{name}/full signature, per party"), |b| {
        b.iter_custom(|n| {
            per_party(n, 2, || {
                black_box(cluster.sign(&params, &mut rng));
            })
        });
    });
    for batch in [1, 64] {
        let id = format!("{name}/presigning, batch of {batch}, per party and presignature");
        let parties = 2 * u32::try_from(batch).expect("a small number");
        c.bench_function(&id, |b| {
            b.iter_custom(|n| {
                per_party(n, parties, || {
                    drop(black_box(cluster.presign(batch, &mut rng)))
                })
            });
        });
    }
    let [coordinator, signer] = [1, 3].map(|i| Participant::new(i).expect("not zero"));
    let take = |rng: &mut ChaCha20Rng| {
        let mut pools = cluster.presign(1, rng).0;
        [coordinator, signer].map(|me| pools.remove(&me).expect("both presign"))
    };
    c.bench_function(&format!("{name}/online, signer"), |b| {
        b.iter_custom(|n| {
            let mut time = Duration::ZERO;
            for _ in 0..n {
                let ([_, pool], params) = (take(&mut rng), params.clone());
                let start = ProcessorTime::now();
                black_box(cluster.release(signer, pool, params));
                time += ProcessorTime::now() - start;
            }
            time
        });
    });
    c.bench_function(&format!("{name}/online, coordinator"), |b| {
        b.iter_custom(|n| {
            let mut time = Duration::ZERO;
            for _ in 0..n {
                let [mine, theirs] = take(&mut rng);
                let Transition::Done(_, shares) = cluster.release(signer, theirs, params.clone())
                else {
                    unreachable!("one round")
                };
                let params = params.clone();
                let start = ProcessorTime::now();
                let Transition::Continue(run, _) = cluster.release(coordinator, mine, params)
                else {
                    unreachable!("the coordinator awaits shares")
                };
                let mut inbox = run.inbox();
                for (_, share) in shares {
                    inbox.insert(signer, share).expect("an honest message");
                }
                black_box(run.advance(inbox, &mut rng)).expect("an honest run");
                time += ProcessorTime::now() - start;
            }
            time
        });
    });

    let (_, dkg) = generate(C::ID, &mut rng);
    let (_, setup) = pair_up(&cluster.signers, &mut rng);
    let (one, full) = (
        cluster.presign(1, &mut rng).1,
        cluster.sign(&params, &mut rng),
    );
    let many = cluster.presign(64, &mut rng).1 / 64;
    eprintln!(
        "{name}: bytes sent per party: key generation {}, setup {}, full signature {}, presignature {} (in 64: {})",
        dkg / 3,
        setup / 2,
        full / 2,
        one / 2,
        many / 2,
    );
}

fn ecdsa(c: &mut Bench) {
    libsecp256k1_verification(c);
    curve::<Secp256k1>(c, "secp256k1");
    curve::<P256>(c, "p256");
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(ProcessorTime);
    targets = ecdsa
}
criterion_main!(benches);
