//! Correlated transfers from the trees' seeds: the extension.
//!
//! SoftSpokenOT (ePrint 2022/192): small-field VOLE from all-but-one transfers (figure 7), one field
//! element per tree joined by the repetition code to one VOLE over 128 bits, and its consistency check by a linear universal hash. Receiver and sender are those of the transfers, which
//! the paper's VOLE calls by the opposite names.
//!
//! - For tree `i` with leaves expanded to bit columns `r_0, r_1, ..`, the receiver has the sum `u_i` of
//!   all and, for each bit `b` of a leaf's number, the sum `t` of those leaves that have it. It sends
//!   `u_i + x`, where `x` are its choice bits. The sender, numbering leaves relative to its `Δ_i`, has
//!   `t + Δ_i u_i`, and adds `Δ_i (u_i + x)`.
//! - *Ideal functionality*: correlated transfer with a global key: `q_j = t_j + x_j Δ` for each row `j`. A
//!   corrupt receiver can guess bits of `Δ`; a wrong guess aborts.
//! - *Check*: a corrupt receiver can use different `x` for different trees. Both sides hash all columns
//!   with one linear hash to 128 bits, by a key that follows from the receiver's message; the receiver
//!   sends the hash of `x` and a digest of the hashes of `t`. A last block of random rows, which enters
//!   every hash as it is, hides the rest.

use polyval::Polyval;
use polyval::universal_hash::{KeyInit as _, UniversalHash as _};
use rand_core::CryptoRngCore;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::bytes::{take, take_slice};
use crate::{AbortReason, tags};

use super::hash::{TweakableHash, first_half};
use super::transpose::transpose;
use super::tree::{AllSeeds, DEPTH, LEAVES, PuncturedSeeds, TREES};

/// Rows of one block: as many as columns.
pub(super) const ROWS: usize = 128;
/// Blocks of a tree's columns that are expanded at once.
const CHUNK: usize = 16;
const NONCE_BYTES: usize = 32;

/// Bytes of the receiver's message for so many blocks of rows.
pub(super) const fn message_bytes(blocks: usize) -> usize {
    NONCE_BYTES + (blocks + 1) * TREES * 16 + 16 + 32
}

/// What the receiver has.
pub(super) struct Receiver {
    /// `x`: bit `j` of block `k` is row `128 k + j`'s.
    pub(super) choices: Zeroizing<Vec<u128>>,
    /// `t`, one number a row.
    pub(super) rows: Zeroizing<Vec<u128>>,
    /// Digest of the message and what it is bound to.
    pub(super) transcript: [u8; 32],
}

/// What the sender has.
pub(super) struct Sender {
    /// `Δ`.
    pub(super) delta: Zeroizing<u128>,
    /// `q`, one number a row.
    pub(super) rows: Zeroizing<Vec<u128>>,
    /// Digest of the message and what it is bound to.
    pub(super) transcript: [u8; 32],
}

/// The receiver's part, with random choices: what it has, and its message. `context` is the digest of
/// everything that both sides know of this run.
pub(super) fn receive(
    seeds: &AllSeeds,
    context: &[u8; 32],
    blocks: usize,
    rng: &mut dyn CryptoRngCore,
) -> (Receiver, Vec<u8>) {
    let mut nonce = [0; NONCE_BYTES];
    rng.fill_bytes(&mut nonce);
    let root = tags::hash(tags::EXTENSION, &[context, &nonce]);
    let all = blocks + 1;
    let mut choices = Zeroizing::new(vec![0; all]);
    for choice in choices.iter_mut() {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        *choice = u128::from_le_bytes(bytes);
        bytes.zeroize();
    }

    let mut rows = Zeroizing::new(vec![0; all * ROWS]);
    let mut sums = Zeroizing::new(vec![0; all * TREES]);
    expand(seeds.seeds(), &root, all, |block, tree, sum, bits| {
        if let Some(sums) = sums.get_mut(block * TREES + tree) {
            *sums = sum;
        }
        place(&mut rows, block, tree, bits);
    });

    let mut message = Vec::with_capacity(message_bytes(blocks));
    message.extend_from_slice(&nonce);
    for (sums, choice) in sums.chunks_exact(TREES).zip(choices.iter()) {
        message.extend(sums.iter().flat_map(|sum| (sum ^ choice).to_le_bytes()));
    }
    let corrections = message.get(NONCE_BYTES..).unwrap_or_default();
    let challenge = tags::hash(tags::EXTENSION_CHALLENGE, &[&root, corrections]);
    let check = Check::new(&challenge, blocks);
    let choices_hash = check.column(choices.iter().copied());
    let digest = check.digest(&challenge, &rows, |_| 0);
    message.extend_from_slice(&choices_hash.to_le_bytes());
    message.extend_from_slice(&digest);

    choices.truncate(blocks);
    transpose_all(&mut rows, blocks);
    let receiver = Receiver {
        choices,
        rows,
        transcript: transcript(&challenge, choices_hash, &digest),
    };
    (receiver, message)
}

