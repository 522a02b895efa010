//! Children of the local cluster: started, watched, stopped, and gone when their parent is.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use arca_client::Error;
use arca_client::local::Process;

const ARCA: &str = env!("CARGO_BIN_EXE_arca");

fn start(folder: &Path, script: &str) -> Process {
    let log = folder.join("log");
    Process::start(
        "child",
        Path::new(ARCA),
        Path::new("/bin/sh"),
        &["-c", script],
        log,
    )
    .unwrap()
}

/// Whether a process runs: neither gone nor a zombie.
fn runs(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    })
}

/// Polls for something that another process does.
fn wait_for(what: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if what() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[tokio::test]
async fn a_child_that_ends_says_how_and_shows_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let child = start(folder.path(), "echo first; echo second >&2; exit 3");
    let status = child.exited().await;
    assert_eq!(status.code(), Some(3));
    assert_eq!(child.pid(), None);
    let Error::Process {
        program,
        problem,
        log_tail,
        ..
    } = child.ended(status, "look")
    else {
        panic!("another error");
    };
    assert_eq!(program, "child");
    assert!(problem.contains('3'), "{problem}");
    assert_eq!(log_tail, "first\nsecond");
}

#[tokio::test]
async fn a_child_is_asked_to_stop_first() {
    let folder = tempfile::tempdir().unwrap();
    let child = start(
        folder.path(),
        "trap 'echo asked; kill $!; exit 0' TERM; sleep 1000 & echo ready; wait",
    );
    assert!(wait_for(|| child.log_tail() == "ready"));
    child.stop(Duration::from_secs(10)).await;
    assert_eq!(child.exited().await.code(), Some(0));
    assert_eq!(child.log_tail(), "ready\nasked");
}

#[tokio::test]
async fn a_child_that_does_not_stop_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let child = start(folder.path(), "trap '' TERM; echo ready; exec sleep 1000");
    assert!(wait_for(|| child.log_tail() == "ready"));
    let pid = child.pid().unwrap().to_string();
    child.stop(Duration::from_millis(50)).await;
    assert!(!runs(&pid));
}

#[tokio::test]
async fn dropping_it_kills_it() {
    let folder = tempfile::tempdir().unwrap();
    let child = start(folder.path(), "exec sleep 1000");
    let pid = child.pid().unwrap().to_string();
    assert!(runs(&pid));
    drop(child);
    assert!(!runs(&pid));
}

#[test]
fn a_child_dies_with_a_parent_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file: PathBuf = folder.path().join("pid");
    // The shell stands for an `arca demo` that somebody kills: its child writes down its id and stays.
    let script = format!(
        "{ARCA} tied $$ /bin/sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000' & wait",
        pid_file.display()
    );
    let mut parent = Command::new("/bin/sh")
        .args(["-c", &script])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert!(wait_for(|| pid_file.exists()));
    let child = std::fs::read_to_string(&pid_file)
        .unwrap()
        .trim()
        .to_owned();
    assert!(runs(&child));
    parent.kill().unwrap();
    parent.wait().unwrap();
    let died = wait_for(|| !runs(&child));
    if !died {
        Command::new("/bin/kill")
            .args(["-9", &child])
            .status()
            .unwrap();
    }
    assert!(died, "the child outlived its parent");
}

#[test]
fn a_child_whose_parent_is_gone_already_does_not_start() {
    let output = Command::new(ARCA)
        .args(["tied", "1", "/bin/echo", "started"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
}
