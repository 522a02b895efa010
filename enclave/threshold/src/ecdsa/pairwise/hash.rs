//! The tweakable hash under all bulk work: seeds to columns, transfer rows to pads.
//!
//! `H(x, i) = π(π(x) + i) + π(x)` with `+` in GF(2)^128 and `π` AES-128 under a public key: TMMO of
//! Guo-Katz-Wang-Yu (ePrint 2019/074, section 7.4), tweakable circular correlation robust when `π` is an
//! ideal cipher. The key is a hash over fresh randomness and differs in each run, so that no work
//! done ahead, or on another run, helps.

use aes::Aes128;
use aes::cipher::{BlockEncrypt as _, KeyInit as _};
use zeroize::Zeroize as _;

/// Inputs hashed together: enough to keep the processor's AES units busy.
pub(super) const LANES: usize = 64;

/// The hash under one key, with its scratch memory.
pub(super) struct TweakableHash {
    cipher: Aes128,
    scratch: Vec<aes::Block>,
}

impl TweakableHash {
    /// `key`: 32 bytes of which the first half is used. `blocks`: the most that one call puts out.
    pub(super) fn new(key: &[u8; 32], blocks: usize) -> Self {
        // All of it now: growing would leave copies behind.
        Self {
            cipher: Aes128::new(&first_half(key).into()),
            scratch: Vec::with_capacity(blocks.max(LANES)),
        }
    }

    /// `π(x)` in place of each `x`: the part of the hash that does not depend on the tweak.
    pub(super) fn absorb(&mut self, inputs: &mut [u128]) {
        for inputs in inputs.chunks_mut(LANES) {
            self.scratch.clear();
            let blocks = inputs.iter().map(|x| block(*x));
            self.scratch.extend(blocks);
            self.cipher.encrypt_blocks(&mut self.scratch);
            for (input, output) in inputs.iter_mut().zip(&self.scratch) {
                *input = number(output);
            }
        }
    }

    /// For each absorbed input, in order, `blocks` blocks of output: under `tweak(input's index)`, then
    /// under that plus one, and so on. `output` holds `absorbed.len() * blocks` of them.
    pub(super) fn squeeze(
        &mut self,
        absorbed: &[u128],
        blocks: usize,
        tweak: impl Fn(usize) -> u128,
        output: &mut [u128],
    ) {
        self.scratch.clear();
        for (index, y) in absorbed.iter().enumerate() {
            let first = tweak(index);
            let tweaks = (0..blocks as u128).map(|number| first.wrapping_add(number));
            self.scratch.extend(tweaks.map(|tweak| block(y ^ tweak)));
        }
        self.cipher.encrypt_blocks(&mut self.scratch);
        let hashed = self.scratch.chunks_exact(blocks);
        for ((y, hashed), output) in absorbed
            .iter()
            .zip(hashed)
            .zip(output.chunks_exact_mut(blocks))
        {
            for (output, hashed) in output.iter_mut().zip(hashed) {
                *output = number(hashed) ^ y;
            }
        }
    }
}

impl Drop for TweakableHash {
    fn drop(&mut self) {
        // The scratch memory was cleared, not shrunk: erase all it ever held.
        self.scratch.resize(self.scratch.capacity(), block(0));
        for block in &mut self.scratch {
            block.zeroize();
        }
    }
}

/// A key of 16 bytes from a hash.
pub(super) fn first_half(hash: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    for (half, byte) in half.iter_mut().zip(hash) {
        *half = *byte;
    }
    half
}

fn block(number: u128) -> aes::Block {
    number.to_le_bytes().into()
}

fn number(block: &aes::Block) -> u128 {
    u128::from_le_bytes((*block).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_formula(
            key in any::<[u8; 32]>(),
            inputs in proptest::collection::vec(any::<u128>(), 1..100),
            blocks in 1_usize..5,
        ) {
            let tweak = |index: usize| (index as u128) << 9;
            let mut hash = TweakableHash::new(&key, 100 * 5);
            let mut absorbed = inputs.clone();
            hash.absorb(&mut absorbed);
            let mut output = vec![0; inputs.len() * blocks];
            hash.squeeze(&absorbed, blocks, tweak, &mut output);

            let cipher = Aes128::new(&first_half(&key).into());
            let permute = |x: u128| {
                let mut block = block(x);
                cipher.encrypt_block(&mut block);
                number(&block)
            };
            for (index, x) in inputs.iter().enumerate() {
                for offset in 0..blocks {
                    let i = tweak(index) + offset as u128;
                    let expected = permute(permute(*x) ^ i) ^ permute(*x);
                    prop_assert_eq!(output[index * blocks + offset], expected);
                }
            }
        }
    }

    #[test]
    fn the_permutation_is_aes_128() {
        // FIPS 197, appendix B.
        let mut key = [0; 32];
        key[..16].copy_from_slice(&0x2b7e151628aed2a6abf7158809cf4f3c_u128.to_be_bytes());
        let mut inputs = [0x3243f6a8885a308d313198a2e0370734_u128.swap_bytes()];
        TweakableHash::new(&key, 1).absorb(&mut inputs);
        assert_eq!(
            inputs,
            [0x3925841d02dc09fbdc118597196a0b32_u128.swap_bytes()]
        );
    }
}
