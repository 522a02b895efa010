//! Random vector OLE: many multiplications in one extension, two messages.
//!
//! DKLs23 (ePrint 2023/765), protocol 5.2, with `l` = 2 inputs of Alice to one of Bob. `q` is the group's
//! order, of 256 bits; statistical security 80 bits, so `ξ` = 256 + 2·80 = 416 transfers for
//! each multiplication; `ρ` = 1 check column, because `q` exceeds 2^128.
//!
//! - Bob takes random bits `β` and is the extension's receiver (steps 1, 2). His input is
//!   `b = Σ g_j β_j`, with the public random gadget vector `g`.
//! - From her rows Alice has two pads `α0_j, α1_j` for each transfer, each of three scalars; Bob has
//!   `γ_j = α_{β_j}`. Alice takes a random `â`, sends `Γ_j = α0_j - α1_j + (a_1, a_2, â)`, and has
//!   `c_i = -Σ g_j α0_{j,i}` (steps 3, 4).
//! - *Check* (steps 4, 5): with `θ` hashed from all `Γ`, Alice sends `η = â + θ_1 a_1 + θ_2 a_2` and a digest of
//!   all `μ_j = α0_{j,3} + θ_1 α0_{j,1} + θ_2 α0_{j,2}`. Bob, with `δ_j = γ_j + β_j Γ_j`, compares it with that of
//!   `δ_{j,3} + θ_1 δ_{j,1} + θ_2 δ_{j,2} - β_j η`. Then `d_i = Σ g_j δ_{j,i}` (step 5).
//!
//! *Ideal functionality*: F_RVOLE. Alice gives `a_1, a_2` and has `c_1, c_2`; Bob has random `b`, and `d_1, d_2`, with
//! `c_i + d_i = a_i b`. A corrupt Alice who uses different inputs in different transfers passes only if
//! she guesses Bob's bits there, and `b` stays uniform because `g` hashes `β` with 160 bits to spare (heuristic, since
//! she sees `g`: `docs/threshold-ecdsa-multiplication.md`).
//!
//! One run serves up to [`MAX_MULTIPLICATIONS`], with challenges for each and one digest for all.

use std::sync::OnceLock;

use rand_core::CryptoRngCore;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use zeroize::{Zeroize as _, Zeroizing};

use k256::elliptic_curve::Field as _;

use crate::bytes::take;
use crate::ecdsa::{Curve, P256, SCALAR_BYTES, Secp256k1};
use crate::{AbortReason, tags};

use super::extension;
use super::hash::{LANES, TweakableHash};
use super::wide::{self, Limbs, Wide};
use super::zero::wide_hash;
use super::{Failure, PairSetup, Side};

/// Most multiplications of one run.
pub const MAX_MULTIPLICATIONS: usize = 256;

/// Transfers for each multiplication.
const TRANSFERS: usize = 256 + 2 * 80;
/// Scalars for each transfer: two inputs and the check's.
const WIDTH: usize = 3;
const NONCE_BYTES: usize = 32;
/// The setup that Bob's message is of, at its front.
const SETUP_ID_BYTES: usize = 32;

/// Bytes of Bob's message.
pub const fn bob_message_bytes(count: usize) -> usize {
    SETUP_ID_BYTES + extension::message_bytes(blocks(count))
}

/// Bytes of Alice's message.
pub const fn alice_message_bytes(count: usize) -> usize {
    NONCE_BYTES + count * (TRANSFERS * WIDTH + 1) * SCALAR_BYTES + 32
}

const fn blocks(count: usize) -> usize {
    (count * TRANSFERS).div_ceil(extension::ROWS)
}

/// What multiplications need of a curve besides its scalars.
pub trait Multiply: Curve {
    /// Blocks of 128 bits that make a pad's scalar: as many as give it a bias of 2^-128 at most.
    const PAD_BLOCKS: usize;

    /// A pad's scalar from so many uniform blocks.
    fn pad(blocks: &[u128]) -> Self::Scalar;

    /// The curve's constants.
    fn constants() -> &'static Constants<Self>;
}

impl Multiply for Secp256k1 {
    /// The order is 2^256 up to 2^128.4.
    const PAD_BLOCKS: usize = 2;

