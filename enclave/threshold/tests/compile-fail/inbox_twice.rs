use arca_threshold::{Dkg, Error};
use rand_core::CryptoRngCore;

fn one_inbox_for_two(one: Dkg, two: Dkg, rng: &mut dyn CryptoRngCore) -> Result<(), Error> {
    let inbox = one.inbox();
    one.advance(inbox, rng)?;
    two.advance(inbox, rng)?;
    Ok(())
}

fn main() {}
