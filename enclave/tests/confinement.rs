//! What a confined process cannot do any more. The test runs itself again as the process that is confined.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{self, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixListener,
    process::Command,
    thread,
};

use arca_enclave::process::{Reach, confine, harden};

const CONFINED: &str = "ARCA_TEST_CONFINED";

#[test]
fn a_confined_process_reaches_its_own_files_and_threads_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (own, other) = (folder.path().join("own"), folder.path().join("other"));
    for folder in [&own, &other] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("file"), "secret").unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "as_the_confined_process",
            "--ignored",
            "--nocapture",
        ])
        .env(CONFINED, folder.path())
        .env("ARCA_TEST_TCP", listener.local_addr().unwrap().to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines: Vec<&str> = said.lines().filter(|line| line.contains(" = ")).collect();
    for (attempt, expected) in [
        ("status Seccomp", "2"),
        ("status NoNewPrivs", "1"),
        ("core limit", "0"),
        ("dumpable", "false"),
        ("read own", "ok"),
        ("write own", "ok"),
        ("listen own", "ok"),
        ("thread", "ok"),
        ("time", "ok"),
        ("read other", "PermissionDenied"),
        ("write other", "PermissionDenied"),
        ("read /etc/passwd", "PermissionDenied"),
        ("run a program", "PermissionDenied"),
        ("connect tcp", "PermissionDenied"),
        ("bind udp", "PermissionDenied"),
        ("fork", "PermissionDenied"),
        ("earlier thread connects tcp", "PermissionDenied"),
    ] {
        let line = format!("{attempt} = {expected}");
        assert!(
            lines.contains(&line.as_str()),
            "wanted {line:?} in {lines:#?}"
        );
    }
}

/// Not a test of its own: see above.
#[test]
#[ignore = "is run by the test above, confined for good"]
fn as_the_confined_process() {
    let Ok(folder) = std::env::var(CONFINED) else {
        return;
    };
    let folder = std::path::PathBuf::from(folder);
    let address = std::env::var("ARCA_TEST_TCP").unwrap();
    let mut out = io::stdout();
    let mut say = |attempt: &str, outcome: String| {
        // A prefix of the test harness may stand in the same line.
        writeln!(out, "\n{attempt} = {outcome}").unwrap();
    };
    harden();
    let reach = Reach {
        write: vec![folder.join("own")],
        ..Reach::default()
    };
    let restricted = reach.restrict();
    assert!(restricted.in_force, "{restricted:?}");
    // A thread that was there before the filter has it too.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let earlier = {
        let address = address.clone();
        thread::spawn(move || {
            wait.recv().unwrap();
            outcome(TcpStream::connect(address))
        })
    };
    let confined = confine(false);
    assert!(confined.in_force, "{confined:?}");

    let status = fs::read_to_string("/proc/self/status").unwrap();
    for field in ["Seccomp", "NoNewPrivs"] {
        let line = status
            .lines()
            .find(|line| line.starts_with(&format!("{field}:")));
        let value = line.unwrap().split_once(':').unwrap().1.trim().to_owned();
        say(&format!("status {field}"), value);
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core"))
        .unwrap();
    say(
        "core limit",
        core.split_whitespace().nth(4).unwrap().to_owned(),
    );
    let dumpable = nix::sys::prctl::get_dumpable().unwrap();
    say("dumpable", dumpable.to_string());
    say("read own", outcome(fs::read(folder.join("own/file"))));
    say("write own", outcome(fs::write(folder.join("own/new"), "x")));
    say(
        "listen own",
        outcome(UnixListener::bind(folder.join("own/socket"))),
    );
    say("thread", outcome(thread::Builder::new().spawn(|| ())));
    say(
        "time",
        outcome(
            std::time::SystemTime::now()
                .elapsed()
                .map_err(io::Error::other),
        ),
    );
    say("read other", outcome(fs::read(folder.join("other/file"))));
    say(
        "write other",
        outcome(fs::write(folder.join("other/new"), "x")),
    );
    say("read /etc/passwd", outcome(fs::read("/etc/passwd")));
    say("run a program", outcome(Command::new("/bin/true").spawn()));
    say("connect tcp", outcome(TcpStream::connect(&address)));
    say("bind udp", outcome(UdpSocket::bind("127.0.0.1:0")));
    // What the standard library forks with when it cannot use posix_spawn.
    let forked = Command::new("/bin/true")
        .env_clear()
        .current_dir("/")
        .spawn();
    say("fork", outcome(forked));
    go.send(()).unwrap();
    say("earlier thread connects tcp", earlier.join().unwrap());
}

fn outcome<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    }
}
