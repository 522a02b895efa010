//! What two live enclaves share so that they can multiply: base transfers, made once, and from them any
//! number of multiplications.
//!
//! | module | ideal functionality | source |
//! | --- | --- | --- |
//! | `base` | 128 random 1-of-2 transfers: sender has `k0, k1`, receiver has `c, k_c` | Masny-Rindal (ePrint 2019/706), batched as in McQuoid-Rosulek-Roy (ePrint 2021/682) |
//! | `tree` | random all-but-one transfers: sender has 2^k seeds, receiver all of them but number `Δ_i` | SoftSpokenOT (ePrint 2022/192): punctured tree, with its check against a malicious sender |
//! | `extension` | correlated transfers: sender has `Δ, q_j`, receiver has `x_j, t_j`, with `q_j = t_j + x_j Δ` | SoftSpokenOT: small-field VOLE, repetition code, consistency check |
//! | `multiply` | random vector OLE: Alice gives `a_1, a_2` and has `c_1, c_2`, Bob has `b, d_1, d_2`, with `c_i + d_i = a_i b` | DKLs23 (ePrint 2023/765), protocol 5.2 |
//! | `zero` | shares of zero | DKLs23, functionality F_Zero |
//!
//! The arguments for parameters, hashes and deviations stand in `docs/threshold-ecdsa-multiplication.md`.

mod base;
mod extension;
mod hash;
mod multiply;
mod setup;
mod transpose;
mod tree;
mod wide;
mod zero;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroizing;

use crate::{AbortReason, Error, Participant, Reject};

pub use self::multiply::{
    Bob, MAX_MULTIPLICATIONS, Multiply, Shares, alice_message_bytes, alice_respond, bob_finish,
    bob_message_bytes, bob_start,
};
pub use self::setup::{PairSetupParams, pair_setup};

/// What one side of a pair of live enclaves holds: base transfers in both directions and a
/// zero-sharing seed. It serves every key and both curves.
///
/// Made by [`pair_setup`], shared by reference among the sessions that need it, and never stored: it can
/// be neither cloned nor serialised, and dropping it erases it.
///
/// # Security
///
/// The first failed check poisons it for good: to go on would let the peer learn one more secret bit with
/// each attempt. Make a new setup then.
///
/// ```compile_fail,E0277
/// fn need<T: Clone>() {}
/// need::<arca_threshold::ecdsa::pairwise::PairSetup>();
/// ```
/// ```compile_fail,E0277
/// fn need<T: serde::Serialize>() {}
/// need::<arca_threshold::ecdsa::pairwise::PairSetup>();
/// ```
pub struct PairSetup {
    id: [u8; 32],
    side: Side,
    zero_seed: Box<Zeroizing<[u8; 32]>>,
    /// This side as Bob: receives in the extension, knows every seed.
    all_seeds: tree::AllSeeds,
    /// This side as Alice: sends in the extension, knows all seeds but one of each tree.
    punctured_seeds: tree::PuncturedSeeds,
    poisoned: AtomicBool,
}

impl PairSetup {
    /// Digest of everything both sides sent, the same at both.
    pub fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// Whether a check has failed.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst)
    }

    /// Makes it unusable, for whoever learns of a failed check elsewhere.
    pub fn poison(&self) {
        self.poisoned.store(true, Ordering::SeqCst);
    }

    /// Poisons it for a failed check. Of all runs that fail, one alone says why: each such answer tells
    /// the peer about a guess of its own.
    pub(in crate::ecdsa) fn fail(&self, reason: AbortReason) -> Failure {
        match self.poisoned.swap(true, Ordering::SeqCst) {
            true => Failure::Poisoned,
            false => Failure::Abort(reason),
        }
    }

    /// The work on a peer's message. Any failure poisons, a panic included, and ends what other runs
    /// have under way at that moment as well.
    fn guard<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        if self.is_poisoned() {
            return Err(Failure::Poisoned);
        }
        let unwinding = PoisonWhenDropped(self);
        let result = work();
        // Not by a panic.
        std::mem::forget(unwinding);
        match result {
            Err(Failure::Abort(reason)) => Err(self.fail(reason)),
            _ if self.is_poisoned() => Err(Failure::Poisoned),
            result => result,
        }
    }
}

