//! Leaves nothing of a computation on the stack.
//!
//! A type that erases itself when dropped does so where it is at that moment. Where it was moved from, and what the
//! arithmetic on it put down on the way, stays below the end of the stack until something else happens to be written
//! there. No library can prevent that from inside. The caller can: when the computation is over, its frames are dead,
//! and whatever is called next may overwrite them.

#![forbid(unsafe_code)]

use std::hint::black_box;

/// More than the deepest computation on secrets takes, unoptimised too; a fraction of any thread's stack.
const DEPTH: usize = 128 * 1024;

/// Computes, then overwrites the stack that the computation used.
///
/// # Security
/// The result is handed out through the caller's frames, which are not overwritten: let it hold secrets behind a
/// pointer only (`Box`, `Vec`, `Arc`). The same goes for what `work` captures by value.
#[inline(never)]
pub fn wiped<T>(work: impl FnOnce() -> T) -> T {
    // On a panic as well: a thread of a pool lives on.
    let _after = Wipe;
    apart(work)
}

/// In a frame below that of [`wiped`].
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

struct Wipe;

impl Drop for Wipe {
    fn drop(&mut self) {
        wipe();
    }
}

/// Overwrites the stack below the caller's frame.
#[inline(never)]
pub fn wipe() {
    // To the compiler something reads these zeros, so they have to be written.
    black_box(&mut [0_u8; DEPTH]);
}