/// The sender's part.
///
/// # Errors
///
/// [`AbortReason::Malformed`] for a message of another length; [`AbortReason::ConsistencyCheck`].
pub(super) fn send(
    seeds: &PuncturedSeeds,
    context: &[u8; 32],
    blocks: usize,
    message: &[u8],
) -> Result<Sender, AbortReason> {
    let all = blocks + 1;
    let (nonce, corrections, choices_hash, claimed) =
        parse(message, all).ok_or(AbortReason::Malformed)?;
    let root = tags::hash(tags::EXTENSION, &[context, nonce]);

    let delta = Zeroizing::new(seeds.delta());
    let mask = |column: usize| ((*delta >> column) & 1).wrapping_neg();
    let mut rows = Zeroizing::new(vec![0; all * ROWS]);
    let (numbers, _) = corrections.as_chunks::<16>();
    expand(seeds.seeds(), &root, all, |block, tree, _, mut bits| {
        let correction = numbers.get(block * TREES + tree);
        let correction = correction.map_or(0, |number| u128::from_le_bytes(*number));
        for (bit, sum) in bits.iter_mut().enumerate() {
            *sum ^= correction & mask(tree * DEPTH + bit);
        }
        place(&mut rows, block, tree, bits);
    });

    let challenge = tags::hash(tags::EXTENSION_CHALLENGE, &[&root, corrections]);
    let check = Check::new(&challenge, blocks);
    let digest = check.digest(&challenge, &rows, |column| choices_hash & mask(column));
    if !bool::from(digest.ct_eq(claimed)) {
        return Err(AbortReason::ConsistencyCheck);
    }
    transpose_all(&mut rows, blocks);
    Ok(Sender {
        delta,
        rows,
        transcript: transcript(&challenge, choices_hash, &digest),
    })
}

type Message<'a> = (&'a [u8; NONCE_BYTES], &'a [u8], u128, &'a [u8; 32]);

/// Nonce, corrections, hash of the choices, digest of the columns' hashes.
fn parse(mut message: &[u8], blocks: usize) -> Option<Message<'_>> {
    let nonce = take::<NONCE_BYTES>(&mut message)?;
    let corrections = take_slice(&mut message, blocks * TREES * 16)?;
    let choices_hash = u128::from_le_bytes(*take::<16>(&mut message)?);
    let digest = take::<32>(&mut message)?;
    message
        .is_empty()
        .then_some((nonce, corrections, choices_hash, digest))
}

fn transcript(challenge: &[u8; 32], choices_hash: u128, digest: &[u8; 32]) -> [u8; 32] {
    let choices_hash = choices_hash.to_le_bytes();
    tags::hash(tags::EXTENSION_MESSAGE, &[challenge, &choices_hash, digest])
}

/// Expands each tree's seeds to `blocks` blocks and hands on, for each block and tree, the sum over all
/// leaves and, for each bit of a leaf's place, the sum over those that have it.
fn expand(
    seeds: &[u128],
    root: &[u8; 32],
    blocks: usize,
    mut each: impl FnMut(usize, usize, u128, [u128; DEPTH]),
) {
    let key = tags::hash(tags::EXTENSION_EXPAND, &[root]);
    let mut hash = TweakableHash::new(&key, LEAVES * CHUNK);
    let mut absorbed = Zeroizing::new(seeds.to_vec());
    hash.absorb(&mut absorbed);
    let mut output = Zeroizing::new([0; LEAVES * CHUNK]);
    for (tree, absorbed) in absorbed.chunks_exact(LEAVES).enumerate() {
        for first in (0..blocks).step_by(CHUNK) {
            let count = CHUNK.min(blocks - first);
            let output = output.get_mut(..LEAVES * count).unwrap_or_default();
            let tweak = |_| ((tree as u128) << 64) | first as u128;
            hash.squeeze(absorbed, count, tweak, output);
            for offset in 0..count {
                let (sum, bits) = fold(output, count, offset);
                each(first + offset, tree, sum, bits);
            }
        }
    }
}

