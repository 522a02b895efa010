//! Checkpoints: any text is refused, or written again as it was; signed by the log of the seeds is only that of the
//! seeds, cosigned or not.

#![no_main]

use std::sync::LazyLock;

use arca_audit::checkpoint::Checkpoint;
use arca_audit::cosignature::CosignedCheckpoint;
use arca_audit::note::VerifierKey;
use libfuzzer_sys::fuzz_target;

static LOG: LazyLock<VerifierKey> =
    LazyLock::new(|| key(include_str!("../seeds/audit_note/log_key")));
static WITNESS: LazyLock<VerifierKey> =
    LazyLock::new(|| key(include_str!("../seeds/audit_note/witness_key")));

const BODY: &str = include_str!("../seeds/audit_checkpoint/body");

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(checkpoint) = text.parse::<Checkpoint>()
    {
        assert_eq!(checkpoint.to_string(), text);
    }
    let witnesses = std::slice::from_ref(&*WITNESS);
    if let Ok(cosigned) = CosignedCheckpoint::verify(bytes, &LOG, witnesses) {
        assert_eq!(cosigned.checkpoint().to_string(), BODY);
        assert!(
            cosigned
                .cosignatures()
                .iter()
                .all(|one| one.time == 1_700_000_000)
        );
        assert_eq!(
            Checkpoint::verify(bytes, &LOG).as_ref(),
            Ok(cosigned.checkpoint())
        );
    }
});

fn key(text: &str) -> VerifierKey {
    text.parse().expect("a key")
}
