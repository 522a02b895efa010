//! All-but-one transfers from 1-of-2 transfers, by puncturable trees.
//!
//! SoftSpokenOT (ePrint 2022/192): the punctured tree of Goldreich, Goldwasser and Micali, and the paper's
//! check against a malicious sender. There are [`TREES`] trees of depth [`DEPTH`], each with
//! [`LEAVES`] leaves.
//!
//! - The sender knows all leaves of tree `i`, the receiver all but leaf number `Δ_i`. The first level's
//!   two nodes are the two keys of the tree's first transfer; on each further level the sender sends the
//!   sum of all left and the sum of all right children, each under one key of that level's transfer. The
//!   receiver, who knows all nodes but one per level, learns from the sum on the other side than
//!   `Δ_i`'s bit the missing node's sibling.
//! - *Check*: each leaf also stands for a 32-byte check value. The sender sends each tree's sum of them,
//!   and a digest of all. The receiver fills in the missing ones by the sums and compares. So a sender
//!   whose sums were wrong passes only where they do not matter for the receiver's `Δ`, which gives it a
//!   guess: `c` bits of `Δ` with probability `2^-c`, and the setup is gone otherwise.
//!
//! The receiver numbers everything relative to its secret path: its place `y` is number `y + Δ_i` of the
//! sender (bitwise), so the missing leaf is always at place 0, and no memory access depends on `Δ`.

use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use zeroize::Zeroizing;

use crate::bytes::take;
use crate::tags;

use super::base::{Key, TRANSFERS, half};

/// Levels of a tree: bits of `Δ` that it holds.
pub(super) const DEPTH: usize = 4;
/// Leaves of a tree.
pub(super) const LEAVES: usize = 1 << DEPTH;
/// Number of trees: together they hold all of `Δ`.
pub(super) const TREES: usize = TRANSFERS / DEPTH;

/// Two sums on each level but the first, and one check value.
const TREE_BYTES: usize = (DEPTH - 1) * 32 + CHECK_BYTES;
const CHECK_BYTES: usize = 32;
/// Bytes of the sender's message: each tree's part, then the digest.
pub(super) const MESSAGE_BYTES: usize = TREES * TREE_BYTES + 32;

/// What the sender has: each tree's leaves.
pub(super) struct AllSeeds(Zeroizing<Vec<u128>>);

/// What the receiver has: each tree's leaves by place, place 0 being unknown and zero.
pub(super) struct PuncturedSeeds {
    seeds: Zeroizing<Vec<u128>>,
    /// Behind a pointer, so that moving the setup copies no secret.
    delta: Box<Zeroizing<u128>>,
}

impl AllSeeds {
    /// Grows the trees from the base transfers' keys. `sender` separates the pair's two directions.
    pub(super) fn grow(session: &[u8; 32], keys: &[[Key; 2]]) -> (Self, Vec<u8>) {
        let mut seeds = Zeroizing::new(Vec::with_capacity(TREES * LEAVES));
        let mut message = Vec::with_capacity(MESSAGE_BYTES);
        let mut checks = Zeroizing::new(Vec::with_capacity(TREES * LEAVES));
        for (tree, keys) in keys.chunks_exact(DEPTH).enumerate() {
            let mut nodes = Zeroizing::new(Vec::with_capacity(LEAVES));
            let mut levels = keys.iter().enumerate();
            if let Some((_, first)) = levels.next() {
                nodes.extend(first);
            }
            for (level, keys) in levels {
                let mut children = Zeroizing::new(Vec::with_capacity(LEAVES));
                let mut sums = *keys;
                for node in nodes.iter() {
                    let pair = grow_node(session, tree, level, *node);
                    for (sum, child) in sums.iter_mut().zip(pair.iter()) {
                        *sum ^= child;
                    }
                    children.extend(*pair);
                }
                message.extend(sums.iter().flat_map(|sum| sum.to_le_bytes()));
                nodes = children;
            }
            let mut sum = Zeroizing::new([0; CHECK_BYTES]);
            for node in nodes.iter() {
                let leaf = Leaf::new(session, tree, *node);
                seeds.push(leaf.seed);
                add(&mut sum, &leaf.check);
                checks.push(leaf.check);
            }
            message.extend_from_slice(&*sum);
        }
        message.extend_from_slice(&digest(session, &checks));
        (Self(seeds), message)
    }

    /// [`LEAVES`] seeds for each tree.
    pub(super) fn seeds(&self) -> &[u128] {
        &self.0
    }
}

impl PuncturedSeeds {
    /// The choices to make in the base transfers for a given `Δ`: on each level the other side.
    pub(super) fn choices(delta: u128) -> u128 {
        !delta
    }