    fn pad(blocks: &[u128]) -> Self::Scalar {
        let mut bytes = [0; 32];
        write_blocks(&mut bytes, blocks);
        Self::reduce(&bytes)
    }

    fn constants() -> &'static Constants<Self> {
        static CONSTANTS: OnceLock<Constants<Secp256k1>> = OnceLock::new();
        CONSTANTS.get_or_init(Constants::new)
    }
}

impl Multiply for P256 {
    const PAD_BLOCKS: usize = 3;

    fn pad(blocks: &[u128]) -> Self::Scalar {
        let mut bytes = [0; 64];
        if let Some(low) = bytes.get_mut(16..) {
            write_blocks(low, blocks);
        }
        Self::reduce_wide(&bytes)
    }

    fn constants() -> &'static Constants<Self> {
        static CONSTANTS: OnceLock<Constants<P256>> = OnceLock::new();
        CONSTANTS.get_or_init(Constants::new)
    }
}

fn write_blocks(bytes: &mut [u8], blocks: &[u128]) {
    let (chunks, _) = bytes.as_chunks_mut::<16>();
    for (chunk, block) in chunks.iter_mut().zip(blocks) {
        *chunk = block.to_be_bytes();
    }
}

/// What multiplications need of a curve and is computed once.
#[derive(Debug)]
pub struct Constants<C: Curve> {
    /// The gadget vector `g`: 416 public scalars from a hash, each with its limbs.
    gadget: Vec<(C::Scalar, Limbs)>,
    /// 2^512 modulo the order.
    radix: C::Scalar,
}

impl<C: Curve> Constants<C> {
    fn new() -> Self {
        let element = |index| {
            let g = wide_hash::<C>(tags::MULTIPLY_GADGET, &[], index);
            (g, wide::limbs::<C>(&g))
        };
        Self {
            gadget: (0..TRANSFERS).map(element).collect(),
            radix: wide::radix::<C>(),
        }
    }
}

/// Bob between his message and Alice's. Its inputs and everything else are erased when it is dropped.
///
/// ```compile_fail,E0277
/// fn need<T: Clone>() {}
/// need::<arca_threshold::ecdsa::pairwise::Bob<arca_threshold::ecdsa::Secp256k1>>();
/// ```
/// ```compile_fail,E0382
/// # use arca_threshold::ecdsa::{Secp256k1, pairwise::{Bob, PairSetup, bob_finish}};
/// # fn twice(setup: &PairSetup, bob: Bob<Secp256k1>, one: &[u8], other: &[u8]) {
/// let _ = bob_finish(setup, bob, one);
/// let _ = bob_finish(setup, bob, other); // it has moved
/// # }
/// ```
pub struct Bob<C: Curve> {
    setup: ([u8; 32], Side),
    transfers: extension::Receiver,
    inputs: Zeroizing<Vec<C::Scalar>>,
}

impl<C: Curve> Bob<C> {
    /// The random `b` of each multiplication.
    pub fn inputs(&self) -> &[C::Scalar] {
        &self.inputs
    }
}

impl<C: Curve> std::fmt::Debug for Bob<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bob")
            .field("count", &self.inputs.len())
            .finish_non_exhaustive()
    }
}

/// Bob's first step for `count` multiplications: his inputs, and the message for Alice.
///
/// `context` is a digest of everything that both sides know of this run: session, parties, purpose, curve
/// and key need to be in it. Both must give the same. Two runs under one context are safe: each has
/// fresh randomness of both sides.
///
/// # Errors
///
/// [`Failure::Poisoned`]; [`Failure::Bug`] for a count of zero or beyond [`MAX_MULTIPLICATIONS`].
pub fn bob_start<C: Multiply>(
    setup: &PairSetup,
    context: &[u8; 32],
    count: usize,
    rng: &mut dyn CryptoRngCore,
) -> Result<(Bob<C>, Vec<u8>), Failure> {
    check_count(count)?;
    setup.guard(|| {
        let context = run_context::<C>(setup, setup.side, context, count);
        let (transfers, message) =
            extension::receive(&setup.all_seeds, &context, blocks(count), rng);
        let message = [setup.id.as_slice(), &message].concat();
        let mut inputs = Zeroizing::new(vec![C::Scalar::ZERO; count]);
        let mut bits = Bits::new(&transfers.choices);
        for input in inputs.iter_mut() {
            for ((g, _), bit) in C::constants().gadget.iter().zip(&mut bits) {
                *input += C::Scalar::conditional_select(&C::Scalar::ZERO, g, bit);
            }
        }
        let bob = Bob {
            setup: (setup.id, setup.side),
            transfers,
            inputs,
        };
        Ok((bob, message))
    })
}

