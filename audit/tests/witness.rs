//! A witness: what it cosigns, what it refuses and with which status, and the messages of its protocol.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use arca_audit::checkpoint::Checkpoint;
use arca_audit::cosignature::{CosignedCheckpoint, cosign};
use arca_audit::note::{KeyKind, NoteSignature, SignedNote, VerifierKey};
use arca_audit::witness::{
    AddCheckpoint, MAX_PROOF, Refusal, Witness, WitnessedLog, parse_cosignatures,
};
use arca_audit::{Error, Hash, Tree, consistency_proof, leaf_hash};
use ed25519_dalek::SigningKey;

// Source: C2SP/C2SP, tlog-witness.md at 055270b5928827a49ee84620903e141c2e97d79f: the two examples.
const REQUEST: &str = "old 20852014\n\
    PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
    jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
    5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
    /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\
    \n\
    example.com/behind-the-sofa\n\
    20852163\n\
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\
    \n\
    \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
    \u{2014} example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n";
const RESPONSE: &str = "\u{2014} witness.example/w1 CMp+6LWBU0anHGH5aNDTJkH/gj79sG+T6+iP2ThYN5krrDJbR1HDnucjL39QsZTSvVjyQLrdk3DXDqI5G2HgLatVs0pWh6Up69HVOw==\n\
    \u{2014} witness.example/w1 I7rEps0pvK2UqkS2gSpVUDhrhVtQV9lgF6pRrWAvjJHjyWpW7VcE3SiOlVlbQNt64vWhO+DlkL0+UfzuOBMh9ChdMkP1vi/lCAsmlw==\n\
    \u{2014} witness.example/w2 AWui8Sk55XjYLOijihBjhqEH6nS1ndDymE0a+6idX7pLcnoB+dhnz0854aLZgrrKbYKA7nC3HNJhm/kWl7oJlqU3rXXvpysAdyP3wQ==\n";

const ORIGIN: &str = "arca/simulated/treasury/ceo/1";

fn log_key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn log() -> VerifierKey {
    VerifierKey::of_signing_key(ORIGIN.parse().unwrap(), KeyKind::Ed25519, &log_key())
}

/// Leaf hashes of a history; two of them differ from the first entry on.
fn history(of: &str, size: usize) -> Vec<Hash> {
    (0..size)
        .map(|at| leaf_hash(format!("{of} {at}").as_bytes()))
        .collect()
}

fn checkpoint(leaves: &[Hash]) -> Checkpoint {
    Checkpoint {
        origin: ORIGIN.parse().unwrap(),
        size: leaves.len() as u64,
        root: leaves.iter().copied().collect::<Tree>().root(),
    }
}

/// What the log with these leaves sends to be cosigned after `old_size`.
fn request(leaves: &[Hash], old_size: u64) -> AddCheckpoint {
    AddCheckpoint {
        old_size,
        proof: consistency_proof(leaves, old_size).unwrap_or_default(),
        note: checkpoint(leaves).sign(&log_key()),
    }
}

/// A witness that has cosigned the honest log at this size.
fn witness_at(size: usize) -> Witness {
    let mut witness = Witness::new([log()]);
    if size > 0 {
        let accepted = witness
            .judge(&request(&history("honest", size), 0))
            .unwrap();
        witness.accept(accepted).unwrap();
    }
    witness
}

fn refused(witness: &Witness, request: &AddCheckpoint) -> (Refusal, u16) {
    let refusal = witness.judge(request).unwrap_err();
    (refusal, refusal.status())
}

#[test]
fn the_examples_of_the_specification_are_read_and_written_again() {
    let request = AddCheckpoint::parse(REQUEST.as_bytes()).unwrap();
    assert_eq!((request.old_size, request.proof.len()), (20_852_014, 4));
    assert_eq!(request.note.signatures().len(), 2);
    assert_eq!(request.to_string(), REQUEST);
    let lines = parse_cosignatures(RESPONSE.as_bytes()).unwrap();
    let written: String = lines.iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(written, RESPONSE);
    assert_eq!(lines[2].name().as_str(), "witness.example/w2");
}