/// Adds up one block of all leaves. Place 0 adds to no bit's sum, so whoever does not know it has the
/// bits' sums all the same.
#[expect(clippy::indexing_slicing, reason = "indices follow from the loops")]
fn fold(leaves: &[u128], stride: usize, offset: usize) -> (u128, [u128; DEPTH]) {
    let mut sums = [0; LEAVES];
    for (place, sum) in sums.iter_mut().enumerate() {
        *sum = leaves[place * stride + offset];
    }
    let mut bits = [0; DEPTH];
    let mut width = LEAVES;
    for bit in &mut bits {
        width /= 2;
        for pair in 0..width {
            let odd = sums[2 * pair + 1];
            *bit ^= odd;
            sums[pair] = sums[2 * pair] ^ odd;
        }
    }
    (sums[0], bits)
}

fn place(rows: &mut [u128], block: usize, tree: usize, bits: [u128; DEPTH]) {
    let start = block * ROWS + tree * DEPTH;
    if let Some(columns) = rows.get_mut(start..start + DEPTH) {
        columns.copy_from_slice(&bits);
    }
}

/// From columns to rows, without the last block.
fn transpose_all(rows: &mut Zeroizing<Vec<u128>>, blocks: usize) {
    if let Some(last) = rows.get_mut(blocks * ROWS..) {
        last.zeroize();
    }
    rows.truncate(blocks * ROWS);
    let (blocks, _) = rows.as_chunks_mut::<ROWS>();
    for block in blocks {
        transpose(block);
    }
}

/// The linear hash of the check: POLYVAL (RFC 8452, section 3) over all blocks of a column but the
/// last, plus the last.
///
/// Two different columns of `m` blocks collide for at most `m` of 2^128 keys.
struct Check {
    hash: Polyval,
    blocks: usize,
}

impl Check {
    fn new(challenge: &[u8; 32], blocks: usize) -> Self {
        Self {
            hash: Polyval::new(&first_half(challenge).into()),
            blocks,
        }
    }

    fn column(&self, column: impl Iterator<Item = u128>) -> u128 {
        let mut hash = self.hash.clone();
        let mut last = 0;
        for (index, block) in column.enumerate() {
            if index < self.blocks {
                hash.update(&[block.to_le_bytes().into()]);
            } else {
                last = block;
            }
        }
        u128::from_le_bytes(hash.finalize().into()) ^ last
    }