/// What one side has of each multiplication's two products: `c_1, c_2` or `d_1, d_2`.
pub type Shares<C> = Zeroizing<Vec<[<C as Curve>::Scalar; 2]>>;

/// Alice's only step: her shares, and the message for Bob.
///
/// # Errors
///
/// [`Failure::OtherSetup`] when Bob's message is of another setup; [`Failure::Abort`] when it does not pass,
/// which poisons the setup; [`Failure::Poisoned`]; [`Failure::Bug`] as for [`bob_start`].
pub fn alice_respond<C: Multiply>(
    setup: &PairSetup,
    context: &[u8; 32],
    inputs: &[[C::Scalar; 2]],
    message: &[u8],
    rng: &mut dyn CryptoRngCore,
) -> Result<(Shares<C>, Vec<u8>), Failure> {
    let count = inputs.len();
    check_count(count)?;
    let mut rest = message;
    // Two honest sides may hold different setups, and neither is to be convicted by the check for it.
    if take::<SETUP_ID_BYTES>(&mut rest).is_some_and(|id| *id != setup.id) {
        return Err(Failure::OtherSetup);
    }
    setup.guard(|| {
        let context = run_context::<C>(setup, setup.side.other(), context, count);
        let seeds = &setup.punctured_seeds;
        let transfers =
            extension::send(seeds, &context, blocks(count), rest).map_err(Failure::Abort)?;
        Ok(alice::<C>(&transfers, inputs, rng))
    })
}

fn alice<C: Multiply>(
    transfers: &extension::Sender,
    inputs: &[[C::Scalar; 2]],
    rng: &mut dyn CryptoRngCore,
) -> (Shares<C>, Vec<u8>) {
    let count = inputs.len();
    let mut nonce = [0; NONCE_BYTES];
    rng.fill_bytes(&mut nonce);
    let mut pads = Pads::<C>::new(&transfers.transcript, &nonce);
    let mut message = Vec::with_capacity(alice_message_bytes(count));
    message.extend_from_slice(&nonce);

    // α0, of which both the shares and the check are made once the challenges are known.
    let mut kept = Zeroizing::new(Vec::with_capacity(count * TRANSFERS));
    let mut masks = Zeroizing::new(Vec::with_capacity(count));
    for (index, ([a1, a2], rows)) in inputs
        .iter()
        .zip(transfers.rows.chunks_exact(TRANSFERS))
        .enumerate()
    {
        let mask = C::random(rng);
        masks.push(mask);
        let both = rows.iter().flat_map(|q| [*q, *q ^ *transfers.delta]);
        for [zero, one] in pads.of::<2>(index, both) {
            let inputs = [a1, a2, &mask];
            for ((zero, one), input) in zero.iter().zip(one).zip(inputs) {
                let correction = *zero - one + input;
                message.extend_from_slice(&C::scalar_bytes(&correction));
            }
            kept.push(*zero);
        }
    }

    let corrections = message.get(NONCE_BYTES..).unwrap_or_default();
    let transcript = pads.transcript(corrections);
    let constants = C::constants();
    let mut shares = Zeroizing::new(Vec::with_capacity(count));
    let mut checks = Zeroizing::new(Vec::with_capacity(count * TRANSFERS * SCALAR_BYTES));
    for (index, ((pads, [a1, a2]), mask)) in kept
        .chunks_exact(TRANSFERS)
        .zip(inputs)
        .zip(masks.iter())
        .enumerate()
    {
        let [t1, t2] = challenges::<C>(&transcript, index);
        let answer = *mask + t1 * a1 + t2 * a2;
        message.extend_from_slice(&C::scalar_bytes(&answer));
        let [t1, t2] = [&t1, &t2].map(wide::limbs::<C>);
        let mut sums = [Wide::default(), Wide::default()];
        for ((_, g), [p1, p2, p3]) in constants.gadget.iter().zip(pads) {
            let limbs = Zeroizing::new([p1, p2].map(wide::limbs::<C>));
            let ([s1, s2], [p1, p2]) = (&mut sums, &*limbs);
            s1.add_product(g, p1);
            s2.add_product(g, p2);
            let mut check = Wide::default();
            check.add_product(&t1, p1);
            check.add_product(&t2, p2);
            let check = *p3 + check.reduce_two::<C>(&constants.radix);
            checks.extend_from_slice(&C::scalar_bytes(&check));
        }
        let share = Zeroizing::new(sums.map(|sum| -sum.reduce::<C>(&constants.radix)));
        shares.push(*share);
    }
    message.extend_from_slice(&tags::hash(tags::MULTIPLY_CHECK, &[&transcript, &checks]));
    (shares, message)
}

