//! What a running enclave has in memory: each secret once, where it is used, and no key of its sealed blobs.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::Path};

use arca_client::Scheme;
use arca_enclave::{platform::Platform as _, sealing};
use arca_enclave_simulated::{Config, SimulatedPlatform};
use arca_proto::v1::ListBlobsRequest;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    common::{PATIENCE, Running, new_key, psbt_payload, running, solana_transfer},
    scan::{Finding, Secret, list, scan},
    storage::{get, restart_enclave},
};

/// How often, and in which order of bytes, a secret may stand in memory.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    as_it_is: usize,
    reversed: usize,
}

const NOWHERE: Places = Places {
    as_it_is: 0,
    reversed: 0,
};
const ONCE: Places = Places {
    as_it_is: 1,
    reversed: 0,
};
/// Curve arithmetic keeps its numbers with the lowest byte first, encodings have the highest first.
const ONCE_REVERSED: Places = Places {
    as_it_is: 0,
    reversed: 1,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_running_enclave_holds_no_second_copy_of_a_secret() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        println!("left out: only root may look into an enclave that is not dumpable");
        return;
    }
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let mut keys = Vec::new();
    for (scheme, id) in [
        (Scheme::Bip340, "b"),
        (Scheme::Ed25519, "e"),
        (Scheme::EcdsaSecp256k1, "k"),
        (Scheme::EcdsaP256, "p"),
    ] {
        keys.push(new_key(&ceo, scheme, id).await);
    }
    for request in ["made", "restarted"] {
        let ceo = running.client("ceo").await;
        for key in &keys {
            let payload = match key.scheme {
                Scheme::Bip340 => psbt_payload(key, 40_000),
                Scheme::Ed25519 => arca_client::Payload::SolanaMessage(solana_transfer(
                    key.public_key.ed25519().unwrap(),
                    5,
                )),
                _ => arca_client::Payload::Digest([7; 32]),
            };
            let request = format!("{request}-{:?}", key.scheme).to_lowercase();
            ceo.sign(&key.name, &request, &payload, PATIENCE)
                .await
                .unwrap();
        }
        drop(ceo);
        let expected = secrets_of_ceo(&running).await;
        let found = look_into_ceo(&running, &expected);
        let mut wrong = Vec::new();
        for (secret, places) in &expected {
            let count = |reversed| {
                let halves = found
                    .iter()
                    .filter(|f| f.name == secret.name && f.reversed == reversed);
                halves.count().div_ceil(2)
            };
            let found = Places {
                as_it_is: count(false),
                reversed: count(true),
            };
            if found != *places {
                wrong.push(format!("{}: {found:?}, not {places:?}", secret.name));
            }
        }
        let list = list(&found);
        assert!(
            wrong.is_empty(),
            "{request}:\n  {}\n{list}",
            wrong.join("\n  ")
        );
        restart_enclave(&mut running, "ceo").await;
        running
            .cluster
            .wait_connected(&["ceo", "cto", "cloud"])
            .await
            .unwrap();
    }
}

fn look_into_ceo(running: &Running, expected: &[(Secret, Places)]) -> Vec<Finding> {
    let enclave = running.cluster.party("ceo").unwrap().enclave().unwrap();
    let pid = Pid::from_raw(enclave.pid().unwrap());
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert!(program.ends_with("arca-enclave-simulated"), "{program:?}");
    let secrets: Vec<&Secret> = expected.iter().map(|(secret, _)| secret).collect();
    // Still while it is read, so that nothing is found twice because it moved.
    kill(pid, Signal::SIGSTOP).unwrap();
    let found = scan(pid.as_raw().unsigned_abs(), secrets);
    kill(pid, Signal::SIGCONT).unwrap();
    found.unwrap()
}

/// Everything that `ceo` has sealed, opened with its hardware: what whoever owns a simulated party can do.
async fn secrets_of_ceo(running: &Running) -> Vec<(Secret, Places)> {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::load(&running.cluster.party("ceo").unwrap().paths().enclave).unwrap();
    let kek = fs::read(config.hardware.join("kek")).unwrap();
    let config = Config {
        sockets: folder.path().to_owned(),
        ..config
    };
    let platform = SimulatedPlatform::start(&config).unwrap();
    let mut secrets = vec![(Secret::new("key-encryption key", kek), ONCE)];
    let mut blobs = running.blobs("ceo").await;
    let names = blobs
        .list_blobs(ListBlobsRequest::default())
        .await
        .unwrap()
        .into_inner()
        .names;
    let mut kinds = BTreeMap::<String, usize>::new();
    for name in names {
        let blob = get(running, "ceo", &name).await;
        let kind = Path::new(&name).iter().next().unwrap().to_string_lossy();
        let (cluster, party) = match &*kind {
            "index" | "log" => continue,
            "party" => ("", ""),
            _ => (running.cluster.id(), "ceo"),
        };
        let opened = sealing::unseal(&platform, cluster, party, &name, &blob).await;
        let (_, content) = opened.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (header, wrapped) = sealed_key(&blob);
        let key = platform.unwrap(wrapped, header).await.unwrap();
        let named = |what: &str| format!("{what} of {name}");
        secrets.push((Secret::new(named("data key"), *key.expose()), NOWHERE));
        match &*kind {
            "party" => {
                secrets.push((Secret::new("identity", &content[..32]), ONCE_REVERSED));
                secrets.push((Secret::new("hedge", &content[32..64]), ONCE));
                let seed = &content[64..96];
                secrets.push((Secret::new("log seed", seed), ONCE));
                for (name, tag) in [
                    ("log key", "arca/v1/log-key"),
                    ("witness key", "arca/v1/witness-key"),
                ] {
                    let mut key = [0; 32];
                    hkdf::Hkdf::<sha2::Sha256>::new(None, seed)
                        .expand(tag.as_bytes(), &mut key)
                        .unwrap();
                    secrets.push((Secret::new(name, key), ONCE));
                }
            }
            "key" => {
                let length = u32::from_be_bytes(content[..4].try_into().unwrap());
                let package = &content[4 + usize::try_from(length).unwrap()..];
                let share = &package[package.len() - 32..];
                // Ed25519's encoding has the lowest byte first.
                let record = <arca_proto::v1::Key as prost::Message>::decode(
                    &content[4..4 + usize::try_from(length).unwrap()],
                )
                .unwrap();
                let places = match record.scheme() {
                    arca_proto::v1::Scheme::Ed25519 => ONCE,
                    _ => ONCE_REVERSED,
                };
                secrets.push((Secret::new(named("share"), share), places));
            }
            _ => {}
        }
        *kinds.entry(kind.into_owned()).or_default() += 1;
    }
    assert_eq!(kinds["key"], 4, "{kinds:?}");
    assert_eq!(kinds["party"], 1, "{kinds:?}");
    secrets
}

/// Header and wrapped data key of a sealed blob; `enclave/src/sealing.rs` says where they are.
fn sealed_key(blob: &[u8]) -> (&[u8], &[u8]) {
    let field = |at: usize| 2 + usize::from(u16::from_be_bytes([blob[at], blob[at + 1]]));
    let mut at = 10;
    for _ in 0..3 {
        at += field(at);
    }
    at += 8 + 8 + 32 + 48;
    at += field(at);
    (&blob[..at], &blob[at + 2..at + field(at)])
}
