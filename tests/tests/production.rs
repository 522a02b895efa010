//! Production and simulation cannot be confused: no program that guards something links the simulated platform,
//! and nothing that can be set makes its verifier accept a simulated root.
//!
//! That a verifier with the production anchors refuses simulated evidence is tried in `attestation` and `channel`;
//! here is why such a verifier is the only one that those programs can have.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What runs where something is guarded: programs, and what they are made of. Some may not be there yet.
const PRODUCTION: &[&str] = &[
    "arca-attestation",
    "arca-channel",
    "arca-enclave",
    "arca-enclave-hsm",
    "arca-enclave-nitro",
    "arca-host",
];

/// What no production program may link.
const SIMULATED: &[&str] = &["arca-enclave-simulated", "arca-enclave-hsm-simulated"];

/// Who may name the constructor of simulated trust anchors: where it is, the simulated programs, and the client,
/// which works with clusters of both kinds and decides by the cluster's id.
const MAY_NAME: &[&str] = &[
    "attestation",
    "client",
    "enclave/hsm-simulated",
    "enclave/simulated",
    "tests",
];

/// Crates whose verifier, channel and start-up are the same in every build.
const WITHOUT_FEATURES: &[&str] = &["attestation", "enclave"];

#[test]
fn production_programs_link_no_simulated_platform() {
    let members = members();
    let mut looked_at = 0;
    for name in PRODUCTION {
        if !members.contains_key(*name) {
            continue;
        }
        let linked = linked(name);
        assert!(linked.iter().any(|package| package == name));
        for simulated in SIMULATED {
            assert!(
                !linked.iter().any(|package| package == simulated),
                "{name} links {simulated}"
            );
        }
        looked_at += 1;
    }
    assert!(looked_at >= 4);
    // The same look at a program that does.
    assert!(linked(SIMULATED[0]).iter().any(|name| name == SIMULATED[0]));
}

#[test]
fn production_sources_cannot_make_simulated_anchors() {
    let mut violations = Vec::new();
    for (name, folder) in members() {
        let place = folder.strip_prefix(root()).unwrap().to_str().unwrap();
        if MAY_NAME.contains(&place) {
            continue;
        }
        for file in rust_files(&folder, &members()) {
            let source = std::fs::read_to_string(&file).unwrap();
            if makes_simulated_anchors(&source) {
                violations.push(format!("{name}: {}", file.display()));
            }
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// The constructor that takes roots of one's own is for tests: its only caller in a program is the one that gives it
/// AWS'.
/// The audit log can be left out for a measurement, by the simulated platform alone.
#[test]
fn production_sources_cannot_leave_the_audit_log_out() {
    let members = members();
    for name in ["arca-enclave-hsm", "arca-enclave-nitro"] {
        for file in rust_files(&members[name], &members) {
            let source = std::fs::read_to_string(&file).unwrap();
            assert!(!source.contains("without_log"), "{}", file.display());
        }
    }
}

#[test]
fn the_nitro_enclave_starts_under_aws_roots_alone() {
    let mut named = Vec::new();
    for folder in members()
        .values()
        .filter(|folder| !folder.ends_with("tests"))
    {
        for file in rust_files(folder, &members()) {
            let source = std::fs::read_to_string(&file).unwrap();
            let lines = code(&source)
                .filter(|line| line.contains("danger_start_on"))
                .count();
            if lines > 0 {
                named.push((file.strip_prefix(root()).unwrap().to_owned(), lines));
            }
        }
    }
    named.sort();
    assert_eq!(
        named,
        [(PathBuf::from("enclave/nitro/src/platform.rs"), 2)],
        "where it is, and where production calls it"
    );
}

#[test]
fn sees_how_simulated_anchors_are_made() {
    for source in [
        "let anchors = TrustAnchors::simulated(&root)?;",
        "let anchors = arca_attestation::TrustAnchors::simulated (&root)?;",
        "root.map(TrustAnchors::simulated)",
        "<TrustAnchors>::simulated(&root)",
        "use arca_attestation::TrustAnchors as Anchors;",
        "type Anchors = arca_attestation::TrustAnchors;",
    ] {
        assert!(makes_simulated_anchors(source), "{source}");
    }
    for source in [
        "let anchors = TrustAnchors::production();",
        "use arca_enclave_simulated::nsm;",
        "ReferenceValues::Simulated(Vec::new())",
        "fn is_simulated(&self) -> bool",
        "// TrustAnchors::simulated(&root) is for others",
    ] {
        assert!(!makes_simulated_anchors(source), "{source}");
    }
}

/// A feature is chosen when a program is built, and one program's choice reaches another's through cargo's
/// unification: here is nothing to choose.
#[test]
fn nothing_can_be_chosen_when_they_are_built() {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_slice(&metadata).unwrap();
    let mut looked_at = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let folder = manifest.parent().unwrap();
        let place = folder.strip_prefix(root()).unwrap();
        if !WITHOUT_FEATURES.iter().any(|top| place.starts_with(top)) {
            continue;
        }
        looked_at += 1;
        let features = package["features"].as_object().unwrap();
        assert!(features.is_empty(), "{} has features", place.display());
        if !place.starts_with("attestation") {
            continue;
        }
        for file in rust_files(folder, &BTreeMap::new()) {
            let source = std::fs::read_to_string(&file).unwrap();
            for line in code(&source) {
                let conditional = line.contains("cfg(") || line.contains("cfg!(");
                assert!(
                    !conditional || line.trim() == "#[cfg(test)]",
                    "{}: {line}",
                    file.display()
                );
                for outside in ["env!(", "std::env", "var("] {
                    assert!(!line.contains(outside), "{}: {line}", file.display());
                }
            }
        }
    }
    assert!(looked_at >= 6);
}

fn makes_simulated_anchors(source: &str) -> bool {
    code(source).any(|line| {
        let names_it = line.match_indices("::simulated").any(|(at, found)| {
            let next = line[at + found.len()..].chars().next();
            !next.is_some_and(|c| c.is_alphanumeric() || c == '_')
        });
        let renames_it = line.contains("TrustAnchors as ")
            || (line
                .trim_start()
                .trim_start_matches("pub ")
                .starts_with("type ")
                && line.contains("TrustAnchors"));
        names_it || renames_it
    })
}

/// The lines that are no comment.
fn code(source: &str) -> impl Iterator<Item = &str> {
    source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
}

/// Every package that is linked into this one or runs when it is built, itself included, with the features that
/// it has when built alone.
fn linked(package: &str) -> Vec<String> {
    let arguments = [
        "tree",
        "-p",
        package,
        "-e",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    let tree = String::from_utf8(cargo(&arguments)).unwrap();
    tree.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Our packages with their folders.
fn members() -> BTreeMap<String, PathBuf> {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_slice(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str().unwrap());
            (
                package["name"].as_str().unwrap().to_owned(),
                manifest.parent().unwrap().to_owned(),
            )
        })
        .collect()
}

/// What a crate is built from: `src` and a build script, without the crates inside its folder.
fn rust_files(folder: &Path, others: &BTreeMap<String, PathBuf>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.join("src")];
    files.extend(Some(folder.join("build.rs")).filter(|file| file.exists()));
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() && !others.values().any(|other| *other == path) {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

fn cargo(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problem}");
    output.stdout
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