/// Bob's last step: his shares.
///
/// # Errors
///
/// [`Failure::Abort`] when Alice's message does not pass, which poisons the setup; [`Failure::Poisoned`];
/// [`Failure::Bug`] for a state of another setup.
pub fn bob_finish<C: Multiply>(
    setup: &PairSetup,
    bob: Bob<C>,
    message: &[u8],
) -> Result<Shares<C>, Failure> {
    if bob.setup != (setup.id, setup.side) {
        return Err(Failure::Bug("multiplications of another setup"));
    }
    setup.guard(|| finish(&bob, message).map_err(Failure::Abort))
}

fn finish<C: Multiply>(bob: &Bob<C>, message: &[u8]) -> Result<Shares<C>, AbortReason> {
    let count = bob.inputs.len();
    let (nonce, corrections, answers, digest) =
        parse(message, count).ok_or(AbortReason::Malformed)?;
    let mut pads = Pads::<C>::new(&bob.transfers.transcript, nonce);
    let transcript = pads.transcript(corrections.as_flattened().as_flattened());

    let constants = C::constants();
    let mut bits = Bits::new(&bob.transfers.choices);
    let mut shares = Zeroizing::new(Vec::with_capacity(count));
    let mut checks = Zeroizing::new(Vec::with_capacity(count * TRANSFERS * SCALAR_BYTES));
    for (index, ((answer, corrections), rows)) in answers
        .iter()
        .zip(corrections.chunks_exact(TRANSFERS))
        .zip(bob.transfers.rows.chunks_exact(TRANSFERS))
        .enumerate()
    {
        let answer = C::scalar(answer).ok_or(AbortReason::Malformed)?;
        let [t1, t2] = challenges::<C>(&transcript, index);
        let pads = pads.of::<1>(index, rows.iter().copied());
        let [t1, t2] = [&t1, &t2].map(wide::limbs::<C>);
        let mut sums = [Wide::default(), Wide::default()];
        let gadget = constants.gadget.iter().zip(pads);
        for ((((_, g), [pad]), corrections), bit) in gadget.zip(corrections).zip(&mut bits) {
            let mut delta = Zeroizing::new(*pad);
            for (delta, correction) in delta.iter_mut().zip(corrections) {
                let correction = C::scalar(correction).ok_or(AbortReason::Malformed)?;
                *delta += C::Scalar::conditional_select(&C::Scalar::ZERO, &correction, bit);
            }
            let [d1, d2, d3] = &*delta;
            let limbs = Zeroizing::new([d1, d2].map(wide::limbs::<C>));
            let ([s1, s2], [d1, d2]) = (&mut sums, &*limbs);
            s1.add_product(g, d1);
            s2.add_product(g, d2);
            let mut check = Wide::default();
            check.add_product(&t1, d1);
            check.add_product(&t2, d2);
            let expected = C::Scalar::conditional_select(&C::Scalar::ZERO, &answer, bit);
            let check = *d3 + check.reduce_two::<C>(&constants.radix) - expected;
            checks.extend_from_slice(&C::scalar_bytes(&check));
        }
        let share = Zeroizing::new(sums.map(|sum| sum.reduce::<C>(&constants.radix)));
        shares.push(*share);
    }
    let expected = tags::hash(tags::MULTIPLY_CHECK, &[&transcript, &checks]);
    if !bool::from(expected.ct_eq(digest)) {
        return Err(AbortReason::ConsistencyCheck);
    }
    Ok(shares)
}

