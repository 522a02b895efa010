//! Signed notes, checkpoints and cosignatures: published examples, and what must be refused.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use arca_audit::Error;
use arca_audit::checkpoint::Checkpoint;
use arca_audit::cosignature::{CosignedCheckpoint, cosign};
use arca_audit::note::{
    KeyKind, KeyName, MAX_SIGNATURES, NoteSignature, SignedNote, VerifierKey, sign,
};
use arca_audit::{leaf_hash, root};
use base64ct::{Base64, Encoding};
use ed25519_dalek::{Signer as _, SigningKey};

// Source: golang.org/x/mod, sumdb/note/note_test.go, example keys and note.
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const PETERS_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\
    \n\
    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

// Source: C2SP/C2SP, signed-note.md at 055287621bf3cd13ff4394418a3e8efc2d5e8ed7. No key is published for this and
// the next two.
const POEM: &str = "Ognuno sta solo sul cuor della terra\n\
    trafitto da un raggio di sole:\n\
    \n\
    ed è subito sera.\n\
    \n\
    \u{2014} quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";

// Source: C2SP/C2SP, tlog-checkpoint.md at 2793893976c835db049c194d8f2c4f946dcb70ba.
const SOFA: &str = "example.com/behind-the-sofa\n\
    20852163\n\
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\
    \n\
    \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

// Source: C2SP/C2SP, tlog-cosignature.md at 01194db11950a0ae2b2b2401afa0a4063a822458: the line under that checkpoint.
const WITNESS_LINE: &str = "\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==";

fn name(name: &str) -> KeyName {
    name.parse().unwrap()
}

fn log() -> (SigningKey, VerifierKey) {
    let key = SigningKey::from_bytes(&[1; 32]);
    let verifier = VerifierKey::of_signing_key(
        name("arca/simulated/treasury/ceo/1"),
        KeyKind::Ed25519,
        &key,
    );
    (key, verifier)
}

fn witness(seed: u8, called: &str) -> (SigningKey, VerifierKey) {
    let key = SigningKey::from_bytes(&[seed; 32]);
    let verifier = VerifierKey::of_signing_key(name(called), KeyKind::CosignatureV1, &key);
    (key, verifier)
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        origin: name("arca/simulated/treasury/ceo/1"),
        size: 2,
        root: root(&[leaf_hash(b"one"), leaf_hash(b"two")]),
    }
}

#[test]
fn a_published_note_verifies_under_its_published_key() {
    let key: VerifierKey = PETER.parse().unwrap();
    assert_eq!(key.to_string(), PETER);
    assert_eq!(key.kind(), KeyKind::Ed25519);
    let note = SignedNote::parse(PETERS_NOTE.as_bytes()).unwrap();
    assert_eq!(note.to_string(), PETERS_NOTE);
    let keys = [key];
    let signed = note.verify(&keys).unwrap();
    assert_eq!((signed[0].key, signed[0].time), (&keys[0], None));
}

#[test]
fn the_examples_of_the_specifications_are_read_and_written_again() {
    let note = SignedNote::parse(POEM.as_bytes()).unwrap();
    assert_eq!(note.to_string(), POEM);
    assert!(note.text().ends_with("sole:\n\ned è subito sera.\n"));

    let note = SignedNote::parse(SOFA.as_bytes()).unwrap();
    let checkpoint: Checkpoint = note.text().parse().unwrap();
    assert_eq!(checkpoint.origin.as_str(), "example.com/behind-the-sofa");
    assert_eq!(checkpoint.size, 20_852_163);
    assert_eq!(checkpoint.to_string(), note.text());

    let line: NoteSignature = WITNESS_LINE.parse().unwrap();
    assert_eq!(line.to_string(), WITNESS_LINE);
    // The specification's example of a signed message has this time.
    assert_eq!(line.bytes()[..8], 1_679_315_147_u64.to_be_bytes());
    let both = format!("{SOFA}{WITNESS_LINE}\n");
    let note = SignedNote::parse(both.as_bytes()).unwrap();
    assert_eq!(note.to_string(), both);
}

