//! `certificate::verify`, step by step.

use arca_audit::certificate::Certificate;
use arca_audit::entry::Hex;
use arca_audit::note::{KeyKind, VerifierKey};
use arca_client::appraisal::Outcome;
use arca_client::audit::certificate::{CertificatePolicy, CertificateReport, verify};
use arca_client::audit::sample::Sample;
use ed25519_dalek::SigningKey;

fn judge(sample: &Sample, certificate: &Certificate) -> CertificateReport {
    let policy = CertificatePolicy::default();
    verify(&certificate.encode(), &sample.trust().unwrap(), &policy)
}

/// The step that fails, with all before it made and none after it.
fn failed(report: &CertificateReport) -> String {
    assert!(!report.verified && report.signed.is_none());
    let at = report
        .checks
        .iter()
        .position(|check| check.outcome == Outcome::Failed)
        .unwrap();
    for (place, check) in report.checks.iter().enumerate() {
        match check.outcome {
            Outcome::Passed | Outcome::NotAsked => assert!(place < at),
            Outcome::Failed => assert_eq!(place, at),
            Outcome::NotReached => assert!(place > at),
        }
    }
    assert_eq!(report.failed.as_ref(), Some(&report.checks[at].check));
    report.checks[at].check.clone()
}

#[test]
fn a_sound_certificate_passes_every_step() {
    let sample = Sample::new().unwrap();
    let bytes = sample.certificate(3).unwrap();
    assert!(bytes.len() < 32 * 1024, "{} bytes", bytes.len());
    let report = verify(
        &bytes,
        &sample.trust().unwrap(),
        &CertificatePolicy::default(),
    );
    assert!(report.verified, "{report:#?}");
    let steps: Vec<&str> = report
        .checks
        .iter()
        .map(|check| check.check.as_str())
        .collect();
    assert_eq!(
        steps,
        [
            "decode",
            "manifest",
            "authorization",
            "key",
            "public_key",
            "payload",
            "signatures",
            "threshold",
            "entry_cto",
            "time_cto",
            "evidence_cto",
            "log_cto",
            "witnessed_cto",
            "entry_ceo",
            "time_ceo",
            "evidence_ceo",
            "log_ceo",
            "witnessed_ceo",
        ]
    );
    let signed = report.signed.unwrap();
    assert_eq!(signed.initiator, "treasury");
    assert_eq!(signed.parties.len(), 2);
    assert!(
        signed
            .parties
            .iter()
            .all(|party| party.class == "hsm" && party.pcr0.is_none())
    );
}

#[test]
fn each_step_refuses_what_it_is_for() {
    let sample = Sample::new().unwrap();
    let sound = Certificate::decode(&sample.certificate(3).unwrap()).unwrap();
    let other = Certificate::decode(&sample.certificate(2).unwrap()).unwrap();
    let foreign = Certificate::decode(&Sample::new().unwrap().certificate(3).unwrap()).unwrap();
    type Break = fn(&mut Certificate, &Certificate, &Certificate);
    let cases: [(&str, Break); 19] = [
        ("manifest", |c, _, foreign| {
            c.manifest = foreign.manifest.clone()
        }),
        ("manifest", |c, _, _| c.manifest.signatures.clear()),
        ("authorization", |c, _, _| {
            c.request.initiator = "somebody".to_owned()
        }),
        ("authorization", |c, _, _| c.request.expire_ms += 1),
        ("authorization", |c, other, _| {
            c.request.authorization = other.request.authorization
        }),
        ("key", |c, _, _| c.key.scheme = "bip341".to_owned()),
        ("key", |c, _, _| c.key.threshold = 4),
        ("payload", |c, _, _| c.key.name = "keys/ff".to_owned()),
        ("payload", |c, _, _| c.key.allow_raw_digest = false),
        ("signatures", |c, other, _| {
            c.signatures = other.signatures.clone()
        }),
        ("signatures", |c, _, _| c.signatures.clear()),
        ("signatures", |c, _, foreign| {
            c.key.public_key = foreign.key.public_key.clone()
        }),
        ("threshold", |c, _, _| c.parties.truncate(1)),
        ("threshold", |c, _, _| c.parties[1] = c.parties[0].clone()),
        ("entry_cto", |c, other, _| c.session = other.session),
        ("entry_cto", |c, _, _| c.key.epoch = 2),
        ("evidence_cto", |c, _, _| {
            c.parties[0].log_key = Hex([9; 32])
        }),
        ("evidence_cto", |c, _, _| {
            c.parties[0].evidence = c.parties[1].evidence.clone()
        }),
        ("log_cto", |c, _, _| {
            c.parties[0].proof = c.parties[1].proof.clone()
        }),
    ];
    for (step, change) in cases {
        let mut broken = sound.clone();
        change(&mut broken, &other, &foreign);
        assert_ne!(broken, sound);
        assert_eq!(failed(&judge(&sample, &broken)), step);
    }
}