type Message<'a> = (
    &'a [u8; NONCE_BYTES],
    &'a [[[u8; SCALAR_BYTES]; WIDTH]],
    &'a [[u8; SCALAR_BYTES]],
    &'a [u8; 32],
);

/// Nonce, corrections, answers, digest.
fn parse(mut message: &[u8], count: usize) -> Option<Message<'_>> {
    let nonce = take::<NONCE_BYTES>(&mut message)?;
    let (scalars, rest) = message.as_chunks::<SCALAR_BYTES>();
    let (digest, scalars) = scalars.split_last()?;
    let (corrections, answers) = scalars.split_at_checked(count * TRANSFERS * WIDTH)?;
    let (corrections, _) = corrections.as_chunks::<WIDTH>();
    (rest.is_empty() && answers.len() == count).then_some((nonce, corrections, answers, digest))
}

fn check_count(count: usize) -> Result<(), Failure> {
    if (1..=MAX_MULTIPLICATIONS).contains(&count) {
        Ok(())
    } else {
        Err(Failure::Bug("a run multiplies 1 to 256 times"))
    }
}

fn run_context<C: Curve>(
    setup: &PairSetup,
    bob: Side,
    context: &[u8; 32],
    count: usize,
) -> [u8; 32] {
    let kind = [C::ID.to_byte(), bob.to_byte()];
    let count = (count as u64).to_be_bytes();
    tags::hash(tags::CONTEXT, &[&setup.id, &kind, &count, context])
}

fn challenges<C: Curve>(transcript: &[u8; 32], index: usize) -> [C::Scalar; 2] {
    let challenge = |number| {
        let number = 2 * index + number;
        wide_hash::<C>(tags::MULTIPLY_CHALLENGE, &[transcript], number)
    };
    [challenge(0), challenge(1)]
}

/// The choice bits, in the rows' order.
struct Bits<'a> {
    blocks: std::slice::Iter<'a, u128>,
    block: Zeroizing<u128>,
    left: u32,
}

impl<'a> Bits<'a> {
    fn new(blocks: &'a [u128]) -> Self {
        Self {
            blocks: blocks.iter(),
            block: Zeroizing::new(0),
            left: 0,
        }
    }
}

impl Iterator for Bits<'_> {
    type Item = Choice;

    fn next(&mut self) -> Option<Choice> {
        if self.left == 0 {
            *self.block = *self.blocks.next()?;
            self.left = u128::BITS;
        }
        let bit = Choice::from((*self.block & 1) as u8);
        *self.block >>= 1;
        self.left -= 1;
        Some(bit)
    }
}

/// The pads of one run, from rows.
struct Pads<C: Multiply> {
    root: [u8; 32],
    hash: TweakableHash,
    output: Zeroizing<Vec<u128>>,
    scalars: Zeroizing<Vec<[C::Scalar; WIDTH]>>,
}

impl<C: Multiply> Pads<C> {
    /// Alice's nonce is in the key: her pads are new even where Bob repeats a message.
    fn new(transfers: &[u8; 32], nonce: &[u8; NONCE_BYTES]) -> Self {
        let root = tags::hash(tags::MULTIPLY_PADS, &[transfers, nonce]);
        let blocks = LANES * WIDTH * C::PAD_BLOCKS;
        Self {
            hash: TweakableHash::new(&root, blocks),
            root,
            output: Zeroizing::new(vec![0; blocks]),
            scalars: Zeroizing::new(Vec::with_capacity(2 * TRANSFERS)),
        }
    }

