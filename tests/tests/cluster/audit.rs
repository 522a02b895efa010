//! The audit log of a running cluster: what it proves, and what whoever owns a host can do to it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use arca_audit::{certificate::Certificate, note::VerifierKey};
use arca_client::{
    Client, Error, Key, Scheme, SigningRequest,
    audit::{
        Directory, ExportPolicy, Selection, Trust, certificate, export, report::Report,
        verify_export,
    },
};

use crate::{
    common::{PATIENCE, Running, new_key, psbt_payload, running},
    disk::{copy, free_address, holds, lost},
    rollback::accept_loss,
};

const PARTIES: [&str; 3] = ["ceo", "cloud", "cto"];

impl Running {
    fn trust(&self) -> Trust {
        Trust::load(&self.file("profile.toml")).unwrap()
    }

    async fn export(&self, name: &str) -> PathBuf {
        self.export_of(name, None).await.unwrap()
    }

    async fn export_of(&self, name: &str, party: Option<&str>) -> Result<PathBuf, Error> {
        let folder = self.file(name);
        let selection = Selection {
            party: party.map(str::to_owned),
            ..Selection::default()
        };
        let cluster = self.cluster.cluster().unwrap();
        export(&cluster, &folder, &selection, |_, _| ()).await?;
        Ok(folder)
    }

    fn judge(&self, folder: &Path) -> Report {
        let source = Directory::new(folder);
        verify_export(&source, &self.trust(), ExportPolicy::default(), |_, _| ()).unwrap()
    }

    fn certified(&self, bytes: &[u8]) -> certificate::CertificateReport {
        certificate::verify(bytes, &self.trust(), &Default::default())
    }

    /// The folder in which a party's host keeps its log.
    fn archive(&self, party: &str) -> PathBuf {
        let database = self.database(party);
        database.parent().unwrap().join("log").join(party)
    }

    /// A copy of that folder, beside it.
    fn keep_archive(&self, party: &str) -> (PathBuf, PathBuf) {
        let (archive, kept) = (self.archive(party), self.file("archive-before"));
        copy(&archive, &kept);
        (archive, kept)
    }

    async fn connected(&self) {
        self.cluster.wait_connected(&PARTIES).await.unwrap();
    }