#[test]
fn a_log_signs_and_a_witness_cosigns() {
    let (key, log) = log();
    let (witness_key, witness_1) = witness(2, "witness.example.com/w1");
    let (_, witness_2) = witness(3, "witness.example.com/w2");
    let mut note = checkpoint().sign(&key);
    assert_eq!(
        Checkpoint::verify(&note.to_bytes(), &log).unwrap(),
        checkpoint()
    );

    note.add(cosign(&checkpoint(), 1_700_000_000, witness_1.name(), &witness_key).unwrap())
        .unwrap();
    let witnesses = [witness_2, witness_1.clone()];
    let cosigned = CosignedCheckpoint::verify(&note.to_bytes(), &log, &witnesses).unwrap();
    assert_eq!(*cosigned.checkpoint(), checkpoint());
    assert_eq!(cosigned.cosignatures().len(), 1);
    assert_eq!(cosigned.cosignatures()[0].key, witness_1);
    assert_eq!(cosigned.cosignatures()[0].time, 1_700_000_000);

    // A later one of the same witness takes the place of the first.
    note.add(cosign(&checkpoint(), 1_700_000_001, witness_1.name(), &witness_key).unwrap())
        .unwrap();
    assert_eq!(note.signatures().len(), 2);
    let cosigned = CosignedCheckpoint::verify(&note.to_bytes(), &log, &witnesses).unwrap();
    assert_eq!(cosigned.cosignatures()[0].time, 1_700_000_001);

    // The log's signature remains when only that is asked for.
    assert_eq!(note.only(&[log]).unwrap(), checkpoint().sign(&key));
}

#[test]
fn only_known_keys_count_and_they_must_be_right() {
    let (key, log) = log();
    let (other_key, other) = witness(9, "elsewhere");
    let mut note = checkpoint().sign(&key);

    // Unknown keys are ignored, even with the right name or id alone.
    let foreign = VerifierKey::new(log.name().clone(), KeyKind::Ed25519, other.key()).unwrap();
    note.add(sign(note.text(), foreign.name(), &other_key))
        .unwrap();
    note.add(sign(note.text(), &name("elsewhere"), &key))
        .unwrap();
    Checkpoint::verify(&note.to_bytes(), &log).unwrap();
    let stranger = VerifierKey::new(name("stranger"), KeyKind::Ed25519, other.key()).unwrap();
    assert_eq!(note.verify(&[stranger]), Err(Error::Unsigned));

    // A known key's signature over another text.
    let moved = sign("another text\n", log.name(), &key);
    let forged = SignedNote::new(note.text().to_owned(), vec![moved.clone()]).unwrap();
    assert_eq!(
        forged.verify(std::slice::from_ref(&log)),
        Err(Error::BadSignature)
    );
    // It is not outweighed by a good one.
    let good = sign(note.text(), &name("elsewhere"), &other_key);
    let elsewhere = VerifierKey::of_signing_key(name("elsewhere"), KeyKind::Ed25519, &other_key);
    let mixed = SignedNote::new(note.text().to_owned(), vec![moved, good]).unwrap();
    assert_eq!(
        mixed.verify(&[elsewhere, log.clone()]),
        Err(Error::BadSignature)
    );

    let line = note.signatures()[0].clone();
    let twice = SignedNote::new(note.text().to_owned(), vec![line.clone(), line]).unwrap();
    assert_eq!(twice.verify(&[log]), Err(Error::DuplicateSignature));
}

#[test]
fn a_log_speaks_for_itself_alone() {
    let (key, log) = log();
    let mut foreign = checkpoint();
    foreign.origin = name("arca/simulated/treasury/cto/1");
    let text = foreign.to_string();
    let line = sign(&text, log.name(), &key);
    let note = SignedNote::new(text, vec![line]).unwrap();
    assert_eq!(Checkpoint::verify_note(&note, &log), Err(Error::Origin));
}

#[test]
fn a_log_key_is_no_witness_and_a_witness_key_no_log() {
    let (key, log) = log();
    let note = checkpoint().sign(&key);
    let same_key = VerifierKey::of_signing_key(log.name().clone(), KeyKind::CosignatureV1, &key);
    assert_eq!(
        Checkpoint::verify_note(&note, &same_key),
        Err(Error::KeyKind)
    );
    assert_eq!(
        CosignedCheckpoint::verify_note(&note, &log, std::slice::from_ref(&log)),
        Err(Error::KeyKind)
    );
    // Nor does the log's own signature pass for a cosignature of the same key.
    let mut bytes = same_key.id().0.to_vec();
    bytes.extend([0; 8]);
    bytes.extend(note.signatures()[0].bytes());
    let line = format!("\u{2014} {} {}", log.name(), Base64::encode_string(&bytes));
    assert_eq!(
        same_key.verify(note.text(), &line.parse().unwrap()),
        Err(Error::BadSignature)
    );
}

#[test]
fn a_cosignature_is_of_one_text_and_one_time() {
    let (witness_key, witness) = witness(2, "w");
    let line = cosign(&checkpoint(), 7, witness.name(), &witness_key).unwrap();
    assert_eq!(
        witness.verify(&checkpoint().to_string(), &line),
        Ok(Some(7))
    );
    let mut larger = checkpoint();
    larger.size += 1;
    assert_eq!(
        witness.verify(&larger.to_string(), &line),
        Err(Error::BadSignature)
    );
    assert_eq!(
        cosign(&checkpoint(), 1 << 63, witness.name(), &witness_key),
        Err(Error::Time)
    );
}

