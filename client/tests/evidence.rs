//! `arca evidence verify` on documents that AWS made (see `tests/vectors/attestation/README.md`).

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Decode as _, Encode as _, EncodePem as _};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

const PRODUCTION: &str = "nitro-production-2025.cose";
const DEBUG: &str = "nitro-debug-2021.cose";
const AWS_ROOT: &str = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b";

fn vector(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/vectors/attestation")
        .join(name)
        .to_str()
        .unwrap()
        .to_owned()
}

fn verify_from(input: &[u8], arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_arca"))
        .args(["evidence", "verify"])
        .args(arguments)
        .env_remove("ARCA_PROFILE")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails early does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Exit code and report.
fn verify(file: &str, arguments: &[&str]) -> (i32, Value) {
    let output = verify_from(b"", &[&[file, "--output", "json"], arguments].concat());
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap(), report)
}

/// What is printed for people.
fn shown(file: &str, arguments: &[&str]) -> String {
    let output = verify_from(b"", &[&[file, "--output", "text"], arguments].concat());
    String::from_utf8(output.stdout).unwrap()
}

fn outcomes(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| (text(&check["check"]), text(&check["outcome"])))
        .collect()
}

/// The one check that failed. All before it passed or were not asked for, and none after it was reached.
fn failed(report: &Value) -> String {
    let outcomes = outcomes(report);
    let at = outcomes
        .iter()
        .position(|(_, outcome)| outcome == "failed")
        .unwrap();
    for (check, outcome) in &outcomes[..at] {
        assert!(outcome == "passed" || outcome == "not_asked", "{check}");
    }
    for (check, outcome) in &outcomes[at + 1..] {
        assert!(
            outcome == "not_reached" || outcome == "not_asked",
            "{check}"
        );
    }
    assert_eq!(report["verdict"], "refused");
    assert_eq!(report["verified"], false);
    outcomes[at].0.clone()
}

