//! The whole command line against a real cluster: from empty folders to signatures.
//!
//! Needs the programs beside `arca`: `cargo build -p arca-host -p arca-enclave-simulated`.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use arca_client::local::{Anvil, Binaries, Process};
use arca_client::{GroupKey, Scheme, address, psbt, solana};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};
use serde_json::Value;

const PARTIES: [&str; 3] = ["ceo", "cto", "cloud"];

/// Three parties and everything that their people have on their disks.
struct World {
    folder: tempfile::TempDir,
    binaries: Binaries,
    addresses: Vec<(&'static str, String)>,
    processes: Vec<Process>,
}

impl World {
    /// Initialised, configured and running; nobody is enrolled.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let beside = Path::new(env!("CARGO_BIN_EXE_arca")).parent().unwrap();
        let binaries = Binaries::in_folder(beside)
            .expect("cargo build -p arca-host -p arca-enclave-simulated");
        let addresses = PARTIES.map(|party| (party, free_address())).to_vec();
        let mut world = Self {
            folder,
            binaries,
            addresses,
            processes: Vec::new(),
        };
        let root = world.path("root");
        succeed(
            Command::new(&world.binaries.enclave)
                .arg("make-root")
                .arg(&root),
        );
        let measurements = succeed(Command::new(&world.binaries.enclave).arg("measurements"));
        std::fs::write(world.path("measurements.json"), measurements.stdout).unwrap();
        for (party, address) in world.addresses.clone() {
            world.start_party(party, &address);
        }
        world
    }