/// What a panic drops.
struct PoisonWhenDropped<'a>(&'a PairSetup);

impl Drop for PoisonWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.poison();
    }
}

impl fmt::Debug for PairSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairSetup")
            .field("poisoned", &self.is_poisoned())
            .finish_non_exhaustive()
    }
}

/// Which of the two: the one with the lower index or the one with the higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Low,
    High,
}

impl Side {
    fn of(me: Participant, peer: Participant) -> Self {
        if me < peer { Self::Low } else { Self::High }
    }

    fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Low => 0,
            Self::High => 1,
        }
    }

    /// The low side's value first.
    fn order<T>(self, mine: T, theirs: T) -> [T; 2] {
        match self {
            Self::Low => [mine, theirs],
            Self::High => [theirs, mine],
        }
    }
}

/// Why a multiplication came to nothing. [`Failure::by`] makes it the crate's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The peer did not follow the protocol. The setup is poisoned.
    Abort(AbortReason),
    /// The setup was poisoned before, or meanwhile by another run.
    Poisoned,
    /// The peer's message is of another setup than this one: the two sides hold different ones. Nothing was
    /// computed and nothing is poisoned.
    OtherSetup,
    /// The caller misused the interface.
    Bug(&'static str),
}

impl Failure {
    /// The error, with the peer's index in the session it happened in.
    pub fn by(self, peer: Participant) -> Error {
        match self {
            Self::Abort(reason) => Error::abort(reason, peer),
            Self::Poisoned => Error::Reject(Reject::SetupPoisoned),
            // Which of the two has the wrong one cannot be known here.
            Self::OtherSetup => Error::Abort {
                reason: AbortReason::ContextMismatch,
                culprits: Vec::new(),
                suspects: vec![peer],
            },
            Self::Bug(bug) => Error::Bug(bug),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::{CryptoRngCore, SeedableRng as _};

    use super::*;
    use crate::{Protocol, SessionId, Transition};

    /// The low and the high side's setup.
    pub(in crate::ecdsa) fn setups(seed: u64) -> (PairSetup, PairSetup) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let [one, two] = [1, 2].map(|index| Participant::new(index).unwrap());
        let start = |me, peer, rng: &mut dyn CryptoRngCore| {
            let params = PairSetupParams {
                session: SessionId::new([7; 32]),
                context: [3; 32],
                me,
                peer,
            };
            pair_setup(params, rng).unwrap()
        };
        let (mut low, mut to_high) = start(one, two, &mut rng);
        let (mut high, mut to_low) = start(two, one, &mut rng);
        loop {
            let mut step = |run: Protocol<PairSetup>, from, outbox: crate::Outbox| {
                let mut inbox = run.inbox();
                for (_, message) in outbox {
                    inbox.insert(from, message).unwrap();
                }
                run.advance(inbox, &mut rng).unwrap()
            };
            match (step(low, two, to_low), step(high, one, to_high)) {
                (Transition::Continue(l, to_h), Transition::Continue(h, to_l)) => {
                    (low, high, to_high, to_low) = (l, h, to_h, to_l);
                }
                (Transition::Done(l, _), Transition::Done(h, _)) => return (l, h),
                _ => unreachable!("both take four rounds"),
            }
        }
    }

    #[test]
    fn each_side_knows_all_seeds_of_one_direction_and_all_but_one_of_the_other() {
        let (low, high) = setups(1);
        assert_eq!(low.id, high.id);
        assert_eq!(low.zero_seed, high.zero_seed);
        for (bob, alice) in [(&low, &high), (&high, &low)] {
            let delta = alice.punctured_seeds.delta();
            let all = bob.all_seeds.seeds().chunks(tree::LEAVES);
            let punctured = alice.punctured_seeds.seeds().chunks(tree::LEAVES);
            for (index, (all, punctured)) in all.zip(punctured).enumerate() {
                let missing = (delta >> (index * tree::DEPTH)) as usize % tree::LEAVES;
                assert_eq!(punctured[0], 0);
                for place in 1..tree::LEAVES {
                    assert_eq!(punctured[place], all[place ^ missing]);
                }
            }
        }
        // The directions have nothing in common.
        assert_ne!(low.punctured_seeds.delta(), high.punctured_seeds.delta());
        assert_ne!(low.all_seeds.seeds(), high.all_seeds.seeds());
    }

    /// The answers of as many runs over one setup that are under way at the same moment: all have begun
    /// before the first ends.
    fn at_once<W>(setup: &PairSetup, work: Vec<W>) -> Vec<Result<(), Failure>>
    where
        W: FnOnce() -> Result<(), Failure> + Send,
    {
        let begun = std::sync::Barrier::new(work.len());
        std::thread::scope(|scope| {
            let run = |work: W| {
                let begun = &begun;
                scope.spawn(move || {
                    setup.guard(|| {
                        begun.wait();
                        work()
                    })
                })
            };
            let threads: Vec<_> = work.into_iter().map(run).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        })
    }

    /// Bob guesses parts of `Δ` in many runs at once, each time wrongly: one answer is all that he gets.
    #[test]
    fn of_many_guesses_at_once_one_is_answered() {
        const GUESSES: usize = 64;
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let (low, high) = setups(3);
        let delta = high.punctured_seeds.delta();
        let context = [6; 32];
        let guess = |number: usize| {
            let tree = number % tree::TREES;
            let part = (delta >> (tree * tree::DEPTH)) % tree::LEAVES as u128;
            let wrong = part ^ (1 + number / tree::TREES) as u128;
            let guess = (tree, wrong);
            extension::tests::guessing_message(&low.all_seeds, &context, 1, guess, &mut rng)
        };
        let messages: Vec<_> = (0..GUESSES).map(guess).collect();
        let work = messages.iter().map(|message| {
            let seeds = &high.punctured_seeds;
            || {
                let sent = extension::send(seeds, &context, 1, message);
                sent.map(|_| ()).map_err(Failure::Abort)
            }
        });
        let answers = at_once(&high, work.collect());
        let count = |failure| answers.iter().filter(|a| **a == Err(failure)).count();
        assert_eq!(count(Failure::Abort(AbortReason::ConsistencyCheck)), 1);
        assert_eq!(count(Failure::Poisoned), GUESSES - 1);
        assert!(high.is_poisoned());
    }

    /// A run that is under way when another one fails comes to nothing, whatever it would have been.
    #[test]
    fn what_is_under_way_when_a_check_fails_is_not_answered() {
        let (low, _) = setups(1);
        let outcomes = [Ok(()), Err(Failure::Bug("a bug"))];
        for outcome in outcomes {
            low.poisoned.store(false, Ordering::SeqCst);
            let answer = low.guard(|| {
                let failed = low.guard(|| Err::<(), _>(Failure::Abort(AbortReason::Malformed)));
                assert_eq!(failed, Err(Failure::Abort(AbortReason::Malformed)));
                outcome
            });
            assert_eq!(answer, Err(Failure::Poisoned));
        }
    }

    #[test]
    fn a_panic_poisons() {
        let (low, _) = setups(1);
        let run =
            || low.guard(|| -> Result<(), Failure> { std::panic::resume_unwind(Box::new(())) });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        assert!(low.is_poisoned());
    }

    #[test]
    fn setups_differ() {
        let (one, _) = setups(1);
        let (two, _) = setups(2);
        assert_ne!(one.id, two.id);
        assert_ne!(one.zero_seed, two.zero_seed);
    }
}