/// PCR values of the production document.
fn pcr(index: u8) -> String {
    let (_, report) = verify(&vector(PRODUCTION), &["--no-reference-values"]);
    report["document"]["pcrs"][index.to_string()]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Verifies the production document with its own PCRs 0 to 2 and more.
fn with(more: &[&str]) -> (i32, Value) {
    let [pcr0, pcr1, pcr2] = [0, 1, 2].map(pcr);
    let own = ["--pcr0", &pcr0, "--pcr1", &pcr1, "--pcr2", &pcr2];
    verify(&vector(PRODUCTION), &[&own, more].concat())
}

#[test]
fn a_real_document_verifies_and_shows_every_check_and_field() {
    let (code, report) = with(&[]);
    assert_eq!(code, 0);
    assert_eq!(report["simulated"], false);
    assert_eq!(report["verified"], true);
    assert_eq!(report["verdict"], "verified");
    assert_eq!(report["trust_class"], "nitro");
    assert_eq!(report["mode"], "archive");
    assert_eq!(
        report["sha256"],
        "19b71700ef369a55ad201e09843c7cfcbaecd2a07917e77cafa42fb227d582b7"
    );
    let checks: Vec<String> = outcomes(&report)
        .iter()
        .map(|(check, outcome)| match outcome.as_str() {
            "passed" => check.clone(),
            outcome => format!("{check}: {outcome}"),
        })
        .collect();
    assert_eq!(
        checks,
        [
            "anchor",
            "size",
            "envelope",
            "algorithm",
            "signature_length",
            "payload",
            "fields",
            "root",
            "certificate_0",
            "certificate_1",
            "certificate_2",
            "certificate_3",
            "certificate_4",
            "time: not_asked",
            "signature",
            "pcrs_present",
            "debug_mode",
            "pcr_0",
            "pcr_1",
            "pcr_2",
            "nonce: not_asked",
            "public_key: not_asked",
            "user_data: not_asked",
        ]
    );

    let document = &report["document"];
    assert_eq!(
        document["module_id"],
        "i-0bee92034f3d60691-enc01943c5eaab3ad6a"
    );
    assert_eq!(document["time"], "2025-01-06T16:07:05.472Z");
    assert_eq!(document["digest"], "SHA384");
    assert_eq!(document["pcrs"].as_object().unwrap().len(), 16);
    assert_eq!(document["public_key"].as_str().unwrap().len(), 2 * 294);
    assert_eq!(document["nonce"], Value::Null);
    assert_eq!(document["user_data"], Value::Null);
    let certificates = document["certificates"].as_array().unwrap();
    assert_eq!(certificates.len(), 5);
    let root = &certificates[0];
    assert_eq!(root["sha256"], AWS_ROOT);
    assert_eq!(root["subject"], root["issuer"]);
    assert_eq!(root["not_before"], "2019-10-28T13:28:05Z");
    assert_eq!(root["serial"], "f93175681b90afe11d46ccb4e4e7f856");
    let leaf = &certificates[4];
    assert_eq!(leaf["not_after"], "2025-01-06T19:07:05Z");
    assert_eq!(leaf["issuer"], certificates[3]["subject"]);

    let page = shown(
        &vector(PRODUCTION),
        &["--pcr0", &pcr(0), "--pcr1", &pcr(1), "--pcr2", &pcr(2)],
    );
    for part in [
        "ok   signature over the payload",
        "-    nonce equals the expected one: not asked",
        "i-0bee92034f3d60691-enc01943c5eaab3ad6a",
        AWS_ROOT,
        "VERIFIED, class nitro",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(page.contains(&pcr(2)));
    assert!(!page.contains("SIMULATED") && !page.contains("simulated"));
}

#[test]
fn without_reference_values_nothing_is_called_verified() {
    let (code, report) = verify(&vector(PRODUCTION), &[]);
    assert_eq!(code, 3);
    assert_eq!(failed(&report), "pcr_0");

    let (code, report) = verify(&vector(PRODUCTION), &["--no-reference-values"]);
    assert_eq!(code, 0);
    assert_eq!(report["verified"], false);
    assert_eq!(report["verdict"], "authentic");
    let not_asked =
        |check: &str| outcomes(&report).contains(&(check.to_owned(), "not_asked".to_owned()));
    assert!(["pcr_0", "pcr_1", "pcr_2"].into_iter().all(not_asked));
    let page = shown(&vector(PRODUCTION), &["--no-reference-values"]);
    assert!(page.contains("AUTHENTIC"), "{page}");
    assert!(page.contains("NOT COMPARED"), "{page}");
    assert!(!page.to_lowercase().contains("verified"), "{page}");
}

#[test]
fn a_document_of_debug_mode_is_refused_whatever_is_expected() {
    let zero = "00".repeat(48);
    let zeros = ["--pcr0", &zero, "--pcr1", &zero, "--pcr2", &zero];
    for arguments in [&["--no-reference-values"][..], &zeros, &[]] {
        let (code, report) = verify(&vector(DEBUG), arguments);
        assert_eq!(code, 5);
        assert_eq!(failed(&report), "debug_mode");
        assert!(report["problem"].as_str().unwrap().contains("debug mode"));
    }
    let output = verify_from(b"", &[&vector(DEBUG), "--no-reference-values"]);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("debug mode"), "{complaint}");
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page.contains("FAIL not in debug mode"), "{page}");
    assert!(page.contains("NOT VERIFIED"), "{page}");
}

#[test]
fn each_pcr_is_compared_and_named() {
    let own = [0, 1, 2].map(pcr);
    let other = "ab".repeat(48);
    for index in 0..3 {
        let mut values = own.clone();
        values[index].clone_from(&other);
        let [pcr0, pcr1, pcr2] = &values;
        let arguments = ["--pcr0", pcr0, "--pcr1", pcr1, "--pcr2", pcr2];
        let (code, report) = verify(&vector(PRODUCTION), &arguments);
        assert_eq!(code, 5);
        assert_eq!(failed(&report), format!("pcr_{index}"));
        let check = &report["checks"].as_array().unwrap();
        let detail = check
            .iter()
            .find(|check| check["outcome"] == "failed")
            .unwrap()["detail"]
            .as_str()
            .unwrap();
        assert!(
            detail.contains(&other) && detail.contains(&own[index]),
            "{detail}"
        );
    }

    let further = |index: u8, value: &str| with(&["--pcr", &format!("{index}={value}")]);
    let (code, report) = further(4, &pcr(4));
    assert_eq!(code, 0);
    assert_eq!(
        outcomes(&report).last().unwrap(),
        &("pcr_4".to_owned(), "passed".to_owned())
    );
    let (code, report) = further(4, &other);
    assert_eq!((code, failed(&report).as_str()), (5, "pcr_4"));
    // One that the document does not have at all.
    let (code, report) = further(20, &"00".repeat(48));
    assert_eq!((code, failed(&report).as_str()), (5, "pcr_20"));
    for wrong in ["2=00", "32=00", "x=00", "8", "8=00"] {
        assert_eq!(with(&["--pcr", wrong]).0, 2, "{wrong}");
    }
    let twice = format!("4={}", pcr(4));
    assert_eq!(with(&["--pcr", &twice, "--pcr", &twice]).0, 3);
}