    /// Follows the trees from the chosen keys; `None` when the sender's message does not pass.
    ///
    /// Bit `i * DEPTH + l` of `delta` is the bit on level `l` of tree `i`.
    pub(super) fn follow(
        session: &[u8; 32],
        delta: u128,
        keys: &[Key],
        mut message: &[u8],
    ) -> Option<Self> {
        let mut seeds = Zeroizing::new(Vec::with_capacity(TREES * LEAVES));
        let mut checks = Zeroizing::new(Vec::with_capacity(TREES * LEAVES));
        for (tree, keys) in keys.chunks_exact(DEPTH).enumerate() {
            let bit = |level: usize| Choice::from(((delta >> (tree * DEPTH + level)) & 1) as u8);
            let mut levels = keys.iter().enumerate();
            // The missing node at place 0, its sibling at place 1.
            let mut nodes = Zeroizing::new(Vec::with_capacity(LEAVES));
            if let Some((_, key)) = levels.next() {
                nodes.extend([0, *key]);
            }
            for (level, key) in levels {
                let sums = [take_number(&mut message)?, take_number(&mut message)?];
                // The sum on the other side than Δ's bit, which is the side at odd places.
                let mut sibling = key ^ u128::conditional_select(&sums[1], &sums[0], bit(level));
                let mut children = Zeroizing::new(Vec::with_capacity(LEAVES));
                children.extend([0, 0]);
                for node in nodes.iter().skip(1) {
                    let mut pair = grow_node(session, tree, level, *node);
                    let [even, odd] = &mut *pair;
                    u128::conditional_swap(even, odd, bit(level));
                    sibling ^= *odd;
                    children.extend(*pair);
                }
                if let Some(place) = children.get_mut(1) {
                    *place = sibling;
                }
                nodes = children;
            }

            let mut missing = Zeroizing::new(*take::<CHECK_BYTES>(&mut message)?);
            let mut values = Zeroizing::new(vec![[0; CHECK_BYTES]; LEAVES]);
            seeds.push(0);
            for (node, value) in nodes.iter().zip(values.iter_mut()).skip(1) {
                let leaf = Leaf::new(session, tree, *node);
                seeds.push(leaf.seed);
                add(&mut missing, &leaf.check);
                *value = leaf.check;
            }
            if let Some(first) = values.first_mut() {
                *first = *missing;
            }
            // From places to the sender's numbers. The first level is the highest bit of both.
            for level in 0..DEPTH {
                swap_places(&mut values, LEAVES >> (level + 1), bit(level));
            }
            checks.extend_from_slice(&values);
        }
        let claimed = take::<32>(&mut message)?;
        let fits = digest(session, &checks).ct_eq(claimed);
        (message.is_empty() && bool::from(fits)).then(|| Self {
            seeds,
            delta: Box::new(Zeroizing::new(delta)),
        })
    }

    /// [`LEAVES`] seeds for each tree, the first of each unknown and zero.
    pub(super) fn seeds(&self) -> &[u128] {
        &self.seeds
    }

    /// `Δ`, so that column `i * DEPTH + b` of the extension has bit number `i * DEPTH + b`: there the
    /// bits of a leaf's number count from the lowest.
    pub(super) fn delta(&self) -> u128 {
        let mut delta = 0;
        for tree in 0..TREES {
            for level in 0..DEPTH {
                let bit = (**self.delta >> (tree * DEPTH + level)) & 1;
                delta |= bit << (tree * DEPTH + DEPTH - 1 - level);
            }
        }
        delta
    }
}

/// Swaps the values whose places differ in this one bit.
fn swap_places(values: &mut [[u8; CHECK_BYTES]], bit: usize, swap: Choice) {
    for block in values.chunks_exact_mut(2 * bit) {
        let (low, high) = block.split_at_mut(bit);
        for (a, b) in low
            .as_flattened_mut()
            .iter_mut()
            .zip(high.as_flattened_mut())
        {
            u8::conditional_swap(a, b, swap);
        }
    }
}

struct Leaf {
    seed: u128,
    check: [u8; CHECK_BYTES],
}

impl Leaf {
    fn new(session: &[u8; 32], tree: usize, node: u128) -> Self {
        let parts = |tag| {
            let tree = (tree as u64).to_be_bytes();
            tags::hash(tag, &[session, &tree, &node.to_le_bytes()])
        };
        Self {
            seed: half(&parts(tags::TREE_LEAF)),
            check: parts(tags::TREE_CHECK),
        }
    }
}

/// A node's two children.
fn grow_node(session: &[u8; 32], tree: usize, level: usize, node: u128) -> Zeroizing<[u128; 2]> {
    let place = [(tree as u64).to_be_bytes(), (level as u64).to_be_bytes()];
    let parts = [
        session.as_slice(),
        place.as_flattened(),
        &node.to_le_bytes(),
    ];
    let hash = Zeroizing::new(tags::hash(tags::TREE_NODE, &parts));
    let (halves, _) = hash.as_chunks::<16>();
    let mut children = Zeroizing::new([0; 2]);
    for (child, half) in children.iter_mut().zip(halves) {
        *child = u128::from_le_bytes(*half);
    }
    children
}

