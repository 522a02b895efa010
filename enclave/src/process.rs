//! The process around the service: what it asks of the kernel to keep its memory to itself and its reach short, and
//! how it starts and stops. The same for every platform.
//!
//! - [`harden`], first of all: no core dumps, no debugger, no new privileges, memory locked where that is allowed.
//! - [`Reach::restrict`], before any thread is started: files outside the platform's own are out of reach (Landlock).
//! - [`confine`], once the platform has opened what it needs: the system calls that a service of this kind never makes
//!   are refused on every thread (seccomp).
//!
//! What the kernel does not grant is no reason not to start, and is told: in the log, and in `GetEvidence`.

use std::{
    collections::BTreeMap, error::Error as StdError, future::Future, path::PathBuf, sync::Arc,
};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, path_beneath_rules,
};
use nix::sys::{
    mman::{MlockAllFlags, mlockall},
    prctl,
    resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
    stat::{Mode, umask},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{Error, Settings, platform::Platform};

/// What was asked of the kernel, and whether it was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// Stable, in kebab-case.
    pub name: &'static str,
    /// Whether it is in force.
    pub in_force: bool,
    /// For people: what it keeps off, or why it is not in force and what to do.
    pub detail: String,
}

/// Files and addresses that a platform needs after the start.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Files and folders to read, with everything below them.
    pub read: Vec<PathBuf>,
    /// Files and folders to read and write, with everything below them.
    pub write: Vec<PathBuf>,
    /// Whether the platform talks TCP: a network HSM's module does.
    pub network: bool,
}

/// How the log is written to standard error: `text` or `json` on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("text or json"),
        }
    }
}

impl std::fmt::Display for LogFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The log filter does not parse.
    #[error("--log: {0}")]
    Log(#[from] tracing_subscriber::filter::ParseError),
    /// The runtime or its signals.
    #[error("the runtime: {0}")]
    Runtime(#[from] std::io::Error),
    /// The platform.
    #[error(transparent)]
    Platform(Box<dyn StdError + Send + Sync>),
    /// The service.
    #[error(transparent)]
    Service(#[from] Error),
}

/// Runs a platform's service in this process until SIGTERM or SIGINT.
///
/// Call it on the main thread before any other is started. `start` makes the platform, inside the runtime.
///
/// # Errors
/// [`StartError`].
pub fn run<P, E>(
    log: (&str, LogFormat),
    reach: &Reach,
    mut settings: Settings,
    start: impl Future<Output = Result<P, E>>,
) -> Result<(), StartError>
where
    P: Platform,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    start_log(log.0, log.1)?;
    let mut protections = harden();
    protections.push(reach.restrict());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let platform = start
            .await
            .map_err(|error| StartError::Platform(error.into()))?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        protections.push(confine(reach.network));
        tell(&protections);
        settings.protections = protections;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        crate::serve(Arc::new(platform), settings, stop).await?;
        Ok(())
    })
}

fn start_log(filter: &str, format: LogFormat) -> Result<(), StartError> {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(filter)?)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

fn tell(protections: &[Protection]) {
    for Protection {
        name,
        in_force,
        detail,
    } in protections
    {
        if *in_force {
            tracing::info!("{name}: {detail}");
        } else {
            tracing::warn!("NOT in force: {name}: {detail}");
        }
    }
}

/// Turns off core dumps, debuggers and new privileges, and locks memory where that is allowed.
pub fn harden() -> Vec<Protection> {
    umask(Mode::from_bits_truncate(0o077));
    vec![
        protection(
            "no-core-dumps",
            setrlimit(Resource::RLIMIT_CORE, 0, 0),
            "a crash leaves no image of the memory behind",
        ),
        protection(
            "not-dumpable",
            prctl::set_dumpable(false),
            "no process of the same user can attach to this one or read its memory",
        ),
        protection(
            "no-new-privileges",
            prctl::set_no_new_privs(),
            "no program started from here gains rights",
        ),
        lock_memory(),
    ]
}

fn lock_memory() -> Protection {
    let refused = |detail: String| Protection {
        name: "memory-locked",
        in_force: false,
        detail: format!(
            "{detail}; memory may be swapped to a disk: run with `ulimit -l unlimited` (systemd: \
             LimitMEMLOCK=infinity)"
        ),
    };
    // With a finite limit, locking future pages would make ordinary allocations fail once it is reached.
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((limit, _)) if limit != RLIM_INFINITY => {
            refused(format!("the limit on locked memory is {limit} bytes"))
        }
        Ok(_) => match mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
            Ok(()) => Protection {
                name: "memory-locked",
                in_force: true,
                detail: "memory is never swapped".to_owned(),
            },
            Err(error) => refused(error.to_string()),
        },
        Err(error) => refused(error.to_string()),
    }
}

