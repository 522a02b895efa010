//! Base transfers: random 1-of-2 oblivious transfers from Diffie-Hellman in ristretto255.
//!
//! Masny-Rindal's endemic transfer (ePrint 2019/706, figure 8), with one sender's key for the whole
//! batch as in McQuoid-Rosulek-Roy (ePrint 2021/682): index, session and both sides' messages go into every hash, which is what that paper finds
//! missing where such batches broke.
//!
//! - The sender has `a` and sends `A = a G`.
//! - The receiver of bit `c` in transfer `i` takes a random `b` and a random group element `r[1-c]`, and
//!   sends `r[0], r[1]` with `r[c] = b G - H(i, c, r[1-c])`.
//! - Keys are hashes of `a (r[x] + H(i, x, r[1-x]))` for both `x`; the receiver knows `b A` for `x = c`.
//!
//! *Ideal functionality*: endemic random transfer. Honest parties get `k0, k1` and `c, k_c`; a corrupt
//! one can choose its own keys, and still a corrupt receiver does not know the other key, nor a
//! corrupt sender the bit. The bit is hidden perfectly: both `r` are uniform and the hash is a random
//! oracle. The other key is hidden under gap Diffie-Hellman: `H` fixes each of `r[x] + H(..)` after
//! one of the two `r`, so the receiver can choose one of the points and not the other.

use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoBasepointTable};
use curve25519_dalek::{RistrettoPoint, Scalar};
use rand_core::CryptoRngCore;
use sha2::{Digest as _, Sha512};
use subtle::{Choice, ConditionallySelectable as _};
use zeroize::{Zeroize as _, Zeroizing};

use crate::bytes::take;
use crate::tags;

use super::hash::first_half;

/// Number of transfers: the extension's computational security in bits.
pub(super) const TRANSFERS: usize = 128;
/// Bytes of the sender's message.
pub(super) const SENDER_BYTES: usize = 32;
/// Bytes of the receiver's message: two group elements each.
pub(super) const RECEIVER_BYTES: usize = TRANSFERS * 64;

/// A transfer's key.
pub(super) type Key = u128;

/// The sender, before the receiver's message.
pub(super) struct Sender {
    secret: Zeroizing<Scalar>,
    public: [u8; SENDER_BYTES],
}

impl Sender {
    /// Takes a key for one batch.
    pub(super) fn new(rng: &mut dyn CryptoRngCore) -> Self {
        let secret = Zeroizing::new(random_scalar(rng));
        let public = RistrettoPoint::mul_base(&secret).compress().to_bytes();
        Self { secret, public }
    }

    /// The message.
    pub(super) fn message(&self) -> &[u8; SENDER_BYTES] {
        &self.public
    }

    /// Both keys of each transfer; `None` when the receiver's message is not group elements. `session`
    /// is a digest over the sender's message and all else that the transfers are bound to.
    pub(super) fn keys(
        self,
        session: &[u8; 32],
        mut message: &[u8],
    ) -> Option<Zeroizing<Vec<[Key; 2]>>> {
        let mut products = Zeroizing::new(Vec::with_capacity(2 * TRANSFERS));
        let mut elements = Vec::with_capacity(TRANSFERS);
        for index in 0..TRANSFERS {
            let r = [*take::<32>(&mut message)?, *take::<32>(&mut message)?];
            let [r0, r1] = r;
            let p0 = CompressedRistretto(r0).decompress()? + hash_to_group(session, index, 0, &r1);
            let p1 = CompressedRistretto(r1).decompress()? + hash_to_group(session, index, 1, &r0);
            products.extend([*self.secret * p0, *self.secret * p1]);
            elements.push(r);
        }
        if !message.is_empty() {
            return None;
        }
        let encoded = encode_doubles(&products);
        let (pairs, _) = encoded.as_chunks::<2>();
        let keys = pairs.iter().zip(&elements).enumerate();
        let keys = keys.map(|(index, ([d0, d1], r))| {
            [key(session, index, 0, r, d0), key(session, index, 1, r, d1)]
        });
        Some(Zeroizing::new(keys.collect()))
    }
}