#[test]
fn what_is_no_request_is_refused() {
    let hash = "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n";
    let proof = |hashes: usize| REQUEST.replacen(hash, &hash.repeat(hashes), 1);
    assert_eq!(
        AddCheckpoint::parse(proof(MAX_PROOF - 3).as_bytes())
            .unwrap()
            .proof
            .len(),
        63
    );
    AddCheckpoint::parse(REQUEST.replace("old 20852014", "old 0").as_bytes()).unwrap();
    for wrong in [
        String::new(),
        "\n".to_owned(),
        "old 1\n".to_owned(),
        "old 1\n\n".to_owned(),
        proof(MAX_PROOF - 2),
        REQUEST.replace("old 2", "2"),
        REQUEST.replace("old ", "old"),
        REQUEST.replace("old ", "new "),
        REQUEST.replace("old ", "old 0"),
        REQUEST.replace("20852014", ""),
        REQUEST.replace("20852014", "9223372036854775808"),
        REQUEST.replace("kaw=", "kax="),
        REQUEST.replace("kaw=", "ka"),
        REQUEST.replace("j/0=\n\n", "j/0=\n"),
        REQUEST.trim_end().to_owned(),
    ] {
        assert!(
            matches!(
                AddCheckpoint::parse(wrong.as_bytes()),
                Err(Error::Malformed { .. })
            ),
            "{wrong:?}"
        );
    }
    for wrong in [
        "",
        "\n",
        RESPONSE.trim_end(),
        &RESPONSE.replacen("w1", "w 1", 1),
        &RESPONSE.repeat(22),
    ] {
        assert!(matches!(
            parse_cosignatures(wrong.as_bytes()),
            Err(Error::Malformed { .. })
        ));
    }
}

#[test]
fn what_extends_the_last_checkpoint_is_cosigned() {
    let key = SigningKey::from_bytes(&[2; 32]);
    let own = VerifierKey::of_signing_key(
        "witness.example".parse().unwrap(),
        KeyKind::CosignatureV1,
        &key,
    );
    let mut witness = Witness::new([log()]);
    let origin = ORIGIN.parse().unwrap();
    let mut last = 0;
    // The first, a larger one, the same again, much larger.
    for size in [1, 5, 5, 300] {
        let leaves = history("honest", size);
        let sent = request(&leaves, last);
        let accepted = witness
            .judge(&AddCheckpoint::parse(&sent.to_bytes()).unwrap())
            .unwrap();
        assert_eq!(*accepted.note(), sent.note);
        // Until it is accepted nothing has changed.
        assert_eq!(
            witness
                .log(&origin)
                .unwrap()
                .last()
                .map_or(0, |last| last.size),
            last
        );
        let checkpoint = witness.accept(accepted).unwrap();
        let line = cosign(&checkpoint, 1_700_000_000, own.name(), &key).unwrap();

        // The log reads the response and has a cosigned checkpoint.
        let lines = parse_cosignatures(format!("{line}\n").as_bytes()).unwrap();
        let mut note = sent.note.clone();
        for line in lines {
            note.add(line).unwrap();
        }
        let cosigned =
            CosignedCheckpoint::verify(&note.to_bytes(), &log(), std::slice::from_ref(&own))
                .unwrap();
        assert_eq!(cosigned.cosignatures().len(), 1);
        last = size as u64;
        assert_eq!(witness.log(&origin).unwrap().last(), Some(&checkpoint));
    }
}

#[test]
fn an_empty_log_may_be_cosigned() {
    let mut witness = Witness::new([log()]);
    let accepted = witness.judge(&request(&[], 0)).unwrap();
    witness.accept(accepted).unwrap();
    let accepted = witness.judge(&request(&history("honest", 3), 0)).unwrap();
    witness.accept(accepted).unwrap();
    // Not again: it would be a step back.
    let conflict = (Refusal::Conflict { size: 3 }, 409);
    assert_eq!(refused(&witness, &request(&[], 0)), conflict);
}

