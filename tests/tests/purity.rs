//! What the sources of the pure crates may not name, and that no library slips in unsafe code. What they may
//! not link stands in `imports.rs`.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Clock, randomness and storage are arguments here.
const PURE: &[&str] = &[
    "attestation",
    "audit",
    "enclave/policy",
    "enclave/threshold",
    "enclave/wipe",
];

/// All libraries but those of platforms, which may need unsafe code: there each block has its safety comment.
const SAFE: &[&str] = &[
    "attestation",
    "attestation/channel",
    "audit",
    "client",
    "enclave",
    "enclave/policy",
    "enclave/simulated",
    "enclave/threshold",
    "enclave/wipe",
    "host",
    "proto",
    "tests",
];

/// Modules of `std` that no pure crate may name.
const IMPURE_MODULES: &[&str] = &["env", "fs", "net", "os", "process", "thread"];

/// Names that no pure crate may name at all: clocks, generators that it was not given, output.
const IMPURE_NAMES: &[&str] = &[
    "Instant",
    "OsRng",
    "SystemTime",
    "ThreadRng",
    "dbg",
    "eprint",
    "eprintln",
    "from_entropy",
    "getrandom",
    "print",
    "println",
    "stderr",
    "stdin",
    "stdout",
    "thread_rng",
];

#[test]
fn pure_sources_name_nothing_impure() {
    let mut violations = Vec::new();
    for folder in PURE {
        for file in rust_files(&root().join(folder).join("src")) {
            let source = std::fs::read_to_string(&file).unwrap();
            violations.extend(
                impurities(&source)
                    .into_iter()
                    .map(|word| format!("{}: {word}", file.display())),
            );
        }
    }
    assert!(
        violations.is_empty(),
        "pure crates name\n{}",
        violations.join("\n")
    );
}

#[test]
fn libraries_forbid_unsafe_code() {
    for folder in SAFE {
        let library = std::fs::read_to_string(root().join(folder).join("src/lib.rs")).unwrap();
        assert!(
            library
                .lines()
                .any(|line| line == "#![forbid(unsafe_code)]"),
            "{folder} does not forbid unsafe code"
        );
    }
}

#[test]
fn sees_impure_names() {
    let cases: [(&str, &[&str]); 9] = [
        ("use std::fs;", &["std::fs"]),
        (
            "use std::{collections::BTreeMap, net::{IpAddr, TcpStream}};",
            &["std::net"],
        ),
        ("let home = std::env::var(\"HOME\");", &["std::env"]),
        ("use std::time::{Duration, Instant};", &["Instant"]),
        ("let now = std::time::SystemTime::now();", &["SystemTime"]),
        ("let share = Scalar::random(&mut OsRng);", &["OsRng"]),
        ("println!(\"{share}\");", &["println"]),
        ("use std as s;", &["std as"]),
        (
            "use std::collections::BTreeMap; // fs\n// use std::fs;\n/// An `Instant`\n#[cfg(test)]\nuse std::fs;",
            &[],
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(
            impurities(source)
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
            expected,
            "{source}"
        );
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                rust_files(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// What a source names that a pure crate must not. Works on words: comment lines and the tests at a file's end
/// do not count, texts do.
fn impurities(source: &str) -> BTreeSet<String> {
    let code: String = source
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let words: Vec<&str> = code
        .split(|character: char| character.is_whitespace())
        .flat_map(|part| {
            part.split_inclusive(|character: char| !character.is_alphanumeric() && character != '_')
        })
        .flat_map(|part| match part.char_indices().last() {
            Some((at, last)) if !last.is_alphanumeric() && last != '_' => {
                vec![&part[..at], &part[at..]]
            }
            _ => vec![part],
        })
        .filter(|word| !word.is_empty())
        .collect();

    let mut found: BTreeSet<String> = words
        .iter()
        .filter(|word| IMPURE_NAMES.contains(word))
        .map(|word| (*word).to_owned())
        .collect();
    for (at, word) in words.iter().enumerate() {
        if *word != "std" {
            continue;
        }
        match words.get(at + 1..at + 4) {
            Some([":", ":", "{"]) => {
                let group = words.iter().skip(at + 4).take_while(|word| **word != ";");
                let modules = group.filter(|word| IMPURE_MODULES.contains(word));
                found.extend(modules.map(|module| format!("std::{module}")));
            }
            Some([":", ":", module]) if IMPURE_MODULES.contains(module) => {
                found.insert(format!("std::{module}"));
            }
            // Any other way to name `std` would hide what follows.
            Some(["as", ..]) => {
                found.insert("std as".to_owned());
            }
            _ => {}
        }
    }
    found
}
