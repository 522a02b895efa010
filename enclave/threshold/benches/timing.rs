//! Whether the time of what handles secrets depends on them: a statistical test (dudect: Reparaz, Balasch,
//! Verbauwhede, ePrint 2016/1123).
//!
//!     cargo bench -p arca-threshold --bench timing            # three seconds for each path
//!     cargo bench -p arca-threshold --bench timing -- 30 bob  # thirty, those with `bob` in their name
//!
//! Each path is measured with a fixed secret and with random ones, in random order. Welch's t says how sure it
//! is that the two kinds take different times on average; as slow outliers hide small differences, it is also
//! taken with the slowest part cut off, and the largest counts. Above 10, dudect's bound, the path leaks.
//! Below, nothing was found with so many samples on this machine: it proves nothing. The last path leaks on
//! purpose: where it is not found, neither is anything else.

#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arca_threshold::ecdsa::pairwise::{
    Multiply, PairSetup, PairSetupParams, alice_respond, bob_finish, bob_start, pair_setup,
};
use arca_threshold::ecdsa::{
    Curve, CurveId, DkgParams, KeyPackage, P256, PairSetups, PresigningParams, Secp256k1, dkg,
    presign,
};
use arca_threshold::{Error, Inbox, Outbox, Participant, Protocol, SessionId, Transition};
use k256::elliptic_curve::Field as _;
use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, CryptoRngCore, RngCore, SeedableRng as _};

/// Dudect's.
const LEAK: f64 = 10.0;
/// Parts of all samples, the quickest first, that the test is made with.
const CROPS: [f64; 6] = [1.0, 0.99, 0.95, 0.9, 0.75, 0.5];
/// What takes nanoseconds is repeated so often for one sample.
const OFTEN: usize = 100;
const CONTROL: &str = "control, leaks";
/// Samples that are prepared at once.
const PREPARED: usize = 64;
const CONTEXT: [u8; 32] = [1; 32];

fn main() {
    // Run by `cargo test --benches`, there is nothing to do.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let arguments = || {
        std::env::args()
            .skip(1)
            .filter(|argument| argument != "--bench")
    };
    let seconds = arguments().find_map(|argument| argument.parse().ok());
    let bench = Bench {
        time: Duration::from_secs(seconds.unwrap_or(3)),
        only: arguments().find(|argument| argument.parse::<u64>().is_err()),
    };
    println!("{:48} {:>8} {:>12} {:>7}", "path", "samples", "mean", "|t|");
    curve::<Secp256k1>(&bench, "secp256k1");
    curve::<P256>(&bench, "p256");
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let leaks = bench.path(
        &format!("{CONTROL}: variable-time multiplication"),
        |class| {
            let scalar = class.scalar::<Secp256k1>(&mut rng);
            repeated(1, move || Secp256k1::base_public(black_box(&scalar)))
        },
    );
    assert!(
        leaks,
        "the control was not found: this run says nothing about the others"
    );
}

fn curve<C: Multiply>(bench: &Bench, curve: &str) {
    let rng = &mut ChaCha20Rng::seed_from_u64(2);
    let path = |name: &str| format!("{curve}: {name}");

    bench.path(&path("reduction of 32 bytes"), |class| {
        let bytes = class.bytes::<32>(rng);
        repeated(OFTEN, move || C::reduce(black_box(&bytes)))
    });
    bench.path(&path("reduction of 64 bytes"), |class| {
        let bytes = class.bytes::<64>(rng);
        repeated(OFTEN, move || C::reduce_wide(black_box(&bytes)))
    });
    bench.path(&path("encoding of a scalar"), |class| {
        let scalar = class.scalar::<C>(rng);
        repeated(OFTEN, move || C::scalar_bytes(black_box(&scalar)))
    });
    bench.path(&path("generator times a scalar"), |class| {
        let scalar = class.scalar::<C>(rng);
        repeated(1, move || C::base(black_box(&scalar)))
    });
    bench.path(&path("encoding of points"), |class| {
        let points = [(); 4].map(|()| C::base(&class.scalar::<C>(rng)));
        repeated(1, move || C::encode_all(black_box(&points)))
    });
    // What `sign_online` computes from a presignature. As a whole it also multiplies by the nonce's shift,
    // which is public, takes variable time and differs for each presignature.
    let [digest, r, tweak, shift] = [(); 4].map(|()| C::random(rng));
    bench.path(&path("share release, its arithmetic"), |class| {
        let [mask, u, v] = [(); 3].map(|()| class.scalar::<C>(rng));
        repeated(OFTEN, move || {
            let [mask, u, v] = black_box([mask, u, v]);
            let shares = [u + shift * mask, mask * (digest + r * tweak) + r * v];
            shares.map(|share| C::scalar_bytes(&share))
        })
    });

    multiplication::<C>(bench, curve);
    generation(bench, C::ID, curve);
    presigning(bench, C::ID, curve);
}

