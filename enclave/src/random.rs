//! The enclave's random generator: the platform's entropy, hedged.
//!
//! Every generator that a session uses is seeded with HKDF-SHA-256 over fresh platform entropy, a secret that
//! was sealed when the party enrolled, this boot's id and a counter. A platform generator that is weak or
//! repeats itself after a snapshot does not by itself make two sessions share a nonce, as long as the sealed
//! secret is unknown and the counter moves on.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use aes::Aes256;
use arca_wipe::wiped;
use ctr::{
    Ctr128BE,
    cipher::{KeyIvInit, StreamCipher},
};
use hkdf::Hkdf;
use rand_core::{CryptoRng, RngCore};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    platform::{Platform, PlatformError},
    tags,
};

/// A generator of its own for one session or one key: the keystream of AES-256 in counter mode.
///
/// The cipher's key schedule is zeroised when it is dropped, and stays in one place however often this is moved.
/// Not `Clone`.
pub struct Generator(Box<Ctr128BE<Aes256>>);

impl Generator {
    /// The generator of this seed, which has to be used for nothing else.
    pub fn from_seed(seed: &Zeroizing<[u8; 32]>) -> Self {
        wiped(|| {
            let cipher = Ctr128BE::new((&**seed).into(), &[0; 16].into());
            Self(Box::new(cipher))
        })
    }
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Generator(redacted)")
    }
}

impl RngCore for Generator {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        out.fill(0);
        self.0.apply_keystream(out);
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

impl CryptoRng for Generator {}

/// Hands out independent generators.
pub struct Randomness {
    /// Input key material from this boot, replaced when the sealed hedge becomes known.
    pool: Mutex<Zeroizing<[u8; 32]>>,
    counter: AtomicU64,
}

impl Randomness {
    /// Starts from the platform's entropy alone.
    ///
    /// # Errors
    /// When the platform's generator fails.
    pub fn new(platform: &dyn Platform) -> Result<Self, PlatformError> {
        let mut pool = Zeroizing::new([0u8; 32]);
        platform.random(pool.as_mut())?;
        Ok(Self {
            pool: Mutex::new(pool),
            counter: AtomicU64::new(0),
        })
    }

    /// Mixes in the secret that the party sealed when it enrolled.
    pub fn hedge(&self, secret: &[u8; 32]) {
        let mut pool = self
            .pool
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        wiped(|| {
            let mut mixed = Zeroizing::new([0u8; 32]);
            expand(&pool[..], secret, tags::RANDOM_HEDGE, 0, &mut mixed);
            pool.copy_from_slice(&mixed[..]);
        });
    }

    /// A new generator, independent of every other.
    ///
    /// # Errors
    /// When the platform's generator fails; nothing is then done with less than its entropy.
    pub fn generator(&self, platform: &dyn Platform) -> Result<Generator, PlatformError> {
        wiped(|| self.seeded(platform))
    }

    fn seeded(&self, platform: &dyn Platform) -> Result<Generator, PlatformError> {
        let mut fresh = Zeroizing::new([0u8; 32]);
        platform.random(fresh.as_mut())?;
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let mut seed = Zeroizing::new([0u8; 32]);
        {
            let pool = self
                .pool
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            expand(&pool[..], &fresh[..], tags::RANDOM_SEED, count, &mut seed);
        }
        Ok(Generator::from_seed(&seed))
    }
}

fn expand(salt: &[u8], input: &[u8], tag: &str, count: u64, out: &mut Zeroizing<[u8; 32]>) {
    let hkdf = Hkdf::<Sha256>::new(Some(salt), input);
    hkdf.expand_multi_info(&[tag.as_bytes(), &count.to_be_bytes()], &mut out[..])
        .expect("32 bytes are within HKDF's limit of 255 blocks");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_platform::TestPlatform;

    fn first_bytes(randomness: &Randomness, platform: &dyn Platform) -> u64 {
        randomness.generator(platform).unwrap().next_u64()
    }

    #[test]
    fn a_stuck_platform_generator_gives_distinct_generators() {
        let platform = TestPlatform::with_stuck_random();
        let randomness = Randomness::new(&platform).unwrap();
        let one = first_bytes(&randomness, &platform);
        let two = first_bytes(&randomness, &platform);
        assert_ne!(one, two);
    }

    #[test]
    fn the_sealed_hedge_changes_what_follows() {
        let platform = TestPlatform::with_stuck_random();
        let plain = Randomness::new(&platform).unwrap();
        let hedged = Randomness::new(&platform).unwrap();
        hedged.hedge(&[7; 32]);
        assert_ne!(
            first_bytes(&plain, &platform),
            first_bytes(&hedged, &platform)
        );
    }
}
