//! `arca-enclave-hsm` as people and supervisors meet it, where no module is needed.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    process::{Command, Output},
};

use arca_enclave_hsm::EXAMPLE;
use tempfile::TempDir;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_arca-enclave-hsm"))
        .args(arguments)
        .env_remove("ARCA_LOG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const GOOD: &str = "module = 'module.so'\ntoken = { label = 'ceo' }\npin = { file = 'pin' }\nsockets = 'sockets'\n\
                    certificates = ['chain.pem']\n";

fn configured(contents: &str) -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("sockets")).unwrap();
    fs::write(folder.path().join("module.so"), b"no library").unwrap();
    let file = folder.path().join("enclave.toml");
    fs::write(&file, contents).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (folder, file)
}

#[test]
fn a_good_configuration_is_valid_and_shown() {
    let (folder, file) = configured(GOOD);
    let output = run(&["--config", &file, "config", "check"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    let pin = folder.path().join("pin");
    for part in [
        "sessions: 4",
        "call_timeout_seconds: 10",
        pin.to_str().unwrap(),
    ] {
        assert!(shown.contains(part), "{shown}");
    }
}

#[test]
fn a_bad_configuration_says_where_what_and_what_to_do() {
    for (contents, expected) in [
        (String::new(), "missing field `module`"),
        (format!("{GOOD}extra = 1\n"), "unknown field `extra`"),
        (
            format!("{GOOD}sessions = 0\n"),
            "sessions: 0 is not in 1 to 64",
        ),
        (
            format!("{GOOD}call_timeout_seconds = 301\n"),
            "call_timeout_seconds: 301",
        ),
        (format!("{GOOD}presignatures = 4097\n"), "the limit of 4096"),
        (format!("{GOOD}key_label = 'a key'\n"), "key_label"),
        (
            format!("{GOOD}[module_needs]\ntcp = true\n"),
            "unknown field `tcp`",
        ),
        (
            GOOD.replace("label = 'ceo'", "slot = 1"),
            "unknown variant `slot`",
        ),
        (
            GOOD.replace("label = 'ceo'", "label = ' '"),
            "an empty name matches nothing",
        ),
        (
            GOOD.replace("label = 'ceo'", "label = 'a', serial = 'b'"),
            "line 2",
        ),
        // A PIN in the configuration would be in every backup of it.
        (
            GOOD.replace("file = 'pin'", "value = '1234'"),
            "unknown variant `value`",
        ),
        (
            GOOD.replace("{ file = 'pin' }", "'1234'"),
            "unknown variant `1234`",
        ),
        (
            GOOD.replace("'module.so'", "'nowhere.so'"),
            "name the vendor's PKCS#11 library",
        ),
        (
            GOOD.replace("'sockets'", "'nowhere'"),
            "start the host first",
        ),
        (
            GOOD.replace("['chain.pem']", "[]"),
            "arca-enclave-hsm request",
        ),
    ] {
        let (_folder, file) = configured(&contents);
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
fn the_example_is_a_configuration() {
    let printed = run(&["config", "example"]);
    assert_eq!(text(&printed.stdout), EXAMPLE);
    let example = EXAMPLE
        .replace("/usr/lib/softhsm/libsofthsm2.so", "module.so")
        .replace("/run/arca/ceo", "sockets");
    let (_folder, file) = configured(&example);
    let output = run(&["--config", &file, "config", "check"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_missing_configuration_is_named() {
    let output = run(&["--config", "/nonexistent/enclave.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/nonexistent/enclave.toml"));
    for command in [&[][..], &["init"], &["probe"]] {
        let output = run(command);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("--config FILE"));
    }
}

/// No option takes a PIN, and none an anchor: the production program verifies NSMs under the AWS root alone.
#[test]
fn the_command_line_takes_neither_a_pin_nor_a_root() {
    let help = text(&run(&["--help"]).stdout);
    for expected in [
        "Examples:",
        "config check",
        "init",
        "request",
        "probe",
        "Exit codes:",
    ] {
        assert!(help.contains(expected), "{help}");
    }
    for command in [&["--pin", "1234"][..], &["--simulated-root", "root.der"]] {
        assert_eq!(run(command).status.code(), Some(2));
    }
}

#[test]
fn a_library_that_is_none_is_named() {
    let (folder, file) = configured(GOOD);
    let pin = folder.path().join("pin");
    fs::write(&pin, "1234").unwrap();
    fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let output = run(&["--config", &file]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("module.so") && error.contains("check `module`"),
        "{error}"
    );
}

/// The descriptor is what whoever starts the program has opened: here a file that has no name any more.
#[test]
fn a_pin_comes_through_a_descriptor() {
    let (folder, file) = configured(&GOOD.replace("file = 'pin'", "descriptor = 7"));
    let shell = |redirect: &str| {
        let program = env!("CARGO_BIN_EXE_arca-enclave-hsm");
        let output = Command::new("sh")
            .args([
                "-c",
                &format!("exec '{program}' --config '{file}' {redirect}"),
            ])
            .current_dir(folder.path())
            .output()
            .unwrap();
        text(&output.stderr)
    };
    fs::write(folder.path().join("secret"), "1234\n").unwrap();
    // Read: what is wrong is the library.
    let error = shell("7< secret");
    assert!(error.contains("check `module`"), "{error}");
    let error = shell("7< /dev/null");
    assert!(error.contains("PIN descriptor 7: is empty"), "{error}");
    let error = shell("");
    assert!(
        error.contains("PIN descriptor 7") && error.contains("is it open"),
        "{error}"
    );
}