fn multiplication<C: Multiply>(bench: &Bench, curve: &str) {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let [low, high] = pair();
    bench.path(&format!("{curve}: bob_start"), |class| {
        let mut tape = Tape::new(class, &mut rng);
        let low = &low;
        move || drop(black_box(bob_start::<C>(low, &CONTEXT, 1, &mut tape)))
    });
    let (_, message) = bob_start::<C>(&low, &CONTEXT, 1, &mut rng).expect("served");
    bench.path(&format!("{curve}: alice_respond"), |class| {
        let inputs = [[class.scalar::<C>(&mut rng), class.scalar::<C>(&mut rng)]];
        let mut tape = Tape::new(Class::Random, &mut rng);
        let (high, message) = (&high, &message);
        move || {
            drop(black_box(alice_respond::<C>(
                high, &CONTEXT, &inputs, message, &mut tape,
            )));
        }
    });
    bench.path(&format!("{curve}: bob_finish"), |class| {
        let mut tape = Tape::new(class, &mut rng);
        let (bob, message) = bob_start::<C>(&low, &CONTEXT, 1, &mut tape).expect("served");
        let inputs = [[C::random(&mut rng), C::random(&mut rng)]];
        let answer = alice_respond::<C>(&high, &CONTEXT, &inputs, &message, &mut rng);
        let (_, answer) = answer.expect("honest");
        let low = &low;
        move || drop(black_box(bob_finish::<C>(low, bob, &answer)))
    });
}

/// Party 1 of two has the secret; 2 is the same each time.
fn generation(bench: &Bench, curve: CurveId, name: &str) {
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    bench.path(
        &format!("{name}: key generation, dealing of shares"),
        |class| {
            let mut tapes = [Tape::new(class, &mut rng), Tape::seeded(8)];
            let runs = start(&mut tapes, |me, tape| generate(curve, me, tape));
            runs.go_on(&mut tapes).next_of_first(tapes)
        },
    );
}

/// The same.
fn presigning(bench: &Bench, curve: CurveId, name: &str) {
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let mut tapes = [9, 10].map(Tape::seeded);
    let runs = start(&mut tapes, |me, tape| generate(curve, me, tape));
    let keys = runs.finish(&mut tapes, 4).map(Arc::new);
    let ([low, high], [one, two]) = (pair(), both());
    let setups = [[(two, Arc::new(low))], [(one, Arc::new(high))]].map(PairSetups::from);
    let presign = |me: Participant, tape: &mut Tape| {
        let params = PresigningParams {
            session: SessionId::new([2; 32]),
            binding: [0; 32],
            signers: both().into(),
            count: 1,
        };
        let ([first, second], [of_first, of_second]) = (&keys, &setups);
        let (key, setups) = if me == one {
            (first, of_first)
        } else {
            (second, of_second)
        };
        presign(Arc::clone(key), setups, params, tape)
    };
    bench.path(&format!("{name}: presigning, answer as Alice"), |class| {
        let mut tapes = [Tape::new(class, &mut rng), Tape::seeded(8)];
        start(&mut tapes, presign).next_of_first(tapes)
    });
    bench.path(
        &format!("{name}: presigning, checks of products"),
        |class| {
            let mut tapes = [Tape::new(class, &mut rng), Tape::seeded(8)];
            let runs = start(&mut tapes, presign);
            runs.go_on(&mut tapes).next_of_first(tapes)
        },
    );
}

