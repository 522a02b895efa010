//! `arca-enclave-simulated` as people and supervisors meet it.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use arca_attestation::Measurements;
use arca_enclave_simulated::{EXAMPLE, measure_program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_arca-enclave-simulated");

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .env_remove("ARCA_LOG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A folder with a root and sockets, and the path of a configuration that says so, with relative paths.
fn configured(contents: &str) -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("sockets")).unwrap();
    let root = folder.path().join("root");
    assert!(run(&["make-root", root.to_str().unwrap()]).status.success());
    let file = folder.path().join("enclave.toml");
    fs::write(&file, contents).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (folder, file)
}

const GOOD: &str = "sockets = 'sockets'\nroot = 'root'\nhardware = 'hardware'\n";

#[test]
fn a_good_configuration_is_valid_and_shown() {
    let (folder, file) = configured(GOOD);
    let output = run(&["--config", &file, "config", "check"]);
    assert_eq!(output.status.code(), Some(0));
    let shown = text(&output.stdout);
    let sockets = folder.path().join("sockets");
    assert!(shown.contains(sockets.to_str().unwrap()), "{shown}");
    assert!(shown.contains("presignatures: 256"), "{shown}");
    assert!(
        !folder.path().join("hardware").exists(),
        "a check changes nothing"
    );
}

#[test]
fn a_bad_configuration_says_where_what_and_what_to_do() {
    for (contents, expected) in [
        ("", "missing field `sockets`"),
        (
            "sockets = 'sockets'\nroot = 'root'\n",
            "missing field `hardware`",
        ),
        (
            "sockets = 7\nroot = 'root'\nhardware = 'h'\n",
            "expected path string",
        ),
        (&format!("{GOOD}extra = 1\n"), "unknown field `extra`"),
        (&format!("{GOOD}root = 'again'\n"), "duplicate key"),
        (
            &format!("{GOOD}presignatures = 4097\n"),
            "the limit of 4096",
        ),
        (&format!("{GOOD}presignatures = -1\n"), "line 4"),
        ("sockets = ", "line 1"),
        (
            "sockets = 'sockets'\nroot = 'nowhere'\nhardware = 'h'\n",
            "make-root",
        ),
        (
            "sockets = 'nowhere'\nroot = 'root'\nhardware = 'h'\n",
            "start the host first",
        ),
    ] {
        let (_folder, file) = configured(contents);
        // Running it says the same as checking it.
        for command in [
            &["--config", &file, "config", "check"][..],
            &["--config", &file],
        ] {
            let output = run(command);
            let error = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{contents:?}: {error}");
            assert!(error.contains(expected), "{contents:?}: {error}");
            assert!(error.contains("enclave.toml"), "{contents:?}: {error}");
            assert!(output.stdout.is_empty());
        }
    }
}

#[test]
fn a_missing_configuration_is_named() {
    let output = run(&["--config", "/nonexistent/enclave.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/nonexistent/enclave.toml"));
    for command in [&[][..], &["config", "check"]] {
        let output = run(command);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("--config FILE"));
    }
    assert_eq!(run(&["no-such-command"]).status.code(), Some(2));
}

#[test]
fn the_example_is_a_configuration() {
    let printed = run(&["config", "example"]);
    assert_eq!(text(&printed.stdout), EXAMPLE);
    let (_folder, file) = configured(
        &EXAMPLE
            .replace("/run/arca/ceo", "sockets")
            .replace("/etc/arca/simulated-root", "root"),
    );
    assert!(
        run(&["--config", &file, "config", "check"])
            .status
            .success()
    );
}

#[test]
fn help_has_examples_and_exit_codes() {
    let help = text(&run(&["--help"]).stdout);
    for expected in ["Examples:", "config check", "make-root", "Exit codes:"] {
        assert!(help.contains(expected), "{help}");
    }
}

#[test]
fn a_root_is_made_once() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("root");
    let made = run(&["make-root", root.to_str().unwrap()]);
    assert_eq!(made.status.code(), Some(0));
    let key = fs::read(root.join("root.key")).unwrap();
    let again = run(&["make-root", root.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("root.key"));
    assert_eq!(fs::read(root.join("root.key")).unwrap(), key);
}

/// What a manifest names is the program itself: other bytes, other PCR 0.
#[test]
fn measurements_are_those_of_the_program() {
    let output = run(&["measurements"]);
    let printed: Measurements = serde_json::from_slice(&output.stdout).unwrap();
    let mut program = fs::read(PROGRAM).unwrap();
    assert_eq!(printed, measure_program(&program));
    assert!(!printed.is_debug());
    program.push(0);
    assert_ne!(printed.pcr0, measure_program(&program).pcr0);
}

/// Waits for a host that never comes, with nothing secret in its log, and stops when told.
#[test]
fn it_stops_when_told() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (folder, file) = configured(GOOD);
        let mut process = Command::new(PROGRAM)
            .args(["--config", &file, "--log", "trace"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        let mut log = String::new();
        while !log.contains("waiting for the host") {
            assert_ne!(stderr.read_line(&mut log).unwrap(), 0, "it ended: {log}");
        }
        let pid = i32::try_from(process.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
        assert_eq!(ended(process), Some(0), "{signal}");
        stderr.read_to_string(&mut log).unwrap();

        assert!(log.contains("SIMULATED"), "{log}");
        assert!(
            log.contains("memory is"),
            "locked or not, it says so: {log}"
        );
        assert_no_secret(&log, &folder.path().join("hardware/kek"));
    }
}

/// The exit code of a process that ends now; one that does not is killed.
fn ended(mut process: Child) -> Option<i32> {
    let pid = Pid::from_raw(i32::try_from(process.id()).unwrap());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(process.wait().unwrap().code()));
    told.recv_timeout(Duration::from_secs(30))
        .unwrap_or_else(|_| {
            kill(pid, Signal::SIGKILL).unwrap();
            None
        })
}

fn assert_no_secret(log: &str, file: &Path) {
    let secret = fs::read(file).unwrap();
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let listed = format!("{secret:?}");
    assert!(!log.contains(&hex) && !log.contains(listed.trim_matches(['[', ']'])));
}
