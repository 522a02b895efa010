//! Requests to a witness: any bytes are refused, or written again as they were. One that has seen nothing accepts only
//! what the log of the seeds signed. Responses too.

#![no_main]

use std::sync::LazyLock;

use arca_audit::witness::{AddCheckpoint, Refusal, Witness, parse_cosignatures};
use libfuzzer_sys::fuzz_target;

const BODY: &str = include_str!("../seeds/audit_checkpoint/body");

static UNSEEN: LazyLock<Witness> = LazyLock::new(|| {
    let key = include_str!("../seeds/audit_note/log_key");
    Witness::new([key.parse().expect("a key")])
});
static SEEN: LazyLock<Witness> = LazyLock::new(|| {
    let mut witness = UNSEEN.clone();
    let first = include_bytes!("../seeds/audit_add_checkpoint/first");
    let first = AddCheckpoint::parse(first).expect("a request");
    let accepted = witness.judge(&first).expect("what the log signed");
    witness.accept(accepted).expect("the first");
    witness
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(lines) = parse_cosignatures(bytes) {
        let written: String = lines.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(written.as_bytes(), bytes);
    }
    let Ok(request) = AddCheckpoint::parse(bytes) else {
        return;
    };
    assert_eq!(request.to_bytes(), bytes);
    for witness in [&*UNSEEN, &*SEEN] {
        match witness.judge(&request) {
            Ok(accepted) => assert_eq!(accepted.checkpoint().to_string(), BODY),
            Err(refusal) => {
                assert!([400, 403, 404, 409, 422].contains(&refusal.status()));
                assert!(!matches!(refusal, Refusal::Fork { .. }));
            }
        }
    }
});