#[test]
fn each_refusal_has_the_status_of_the_specification() {
    let witness = witness_at(5);
    let honest = history("honest", 9);
    let forked = history("forked", 9);

    // 404: another log's checkpoint.
    let mut foreign = checkpoint(&honest);
    foreign.origin = "arca/simulated/treasury/cto/1".parse().unwrap();
    let mut wrong = request(&honest, 5);
    wrong.note = foreign.sign(&log_key());
    assert_eq!(refused(&witness, &wrong), (Refusal::UnknownOrigin, 404));

    // 403: signed by nobody that is known, or wrongly by the log.
    let mut wrong = request(&honest, 5);
    wrong.note = checkpoint(&honest).sign(&SigningKey::from_bytes(&[9; 32]));
    assert_eq!(refused(&witness, &wrong), (Refusal::Signature, 403));
    let line = checkpoint(&forked).sign(&log_key()).signatures()[0].clone();
    wrong.note = SignedNote::new(checkpoint(&honest).to_string(), vec![line]).unwrap();
    assert_eq!(refused(&witness, &wrong), (Refusal::Signature, 403));

    // 400: the old size is beyond the new one; no checkpoint at all.
    assert_eq!(
        refused(&witness, &request(&honest[..3], 4)),
        (Refusal::OldBeyondNew, 400)
    );
    let mut wrong = request(&honest, 5);
    let text = "no checkpoint\n";
    let line = arca_audit::note::sign(text, log().name(), &log_key());
    wrong.note = SignedNote::new(text.to_owned(), vec![line]).unwrap();
    let (refusal, status) = refused(&witness, &wrong);
    assert!(matches!(refusal, Refusal::Malformed(_)));
    assert_eq!(status, 400);

    // 409: from another size than the last, be it more, less or none; a log that shrinks.
    let conflict = (Refusal::Conflict { size: 5 }, 409);
    for old in [0, 4, 6, 9] {
        assert_eq!(refused(&witness, &request(&honest, old)), conflict);
    }
    for shrunk in [1, 4] {
        assert_eq!(
            refused(&witness, &request(&honest[..shrunk], shrunk as u64)),
            conflict
        );
    }
    assert_eq!(conflict.0.size(), Some(5));

    // 422: what does not extend it; a proof too much; none.
    assert_eq!(
        refused(&witness, &request(&forked, 5)),
        (Refusal::Proof, 422)
    );
    let mut wrong = request(&honest, 5);
    wrong.proof.push([0; 32]);
    assert_eq!(refused(&witness, &wrong), (Refusal::Proof, 422));
    wrong.proof.clear();
    assert_eq!(refused(&witness, &wrong), (Refusal::Proof, 422));
    wrong = request(&honest[..5], 5);
    wrong.proof.push([0; 32]);
    assert_eq!(refused(&witness, &wrong), (Refusal::Proof, 422));
    let unseen = Witness::new([log()]);
    wrong = request(&honest, 0);
    wrong.proof.push([0; 32]);
    assert_eq!(refused(&unseen, &wrong), (Refusal::Proof, 422));
}

#[test]
fn two_checkpoints_of_one_size_are_a_fork_and_both_are_kept() {
    let witness = witness_at(5);
    let log = witness.log(&ORIGIN.parse().unwrap()).unwrap();
    // From whatever size it claims to come.
    for old_size in [0, 3, 5, 7] {
        let mut shown = request(&history("forked", 5), 0);
        shown.old_size = old_size;
        assert_eq!(refused(&witness, &shown), (Refusal::Fork { size: 5 }, 409));
        // The proof of it: two notes that the log signed.
        let first = Checkpoint::verify_note(log.last_note().unwrap(), log.key()).unwrap();
        let second = Checkpoint::verify_note(&shown.note, log.key()).unwrap();
        assert_eq!(first.size, second.size);
        assert_ne!(first.root, second.root);
    }
}

#[test]
fn of_two_that_were_judged_together_one_is_accepted() {
    let mut witness = witness_at(5);
    let honest = history("honest", 9);
    let shorter = witness.judge(&request(&honest[..7], 5)).unwrap();
    let longer = witness.judge(&request(&honest, 5)).unwrap();
    witness.accept(longer).unwrap();
    // It would roll the witness back.
    assert_eq!(witness.accept(shorter), Err(Refusal::Conflict { size: 9 }));
    assert_eq!(
        witness
            .log(&ORIGIN.parse().unwrap())
            .unwrap()
            .last()
            .unwrap()
            .size,
        9
    );

    let mut other = WitnessedLog::new(VerifierKey::of_signing_key(
        "other".parse().unwrap(),
        KeyKind::Ed25519,
        &log_key(),
    ));
    let accepted = witness.judge(&request(&honest, 9)).unwrap();
    assert_eq!(other.accept(accepted.clone()), Err(Refusal::UnknownOrigin));
    assert_eq!(
        Witness::default().accept(accepted),
        Err(Refusal::UnknownOrigin)
    );
}

#[test]
fn a_witness_goes_on_from_what_it_stored() {
    let leaves = history("honest", 9);
    let key = SigningKey::from_bytes(&[2; 32]);
    let mut sent = request(&leaves[..5], 0);
    let line: NoteSignature =
        cosign(&checkpoint(&leaves[..5]), 1, &"w".parse().unwrap(), &key).unwrap();
    sent.note.add(line).unwrap();
    let accepted = Witness::new([log()]).judge(&sent).unwrap();
    // Only the log's own signature is kept.
    assert_eq!(accepted.note().signatures().len(), 1);
    let stored = SignedNote::parse(&accepted.note().to_bytes()).unwrap();

    let mut witness = Witness::default();
    witness.insert(WitnessedLog::resume(log(), &stored).unwrap());
    assert_eq!(witness.logs().count(), 1);
    assert_eq!(
        refused(&witness, &request(&leaves, 0)),
        (Refusal::Conflict { size: 5 }, 409)
    );
    witness.judge(&request(&leaves, 5)).unwrap();

    let mut foreign = checkpoint(&leaves);
    foreign.origin = "other".parse().unwrap();
    WitnessedLog::resume(log(), &foreign.sign(&log_key())).unwrap_err();
}