/// The receiver's part: the message, and the key of each transfer's chosen bit (bit `i` of `choices`).
/// `None` when the sender's message is no group element or the neutral one.
pub(super) fn receive(
    session: &[u8; 32],
    sender: &[u8; SENDER_BYTES],
    choices: u128,
    rng: &mut dyn CryptoRngCore,
) -> Option<(Vec<u8>, Zeroizing<Vec<Key>>)> {
    let public = CompressedRistretto(*sender).decompress()?;
    if public == RistrettoPoint::default() {
        return None;
    }
    let public = RistrettoBasepointTable::create(&public);
    let mut message = Vec::with_capacity(RECEIVER_BYTES);
    let mut products = Zeroizing::new(Vec::with_capacity(TRANSFERS));
    let mut elements = Vec::with_capacity(TRANSFERS);
    for index in 0..TRANSFERS {
        let bit = ((choices >> index) & 1) as u8;
        let secret = Zeroizing::new(random_scalar(rng));
        let mut wide = Zeroizing::new([0; 64]);
        rng.fill_bytes(&mut *wide);
        let free = RistrettoPoint::from_uniform_bytes(&wide)
            .compress()
            .to_bytes();
        let bound = RistrettoPoint::mul_base(&secret) - hash_to_group(session, index, bit, &free);
        let mut r = [bound.compress().to_bytes(), free];
        let [r0, r1] = &mut r;
        for (a, b) in r0.iter_mut().zip(r1) {
            u8::conditional_swap(a, b, Choice::from(bit));
        }
        message.extend_from_slice(r.as_flattened());
        elements.push((bit, r));
        products.push(&*secret * &public);
    }
    let encoded = encode_doubles(&products);
    let keys = encoded.iter().zip(&elements).enumerate();
    let keys = keys.map(|(index, (double, (bit, r)))| key(session, index, *bit, r, double));
    let keys = Zeroizing::new(keys.collect());
    elements.zeroize();
    Some((message, keys))
}

/// A uniform scalar.
fn random_scalar(rng: &mut dyn CryptoRngCore) -> Scalar {
    let mut wide = Zeroizing::new([0; 64]);
    rng.fill_bytes(&mut *wide);
    Scalar::from_bytes_mod_order_wide(&wide)
}

/// The encodings of twice the points: all at the price of one inversion, and as good under a hash.
fn encode_doubles(points: &[RistrettoPoint]) -> Zeroizing<Vec<[u8; 32]>> {
    let encoded = Zeroizing::new(RistrettoPoint::double_and_compress_batch(points));
    Zeroizing::new(encoded.iter().map(CompressedRistretto::to_bytes).collect())
}

/// `H(i, x, r)`. All parts have fixed lengths.
fn hash_to_group(session: &[u8; 32], index: usize, bit: u8, other: &[u8; 32]) -> RistrettoPoint {
    let hash = Sha512::new()
        .chain_update(tags::BASE_POINT)
        .chain_update(session)
        .chain_update((index as u64).to_be_bytes())
        .chain_update([bit])
        .chain_update(other);
    RistrettoPoint::from_hash(hash)
}

fn key(session: &[u8; 32], index: usize, bit: u8, r: &[[u8; 32]; 2], double: &[u8; 32]) -> Key {
    let index = (index as u64).to_be_bytes();
    let hash = Zeroizing::new(tags::hash(
        tags::BASE_KEY,
        &[session, &index, &[bit], r.as_flattened(), double],
    ));
    half(&hash)
}