fn protection<E: std::fmt::Display>(
    name: &'static str,
    outcome: Result<(), E>,
    detail: &str,
) -> Protection {
    Protection {
        name,
        in_force: outcome.is_ok(),
        detail: match outcome {
            Ok(()) => detail.to_owned(),
            Err(error) => error.to_string(),
        },
    }
}

/// Read by the C library, the clock and the runtime of whatever is linked.
const COMMON: [&str; 6] = [
    "/proc/self",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
    "/dev/urandom",
    "/dev/null",
    "/etc/localtime",
];

impl Reach {
    /// Puts every other file out of reach of this thread and those it starts, and TCP unless it is needed.
    pub fn restrict(&self) -> Protection {
        const NAME: &str = "files-restricted";
        let abi = ABI::V5;
        let restrict = || {
            let rules = Ruleset::default()
                .set_compatibility(CompatLevel::BestEffort)
                .handle_access(AccessFs::from_all(abi))?;
            let rules = if self.network {
                rules
            } else {
                rules.handle_access(AccessNet::from_all(abi))?
            };
            rules
                .create()?
                .add_rules(path_beneath_rules(COMMON, AccessFs::from_read(abi)))?
                .add_rules(path_beneath_rules(&self.read, AccessFs::from_read(abi)))?
                .add_rules(path_beneath_rules(&self.write, AccessFs::from_all(abi)))?
                .restrict_self()
        };
        let (in_force, detail) = match restrict() {
            Ok(status) if status.ruleset == RulesetStatus::NotEnforced => (
                false,
                "this kernel has no Landlock; take Linux 5.13 or newer, with `landlock` among its LSMs".to_owned(),
            ),
            Ok(status) => (
                true,
                format!(
                    "only the platform's own files can be opened{}",
                    match status.ruleset {
                        RulesetStatus::FullyEnforced => "",
                        _ => " (this kernel knows an older Landlock: TCP or file control may be left open)",
                    }
                ),
            ),
            Err(error) => (false, error.to_string()),
        };
        Protection {
            name: NAME,
            in_force,
            detail,
        }
    }
}

/// System calls that this process never makes once it serves: starting programs, looking into other processes,
/// changing the kernel or what the process may see, and interfaces with a history of kernel exploits.
const REFUSED: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_personality,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_memfd_create,
];

/// Refuses, on every thread, what a serving enclave never asks of the kernel. Without `network` also every socket but
/// those to the host.
pub fn confine(network: bool) -> Protection {
    let outcome = filters(network).and_then(|filters| {
        for filter in filters {
            apply_filter_all_threads(&filter)?;
        }
        Ok(())
    });
    protection(
        "system-calls-filtered",
        outcome,
        if network {
            "no programs, no other processes' memory, no kernel interfaces"
        } else {
            "no programs, no other processes' memory, no kernel interfaces, no network"
        },
    )
}

fn filters(network: bool) -> Result<Vec<BpfProgram>, seccompiler::Error> {
    let architecture = std::env::consts::ARCH.try_into()?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, vec![])).collect();
    #[cfg(target_arch = "x86_64")]
    for call in [libc::SYS_fork, libc::SYS_vfork] {
        rules.insert(call, vec![]);
    }
    // Threads may be started, processes may not.
    let thread = u64::try_from(libc::CLONE_THREAD).unwrap_or_default();
    let no_thread = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(thread),
        0,
    )?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![no_thread])?]);
    if !network {
        let other_than = |family: libc::c_int| {
            let family = u64::try_from(family).unwrap_or_default();
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
        };
        let rule = SeccompRule::new(vec![
            other_than(libc::AF_UNIX)?,
            other_than(libc::AF_VSOCK)?,
        ])?;
        rules.insert(libc::SYS_socket, vec![rule]);
    }
    let refused = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap_or(1));
    let refuse = SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture)?;
    // Its flags are in memory, where no filter looks; the C library goes back to clone when it is told so.
    let unknown = SeccompAction::Errno(u32::try_from(libc::ENOSYS).unwrap_or(38));
    let clone3 = [(libc::SYS_clone3, vec![])].into();
    let hide = SeccompFilter::new(clone3, SeccompAction::Allow, unknown, architecture)?;
    Ok(vec![refuse.try_into()?, hide.try_into()?])
}
