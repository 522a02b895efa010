//! Locks by name, a fixed number of them.

use tokio::sync::{Mutex, MutexGuard};

const STRIPES: usize = 64;

/// Those who work on one name wait for each other, and now and then for those on another.
pub struct Stripes([Mutex<()>; STRIPES]);

impl Default for Stripes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }
}

impl Stripes {
    /// Waits until nobody else works on `name`.
    #[allow(
        clippy::indexing_slicing,
        reason = "the index is reduced modulo the length"
    )]
    pub async fn lock(&self, name: &str) -> MutexGuard<'_, ()> {
        let hash = name.bytes().fold(0usize, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(usize::from(byte))
        });
        self.0[hash % STRIPES].lock().await
    }
}