#[test]
fn a_checkpoint_that_nobody_else_vouches_for_is_not_enough() {
    let sample = Sample::new().unwrap();
    let mut certificate = Certificate::decode(&sample.certificate(3).unwrap()).unwrap();
    // The other party of this certificate is ceo; cloud is none of it.
    let proof = &mut certificate.parties[0].proof;
    let without: String = proof
        .split_inclusive('\n')
        .filter(|line| !line.contains("/ceo/witness "))
        .collect();
    assert_ne!(without, *proof);
    *proof = without;
    assert_eq!(failed(&judge(&sample, &certificate)), "witnessed_cto");
}

#[test]
fn extra_data_in_a_proof_is_refused() {
    let sample = Sample::new().unwrap();
    let mut certificate = Certificate::decode(&sample.certificate(3).unwrap()).unwrap();
    let proof = &mut certificate.parties[0].proof;
    *proof = proof.replacen("\nindex ", "\nextra aGVsbG8=\nindex ", 1);
    assert_eq!(failed(&judge(&sample, &certificate)), "log_cto");
}

#[test]
fn external_witnesses_and_the_public_key_are_asked_for() {
    let sample = Sample::new().unwrap();
    let bytes = sample.certificate(3).unwrap();
    let trust = sample.trust().unwrap();
    let key = SigningKey::from_bytes(&[5; 32]);
    let name = "witness.example/w1".parse().unwrap();
    let witness = VerifierKey::of_signing_key(name, KeyKind::CosignatureV1, &key);
    let mut policy = CertificatePolicy {
        witnesses: vec![witness],
        needed: 1,
        public_key: None,
    };
    assert_eq!(failed(&verify(&bytes, &trust, &policy)), "external_cto");
    policy.needed = 0;
    assert!(verify(&bytes, &trust, &policy).verified);
    policy.public_key = Some(vec![1; 32]);
    assert_eq!(failed(&verify(&bytes, &trust, &policy)), "public_key");
    policy.public_key = Some(Certificate::decode(&bytes).unwrap().key.public_key);
    assert!(verify(&bytes, &trust, &policy).verified);
}

#[test]
fn other_trust_refuses_at_the_manifest() {
    let (sample, other) = (Sample::new().unwrap(), Sample::new().unwrap());
    let bytes = sample.certificate(1).unwrap();
    let report = verify(
        &bytes,
        &other.trust().unwrap(),
        &CertificatePolicy::default(),
    );
    assert_eq!(failed(&report), "manifest");
}

/// An honest request under another key, with a good signature by that one.
#[test]
fn another_key_with_a_signature_of_its_own_is_not_the_one_that_the_logs_name() {
    use ed25519_dalek::Signer as _;
    let sample = Sample::new().unwrap();
    let honest = Certificate::decode(&sample.certificate(3).unwrap()).unwrap();
    let forger = SigningKey::from_bytes(&[9; 32]);
    let mut forged = honest.clone();
    forged.key.public_key = forger.verifying_key().to_bytes().to_vec();
    forged.signatures[0].signature = Hex(forger.sign(&honest.request.payload.0).to_bytes());
    assert_eq!(failed(&judge(&sample, &forged)), "entry_cto");
    let mut fewer = honest.clone();
    fewer.key.threshold = 1;
    assert_eq!(failed(&judge(&sample, &fewer)), "entry_cto");
}
