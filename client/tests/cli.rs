//! The `arca` command from outside: exit codes, JSON, help.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::process::{Command, Output};

use serde_json::Value;

fn arca(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_arca"))
        .args(arguments)
        .env_remove("ARCA_PROFILE")
        .env_remove("ARCA_BIN_DIR")
        .env_remove("COLUMNS")
        .env("HOME", "/nonexistent")
        .env_remove("XDG_CONFIG_HOME")
        .output()
        .unwrap()
}

fn code(arguments: &[&str]) -> i32 {
    arca(arguments).status.code().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The one JSON object of a stream.
fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn help_is_as_it_was_agreed() {
    let output = arca(&["--help"]);
    assert!(output.status.success());
    assert_eq!(
        text(&output.stdout),
        include_str!("help.txt"),
        "see tests/help.txt"
    );
}

#[test]
fn wrong_arguments_are_2() {
    assert_eq!(code(&[]), 2);
    assert_eq!(code(&["nonsense"]), 2);
    assert_eq!(code(&["key", "create", "--name", "x"]), 2);
    assert_eq!(
        code(&["sign", "psbt", "-", "--key", "x", "--timeout", "0"]),
        2
    );
    assert_eq!(
        code(&[
            "party",
            "init",
            "CEO",
            "--dir",
            "x",
            "--listen",
            "a:1",
            "--simulated-root",
            "r"
        ]),
        2
    );
    assert_eq!(code(&["bench", "--concurrency", "0"]), 2);
    let broadcast = ["sign", "eth", "-", "--key", "x", "--broadcast", "http://x"];
    assert_eq!(code(&broadcast), 2, "what is not waited for is not sent");
}

#[test]
fn a_hardened_path_is_2_and_says_why_it_cannot_be() {
    for command in [
        &["key", "address", "x"][..],
        &["sign", "eth", "-", "--key", "x"],
        &["sign", "psbt", "-", "--key", "x"],
        &["sign", "digest", "00", "--key", "x"],
    ] {
        let output = arca(&[command, &["--path", "m/44'/60'/0'/0/7"]].concat());
        assert_eq!(output.status.code(), Some(2));
        let complaint = text(&output.stderr);
        assert!(complaint.contains("step 44' is hardened"), "{complaint}");
        assert!(complaint.contains("whole private key"), "{complaint}");
    }
}

#[test]
fn a_demo_with_a_wrong_node_says_which() {
    let output = arca(&["demo", "--anvil", "/nowhere/anvil"]);
    let complaint = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{complaint}");
    assert!(complaint.contains("/nowhere/anvil"), "{complaint}");
}

#[test]
fn a_missing_profile_is_3_and_says_what_to_do() {
    for command in [
        &["status"][..],
        &["key", "list"],
        &["config", "check"],
        &["party", "evidence"],
    ] {
        let output = arca(command);
        assert_eq!(output.status.code(), Some(3));
        assert!(output.stdout.is_empty());
        assert!(text(&output.stderr).contains("/nonexistent/.config/arca/profile.toml"));
        assert!(text(&output.stderr).contains("what to do:"));
    }
}

#[test]
fn errors_are_json_where_results_are() {
    let output = arca(&["status", "--output", "json", "--profile", "/nowhere"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    let error = &json(&output.stderr)["error"];
    assert_eq!(error["reason"], "CONFIG_INVALID");
    assert_eq!(error["exit_code"], 3);
    assert!(error["advice"].as_str().unwrap().contains("--profile"));
}

#[test]
fn a_demo_without_its_programs_says_how_to_get_them() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_arca"))
        .arg("demo")
        .env("ARCA_BIN_DIR", folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("cargo build --release"));
}

#[test]
fn files_of_a_party_are_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ceo");
    let arguments = [
        "party",
        "init",
        "ceo",
        "--dir",
        dir.to_str().unwrap(),
        "--listen",
        "127.0.0.1:7101",
        "--peer",
        "cto=127.0.0.1:7102",
        "--simulated-root",
        "root",
        "--output",
        "json",
    ];
    let output = arca(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(json(&output.stdout)["simulated"], true);
    assert!(dir.join("host.toml").is_file() && dir.join("enclave.toml").is_file());
    assert_eq!(code(&arguments), 3, "a configuration was overwritten");
}

#[test]
fn keys_are_made_once_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["administrator-key", "principal-key"] {
        let file = folder.path().join(command);
        let file = file.to_str().unwrap();
        let output = arca(&["party", "enroll", command, file]);
        assert!(output.status.success());
        assert!(!text(&output.stdout).contains("BEGIN"));
        assert_eq!(code(&["party", "enroll", command, file]), 3);
    }
}

#[test]
fn an_enclave_that_is_not_there_is_4() {
    let folder = tempfile::tempdir().unwrap();
    let measurements = folder.path().join("measurements.json");
    let hex = "aa".repeat(48);
    std::fs::write(
        &measurements,
        format!(r#"{{"pcr0": "{hex}", "pcr1": "{hex}", "pcr2": "{hex}"}}"#),
    )
    .unwrap();
    // Bound and not listening: nobody else takes the port, and nobody answers.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let output = arca(&[
        "party",
        "enroll",
        "draft",
        folder.path().join("manifest.json").to_str().unwrap(),
        "--cluster",
        "acme",
        "--party",
        &format!("ceo={address}"),
        "--measurements",
        measurements.to_str().unwrap(),
        "--administrator",
        &format!("alice={}", "00".repeat(32)),
        "--quorum",
        "1",
    ]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(&address.to_string()));
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = arca(&["completions", shell]);
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("evidence"));
    }
}

#[test]
fn a_small_authority_certifies_what_a_token_asks_for() {
    use p384::ecdsa::{DerSignature, SigningKey};
    use x509_cert::builder::{Builder as _, RequestBuilder};
    use x509_cert::der::EncodePem as _;
    use x509_cert::der::pem::LineEnding;

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let key = SigningKey::from_slice(&[7; 48]).unwrap();
    let request = RequestBuilder::new("CN=ceo".parse().unwrap(), &key).unwrap();
    let request = request.build::<DerSignature>().unwrap();
    std::fs::write(path("ceo.csr"), request.to_pem(LineEnding::LF).unwrap()).unwrap();

    let root = path("root");
    assert_eq!(code(&["hsm", "make-root", &root]), 0);
    assert_eq!(code(&["hsm", "make-root", &root]), 3, "a root was replaced");
    let csr = path("ceo.csr");
    let certify = ["hsm", "certify", "--root", &root, &csr];
    let output = arca(&certify);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let chain = x509_cert::Certificate::load_pem_chain(&output.stdout).unwrap();
    assert_eq!(chain.len(), 2, "standard output is the certificates alone");

    let shown = arca(&[&certify[..], &["--output", "json"]].concat());
    let fingerprint = json(&shown.stdout)["key_sha256"]
        .as_str()
        .unwrap()
        .to_owned();
    let chain = path("chain.pem");
    let to_file = [&certify[..], &[&chain, "--fingerprint"]].concat();
    assert_eq!(code(&[&to_file[..], &[&"00".repeat(32)]].concat()), 5);
    assert_eq!(code(&[&to_file[..], &[&fingerprint]].concat()), 0);
    assert_eq!(
        code(&[&to_file[..], &[&fingerprint]].concat()),
        3,
        "overwritten"
    );
    assert_eq!(code(&[&certify[..], &["--days", "0"]].concat()), 2);
    let other = ["hsm", "certify", "--root", &root, &chain];
    assert_eq!(code(&other), 3, "no request");
}
