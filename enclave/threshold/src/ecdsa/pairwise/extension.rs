//! Correlated transfers from the trees' seeds: the extension.
//!
//! SoftSpokenOT (ePrint 2022/192): small-field VOLE from all-but-one transfers (figure 7), one field
//! element per tree joined by the repetition code to one VOLE over 128 bits (figure 8), and its
//! consistency check by a linear universal hash. Receiver and sender are those of the transfers, which
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