    fn start_party(&mut self, party: &'static str, address: &str) {
        let peers = self.addresses.iter().filter(|(name, _)| *name != party);
        let peers: Vec<String> = peers
            .map(|(name, address)| format!("--peer={name}={address}"))
            .collect();
        let mut arguments = vec![
            "party",
            "init",
            party,
            "--dir",
            party,
            "--simulated-root",
            "root",
            "--listen",
            address,
        ];
        arguments.extend(peers.iter().map(String::as_str));
        let written = self.json(&arguments);
        for (program, config) in [
            (
                self.binaries.host.clone(),
                written["host_config"].as_str().unwrap(),
            ),
            (
                self.binaries.enclave.clone(),
                written["enclave_config"].as_str().unwrap(),
            ),
        ] {
            succeed(Command::new(&program).args(["--config", config, "config", "check"]));
            let name = program.file_name().unwrap().to_str().unwrap();
            let log = self.path(&format!("{party}-{name}.log"));
            let process = Process::start(
                name,
                &self.binaries.arca,
                &program,
                &["--config", config],
                log,
            )
            .unwrap();
            self.processes.push(process);
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn arca(&self, arguments: &[&str]) -> Output {
        self.arca_with(arguments, &[])
    }

    fn arca_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_arca"))
            .args(["--output", "json", "--profile", "profile.toml"])
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that fails early does not read its input.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.json_with(arguments, &[])
    }

    /// What a command prints, which has to succeed and to say that all of this is simulated.
    fn json_with(&self, arguments: &[&str], input: &[u8]) -> Value {
        let output = self.arca_with(arguments, input);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        let about_cluster =
            arguments.get(1).is_none_or(|word| *word != "enroll") || value.get("cluster").is_some();
        assert!(
            !about_cluster || value["simulated"] == true,
            "{arguments:?}"
        );
        value
    }

    /// Exit code and reason of a command that has to fail.
    fn failure(&self, arguments: &[&str]) -> (i32, String) {
        self.failure_with(arguments, &[])
    }

    fn failure_with(&self, arguments: &[&str], input: &[u8]) -> (i32, String) {
        let output = self.arca_with(arguments, input);
        assert!(
            !output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        let reason = error["error"]["reason"].as_str().unwrap().to_owned();
        (output.status.code().unwrap(), reason)
    }

    /// Repeats a command until its exit code and output are right: something else has to happen first.
    fn until(&self, arguments: &[&str], right: impl Fn(i32, &Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let output = self.arca(arguments);
            let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
            if right(output.status.code().unwrap(), &value) {
                return value;
            }
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(Instant::now() < end, "{arguments:?}: {value} {complaint}");
        }
    }

    /// Administrators and parties agree on a manifest; the treasury gets a profile.
    fn enroll(&self) {
        let mut draft = vec![
            "party",
            "enroll",
            "draft",
            "manifest.json",
            "--cluster",
            "sim-test",
            "--quorum",
            "2",
            "--simulated-root",
            "root/root.der",
            "--measurements",
            "measurements.json",
        ]
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
        for name in ["alice", "bob", "carol"] {
            let key = self.json(&[
                "party",
                "enroll",
                "administrator-key",
                &format!("{name}.pem"),
            ]);
            draft.push(format!(
                "--administrator={name}={}",
                key["public_key"].as_str().unwrap()
            ));
        }
        let key = self.json(&["party", "enroll", "principal-key", "treasury.pem"]);
        let key = key["public_key"].as_str().unwrap();
        draft.push(format!("--principal=treasury={key}:operator,initiator"));
        let parties: Vec<String> = self
            .addresses
            .iter()
            .map(|(party, address)| format!("--party={party}={address}"))
            .collect();
        draft.extend(parties.iter().cloned());
        let draft: Vec<&str> = draft.iter().map(String::as_str).collect();
        // The enclaves are just starting: 4 says that one cannot be reached.
        let drafted = self.until(&draft, |code, _| {
            assert!(code == 0 || code == 4, "{code}");
            code == 0
        });
        assert_eq!(drafted["candidates"].as_array().unwrap().len(), 3);

        for name in ["alice", "bob"] {
            let (key, signature) = (format!("{name}.pem"), format!("{name}.json"));
            self.json(&[
                "party",
                "enroll",
                "sign",
                "manifest.json",
                &signature,
                "--key",
                &key,
            ]);
        }
        let assemble = [
            "party",
            "enroll",
            "assemble",
            "manifest.json",
            "signed.json",
            "alice.json",
        ];
        assert_eq!(self.failure(&assemble).0, 5, "one signature is no quorum");
        assert_eq!(
            self.failure(&[&assemble[..], &["alice.json"]].concat()).0,
            5,
            "nor is the same one twice"
        );
        self.json(&[&assemble[..], &["bob.json"]].concat());

        let mut apply = vec![
            "party",
            "enroll",
            "apply",
            "signed.json",
            "--simulated-root",
            "root/root.der",
            "--write-profile",
            "profile.toml",
            "--principal-key",
            "treasury.pem",
        ];
        apply.extend(parties.iter().map(String::as_str));
        self.json(&apply);
        self.json(&["config", "check"]);
    }
}

#[test]
fn from_empty_folders_to_signatures() {
    let mut world = World::start();
    world.enroll();
    let others = |party: &Value, key: &str| party[key].as_array().map_or(0, Vec::len);
    let status = world.until(&["status"], |code, status| {
        let parties = status["parties"].as_array().cloned().unwrap_or_default();
        code == 0
            && parties
                .iter()
                .all(|party| others(party, "connected_to") == 2)
    });
    assert!(
        status["parties"]
            .as_array()
            .unwrap()
            .iter()
            .all(|party| party["attested"] == true)
    );
    assert_eq!(
        world.json(&["party", "list"])["parties"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    evidence(&world);

    let create = [
        "key",
        "create",
        "--threshold",
        "2",
        "--request-id",
        "one",
        "--name",
        "btc",
        "--scheme",
        "bip340",
    ];
    let key = world.json(&create);
    assert_eq!(
        world.json(&create),
        key,
        "the same request makes the same key"
    );
    world.json(&[
        "key",
        "create",
        "--threshold",
        "2",
        "--name",
        "sol",
        "--scheme",
        "ed25519",
    ]);
    assert_eq!(
        world.json(&["key", "list"])["keys"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    for party in PARTIES {
        assert_eq!(
            world.json(&["key", "show", "btc", "--party", party])["public_key"],
            key["public_key"]
        );
    }
    signatures(&world);
    refusals(&world);
    ecdsa_keys(&world);
    addresses(&world);
    ecdsa_signatures(&world);
    ecdsa_refusals(&world);

    // The enclave of the party that commands ask first; its host stays. They turn to the next one.
    drop(world.processes.remove(1));
    let status = world.until(&["status"], |code, _| code == 4);
    let parties = status["parties"].as_array().unwrap();
    let attested = parties.iter().filter(|party| party["attested"] == true);
    assert_eq!(attested.count(), 2);
    assert_eq!(world.failure(&["key", "list", "--party", "ceo"]).0, 4);
    signatures(&world);
    ecdsa_signatures(&world);
}

fn evidence(world: &World) {
    let shown = world.json(&["party", "evidence", "ceo", "--save", "ceo.cose"]);
    let shown = &shown["evidence"][0];
    let checks = shown["appraisal"]["checks"].as_array().unwrap();
    assert!(checks.len() > 15);
    assert!(checks.iter().all(|check| check["outcome"] == "passed"));
    assert!(!shown["protections"].as_array().unwrap().is_empty());
    let field = |name: &str| shown[name].as_str().unwrap();
    let bound = [
        "--nonce",
        field("nonce"),
        "--public-key",
        field("public_key"),
        "--user-data",
        field("user_data"),
    ];
    let document = ["evidence", "verify", "ceo.cose"];
    let measured = ["--measurements", "measurements.json"];
    let verify = [&document[..], &measured, &bound].concat();
    let simulated = [&verify[..], &["--simulated-root", "root/root.der"]].concat();
    assert_eq!(world.json(&simulated)["trust_class"], "simulated");
    assert_eq!(
        world.json(&simulated)["document"]["module_id"],
        field("module_id")
    );
    let live = [&simulated[..], &["--live"]].concat();
    assert_eq!(world.json(&live)["verified"], true);
    let nonce = "00112233445566778899aabbccddeeff";
    let asked = world.json(&["party", "evidence", "ceo", "--nonce", nonce]);
    assert_eq!(asked["evidence"][0]["nonce"], nonce);
    let other = [&document[..], &measured, &["--nonce", nonce]].concat();
    let other = [&other[..], &["--simulated-root", "root/root.der"]].concat();
    assert_eq!(world.failure(&other).0, 5, "it was made over another nonce");
    let all = world.json(&["party", "evidence"]);
    assert_eq!(all["evidence"].as_array().unwrap().len(), 3);
    // Whoever does not name the simulated root verifies for production.
    assert_eq!(world.failure(&verify).0, 5);

    // Without a principal's key one can look at the evidence, and at nothing else.
    let profile = std::fs::read_to_string(world.path("profile.toml")).unwrap();
    let (before, after) = profile.split_once("[principal]").unwrap();
    let (_, after) = after.split_once("[parties]").unwrap();
    std::fs::write(
        world.path("visitor.toml"),
        format!("{before}[parties]{after}"),
    )
    .unwrap();
    let visitor = |command: &[&'static str]| [&["--profile", "visitor.toml"], command].concat();
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_arca"))
            .args(arguments)
            .current_dir(world.folder.path())
            .output()
            .unwrap()
            .status
            .code()
    };
    assert_eq!(run(&visitor(&["party", "evidence"])), Some(0));
    assert_eq!(run(&visitor(&["key", "list"])), Some(6));
}

fn signatures(world: &World) {
    let key = public_key(world, "btc");
    let spend = unsigned(&key);
    std::fs::write(world.path("spend.psbt"), spend.serialize()).unwrap();
    let by_file = ["sign", "psbt", "spend.psbt", "--key", "btc", "--wait"];
    let signed = world.json(&by_file);
    let hex = signed["transaction"]["hex"].as_str().unwrap();
    let transaction: Transaction = bitcoin::consensus::encode::deserialize_hex(hex).unwrap();
    assert_eq!(transaction.compute_txid(), spend.unsigned_tx.compute_txid());
    let coins = [spend.inputs[0].witness_utxo.clone().unwrap()];
    psbt::verify(&transaction, &coins, &coins[0].script_pubkey, &[0]).unwrap();
    let by_stdin = ["sign", "psbt", "-", "--key", "btc", "--wait"];
    let again = world.json_with(&by_stdin, spend.to_string().as_bytes());
    assert_eq!(again["transaction"]["txid"], signed["transaction"]["txid"]);

    let key = public_key(world, "sol");
    let message = solana::transfer(&key, &[9; 32], 5, &[7; 32]);
    let signed = world.json_with(
        &["sign", "solana", "-", "--key", "sol", "--wait"],
        message.bytes(),
    );
    assert_eq!(
        signed["transaction"]["missing_signers"]
            .as_array()
            .unwrap()
            .len(),
        0
    );

    // Not waited for, and found again.
    let request = world.json_with(&["sign", "psbt", "-", "--key", "btc"], &spend.serialize());
    let name = request["signing_request"]["name"].as_str().unwrap();
    let shown = world.until(&["sign", "show", name], |code, shown| {
        assert_eq!(code, 0);
        shown["signing_request"]["state"] == "SIGNED"
    });
    assert_eq!(
        shown["signing_request"]["signers"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

const PATH: &str = "m/44/60/0/0/7";

fn ecdsa_keys(world: &World) {
    for (name, scheme, more) in [
        ("eth", "ecdsa-secp256k1", &[][..]),
        ("raw", "ecdsa-secp256k1", &["--allow-raw-digest"]),
        ("p256", "ecdsa-p256", &["--allow-raw-digest"]),
    ] {
        let create = [
            "key",
            "create",
            "--threshold",
            "2",
            "--name",
            name,
            "--scheme",
            scheme,
        ];
        let key = world.json(&[&create[..], more].concat());
        assert_eq!(key["scheme"], scheme);
        assert_eq!(key["public_key"].as_str().unwrap().len(), 66);
        assert_eq!(key["chain_code"].as_str().unwrap().len(), 64);
    }
    let output = Command::new(env!("CARGO_BIN_EXE_arca"))
        .args(["--profile", "profile.toml", "key", "show", "eth"])
        .current_dir(world.folder.path())
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    for field in ["chain code", "xpub661", "fingerprint", "0x", "bc1q"] {
        assert!(shown.contains(field), "{field}: {shown}");
    }
}

fn addresses(world: &World) {
    let address = |arguments: &[&str]| world.json(&[&["key", "address"], arguments].concat());
    let shown = address(&["eth", "--path", PATH]);
    let child = ecdsa_key(world, "eth")
        .derive(&PATH.parse().unwrap())
        .unwrap();
    assert_eq!(shown["public_key"], hex::encode(child));
    assert_eq!(
        (&shown["path"], &shown["chain"]),
        (&PATH.into(), &"ethereum".into())
    );
    assert_eq!(shown["address"], address::ethereum(&child).unwrap());
    assert_ne!(shown["address"], address(&["eth"])["address"]);
    let bitcoin = [
        "eth",
        "--chain",
        "bitcoin",
        "--path",
        PATH,
        "--network",
        "regtest",
    ];
    let bitcoin = address(&bitcoin);
    let expected = address::p2wpkh(&child, address::Network::Regtest).unwrap();
    assert_eq!(bitcoin["address"], expected.to_string());
    assert_eq!(bitcoin["network"], "regtest");
    assert!(
        address(&["btc"])["address"]
            .as_str()
            .unwrap()
            .starts_with("bc1p")
    );
    assert_eq!(address(&["sol"])["chain"], "solana");

    let refused = |arguments: &[&str]| world.failure(&[&["key", "address"], arguments].concat()).0;
    assert_eq!(refused(&["p256"]), 3, "no chain has such addresses");
    assert_eq!(refused(&["btc", "--chain", "ethereum"]), 3);
    assert_eq!(refused(&["sol", "--path", "m/1"]), 3);
}

fn ecdsa_signatures(world: &World) {
    ethereum(world);

    // One input is at the path of the request, the other at one that the PSBT names.
    let key = ecdsa_key(world, "eth");
    let paths = ["m/84/0/0/0/1", "m/84/0/0/1/5"];
    let keys = paths.map(|path| key.derive(&path.parse().unwrap()).unwrap());
    let mut spend = unsigned_p2wpkh(&keys);
    let fingerprint = key.xpub(bitcoin::NetworkKind::Main).unwrap().fingerprint();
    spend.inputs[1].bip32_derivation.insert(
        bitcoin::secp256k1::PublicKey::from_slice(&keys[1]).unwrap(),
        (fingerprint, paths[1].parse().unwrap()),
    );
    let sign = [
        "sign", "psbt", "-", "--key", "eth", "--path", paths[0], "--wait",
    ];
    let signed = world.json_with(&sign, &spend.serialize());
    let hex = signed["transaction"]["hex"].as_str().unwrap();
    let transaction: Transaction = bitcoin::consensus::encode::deserialize_hex(hex).unwrap();
    let coins: Vec<TxOut> = spend
        .inputs
        .iter()
        .map(|input| input.witness_utxo.clone().unwrap())
        .collect();
    for (index, coin) in coins.iter().enumerate() {
        psbt::verify(&transaction, &coins, &coin.script_pubkey, &[index]).unwrap();
    }

    let digest = "ab".repeat(32);
    for (key, path) in [("raw", PATH), ("raw", "m"), ("p256", "m")] {
        let signed = world.json(&[
            "sign", "digest", &digest, "--key", key, "--path", path, "--wait",
        ]);
        let expected = ecdsa_key(world, key)
            .derive(&path.parse().unwrap())
            .unwrap();
        assert_eq!(signed["transaction"]["public_key"], hex::encode(expected));
        assert_eq!(
            signed["transaction"]["signature"].as_str().unwrap().len(),
            128
        );
        assert_eq!(signed["signing_request"]["derivation_path"], path);
    }
}

fn ethereum(world: &World) {
    let sender = world.json(&["key", "address", "eth", "--path", PATH])["address"].clone();
    let mut transaction = serde_json::json!({
        "from": sender, "chainId": 31337, "nonce": 0, "to": "0x3535353535353535353535353535353535353535",
        "value": "1000000000", "gas": 21000, "maxFeePerGas": "3000000000", "maxPriorityFeePerGas": "1",
    });
    let sign = ["sign", "eth", "-", "--key", "eth", "--path", PATH, "--wait"];
    let signed = world.json_with(&sign, transaction.to_string().as_bytes());
    assert_eq!(signed["transaction"]["from"], sender);
    assert_eq!(signed["transaction"]["type"], "EIP-1559");
    let summary = signed["signing_request"]["summary"].as_str().unwrap();
    assert!(summary.contains("1000000000 wei"), "{summary}");

    let Some(program) = Anvil::find().unwrap() else {
        // Past the harness, which shows what passing tests print to nobody.
        let skipped = b"SKIPPED arca sign eth --broadcast: no anvil; `make test` installs it where there is npm\n";
        std::io::stderr().write_all(skipped).unwrap();
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir_in(world.folder.path()).unwrap();
    let start = Anvil::start(&program, &world.binaries.arca, folder.path());
    let anvil = runtime.block_on(start).unwrap();
    let fund = anvil.fund(sender.as_str().unwrap(), 1_000_000_000_000_000_000);
    assert!(runtime.block_on(fund).unwrap().success);
    let broadcast = [&sign[..], &["--broadcast", anvil.url()]].concat();
    let mined = world.json_with(&broadcast, transaction.to_string().as_bytes());
    assert_eq!(mined["receipt"]["success"], true);
    assert_eq!(
        mined["receipt"]["transaction_hash"],
        mined["transaction"]["hash"]
    );

    // The node's own refusal, and a transaction of another chain.
    let (code, reason) = world.failure_with(&broadcast, transaction.to_string().as_bytes());
    assert_eq!((code, reason.as_str()), (6, "NODE_REFUSED"));
    transaction["chainId"] = 1.into();
    let (code, _) = world.failure_with(&broadcast, transaction.to_string().as_bytes());
    assert_eq!(code, 3);
}

fn ecdsa_refusals(world: &World) {
    let transaction = r#"{"chainId": 1, "nonce": 0, "gas": 21000, "gasPrice": 1, "to": "0x3535353535353535353535353535353535353535"}"#;
    let eth = |key: &str, more: &[&str], input: &str| {
        let arguments = [&["sign", "eth", "-", "--key", key], more].concat();
        world.failure_with(&arguments, input.as_bytes())
    };
    let reason = |failure: (i32, String)| {
        assert_eq!(failure.0, 6);
        failure.1
    };
    assert_eq!(reason(eth("p256", &[], transaction)), "SCHEME_MISMATCH");
    assert_eq!(reason(eth("btc", &[], transaction)), "SCHEME_MISMATCH");
    assert_eq!(reason(eth("eth", &[], "0x02c0")), "PAYLOAD_MALFORMED");
    assert_eq!(eth("eth", &[], "{}").0, 3);
    assert_eq!(
        eth("eth", &["--wait", "--broadcast", "https://x"], transaction).0,
        3
    );
    let stranger = transaction.replace(
        "{",
        r#"{"from": "0x3535353535353535353535353535353535353535", "#,
    );
    assert_eq!(eth("eth", &[], &stranger).0, 3, "another sender");

    let digest = "ab".repeat(32);
    let sign = |key: &str, path: &str| {
        reason(world.failure(&["sign", "digest", &digest, "--key", key, "--path", path]))
    };
    assert_eq!(sign("eth", PATH), "RAW_DIGEST_NOT_ALLOWED");
    assert_eq!(sign("p256", "m/1"), "DERIVATION_PATH");
    assert_eq!(sign("btc", "m/1"), "DERIVATION_PATH");
    // A key signs what is its own: taproot inputs are none of an ECDSA key.
    let taproot = unsigned(&public_key(world, "btc")).serialize();
    let (code, reason) = world.failure_with(&["sign", "psbt", "-", "--key", "eth"], &taproot);
    assert_eq!((code, reason.as_str()), (6, "PSBT_NO_INPUT_OF_KEY"));
}

fn ecdsa_key(world: &World, name: &str) -> GroupKey {
    let key = world.json(&["key", "show", name]);
    let bytes = |field: &str| hex::decode(key[field].as_str().unwrap()).unwrap();
    let scheme = match key["scheme"].as_str().unwrap() {
        "ecdsa-p256" => Scheme::EcdsaP256,
        _ => Scheme::EcdsaSecp256k1,
    };
    GroupKey::new(scheme, &bytes("public_key"), &bytes("chain_code")).unwrap()
}

/// A spend of one P2WPKH output of each key, with the transaction that made them: it proves their amounts.
fn unsigned_p2wpkh(keys: &[[u8; 33]]) -> Psbt {
    let mut funding = unsigned(&psbt_key_of_nobody()).unsigned_tx;
    funding.output = keys
        .iter()
        .map(|key| TxOut {
            value: Amount::from_sat(100_000),
            script_pubkey: ScriptBuf::from_bytes(arca_policy::p2wpkh_script(key)),
        })
        .collect();
    let mut transaction = unsigned(&psbt_key_of_nobody()).unsigned_tx;
    transaction.input = (0..)
        .zip(keys)
        .map(|(vout, _)| TxIn {
            previous_output: OutPoint::new(funding.compute_txid(), vout),
            ..TxIn::default()
        })
        .collect();
    let mut psbt = Psbt::from_unsigned_tx(transaction).unwrap();
    for (input, output) in psbt.inputs.iter_mut().zip(&funding.output) {
        input.witness_utxo = Some(output.clone());
        input.non_witness_utxo = Some(funding.clone());
    }
    psbt
}

fn refusals(world: &World) {
    let digest = "ab".repeat(32);
    let (code, reason) = world.failure(&["sign", "digest", &digest, "--key", "btc", "--wait"]);
    assert_eq!((code, reason.as_str()), (6, "RAW_DIGEST_NOT_ALLOWED"));
    let foreign = unsigned(&psbt_key_of_nobody()).serialize();
    let (code, reason) =
        world.failure_with(&["sign", "psbt", "-", "--key", "btc", "--wait"], &foreign);
    assert_eq!((code, reason.as_str()), (6, "PSBT_NO_INPUT_OF_KEY"));
    let create = [
        "key",
        "create",
        "--threshold",
        "3",
        "--request-id",
        "one",
        "--name",
        "btc",
        "--scheme",
        "bip340",
    ];
    assert_eq!(world.failure(&create), (6, "REQUEST_ID_REUSED".to_owned()));
    assert_eq!(
        world
            .failure(&[
                "key",
                "create",
                "--threshold",
                "9",
                "--name",
                "x",
                "--scheme",
                "bip340"
            ])
            .0,
        6
    );
    assert_eq!(
        world
            .failure(&["key", "show", "keys/00000000000000000000000000000000"])
            .0,
        6
    );
    assert_eq!(world.failure(&["key", "show", "no such key"]).0, 3);
    assert_eq!(
        world.failure(&["sign", "psbt", "-", "--key", "sol"]).0,
        3,
        "no PSBT"
    );
    let own = unsigned(&public_key(world, "btc")).serialize();
    assert_eq!(
        world.failure_with(&["sign", "psbt", "-", "--key", "sol"], &own),
        (6, "SCHEME_MISMATCH".to_owned())
    );
    assert_eq!(
        world
            .failure(&[
                "sign",
                "show",
                "signingRequests/00000000000000000000000000000000"
            ])
            .0,
        6
    );
    assert_eq!(world.failure(&["key", "list", "--party", "cfo"]).0, 3);
}

fn public_key(world: &World, name: &str) -> [u8; 32] {
    let key = world.json(&["key", "show", name]);
    hex::decode(key["public_key"].as_str().unwrap())
        .unwrap()
        .try_into()
        .unwrap()
}

/// BIP-86's first test vector.
fn psbt_key_of_nobody() -> [u8; 32] {
    let key = "cc8a4bc64d897bddc5fbc2f670f7a8ba0b386779106cf1223c6fc5d7cd6fc115";
    hex::decode(key).unwrap().try_into().unwrap()
}

fn unsigned(key: &[u8; 32]) -> Psbt {
    let transaction = Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(Txid::from_byte_array([8; 32]), 1),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(90_000),
            script_pubkey: psbt::output_script(&psbt_key_of_nobody()).unwrap(),
        }],
    };
    let mut psbt = Psbt::from_unsigned_tx(transaction).unwrap();
    psbt.inputs[0].witness_utxo = Some(TxOut {
        value: Amount::from_sat(100_000),
        script_pubkey: psbt::output_script(key).unwrap(),
    });
    psbt
}

/// Below the ports that the kernel gives to whoever connects.
fn free_address() -> String {
    use rand_core::RngCore;
    loop {
        let port = 30_000 + rand_core::OsRng.next_u32() % 2_000;
        let address = format!("127.0.0.1:{port}");
        if std::net::TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
