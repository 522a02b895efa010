//! Who may import whom, and what the pure crates may not touch: the rules of `docs/architecture.md`.
//!
//! The graph is cargo's own (`cargo metadata`), closed over normal and build dependencies, so that a rule is
//! also broken by a detour through somebody else's crate. It is the graph of the whole workspace, where
//! features unify: larger than that of any binary, never smaller.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each crate of the workspace with those of ours that it may reach. A new crate needs a line.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // The wire imports nothing of ours: each consumer converts at its edge.
    ("arca-proto", &[]),
    ("arca-attestation", &[]),
    ("arca-audit", &[]),
    ("arca-policy", &[]),
    ("arca-wipe", &[]),
    ("arca-threshold", &["arca-wipe"]),
    (
        "arca-channel",
        &["arca-attestation", "arca-proto", "arca-wipe"],
    ),
    // Moves bytes it cannot read, so it links nothing that could. The log it keeps is open to everybody.
    ("arca-host", &["arca-audit", "arca-proto", "arca-vsock"]),
    ("arca-vsock", &[]),
    // Verifies and asks. It measures protocols with keys that end with the process; it never holds a share of
    // a cluster's key.
    (
        "arca-client",
        &[
            "arca-attestation",
            "arca-audit",
            "arca-channel",
            "arca-policy",
            "arca-proto",
            "arca-threshold",
            "arca-wipe",
        ],
    ),
    // Knows the Platform it runs on as a trait, and no platform.
    ("arca-enclave", ENCLAVE_IMPORTS),
    ("arca-enclave-nitro", NITRO_IMPORTS),
    ("arca-enclave-hsm", PLATFORM_IMPORTS),
    // The same platform for simulated clusters: it alone may be given a simulated root.
    ("arca-enclave-hsm-simulated", HSM_SIMULATED_IMPORTS),
    ("arca-enclave-simulated", PLATFORM_IMPORTS),
];

const ENCLAVE_IMPORTS: &[&str] = &[
    "arca-attestation",
    "arca-audit",
    "arca-channel",
    "arca-policy",
    "arca-proto",
    "arca-threshold",
    "arca-wipe",
];
const PLATFORM_IMPORTS: &[&str] = &[
    "arca-attestation",
    "arca-audit",
    "arca-channel",
    "arca-enclave",
    "arca-policy",
    "arca-proto",
    "arca-threshold",
    "arca-wipe",
];
const NITRO_IMPORTS: &[&str] = &[
    "arca-attestation",
    "arca-audit",
    "arca-channel",
    "arca-enclave",
    "arca-policy",
    "arca-proto",
    "arca-threshold",
    "arca-vsock",
    "arca-wipe",
];
const HSM_SIMULATED_IMPORTS: &[&str] = &[
    "arca-attestation",
    "arca-audit",
    "arca-channel",
    "arca-enclave",
    "arca-enclave-hsm",
    "arca-policy",
    "arca-proto",
    "arca-threshold",
    "arca-wipe",
];

/// May import everything, and nothing may import it: it is never shipped.
const TESTS: &str = "arca-tests";

/// Clock, randomness and storage are arguments here.
const PURE: &[&str] = &[
    "arca-attestation",
    "arca-audit",
    "arca-policy",
    "arca-threshold",
    "arca-wipe",
];

/// What no pure crate may reach. `getrandom` and `libc` are missing on purpose: the elliptic-curve crates
/// link them through `rand_core`; that nobody here calls them is checked in the sources.
const IMPURE: &[&str] = &[
    "arca-proto",
    "async-std",
    "chrono",
    "hyper",
    "jiff",
    "log",
    "mio",
    "nix",
    "rand",
    "reqwest",
    "ring",
    "rustix",
    "rustls",
    "smol",
    "socket2",
    "tempfile",
    "time",
    "tokio",
    "tonic",
    "tracing",
];

#[test]
fn crates_import_only_what_they_may() {
    let violations = violations(&workspace());
    assert!(
        violations.is_empty(),
        "\n{}\nThe rules stand in docs/architecture.md.\n",
        violations.join("\n")
    );
}

/// Packages by name: two versions of one package count as one, which can only show more.
struct Workspace {
    /// Ours, with their folders.
    members: BTreeMap<String, PathBuf>,
    /// Direct normal dependencies of every package, ours or not.
    normal: BTreeMap<String, BTreeSet<String>>,
    /// Direct build dependencies of ours.
    build: BTreeMap<String, BTreeSet<String>>,
}

