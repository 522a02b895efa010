//! Signed notes and verifier keys: any bytes are refused, or written again as they were. Under the keys of the seeds
//! only the text of the seeds is signed.

#![no_main]

use std::sync::LazyLock;

use arca_audit::note::{SignedNote, VerifierKey};
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<[VerifierKey; 2]> = LazyLock::new(|| {
    [
        include_str!("../seeds/audit_note/log_key"),
        include_str!("../seeds/audit_note/witness_key"),
    ]
    .map(|key| key.parse().expect("a key"))
});

const TEXT: &str = include_str!("../seeds/audit_checkpoint/body");

fuzz_target!(|bytes: &[u8]| {
    if let Ok(note) = SignedNote::parse(bytes) {
        assert_eq!(note.to_bytes(), bytes);
        let again = SignedNote::new(note.text().to_owned(), note.signatures().to_vec());
        assert_eq!(again.as_ref(), Ok(&note));
        for line in note.signatures() {
            assert_eq!(line.to_string().parse().as_ref(), Ok(line));
        }
        if note.verify(&*KEYS).is_ok() {
            assert_eq!(note.text(), TEXT);
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(key) = text.parse::<VerifierKey>()
    {
        assert_eq!(key.to_string(), text);
    }
});
