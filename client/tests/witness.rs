//! `arca witness` as a process of its own, over real HTTP.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use arca_audit::checkpoint::Checkpoint;
use arca_audit::cosignature::CosignedCheckpoint;
use arca_audit::note::{KeyKind, SignedNote, VerifierKey};
use arca_audit::witness::{AddCheckpoint, parse_cosignatures};
use arca_audit::{Hash, consistency_proof, leaf_hash, root};
use ed25519_dalek::SigningKey;

const ORIGIN: &str = "arca/simulated/sim-a/ceo/1";
const NAME: &str = "witness.example/w1";

/// A log with all its leaves.
struct Log {
    key: SigningKey,
    leaves: Vec<Hash>,
}

impl Log {
    fn new(size: u64) -> Self {
        Self {
            key: SigningKey::from_bytes(&[1; 32]),
            leaves: (0..size)
                .map(|index| leaf_hash(&index.to_be_bytes()))
                .collect(),
        }
    }

    fn verifier_key(&self) -> VerifierKey {
        VerifierKey::of_signing_key(ORIGIN.parse().unwrap(), KeyKind::Ed25519, &self.key)
    }

    fn note(&self, size: usize) -> SignedNote {
        Checkpoint {
            origin: ORIGIN.parse().unwrap(),
            size: size as u64,
            root: root(&self.leaves[..size]),
        }
        .sign(&self.key)
    }

    fn request(&self, old: usize, new: usize) -> Vec<u8> {
        AddCheckpoint {
            old_size: old as u64,
            proof: consistency_proof(&self.leaves[..new], old as u64).unwrap(),
            note: self.note(new),
        }
        .to_bytes()
    }
}

struct Witness {
    child: Child,
    address: String,
    vkey: VerifierKey,
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A key and a folder for its state.
struct Home {
    folder: tempfile::TempDir,
    logs: PathBuf,
    key: PathBuf,
}

impl Home {
    fn new(log: &Log) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("witness.pem");
        let made = arca(&["witness", "key", key.to_str().unwrap(), "--name", NAME]);
        assert!(made.contains(&format!("{NAME}+")), "{made}");
        let logs = folder.path().join("logs");
        std::fs::write(&logs, format!("# ours\n\n{}\n", log.verifier_key())).unwrap();
        Self { folder, logs, key }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arca"));
        command
            .args([
                "witness",
                "--listen",
                "127.0.0.1:0",
                "--output",
                "json",
                "--name",
                NAME,
            ])
            .args(["--state".as_ref(), self.state().as_os_str()])
            .args(["--key".as_ref(), self.key.as_os_str()])
            .args(["--logs".as_ref(), self.logs.as_os_str()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self) -> Witness {
        let mut child = self.command().spawn().unwrap();
        let mut text = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        while !text.ends_with("\n}\n") {
            assert!(lines.read_line(&mut text).unwrap() > 0, "it ended: {text}");
        }
        let said: serde_json::Value = serde_json::from_str(&text).unwrap();
        Witness {
            child,
            address: said["listen"].as_str().unwrap().to_owned(),
            vkey: said["verifier_key"].as_str().unwrap().parse().unwrap(),
        }
    }

    /// The stored checkpoint.
    fn stored(&self) -> Option<Vec<u8>> {
        use sha2::Digest as _;
        let name = hex::encode(sha2::Sha256::digest(ORIGIN));
        std::fs::read(self.state().join(name)).ok()
    }
}

fn arca(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_arca"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

struct Answer {
    status: u16,
    content_type: String,
    body: String,
}

impl Witness {
    fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).unwrap()
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let mut stream = self.connect();
        write_request(&mut stream, method, path, body);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let content_type = head
            .lines()
            .find_map(|line| line.strip_prefix("content-type: "))
            .unwrap_or_default()
            .to_owned();
        Answer {
            status,
            content_type,
            body: body.to_owned(),
        }
    }

    fn add(&self, body: &[u8]) -> Answer {
        self.send("POST", "/add-checkpoint", body)
    }
}

fn write_request(stream: &mut TcpStream, method: &str, path: &str, body: &[u8]) {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: witness\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
}

/// The answer cosigns this checkpoint.
fn assert_cosigned(answer: &Answer, witness: &Witness, log: &Log, size: usize) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut note = log.note(size);
    for line in parse_cosignatures(answer.body.as_bytes()).unwrap() {
        note.add(line).unwrap();
    }
    let witnesses = [witness.vkey.clone()];
    let cosigned = CosignedCheckpoint::verify_note(&note, &log.verifier_key(), &witnesses).unwrap();
    assert_eq!(cosigned.cosignatures().len(), 1);
    assert_eq!(cosigned.checkpoint().size, size as u64);
}

