//! Everybody honest: keys for every size, signatures by every subset, with and without presignatures.

// A panic is how a test fails.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

mod support;

use support::ecdsa::*;
use support::*;

#[test]
fn two_of_three() {
    let mut rng = rng(1);
    for curve in CURVES {
        let t = std::time::Instant::now();
        let keys = generate(curve, 2, 3, &mut rng);
        eprintln!("dkg {:?}", t.elapsed());
        let t = std::time::Instant::now();
        let setups = pair_up(3, &mut rng);
        eprintln!("setups {:?}", t.elapsed());
        let messages = messages(&keys, 4);
        let signers = set([1, 3]);
        let t = std::time::Instant::now();
        let pools = presign_all(&keys, &setups, &signers, 4, &mut rng);
        eprintln!("presign {:?}", t.elapsed());
        let params = signing_params(&signers, p(1), &messages, &mut rng);
        let t = std::time::Instant::now();
        let signed = online(&keys, pools, &params, &mut rng);
        eprintln!("online {:?}", t.elapsed());
        check(curve, &messages, signatures(&signed));

        let outcomes = run(sign_starts(&keys, &setups, &params, &mut rng), &mut rng);
        check(curve, &messages, coordinators(&outcomes, p(1)));
    }
}
