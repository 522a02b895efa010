//! Proof bundles: any bytes are refused, or written again as they were. For the entry and the log of the seeds only
//! their index, proof and checkpoint verify.

#![no_main]

use std::sync::LazyLock;

use arca_audit::bundle::TlogProof;
use arca_audit::leaf_hash;
use arca_audit::note::VerifierKey;
use libfuzzer_sys::fuzz_target;

const SEED: &[u8] = include_bytes!("../seeds/audit_tlog_proof/plain");

static HONEST: LazyLock<TlogProof> = LazyLock::new(|| TlogProof::parse(SEED).expect("a bundle"));
static LOG: LazyLock<VerifierKey> =
    LazyLock::new(|| key(include_str!("../seeds/audit_note/log_key")));
static WITNESS: LazyLock<VerifierKey> =
    LazyLock::new(|| key(include_str!("../seeds/audit_note/witness_key")));

fuzz_target!(|bytes: &[u8]| {
    let Ok(bundle) = TlogProof::parse(bytes) else {
        return;
    };
    assert_eq!(bundle.to_bytes(), bytes);
    let witnesses = std::slice::from_ref(&*WITNESS);
    if bundle.verify(&leaf_hash(&[2, 2]), &LOG, witnesses).is_ok() {
        assert_eq!((bundle.index, &bundle.proof), (HONEST.index, &HONEST.proof));
        assert_eq!(bundle.checkpoint.text(), HONEST.checkpoint.text());
    }
});

fn key(text: &str) -> VerifierKey {
    text.parse().expect("a key")
}