#[test]
fn a_time_that_no_format_carries_is_refused_even_when_signed() {
    let (witness_key, witness) = witness(2, "w");
    let text = checkpoint().to_string();
    // As a witness would that does not look at it; the largest that is allowed beside the smallest that is not.
    let line = |time: u64| {
        let message = format!("cosignature/v1\ntime {time}\n{text}");
        let mut bytes = witness.id().0.to_vec();
        bytes.extend(time.to_be_bytes());
        bytes.extend(witness_key.sign(message.as_bytes()).to_bytes());
        let line = format!("\u{2014} w {}", Base64::encode_string(&bytes));
        witness.verify(&text, &line.parse().unwrap())
    };
    let most = (1 << 63) - 1;
    assert_eq!(line(most), Ok(Some(most)));
    assert_eq!(line(most + 1), Err(Error::Time));
}

#[test]
fn what_is_no_note_is_refused() {
    let line = &PETERS_NOTE[PETERS_NOTE.find('\u{2014}').unwrap()..];
    let many = |count: usize| format!("text\n\n{}", line.repeat(count));
    SignedNote::parse(many(MAX_SIGNATURES).as_bytes()).unwrap();
    // An empty text is one empty line.
    SignedNote::parse(format!("\n\n{line}").as_bytes()).unwrap();
    let wrong = [
        String::new(),
        "text\n".to_owned(),
        "text\n\n".to_owned(),
        format!("text\n{line}"),
        format!("\n{line}"),
        format!("text\n\n{}", line.trim_end()),
        format!("text\n\n{line}\n"),
        format!("text\n\n{line}more\n"),
        format!("text\r\n\n{line}"),
        format!("te\txt\n\n{line}"),
        format!("text\n\n{}", line.replace('\u{2014}', "-")),
        format!("text\n\n{}", line.replace("Peter", "Peter+")),
        format!("text\n\n{}", line.replace("Peter", "Peter\u{a0}")),
        format!("text\n\n{}", line.replace("PeterNeumann", "")),
        format!("text\n\n{}", line.replace("JnAM=", "JnAM")),
        format!("text\n\n{}", line.replace("JnAM=", "JnAN=")),
        "text\n\n\u{2014} name AAAAAA==\n".to_owned(),
        many(MAX_SIGNATURES + 1),
        format!("{}\n\n{line}", "x".repeat(1 << 20)),
    ];
    for wrong in wrong {
        assert!(
            matches!(
                SignedNote::parse(wrong.as_bytes()),
                Err(Error::Malformed { .. })
            ),
            "{wrong:.80?}"
        );
    }
    let mut bytes = PETERS_NOTE.as_bytes().to_vec();
    bytes[0] = 0xff;
    SignedNote::parse(&bytes).unwrap_err();
}

#[test]
fn what_is_no_verifier_key_is_refused() {
    let wrong = [
        String::new(),
        "PeterNeumann".to_owned(),
        "PeterNeumann+c74f20a3".to_owned(),
        "PeterNeumann+c74f20a3+".to_owned(),
        PETER.replace("c74f", "C74F"),
        PETER.replace("c74f", "c74e"),
        PETER.replace("Neumann", "Newmann"),
        PETER.replace("Neumann", " Neumann"),
        PETER.replace("+ARpc", "+Apc"),
        // Another kind, with its right id or not.
        PETER.replace("+ARpc", "+Ahpc"),
        format!("{PETER}="),
        // The neutral element, which verifies signatures that anybody can make.
        "zero+00000000+AQEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
    ];
    for wrong in wrong {
        assert!(
            matches!(wrong.parse::<VerifierKey>(), Err(Error::Malformed { .. })),
            "{wrong:?}"
        );
    }
    let mut neutral = [0; 32];
    neutral[0] = 1;
    VerifierKey::new(name("zero"), KeyKind::Ed25519, &neutral).unwrap_err();
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let right = "origin\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    right.parse::<Checkpoint>().unwrap();
    "origin\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
        .parse::<Checkpoint>()
        .unwrap();
    let wrong = [
        String::new(),
        right.trim_end().to_owned(),
        right.replace("origin", ""),
        right.replace("origin", "two words"),
        right.replace("20852163", "020852163"),
        right.replace("20852163", "-1"),
        right.replace("20852163", "0x10"),
        right.replace("20852163", "9223372036854775808"),
        right.replace("20852163", "0"),
        right.replace("CsUY", ""),
        right.replace("2I=", "2J="),
        format!("{right}extension\n"),
        format!("{right}\n"),
        format!("\n{right}"),
    ];
    for wrong in wrong {
        assert!(
            matches!(wrong.parse::<Checkpoint>(), Err(Error::Malformed { .. })),
            "{wrong:?}"
        );
    }
}