    /// The pads of one multiplication: of each row in order, `N` rows being one transfer's.
    fn of<const N: usize>(
        &mut self,
        multiplication: usize,
        mut rows: impl Iterator<Item = u128>,
    ) -> &[[[C::Scalar; WIDTH]; N]] {
        self.scalars.clear();
        let mut lanes = Zeroizing::new([0; LANES]);
        let mut transfer = multiplication * TRANSFERS;
        loop {
            let mut filled = 0;
            for (lane, row) in lanes.iter_mut().zip(&mut rows) {
                *lane = row;
                filled += 1;
            }
            let Some(lanes) = lanes.get_mut(..filled).filter(|lanes| !lanes.is_empty()) else {
                break;
            };
            let blocks = WIDTH * C::PAD_BLOCKS;
            let output = self.output.get_mut(..filled * blocks).unwrap_or_default();
            self.hash.absorb(lanes);
            // The low byte counts blocks.
            let tweak = |lane: usize| ((transfer + lane / N) as u128) << 8;
            self.hash.squeeze(lanes, blocks, tweak, output);
            for output in output.chunks_exact(blocks) {
                let mut scalars = [C::Scalar::ZERO; WIDTH];
                for (scalar, blocks) in scalars.iter_mut().zip(output.chunks_exact(C::PAD_BLOCKS)) {
                    *scalar = C::pad(blocks);
                }
                self.scalars.push(scalars);
                scalars.zeroize();
            }
            transfer += filled / N;
        }
        self.scalars.as_chunks::<N>().0
    }

