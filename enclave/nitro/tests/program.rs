//! `arca-enclave-nitro` as people and images meet it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Command, Output};

use arca_enclave_nitro::EXAMPLE;
use tempfile::TempDir;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_arca-enclave-nitro"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn configured(contents: &str) -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("enclave.toml");
    fs::write(&file, contents).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (folder, file)
}

const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

#[test]
fn the_example_is_a_configuration_with_the_defaults() {
    assert_eq!(text(&run(&["config", "example"]).stdout), EXAMPLE);
    let (_folder, file) = configured(EXAMPLE);
    let long = run(&["--config", &file, "config", "check"]);
    assert_eq!(long.status.code(), Some(0));
    let least = format!("kms = {{ key = '{KEY}', cluster = 'treasury', party = 'ceo' }}\n");
    fs::write(&file, least).unwrap();
    let short = run(&["--config", &file, "config", "check"]);
    assert_eq!(text(&short.stdout), text(&long.stdout));
    assert!(text(&short.stdout).contains(KEY));
}

#[test]
fn a_bad_configuration_says_what_and_where() {
    let key = |arn: &str| format!("[kms]\nkey = '{arn}'\n");
    let alias = key("arn:aws:kms:eu-central-1:111122223333:alias/arca");
    let good = key(KEY);
    for (contents, expected) in [
        (String::new(), "missing field `kms`"),
        ("[kms]\n".into(), "missing field `key`"),
        (alias, "nobody can move"),
        (
            key("1234abcd-12ab-34cd-56ef-1234567890ab"),
            "no ARN of a key",
        ),
        (
            key(&KEY.replace("arn:aws:", "arn:aws-cn:")),
            "no ARN of a key",
        ),
        (key(&KEY.replace("111122223333", "1111")), "no ARN of a key"),
        (
            key(&KEY.replace("eu-central-1", "evil.example/")),
            "no ARN of a key",
        ),
        (key(&KEY.replace("eu-central-1", "")), "no ARN of a key"),
        (key(&format!("{KEY}:x")), "no ARN of a key"),
        (format!("{good}party = 'The CEO'\n"), "kms.party"),
        (format!("{good}roots = 'x'\n"), "unknown field `roots`"),
        (
            format!("{good}endpoint = 'x'\n"),
            "unknown field `endpoint`",
        ),
        (format!("{good}[nsm]\nroot = 'x'\n"), "unknown field `nsm`"),
        (format!("{good}[vsock]\nkms_port = 7002\n"), "one port"),
        (
            format!("{good}[vsock]\nparent_cid = 4294967295\n"),
            "parent_cid",
        ),
        (
            format!("{good}[ecdsa]\npresignatures = 4097\n"),
            "the limit of 4096",
        ),
    ] {
        let (_folder, file) = configured(&contents);
        for command in [
            &["--config", &file, "config", "check"][..],
            &["--config", &file],
        ] {
            let output = run(command);
            let error = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{contents}: {error}");
            assert!(error.contains(expected), "{contents}: {error}");
            assert!(error.contains("enclave.toml"), "{error}");
        }
    }
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(
        run(&["--config", "/nonexistent.toml"]).status.code(),
        Some(2)
    );
}

/// Where there is no NSM, which is so wherever this test runs.
#[test]
fn it_runs_inside_an_enclave_alone() {
    let (_folder, file) = configured(EXAMPLE);
    let output = run(&["--config", &file]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("/dev/nsm"), "{error}");
}