    /// Digest of all columns' hashes, to each of which something may be added.
    fn digest(
        &self,
        challenge: &[u8; 32],
        columns: &[u128],
        add: impl Fn(usize) -> u128,
    ) -> [u8; 32] {
        let mut hashes = Zeroizing::new([[0; 16]; ROWS]);
        for (index, hash) in hashes.iter_mut().enumerate() {
            let column = columns.iter().skip(index).step_by(ROWS);
            *hash = (self.column(column.copied()) ^ add(index)).to_le_bytes();
        }
        tags::hash(tags::EXTENSION_CHECK, &[challenge, hashes.as_flattened()])
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::{RngCore as _, SeedableRng as _};

    use super::*;
    use crate::ecdsa::pairwise::base::TRANSFERS;

    const CONTEXT: [u8; 32] = [9; 32];

    fn seeds(rng: &mut ChaCha20Rng) -> (AllSeeds, PuncturedSeeds) {
        let mut number = || {
            let mut bytes = [0; 16];
            rng.fill_bytes(&mut bytes);
            u128::from_le_bytes(bytes)
        };
        let delta = number();
        let keys: Vec<[u128; 2]> = (0..TRANSFERS).map(|_| [number(), number()]).collect();
        let choices = PuncturedSeeds::choices(delta);
        let chosen = keys.iter().enumerate();
        let chosen: Vec<u128> = chosen
            .map(|(i, pair)| pair[usize::from((choices >> i) & 1 == 1)])
            .collect();
        let (all, message) = AllSeeds::grow(&[0; 32], &keys);
        let punctured = PuncturedSeeds::follow(&[0; 32], delta, &chosen, &message).unwrap();
        (all, punctured)
    }

    fn check_relation(receiver: &Receiver, sender: &Sender, blocks: usize) {
        assert_eq!(receiver.rows.len(), blocks * ROWS);
        assert_eq!(sender.rows.len(), blocks * ROWS);
        assert_eq!(receiver.choices.len(), blocks);
        for (j, (q, t)) in sender.rows.iter().zip(receiver.rows.iter()).enumerate() {
            let x = (receiver.choices[j / ROWS] >> (j % ROWS)) & 1;
            assert_eq!(*q, t ^ (x * *sender.delta));
        }
        assert_eq!(receiver.transcript, sender.transcript);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn rows_are_correlated(seed in any::<u64>(), blocks in 1_usize..40) {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let (all, punctured) = seeds(&mut rng);
            let (receiver, message) = receive(&all, &CONTEXT, blocks, &mut rng);
            prop_assert_eq!(message.len(), message_bytes(blocks));
            let sender = send(&punctured, &CONTEXT, blocks, &message).unwrap();
            check_relation(&receiver, &sender, blocks);
        }

        #[test]
        fn any_change_on_the_way_aborts(
            seed in any::<u64>(),
            at in 0..message_bytes(4),
            change in 1_u8..,
        ) {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let (all, punctured) = seeds(&mut rng);
            let (_, mut message) = receive(&all, &CONTEXT, 4, &mut rng);
            message[at] ^= change;
            let sent = send(&punctured, &CONTEXT, 4, &message);
            prop_assert_eq!(sent.err(), Some(AbortReason::ConsistencyCheck));
        }
    }

    /// The message of a receiver that uses another choice in one tree, and answers the check as if it knew
    /// the sender's `Δ` there.
    pub(in crate::ecdsa::pairwise) fn guessing_message(
        all: &AllSeeds,
        context: &[u8; 32],
        blocks: usize,
        (tree, guess): (usize, u128),
        rng: &mut ChaCha20Rng,
    ) -> Vec<u8> {
        // Its own honest run, from which it makes the dishonest message.
        let (_, mut message) = receive(all, context, blocks, rng);
        let flip = 1_u8 << 5;
        let at = NONCE_BYTES + (TREES + tree) * 16;
        message[at] ^= flip;

        let end = NONCE_BYTES + (blocks + 1) * TREES * 16;
        let root = tags::hash(tags::EXTENSION, &[context, &message[..NONCE_BYTES]]);
        let parts: [&[u8]; 2] = [&root, &message[NONCE_BYTES..end]];
        let challenge = tags::hash(tags::EXTENSION_CHALLENGE, &parts);
        let check = Check::new(&challenge, blocks);
        let mut columns = vec![0; (blocks + 1) * ROWS];
        let mut sums = vec![0; (blocks + 1) * TREES];
        expand(all.seeds(), &root, blocks + 1, |block, tree, sum, bits| {
            sums[block * TREES + tree] = sum;
            place(&mut columns, block, tree, bits);
        });
        // The choices, as a tree that is not changed has them.
        let honest = usize::from(tree == 0);
        let choices = (0..=blocks).map(|block| {
            let at = NONCE_BYTES + (block * TREES + honest) * 16;
            let sent = u128::from_le_bytes(message[at..at + 16].try_into().unwrap());
            sent ^ sums[block * TREES + honest]
        });
        let choices_hash = check.column(choices);
        let mut error = vec![0; blocks + 1];
        error[1] = u128::from(flip);
        let error = check.column(error.into_iter());
        let digest = check.digest(&challenge, &columns, |column| {
            let guessed = column / DEPTH == tree && (guess >> (column % DEPTH)) & 1 == 1;
            if guessed { error } else { 0 }
        });
        message[end..end + 16].copy_from_slice(&choices_hash.to_le_bytes());
        message[end + 16..].copy_from_slice(&digest);
        message
    }

    /// It passes when the guess is right and not otherwise.
    #[test]
    fn another_choice_in_one_tree_is_a_guess_of_its_part_of_delta() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let (all, punctured) = seeds(&mut rng);
        for tree in [0, 11, 31] {
            let part = (punctured.delta() >> (tree * DEPTH)) % LEAVES as u128;
            let passes = |guess: &u128| {
                let message = guessing_message(&all, &CONTEXT, 3, (tree, *guess), &mut rng);
                send(&punctured, &CONTEXT, 3, &message).is_ok()
            };
            let passed: Vec<u128> = (0..LEAVES as u128).filter(passes).collect();
            assert_eq!(passed, [part]);
        }
    }