fn generate(
    curve: CurveId,
    me: Participant,
    tape: &mut Tape,
) -> Result<(Protocol<KeyPackage>, Outbox), Error> {
    let params = DkgParams {
        curve,
        session: SessionId::new([1; 32]),
        context: [0; 32],
        me,
        participants: both().into(),
        threshold: 2,
    };
    dkg(params, tape)
}

/// Which secret a sample is of.
#[derive(Clone, Copy, PartialEq)]
enum Class {
    Fixed,
    Random,
}

impl Class {
    /// Draws in both classes.
    fn bytes<const N: usize>(self, rng: &mut ChaCha20Rng) -> [u8; N] {
        let mut bytes = [0; N];
        rng.fill_bytes(&mut bytes);
        match self {
            Self::Fixed => [0; N],
            Self::Random => bytes,
        }
    }

    fn scalar<C: Curve>(self, rng: &mut ChaCha20Rng) -> C::Scalar {
        let random = C::random(rng);
        match self {
            Self::Fixed => C::Scalar::ONE,
            Self::Random => random,
        }
    }
}

/// A generator whose output was made ahead: drawing from it takes the same time in both classes.
struct Tape {
    bytes: Vec<u8>,
    place: usize,
}

impl Tape {
    fn new(class: Class, rng: &mut ChaCha20Rng) -> Self {
        let random = rng.next_u64();
        match class {
            Class::Fixed => Self::seeded(6),
            Class::Random => Self::seeded(random),
        }
    }

    fn seeded(seed: u64) -> Self {
        let mut bytes = vec![0; 2048];
        ChaCha20Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
        Self { bytes, place: 0 }
    }
}

impl RngCore for Tape {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, wanted: &mut [u8]) {
        let end = self.place + wanted.len();
        wanted.copy_from_slice(
            self.bytes
                .get(self.place..end)
                .expect("a tape is long enough"),
        );
        self.place = end;
    }

    fn try_fill_bytes(&mut self, wanted: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(wanted);
        Ok(())
    }
}

impl CryptoRng for Tape {}

struct Bench {
    /// For each path.
    time: Duration,
    /// Paths with this in their name.
    only: Option<String>,
}

impl Bench {
    /// Measures what `prepare` makes for one sample. Whether it leaks.
    fn path<W: FnOnce()>(&self, name: &str, mut prepare: impl FnMut(Class) -> W) -> bool {
        if self
            .only
            .as_deref()
            .is_some_and(|only| !name.contains(only) && !name.contains(CONTROL))
        {
            return false;
        }
        let mut order = ChaCha20Rng::seed_from_u64(7);
        let (mut samples, mut prepared) = (Vec::new(), Vec::with_capacity(PREPARED));
        let start = Instant::now();
        while start.elapsed() < self.time {
            // Ahead, so that nothing of how a secret was made is left in the processor when it is used.
            for _ in 0..PREPARED {
                let class = match order.next_u32() & 1 {
                    0 => Class::Fixed,
                    _ => Class::Random,
                };
                prepared.push((class, prepare(class)));
            }
            for (class, work) in prepared.drain(..) {
                let before = Instant::now();
                work();
                samples.push((before.elapsed().as_secs_f64(), class));
            }
        }
        // Caches and clocks settle.
        samples.drain(..samples.len() / 20);
        let mean = samples.iter().map(|(time, _)| time).sum::<f64>() / samples.len() as f64;
        samples.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let cropped = CROPS.iter().filter_map(|crop| {
            let kept = (samples.len() as f64 * crop) as usize;
            Some(welch(samples.get(..kept)?).abs())
        });
        let t = cropped.fold(0.0, f64::max);
        let verdict = if t > LEAK { "LEAKS" } else { "nothing found" };
        let mean = format!("{:.3} us", mean * 1e6);
        println!(
            "{name:48} {:>8} {mean:>12} {t:>7.2}  {verdict}",
            samples.len()
        );
        t > LEAK
    }
}

