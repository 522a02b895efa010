//! Proof bundles: written, read, verified, refused.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use arca_audit::bundle::{MAX_BUNDLE, TlogProof};
use arca_audit::checkpoint::Checkpoint;
use arca_audit::cosignature::cosign;
use arca_audit::note::{KeyKind, VerifierKey};
use arca_audit::{Error, Hash, inclusion_proof, leaf_hash, root};
use ed25519_dalek::SigningKey;

// Source: C2SP/C2SP, tlog-proof.md at 0065ea5b716154a2dd48508e3f905012a16ce5e9. Its signatures
// are cut there, with "[...]" in them; here the pieces stand together.
const EXAMPLE: &str = "c2sp.org/tlog-proof@v1\n\
    extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6kYXJ3aW4tYXJ\n\
    index 73894\n\
    gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\n\
    B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=\n\
    EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=\n\
    RoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=\n\
    AHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=\n\
    \n\
    example.com/fancylog\n\
    109482\n\
    sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=\n\
    \n\
    \u{2014} example.com/fancylog hI2DJ1roloI=\n\
    \u{2014} witness1.example mJirIklj9v2B/5bg\n\
    \u{2014} witness2.example TnKKVHLXwYwrSjgo\n\
    \u{2014} witness3.example S4X82uH5EcROGLFQ\n";

fn bundle() -> (TlogProof, Hash, VerifierKey, VerifierKey) {
    let leaves: Vec<Hash> = (0..300_u16)
        .map(|at| leaf_hash(&at.to_be_bytes()))
        .collect();
    let log_key = SigningKey::from_bytes(&[1; 32]);
    let witness_key = SigningKey::from_bytes(&[2; 32]);
    let log = VerifierKey::of_signing_key("log".parse().unwrap(), KeyKind::Ed25519, &log_key);
    let witness =
        VerifierKey::of_signing_key("w".parse().unwrap(), KeyKind::CosignatureV1, &witness_key);
    let checkpoint = Checkpoint {
        origin: log.name().clone(),
        size: 300,
        root: root(&leaves),
    };
    let mut note = checkpoint.sign(&log_key);
    note.add(cosign(&checkpoint, 7, witness.name(), &witness_key).unwrap())
        .unwrap();
    let bundle = TlogProof {
        extra: Vec::new(),
        index: 123,
        proof: inclusion_proof(&leaves, 123).unwrap(),
        checkpoint: note,
    };
    (bundle, leaves[123], log, witness)
}

#[test]
fn the_example_of_the_specification_is_read_and_written_again() {
    let bundle = TlogProof::parse(EXAMPLE.as_bytes()).unwrap();
    assert!(bundle.extra.starts_with(b"age-v1.2.1-darwin-arm64.tar.gz"));
    assert_eq!((bundle.index, bundle.proof.len()), (73_894, 5));
    assert_eq!(bundle.checkpoint.signatures().len(), 4);
    assert_eq!(bundle.to_string(), EXAMPLE);
}

#[test]
fn a_bundle_verifies_by_itself() {
    let (bundle, leaf, log, witness) = bundle();
    let read = TlogProof::parse(&bundle.to_bytes()).unwrap();
    assert_eq!(read, bundle);
    let cosigned = read
        .verify(&leaf, &log, std::slice::from_ref(&witness))
        .unwrap();
    assert_eq!(cosigned.checkpoint().size, 300);
    assert_eq!(cosigned.cosignatures()[0].time, 7);
    // Nobody asked about has vouched for it: the caller sees that.
    assert!(
        read.verify(&leaf, &log, &[])
            .unwrap()
            .cosignatures()
            .is_empty()
    );
}

#[test]
fn another_entry_index_log_or_root_does_not_verify() {
    let (bundle, leaf, log, witness) = bundle();
    let verify = |bundle: &TlogProof, leaf: &Hash, log: &VerifierKey| {
        bundle
            .verify(leaf, log, std::slice::from_ref(&witness))
            .unwrap_err()
    };
    assert_eq!(verify(&bundle, &leaf_hash(b"other"), &log), Error::Root);
    let mut wrong = bundle.clone();
    wrong.index = 122;
    assert_eq!(verify(&wrong, &leaf, &log), Error::Root);
    wrong.index = 300;
    assert_eq!(
        verify(&wrong, &leaf, &log),
        Error::BeyondTree {
            index: 300,
            size: 300
        }
    );
    let other = SigningKey::from_bytes(&[3; 32]);
    let other = VerifierKey::of_signing_key("log".parse().unwrap(), KeyKind::Ed25519, &other);
    assert_eq!(verify(&bundle, &leaf, &other), Error::Unsigned);
    // The same name and id of another key cannot be had; the same key under another name is another log.
    let renamed = VerifierKey::new("other".parse().unwrap(), KeyKind::Ed25519, log.key()).unwrap();
    assert_eq!(verify(&bundle, &leaf, &renamed), Error::Unsigned);
}

#[test]
fn what_is_no_bundle_is_refused() {
    let hash = "gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\n";
    let with = |hashes: usize| EXAMPLE.replacen(hash, &hash.repeat(hashes), 1);
    TlogProof::parse(with(59).as_bytes()).unwrap();
    TlogProof::parse(with(0).as_bytes()).unwrap();
    let extra = "extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6kYXJ3aW4tYXJ\n";
    TlogProof::parse(EXAMPLE.replace(extra, "").as_bytes()).unwrap();
    for wrong in [
        String::new(),
        "c2sp.org/tlog-proof@v1\n".to_owned(),
        EXAMPLE.replace("@v1", "@v2"),
        EXAMPLE.replace("c2sp.org/tlog-proof@v1\n", ""),
        EXAMPLE.replace(extra, "extra \n"),
        EXAMPLE.replace(extra, "extra\n"),
        EXAMPLE.replace(extra, &extra.repeat(2)),
        EXAMPLE.replace("kYXJ3aW4tYXJ\n", "kYXJ3aW4tYX\n"),
        EXAMPLE.replace("index 7", "index 07"),
        EXAMPLE.replace("index 73894", "index"),
        EXAMPLE.replace("index 73894", "index "),
        EXAMPLE.replace("index 73894\n", ""),
        EXAMPLE.replace("PlQ=", "PlR="),
        EXAMPLE.replace("5vk=\n\n", "5vk=\n"),
        with(60),
        EXAMPLE.trim_end().to_owned(),
        format!("{EXAMPLE}\n"),
        EXAMPLE.replace("YWdl", &"YWdl".repeat(MAX_BUNDLE / 4)),
    ] {
        assert!(
            matches!(
                TlogProof::parse(wrong.as_bytes()),
                Err(Error::Malformed { .. })
            ),
            "{wrong:.300}"
        );
    }
}