fn violations(workspace: &Workspace) -> Vec<String> {
    let mut violations = Vec::new();
    for member in workspace.members.keys().filter(|member| *member != TESTS) {
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| name == member) else {
            violations.push(format!(
                "{member} has no rule: add a line to MAY_IMPORT in tests/tests/imports.rs"
            ));
            continue;
        };
        let reached = reach(workspace, member);
        for import in reached
            .keys()
            .filter(|import| workspace.members.contains_key(*import))
        {
            if !allowed.contains(&import.as_str()) {
                violations.push(format!(
                    "{member} must not import {import}: {}",
                    path(&reached, import)
                ));
            }
        }
        if PURE.contains(&member.as_str()) {
            for import in reached
                .keys()
                .filter(|import| IMPURE.contains(&import.as_str()))
            {
                violations.push(format!(
                    "{member} is pure and must not reach {import}: {}",
                    path(&reached, import)
                ));
            }
        }
    }
    violations
}

/// All that a package reaches over normal dependencies and its own build dependencies, each with the package
/// that it was first reached from.
fn reach(workspace: &Workspace, start: &str) -> BTreeMap<String, String> {
    let mut reached = BTreeMap::new();
    let mut open = vec![start.to_owned()];
    while let Some(package) = open.pop() {
        let of = |graph: &BTreeMap<String, BTreeSet<String>>| {
            graph.get(&package).cloned().unwrap_or_default()
        };
        for import in of(&workspace.normal)
            .into_iter()
            .chain(of(&workspace.build))
        {
            if import != start && !reached.contains_key(&import) {
                reached.insert(import.clone(), package.clone());
                open.push(import);
            }
        }
    }
    reached
}

/// How a package was reached, for people.
fn path(reached: &BTreeMap<String, String>, import: &str) -> String {
    let mut path = vec![import];
    let mut at = import;
    while let Some(from) = reached.get(at) {
        path.push(from);
        at = from;
    }
    path.reverse();
    path.join(" > ")
}

/// The workspace as cargo resolves it for this machine, from the lock file and without a network.
fn workspace() -> Workspace {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--offline",
            "--filter-platform",
            &target,
        ])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    parse(&serde_json::from_slice(&output.stdout).unwrap())
}

fn parse(metadata: &Value) -> Workspace {
    let list = |value: &Value| value.as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let name = |id: &Value| text(&packages[&text(id)]["name"]);

    let folder = |id: &Value| {
        PathBuf::from(text(&packages[&text(id)]["manifest_path"]))
            .parent()
            .unwrap()
            .to_owned()
    };
    let members: BTreeMap<_, _> = list(&metadata["workspace_members"])
        .iter()
        .map(|id| (name(id), folder(id)))
        .collect();

    let mut normal: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut build = normal.clone();
    for node in list(&metadata["resolve"]["nodes"]) {
        let package = name(&node["id"]);
        for dependency in list(&node["deps"]) {
            let import = name(&dependency["pkg"]);
            for kind in list(&dependency["dep_kinds"]) {
                match kind["kind"].as_str() {
                    None => normal
                        .entry(package.clone())
                        .or_default()
                        .insert(import.clone()),
                    Some("build") if members.contains_key(&package) => build
                        .entry(package.clone())
                        .or_default()
                        .insert(import.clone()),
                    Some(_) => false,
                };
            }
        }
    }
    Workspace {
        members,
        normal,
        build,
    }
}

/// The checker itself: it must see what it is there for.
mod checker {
    use super::*;

    /// The workspace as it should be: crates of ours with an edge or two, and tokio behind somebody else's.
    fn good() -> Workspace {
        let edges = [
            ("arca-enclave", "arca-threshold"),
            ("arca-enclave", "arca-policy"),
            ("arca-enclave", "tokio"),
            ("arca-enclave-simulated", "arca-enclave"),
            ("arca-host", "arca-proto"),
            ("arca-client", "arca-channel"),
            ("arca-threshold", "sha2"),
            ("wrapper", "tokio"),
        ];
        let mut normal: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in edges {
            normal
                .entry(from.to_owned())
                .or_default()
                .insert(to.to_owned());
        }
        let members = MAY_IMPORT
            .iter()
            .map(|(name, _)| ((*name).to_owned(), PathBuf::new()))
            .collect();
        Workspace {
            members,
            normal,
            build: BTreeMap::new(),
        }
    }