/// The first half of a hash as a number.
pub(super) fn half(hash: &[u8; 32]) -> u128 {
    u128::from_le_bytes(first_half(hash))
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::{RngCore as _, SeedableRng as _};

    use super::*;

    const SESSION: [u8; 32] = [7; 32];

    fn run(
        choices: u128,
        tamper: impl FnOnce(&mut [u8; 32], &mut Vec<u8>),
    ) -> Option<(Vec<[Key; 2]>, Vec<Key>)> {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let sender = Sender::new(&mut rng);
        let mut first = *sender.message();
        let mut second = Vec::new();
        let (message, received) = receive(&SESSION, &first, choices, &mut rng)?;
        second.clone_from(&message);
        tamper(&mut first, &mut second);
        let sent = sender.keys(&SESSION, &second)?;
        Some((sent.to_vec(), received.to_vec()))
    }

    #[test]
    fn the_receiver_has_the_chosen_key_and_no_two_keys_are_equal() {
        let choices = 0xdead_beef_0123_4567_89ab_cdef_0f1e_2d3c;
        let (sent, received) = run(choices, |_, _| ()).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for (i, (pair, key)) in sent.iter().zip(&received).enumerate() {
            let bit = usize::from((choices >> i) & 1 == 1);
            assert_eq!(pair[bit], *key);
            assert!(seen.insert(pair[0]) && seen.insert(pair[1]));
        }
    }

    #[test]
    fn the_message_shows_nothing_of_the_bits() {
        // The same randomness with opposite bits: each transfer's elements differ, so no fixed place
        // of the message tells the bit.
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let sender = Sender::new(&mut rng);
        let message = |choices| {
            let mut rng = ChaCha20Rng::seed_from_u64(2);
            receive(&SESSION, sender.message(), choices, &mut rng)
                .unwrap()
                .0
        };
        let (zeros, ones) = (message(0), message(u128::MAX));
        for (zero, one) in zeros.chunks(64).zip(ones.chunks(64)) {
            // The free element changes its place; the bound one depends on the bit.
            assert_eq!(zero[32..], one[..32]);
            assert_ne!(zero[..32], one[32..]);
        }
    }

    #[test]
    fn keys_are_bound_to_session_and_index() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let sender = Sender::new(&mut rng);
        let (message, received) = receive(&SESSION, sender.message(), 0, &mut rng).unwrap();
        let sent = sender.keys(&[8; 32], &message).unwrap();
        for (pair, key) in sent.iter().zip(received.iter()) {
            assert!(!pair.contains(key));
        }

        let swapped = |message: &mut Vec<u8>| message.rotate_left(64);
        let (sent, received) = run(0, |_, message| swapped(message)).unwrap();
        for (pair, key) in sent.iter().zip(&received) {
            assert!(!pair.contains(key));
        }
    }

    #[test]
    fn every_input_of_the_hash_into_the_group_counts() {
        let hashes = [
            hash_to_group(&SESSION, 0, 0, &[1; 32]),
            hash_to_group(&[8; 32], 0, 0, &[1; 32]),
            hash_to_group(&SESSION, 1, 0, &[1; 32]),
            hash_to_group(&SESSION, 0, 1, &[1; 32]),
            hash_to_group(&SESSION, 0, 0, &[2; 32]),
        ];
        let encodings: std::collections::BTreeSet<_> =
            hashes.iter().map(|h| h.compress().to_bytes()).collect();
        assert_eq!(encodings.len(), hashes.len());
    }

    #[test]
    fn every_input_of_a_key_counts() {
        let r = [[1; 32], [2; 32]];
        let keys = [
            key(&SESSION, 0, 0, &r, &[3; 32]),
            key(&[8; 32], 0, 0, &r, &[3; 32]),
            key(&SESSION, 1, 0, &r, &[3; 32]),
            key(&SESSION, 0, 1, &r, &[3; 32]),
            key(&SESSION, 0, 0, &[[4; 32], [2; 32]], &[3; 32]),
            key(&SESSION, 0, 0, &[[1; 32], [4; 32]], &[3; 32]),
            key(&SESSION, 0, 0, &[[2; 32], [1; 32]], &[3; 32]),
            key(&SESSION, 0, 0, &r, &[4; 32]),
        ];
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
    }

    #[test]
    fn one_changed_byte_changes_both_keys_of_its_transfer() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        for _ in 0..20 {
            let at = (rng.next_u32() as usize) % RECEIVER_BYTES;
            let choices = 0x5555_5555_5555_5555_5555_5555_5555_5555;
            let flip = |_: &mut [u8; 32], message: &mut Vec<u8>| message[at] ^= 2;
            // Half of all encodings are no group element.
            let Some((sent, received)) = run(choices, flip) else {
                continue;
            };
            assert!(!sent[at / 64].contains(&received[at / 64]));
        }
    }

    #[test]
    fn what_is_no_group_element_is_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for sender in [[0; 32], [0xff; 32], [1; 32]] {
            assert!(receive(&SESSION, &sender, 0, &mut rng).is_none());
        }
        assert!(run(0, |_, message| message[..32].fill(0xff)).is_none());
        assert!(run(0, |_, message| message.truncate(RECEIVER_BYTES - 1)).is_none());
        assert!(run(0, |_, message| message.push(0)).is_none());
    }
}