    /// What the challenges follow from.
    fn transcript(&self, corrections: &[u8]) -> [u8; 32] {
        tags::hash(tags::MULTIPLY_TRANSCRIPT, &[&self.root, corrections])
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::ecdsa::pairwise::tests::setups;

    const CONTEXT: [u8; 32] = [4; 32];

    const COUNT: usize = 2;

    /// What a cheating Alice does: adds `offsets` to her inputs in one transfer of one multiplication alone,
    /// and guesses Bob's bit there.
    struct Cheat<C: Curve> {
        multiplication: usize,
        transfer: usize,
        offsets: [C::Scalar; 2],
        guess: bool,
    }

    /// Otherwise the protocol as the paper writes it.
    fn cheating_alice<C: Multiply>(
        transfers: &extension::Sender,
        inputs: &[[C::Scalar; 2]],
        cheat: &Cheat<C>,
        rng: &mut ChaCha20Rng,
    ) -> (Vec<[C::Scalar; 2]>, Vec<u8>) {
        let is_cheated = |index, j| (index, j) == (cheat.multiplication, cheat.transfer);
        let mut pads = Pads::<C>::new(&transfers.transcript, &[1; 32]);
        let (mut alphas, mut masks, mut message) = (Vec::new(), Vec::new(), vec![1; 32]);
        for (index, [a1, a2]) in inputs.iter().enumerate() {
            let rows = &transfers.rows[index * TRANSFERS..][..TRANSFERS];
            let rows = rows.iter().flat_map(|q| [*q, q ^ *transfers.delta]);
            let alpha: Vec<_> = pads.of::<2>(index, rows).to_vec();
            let mask = C::random(rng);
            for (j, [zero, one]) in alpha.iter().enumerate() {
                let inputs = match is_cheated(index, j) {
                    true => [*a1 + cheat.offsets[0], *a2 + cheat.offsets[1], mask],
                    false => [*a1, *a2, mask],
                };
                for k in 0..WIDTH {
                    let correction = zero[k] - one[k] + inputs[k];
                    message.extend_from_slice(&C::scalar_bytes(&correction));
                }
            }
            alphas.push(alpha);
            masks.push(mask);
        }
        let transcript = pads.transcript(&message[32..]);
        let (mut checks, mut shares) = (Vec::new(), Vec::new());
        for (index, [a1, a2]) in inputs.iter().enumerate() {
            let [t1, t2] = challenges::<C>(&transcript, index);
            let answer = masks[index] + t1 * a1 + t2 * a2;
            message.extend_from_slice(&C::scalar_bytes(&answer));
            let mut share = [C::Scalar::ZERO; 2];
            for (j, [zero, _]) in alphas[index].iter().enumerate() {
                let mut check = zero[2] + t1 * zero[0] + t2 * zero[1];
                if is_cheated(index, j) && cheat.guess {
                    check += t1 * cheat.offsets[0] + t2 * cheat.offsets[1];
                }
                checks.extend_from_slice(&C::scalar_bytes(&check));
                share[0] -= C::constants().gadget[j].0 * zero[0];
                share[1] -= C::constants().gadget[j].0 * zero[1];
            }
            shares.push(share);
        }
        message.extend_from_slice(&tags::hash(tags::MULTIPLY_CHECK, &[&transcript, &checks]));
        (shares, message)
    }

    fn cheat<C: Multiply>(offsets: [C::Scalar; 2]) {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let inputs = [0; COUNT].map(|_| [C::random(&mut rng), C::random(&mut rng)]);
        let (low, high) = setups(3);
        let mut outcomes = [[0; 2]; 2];
        for (number, transfer) in [0, 1, 2, 200, 414, 415].into_iter().enumerate() {
            for guess in [false, true] {
                low.poisoned
                    .store(false, std::sync::atomic::Ordering::SeqCst);
                let (bob, message) = bob_start::<C>(&low, &CONTEXT, COUNT, &mut rng).unwrap();
                let b = bob.inputs().to_vec();
                let cheat = Cheat {
                    multiplication: number % COUNT,
                    transfer,
                    offsets,
                    guess,
                };
                let place = cheat.multiplication * TRANSFERS + transfer;
                let bit: bool = Bits::new(&bob.transfers.choices).nth(place).unwrap().into();
                let context = run_context::<C>(&high, Side::Low, &CONTEXT, COUNT);
                let seeds = &high.punctured_seeds;
                let message = &message[SETUP_ID_BYTES..];
                let transfers = extension::send(seeds, &context, blocks(COUNT), message).unwrap();
                let (c, message) = cheating_alice::<C>(&transfers, &inputs, &cheat, &mut rng);
                let result = bob_finish::<C>(&low, bob, &message);
                let honest = offsets == [C::Scalar::ZERO; 2];
                if honest || bit == guess {
                    let d = result.unwrap();
                    for (index, input) in inputs.iter().enumerate() {
                        for k in 0..2 {
                            let mut product = input[k] * b[index];
                            if index == cheat.multiplication && bit {
                                product += offsets[k] * C::constants().gadget[transfer].0;
                            }
                            assert_eq!(c[index][k] + d[index][k], product);
                        }
                    }
                    assert!(!low.is_poisoned());
                } else {
                    let reason = AbortReason::ConsistencyCheck;
                    assert_eq!(result.unwrap_err(), Failure::Abort(reason));
                    assert!(low.is_poisoned());
                }
                outcomes[usize::from(bit)][usize::from(guess)] += 1;
            }
        }
        // Both bits occurred, or this shows nothing.
        assert!(outcomes.iter().flatten().all(|count| *count > 0));
    }

    /// The paper's Alice, written down a second time, is understood by Bob.
    #[test]
    fn an_alice_after_the_paper_passes() {
        cheat::<Secp256k1>([k256::Scalar::ZERO; 2]);
    }

    #[test]
    fn another_input_in_one_transfer_is_a_guess_of_its_bit() {
        cheat::<Secp256k1>([k256::Scalar::ONE, k256::Scalar::ZERO]);
        cheat::<P256>([-p256::Scalar::ONE, p256::Scalar::ZERO]);
        // In the second input alone, and in both so that equal challenges would cancel it.
        cheat::<Secp256k1>([k256::Scalar::ZERO, k256::Scalar::ONE]);
        cheat::<Secp256k1>([k256::Scalar::ONE, -k256::Scalar::ONE]);
    }

    #[test]
    fn no_two_challenges_are_equal() {
        let all = [([1; 32], 0), ([1; 32], 1), ([2; 32], 0)];
        let all = all.map(|(transcript, index)| challenges::<Secp256k1>(&transcript, index));
        let different: std::collections::BTreeSet<_> = all
            .as_flattened()
            .iter()
            .map(Secp256k1::scalar_bytes)
            .collect();
        assert_eq!(different.len(), 6);
    }

    #[test]
    fn challenges_follow_from_all_of_both_messages() {
        let transcript = |transfers, nonce, corrections: [u8; 1]| {
            Pads::<Secp256k1>::new(&[transfers; 32], &[nonce; 32]).transcript(&corrections)
        };
        let all = [(0, 0, [0]), (1, 0, [0]), (0, 1, [0]), (0, 0, [1])];
        let different: std::collections::BTreeSet<_> =
            all.iter().map(|(t, n, c)| transcript(*t, *n, *c)).collect();
        assert_eq!(different.len(), all.len());
    }

    /// `η` shows nothing of the inputs: `â` hides them, another one in each multiplication.
    #[test]
    fn answers_are_masked() {
        let mut rng = ChaCha20Rng::seed_from_u64(8);
        let (low, high) = setups(8);
        let inputs = [[k256::Scalar::from(2_u64), k256::Scalar::from(3_u64)]; COUNT];
        let mut masks = std::collections::BTreeSet::from([[0; 32]]);
        for _ in 0..2 {
            let (bob, message) = bob_start::<Secp256k1>(&low, &CONTEXT, COUNT, &mut rng).unwrap();
            let answered = alice_respond::<Secp256k1>(&high, &CONTEXT, &inputs, &message, &mut rng);
            let (_, answer) = answered.unwrap();
            let (nonce, corrections, answers, _) = parse(&answer, COUNT).unwrap();
            let pads = Pads::<Secp256k1>::new(&bob.transfers.transcript, nonce);
            let transcript = pads.transcript(corrections.as_flattened().as_flattened());
            for (index, ([a1, a2], answer)) in inputs.iter().zip(answers).enumerate() {
                let [t1, t2] = challenges::<Secp256k1>(&transcript, index);
                let mask = Secp256k1::scalar(answer).unwrap() - t1 * a1 - t2 * a2;
                masks.insert(Secp256k1::scalar_bytes(&mask));
            }
        }
        assert_eq!(masks.len(), 1 + 2 * COUNT);
    }

    #[test]
    fn everything_a_run_is_bound_to_counts() {
        let (low, _) = setups(6);
        let (other, _) = setups(7);
        let contexts = [
            run_context::<Secp256k1>(&low, Side::Low, &CONTEXT, 1),
            run_context::<Secp256k1>(&other, Side::Low, &CONTEXT, 1),
            run_context::<P256>(&low, Side::Low, &CONTEXT, 1),
            run_context::<Secp256k1>(&low, Side::High, &CONTEXT, 1),
            run_context::<Secp256k1>(&low, Side::Low, &[5; 32], 1),
            run_context::<Secp256k1>(&low, Side::Low, &CONTEXT, 2),
        ];
        let different: std::collections::BTreeSet<_> = contexts.iter().collect();
        assert_eq!(different.len(), contexts.len());
    }

    #[test]
    fn a_repeated_message_gets_new_pads() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let (low, high) = setups(5);
        let (_bob, message) = bob_start::<Secp256k1>(&low, &CONTEXT, 1, &mut rng).unwrap();
        let input = [[k256::Scalar::from(2_u64), k256::Scalar::from(3_u64)]];
        let mut answer = || {
            let answer = alice_respond::<Secp256k1>(&high, &CONTEXT, &input, &message, &mut rng);
            let (_, answer) = answer.unwrap();
            let (_, corrections, _, _) = parse(&answer, 1).unwrap();
            corrections.to_vec()
        };
        let (one, two) = (answer(), answer());
        // Under the same pads the first two of each three would be equal.
        for (one, two) in one.as_flattened().iter().zip(two.as_flattened()) {
            assert_ne!(one, two);
        }
    }

    #[test]
    fn the_gadget_has_no_short_relation() {
        fn check<C: Multiply>() {
            let gadget = &C::constants().gadget;
            assert_eq!(gadget.len(), TRANSFERS);
            let bytes: std::collections::BTreeSet<_> =
                gadget.iter().map(|(g, _)| C::scalar_bytes(g)).collect();
            assert_eq!(bytes.len(), TRANSFERS);
        }
        check::<Secp256k1>();
        check::<P256>();
        let [k, p] = [
            Secp256k1::constants().gadget[0].0.to_bytes(),
            P256::constants().gadget[0].0.to_bytes(),
        ];
        assert_ne!(k, p);
    }

    #[test]
    fn pads_are_reduced_as_integers() {
        let blocks = [u128::MAX, u128::MAX, 5];
        let two = k256::Scalar::from(2_u64);
        let all_ones = two.pow_vartime([256, 0, 0, 0]) - k256::Scalar::ONE;
        assert_eq!(Secp256k1::pad(&blocks[..2]), all_ones);
        let two = p256::Scalar::from(2_u64);
        let high = two.pow_vartime(&[384]) - two.pow_vartime(&[128]);
        assert_eq!(P256::pad(&blocks), high + p256::Scalar::from(5_u64));
    }
}
