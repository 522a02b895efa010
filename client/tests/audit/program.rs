//! `arca audit verify`, as it is typed.

use std::path::Path;
use std::process::{Command, Output};

use arca_client::audit::sample::Sample;
use serde_json::Value;

use super::SMALL;

struct Folder {
    folder: tempfile::TempDir,
    sample: Sample,
}

impl Folder {
    /// An export, a certificate and a trust file.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sample = Sample::new().unwrap();
        for (path, content) in sample.export(&SMALL).unwrap().0 {
            let path = folder.path().join("export").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        std::fs::write(
            folder.path().join("cert.json"),
            sample.certificate(2).unwrap(),
        )
        .unwrap();
        let trust = sample.trust().unwrap();
        let keys: Vec<String> = trust
            .administrators()
            .iter()
            .map(|key| format!("\"{}\"", hex::encode(key.0)))
            .collect();
        let text = format!(
            "cluster = \"{}\"\nkind = \"simulated\"\n[administrators]\nquorum = {}\nkeys = [{}]\n",
            trust.cluster(),
            trust.quorum(),
            keys.join(", ")
        );
        std::fs::write(folder.path().join("trust.toml"), text).unwrap();
        Self { folder, sample }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn verify(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_arca"))
            .args(["audit", "verify", "--trust", "trust.toml"])
            .args(arguments)
            .env_remove("ARCA_PROFILE")
            .env("HOME", "/nonexistent")
            .current_dir(self.path())
            .output()
            .unwrap()
    }

    fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.verify(&[arguments, &["--output", "json"]].concat());
        let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code().unwrap(), value)
    }
}

#[test]
fn a_certificate_is_verified_and_a_changed_one_names_its_step() {
    let folder = Folder::new();
    let (code, report) = folder.json(&["cert.json"]);
    assert_eq!(code, 0);
    assert_eq!(
        (&report["simulated"], &report["verified"]),
        (&Value::Bool(true), &Value::Bool(true))
    );
    let page = String::from_utf8(folder.verify(&["cert.json"]).stdout).unwrap();
    for part in [
        "VERIFIED",
        "simulated",
        "treasury",
        "custody of the key",
        "ok   ",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }

    let path = folder.path().join("cert.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        text.replacen(
            "\"request_id\":\"request-1\"",
            "\"request_id\":\"request-2\"",
            1,
        ),
    )
    .unwrap();
    let (code, report) = folder.json(&["cert.json"]);
    assert_eq!(
        (code, &report["failed"]),
        (5, &Value::from("authorization"))
    );
    let output = folder.verify(&["cert.json"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("NOT VERIFIED: step authorization"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("step authorization failed"));
}

#[test]
fn an_export_is_verified_and_one_flipped_byte_is_caught() {
    let folder = Folder::new();
    let (code, report) = folder.json(&["export", "--html", "report.html"]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["passed"], true);
    assert_eq!(report["totals"]["verified"], 6);
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("sim-sample"));
    let shown = String::from_utf8(folder.verify(&["export"]).stdout).unwrap();
    for part in ["findings: none", "VERIFIED", "cloud, cto", "simulated"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    let bundle = std::fs::read_dir(folder.path().join("export/ceo/1/tile/entries")).unwrap();
    let partial = bundle.into_iter().next().unwrap().unwrap().path();
    let file = std::fs::read_dir(partial)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut content = std::fs::read(&file).unwrap();
    content[1000] ^= 1;
    std::fs::write(&file, content).unwrap();
    let (code, report) = folder.json(&["export"]);
    assert_eq!((code, &report["passed"]), (5, &Value::Bool(false)));
    assert_eq!(report["findings"][0]["severity"], "error");
    let shown = folder.verify(&["export"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("NOT VERIFIED"));
    assert!(String::from_utf8_lossy(&shown.stdout).contains("what to do: "));
}

#[test]
fn what_is_no_export_and_other_trust_are_named() {
    let folder = Folder::new();
    let output = folder.verify(&["."]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("export.json"));
    assert_eq!(folder.verify(&["nowhere"]).status.code(), Some(3));
    assert_eq!(
        folder.verify(&["cert.json", "--html", "x"]).status.code(),
        Some(3)
    );
    assert_eq!(
        folder
            .verify(&["export", "--public-key", "00"])
            .status
            .code(),
        Some(3)
    );

    let trust = folder.path().join("trust.toml");
    let text = std::fs::read_to_string(&trust).unwrap();
    std::fs::write(&trust, text.replace("sim-sample", "sim-other")).unwrap();
    let output = folder.verify(&["export"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("sim-other"));
    drop(folder.sample);
}