    #[test]
    fn messages_of_other_runs_and_lengths_are_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let (all, punctured) = seeds(&mut rng);
        let (_, message) = receive(&all, &CONTEXT, 4, &mut rng);
        let send =
            |context, blocks, message: &[u8]| send(&punctured, context, blocks, message).err();
        assert_eq!(send(&CONTEXT, 4, &message), None);
        assert_eq!(
            send(&[8; 32], 4, &message),
            Some(AbortReason::ConsistencyCheck)
        );
        assert_eq!(send(&CONTEXT, 5, &message), Some(AbortReason::Malformed));
        assert_eq!(send(&CONTEXT, 4, &[]), Some(AbortReason::Malformed));
        let longer = [message.as_slice(), &[0]].concat();
        assert_eq!(send(&CONTEXT, 4, &longer), Some(AbortReason::Malformed));
        let (other, _) = seeds(&mut rng);
        let (_, message) = receive(&other, &CONTEXT, 4, &mut rng);
        assert_eq!(
            send(&CONTEXT, 4, &message),
            Some(AbortReason::ConsistencyCheck)
        );
    }

    /// What is sent of the choices is hidden by a last block that is used for nothing else.
    #[test]
    fn the_hash_of_the_choices_is_hidden() {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let (all, _) = seeds(&mut rng);
        let mut masks = std::collections::BTreeSet::from([0]);
        for _ in 0..3 {
            let (receiver, message) = receive(&all, &CONTEXT, 3, &mut rng);
            let (nonce, corrections, hash, _) = parse(&message, 4).unwrap();
            let root = tags::hash(tags::EXTENSION, &[&CONTEXT, nonce]);
            let challenge = tags::hash(tags::EXTENSION_CHALLENGE, &[&root, corrections]);
            let check = Check::new(&challenge, 3);
            let choices = receiver.choices.iter().copied().chain([0]);
            masks.insert(hash ^ check.column(choices));
        }
        assert_eq!(masks.len(), 4);
    }

    #[test]
    fn all_of_the_message_is_in_the_transcript() {
        let transcripts = [
            transcript(&[1; 32], 2, &[3; 32]),
            transcript(&[4; 32], 2, &[3; 32]),
            transcript(&[1; 32], 4, &[3; 32]),
            transcript(&[1; 32], 2, &[4; 32]),
        ];
        let different: std::collections::BTreeSet<_> = transcripts.iter().collect();
        assert_eq!(different.len(), transcripts.len());
    }

    #[test]
    fn two_runs_under_one_context_share_nothing() {
        let mut rng = ChaCha20Rng::seed_from_u64(6);
        let (all, punctured) = seeds(&mut rng);
        let (_, one) = receive(&all, &CONTEXT, 2, &mut rng);
        let (_, two) = receive(&all, &CONTEXT, 2, &mut rng);
        let rows = |message: &[u8]| {
            send(&punctured, &CONTEXT, 2, message)
                .unwrap()
                .rows
                .to_vec()
        };
        let (one, two) = (rows(&one), rows(&two));
        // Were the columns the same, rows would differ by 0 or Δ.
        let differences: std::collections::BTreeSet<u128> =
            one.iter().zip(&two).map(|(a, b)| a ^ b).collect();
        assert_eq!(differences.len(), one.len());
    }

    proptest! {
        #[test]
        fn the_hash_is_linear_and_the_last_block_enters_as_it_is(
            challenge in any::<[u8; 32]>(),
            a in proptest::collection::vec(any::<u128>(), 6),
            b in proptest::collection::vec(any::<u128>(), 6),
        ) {
            let check = Check::new(&challenge, 5);
            let hash = |column: &[u128]| check.column(column.iter().copied());
            let sum: Vec<u128> = a.iter().zip(&b).map(|(a, b)| a ^ b).collect();
            prop_assert_eq!(hash(&sum), hash(&a) ^ hash(&b));
            prop_assert_eq!(hash(&[0, 0, 0, 0, 0, a[5]]), a[5]);
        }
    }
}
