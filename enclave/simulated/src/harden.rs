//! What the process asks of the kernel to keep its memory to itself.

use nix::sys::{
    mman::{MlockAllFlags, mlockall},
    prctl,
    resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
};

/// Turns off core dumps and debuggers, and locks memory where that is allowed. What is refused is reported.
pub fn harden() {
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::warn!(%error, "core dumps could not be turned off");
    }
    if let Err(error) = prctl::set_dumpable(false) {
        tracing::warn!(%error, "the process stays dumpable");
    }
    // With a finite limit, locking future pages would make ordinary allocations fail once it is reached.
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((limit, _)) if limit != RLIM_INFINITY => {
            tracing::warn!(
                limit_bytes = limit,
                "memory is not locked and may be swapped; run with `ulimit -l unlimited`"
            );
        }
        Ok(_) => match mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
            Ok(()) => tracing::info!("memory is locked"),
            Err(error) => tracing::warn!(%error, "memory is not locked and may be swapped"),
        },
        Err(error) => tracing::warn!(%error, "memory is not locked and may be swapped"),
    }
}