    /// Waits until a party's host has moved everything into its archive.
    async fn archived(&self, party: &str) {
        let mut host = self.blobs(party).await;
        let mut next_look = tokio::time::interval(std::time::Duration::from_millis(50));
        let moving = async {
            loop {
                next_look.tick().await;
                let logs = host.list_logs(arca_proto::v1::ListLogsRequest {}).await;
                let logs = logs.unwrap().into_inner().logs;
                if !logs.is_empty()
                    && logs
                        .iter()
                        .all(|log| log.checkpoint_size > 0 && log.archived >= log.checkpoint_size)
                {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, moving).await.unwrap();
    }
}

fn findings(report: &Report) -> String {
    let lines = report.findings.iter().map(|finding| {
        format!(
            "{:?} {} {:?}/{:?}/{:?}: {}\n",
            finding.severity,
            finding.code,
            finding.party,
            finding.log,
            finding.index,
            finding.message
        )
    });
    lines.collect()
}

async fn signed(client: &Client, key: &Key, request: &str) -> SigningRequest {
    let payload = psbt_payload(key, 40_000);
    client
        .sign(&key.name, request, &payload, PATIENCE)
        .await
        .unwrap()
}

/// Files below a folder, by their paths.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scheme_and_pair_leaves_certificates_and_logs_that_verify_offline() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let mut names = Vec::new();
    let taproot = new_key(&ceo, Scheme::Bip340, "btc").await;
    names.push(("ceo", signed(&ceo, &taproot, "one").await.name));
    for scheme in [Scheme::Ed25519, Scheme::EcdsaSecp256k1, Scheme::EcdsaP256] {
        let key = arca_client::NewKey {
            request_id: format!("{scheme:?}").to_lowercase(),
            display_name: format!("{scheme:?}"),
            scheme,
            threshold: 2,
            parties: Vec::new(),
            allow_raw_digest: true,
        };
        let key = ceo.create_key(&key, PATIENCE).await.unwrap();
        let payload = arca_client::Payload::Digest([7; 32]);
        let id = format!("digest-{scheme:?}");
        let signed = ceo.sign(&key.name, &id, &payload, PATIENCE).await.unwrap();
        names.push(("ceo", signed.name));
    }
    // Another pair, and after a restart of everything.
    running.cluster.party_mut("ceo").unwrap().kill().await;
    let cto = running.client("cto").await;
    names.push(("cto", signed(&cto, &taproot, "two").await.name));
    running.cluster.start_party("ceo").await.unwrap();
    running.connected().await;
    for party in PARTIES {
        running.cluster.party_mut(party).unwrap().kill().await;
    }
    for party in PARTIES {
        running
            .cluster
            .party_mut(party)
            .unwrap()
            .start_both()
            .await
            .unwrap();
    }
    running.connected().await;
    let cloud = running.client("cloud").await;
    names.push(("cloud", signed(&cloud, &taproot, "three").await.name));

    for (coordinator, name) in &names {
        let client = running.client(coordinator).await;
        let bytes = client.certificate(name).await.unwrap();
        assert!(bytes.len() < 32 << 10, "{} bytes", bytes.len());
        let report = running.certified(&bytes);
        assert!(report.verified, "{name}: {:#?}", report.checks);
        assert_eq!(report.signed.unwrap().parties.len(), 2);
    }
    let folder = running.export("export").await;
    let report = running.judge(&folder);
    assert!(report.passed, "{}", findings(&report));
    assert_eq!(report.counts.len(), 0, "{}", findings(&report));
    assert_eq!(report.totals.signatures, names.len() as u64);
    // Everybody saw and cosigned everybody.
    assert_eq!(report.logs.len(), 3);
    assert_eq!(report.witnesses.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_cuts_swaps_replays_or_changes_what_it_keeps_of_the_log_is_found_out() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    signed(&ceo, &key, "one").await;
    running.archived("ceo").await;
    // Stopped in good order, so that everything is in files.
    running.cluster.party_mut("ceo").unwrap().stop().await;
    let (_, kept) = running.keep_archive("ceo");
    running.cluster.start_party("ceo").await.unwrap();
    running.connected().await;
    let ceo = running.client("ceo").await;
    signed(&ceo, &key, "two").await;
    let honest = running.export("honest").await;
    assert!(running.judge(&honest).passed);

    // What the archive holds, each file changed in its first, a middle and its last byte, cut, emptied, and gone.
    let exported = files(&honest);
    let ceos: Vec<_> = exported
        .iter()
        .filter(|path| path.starts_with(honest.join("ceo")))
        .collect();
    assert!(ceos.len() >= 5, "{ceos:?}");
    for path in ceos {
        let content = fs::read(path).unwrap();
        let mut spoiled = vec![Vec::new(), content[..content.len() / 2].to_vec()];
        // Behind the log's own signature in a checkpoint come those of witnesses. One that is of nobody that is known is
        // ignored, as the format has it, and one that is missing is only missing.
        let end = match path.ends_with("checkpoint") {
            true => {
                let text = String::from_utf8(content.clone()).unwrap();
                text.find("=\n\u{2014} ").unwrap_or(text.len() - 1)
            }
            false => content.len(),
        };
        if path.ends_with("checkpoint") {
            spoiled.truncate(1);
        }
        for at in [0, end / 2, end - 1] {
            let mut changed = content.clone();
            changed[at] ^= 1;
            spoiled.push(changed);
        }
        for spoiled in spoiled {
            fs::write(path, &spoiled).unwrap();
            let report = running.judge(&honest);
            // An opening that is missing is a signature that cannot be judged, and is said to be.
            let noticed = match path.extension() {
                Some(openings) if openings == "jsonl" => !report.findings.is_empty(),
                _ => !report.passed,
            };
            assert!(noticed, "{}", path.display());
        }
        fs::remove_file(path).unwrap();
        let report = running.judge(&honest);
        // The others have the same manifest.
        let is_manifest = path.file_name().unwrap().len() == 96;
        let noticed = !report.passed || !report.findings.is_empty();
        assert_eq!(noticed, !is_manifest, "{} is gone", path.display());
        fs::write(path, &content).unwrap();
    }
    assert!(running.judge(&honest).passed);

    // Another party's log in place of its own.
    let swapped = running.file("swapped");
    copy(&honest, &swapped);
    fs::remove_dir_all(swapped.join("ceo/1")).unwrap();
    copy(&honest.join("cto/1"), &swapped.join("ceo/1"));
    assert!(!running.judge(&swapped).passed);

    // The log as it was before: its own checkpoint is good, and the others have seen more.
    let replayed = running.file("replayed");
    copy(&honest, &replayed);
    fs::remove_dir_all(replayed.join("ceo/1")).unwrap();
    copy(&kept.join("1"), &replayed.join("ceo/1"));
    let report = running.judge(&replayed);
    assert!(!report.passed, "{}", findings(&report));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_enclave_gives_no_proof_from_tiles_that_its_host_has_changed() {
    let running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    let name = signed(&ceo, &key, "one").await.name;
    ceo.certificate(&name).await.unwrap();
    running.archived("ceo").await;
    for path in files(&running.archive("ceo").join("1/tile")) {
        let content = fs::read(&path).unwrap();
        let mut changed = content.clone();
        let last = changed.len() - 1;
        changed[last] ^= 1;
        changed[0] ^= 1;
        fs::write(&path, changed).unwrap();
        let read = ceo.log_entries(1, 0, 1000).await;
        let proof = ceo.log_proof(1, 0).await;
        let refused = read.is_err() || proof.is_err();
        // A partial tile that a wider one has replaced is read no more.
        if !refused {
            let (entry, proof) = proof.unwrap();
            let intact = running.proves(&proof, &entry);
            assert!(intact, "{}", path.display());
        } else if let Err(error) = read {
            assert_eq!(error.reason(), "LOG_DAMAGED", "{error}");
        }
        fs::write(&path, content).unwrap();
    }
    ceo.log_entries(1, 0, 1000).await.unwrap();
}

impl Running {
    fn proves(&self, proof: &[u8], entry: &[u8]) -> bool {
        let proof = arca_audit::bundle::TlogProof::parse(proof).unwrap();
        let text = proof.checkpoint.text().to_owned();
        let checkpoint: arca_audit::checkpoint::Checkpoint = text.parse().unwrap();
        arca_audit::verify_inclusion(
            &checkpoint.root,
            checkpoint.size,
            proof.index,
            &arca_audit::leaf_hash(entry),
            &proof.proof,
        )
        .is_ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_withheld_from_an_export_is_missed() {
    let running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    signed(&ceo, &key, "one").await;
    let folder = running.export("export").await;
    assert!(running.judge(&folder).passed);
    let bundles: Vec<_> = files(&folder)
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("/ceo/1/tile/entries/"))
        .collect();
    let bundle = bundles.last().unwrap();
    let content = fs::read(bundle).unwrap();
    let entries = arca_audit::tile::decode_entries(&content).unwrap();
    for left_out in 0..entries.len() {
        let mut fewer = entries.clone();
        fewer.remove(left_out);
        fs::write(bundle, arca_audit::tile::encode_entries(&fewer).unwrap()).unwrap();
        assert!(!running.judge(&folder).passed, "without entry {left_out}");
    }
    // A whole party is missed as well.
    fs::write(bundle, &content).unwrap();
    fs::remove_dir_all(folder.join("cto")).unwrap();
    assert!(!running.judge(&folder).passed);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_auditors_who_are_shown_two_histories_cannot_both_find_them_good() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    signed(&ceo, &key, "one").await;
    running.keep_disk("ceo", "before").await;
    let (archive, kept) = running.keep_archive("ceo");
    running.cluster.start_party("ceo").await.unwrap();
    running.connected().await;
    let ceo = running.client("ceo").await;
    signed(&ceo, &key, "two").await;
    let first = running.export("first").await;
    assert!(running.judge(&first).passed);

    // The host goes back to before and hopes for another history: the enclave makes none.
    fs::remove_dir_all(&archive).unwrap();
    copy(&kept, &archive);
    running.restore_disk("ceo", "before").await;
    running.state_when("ceo", lost).await;
    let ceo = running.client("ceo").await;
    let payload = psbt_payload(&key, 50_000);
    let refused = ceo.sign(&key.name, "other", &payload, PATIENCE).await;
    assert_eq!(refused.unwrap_err().reason(), "STATE_ROLLED_BACK");
    // What it shows the second auditor is the shorter log, and the others' logs say so.
    match running.export_of("second", None).await {
        Ok(second) => {
            let report = running.judge(&second);
            assert!(!report.passed, "{}", findings(&report));
        }
        Err(error) => assert_eq!(error.reason(), "STATE_ROLLED_BACK", "{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_that_lost_its_state_begins_another_log_and_the_auditor_is_told_what_is_missing() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    running.archived("ceo").await;
    running.keep_disk("ceo", "before").await;
    let (archive, kept) = running.keep_archive("ceo");
    running.cluster.start_party("ceo").await.unwrap();
    running.connected().await;
    let ceo = running.client("ceo").await;
    signed(&ceo, &key, "lost").await;
    fs::remove_dir_all(&archive).unwrap();
    copy(&kept, &archive);
    running.restore_disk("ceo", "before").await;
    running.state_when("ceo", lost).await;
    accept_loss(&running).await;
    running.state_when("ceo", holds).await;
    running.connected().await;
    let ceo = running.client("ceo").await;
    let name = signed(&ceo, &key, "after").await.name;
    let bytes = ceo.certificate(&name).await.unwrap();
    let report = running.certified(&bytes);
    assert!(report.verified, "{:#?}", report.checks);

    let folder = running.export("export").await;
    let report = running.judge(&folder);
    let logs: Vec<_> = report
        .logs
        .iter()
        .filter(|log| log.party == "ceo")
        .collect();
    assert_eq!(logs.len(), 2, "{}", findings(&report));
    // What was lost is said, and who accepted it.
    let said = findings(&report);
    assert!(said.contains("loss"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_witness_offline_signatures_and_their_certificates_go_on() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    running.cluster.party_mut("cloud").unwrap().kill().await;
    let name = signed(&ceo, &key, "one").await.name;
    let bytes = ceo.certificate(&name).await.unwrap();
    let report = running.certified(&bytes);
    assert!(report.verified, "{:#?}", report.checks);
    for party in report.signed.unwrap().parties {
        assert!(!party.cosigned.is_empty(), "{}", party.party);
    }
    // A signer that is gone is said to be missing; when it is back, the certificate can be had.
    running.cluster.party_mut("cto").unwrap().kill().await;
    let refused = ceo.certificate(&name).await.unwrap_err();
    assert!(refused.to_string().contains("cto"), "{refused}");
    for party in ["cloud", "cto"] {
        running.cluster.start_party(party).await.unwrap();
    }
    running.connected().await;
    let bytes = ceo.certificate(&name).await.unwrap();
    assert!(running.certified(&bytes).verified);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_changed_byte_of_a_certificate_is_noticed() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    // A cosignature of one who did not sign says nothing to whoever has only the certificate, changed or not.
    running.cluster.party_mut("cloud").unwrap().kill().await;
    let name = signed(&ceo, &key, "one").await.name;
    let bytes = ceo.certificate(&name).await.unwrap();
    assert!(running.certified(&bytes).verified);
    let certificate = Certificate::decode(&bytes).unwrap();
    assert_eq!(certificate.parties.len(), 2);
    let (trust, policy) = (running.trust(), Default::default());
    // Sampled: all of it takes minutes, and `client/tests` does that to a small one.
    for at in (0..bytes.len()).step_by(97) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let report = certificate::verify(&changed, &trust, &policy);
        assert!(!report.verified, "byte {at}");
        assert!(report.failed.is_some(), "byte {at}");
    }
}

/// `arca witness` in a process of its own.
struct Outside {
    key: VerifierKey,
    _process: tokio::process::Child,
}

impl Outside {
    async fn start(running: &Running, address: std::net::SocketAddr, logs: &str) -> Self {
        let arca = arca_client::local::Binaries::find().unwrap().arca;
        let (secret, list) = (running.file("witness.pem"), running.file("logs.txt"));
        fs::write(&list, logs).unwrap();
        let made = std::process::Command::new(&arca)
            .args([
                "witness",
                "key",
                "--name",
                "witness.example/w1",
                "--output",
                "json",
            ])
            .arg(&secret)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
        let process = tokio::process::Command::new(&arca)
            .args(["witness", "--name", "witness.example/w1", "--listen"])
            .arg(address.to_string())
            .arg("--state")
            .arg(running.file("witness"))
            .arg("--key")
            .arg(&secret)
            .arg("--logs")
            .arg(&list)
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            key: made["verifier_key"].as_str().unwrap().parse().unwrap(),
            _process: process,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_outside_of_the_cluster_cosigns_what_hosts_show_it() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    let mut logs = String::new();
    for party in PARTIES {
        let log = running.client(party).await.log_checkpoint(0).await.unwrap();
        logs.push_str(&format!("{}\n", log.log_key));
    }
    let address = free_address();
    let outside = Outside::start(&running, address, &logs).await;
    for party in PARTIES {
        let config = running.file(&format!("{party}/host.toml"));
        let mut text = fs::read_to_string(&config).unwrap();
        text.push_str(&format!(
            "\n[[witness]]\nurl = \"http://{address}\"\nvkey = \"{}\"\nevery_seconds = 1\n",
            outside.key
        ));
        fs::write(&config, text).unwrap();
        running.cluster.party_mut(party).unwrap().kill_host().await;
        running.cluster.start_party(party).await.unwrap();
    }
    running.connected().await;
    let name = signed(&ceo_of(&running).await, &key, "one").await.name;
    let policy = certificate::CertificatePolicy {
        witnesses: vec![outside.key.clone()],
        needed: 1,
        ..Default::default()
    };
    let mut next_look = tokio::time::interval(std::time::Duration::from_millis(200));
    let looking = async {
        loop {
            next_look.tick().await;
            let bytes = ceo_of(&running).await.certificate(&name).await.unwrap();
            if certificate::verify(&bytes, &running.trust(), &policy).verified {
                return bytes;
            }
        }
    };
    let bytes = tokio::time::timeout(PATIENCE, looking).await.unwrap();
    let report = running.certified(&bytes);
    assert!(report.verified);
    // Another witness of that name has signed nothing.
    let other = VerifierKey::of_signing_key(
        outside.key.name().clone(),
        outside.key.kind(),
        &ed25519_dalek::SigningKey::from_bytes(&[9; 32]),
    );
    let policy = certificate::CertificatePolicy {
        witnesses: vec![other],
        needed: 1,
        ..Default::default()
    };
    let report = certificate::verify(&bytes, &running.trust(), &policy);
    assert!(!report.verified);
}

async fn ceo_of(running: &Running) -> Client {
    running.client("ceo").await
}

#[tokio::test(flavor = "multi_thread")]
async fn auditors_alone_read_the_log() {
    let running = running().await;
    let ceo = running.client("ceo").await;
    assert!(ceo.log_entries(0, 0, 10).await.is_ok());
    for wrong in [(99, 0), (1, 1 << 40)] {
        let refused = ceo.log_proof(wrong.0, wrong.1).await.unwrap_err();
        assert!(
            ["LOG_NOT_FOUND", "ENTRY_NOT_FOUND"].contains(&refused.reason()),
            "{refused}"
        );
    }
    let refused = ceo
        .certificate("signingRequests/00000000000000000000000000000000")
        .await;
    assert_eq!(refused.unwrap_err().reason(), "NOT_SIGNED");
}