#[test]
fn measurements_come_from_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, pcrs: [String; 3]| {
        let path = folder.path().join(name);
        let [pcr0, pcr1, pcr2] = pcrs;
        let text = format!(r#"{{"pcr0": "{pcr0}", "pcr1": "{pcr1}", "pcr2": "{pcr2}"}}"#);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let own = write("own.json", [0, 1, 2].map(pcr));
    let other = write("other.json", [pcr(0), "ab".repeat(48), pcr(2)]);
    let verify = |files: &[&str]| {
        let arguments: Vec<&str> = files
            .iter()
            .flat_map(|file| ["--measurements", file])
            .collect();
        verify(&vector(PRODUCTION), &arguments)
    };
    assert_eq!(verify(&[&own]).0, 0);
    assert_eq!(verify(&[&other, &own]).0, 0, "one of them is enough");
    let (code, report) = verify(&[&other]);
    assert_eq!((code, failed(&report).as_str()), (5, "pcr_1"));
    assert_eq!(verify(&["/nowhere"]).0, 3);
}

#[test]
fn nonce_public_key_and_user_data_are_compared_where_they_are_given() {
    let (_, report) = with(&[]);
    let key = report["document"]["public_key"].as_str().unwrap();
    let nonce = "00112233445566778899aabbccddeeff";
    let (code, report) = with(&["--nonce", nonce]);
    assert_eq!((code, failed(&report).as_str()), (5, "nonce"));
    let (code, report) = with(&["--user-data", "00"]);
    assert_eq!((code, failed(&report).as_str()), (5, "user_data"));
    let (code, report) = with(&["--public-key", &key[2..]]);
    assert_eq!((code, failed(&report).as_str()), (5, "public_key"));
    assert_eq!(with(&["--public-key", key]).0, 0);

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    };
    let der = hex::decode(key).unwrap();
    let spki = SubjectPublicKeyInfoOwned::from_der(&der).unwrap();
    let pem = spki.to_pem(LineEnding::LF).unwrap();
    for path in [file("key.der", &der), file("key.pem", pem.as_bytes())] {
        assert_eq!(with(&["--public-key", path.to_str().unwrap()]).0, 0);
    }
    let mut other = der.clone();
    *other.last_mut().unwrap() ^= 1;
    let other = file("other.der", &other);
    assert_eq!(with(&["--public-key", other.to_str().unwrap()]).0, 5);
    assert_eq!(with(&["--public-key", "/nowhere"]).0, 3);
}

#[test]
fn live_is_this_machines_clock_and_needs_all_that_binds() {
    let nonce = "00112233445566778899aabbccddeeff";
    let bound = [
        "--live",
        "--nonce",
        nonce,
        "--public-key",
        "00",
        "--user-data",
        "00",
    ];
    let (code, report) = with(&bound);
    assert_eq!(code, 5);
    assert_eq!(report["mode"], "live");
    // AWS keeps authorities of regions for weeks: the first below the root has expired.
    assert_eq!(failed(&report), "certificate_1");
    assert_eq!(with(&["--live"]).0, 2);
    assert_eq!(with(&["--live", "--archive"]).0, 2);
}

