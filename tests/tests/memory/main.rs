//! What is left of secrets in memory once they are dropped: nothing.
//!
//! Each test starts this very program once more (the *subject*), lets it use secrets as an enclave does, and then
//! looks through all of the subject's memory for them from outside: heap, stacks, static data. So the search leaves
//! no copies in what it searches. The subject hands its secrets over through a socket, straight from the buffers
//! that are wiped.
//!
//! That a test would see a copy is shown each time: the subject is told to keep one, and it must be found.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod scan;
mod subject;

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    process::{Child, Command},
};

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use scan::{Secret, list, scan};
use subject::{KEEP, SEED, SOCKET, Scenario, TASK};

/// A subject that has done its task and waits.
struct Subject {
    process: Child,
    stream: UnixStream,
    secrets: Vec<Secret>,
}

impl Subject {
    fn done(scenario: Scenario) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("subject.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "subject::subject", "--ignored", "--nocapture"])
            .env(SOCKET, &socket)
            .env(TASK, scenario.name())
            .spawn()
            .unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut secrets = Vec::new();
        loop {
            let name = String::from_utf8(read(&mut stream)).unwrap();
            if name.is_empty() {
                break;
            }
            let bytes = read(&mut stream);
            match name.strip_prefix(SEED) {
                Some(signer) => {
                    let share = share_of(&secrets, signer).to_vec();
                    let nonces = nonces(scenario, signer, &share, bytes.try_into().unwrap());
                    secrets.extend(nonces);
                }
                None => secrets.push(Secret::new(name, bytes)),
            }
        }
        Self {
            process,
            stream,
            secrets,
        }
    }

    /// Has it keep a copy of one secret, as a mistake would.
    fn keep(&mut self, index: usize) {
        let bytes = &self.secrets[index].bytes;
        self.stream
            .write_all(&[KEEP, u8::try_from(bytes.len()).unwrap()])
            .unwrap();
        self.stream.write_all(bytes).unwrap();
        let mut answer = [0];
        self.stream.read_exact(&mut answer).unwrap();
    }

    /// Names of the secrets that are in its memory, and where.
    fn found(&self) -> (BTreeSet<String>, String) {
        let findings = scan(self.process.id(), &self.secrets).unwrap();
        let names = findings.iter().map(|finding| finding.name.clone());
        (names.collect(), list(&findings))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read(stream: &mut UnixStream) -> Vec<u8> {
    let mut length = [0];
    stream.read_exact(&mut length).unwrap();
    let mut bytes = vec![0; usize::from(length[0])];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn share_of<'a>(secrets: &'a [Secret], signer: &str) -> &'a [u8] {
    let name = format!("share of {signer}");
    &secrets.iter().find(|s| s.name == name).unwrap().bytes
}

/// What a signer's nonces for two messages are, by the library that makes them, from the same randomness.
fn nonces(scenario: Scenario, signer: &str, share: &[u8], seed: [u8; 32]) -> Vec<Secret> {
    fn pairs<C: frost_core::Ciphersuite>(share: &[u8], seed: [u8; 32]) -> Vec<Vec<u8>> {
        let share = frost_core::keys::SigningShare::<C>::deserialize(share).unwrap();
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut nonces = Vec::new();
        for _ in 0..2 {
            let pair = frost_core::round1::SigningNonces::new(&share, &mut rng);
            nonces.extend([pair.hiding().serialize(), pair.binding().serialize()]);
        }
        nonces
    }
    let nonces = match scenario {
        Scenario::Bip340 => pairs::<frost_secp256k1_tr::Secp256K1Sha256TR>(share, seed),
        Scenario::Ed25519 => pairs::<frost_ed25519::Ed25519Sha512>(share, seed),
        _ => panic!("{scenario:?} has no nonces to be known"),
    };
    let named = nonces.into_iter().enumerate();
    named
        .map(|(index, nonce)| Secret::new(format!("nonce {index} of {signer}"), nonce))
        .collect()
}

/// The task leaves nothing behind, and what is left behind on purpose is found.
fn assert_nothing_left(scenario: Scenario, at_least: usize) {
    let mut subject = Subject::done(scenario);
    let secrets = subject.secrets.len();
    assert!(secrets >= at_least, "{secrets} secrets to look for");
    let (left, places) = subject.found();
    assert!(left.is_empty(), "{scenario:?} left in memory:\n{places}");
    for index in 0..secrets {
        subject.keep(index);
    }
    let (kept, places) = subject.found();
    let all: BTreeSet<String> = subject.secrets.iter().map(|s| s.name.clone()).collect();
    assert_eq!(
        kept, all,
        "of all kept secrets only these are found:\n{places}"
    );
}

#[test]
fn a_bip340_key_that_was_made_sealed_read_and_signed_with_leaves_nothing() {
    assert_nothing_left(Scenario::Bip340, 3 + 6 + 8);
}

#[test]
fn an_ed25519_key_that_was_made_sealed_read_and_signed_with_leaves_nothing() {
    assert_nothing_left(Scenario::Ed25519, 3 + 6 + 8);
}

#[test]
fn an_ecdsa_key_on_secp256k1_leaves_nothing() {
    assert_nothing_left(Scenario::Secp256k1, 3 + 6);
}

#[test]
fn an_ecdsa_key_on_p256_leaves_nothing() {
    assert_nothing_left(Scenario::P256, 3 + 6);
}

#[test]
fn a_sealed_blob_leaves_neither_content_nor_keys() {
    assert_nothing_left(Scenario::Sealing, 3);
}

#[test]
fn an_identity_key_in_software_leaves_nothing() {
    assert_nothing_left(Scenario::Identity, 1);
}
