use arca_threshold::{Error, Signing};
use rand_core::CryptoRngCore;

fn twice(signing: Signing, rng: &mut dyn CryptoRngCore) -> Result<(), Error> {
    let (first, second) = (signing.inbox(), signing.inbox());
    signing.advance(first, rng)?;
    signing.advance(second, rng)?;
    Ok(())
}

fn main() {}