#[test]
fn a_changed_byte_is_refused_wherever_it_is() {
    let document = std::fs::read(vector(PRODUCTION)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed");
    let file = path.to_str().unwrap();
    // The first and the last bytes, and a sample between them.
    let sample = (0..16).chain((16..document.len()).step_by(331));
    let mut checks = std::collections::BTreeSet::new();
    for offset in sample.chain([document.len() - 1]) {
        let mut changed = document.clone();
        changed[offset] ^= 0x01;
        std::fs::write(&path, &changed).unwrap();
        let (code, report) = verify(file, &["--no-reference-values"]);
        assert_eq!(code, 5, "byte {offset}");
        let check = failed(&report);
        assert_ne!(check, "other", "byte {offset}");
        checks.insert(check);
    }
    // They were refused for different reasons, in different places.
    for check in ["envelope", "algorithm", "payload", "signature"] {
        assert!(checks.contains(check), "{check}: {checks:?}");
    }
    for length in [0, 1, 100, document.len() - 1] {
        std::fs::write(&path, &document[..length]).unwrap();
        let (code, report) = verify(file, &["--no-reference-values"]);
        assert_eq!((code, failed(&report).as_str()), (5, "envelope"));
        assert_eq!(report["document"], Value::Null);
    }
    std::fs::write(&path, vec![0xff; 20_000]).unwrap();
    let (code, report) = verify(file, &["--no-reference-values"]);
    assert_eq!((code, failed(&report).as_str()), (5, "size"));
    assert_eq!(verify("/nowhere", &["--no-reference-values"]).0, 3);
}

#[test]
fn base64_hex_and_standard_input_are_read() {
    use bitcoin::base64::Engine as _;
    let document = std::fs::read(vector(PRODUCTION)).unwrap();
    let hexadecimal = format!("{}\n", hex::encode(&document));
    let base64 = bitcoin::base64::engine::general_purpose::STANDARD.encode(&document);
    for (input, encoding) in [
        (&document[..], "cbor"),
        (hexadecimal.as_bytes(), "hex"),
        (base64.as_bytes(), "base64"),
    ] {
        let arguments = ["-", "--no-reference-values", "--output", "json"];
        let output = verify_from(input, &arguments);
        assert!(output.status.success(), "{encoding}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["encoding"], encoding);
        assert_eq!(report["size"], document.len());
    }
}

#[test]
fn a_simulated_root_is_named_explicitly_and_shown() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulated-root.der");
    let root = root.to_str().unwrap();
    let arguments = ["--simulated-root", root, "--no-reference-values"];
    let (code, report) = verify(&vector(PRODUCTION), &arguments);
    assert_eq!((code, failed(&report).as_str()), (5, "root"));
    assert_eq!(report["simulated"], true);
    assert_eq!(report["trust_class"], "simulated");
    let page = shown(&vector(PRODUCTION), &arguments);
    assert!(page.starts_with("simulated"), "{page}");

    // The production root is no simulated one, nor is anything else that is no root.
    let aws =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../attestation/src/aws_nitro_root_g1.der");
    for file in [aws.to_str().unwrap(), "/nowhere"] {
        let arguments = ["--simulated-root", file, "--no-reference-values"];
        assert_eq!(verify(&vector(PRODUCTION), &arguments).0, 3, "{file}");
    }
}

/// Evidence of an HSM whose key is in this test, with the root that certified it.
fn hsm_evidence(folder: &Path) -> (String, String) {
    use arca_attestation::UnixMillis;
    use arca_attestation::hsm::{Statement, Token, document, to_sign};
    use arca_client::hsm::{Authority, Request};
    use p384::ecdsa::signature::Signer as _;
    use p384::ecdsa::{DerSignature, Signature, SigningKey};
    use p384::pkcs8::EncodePublicKey as _;
    use x509_cert::Certificate;
    use x509_cert::builder::{Builder as _, RequestBuilder};

    let key = SigningKey::from_slice(&[7; 48]).unwrap();
    let subject = std::str::FromStr::from_str("CN=ceo").unwrap();
    let request = RequestBuilder::new(subject, &key).unwrap();
    let request = request.build::<DerSignature>().unwrap().to_der().unwrap();
    let authority = Authority::create("ACME HSM root", 30).unwrap();
    let root = authority.save(&folder.join("root")).unwrap();
    let certified = authority.certify(&Request::parse(&request).unwrap(), 10);
    let chain = Certificate::load_pem_chain(certified.unwrap().chain.as_bytes()).unwrap();
    let [leaf, _] = &chain[..] else { panic!() };
    let spki = key.verifying_key().to_public_key_der().unwrap();
    let (leaf, above) = (leaf.to_der().unwrap(), authority.certificate_der().unwrap());
    let statement = Statement {
        token: Token::new("ACME", "HSM 9", "42", "1.0"),
        timestamp: UnixMillis(arca_client::clock::now().0),
        nonce: &[0x11; 32],
        user_data: &[0x22; 48],
        public_key: spki.as_bytes(),
        certificate: &leaf,
        cabundle: vec![&above],
    };
    let payload = statement.payload().unwrap();
    let signature: Signature = key.sign(&to_sign(&payload));
    let signature = <[u8; 96]>::try_from(&signature.to_bytes()[..]).unwrap();
    let path = folder.join("ceo.cose");
    std::fs::write(&path, document(&payload, &signature)).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    (text(&path), text(&root))
}

#[test]
fn evidence_of_an_hsm_is_verified_under_the_root_that_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let (file, root) = hsm_evidence(folder.path());
    let with_root = |more: &[&str]| verify(&file, &[&["--hsm-root", &root], more].concat());
    let (code, report) = with_root(&[]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["verified"], true);
    assert_eq!(report["trust_class"], "hsm");
    let names: Vec<String> = outcomes(&report)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        names,
        [
            "anchor",
            "size",
            "envelope",
            "algorithm",
            "signature_length",
            "payload",
            "root",
            "certificate_0",
            "certificate_1",
            "certified_key",
            "time",
            "signature",
            "nonce",
            "public_key",
            "user_data",
        ]
    );
    assert_eq!(report["document"]["token"]["serial"], "42");
    assert_eq!(report["document"]["certificates"][1]["subject"], "CN=ceo");
    let page = shown(&file, &["--hsm-root", &root]);
    assert!(
        page.contains("custody of the key, not which code runs"),
        "{page}"
    );

    let (nonce, user_data) = ("11".repeat(32), "22".repeat(48));
    let key = report["document"]["public_key"]
        .as_str()
        .unwrap()
        .to_owned();
    let bound = [
        "--nonce",
        &nonce,
        "--user-data",
        &user_data,
        "--public-key",
        &key,
    ];
    assert_eq!(with_root(&[&bound[..], &["--live"]].concat()).0, 0);
    let (code, report) = with_root(&["--nonce", &"12".repeat(32)]);
    assert_eq!((code, failed(&report).as_str()), (5, "nonce"));

    // Under another root, under the AWS root, and for measurements, which it has none of.
    let other = arca_client::hsm::Authority::create("ACME HSM root", 30).unwrap();
    let other = other.save(&folder.path().join("other")).unwrap();
    let (code, report) = verify(&file, &["--hsm-root", other.to_str().unwrap()]);
    assert_eq!((code, failed(&report).as_str()), (5, "root"));
    let output = verify_from(b"", &[&file, "--no-reference-values"]);
    assert_eq!(output.status.code(), Some(5));
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("--hsm-root"), "{complaint}");
    let zero = "00".repeat(48);
    let pcrs = ["--pcr0", &zero, "--pcr1", &zero, "--pcr2", &zero];
    assert_eq!(with_root(&pcrs).0, 2);
    let (code, report) = verify(&vector(PRODUCTION), &["--hsm-root", &root]);
    assert_eq!((code, failed(&report).as_str()), (5, "payload"));

    let document = std::fs::read(&file).unwrap();
    for offset in (0..16).chain((16..document.len()).step_by(167)) {
        let mut changed = document.clone();
        changed[offset] ^= 0x01;
        let input = ["-", "--hsm-root", &root, "--output", "json"];
        let output = verify_from(&changed, &input);
        assert_eq!(output.status.code(), Some(5), "byte {offset}");
        let report = serde_json::from_slice(&output.stdout).unwrap();
        assert_ne!(failed(&report), "other", "byte {offset}");
    }
}