fn repeated<T>(times: usize, one: impl Fn() -> T) -> impl FnOnce() {
    move || {
        for _ in 0..times {
            black_box(one());
        }
    }
}

/// Welch's t of the two classes.
fn welch(samples: &[(f64, Class)]) -> f64 {
    let [(n1, mean1, variance1), (n2, mean2, variance2)] =
        [Class::Fixed, Class::Random].map(|class| {
            let of = || {
                samples
                    .iter()
                    .filter(|(_, of)| *of == class)
                    .map(|(time, _)| *time)
            };
            let count = of().count() as f64;
            let mean = of().sum::<f64>() / count;
            let variance = of().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
            (count, mean, variance)
        });
    (mean1 - mean2) / (variance1 / n1 + variance2 / n2).sqrt()
}

/// What 1 and 2 have sent each other, and wait for.
struct Runs<O> {
    protocols: [Protocol<O>; 2],
    sent: [Outbox; 2],
}

fn both() -> [Participant; 2] {
    [1, 2].map(|index| Participant::new(index).expect("not zero"))
}

fn start<R: CryptoRngCore, O>(
    rngs: &mut [R; 2],
    start: impl Fn(Participant, &mut R) -> Result<(Protocol<O>, Outbox), Error>,
) -> Runs<O> {
    let ([one, two], [rng1, rng2]) = (both(), rngs);
    let (first, from_one) = start(one, rng1).expect("served parameters");
    let (second, from_two) = start(two, rng2).expect("served parameters");
    Runs {
        protocols: [first, second],
        sent: [from_one, from_two],
    }
}

impl<O> Runs<O> {
    /// Each with the other's messages.
    fn delivered(self) -> [(Protocol<O>, Inbox); 2] {
        let ([first, second], [from_one, from_two], [one, two]) =
            (self.protocols, self.sent, both());
        [(first, two, from_two), (second, one, from_one)].map(|(protocol, peer, messages)| {
            let mut inbox = protocol.inbox();
            for (_, message) in messages {
                inbox.insert(peer, message).expect("well formed");
            }
            (protocol, inbox)
        })
    }

    /// Both take a step.
    fn step(self, rngs: &mut [impl CryptoRngCore; 2]) -> [Transition<O>; 2] {
        let ([(first, to_one), (second, to_two)], [rng1, rng2]) = (self.delivered(), rngs);
        [(first, to_one, rng1), (second, to_two, rng2)]
            .map(|(protocol, inbox, rng)| protocol.advance(inbox, rng).expect("honest"))
    }

    fn go_on(self, rngs: &mut [impl CryptoRngCore; 2]) -> Self {
        match self.step(rngs) {
            [
                Transition::Continue(first, from_one),
                Transition::Continue(second, from_two),
            ] => Self {
                protocols: [first, second],
                sent: [from_one, from_two],
            },
            _ => unreachable!("there are more rounds"),
        }
    }

    fn finish(mut self, rngs: &mut [impl CryptoRngCore; 2], rounds: usize) -> [O; 2] {
        for _ in 1..rounds {
            self = self.go_on(rngs);
        }
        match self.step(rngs) {
            [Transition::Done(first, _), Transition::Done(second, _)] => [first, second],
            _ => unreachable!("there are no more rounds"),
        }
    }

    /// What 1 does next.
    fn next_of_first(self, tapes: [Tape; 2]) -> impl FnOnce() {
        let ([(protocol, inbox), _], [mut tape, _]) = (self.delivered(), tapes);
        move || {
            drop(black_box(
                protocol.advance(inbox, &mut tape).expect("honest"),
            ))
        }
    }
}

/// The setups of 1 and 2 with each other.
fn pair() -> [PairSetup; 2] {
    let mut rngs = [11, 12].map(ChaCha20Rng::seed_from_u64);
    let runs = start(&mut rngs, |me, rng| {
        let [one, two] = both();
        let params = PairSetupParams {
            session: SessionId::new([7; 32]),
            context: [3; 32],
            me,
            peer: if me == one { two } else { one },
        };
        pair_setup(params, rng)
    });
    runs.finish(&mut rngs, 4)
}