#[test]
fn each_answer_is_that_of_the_protocol() {
    let log = Log::new(40);
    let home = Home::new(&log);
    let witness = home.start();
    assert_cosigned(&witness.add(&log.request(0, 5)), &witness, &log, 5);
    assert_cosigned(&witness.add(&log.request(5, 20)), &witness, &log, 20);
    // Again, for the same size: with an empty proof.
    assert_cosigned(&witness.add(&log.request(20, 20)), &witness, &log, 20);

    let conflict = witness.add(&log.request(5, 30));
    assert_eq!((conflict.status, conflict.body.as_str()), (409, "20\n"));
    assert_eq!(conflict.content_type, "text/x.tlog.size");

    let stranger = Log {
        key: SigningKey::from_bytes(&[2; 32]),
        leaves: log.leaves.clone(),
    };
    assert_eq!(witness.add(&stranger.request(20, 30)).status, 403);

    let text = String::from_utf8(log.request(20, 30)).unwrap();
    let elsewhere = text.replace(ORIGIN, "arca/simulated/sim-a/ceo/2");
    assert_eq!(witness.add(elsewhere.as_bytes()).status, 404);

    let mut forked = Log::new(40);
    forked.leaves[3] = leaf_hash(b"another");
    assert_eq!(witness.add(&forked.request(20, 30)).status, 422);
    let fork = witness.add(&forked.request(20, 20));
    assert_eq!((fork.status, fork.body.as_str()), (409, "20\n"));
    let kept = std::fs::read_dir(home.state().join("conflicts"))
        .unwrap()
        .count();
    assert_eq!(kept, 1, "the proof of the fork is not kept");

    let shrinking = AddCheckpoint {
        old_size: 20,
        proof: Vec::new(),
        note: log.note(10),
    };
    assert_eq!(witness.add(&shrinking.to_bytes()).status, 400);
    for malformed in [
        &b""[..],
        b"old 20\n",
        b"old 020\n\n",
        &text.as_bytes()[..90],
    ] {
        assert_eq!(witness.add(malformed).status, 400);
    }
    assert_eq!(witness.send("GET", "/add-checkpoint", b"").status, 405);
    assert_eq!(witness.send("POST", "/elsewhere", b"").status, 404);
    assert_eq!(
        witness.send("GET", "/", b"").body,
        format!("{}\n", witness.vkey)
    );
    // Nothing of all that has moved it.
    assert_cosigned(&witness.add(&log.request(20, 40)), &witness, &log, 40);
}

#[test]
fn what_was_cosigned_outlives_the_process() {
    let log = Log::new(40);
    let home = Home::new(&log);
    let witness = home.start();
    assert_cosigned(&witness.add(&log.request(0, 5)), &witness, &log, 5);

    // Killed once it has stored the next one; its answer is never read.
    let before = home.stored().unwrap();
    let mut stream = witness.connect();
    write_request(&mut stream, "POST", "/add-checkpoint", &log.request(5, 20));
    while home.stored().unwrap() == before {
        std::thread::yield_now();
    }
    drop(witness);
    drop(stream);

    let witness = home.start();
    let conflict = witness.add(&log.request(5, 30));
    assert_eq!((conflict.status, conflict.body.as_str()), (409, "20\n"));
    assert_cosigned(&witness.add(&log.request(20, 20)), &witness, &log, 20);
    assert_cosigned(&witness.add(&log.request(20, 30)), &witness, &log, 30);
}

#[test]
fn of_two_that_race_one_wins() {
    let log = Log::new(200);
    let home = Home::new(&log);
    let witness = home.start();
    let mut size = 1;
    assert_cosigned(&witness.add(&log.request(0, 1)), &witness, &log, 1);
    for _ in 0..20 {
        let (one, other) = (size + 1, size + 3);
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let racing = [one, other].map(|new| {
                let (log, witness) = (&log, &witness);
                scope.spawn(move || witness.add(&log.request(size, new)).status)
            });
            racing.map(|thread| thread.join().unwrap()).to_vec()
        });
        size = match statuses.as_slice() {
            [200, 409] => one,
            [409, 200] => other,
            other => panic!("{other:?}"),
        };
        let conflict = witness.add(&log.request(0, size));
        assert_eq!(conflict.body, format!("{size}\n"));
    }
}

#[test]
fn it_ends_when_asked_and_has_its_folder_for_itself() {
    let log = Log::new(10);
    let home = Home::new(&log);
    let mut witness = home.start();
    let second = home.command().output().unwrap();
    assert_eq!(second.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&second.stderr).contains("used by another witness"));

    // What is under way is finished: the rest of the request comes after the signal.
    let body = log.request(0, 5);
    let mut stream = witness.connect();
    let head = format!(
        "POST /add-checkpoint HTTP/1.1\r\nhost: w\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body[..10]).unwrap();
    // It asks for the rest: the request is under way.
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    terminate(witness.child.id());
    stream.write_all(&body[10..]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(witness.child.wait().unwrap().code(), Some(0));
}

fn terminate(pid: u32) {
    let status = Command::new("kill")
        .args(["-TERM", &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_state_that_is_damaged_is_not_begun_anew() {
    let log = Log::new(10);
    let home = Home::new(&log);
    let witness = home.start();
    assert_cosigned(&witness.add(&log.request(0, 5)), &witness, &log, 5);
    drop(witness);
    let damage = |path: &Path| {
        let mut note = std::fs::read(path).unwrap();
        let place = note.len() - 5;
        note[place] ^= 1;
        std::fs::write(path, note).unwrap();
    };
    for entry in std::fs::read_dir(home.state()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "lock" {
            damage(&path);
        }
    }
    let refused = home.command().output().unwrap();
    assert_eq!(
        refused.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&refused.stdout)
    );
}
