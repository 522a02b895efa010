//! One child process: started, watched, stopped, and never left behind.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::watch;

use crate::error::{Error, Result};

/// A running program with its log.
///
/// A thread of its own starts it and waits for it. The kernel ties a child's parent-death signal to the
/// *thread* that started it, and this one lives exactly as long as the child.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    pid: Arc<Mutex<Option<Pid>>>,
    exit: watch::Receiver<Option<ExitStatus>>,
    waiter: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `program` with its output appended to `log`.
    ///
    /// `launcher` is the `arca` program: it goes between, so that the child dies with this process even when
    /// this one is killed; see [`run_tied_to_parent`].
    ///
    /// # Errors
    /// [`Error::Process`] when it cannot be started.
    pub fn start(
        name: impl Into<String>,
        launcher: &Path,
        program: &Path,
        arguments: &[&str],
        log: PathBuf,
    ) -> Result<Self> {
        let name = name.into();
        let failed = |problem: String| Error::Process {
            program: name.clone(),
            problem,
            log_tail: String::new(),
            advice: "check that the programs are built and may be run".to_owned(),
        };
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|cause| {
                failed(format!(
                    "its log {} cannot be opened: {cause}",
                    log.display()
                ))
            })?;
        let errors = output
            .try_clone()
            .map_err(|cause| failed(cause.to_string()))?;
        let mut command = Command::new(launcher);
        command
            .args(["tied", &std::process::id().to_string()])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // Its own group: Ctrl-C reaches this program alone, which then stops its children in order.
            .process_group(0);

        let pid = Arc::new(Mutex::new(None));
        let (exited, exit) = watch::channel(None);
        let (started, start) = std::sync::mpsc::channel();
        let slot = pid.clone();
        let waiter = std::thread::spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(cause) => {
                    drop(started.send(Err(cause)));
                    return;
                }
            };
            let id = i32::try_from(child.id()).map(Pid::from_raw).ok();
            *lock(&slot) = id;
            drop(started.send(Ok(())));
            // Wait without reaping first: until the slot is empty, the id cannot go to another process, and
            // whoever holds the lock may signal it.
            if let Some(id) = id {
                while waitid(Id::Pid(id), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
                    == Err(nix::errno::Errno::EINTR)
                {}
            }
            let mut slot = lock(&slot);
            let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(-1));
            *slot = None;
            exited.send_replace(Some(status));
        });
        match start.recv() {
            Ok(Ok(())) => Ok(Self {
                name,
                log,
                pid,
                exit,
                waiter: Some(waiter),
            }),
            Ok(Err(cause)) => Err(failed(format!(
                "{} cannot be started: {cause}",
                launcher.display()
            ))),
            Err(_) => Err(failed("its thread ended".to_owned())),
        }
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<i32> {
        lock(&self.pid).map(Pid::as_raw)
    }

    /// Waits until it has ended.
    pub async fn exited(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        let status = exit
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|status| *status);
        status.unwrap_or_else(|| ExitStatus::from_raw(-1))
    }

    /// Asks it to stop, waits `grace`, then kills it. Returns when it is gone.
    pub async fn stop(&self, grace: Duration) {
        self.signal(Signal::SIGTERM);
        if tokio::time::timeout(grace, self.exited()).await.is_err() {
            self.kill().await;
        }
    }

    /// Kills it (SIGKILL). Returns when it is gone.
    pub async fn kill(&self) {
        self.signal(Signal::SIGKILL);
        self.exited().await;
    }

    /// The error that says that it ended by itself.
    pub fn ended(&self, status: ExitStatus, advice: impl Into<String>) -> Error {
        Error::Process {
            program: self.name.clone(),
            problem: format!("ended by itself: {status}"),
            log_tail: self.log_tail(),
            advice: advice.into(),
        }
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|cause| format!("(its log cannot be read: {cause})"))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = *lock(&self.pid) {
            // Fails only for a process that has ended already, which is what signals here are for.
            let _ = nix::sys::signal::kill(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(waiter) = self.waiter.take() {
            drop(waiter.join());
        }
    }
}

/// Becomes `program`, tied to the life of the process that started it: the `arca tied` command.
///
/// Asks the kernel for SIGKILL when the parent dies, and then executes the program in this process. Returns
/// only when that fails.
pub fn run_tied_to_parent(
    parent: i32,
    program: &Path,
    arguments: &[std::ffi::OsString],
) -> std::io::Error {
    if let Err(cause) = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL) {
        return cause.into();
    }
    // The parent may have died before the line above.
    if nix::unistd::getppid().as_raw() != parent {
        return std::io::Error::other("the process that this one belongs to is gone");
    }
    Command::new(program).args(arguments).exec()
}

fn lock(slot: &Mutex<Option<Pid>>) -> MutexGuard<'_, Option<Pid>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last 20 lines among the last 8 KiB.
fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(8192)))?;
    let mut bytes = Vec::new();
    file.take(8192).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines
        .get(lines.len().saturating_sub(20)..)
        .unwrap_or_default()
        .join("\n"))
}