fn digest(session: &[u8; 32], checks: &[[u8; CHECK_BYTES]]) -> [u8; 32] {
    tags::hash(tags::TREE_DIGEST, &[session, checks.as_flattened()])
}

fn add(sum: &mut [u8; CHECK_BYTES], value: &[u8; CHECK_BYTES]) {
    for (sum, value) in sum.iter_mut().zip(value) {
        *sum ^= value;
    }
}

fn take_number(bytes: &mut &[u8]) -> Option<u128> {
    take::<16>(bytes).map(|number| u128::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SESSION: [u8; 32] = [5; 32];

    /// What an ideal base transfer would give.
    fn transfer(keys: &[[Key; 2]], delta: u128) -> Vec<Key> {
        let choices = PuncturedSeeds::choices(delta);
        let chosen = keys.iter().enumerate();
        chosen
            .map(|(i, pair)| pair[usize::from((choices >> i) & 1 == 1)])
            .collect()
    }

    fn keys() -> impl Strategy<Value = Vec<[Key; 2]>> {
        proptest::collection::vec(any::<[u128; 2]>(), TRANSFERS)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn the_receiver_has_all_leaves_but_its_own(keys in keys(), delta in any::<u128>()) {
            let (all, message) = AllSeeds::grow(&SESSION, &keys);
            prop_assert_eq!(message.len(), MESSAGE_BYTES);
            let chosen = transfer(&keys, delta);
            let punctured = PuncturedSeeds::follow(&SESSION, delta, &chosen, &message).unwrap();
            prop_assert_eq!(all.seeds().len(), TREES * LEAVES);
            prop_assert_eq!(punctured.seeds().len(), TREES * LEAVES);
            let delta = punctured.delta();
            for tree in 0..TREES {
                let missing = (delta >> (tree * DEPTH)) as usize % LEAVES;
                prop_assert_eq!(punctured.seeds()[tree * LEAVES], 0);
                for place in 1..LEAVES {
                    let number = place ^ missing;
                    prop_assert_eq!(
                        punctured.seeds()[tree * LEAVES + place],
                        all.seeds()[tree * LEAVES + number]
                    );
                }
            }
        }

        /// A sender that cheats gets away with it only where the receiver's leaves stay right.
        #[test]
        fn a_changed_message_is_refused_or_changes_nothing(
            keys in keys(),
            delta in any::<u128>(),
            at in 0..MESSAGE_BYTES,
            change in 1_u8..,
        ) {
            let (_, mut message) = AllSeeds::grow(&SESSION, &keys);
            let chosen = transfer(&keys, delta);
            let honest = PuncturedSeeds::follow(&SESSION, delta, &chosen, &message).unwrap();
            message[at] ^= change;
            let used = at >= MESSAGE_BYTES - 32 || at % TREE_BYTES >= TREE_BYTES - CHECK_BYTES;
            match PuncturedSeeds::follow(&SESSION, delta, &chosen, &message) {
                None => (),
                Some(followed) => {
                    prop_assert!(!used);
                    prop_assert_eq!(followed.seeds(), honest.seeds());
                }
            }
        }
    }

    #[test]
    fn a_wrong_sum_is_a_guess_of_one_bit() {
        let keys: Vec<[Key; 2]> = (0..128).map(|i| [2 * i, 2 * i + 1]).collect();
        for side in [0, 1] {
            let (_, mut message) = AllSeeds::grow(&SESSION, &keys);
            // Second level of the first tree.
            message[16 * side] ^= 1;
            for bit in [0, 1] {
                let delta = bit << 1;
                let chosen = transfer(&keys, delta);
                let followed = PuncturedSeeds::follow(&SESSION, delta, &chosen, &message);
                // The receiver uses the sum on the other side.
                assert_eq!(followed.is_none(), side != bit as usize);
            }
        }
    }

    #[test]
    fn wrong_keys_and_lengths_are_refused() {
        let keys: Vec<[Key; 2]> = (0..128).map(|i| [2 * i, 2 * i + 1]).collect();
        let (_, message) = AllSeeds::grow(&SESSION, &keys);
        let chosen = transfer(&keys, 0);
        let follow = |keys: &[Key], session, message: &[u8]| {
            PuncturedSeeds::follow(session, 0, keys, message).is_some()
        };
        assert!(follow(&chosen, &SESSION, &message));
        assert!(!follow(&chosen, &[6; 32], &message));
        for i in 0..TRANSFERS {
            let mut wrong = chosen.clone();
            wrong[i] ^= 1 << 77;
            assert!(!follow(&wrong, &SESSION, &message));
        }
        let longer = [message.as_slice(), &[0]].concat();
        for message in [&[], &message[1..], &message[..message.len() - 1], &longer] {
            assert!(!follow(&chosen, &SESSION, message));
        }
    }
}