    #[test]
    fn accepts_what_is_allowed() {
        assert_eq!(violations(&good()), Vec::<String>::new());
    }

    #[test]
    fn sees_every_forbidden_import() {
        let cases = [
            (
                "arca-host",
                "arca-threshold",
                "arca-host must not import arca-threshold",
            ),
            (
                "arca-host",
                "arca-policy",
                "arca-host must not import arca-policy",
            ),
            (
                "arca-host",
                "arca-enclave",
                "arca-host must not import arca-enclave",
            ),
            (
                "arca-client",
                "arca-enclave",
                "arca-client must not import arca-enclave",
            ),
            (
                "arca-client",
                "arca-host",
                "arca-client must not import arca-host",
            ),
            (
                "arca-proto",
                "arca-attestation",
                "arca-proto must not import arca-attestation",
            ),
            (
                "arca-enclave",
                "arca-enclave-hsm",
                "arca-enclave must not import arca-enclave-hsm",
            ),
            (
                "arca-enclave-nitro",
                "arca-enclave-simulated",
                "arca-enclave-nitro must not import arca-enclave-simulated",
            ),
            (
                "arca-policy",
                "tokio",
                "arca-policy is pure and must not reach tokio",
            ),
            (
                "arca-audit",
                "wrapper",
                "arca-audit is pure and must not reach tokio: arca-audit > wrapper > tokio",
            ),
            ("wrapper", "arca-enclave-simulated", ""),
        ];
        for (from, to, expected) in cases {
            let mut workspace = good();
            workspace
                .normal
                .entry(from.to_owned())
                .or_default()
                .insert(to.to_owned());
            let found = violations(&workspace);
            if expected.is_empty() {
                assert!(found.is_empty(), "nobody imports {from}: {found:?}");
            } else {
                assert!(
                    found
                        .iter()
                        .any(|violation| violation.starts_with(expected)),
                    "{from} > {to}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn sees_detours_and_build_scripts() {
        let mut workspace = good();
        workspace
            .normal
            .entry("arca-host".to_owned())
            .or_default()
            .insert("wrapper".to_owned());
        workspace
            .normal
            .entry("wrapper".to_owned())
            .or_default()
            .insert("arca-policy".to_owned());
        assert_eq!(
            violations(&workspace),
            ["arca-host must not import arca-policy: arca-host > wrapper > arca-policy"]
        );

        let mut workspace = good();
        workspace.build.insert(
            "arca-threshold".to_owned(),
            BTreeSet::from(["tokio".to_owned()]),
        );
        let expected = "arca-threshold is pure and must not reach tokio: arca-threshold > tokio";
        assert!(
            violations(&workspace)
                .iter()
                .any(|violation| violation == expected)
        );
    }

    #[test]
    fn wants_a_rule_for_every_crate() {
        let mut workspace = good();
        workspace
            .members
            .insert("arca-new".to_owned(), PathBuf::new());
        assert!(
            violations(&workspace)
                .iter()
                .any(|violation| violation.starts_with("arca-new has no rule"))
        );
    }

    #[test]
    fn reads_the_graph_that_cargo_gives() {
        let package = |name: &str| serde_json::json!({ "id": name, "name": name, "manifest_path": "/x/Cargo.toml" });
        let kind = |kind: Option<&str>| serde_json::json!({ "kind": kind });
        let metadata = serde_json::json!({
            "packages": [package("a"), package("b"), package("c"), package("d")],
            "workspace_members": ["a"],
            "resolve": { "nodes": [{ "id": "a", "deps": [
                { "pkg": "b", "dep_kinds": [kind(Some("dev")), kind(None)] },
                { "pkg": "c", "dep_kinds": [kind(Some("build"))] },
                { "pkg": "d", "dep_kinds": [kind(Some("dev"))] },
            ] }] },
        });
        let workspace = parse(&metadata);
        assert_eq!(workspace.normal["a"], BTreeSet::from(["b".to_owned()]));
        assert_eq!(workspace.build["a"], BTreeSet::from(["c".to_owned()]));
    }
}
